//! Requests: each row is what Envoy 1.40 was seen to do.

use http::Method;
use tidegate_types::Scheme;

use super::*;

const METHOD: (&[u8], &[u8]) = (b":method", b"GET");
const SCHEME: (&[u8], &[u8]) = (b":scheme", b"http");
const AUTHORITY: (&[u8], &[u8]) = (b":authority", b"a.test");
const PATH: (&[u8], &[u8]) = (b":path", b"/");

fn rules() -> RequestRules {
    RequestRules::from(&ServerOptions::default())
}

fn connect_rules() -> RequestRules {
    RequestRules { allow_connect: true, ..rules() }
}

fn judge(rules: RequestRules, fields: Fields<'_>, end: EndStream) -> Result<Received, Verdict> {
    let mut request = RequestFields::new(rules);
    decode(&block(fields), |field, size| request.push(field, size));
    request.finish(end)
}

fn ended(fields: Fields<'_>) -> Result<Received, Verdict> {
    judge(rules(), fields, EndStream::Yes)
}

/// GET with these behind.
fn with(fields: Fields<'_>) -> Result<Received, Verdict> {
    ended(&[&[METHOD, SCHEME, AUTHORITY, PATH], fields].concat())
}

/// A GET with one of its pseudo-header fields of another value.
fn replaced(name: &[u8], value: &[u8]) -> Result<Received, Verdict> {
    let fields = [METHOD, SCHEME, AUTHORITY, PATH];
    let replace = |field: (&'static [u8], &'static [u8])| field.0 == name;
    let fields: Vec<(&[u8], &[u8])> =
        fields.into_iter().map(|field| if replace(field) { (name, value) } else { field }).collect();
    ended(&fields)
}

/// A GET without one of its pseudo-header fields.
fn without(name: &[u8]) -> Result<Received, Verdict> {
    let fields: Vec<_> =
        [METHOD, SCHEME, AUTHORITY, PATH].into_iter().filter(|field| field.0 != name).collect();
    ended(&fields)
}

#[test]
fn invalid_fields() {
    let rows: [Fields<'_>; 39] = [
        &[(b"X-A", b"1")],
        &[(b"connection", b"close")],
        &[(b"keep-alive", b"timeout=5")],
        &[(b"proxy-connection", b"keep-alive")],
        &[(b"transfer-encoding", b"chunked")],
        &[(b"upgrade", b"websocket")],
        &[(b"te", b"gzip")],
        &[(b"te", b"trailers, gzip")],
        &[(b"te", b"")],
        &[(b"host", b"")],
        &[(b"host", b"a b")],
        &[(b"host", b"u@h")],
        &[(b"host", b"a"), (b"host", b"a")],
        &[METHOD],
        &[PATH],
        &[AUTHORITY],
        &[SCHEME],
        &[(b"x", b"1"), PATH],
        &[(b":foo", b"1")],
        &[(b":", b"1")],
        &[(b":status", b"200")],
        &[(b":protocol", b"websocket")],
        &[(b"", b"1")],
        &[(b"a b", b"1")],
        &[(b"a:", b"1")],
        &[(b"a\xe4", b"1")],
        &[(b"x", b"a\0b")],
        &[(b"x", b"a\nb")],
        &[(b"x", b"a\rb")],
        &[(b"x", b"a\x01b")],
        &[(b"x", b"\x7f")],
        &[(b"content-length", b"4"), (b"content-length", b"4")],
        &[(b"content-length", b"4"), (b"content-length", b"5")],
        &[(b"content-length", b"abc")],
        &[(b"content-length", b"4, 4")],
        &[(b"content-length", b"")],
        &[(b"content-length", b"+1")],
        &[(b"content-length", b"-1")],
        &[(b"content-length", b"18446744073709551616")],
    ];
    for row in rows {
        assert_eq!(with(row).unwrap_err(), Verdict::Field, "{row:?}");
    }
}

#[test]
fn invalid_pseudo_header_fields() {
    let rows: [(&[u8], &[u8]); 24] = [
        (b":authority", b""),
        (b":authority", b"u:p@a.test"),
        (b":authority", b"a b"),
        (b":authority", b"a/b"),
        (b":authority", b"a?b"),
        (b":authority", b"a#b"),
        (b":authority", b"a\xe4"),
        (b":authority", b"a\0"),
        (b":path", b""),
        (b":path", b"/a b"),
        (b":path", b"/a\0"),
        (b":path", b"/\t"),
        (b":path", b"/\r\n"),
        (b":path", b"/\x7f"),
        // Envoy takes it; our paths are text.
        (b":path", b"/\xff"),
        (b":method", b""),
        (b":method", b"G T"),
        (b":method", b"G\0"),
        (b":method", b"G\xe4"),
        (b":scheme", b""),
        (b":scheme", b"1x"),
        (b":scheme", b"h tp"),
        (b":scheme", b"http:"),
        (b":scheme", b"\xe4"),
    ];
    for (name, value) in rows {
        assert_eq!(replaced(name, value).unwrap_err(), Verdict::Field, "{name:?} {value:?}");
    }
}

