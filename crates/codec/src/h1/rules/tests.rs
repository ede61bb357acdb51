#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

#[test]
fn lengths_are_digits_that_fit() {
    assert_eq!(parse_length(b"0"), Some(0));
    assert_eq!(parse_length(b"007"), Some(7));
    assert_eq!(parse_length(b"18446744073709551615"), Some(u64::MAX));
    for bad in ["", "18446744073709551616", "+1", "-1", "1 ", " 1", "1,1", "0x1", "1e1", "\u{661}"] {
        assert_eq!(parse_length(bad.as_bytes()), None, "{bad:?}");
    }
}

#[test]
fn chunk_sizes_are_hex_that_fits() {
    for (line, size) in [("0", 0), ("aF", 0xaf), ("5 ", 5), ("5 ;a=b", 5), ("ffffffffffffffff", u64::MAX)] {
        assert_eq!(parse_chunk_size(line.as_bytes()).unwrap().0, size);
    }
    for bad in ["", ";a", "10000000000000000", "g", "0x1", "-1", "1 1", "1;\0", "1;\r"] {
        assert_eq!(parse_chunk_size(bad.as_bytes()), Err(Violation::Chunk), "{bad:?}");
    }
}

fn fields(lines: &[(&'static str, &'static str)]) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in lines {
        fields.take(&HeaderName::from_static(name), &HeaderValue::from_static(value)).unwrap();
    }
    fields
}

#[test]
fn a_response_is_framed_by_request_status_and_fields() {
    const CL: (&str, &str) = ("content-length", "5");
    const TE: (&str, &str) = ("transfer-encoding", "chunked");
    type Row = (Asked, u16, &'static [(&'static str, &'static str)], Result<Framing, Violation>);
    let table: &[Row] = &[
        (Asked::Ordinary, 200, &[], Ok(Framing::UntilClose)),
        (Asked::Ordinary, 200, &[CL], Ok(Framing::Length(5))),
        (Asked::Ordinary, 200, &[("content-length", "0")], Ok(Framing::None)),
        (Asked::Ordinary, 200, &[TE], Ok(Framing::Chunked)),
        (Asked::Ordinary, 200, &[CL, TE], Err(Violation::LengthAndCoding)),
        (Asked::Ordinary, 200, &[CL, CL], Err(Violation::Length)),
        (Asked::Ordinary, 200, &[("transfer-encoding", "gzip")], Err(Violation::Coding)),
        (Asked::Ordinary, 204, &[CL], Err(Violation::LengthNotAllowed)),
        (Asked::Ordinary, 204, &[TE], Err(Violation::CodingNotAllowed)),
        (Asked::Ordinary, 304, &[CL], Ok(Framing::None)),
        (Asked::Ordinary, 101, &[], Err(Violation::Upgrade)),
        (Asked::Ordinary, 103, &[], Ok(Framing::None)),
        (Asked::Head, 200, &[CL], Ok(Framing::None)),
        (Asked::Head, 200, &[TE], Ok(Framing::None)),
        (Asked::Head, 200, &[], Ok(Framing::None)),
        (Asked::Connect, 200, &[CL], Ok(Framing::Tunnel)),
        (Asked::Connect, 403, &[CL], Ok(Framing::Length(5))),
        (Asked::Upgrade, 101, &[], Ok(Framing::Tunnel)),
        (Asked::Upgrade, 200, &[CL], Ok(Framing::Length(5))),
    ];
    for (asked, status, lines, expected) in table {
        let status = StatusCode::from_u16(*status).unwrap();
        assert_eq!(fields(lines).response_framing(*asked, status), *expected, "{asked:?} {status} {lines:?}");
    }
}

#[test]
fn connections_persist_by_version_and_option() {
    for (value, on_11, on_10) in [
        ("", true, false),
        ("close", false, false),
        ("Close", false, false),
        ("keep-alive", true, true),
        ("keep-alive, close", false, false),
        ("x , CLOSE", false, false),
        ("closed", true, false),
    ] {
        let fields = fields(&[("connection", value)]);
        assert_eq!(fields.persists(Version::HTTP_11), on_11, "{value:?}");
        assert_eq!(fields.persists(Version::HTTP_10), on_10, "{value:?}");
    }
    assert!(!fields(&[("proxy-connection", "close")]).persists(Version::HTTP_11));
}

#[test]
fn an_upgrade_is_ignored_beside_a_body_without_the_option_and_for_h2c() {
    let upgrade = |option, protocol| fields(&[("connection", option), ("upgrade", protocol)]);
    let asked = upgrade("upgrade", "websocket");
    assert!(asked.upgrade(Version::HTTP_11, Framing::None).is_some());
    assert!(asked.upgrade(Version::HTTP_10, Framing::None).is_none());
    assert!(asked.upgrade(Version::HTTP_11, Framing::Length(1)).is_none());
    assert!(upgrade("close", "websocket").upgrade(Version::HTTP_11, Framing::None).is_none());
    assert!(upgrade("upgrade, http2-settings", "h2c").upgrade(Version::HTTP_11, Framing::None).is_none());
}

#[test]
fn the_seconds_of_a_keep_alive_field_are_found() {
    for (value, seconds) in [
        ("timeout=5", Some(5)),
        ("timeout=5, max=1000", Some(5)),
        ("max=100, Timeout=75", Some(75)),
        ("timeout=0", Some(0)),
        ("timeout=", None),
        ("timeout=5s", None),
        ("timeout = 5", None),
        ("timeout=99999999999", None),
        ("max=100", None),
        ("", None),
    ] {
        assert_eq!(fields(&[("keep-alive", value)]).keep_alive_timeout, seconds, "{value:?}");
    }
}
