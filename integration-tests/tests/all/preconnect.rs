//! Connections opened ahead of demand, over real sockets: opened, counted, used, closed when idle.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use integration_tests::config::cluster;
use integration_tests::origin::Origin;
use integration_tests::proxy::Options;
use integration_tests::{Config, End, Proxy, Wire, wait};
use serde_json::json;

const TCP_OPTIONS: &str = "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions";

/// A TCP proxy to `listener`, with one connection ahead for each session.
fn tcp_config(listener: &TcpListener, idle: &str) -> Config {
    let config =
        Config::with_clusters(&[cluster("origin", &[listener.local_addr().unwrap()])]).cluster(json!({
            "preconnect_policy": {"per_upstream_preconnect_ratio": 2},
            "typed_extension_protocol_options": {TCP_OPTIONS: {
                "@type": format!("type.googleapis.com/{TCP_OPTIONS}"), "idle_timeout": idle,
            }},
        }));
    config.listener(json!({"filter_chains": [{"filters": [{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "t", "cluster": "origin",
        },
    }]}]}))
}

fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

#[track_caller]
fn accept(listener: &TcpListener) -> TcpStream {
    let stream = wait::until_some("a connection", || Some(listener.accept().ok()?.0));
    stream.set_nonblocking(false).unwrap();
    stream
}

/// Two connections, of which one is a session's, whose client has sent something. Which one was decided by who
/// connected first.
#[track_caller]
fn used_and_spare(listener: &TcpListener) -> (Wire, Wire) {
    let mut both = [Wire::new(accept(listener)), Wire::new(accept(listener))];
    let look = Duration::from_millis(20);
    let used = wait::until_some("bytes", || (0..2).find(|server| !both[*server].is_quiet_for(look)));
    let [a, b] = both;
    if used == 0 { (a, b) } else { (b, a) }
}

#[test]
fn a_spare_tcp_connection_is_closed_after_the_pools_idle_timeout() {
    let listener = listen();
    let config = tcp_config(&listener, "1s");
    let options = Options { arguments: vec!["-l".into(), "debug".into()], ..Options::default() };
    let proxy = options.start(&config);
    let mut client = proxy.connect();
    client.send("ping");
    let started = Instant::now();
    let (mut server, mut spare) = used_and_spare(&listener);
    proxy.admin.await_stat("cluster.origin.upstream_cx_idle_timeout", 1);
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!(spare.end(), End::Fin);
    assert_eq!(server.exactly(4).unwrap(), b"ping");
    let stats = proxy.admin.stats();
    for (name, value) in [
        ("upstream_cx_total", 2),
        ("upstream_cx_active", 1),
        ("upstream_cx_idle", 0),
        ("upstream_cx_destroy_local", 1),
        ("upstream_cx_close_reason.idle_timeout", 1),
        ("upstream_cx_preconnect_skipped", 0),
        ("upstream_rq_total", 1),
    ] {
        assert_eq!(stats.get(&format!("cluster.origin.{name}")), value, "{name}");
    }
    assert!(proxy.log().contains("per client idle timeout"), "{}", proxy.log());
    // The session goes on.
    server.send("pong");
    assert_eq!(client.exactly(4).unwrap(), b"pong");
}

#[test]
fn the_next_session_reads_what_a_spare_connections_server_said() {
    let listener = listen();
    let proxy = Proxy::start(&tcp_config(&listener, "0s"));
    let mut first = proxy.connect();
    let mut servers = [Wire::new(accept(&listener)), Wire::new(accept(&listener))];
    servers.iter_mut().for_each(|server| {
        server.send("220 hello");
    });
    assert_eq!(first.exactly(9).unwrap(), b"220 hello");
    let mut second = proxy.connect();
    assert_eq!(second.exactly(9).unwrap(), b"220 hello");
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_pending_total"), 1);
    proxy.admin.await_stat("cluster.origin.upstream_cx_total", 4);
}

#[test]
fn a_spare_connection_that_its_server_closes_is_replaced() {
    let listener = listen();
    let proxy = Proxy::start(&tcp_config(&listener, "60s"));
    let mut first = proxy.connect();
    first.send("ping");
    let (_server, spare) = used_and_spare(&listener);
    proxy.admin.await_stat("cluster.origin.upstream_cx_idle", 1);
    drop(spare);
    proxy.admin.await_stat("cluster.origin.upstream_cx_close_reason.peer_fin", 1);
    let mut second = proxy.connect();
    second.send("more");
    let (mut server, _spare) = used_and_spare(&listener);
    assert_eq!(server.exactly(4).unwrap(), b"more");
}

#[test]
fn http_connections_are_opened_ahead_and_idle_out() {
    let origin = Origin::ok();
    let config = Config::new(origin.address())
        .cluster(json!({"preconnect_policy": {"per_upstream_preconnect_ratio": 2}}))
        .cluster_http(json!({"common_http_protocol_options": {"idle_timeout": "1s"}}));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").status, 200);
    proxy.admin.await_stat("cluster.origin.upstream_cx_total", 2);
    proxy.admin.await_stat("cluster.origin.upstream_cx_idle", 2);
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_pending_total"), 1);
    proxy.admin.await_stat("cluster.origin.upstream_cx_idle_timeout", 2);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_total"), 2);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_active"), 0);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn limits_are_never_exceeded_for_a_spare_connection() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).cluster(json!({
        "preconnect_policy": {"per_upstream_preconnect_ratio": 3},
        "circuit_breakers": {"thresholds": [{"max_connections": 2}]},
    }));
    let proxy = Proxy::start(&config);
    for _ in 0..10 {
        assert_eq!(proxy.get("/").status, 200);
    }
    proxy.admin.await_stat("cluster.origin.upstream_cx_idle", 2);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_total"), 2);
}
