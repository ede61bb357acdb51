//! Responses, trailers and lengths.

use http::StatusCode;
use tidegate_types::ResponseHead;

use super::*;

const OK: (&[u8], &[u8]) = (b":status", b"200");

fn judge(
    fields: Fields<'_>,
    end: EndStream,
    asked: &Asked,
) -> Result<(ResponseHead, ContentLength), Verdict> {
    let mut response = ResponseFields::new(limits());
    decode(&block(fields), |field, size| response.push(field, size));
    response.finish(end, asked)
}

fn ordinary(fields: Fields<'_>) -> Result<(ResponseHead, ContentLength), Verdict> {
    judge(fields, EndStream::No, &Asked::Ordinary)
}

fn trailers(limits: Limits, fields: Fields<'_>, end: EndStream) -> Result<HeaderMap, Verdict> {
    let mut trailers = TrailerFields::new(limits);
    decode(&block(fields), |field, size| trailers.push(field, size));
    trailers.finish(end)
}

#[test]
fn responses_are_read() {
    let (head, length) = ordinary(&[OK, (b"server", b"x"), (b"content-length", b"7")]).unwrap();
    assert_eq!((head.status, length), (StatusCode::OK, ContentLength::Remaining(7)));
    assert_eq!(map_lines(&head.headers), ["server: x", "content-length: 7"]);
    let (head, length) = ordinary(&[(b":status", b"600"), (b"vary", b"a"), (b"vary", b"b")]).unwrap();
    assert_eq!((head.status.as_u16(), length), (600, ContentLength::Any));
    assert_eq!(map_lines(&head.headers), ["vary: a,b"]);
}

#[test]
fn invalid_responses() {
    let rows: [Fields<'_>; 20] = [
        &[(b":status", b"abc")],
        &[(b":status", b"1000")],
        &[(b":status", b"20")],
        &[(b":status", b"")],
        &[(b":status", b"+20")],
        &[(b":status", b"101")],
        &[OK, OK],
        &[(b"x", b"1"), OK],
        &[OK, (b":path", b"/")],
        &[OK, (b":foo", b"/")],
        &[OK, (b"X", b"1")],
        &[OK, (b"connection", b"close")],
        &[OK, (b"transfer-encoding", b"chunked")],
        &[OK, (b"keep-alive", b"x")],
        &[OK, (b"x", b"\n")],
        &[OK, (b"content-length", b"1"), (b"content-length", b"1")],
        &[OK, (b"content-length", b"a")],
        &[(b":status", b"204"), (b"content-length", b"1")],
        &[(b":status", b"100"), (b"content-length", b"1")],
        &[OK, (b"upgrade", b"x")],
    ];
    for row in rows {
        assert_eq!(ordinary(row).unwrap_err(), Verdict::Field, "{row:?}");
    }
    assert_eq!(ordinary(&[(b"x", b"1")]).unwrap_err(), Verdict::Message);
    let ended = judge(&[(b":status", b"103")], EndStream::Yes, &Asked::Ordinary);
    assert_eq!(ended.unwrap_err(), Verdict::Message);
    let many = [&[OK][..], &[(&b"set-cookie"[..], &b"a"[..]); 100]].concat();
    assert_eq!(ordinary(&many).unwrap_err(), Verdict::TooMany);
    let large = vec![b'v'; 61 * 1024];
    assert_eq!(ordinary(&[OK, (b"x", &large)]).unwrap_err(), Verdict::TooLarge);
}

#[test]
fn what_has_no_body_takes_no_data() {
    let fields: Fields<'_> = &[OK, (b"content-length", b"7")];
    let (head, length) = judge(fields, EndStream::Yes, &Asked::Head).unwrap();
    assert_eq!((length, head.headers.len()), (ContentLength::Remaining(0), 1));
    for status in [&b"204"[..], b"304"] {
        let (_, length) = ordinary(&[(b":status", status)]).unwrap();
        assert_eq!(length, ContentLength::Remaining(0));
    }
    let (head, _) = ordinary(&[(b":status", b"204"), (b"content-length", b"0")]).unwrap();
    assert!(head.headers.is_empty());
}

