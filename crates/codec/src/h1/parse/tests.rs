#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tidegate_types::Scheme;

use super::*;
use crate::h1::corpus::REFUSED;

fn parse_with(text: &str, options: &ServerOptions) -> Result<ParsedRequest, Violation> {
    let mut buf = BytesMut::from(text);
    match parse_request(&mut buf, &mut HeadScan::default(), options) {
        Ok(parsed) => Ok(parsed.expect("incomplete")),
        Err(refused) => Err(refused.violation),
    }
}

fn parse(text: &str) -> ParsedRequest {
    parse_with(text, &ServerOptions::default()).unwrap()
}

#[test]
fn the_corpus_is_refused_with_envoys_status_and_details() {
    for (text, status, details) in REFUSED {
        let violation = parse_with(text, &ServerOptions::default()).expect_err(text);
        assert_eq!((violation.status().as_u16(), violation.details()), (*status, *details), "{text:?}");
    }
}

#[test]
fn fields_of_the_connection_stay_behind() {
    let parsed = parse(concat!(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Gone, TE\r\nX-Gone: 1\r\nX-Stays: 2\r\n",
        "Keep-Alive: timeout=5\r\nTE: gzip, trailers\r\nProxy-Connection: keep-alive\r\nTrailer: x-t\r\n",
        "Upgrade: h2c\r\nHTTP2-Settings: AA\r\nProxy-Authorization: Basic x\r\n\r\n"
    ));
    let left: Vec<String> = parsed
        .head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    assert_eq!(
        left,
        ["x-stays: 2", "te: trailers", "trailer: x-t", "proxy-authorization: Basic x"].map(String::from)
    );
    assert!(parsed.head.upgrade.is_none() && parsed.persists);
}

/// What else stands in `Connection` is not passed on with it.
#[test]
fn an_upgrade_stays_where_it_stands() {
    for (option, kept) in [("upgrade", "upgrade"), ("keep-alive, Upgrade, X-Gone", "Upgrade")] {
        let parsed = parse(&format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nUpgrade: websocket\r\nX-Gone: 1\r\nConnection: {option}\r\nX-B: 1\r\n\r\n"
        ));
        let left = parsed.head.headers.iter().filter(|(name, _)| *name != "x-gone");
        let left: Vec<_> = left.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        assert_eq!(left, ["x-a: 1", "upgrade: websocket", &format!("connection: {kept}"), "x-b: 1"]);
        assert_eq!(parsed.head.upgrade.as_deref(), Some(&b"websocket"[..]));
        assert_eq!(parsed.head.headers.contains_key("x-gone"), option == "upgrade");
    }
}

#[test]
fn values_are_trimmed_and_lines_of_one_name_kept_apart() {
    let head = parse("GET / HTTP/1.1\r\nHost:\t a.test \r\nX-A: \t b c\t\r\nx-a:d\r\nX-E:\r\n\r\n").head;
    assert_eq!(head.authority, "a.test");
    assert_eq!(head.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["b c", "d"]);
    assert_eq!(head.headers["x-e"], "");
}

#[test]
fn the_forms_of_targets() {
    let table = [
        ("GET", "/a?b", "host", "/a?b", None),
        ("GET", "http://b.test:81/x?y", "b.test:81", "/x?y", Some(Scheme::Http)),
        ("GET", "HTTPS://b.test", "b.test", "/", Some(Scheme::Https)),
        ("GET", "http://u:p@b.test/x", "b.test", "/x", Some(Scheme::Http)),
        ("GET", "http://b.test?x=y", "b.test", "/?x=y", Some(Scheme::Http)),
        ("OPTIONS", "*", "host", "*", None),
        ("CONNECT", "c.test:443", "c.test:443", "", None),
        ("GET", "//a/x", "host", "//a/x", None),
    ];
    for (method, target, authority, path, scheme) in table {
        let head = parse(&format!("{method} {target} HTTP/1.1\r\nHost: host\r\n\r\n")).head;
        assert_eq!(
            (&head.authority[..], &head.path[..]),
            (authority.as_bytes(), path.as_bytes()),
            "{target}"
        );
        assert_eq!(head.scheme, scheme.unwrap_or(Scheme::Http));
    }
    let off = ServerOptions { allow_absolute_url: false, ..Default::default() };
    let head = parse_with("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", &off).unwrap().head;
    assert_eq!((&head.authority[..], &head.path[..]), (&b"a"[..], &b"http://b/x"[..]));
}

