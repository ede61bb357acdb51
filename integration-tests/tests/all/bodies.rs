//! Bodies: chunked both ways, responses without one, trailers, sizes larger than any buffer.

use integration_tests::{Config, End, Origin, Proxy};
use serde_json::json;

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

#[test]
fn a_chunked_request_goes_up_chunked() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n");
    client.send("4\r\ndefg\r\n0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let seen = origin.request();
    assert_eq!((seen.header("transfer-encoding"), seen.header("content-length")), (Some("chunked"), None));
    assert_eq!(seen.body, b"abcdefg");
}

#[test]
fn a_chunked_response_comes_down_chunked() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nx-t: 1\r\n\r\n",
    );
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    for _ in 0..2 {
        let response = client.ask(GET);
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
        assert_eq!((response.text().as_str(), response.trailers.as_str()), ("abcdefg", ""));
    }
}

#[test]
fn a_response_that_ends_with_the_connection_comes_down_chunked() {
    let origin = Origin::script(|mut peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\n\r\nuntil the end");
        }
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    for _ in 0..2 {
        let response = client.ask(GET);
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
        assert_eq!(response.text(), "until the end");
    }
}

#[test]
fn responses_without_a_body_keep_the_connection_in_step() {
    let origin = Origin::answering(|request| match request.path() {
        "/head" => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
        "/304" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    let head = client.ask("HEAD /head HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    let none = client.ask("GET /204 HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!(
        (none.status, none.header("content-length"), none.header("transfer-encoding")),
        (204, None, None)
    );
    let same = client.ask("GET /304 HTTP/1.1\r\nhost: a.test\r\n\r\n");
    assert_eq!((same.status, same.header("content-length")), (304, Some("5")));
    assert_eq!(client.ask(GET).text(), "ok");
    assert_eq!(origin.connections(), 1);
}

#[test]
fn trailers_pass_when_both_sides_enable_them() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Down: 2\r\n\r\n",
    );
    let enabled = json!({"enable_trailers": true});
    let config = Config::new(origin.address())
        .hcm(json!({"http_protocol_options": enabled}))
        .cluster_http(json!({"explicit_http_config": {"http_protocol_options": enabled}}));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Up: 1\r\n\r\n");
    assert_eq!(client.response().trailers, "x-down: 2\r\n");
    assert_eq!(origin.request().trailers, "x-up: 1\r\n");
}

#[test]
fn trailers_are_dropped_by_default() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Up: 1\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(origin.request().trailers, "");
}

#[test]
fn megabytes_pass_both_ways_unchanged() {
    let origin = Origin::answering(|request| {
        let mut answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.body.len()).into_bytes();
        answer.extend_from_slice(&request.body);
        answer
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut client = proxy.connect();
    client
        .send(format!("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: {}\r\n\r\n", body.len()))
        .send(&body);
    assert!(client.response().body == body, "the body changed");
}

#[test]
fn an_upstream_that_cuts_a_chunked_body_is_not_completed() {
    let origin = Origin::script(|mut peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        }
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send(GET);
    assert_ne!(client.end(), End::Open);
    assert!(!client.text().contains("\r\n0\r\n"), "{}", client.text());
}

#[test]
fn an_upstream_that_cuts_a_body_is_shown_to_the_client() {
    let origin = Origin::script(|mut peer| {
        if peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc");
        }
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send(GET);
    assert_ne!(client.end(), End::Open);
    assert!(client.text().ends_with("\r\n\r\nabc"), "{:?}", client.text());
}
