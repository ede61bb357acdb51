//! Timeouts: which one fires, and what the client sees. When it fires is not asserted: that would measure the
//! machine.

use std::time::Duration;

use integration_tests::{Config, End, Origin, Proxy, Response};
use serde_json::json;

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

/// Takes requests and never answers.
fn silent() -> Origin {
    Origin::script(|mut peer| while peer.request().is_some() {})
}

#[track_caller]
fn closed_with(proxy: &Proxy, sent: &str, status: u16, body: &str) -> Response {
    let mut client = proxy.connect();
    let response = client.ask(sent);
    assert_eq!((response.status, response.text().as_str(), response.closes()), (status, body, true));
    assert_eq!(client.end(), End::Fin);
    response
}

#[test]
fn request_headers_timeout_ends_half_a_head() {
    let origin = silent();
    let proxy = Proxy::start(&Config::new(origin.address()).hcm(json!({"request_headers_timeout": "0.2s"})));
    closed_with(&proxy, "GET / HTTP/1.1\r\nhost: a", 408, "request header timeout");
    closed_with(&proxy, "GE", 408, "request header timeout");
    proxy.admin.await_stat("http.ingress.downstream_rq_header_timeout", 2);
}

#[test]
fn request_timeout_ends_an_endless_upload() {
    let origin = silent();
    let proxy = Proxy::start(&Config::new(origin.address()).hcm(json!({"request_timeout": "0.2s"})));
    closed_with(&proxy, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc", 408, "request timeout");
    proxy.admin.await_stat("http.ingress.downstream_rq_timeout", 1);
}

#[test]
fn stream_idle_timeout_answers_by_who_was_silent() {
    let origin = silent();
    let proxy = Proxy::start(&Config::new(origin.address()).hcm(json!({"stream_idle_timeout": "0.2s"})));
    closed_with(&proxy, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc", 408, "stream timeout");
    let response = proxy.connect().ask(GET);
    assert_eq!((response.status, response.text().as_str()), (504, "stream timeout"));
    proxy.admin.await_stat("http.ingress.downstream_rq_idle_timeout", 2);
}

#[test]
fn a_routes_idle_timeout_takes_the_place_of_the_connection_managers() {
    let origin = silent();
    let config = Config::new(origin.address()).route(json!({"route": {"idle_timeout": "0.2s"}}));
    let response = Proxy::start(&config).get("/");
    assert_eq!((response.status, response.text().as_str()), (504, "stream timeout"));
}

#[test]
fn the_route_timeout_answers_504_and_keeps_the_client() {
    let origin = Origin::script(|mut peer| {
        while let Some(request) = peer.request() {
            if request.path() != "/slow" {
                peer.send(integration_tests::origin::OK);
            }
        }
    });
    let proxy = Proxy::start(&Config::new(origin.address()).route(json!({"route": {"timeout": "0.2s"}})));
    let mut client = proxy.connect();
    let response = client.ask("GET /slow HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!((response.status, response.text().as_str()), (504, "upstream request timeout"));
    assert!(!response.closes());
    assert_eq!(client.ask(GET).status, 200);
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("cluster.origin.upstream_rq_timeout"), 1);
    assert_eq!(stats.get("cluster.origin.upstream_rq_504"), 1);
    assert_eq!(origin.connections(), 2, "a connection with a late answer must not be reused");
    assert_eq!(origin.requests()[0].header("x-envoy-expected-rq-timeout-ms"), Some("200"));
}

#[test]
fn the_route_timeout_does_not_run_while_the_request_uploads() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()).route(json!({"route": {"timeout": "0.2s"}})));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab");
    assert!(client.is_quiet_for(Duration::from_millis(500)));
    client.send("cd");
    assert_eq!(client.response().status, 200);
}

/// Nobody is internal unless `internal_address_config` says so, and only the internal may.
#[test]
fn an_internal_client_may_set_its_own_timeout() {
    let origin = silent();
    let internal = json!({"internal_address_config": {"cidr_ranges": [
        {"address_prefix": "127.0.0.0", "prefix_len": 8},
    ]}});
    let config = Config::new(origin.address()).hcm(json!({"use_remote_address": true})).hcm(internal);
    let proxy = Proxy::start(&config);
    let asked = "GET / HTTP/1.1\r\nhost: a.test\r\nx-envoy-upstream-rq-timeout-ms: 200\r\n\r\n";
    assert_eq!(proxy.connect().ask(asked).status, 504);
    assert_eq!(origin.request().header("x-envoy-expected-rq-timeout-ms"), Some("200"));
}

#[test]
fn an_internal_client_may_ask_for_another_answer_and_another_duration() {
    let origin = silent();
    let internal = json!({"use_remote_address": true, "internal_address_config": {"cidr_ranges": [
        {"address_prefix": "127.0.0.0", "prefix_len": 8},
    ]}});
    let proxy = Proxy::start(&Config::new(origin.address()).hcm(internal));
    let asked = "GET / HTTP/1.1\r\nhost: a.test\r\nx-envoy-upstream-alt-stat-name: mine\r\n\
        x-envoy-upstream-rq-timeout-ms: 200\r\nx-envoy-upstream-rq-timeout-alt-response: 1\r\n\r\n";
    assert_eq!(proxy.connect().ask(asked).status, 204);
    let asked = "GET / HTTP/1.1\r\nhost: a.test\r\nx-envoy-upstream-stream-duration-ms: 200\r\n\r\n";
    assert_eq!(proxy.connect().ask(asked).text(), "upstream max stream duration reached");
    proxy.admin.await_stat("cluster.origin.upstream_rq_max_duration_reached", 1);
    for request in origin.requests() {
        for name in ["alt-stat-name", "rq-timeout-ms", "rq-timeout-alt-response", "stream-duration-ms"] {
            assert_eq!(request.header(&format!("x-envoy-upstream-{name}")), None);
        }
    }
}