#[test]
fn success_makes_a_tunnel() {
    let fields: Fields<'_> = &[OK, (b"content-length", b"7"), (b"x", b"1")];
    let (head, length) = judge(fields, EndStream::No, &Asked::Connect).unwrap();
    assert_eq!((head.status.as_u16(), length), (200, ContentLength::Any));
    assert_eq!(map_lines(&head.headers), ["x: 1"]);
    let upgrade = Asked::Upgrade(Bytes::from_static(b"websocket"));
    let (head, length) = judge(fields, EndStream::No, &upgrade).unwrap();
    assert_eq!((head.status.as_u16(), length), (101, ContentLength::Any));
    assert_eq!(map_lines(&head.headers), ["x: 1", "upgrade: websocket"]);
    let (head, length) =
        judge(&[(b":status", b"403"), (b"content-length", b"7")], EndStream::No, &upgrade).unwrap();
    assert_eq!((head.status.as_u16(), length), (403, ContentLength::Remaining(7)));
}

#[test]
fn trailers_are_judged_by_the_same_rules() {
    let judge = |fields: Fields<'_>, end| trailers(limits(), fields, end);
    let fields: Fields<'_> = &[(b"grpc-status", b"0"), (b"te", b"trailers"), (b"host", b"x"), (b"x", b"1")];
    assert_eq!(map_lines(&judge(fields, EndStream::Yes).unwrap()), ["grpc-status: 0", "x: 1"]);
    assert!(judge(&[], EndStream::Yes).unwrap().is_empty());
    assert_eq!(judge(fields, EndStream::No).unwrap_err(), Verdict::Message);
    assert_eq!(judge(&[(b"content-length", b"4")], EndStream::Yes).unwrap_err(), Verdict::Message);
    let rows: [Fields<'_>; 6] = [
        &[(b":path", b"/")],
        &[(b":status", b"200")],
        &[(b"X", b"1")],
        &[(b"connection", b"close")],
        &[(b"te", b"gzip")],
        &[(b"x", b"\0")],
    ];
    for row in rows {
        assert_eq!(judge(row, EndStream::Yes).unwrap_err(), Verdict::Field, "{row:?}");
    }
}

#[test]
fn trailers_have_the_limits_of_heads() {
    let narrow = Limits {
        bytes: 100,
        fields: 3,
        underscores: Underscores::Reject,
        obs_text: ObsText::Allow,
        dialect: Dialect::Http2,
    };
    let judge = |fields: Fields<'_>, end| trailers(narrow, fields, end).unwrap_err();
    assert_eq!(judge(&[(b"x", &[b'v'; 100])], EndStream::Yes), Verdict::TooLarge);
    // Before a missing end is seen, as in Envoy.
    assert_eq!(judge(&[(b"x", &[b'v'; 100])], EndStream::No), Verdict::TooLarge);
    assert_eq!(judge(&[(&b"x"[..], &b"1"[..]); 4], EndStream::Yes), Verdict::TooMany);
    assert_eq!(judge(&[(b"x_y", b"1")], EndStream::Yes), Verdict::Underscore);
}

#[test]
fn lengths_are_held() {
    let mut length = ContentLength::Remaining(5);
    assert_eq!(length.take(3, EndStream::No), Ok(()));
    assert_eq!({ length }.take(3, EndStream::No), Err(LengthMismatch));
    assert_eq!({ length }.take(1, EndStream::Yes), Err(LengthMismatch));
    assert_eq!({ length }.take(0, EndStream::Yes), Err(LengthMismatch));
    assert_eq!(length.take(2, EndStream::No), Ok(()));
    assert_eq!(length.take(0, EndStream::Yes), Ok(()));
    assert_eq!(ContentLength::Any.take(usize::MAX, EndStream::Yes), Ok(()));
}

#[test]
fn verdicts_are_said_in_envoys_words() {
    for (verdict, details, malformed) in [
        (Verdict::Field, "http2.invalid.header.field", true),
        (Verdict::Message, "http2.violation.of.messaging.rule", true),
        (Verdict::TooLarge, "http2.header_list_size_too_large", false),
        (Verdict::TooMany, "http2.too_many_headers", false),
        (Verdict::Underscore, "http2.unexpected_underscore", false),
    ] {
        assert_eq!((verdict.details(Dialect::Http2), verdict.is_malformed()), (details, malformed));
    }
}
