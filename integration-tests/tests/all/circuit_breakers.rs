//! Circuit breakers over HTTP/1.1: the limits are exact, the refusals are Envoy's.

use integration_tests::config::{cluster, text_format};
use integration_tests::proxy::await_lines;
use integration_tests::{Config, Gate, Nobody, Origin, Proxy, Response, Wire, wait};
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

/// What the access log and `/clusters` say of the host: a request that a limit keeps out of the queue has none yet,
/// one that waits or that a connection stood ready for has.
#[test]
fn the_host_is_named_once_a_stream_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let limits = json!({"max_connections": 1, "max_pending_requests": 1});
    let config = Config::new(origin.address()).cluster(thresholds(limits));
    let config = config.access_log(&log, text_format("%RESPONSE_FLAGS% %UPSTREAM_HOST%\n"));
    let proxy = Proxy::start(&config);
    let mut first = ask(&proxy, ("cluster.origin.upstream_rq_active", 1));
    let second = ask(&proxy, ("cluster.origin.upstream_rq_pending_active", 1));
    refused(&proxy.get("/"));
    drop(second);
    assert_eq!(await_lines(&log, 2), ["UO -", &format!("DC {}", origin.address())]);
    gate.open(1);
    assert_eq!(first.response().status, 200);
    assert_eq!(host_stat(&proxy, &origin, "rq_error"), 0);
}

#[test]
fn max_requests_is_an_error_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let origin = Origin::ok();
    let config = Config::new(origin.address()).cluster(thresholds(json!({"max_requests": 0})));
    let config = config.access_log(&log, text_format("%RESPONSE_FLAGS% %UPSTREAM_HOST%\n"));
    let proxy = Proxy::start(&config);
    // One opens a connection, the other finds it ready.
    for _ in 0..2 {
        refused(&proxy.get("/"));
    }
    let line = format!("UO {}", origin.address());
    assert_eq!(await_lines(&log, 2), [line.as_str(), line.as_str()]);
    assert_eq!(host_stat(&proxy, &origin, "rq_error"), 2);
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_active_overflow"), 2);
}

/// A pool that may not be opened is as good as no host.
#[test]
fn no_pool_names_no_host() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let origin = Origin::ok();
    let config = Config::new(origin.address()).cluster(thresholds(json!({"max_connection_pools": 0})));
    let config = config.access_log(&log, text_format("%RESPONSE_FLAGS% %UPSTREAM_HOST%\n"));
    let proxy = Proxy::start(&config);
    let response = proxy.get("/");
    assert_eq!((response.status, response.text().as_str()), (503, "no healthy upstream"));
    assert_eq!(await_lines(&log, 1), ["UH -"]);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_pool_overflow"), 1);
}

/// The route's time is over before the host has a stream: nobody's fault.
#[test]
fn a_time_out_in_the_queue_is_no_error_of_the_host() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let config = Config::new(origin.address()).cluster(thresholds(json!({"max_connections": 1})));
    let routes = json!([
        {"match": {"prefix": "/short"}, "route": {"cluster": "origin", "timeout": "0.05s"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "origin"}},
    ]);
    let proxy = Proxy::start(&config.routes(routes));
    let mut first = ask(&proxy, ("cluster.origin.upstream_rq_active", 1));
    assert_eq!(proxy.get("/short").status, 504);
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_timeout"), 1);
    gate.open(1);
    assert_eq!(first.response().status, 200);
    let of_host = ["rq_error", "rq_timeout"].map(|name| host_stat(&proxy, &origin, name));
    assert_eq!(of_host, [0, 0]);
}

/// A retry that is denied is none: the reply does not speak of one, and says first that it was denied.
#[test]
fn a_denied_retry_is_no_retry() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let nobody = Nobody::new();
    let policy = json!({"route": {"retry_policy": {"retry_on": "connect-failure"}}});
    let config = Config::new(nobody.address()).cluster(thresholds(json!({"max_retries": 0}))).route(policy);
    let proxy = Proxy::start(&config.access_log(&log, text_format("%RESPONSE_FLAGS%\n")));
    let response = proxy.get("/");
    assert_eq!(
        response.text(),
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
    );
    assert_eq!(await_lines(&log, 1), ["UO,UF"]);
}

/// A value of `/clusters` of the one host.
fn host_stat(proxy: &Proxy, origin: &Origin, name: &str) -> u64 {
    let line = format!("origin::{}::{name}::", origin.address());
    let page = proxy.admin.get("/clusters");
    let value = page.text().lines().find_map(|found| found.strip_prefix(&line)?.parse().ok());
    value.unwrap_or_else(|| panic!("{line} in {}", page.text()))
}
