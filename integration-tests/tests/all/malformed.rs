//! Requests that must not be forwarded: the smuggling corpus, and limits of heads.

use integration_tests::{Config, End, Origin, Proxy};
use serde_json::json;

/// Heads that are answered with 400 and never reach an upstream. RFC 9112 §2.2, §3, §5, §6.
const REFUSED: &[(&str, &str)] = &[
    (
        "CL with TE",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE with CL",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "two CL that differ",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    ),
    ("two equal CL", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    ("a list of CL", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello"),
    ("CL with a plus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"),
    ("CL negative", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello"),
    ("CL hexadecimal", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello"),
    ("CL empty", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nhello"),
    ("CL too large", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello"),
    ("CL of two numbers", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello"),
    ("bare LF everywhere", "GET / HTTP/1.1\nHost: a\n\n"),
    ("bare LF after a field", "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n"),
    ("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    ("folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
    ("folded first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    ("control in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\u{1}b\r\n\r\n"),
    ("space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n"),
    ("space before TE's colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("space in a name", "GET / HTTP/1.1\r\nHost: a\r\nX y: a\r\n\r\n"),
    ("empty name", "GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n"),
    ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nXyz\r\n\r\n"),
    ("pseudo-header", "GET / HTTP/1.1\r\nHost: a\r\n:path: /x\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("two equal hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("no host", "GET / HTTP/1.1\r\n\r\n"),
    ("space in the host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ("slash in the host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("unknown method", "FOO / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("bad method", "G@T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("target without a slash", "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("version in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n"),
    ("version too long", "GET / HTTP/1.11\r\nHost: a\r\n\r\n"),
    ("not HTTP", "hello world\r\n\r\n"),
    ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}"),
];

/// Chunked bodies that break after the head was fine.
const BAD_CHUNKS: &[(&str, &str)] = &[
    ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("letters", "zz\r\nhello\r\n0\r\n\r\n"),
    ("sign", "-5\r\nhello\r\n0\r\n\r\n"),
    ("empty", "\r\nhello\r\n0\r\n\r\n"),
    ("space before", " 5\r\nhello\r\n0\r\n\r\n"),
    ("too large", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    ("bare LF", "5\nhello\n0\n\n"),
    ("LF in an extension", "5;a\nhello\r\n0\r\n\r\n"),
    ("CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("longer than its size", "5\r\nhello123\r\n0\r\n\r\n"),
    ("LF after the data", "5\r\nhello\n0\r\n\r\n"),
    ("no CRLF after the data", "5\r\nhello0\r\n\r\n"),
    ("bad trailer", "5\r\nhello\r\n0\r\nx y: 1\r\n\r\n"),
];

#[test]
fn a_malformed_head_is_answered_with_400_and_never_forwarded() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut wrong = Vec::new();
    // Side by side: each is closed only after the delayed close.
    let mut clients: Vec<_> = REFUSED
        .iter()
        .map(|(name, bytes)| {
            let mut client = proxy.connect();
            client.send(bytes);
            (name, client)
        })
        .collect();
    for (name, client) in &mut clients {
        let response = client.response();
        if (response.status, response.closes(), client.end()) != (400, true, End::Fin) {
            wrong.push(format!("{name}: {}", response.head));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!((origin.requests().len(), origin.connections()), (0, 0));
}

#[test]
fn an_unknown_transfer_coding_is_answered_with_501() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    for coding in [
        "gzip, chunked",
        "chunked, identity",
        "xchunked",
        "chunked, chunked",
        "\"chunked\"",
        "",
        "chunked;q=1",
    ] {
        let mut client = proxy.connect();
        let response = client
            .ask(&format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: {coding}\r\n\r\n0\r\n\r\n"));
        assert_eq!((response.status, response.closes()), (501, true), "{coding}");
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_broken_chunk_ends_the_request_on_both_sides() {
    let origin = Origin::script(|mut peer| {
        peer.request();
        peer.wire.end();
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut wrong = Vec::new();
    for (name, chunks) in BAD_CHUNKS {
        let mut client = proxy.connect();
        client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        client.send(chunks);
        let response = client.response();
        if (response.status, response.closes()) != (400, true) {
            wrong.push(format!("{name}: {}", response.head));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(origin.requests().len(), 0, "a broken body was completed upstream");
    proxy.admin.await_stat("cluster.origin.upstream_cx_active", 0);
}

#[test]
fn what_follows_a_malformed_request_is_not_read() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send("GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\nX : 1\r\n\r\nGET /3 HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 400);
    client.end();
    assert_eq!(client.text(), "");
    assert_eq!(origin.request().path(), "/1");
    proxy.admin.await_stat("http.ingress.downstream_cx_protocol_error", 1);
}

#[test]
fn heads_beyond_a_limit_are_answered_with_431() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).hcm(json!({
        "max_request_headers_kb": 2,
        "common_http_protocol_options": {"max_headers_count": 10},
    }));
    let proxy = Proxy::start(&config);
    let many: String = (0..10).map(|n| format!("x-{n}: 1\r\n")).collect();
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(3000));
    let endless = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "a".repeat(3000));
    let line = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(3000));
    for request in [format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), large, endless, line] {
        let mut client = proxy.connect();
        let response = client.ask(&request);
        assert_eq!((response.status, response.closes()), (431, true));
        assert_eq!(response.text(), "Request Header Fields Too Large");
        assert_ne!(client.end(), End::Open);
    }
    let within: String = (0..9).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert_eq!(proxy.connect().ask(&format!("GET / HTTP/1.1\r\nhost: a\r\n{within}\r\n")).status, 200);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn the_default_head_limit_is_60_kib() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    for (kib, status) in [(59, 200), (61, 431)] {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(kib * 1024));
        assert_eq!(proxy.connect().ask(&request).status, status, "{kib} KiB");
    }
}
