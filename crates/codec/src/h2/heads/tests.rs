//! Heads, both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn read(request: Request<()>) -> Received {
    super::request(request.into_parts().0, &ServerOptions::default())
}

fn get(uri: &str) -> Request<()> {
    Request::builder().uri(uri).version(Version::HTTP_2).body(()).unwrap()
}

#[test]
fn pseudo_header_fields_become_the_heads_parts() {
    let mut request = get("https://example.com:8443/a?b=c");
    request.headers_mut().insert("host", HeaderValue::from_static("other"));
    let head = read(request).head;
    assert_eq!(head.scheme, Scheme::Https);
    assert_eq!((&head.authority[..], &head.path[..]), (&b"example.com:8443"[..], &b"/a?b=c"[..]));
    assert!(!head.headers.contains_key("host"));
}

#[test]
fn host_stands_in_for_a_missing_authority() {
    let mut request = get("/x");
    request.headers_mut().insert("host", HeaderValue::from_static("example.com"));
    let head = read(request).head;
    assert_eq!((&head.authority[..], head.scheme), (&b"example.com"[..], Scheme::Http));
}

#[test]
fn cookie_crumbs_are_joined() {
    let mut request = get("http://a/");
    for crumb in ["a=1", "b=2", "c=3"] {
        request.headers_mut().append("cookie", HeaderValue::from_static(crumb));
    }
    let head = read(request).head;
    let all: Vec<_> = head.headers.get_all("cookie").iter().collect();
    assert_eq!(all, ["a=1; b=2; c=3"]);
}

#[test]
fn too_many_fields_too_many_bytes_and_bad_authorities_are_told() {
    let mut many = get("http://a/");
    for index in 0..101 {
        many.headers_mut().append("x", HeaderValue::from(index));
    }
    let mut large = get("http://a/");
    let value = HeaderValue::from_maybe_shared(Bytes::from(vec![b'x'; 60 * 1024])).unwrap();
    large.headers_mut().insert("x", value);
    let mut bad = get("/");
    bad.headers_mut().insert("host", HeaderValue::from_static("a b"));
    assert_eq!(read(many).verdict, Verdict::TooLarge);
    assert_eq!(read(large).verdict, Verdict::TooLarge);
    assert_eq!(read(bad).verdict, Verdict::Invalid);
    assert_eq!(read(get("/")).verdict, Verdict::Invalid);
    assert_eq!(read(get("http://a/")).verdict, Verdict::Valid);
}

#[test]
fn extended_connect_is_an_upgrade_both_ways() {
    let mut request = get("https://a/chat");
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let received = read(request);
    let head = received.head;
    assert_eq!((&head.method, head.upgrade.as_deref()), (&Method::GET, Some(&b"websocket"[..])));
    assert_eq!(&head.path[..], b"/chat");

    let sent = to_request(&head).unwrap();
    assert_eq!(sent.method(), Method::CONNECT);
    assert_eq!(sent.uri(), "https://a/chat");
    assert_eq!(sent.extensions().get::<Protocol>().unwrap().as_str(), "websocket");

    let switched =
        response(Response::builder().status(200).body(()).unwrap().into_parts().0, &received.asked);
    assert_eq!((switched.status.as_u16(), switched.headers["upgrade"].as_bytes()), (101, &b"websocket"[..]));
    let back = to_response(&switched, &received.asked);
    assert_eq!((back.status().as_u16(), back.headers().len()), (200, 0));
}

#[test]
fn connect_has_an_authority_and_nothing_else() {
    let mut request = Request::builder().method("CONNECT").uri("example.com:443").body(()).unwrap();
    *request.version_mut() = Version::HTTP_2;
    let head = read(request).head;
    assert_eq!((&head.authority[..], &head.path[..]), (&b"example.com:443"[..], &b""[..]));
    let sent = to_request(&head).unwrap();
    assert_eq!((sent.uri().scheme(), sent.uri().path_and_query()), (None, None));
}

#[test]
fn connection_specific_fields_are_not_sent() {
    let mut head = RequestHead::new(Method::GET, "a", "/");
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "x"),
        ("proxy-connection", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "x"),
        ("te", "gzip"),
        ("host", "b"),
        ("x", "y"),
    ] {
        head.headers.append(name, HeaderValue::from_static(value));
    }
    let sent = to_request(&head).unwrap();
    assert_eq!(sent.headers().keys().collect::<Vec<_>>(), ["x"]);
    head.headers.insert("te", HeaderValue::from_static("trailers"));
    assert_eq!(to_request(&head).unwrap().headers()["te"], "trailers");
    head.authority = Bytes::new();
    assert_eq!(to_request(&head).unwrap().version(), Version::HTTP_11);
}
