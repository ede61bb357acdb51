//! QUIC's race with TCP (`auto_config` with HTTP/3), over a path for UDP that is open, dropped, delayed or refused, and
//! one that changes: who serves the first stream, when the second attempt begins, what later streams use, what is
//! broken and when it heals.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use integration_tests::origin::Gate;
use integration_tests::race::{Host, Ways, broken_until, front, hint, selecting};
use integration_tests::{Config, Origin, Proxy, wait};
use serde_json::json;
use tidegate_testkit::udp::Quality;

/// How long QUIC has for itself.
const ALONE: Duration = Duration::from_millis(300);

/// More than QUIC may need on a machine that is busy.
const SLOW: Duration = Duration::from_millis(700);

/// Knows that the host takes HTTP/3.
fn knowing(host: &Host) -> Config {
    front(host.address(), hint(host.address().port()))
}

/// The version by which a request went.
#[track_caller]
fn by(proxy: &Proxy) -> String {
    let response = proxy.get("/");
    assert_eq!(response.status, 200, "{}", response.text());
    response.header("x-by").unwrap().to_owned()
}

fn count(proxy: &Proxy, name: &str) -> u64 {
    proxy.stat(&format!("cluster.origin.{name}"))
}

#[track_caller]
fn until_http3(proxy: &Proxy) {
    wait::until("HTTP/3", || by(proxy) == "HTTP/3");
}

#[test]
fn on_an_open_path_quic_serves_all_streams() {
    let origin = Origin::ok();
    let host = Host::start(&origin, Ways { tcp: SLOW, ..Ways::default() });
    let proxy = Proxy::start(&knowing(&host));
    let asked = Instant::now();
    assert_eq!([by(&proxy), by(&proxy)], ["HTTP/3", "HTTP/3"]);
    assert!(host.tcp.connected().iter().all(|at| *at >= asked + ALONE), "QUIC has its time for itself");
    let handshakes = count(&proxy, "upstream_cx_http3_total");
    assert_eq!((handshakes, count(&proxy, "upstream_http3_broken")), (1, 0));
    assert_eq!(broken_until(&proxy), None);
}

#[test]
fn on_a_path_of_100_ms_quic_is_in_time() {
    let origin = Origin::ok();
    let udp = Quality::Delayed(Duration::from_millis(50));
    let host = Host::start(&origin, Ways { udp, tcp: SLOW, ..Ways::default() });
    let proxy = Proxy::start(&knowing(&host));
    let asked = Instant::now();
    assert_eq!(by(&proxy), "HTTP/3");
    assert!(asked.elapsed() >= Duration::from_millis(200), "two round trips");
    assert_eq!(by(&proxy), "HTTP/3");
    assert!(host.tcp.connected().iter().all(|at| *at >= asked + ALONE), "QUIC has its time for itself");
    assert_eq!(count(&proxy, "upstream_http3_broken"), 0);
}

/// It may be that this machine stands still until QUIC is there, but not each time.
#[test]
fn on_a_path_of_400_ms_tcp_serves_the_first_stream_and_quic_the_later_ones() {
    let origin = Origin::ok();
    let udp = Quality::Delayed(Duration::from_millis(400));
    let tried = (0..10).find_map(|_| {
        let host = Host::start(&origin, Ways { udp, ..Ways::default() });
        let proxy = Proxy::start(&knowing(&host));
        let asked = Instant::now();
        let first = by(&proxy);
        let (quic, tcp) = (host.udp.sent()[0].at, host.tcp.connected()[0]);
        assert!(quic < tcp && tcp >= asked + ALONE, "TCP came second: {:?} after the request", tcp - asked);
        (first == "HTTP/2").then_some((host, proxy))
    });
    let (_host, proxy) = tried.unwrap();
    // Its attempt went on, and is preferred now that both stand.
    until_http3(&proxy);
    assert_eq!([by(&proxy), by(&proxy)], ["HTTP/3", "HTTP/3"]);
    assert_eq!((count(&proxy, "upstream_cx_http3_total"), count(&proxy, "upstream_cx_http2_total")), (1, 1));
    assert_eq!((count(&proxy, "upstream_http3_broken"), broken_until(&proxy)), (0, None));
}