#[test]
fn a_timeout_of_zero_is_off() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()).route(json!({"route": {"timeout": "0s"}})));
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(origin.request().header("x-envoy-expected-rq-timeout-ms"), None);
}

#[test]
fn max_stream_duration_ends_a_request() {
    let origin = silent();
    let options = json!({"common_http_protocol_options": {"max_stream_duration": "0.2s"}});
    let response = Proxy::start(&Config::new(origin.address()).hcm(options)).get("/");
    assert_eq!((response.status, response.text().as_str()), (504, "downstream duration timeout"));
}

#[test]
fn an_idle_connection_is_closed() {
    let origin = Origin::ok();
    let config = Config::new(origin.address())
        .hcm(json!({"common_http_protocol_options": {"idle_timeout": "0.2s"}, "drain_timeout": "0.1s"}));
    let proxy = Proxy::start(&config);
    let mut fresh = proxy.connect();
    let mut used = proxy.connect();
    assert_eq!(used.ask(GET).status, 200);
    assert_eq!((used.end(), fresh.end()), (End::Fin, End::Fin));
    proxy.admin.await_stat("http.ingress.downstream_cx_idle_timeout", 2);
}

#[test]
fn an_idle_upstream_connection_is_closed() {
    let origin = Origin::ok();
    let config = Config::new(origin.address())
        .cluster_http(json!({"common_http_protocol_options": {"idle_timeout": "0.2s"}}));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").status, 200);
    integration_tests::wait::until("the upstream's end", || origin.open_connections() == 0);
    proxy.admin.await_stat("cluster.origin.upstream_cx_idle_timeout", 1);
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn a_slow_loris_is_ended_by_the_head_timeout_while_others_are_served() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()).hcm(json!({"request_headers_timeout": "0.5s"})));
    let mut slow: Vec<_> = (0..50).map(|_| proxy.connect()).collect();
    for client in &mut slow {
        client.send("GET / HTTP/1.1\r\n");
    }
    for client in &mut slow {
        client.send("x: ");
    }
    assert_eq!(proxy.get("/").status, 200);
    for client in &mut slow {
        assert_eq!(client.response().status, 408);
    }
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_grpc_timeout_bounds_the_stream_where_the_route_heeds_it() {
    let origin = silent();
    let duration = json!({"route": {"max_stream_duration": {"grpc_timeout_header_max": "0s"}}});
    let proxy = Proxy::start(&Config::new(origin.address()).route(duration));
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\ngrpc-timeout: 100m\r\n\r\n");
    proxy.admin.await_stat("http.ingress.downstream_rq_max_duration_reached", 1);
    assert!(client.response().status >= 400);
}

#[test]
fn an_old_connection_that_closes_the_safe_way_waits_for_a_request() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()).hcm(json!({
        "common_http_protocol_options": {"max_connection_duration": "0.2s"},
        "drain_timeout": "0.1s",
        "http1_safe_max_connection_duration": true,
    })));
    let mut client = proxy.connect();
    assert!(!client.ask(GET).closes());
    proxy.admin.await_stat("http.ingress.downstream_cx_max_duration_reached", 1);
    proxy.admin.await_stat("http.ingress.downstream_cx_http1_soft_drain", 1);
    assert!(client.is_quiet_for(Duration::from_millis(500)));
    let last = client.ask(GET);
    assert_eq!((last.status, last.closes(), client.end()), (200, true, End::Fin));
}

#[test]
fn the_safe_way_tells_with_a_request_that_begins_behind_the_age() {
    let origin = Origin::script(|mut peer| {
        while let Some(request) = peer.request() {
            if request.path() == "/slow" {
                std::thread::sleep(Duration::from_millis(400));
            }
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let proxy = Proxy::start(&Config::new(origin.address()).hcm(json!({
        "common_http_protocol_options": {"max_connection_duration": "0.1s"},
        "http1_safe_max_connection_duration": true,
    })));
    let mut client = proxy.connect();
    // As in Envoy: the response under way is not the one.
    let first = client.ask("GET /slow HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!((first.status, first.closes()), (200, false));
    proxy.admin.await_stat("http.ingress.downstream_cx_http1_soft_drain", 1);
    let last = client.ask(GET);
    assert_eq!((last.status, last.closes(), client.end()), (200, true, End::Fin));
    // Who never asks for anything is closed in time.
    assert_eq!(proxy.connect().end(), End::Fin);
    proxy.admin.await_stat("http.ingress.downstream_cx_http1_soft_drain", 0);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_close_reason.max_duration"), 2);
}

/// A proxy before this one has told what is left of its own timeout.
#[test]
fn a_callers_expected_timeout_is_heeded_where_the_router_says_so() {
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let origin = silent();
    let config = Config::new(origin.address()).hcm(json!({
        "use_remote_address": true,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": router, "respect_expected_rq_timeout": true},
        }],
    }));
    let proxy = Proxy::start(&config);
    let request = "GET / HTTP/1.1\r\nhost: a.test\r\nx-envoy-expected-rq-timeout-ms: 200\r\n\r\n";
    let response = proxy.connect().ask(request);
    assert_eq!((response.status, response.text().as_str()), (504, "upstream request timeout"));
    assert_eq!(origin.request().header("x-envoy-expected-rq-timeout-ms"), Some("200"));
    proxy.admin.await_stat("cluster.origin.upstream_rq_timeout", 1);
}
