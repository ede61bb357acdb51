//! Downstream connection rules: keep-alive, pipelining, closes, HTTP/1.0, interim responses.

use std::time::Duration;

use integration_tests::{Config, End, Origin, Proxy};
use serde_json::json;

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

#[test]
fn a_connection_serves_many_requests() {
    let origin = Origin::answering(|request| {
        let path = request.path();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len())
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    for number in 0..20 {
        let response = client.ask(&format!("GET /{number} HTTP/1.1\r\nhost: a.test\r\n\r\n"));
        assert_eq!((response.text(), response.closes()), (format!("/{number}"), false));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::answering(|request| {
        let path = request.path();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len())
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    let all: String = (0..10)
        .map(|n| format!("POST /{n} HTTP/1.1\r\nhost: a.test\r\ncontent-length: 3\r\n\r\nb{n:02}"))
        .collect();
    client.send(all);
    for number in 0..10 {
        assert_eq!(client.response().text(), format!("/{number}"));
    }
    let bodies: Vec<Vec<u8>> = origin.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, (0..10).map(|n| format!("b{n:02}").into_bytes()).collect::<Vec<_>>());
}

#[test]
fn connection_close_of_the_client_ends_the_connection_after_the_response() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    for header in ["Connection: close", "Proxy-Connection: close"] {
        let mut client = proxy.connect();
        let response = client.ask(&format!("GET / HTTP/1.1\r\nhost: a.test\r\n{header}\r\n\r\n"));
        assert!(response.closes(), "{}", response.head);
        assert_eq!(client.end(), End::Fin);
    }
}

#[test]
fn connection_close_of_the_upstream_is_its_own_matter() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert!(!client.ask(GET).closes());
    }
    assert_eq!(origin.connections(), 3);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_close_notify"), 3);
}

#[test]
fn http_1_0_is_refused_unless_accepted() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    let response = client.ask("GET / HTTP/1.0\r\nhost: a.test\r\n\r\n");
    assert_eq!((response.status, response.closes()), (426, true));
    assert_eq!(client.end(), End::Fin);
}

#[test]
fn http_1_0_closes_unless_it_asks_to_be_kept() {
    let origin = Origin::ok();
    let config =
        Config::new(origin.address()).hcm(json!({"http_protocol_options": {"accept_http_10": true}}));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    let response = client.ask("GET / HTTP/1.0\r\nhost: a.test\r\n\r\n");
    assert!(response.head.starts_with("HTTP/1.0 200 OK\r\n") && response.closes(), "{}", response.head);
    assert_eq!(client.end(), End::Fin);
    assert!(origin.requests()[0].line().ends_with("HTTP/1.1"));

    let mut client = proxy.connect();
    let kept = "GET / HTTP/1.0\r\nhost: a.test\r\nconnection: keep-alive\r\n\r\n";
    assert_eq!(client.ask(kept).header("connection"), Some("keep-alive"));
    assert_eq!(client.ask(kept).text(), "ok");
}

#[test]
fn http_1_0_gets_a_body_of_unknown_length_raw() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let origin = Origin::saying(chunked);
    let config =
        Config::new(origin.address()).hcm(json!({"http_protocol_options": {"accept_http_10": true}}));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.0\r\nhost: a.test\r\n\r\n");
    assert_eq!(client.end(), End::Fin);
    let response = client.response();
    assert_eq!((response.text().as_str(), response.header("transfer-encoding")), ("abc", None));
}

#[test]
fn expect_is_answered_by_the_proxy() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a.test\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n");
    assert_eq!(client.head().unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc");
    assert_eq!(client.response().status, 200);
    assert_eq!(origin.request().header("expect"), None);
}

#[test]
fn expect_can_be_left_to_the_upstream() {
    let origin = Origin::script(|mut peer| {
        peer.wire.head();
        peer.send("HTTP/1.1 100 Continue\r\n\r\n");
        peer.wire.exactly(3);
        peer.send(integration_tests::origin::OK);
        peer.wire.end();
    });
    let config = Config::new(origin.address()).hcm(json!({"proxy_100_continue": true}));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a.test\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n");
    assert_eq!(client.head().unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc");
    assert_eq!(client.response().status, 200);
}

#[test]
fn interim_responses_are_swallowed() {
    let origin = Origin::saying(
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    );
    let proxy = Proxy::start(&Config::new(origin.address()));
    let response = proxy.get("/");
    assert_eq!((response.status, response.header("link")), (200, None));
}

#[test]
fn max_requests_per_connection_closes_after_the_last() {
    let origin = Origin::ok();
    let config = Config::new(origin.address())
        .hcm(json!({"common_http_protocol_options": {"max_requests_per_connection": 2}}));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    assert!(!client.ask(GET).closes());
    assert!(client.ask(GET).closes());
    assert_eq!(client.end(), End::Fin);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_max_requests_reached"), 1);
}

#[test]
fn an_early_response_ends_the_upload() {
    let origin = Origin::script(|mut peer| {
        peer.wire.head();
        peer.send("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 4\r\n\r\nmuch");
        peer.wire.end();
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 1000000\r\n\r\nbegun");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str(), response.closes()), (413, "much", true));
    assert_eq!(client.end(), End::Fin);
    proxy.admin.await_stat("cluster.origin.upstream_cx_active", 0);
}

#[test]
fn a_client_that_ends_before_the_answer_is_gone() {
    let origin = Origin::script(|mut peer| {
        peer.request();
        peer.wire.end();
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send(GET);
    origin.await_requests(1);
    client.finish();
    assert_eq!(client.end(), End::Fin);
    assert_eq!(client.text(), "");
    proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
    proxy.admin.await_stat("cluster.origin.upstream_rq_active", 0);
    integration_tests::wait::until("the upstream's end", || origin.open_connections() == 0);
}

#[test]
fn a_client_that_aborts_cancels_its_request() {
    let origin = Origin::script(|mut peer| {
        peer.request();
        peer.wire.end();
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send(GET);
    origin.await_requests(1);
    client.reset();
    proxy.admin.await_stat("http.ingress.downstream_rq_active", 0);
    integration_tests::wait::until("the upstream's end", || origin.open_connections() == 0);
}

#[test]
fn blank_lines_before_a_request_count_for_nothing() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send("\r\n\r\n");
    assert!(client.is_quiet_for(Duration::from_millis(20)));
    assert_eq!(client.ask(GET).status, 200);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    for byte in b"POST /slow HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody" {
        client.send([*byte]);
    }
    assert_eq!(client.response().status, 200);
    assert_eq!(origin.request().body, b"body");
}

#[test]
fn the_global_connection_limit_refuses_the_next_one() {
    let origin = Origin::ok();
    let monitor = json!({
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": 2,
        },
    });
    let config = Config::new(origin.address()).bootstrap(json!({
        "admin": {"ignore_global_conn_limit": true},
        "overload_manager": {"resource_monitors": [monitor]},
    }));
    let proxy = Proxy::start(&config);
    let mut clients = [proxy.connect(), proxy.connect()];
    for client in &mut clients {
        assert_eq!(client.ask(GET).status, 200);
    }
    let mut refused = proxy.connect();
    assert_ne!(refused.end(), End::Open);
    drop(clients);
    proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
    assert_eq!(proxy.connect().ask(GET).status, 200);
}