#[test]
fn on_a_black_hole_one_request_waits_and_the_path_is_found_again() {
    let origin = Origin::ok();
    let host = Host::start(&origin, Ways { udp: Quality::Dropped, ..Ways::default() });
    let proxy = Proxy::start(&knowing(&host).cluster(json!({"connect_timeout": "2s"})));
    let asked = Instant::now();
    assert_eq!(by(&proxy), "HTTP/2");
    let (quic, tcp) = (host.udp.sent()[0].at, host.tcp.connected()[0]);
    assert!(quic < tcp && tcp >= asked + ALONE, "TCP came second: {:?} after the request", tcp - asked);
    // The next one finds a connection.
    assert_eq!(by(&proxy), "HTTP/2");
    assert_eq!((host.tcp.connected().len(), count(&proxy, "upstream_http3_broken")), (1, 0));
    proxy.admin.await_stat("cluster.origin.upstream_http3_broken", 1);
    assert_eq!(count(&proxy, "upstream_cx_connect_timeout"), 1);
    assert!(broken_until(&proxy).is_some());

    host.udp.set(Quality::Open);
    until_http3(&proxy);
    assert_eq!(broken_until(&proxy), None, "a success heals");
    assert_eq!(by(&proxy), "HTTP/3");
    assert_eq!((host.tcp.connected().len(), count(&proxy, "upstream_cx_http3_total")), (1, 2));
}

#[test]
fn a_refused_path_starts_tcp_at_once() {
    let origin = Origin::ok();
    let host = Host::start(&origin, Ways { udp: Quality::Refused, ..Ways::default() });
    // Else the request would have to wait for longer than a test does.
    let proxy = Proxy::start(&selecting(knowing(&host), json!({"tcp_delay": "600s"})));
    assert_eq!(by(&proxy), "HTTP/2");
    assert_eq!((count(&proxy, "upstream_cx_connect_fail"), count(&proxy, "upstream_http3_broken")), (1, 1));
    assert!(broken_until(&proxy).is_some());
    assert!(host.udp.sent().is_empty());
}

#[test]
fn a_refused_path_that_opens_is_used_again() {
    let origin = Origin::ok();
    let host = Host::start(&origin, Ways { udp: Quality::Refused, ..Ways::default() });
    let proxy = Proxy::start(&knowing(&host));
    assert_eq!(by(&proxy), "HTTP/2");
    // Broken for longer and longer.
    wait::until("it is tried again", || {
        by(&proxy) == "HTTP/2" && count(&proxy, "upstream_http3_broken") == 2
    });
    host.udp.set(Quality::Open);
    until_http3(&proxy);
    assert_eq!((broken_until(&proxy), count(&proxy, "upstream_http3_broken")), (None, 2));
}

#[test]
fn a_path_that_is_refused_in_use_costs_no_request() {
    let origin = Origin::ok();
    let host = Host::start(&origin, Ways { tcp: Duration::ZERO, ..Ways::default() });
    let proxy = Proxy::start(&knowing(&host));
    until_http3(&proxy);
    host.udp.set(Quality::Refused);
    assert_eq!([by(&proxy), by(&proxy)], ["HTTP/2", "HTTP/2"]);
    host.udp.set(Quality::Open);
    until_http3(&proxy);
    assert_eq!(count(&proxy, "upstream_rq_5xx"), 0);
}

/// As many requests at once: by which version, on how many connections over TCP.
fn burst(ways: Ways, requests: usize) -> (Vec<String>, usize, Proxy) {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let host = Host::start(&origin, ways);
    let proxy = Proxy::start(&knowing(&host));
    let versions = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..requests).map(|_| scope.spawn(|| by(&proxy))).collect();
        origin.await_requests(requests);
        gate.open(requests);
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    (versions, host.tcp.connected().len(), proxy)
}

