//! `POST /drain_listeners?graceful`: who is told to go, by which response, and what of those that have none.

use std::time::{Duration, Instant};

use http::StatusCode;
use integration_tests::h2::{Manners, kind};
use integration_tests::h3::{self, Client, Raw};
use integration_tests::proxy::Options;
use integration_tests::{Config, End, H2Client, Origin, Proxy, Wire, wait};
use serde_json::json;

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

/// Drains for so many seconds, in which every response announces the close.
fn start(config: &Config, seconds: u32) -> Proxy {
    with_strategy(config, seconds, "immediate")
}

fn with_strategy(config: &Config, seconds: u32, strategy: &str) -> Proxy {
    let arguments = ["--drain-time-s", &seconds.to_string(), "--drain-strategy", strategy];
    let arguments = arguments.map(str::to_owned).to_vec();
    Options { arguments, ..Options::default() }.start(config)
}

/// Connections end soon after they were told.
fn config(origin: &Origin) -> Config {
    Config::new(origin.address()).hcm(json!({"codec_type": "AUTO", "drain_timeout": "0.3s"}))
}

fn drain(proxy: &Proxy, query: &str) {
    assert_eq!(proxy.admin.post(&format!("/drain_listeners?{query}")).text(), "OK\n");
}

fn http(proxy: &Proxy, name: &str) -> u64 {
    proxy.stat(&format!("http.ingress.downstream_{name}"))
}

#[test]
fn responses_announce_the_close_and_new_clients_are_served_meanwhile() {
    let origin = Origin::ok();
    let proxy = start(&config(&origin), 60);
    let mut old = proxy.connect();
    assert!(!old.ask(GET).closes());
    let multiplexed = H2Client::connect(proxy.address);
    assert_eq!(multiplexed.ask("/").status(), 200);
    let mut idle = proxy.connect();
    idle.ask(GET);
    drain(&proxy, "graceful");
    wait::until("the drain", || proxy.get("/").closes());
    assert!(old.ask(GET).closes());
    assert_eq!(old.end(), End::Fin);
    assert_eq!(multiplexed.ask("/").status(), 200);
    assert_eq!(multiplexed.await_goaway().0, 0x7fff_ffff);
    assert_eq!(multiplexed.end(), End::Fin);
    assert_eq!(multiplexed.frames_of(kind::GOAWAY).len(), 2);
    assert!(idle.is_quiet_for(Duration::from_millis(50)), "it has most of the minute");
    // Nothing takes it back.
    proxy.admin.post("/healthcheck/ok");
    assert!(proxy.get("/").closes());
    assert_eq!(proxy.admin.get("/ready").text(), "LIVE\n");
    assert_eq!(proxy.stat("listener_manager.listener_stopped"), 0);
}

/// The share of the responses that announce the close grows with the time.
#[test]
fn gradually_responses_announce_the_close() {
    let origin = Origin::ok();
    let proxy = with_strategy(&config(&origin), 3600, "gradual");
    assert!(proxy.admin.get("/server_info").text().contains("\"drain_strategy\": \"Gradual\""));
    let mut old = proxy.connect();
    old.ask(GET);
    drain(&proxy, "graceful");
    let told = (0..50).filter(|_| proxy.get("/").closes()).count();
    assert!(told < 10, "after a moment of an hour: {told}");
    assert!(!old.ask(GET).closes());
    let proxy = with_strategy(&config(&origin), 2, "gradual");
    let mut old = proxy.connect();
    old.ask(GET);
    drain(&proxy, "graceful&skip_exit");
    wait::until("the first half", || proxy.get("/").closes());
    assert!((0..20).all(|_| proxy.get("/").closes()), "all from then on");
    assert_eq!(old.end(), End::Fin);
    assert!((0..20).all(|_| proxy.get("/").closes()), "and behind the end");
}