#[test]
fn http_10_is_what_the_options_say() {
    let options = ServerOptions {
        accept_http_10: true,
        default_host_for_http_10: Some("d.test".into()),
        ..Default::default()
    };
    let parsed = parse_with("GET / HTTP/1.0\r\n\r\n", &options).unwrap();
    assert_eq!((&parsed.head.authority[..], parsed.persists), (&b"d.test"[..], false));
    let coded = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(parse_with(coded, &options).unwrap_err(), Violation::CodingNotAllowed);
    assert_eq!(parse_with("GET / HTTP/1.1\r\n\r\n", &options).unwrap_err(), Violation::MissingHost);
}

#[test]
fn the_limits_hold_before_the_head_is_complete() {
    let options = ServerOptions { max_head_bytes: 100, max_headers: 3, ..Default::default() };
    let refused = |text: &str| parse_with(text, &options).unwrap_err();
    assert_eq!(refused(&format!("GET /{}", "a".repeat(100))), Violation::HeadTooLarge);
    assert_eq!(
        refused(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(100))),
        Violation::HeadTooLarge
    );
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nA:\r\nB:\r\nC:\r\n"), Violation::TooManyFields);
    assert!(parse_with("GET / HTTP/1.1\r\nHost: a\r\nA:\r\nB:\r\n\r\n", &options).is_ok());
}

#[test]
fn both_framings_pass_only_when_allowed_and_then_close() {
    let options = ServerOptions { allow_chunked_length: true, ..Default::default() };
    let text = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let parsed = parse_with(text, &options).unwrap();
    assert_eq!((parsed.framing, parsed.persists), (Framing::Chunked, false));
    assert!(parsed.head.headers.is_empty());
}

#[test]
fn a_long_head_is_scanned_once() {
    let mut text = String::from("GET / HTTP/1.1\r\nHost: a\r\n");
    (0..90).for_each(|field| text.push_str(&format!("X-{field}: {}\r\n", "v".repeat(500))));
    text.push_str("\r\n");
    let mut scan = HeadScan::default();
    let mut buf = BytesMut::new();
    for byte in text.bytes() {
        buf.extend_from_slice(&[byte]);
        // Quadratic work would show as minutes here.
        let parsed = parse_request(&mut buf, &mut scan, &ServerOptions::default()).unwrap();
        assert!(parsed.is_none() || buf.is_empty());
    }
    assert!(buf.is_empty());
}

#[test]
fn many_lines_are_found_however_they_came() {
    let mut text = String::from("GET / HTTP/1.1\r\nHost: a\r\n");
    (0..90).for_each(|field| text.push_str(&format!("X-{field}: {field}\r\n")));
    text.push_str("\r\n");
    for cut in (0..text.len()).step_by(7) {
        let (first, rest) = text.as_bytes().split_at(cut);
        let (mut scan, mut buf) = (HeadScan::default(), BytesMut::from(first));
        let options = ServerOptions::default();
        assert!(parse_request(&mut buf, &mut scan, &options).unwrap().is_none());
        buf.extend_from_slice(rest);
        let head = parse_request(&mut buf, &mut scan, &options).unwrap().unwrap().head;
        assert_eq!(head.headers.len(), 90);
        assert!((0..90).all(|field| head.headers[format!("x-{field}")] == field.to_string()));
    }
}

#[test]
fn lines_of_a_list_field_become_one_and_others_stay() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nAccept: x\r\nX-A: 1\r\nAccept: y\r\nX-A: 2\r\n\r\n";
    let mut buf = BytesMut::from(text);
    let parsed =
        parse_request(&mut buf, &mut HeadScan::default(), &ServerOptions::default()).unwrap().unwrap();
    let lines = |name: &str| {
        parsed.head.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(lines("accept"), ["x,y"]);
    assert_eq!(lines("x-a"), ["1", "2"]);
}

#[test]
fn a_colon_or_a_line_end_is_found_wherever_it_is() {
    // Neighbours of both, and what a word-wise search could take for them.
    let others = [b'9', b';', b'\t', 0x0b, 0, 1, 0x80, 0xba, 0x8a, b'a'];
    for len in 0..20 {
        for other in others {
            let mut text = vec![other; len];
            assert_eq!(colon_or_end(&text), None);
            for at in 0..len {
                text[at] = if at % 2 == 0 { b':' } else { b'\n' };
                assert_eq!(colon_or_end(&text), Some(at), "{text:?}");
                // What comes behind it changes nothing.
                text[len - 1] = b':';
                assert_eq!(colon_or_end(&text), Some(at), "{text:?}");
                text.fill(other);
            }
        }
    }
}