#[test]
fn a_burst_that_quic_fails_shares_a_connection_where_http2_is_chosen() {
    let (versions, connections, proxy) = burst(Ways { udp: Quality::Dropped, ..Ways::default() }, 8);
    assert_eq!((versions, connections), (vec!["HTTP/2".to_owned(); 8], 1));
    assert_eq!((count(&proxy, "upstream_cx_http3_total"), count(&proxy, "upstream_cx_http2_total")), (1, 1));
}

#[test]
fn a_burst_that_quic_fails_has_a_connection_each_where_http1_is_chosen() {
    let ways = Ways { udp: Quality::Refused, alpn: &["http/1.1"], ..Ways::default() };
    let (versions, connections, proxy) = burst(ways, 8);
    assert_eq!((versions, connections), (vec!["HTTP/1.1".to_owned(); 8], 8));
    assert_eq!(count(&proxy, "upstream_cx_http1_total"), 8);
}

#[test]
fn a_burst_shares_the_connection_of_quic() {
    let ways = Ways { udp: Quality::Open, tcp: SLOW, ..Ways::default() };
    let (versions, _, proxy) = burst(ways, 8);
    assert_eq!(versions, vec!["HTTP/3"; 8]);
    assert_eq!(count(&proxy, "upstream_cx_http3_total"), 1);
}

/// An origin whose answers say this in `alt-svc`, if anything; and a host in front of it, of which the proxy knows
/// nothing.
struct Told {
    said: Arc<Mutex<String>>,
    host: Host,
    proxy: Proxy,
}

impl Told {
    fn new() -> Self {
        let said: Arc<Mutex<String>> = Arc::default();
        let says = said.clone();
        let origin = Origin::answering(move |_| {
            let said = says.lock().unwrap();
            let field = if said.is_empty() { String::new() } else { format!("alt-svc: {said}\r\n") };
            format!("HTTP/1.1 200 OK\r\n{field}content-length: 2\r\n\r\nok")
        });
        let host = Host::start(&origin, Ways::default());
        let proxy = Proxy::start(&front(host.address(), json!({"name": "c"})));
        Self { said, host, proxy }
    }

    /// From now on this, `PORT` being the host's.
    fn say(&self, field: &str) {
        *self.said.lock().unwrap() = field.replace("PORT", &self.host.address().port().to_string());
    }
}

#[test]
fn quic_is_tried_once_a_response_says_so_and_no_longer_when_one_takes_it_back() {
    let told = Told::new();
    assert_eq!([by(&told.proxy), by(&told.proxy)], ["HTTP/2", "HTTP/2"]);
    assert!(host_is_quiet(&told.host), "nobody said that it takes HTTP/3");
    told.say("h3=\":PORT\"; ma=3600");
    assert_eq!(by(&told.proxy), "HTTP/2");
    until_http3(&told.proxy);
    told.say("clear");
    assert_eq!([by(&told.proxy), by(&told.proxy)], ["HTTP/3", "HTTP/2"]);
}

#[test]
fn what_a_response_says_holds_for_as_long_as_it_says() {
    let told = Told::new();
    told.say("h3=\":PORT\"; ma=1");
    assert_eq!(by(&told.proxy), "HTTP/2");
    until_http3(&told.proxy);
    told.say("");
    wait::until("its end", || by(&told.proxy) == "HTTP/2");
    assert_eq!(by(&told.proxy), "HTTP/2");
}

fn host_is_quiet(host: &Host) -> bool {
    host.udp.sent().is_empty()
}

/// One connection is all that may be: QUIC has it, and TCP is not tried beside it.
#[test]
fn a_limit_of_one_connection_is_no_hindrance_to_quic() {
    let origin = Origin::ok();
    let host = Host::start(&origin, Ways { tcp: SLOW, ..Ways::default() });
    let breakers = json!({"thresholds": [{"max_connections": 1}]});
    let proxy = Proxy::start(&knowing(&host).cluster(json!({"circuit_breakers": breakers})));
    assert_eq!([by(&proxy), by(&proxy), by(&proxy)], ["HTTP/3"; 3]);
    assert_eq!((count(&proxy, "upstream_cx_total"), count(&proxy, "upstream_http3_broken")), (1, 0));
}