/// Clients that have asked nothing yet are told, too: by the end.
#[test]
fn unused_connections_go_before_the_end() {
    let origin = Origin::ok();
    let proxy = start(&config(&origin), 1);
    let mut unused = proxy.connect();
    wait::until("it is there", || http(&proxy, "cx_active") == 1);
    drain(&proxy, "skip_exit");
    assert_eq!(unused.end(), End::Fin);
    wait::until("its count", || http(&proxy, "cx_drain_close") == 1);
}

#[test]
fn idle_connections_go_before_the_end() {
    let origin = Origin::ok();
    let proxy = start(&config(&origin), 2);
    let mut idle = proxy.connect();
    idle.ask(GET);
    let multiplexed = H2Client::with(proxy.address, Manners::default());
    assert_eq!(multiplexed.ask("/").status(), 200);
    let began = Instant::now();
    drain(&proxy, "graceful");
    assert_eq!(multiplexed.await_goaway().0, 0x7fff_ffff);
    assert!(began.elapsed() >= Duration::from_millis(1300), "{:?}", began.elapsed());
    assert_eq!((multiplexed.end(), idle.end()), (End::Fin, End::Fin));
    wait::until("the listener's end", || Wire::try_connect(proxy.address).is_err());
    assert!(began.elapsed() >= Duration::from_secs(2));
    wait::until("both are counted", || http(&proxy, "cx_drain_close") == 2);
    wait::until("neither is open", || http(&proxy, "cx_active") == 0);
    assert_eq!(http(&proxy, "cx_idle_timeout"), 0);
    assert_eq!(proxy.stat("listener_manager.listener_stopped"), 1);
}

#[test]
fn http3_connections_are_told_by_goaway() {
    let origin = Origin::ok();
    let proxy = start(&config(&origin).http3(), 60);
    h3::run(async {
        let client = Client::connect(proxy.address);
        assert_eq!(client.get("/").await.unwrap().status, StatusCode::OK);
        drain(&proxy, "graceful");
        assert_eq!(client.get("/").await.unwrap().status, StatusCode::OK);
        client.await_event("GoAway").await;
        let events = client.closed().await;
        assert!(events.last().unwrap().starts_with("Closed"), "{events:?}");
        // Accepted, and told so.
        let late = Client::connect(proxy.address);
        assert_eq!(late.get("/").await.unwrap().status, StatusCode::OK);
        late.await_event("GoAway").await;
    });
    wait::until("both are counted", || http(&proxy, "cx_drain_close") == 2);
}

#[test]
fn idle_http3_connections_are_told_before_the_end() {
    let origin = Origin::ok();
    let proxy = start(&config(&origin).http3(), 2);
    let (goaways, close) = h3::run(async {
        let idle = Raw::connect(proxy.address).await;
        drain(&proxy, "graceful");
        idle.end().await
    });
    assert_eq!((goaways.len(), goaways[1]), (2, 0), "{goaways:?}");
    assert!(close.starts_with("transport ") && close.ends_with("triggered_delayed_close_timeout"), "{close}");
    wait::until("its count", || http(&proxy, "cx_drain_close") == 1);
    assert_eq!(proxy.stat("http3.goaway_sent"), 1);
}

/// `skip_exit` tells connections and goes on accepting; `inboundonly` is about listeners that say so.
#[test]
fn a_drain_may_leave_listeners_open_or_alone() {
    let origin = Origin::ok();
    let proxy = start(&config(&origin), 1);
    drain(&proxy, "graceful&inboundonly");
    let mut client = proxy.connect();
    assert!(!client.ask(GET).closes());
    drain(&proxy, "skip_exit");
    wait::until("the drain", || client.ask(GET).closes());
    assert_eq!(client.end(), End::Fin);
    wait::until("its end", || http(&proxy, "cx_active") == 0);
    assert!(proxy.get("/").closes());
    assert_eq!(proxy.stat("listener_manager.listener_stopped"), 0);
}