#[test]
fn broken_messages() {
    for name in [&b":method"[..], b":scheme", b":path", b":authority"] {
        assert_eq!(without(name).unwrap_err(), Verdict::Message, "{name:?}");
    }
    for path in [&b"*"[..], b"x", b"http://a.test/"] {
        assert_eq!(replaced(b":path", path).unwrap_err(), Verdict::Message, "{path:?}");
    }
    assert_eq!(with(&[(b"content-length", b"5")]).unwrap_err(), Verdict::Message);
    assert_eq!(ended(&[]).unwrap_err(), Verdict::Message);
}

#[test]
fn the_first_broken_rule_decides() {
    let large = vec![b'v'; 61 * 1024];
    assert_eq!(with(&[(b"x", &large), (b"connection", b"x")]).unwrap_err(), Verdict::TooLarge);
    assert_eq!(with(&[(b"connection", b"x"), (b"x", &large)]).unwrap_err(), Verdict::Field);
    assert_eq!(ended(&[(b"x", b"1"), (b"Y", b"1")]).unwrap_err(), Verdict::Field);
}

#[test]
fn what_is_accepted_keeps_its_bytes_and_order() {
    let received = with(&[
        (b"te", b"Trailers"),
        (b"x-a", b" v "),
        (b"x-b", b""),
        (b"accept", b"x"),
        (b"x-c", b"1\t2"),
        (b"http2-settings", b"AAM"),
        (b"x-a", b"\xe4\xff"),
        (b"accept", b"y"),
        (b"content-length", b"0"),
        (b"!#$%&'*+-.^_`|~", b"n"),
    ])
    .unwrap();
    assert_eq!(
        map_lines(&received.head.headers),
        [
            "te: trailers",
            "x-a:  v ",
            "x-a: \\xe4\\xff",
            "x-b: ",
            "accept: x,y",
            "x-c: 1\\t2",
            "http2-settings: AAM",
            "content-length: 0",
            "!#$%&'*+-.^_`|~: n",
        ]
    );
    assert_eq!(received.length, ContentLength::Remaining(0));
    assert_eq!((received.asked, received.dropped), (Asked::Ordinary, 0));
}

