//! What is written, read back.

use http::{HeaderValue, Method, StatusCode, Version};
use tidegate_types::{RequestHead, ResponseHead, Scheme};

use super::*;

fn request(head: &RequestHead) -> Vec<String> {
    let mut out = BytesMut::new();
    write_request(&mut Encoder::new(), &mut out, head).unwrap();
    lines(out)
}

fn response(head: &ResponseHead, asked: &Asked) -> Vec<String> {
    let mut out = BytesMut::new();
    write_response(&mut Encoder::new(), &mut out, head, asked);
    lines(out)
}

fn fill(headers: &mut HeaderMap) {
    for (name, value) in [
        ("connection", "close"),
        ("x-a", "1"),
        ("keep-alive", "x"),
        ("proxy-connection", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "x"),
        ("te", "gzip"),
        ("host", "b"),
        ("x-b", "2"),
        ("content-length", "3"),
        ("x-a", "3"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
}

#[test]
fn requests_have_the_order_of_their_version() {
    let mut head = RequestHead::new(Method::GET, "a.test", "/x");
    head.scheme = Scheme::Https;
    head.headers.insert("x", HeaderValue::from_static("y"));
    assert_eq!(request(&head), [":authority: a.test", ":path: /x", ":method: GET", ":scheme: https", "x: y"]);
    head.version = Version::HTTP_2;
    assert_eq!(request(&head), [":method: GET", ":scheme: https", ":authority: a.test", ":path: /x", "x: y"]);
    head.authority = Bytes::new();
    head.path = Bytes::new();
    assert_eq!(request(&head), [":method: GET", ":scheme: https", ":path: /", "x: y"]);
}

#[test]
fn connection_specific_fields_are_not_sent() {
    let mut head = RequestHead::new(Method::PUT, "a", "/");
    fill(&mut head.headers);
    let pseudo = [":authority: a", ":path: /", ":method: PUT", ":scheme: http"];
    let fields = ["x-a: 1", "x-a: 3", "x-b: 2", "content-length: 3"];
    assert_eq!(request(&head), [&pseudo[..], &fields].concat());
    head.headers.insert("te", HeaderValue::from_static("trailers"));
    assert!(request(&head).contains(&"te: trailers".to_owned()));

    let mut head = ResponseHead::new(StatusCode::OK);
    fill(&mut head.headers);
    assert_eq!(response(&head, &Asked::Ordinary), [&[":status: 200"][..], &fields].concat());

    let mut out = BytesMut::new();
    write_trailers(&mut Encoder::new(), &mut out, &head.headers);
    assert_eq!(lines(out), ["x-a: 1", "x-a: 3", "x-b: 2"]);
}

#[test]
fn tunnels_are_said_in_http_2() {
    let mut connect = RequestHead::new(Method::CONNECT, "a.test:443", "");
    assert_eq!(request(&connect), [":authority: a.test:443", ":method: CONNECT"]);
    connect.version = Version::HTTP_2;
    assert_eq!(request(&connect), [":method: CONNECT", ":authority: a.test:443"]);

    let mut upgrade = RequestHead::new(Method::GET, "a.test", "/chat");
    upgrade.upgrade = Some(Bytes::from_static(b"websocket"));
    upgrade.headers.insert("content-length", HeaderValue::from_static("0"));
    upgrade.headers.insert("sec-websocket-key", HeaderValue::from_static("k"));
    assert_eq!(
        request(&upgrade),
        [
            ":authority: a.test",
            ":path: /chat",
            ":method: CONNECT",
            ":scheme: http",
            ":protocol: websocket",
            "sec-websocket-key: k",
        ]
    );

    let mut switched = ResponseHead::new(StatusCode::SWITCHING_PROTOCOLS);
    switched.headers.insert("upgrade", HeaderValue::from_static("websocket"));
    switched.headers.insert("content-length", HeaderValue::from_static("0"));
    let asked = Asked::Upgrade(Bytes::from_static(b"websocket"));
    assert_eq!(response(&switched, &asked), [":status: 200"]);
}

#[test]
fn what_cannot_be_said_writes_nothing() {
    let mut out = BytesMut::new();
    let mut refuse = |authority: &'static str, path: &'static str, method: Method| {
        let head = RequestHead::new(method, authority, path);
        assert_eq!(write_request(&mut Encoder::new(), &mut out, &head), Err(Unsendable));
        assert!(out.is_empty());
    };
    refuse("a", "/ x", Method::GET);
    refuse("a", "/\r\nx: y", Method::GET);
    refuse("a\n", "/", Method::GET);
    refuse("", "", Method::CONNECT);
}

#[test]
fn sensitive_fields_stay_sensitive() {
    let mut head = RequestHead::new(Method::GET, "a", "/");
    let mut secret = HeaderValue::from_static("Basic x");
    secret.set_sensitive(true);
    head.headers.insert("authorization", secret);
    let mut out = BytesMut::new();
    write_request(&mut Encoder::new(), &mut out, &head).unwrap();
    let mut read = RequestFields::new(RequestRules::from(&ServerOptions::default()));
    decode(&out.freeze(), |field, size| read.push(field, size));
    let received = read.finish(EndStream::Yes).unwrap();
    assert!(received.head.headers["authorization"].is_sensitive());
}
