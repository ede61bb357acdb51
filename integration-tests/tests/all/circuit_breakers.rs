//! Circuit breakers over HTTP/1.1: the limits are exact, the refusals are Envoy's.

use integration_tests::config::cluster;
use integration_tests::{Config, Gate, Origin, Proxy, Response, Wire, wait};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

fn thresholds(limits: Value) -> Value {
    json!({"circuit_breakers": {"thresholds": [limits]}})
}

/// A client whose request is on its way; `seen` tells when the proxy has taken it up.
fn ask(proxy: &Proxy, seen: (&str, u64)) -> Wire {
    let mut client = proxy.connect();
    client.send(GET);
    proxy.admin.await_stat(seen.0, seen.1);
    client
}

#[track_caller]
fn refused(response: &Response) {
    assert_eq!(response.status, 503);
    assert_eq!(response.header("x-envoy-overloaded"), Some("true"));
    assert_eq!(
        response.text(),
        "upstream connect error or disconnect/reset before headers. reset reason: overflow"
    );
}

#[test]
fn one_connection_and_one_pending_request() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let limits = json!({"max_connections": 1, "max_pending_requests": 1, "track_remaining": true});
    let proxy = Proxy::start(&Config::new(origin.address()).cluster(thresholds(limits)));

    let mut first = ask(&proxy, ("cluster.origin.upstream_rq_active", 1));
    let mut second = ask(&proxy, ("cluster.origin.upstream_rq_pending_active", 1));
    refused(&proxy.get("/"));
    refused(&proxy.get("/"));
    let stats = proxy.admin.stats();
    for (name, value) in [
        ("circuit_breakers.default.cx_open", 1),
        ("circuit_breakers.default.rq_pending_open", 1),
        ("upstream_cx_active", 1),
        ("upstream_rq_active", 1),
        ("upstream_rq_pending_active", 1),
        ("upstream_rq_pending_overflow", 2),
        ("upstream_cx_overflow", 1),
    ] {
        assert_eq!(stats.get(&format!("cluster.origin.{name}")), value, "{name}");
    }

    gate.open(2);
    assert_eq!((first.response().status, second.response().status), (200, 200));
    assert_eq!(origin.connections(), 1);
    proxy.admin.await_stat("cluster.origin.circuit_breakers.default.rq_pending_open", 0);
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("cluster.origin.upstream_rq_total"), 2);
    assert_eq!(stats.get("cluster.origin.upstream_rq_pending_total"), 2);
    assert_eq!(stats.get("cluster.origin.upstream_cx_total"), 1);
}

#[test]
fn pending_requests_are_served_in_their_order() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let limits = json!({"max_connections": 1});
    let proxy = Proxy::start(&Config::new(origin.address()).cluster(thresholds(limits)));
    let mut clients = vec![ask(&proxy, ("cluster.origin.upstream_rq_active", 1))];
    for number in 1..5_u64 {
        let mut client = proxy.connect();
        client.send(format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n"));
        proxy.admin.await_stat("cluster.origin.upstream_rq_pending_active", number);
        clients.push(client);
    }
    gate.open(5);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    let paths: Vec<String> = origin.requests().iter().map(|request| request.path().to_owned()).collect();
    assert_eq!(paths, ["/", "/1", "/2", "/3", "/4"]);
}

#[test]
fn no_pending_request_refuses_a_cold_pool() {
    let origin = Origin::ok();
    let limits = json!({"max_pending_requests": 0});
    let proxy = Proxy::start(&Config::new(origin.address()).cluster(thresholds(limits)));
    for _ in 0..2 {
        refused(&proxy.get("/"));
    }
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_pending_overflow"), 2);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn max_requests_refuses_the_second_one() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let limits = json!({"max_requests": 1});
    let proxy = Proxy::start(&Config::new(origin.address()).cluster(thresholds(limits)));
    let mut first = ask(&proxy, ("cluster.origin.upstream_rq_active", 1));
    refused(&proxy.get("/"));
    gate.open(2);
    assert_eq!(first.response().status, 200);
    proxy.admin.await_stat("cluster.origin.upstream_rq_active", 0);
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn a_cancelled_pending_request_frees_its_place() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let limits = json!({"max_connections": 1, "max_pending_requests": 1});
    let proxy = Proxy::start(&Config::new(origin.address()).cluster(thresholds(limits)));
    let mut first = ask(&proxy, ("cluster.origin.upstream_rq_active", 1));
    let second = ask(&proxy, ("cluster.origin.upstream_rq_pending_active", 1));
    drop(second);
    proxy.admin.await_stat("cluster.origin.upstream_rq_pending_active", 0);
    let mut third = ask(&proxy, ("cluster.origin.upstream_rq_pending_active", 1));
    gate.open(2);
    assert_eq!((first.response().status, third.response().status), (200, 200));
}

/// Row 5 of "Coming from Envoy": Envoy opens a connection for each of the two hosts.
#[test]
fn max_connections_is_exact_over_hosts() {
    let gate = Gate::default();
    let (one, two) = (Origin::gated(&gate), Origin::gated(&gate));
    let hosts = cluster("origin", &[one.address(), two.address()]);
    let config = Config::with_clusters(&[hosts]).cluster(thresholds(json!({"max_connections": 1})));
    let proxy = Proxy::start(&config);
    let mut first = ask(&proxy, ("cluster.origin.upstream_rq_active", 1));
    let mut second = ask(&proxy, ("cluster.origin.upstream_rq_pending_active", 1));
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_active"), 1);
    gate.open(2);
    // The second one's host has no connection: the idle one of the other host makes room for it.
    assert_eq!((first.response().status, second.response().status), (200, 200));
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_total"), 2);
}

/// Row 5 of "Coming from Envoy": no race between workers.
#[test]
fn max_connections_is_exact_over_workers() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let config = Config::new(origin.address()).cluster(thresholds(json!({"max_connections": 2})));
    let options = integration_tests::proxy::Options { concurrency: 4, ..Default::default() };
    let proxy = options.start(&config);
    let mut clients: Vec<Wire> = (0..24).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    proxy.admin.await_stat("http.ingress.downstream_rq_active", 24);
    proxy.admin.await_stat("cluster.origin.upstream_rq_pending_active", 22);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_active"), 2);
    gate.open(24);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    // A connection that made room for another may be seen to end a little later.
    wait::until("two connections", || origin.open_connections() <= 2);
}

#[test]
fn the_high_priority_has_limits_of_its_own() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let routes = json!([
        {"match": {"prefix": "/high"}, "route": {"cluster": "origin", "priority": "HIGH"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "origin"}},
    ]);
    let limits = json!({"max_connections": 1, "max_pending_requests": 0});
    let proxy = Proxy::start(&Config::new(origin.address()).cluster(thresholds(limits)).routes(routes));
    refused(&proxy.get("/"));
    gate.open(1);
    assert_eq!(proxy.get("/high").status, 200);
}