#[test]
fn pseudo_header_fields_become_the_heads_parts() {
    let head = with(&[]).unwrap().head;
    assert_eq!((&head.method, head.scheme), (&Method::GET, Scheme::Http));
    assert_eq!((&head.authority[..], &head.path[..]), (&b"a.test"[..], &b"/"[..]));
    assert_eq!(replaced(b":scheme", b"https").unwrap().head.scheme, Scheme::Https);
    for other in [&b"ftp"[..], b"HTTP", b"HTTPS", b"a+b.c-d"] {
        assert_eq!(replaced(b":scheme", other).unwrap().head.scheme, Scheme::Http);
    }
    for method in ["get", "FOO", "PATCH"] {
        assert_eq!(replaced(b":method", method.as_bytes()).unwrap().head.method.as_str(), method);
    }
    for path in ["/a#b", "/ä", "/<>\"{}|^`\\", "/%00?x=y"] {
        assert_eq!(replaced(b":path", path.as_bytes()).unwrap().head.path, path.as_bytes());
    }
    assert_eq!(&replaced(b":authority", b"A.TEST:80").unwrap().head.authority[..], b"A.TEST:80");
    let options = ended(&[(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")]).unwrap();
    assert_eq!(&options.head.path[..], b"*");
    assert_eq!(replaced(b":method", b"HEAD").unwrap().asked, Asked::Head);
}

#[test]
fn authority_wins_over_host_and_host_stands_in() {
    let both = with(&[(b"host", b"other.test")]).unwrap().head;
    assert_eq!((&both.authority[..], both.headers.len()), (&b"a.test"[..], 0));
    let host = ended(&[METHOD, SCHEME, PATH, (b"x", b"1"), (b"host", b"h.test:8")]).unwrap().head;
    assert_eq!((&host.authority[..], host.headers.len()), (&b"h.test:8"[..], 1));
}

#[test]
fn cookie_crumbs_are_joined_behind_all_others() {
    let crumbs: Fields<'_> =
        &[(b"cookie", b"a=1"), (b"x-m", b"m"), (b"cookie", b"b=2; c=3"), (b"cookie", b"d")];
    assert_eq!(map_lines(&with(crumbs).unwrap().head.headers), ["x-m: m", "cookie: a=1; b=2; c=3; d"]);
    let one = with(&[(b"cookie", b"a=1"), (b"x-m", b"m")]).unwrap();
    assert_eq!(map_lines(&one.head.headers), ["x-m: m", "cookie: a=1"]);
}

#[test]
fn expectations_are_ours_to_answer_or_passed_on() {
    let fields: Fields<'_> = &[METHOD, SCHEME, AUTHORITY, PATH, (b"expect", b"100-Continue")];
    let received = judge(rules(), fields, EndStream::No).unwrap();
    assert!(received.expects_continue && received.head.headers.is_empty());
    let passed = RequestRules { proxy_100_continue: true, ..rules() };
    let received = judge(passed, fields, EndStream::No).unwrap();
    assert!(!received.expects_continue);
    assert_eq!(map_lines(&received.head.headers), ["expect: 100-Continue"]);
    assert!(!with(&[(b"expect", b"x")]).unwrap().expects_continue);
}

#[test]
fn bytes_are_counted_without_overhead() {
    let rules = RequestRules {
        limits: Limits {
            bytes: 1024,
            fields: 100,
            underscores: Underscores::Allow,
            obs_text: ObsText::Allow,
            dialect: Dialect::Http2,
        },
        ..rules()
    };
    let judge = |fields: Fields<'_>| {
        let fields = [&[METHOD, SCHEME, AUTHORITY, PATH], fields].concat();
        judge(rules, &fields, EndStream::Yes).map(|received| received.bytes)
    };
    // The boundaries were measured.
    let value = [b'v'; 1000];
    assert_eq!(judge(&[(b"x-a", &value[..978])]), Ok(1024));
    assert_eq!(judge(&[(b"x-a", &value[..979])]), Err(Verdict::TooLarge));
    let mut crumbs: Vec<(&[u8], &[u8])> = vec![(b"cookie", b"a=1"); 9];
    crumbs.push((b"cookie", &value[..936]));
    assert_eq!(judge(&crumbs), Ok(1024));
    crumbs[9].1 = &value[..937];
    assert_eq!(judge(&crumbs), Err(Verdict::TooLarge));
}

#[test]
fn fields_are_counted_with_pseudo_header_fields_and_crumbs() {
    let names: Vec<String> = (0..97).map(|index| format!("x-{index}")).collect();
    let mut fields: Vec<(&[u8], &[u8])> = names.iter().map(|name| (name.as_bytes(), &b"1"[..])).collect();
    assert_eq!(with(&fields).unwrap_err(), Verdict::TooMany);
    assert_eq!(with(&fields[1..]).unwrap().head.headers.len(), 96);
    fields = vec![(b"cookie", b"a=1"); 120];
    assert_eq!(with(&fields).unwrap_err(), Verdict::TooMany);
    // A limit over that of the map does no harm.
    let wide = Limits {
        bytes: usize::MAX,
        fields: usize::MAX,
        underscores: Underscores::Allow,
        obs_text: ObsText::Allow,
        dialect: Dialect::Http2,
    };
    let names: Vec<String> = (0..40_000).map(|index| format!("x-{index}")).collect();
    let mut fields = vec![METHOD, SCHEME, AUTHORITY, PATH];
    fields.extend(names.iter().map(|name| (name.as_bytes(), &b"1"[..])));
    let verdict = judge(RequestRules { limits: wide, ..rules() }, &fields, EndStream::Yes);
    assert_eq!(verdict.unwrap_err(), Verdict::TooMany);
}

#[test]
fn bytes_above_ascii_are_no_values_if_told_so() {
    for field in [(&b"x-b"[..], &b"caf\xe9"[..]), (b"x-b", "é".as_bytes()), (b"cookie", b"a=\xff")] {
        let fields: Fields<'_> = &[METHOD, SCHEME, AUTHORITY, PATH, field];
        let judge = |obs_text| {
            let limits = Limits { obs_text, ..limits() };
            judge(RequestRules { limits, ..rules() }, fields, EndStream::Yes).err()
        };
        assert_eq!((judge(ObsText::Allow), judge(ObsText::Refuse)), (None, Some(Verdict::Field)));
    }
}

#[test]
fn underscores_are_kept_dropped_or_refused() {
    let fields: Fields<'_> = &[METHOD, SCHEME, AUTHORITY, PATH, (b"x_a", b"1"), (b"x-b", b"2")];
    let judge = |underscores| {
        let limits = Limits { underscores, ..limits() };
        judge(RequestRules { limits, ..rules() }, fields, EndStream::Yes)
    };
    assert_eq!(map_lines(&judge(Underscores::Allow).unwrap().head.headers), ["x_a: 1", "x-b: 2"]);
    let dropped = judge(Underscores::Drop).unwrap();
    assert_eq!((map_lines(&dropped.head.headers), dropped.dropped), (vec!["x-b: 2".to_owned()], 1));
    assert_eq!(judge(Underscores::Reject).unwrap_err(), Verdict::Underscore);
}

#[test]
fn connect_has_an_authority_alone() {
    let method: (&[u8], &[u8]) = (b":method", b"CONNECT");
    let judge = |fields: Fields<'_>| judge(rules(), fields, EndStream::No);
    let received = judge(&[method, AUTHORITY, (b"content-length", b"4")]).unwrap();
    assert_eq!((received.asked, received.length), (Asked::Connect, ContentLength::Any));
    assert!(received.head.path.is_empty() && received.head.headers.is_empty());
    for fields in
        [&[method][..], &[method, AUTHORITY, SCHEME], &[method, AUTHORITY, PATH], &[method, (b"host", b"a")]]
    {
        assert_eq!(judge(fields).unwrap_err(), Verdict::Message, "{fields:?}");
    }
}

#[test]
fn extended_connect_is_an_upgrade() {
    let method: (&[u8], &[u8]) = (b":method", b"CONNECT");
    let protocol: (&[u8], &[u8]) = (b":protocol", b"websocket");
    let judge = |fields: Fields<'_>, end| judge(connect_rules(), fields, end);
    let received = judge(&[method, protocol, SCHEME, AUTHORITY, PATH], EndStream::No).unwrap();
    assert_eq!(
        (&received.head.method, received.head.upgrade.as_deref()),
        (&Method::GET, Some(&b"websocket"[..]))
    );
    assert_eq!(received.asked, Asked::Upgrade(Bytes::from_static(b"websocket")));
    for fields in [
        &[METHOD, protocol, SCHEME, AUTHORITY, PATH][..],
        &[method, protocol, SCHEME, AUTHORITY],
        &[method, protocol, SCHEME, AUTHORITY, (b":path", b"*")],
        &[method, protocol, AUTHORITY, PATH],
        &[method, protocol, SCHEME, PATH, (b"host", b"a")],
        &[method, protocol, SCHEME, AUTHORITY, PATH, (b"content-length", b"4")],
    ] {
        assert_eq!(judge(fields, EndStream::Yes).unwrap_err(), Verdict::Message, "{fields:?}");
    }
    let empty = judge(&[method, (b":protocol", b""), SCHEME, AUTHORITY, PATH], EndStream::No);
    assert_eq!(empty.unwrap_err(), Verdict::Field);
    let twice = judge(&[method, protocol, protocol, SCHEME, AUTHORITY, PATH], EndStream::No);
    assert_eq!(twice.unwrap_err(), Verdict::Field);
}

#[test]
fn random_fields_never_panic() {
    const NAMES: [&[u8]; 14] = [
        b":method",
        b":scheme",
        b":authority",
        b":path",
        b":protocol",
        b":status",
        b"host",
        b"te",
        b"cookie",
        b"content-length",
        b"expect",
        b"connection",
        b"x_a",
        b"accept",
    ];
    const VALUES: [&[u8]; 12] = [
        b"GET",
        b"CONNECT",
        b"http",
        b"a",
        b"/",
        b"*",
        b"",
        b"trailers",
        b"4",
        b"\0",
        b"\xff",
        b"100-continue",
    ];
    let mut random = fastrand::Rng::with_seed(9113);
    for _ in 0..20_000 {
        let fields: Vec<(&[u8], &[u8])> = (0..random.usize(..9))
            .map(|_| (*random.choice(NAMES.iter()).unwrap(), VALUES[random.usize(..VALUES.len())]))
            .collect();
        let end = EndStream::from_last(random.bool());
        let _ = judge(connect_rules(), &fields, end);
        let mut response = ResponseFields::new(limits());
        let mut trailers = TrailerFields::new(limits());
        decode(&block(&fields), |field, size| {
            response.push(field.clone(), size);
            trailers.push(field, size);
        });
        let _ = (response.finish(end, &Asked::Ordinary), trailers.finish(end));
    }
}
