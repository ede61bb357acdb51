//! Sections, both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::{Bytes, BytesMut};
use http::{HeaderName, Method, StatusCode, header};

use super::instructions::{self, Partial};
use super::*;
use crate::fields::WriteFields;
use crate::hpack::{Field, Name};

/// `name: value` of each field, `!` before sensitive ones; sizes are checked.
fn read(section: &[u8]) -> Result<Vec<String>, Error> {
    let mut fields = Vec::new();
    decode(&Bytes::copy_from_slice(section), &mut |field: Field, size| {
        let name = match &field.name {
            Name::Header(name) => name.to_string(),
            pseudo => format!(":{pseudo:?}").to_lowercase(),
        };
        if !matches!(field.name, Name::Invalid | Name::UnknownPseudo) {
            assert_eq!(size, name.len() + field.value.len() + 32);
        }
        let mark = if field.sensitive { "!" } else { "" };
        fields.push(format!("{mark}{name}: {}", field.value.escape_ascii()));
    })?;
    Ok(fields)
}

#[test]
fn the_example_without_a_table() {
    // RFC 9204 B.1.
    let section = b"\x00\x00\x51\x0b/index.html";
    assert_eq!(read(section).unwrap(), [":path: /index.html"]);
}

#[test]
fn examples_with_a_table_are_refused_by_a_decoder_that_announced_none() {
    // RFC 9204 B.2: a capacity of 220 and two entries, then a section that uses them.
    let stream = b"\x3f\xbd\x01\xc0\x0fwww.example.com\xc1\x0c/sample/path";
    assert_eq!(Partial::default().encoder(stream), Err(instructions::Error::Capacity));
    assert_eq!(Partial::default().encoder(&stream[3..]), Err(instructions::Error::Insert));
    assert_eq!(read(b"\x03\x81\x10\x11"), Err(Error::Dynamic));
    // B.3 to B.5.
    assert_eq!(
        Partial::default().encoder(b"\x4acustom-key\x0ccustom-value"),
        Err(instructions::Error::Insert)
    );
    assert_eq!(Partial::default().encoder(b"\x02"), Err(instructions::Error::Insert));
    assert_eq!(read(b"\x05\x00\x80\xc1\x81"), Err(Error::Dynamic));
    // Even if the prefix promises nothing.
    for section in
        [&b"\x00\x00\x80"[..], b"\x00\x00\x40\x00", b"\x00\x00\x10", b"\x00\x00\x00\x00", b"\x00\x80"]
    {
        assert_eq!(read(section), Err(Error::Dynamic), "{section:x?}");
    }
}

#[test]
fn instructions_come_in_any_pieces() {
    let mut partial = Partial::default();
    for _ in 0..3 {
        partial.encoder(b"\x20\x20").unwrap();
        // 0 in more bytes than it needs.
        for byte in b"\x7f\x80\x80\x00" {
            partial.decoder(&[*byte]).unwrap();
        }
    }
    for (bytes, error) in [
        (&b"\x00"[..], instructions::Error::NoIncrement),
        (b"\x01", instructions::Error::Increment),
        (b"\x80", instructions::Error::Acknowledgement),
        (b"\x7f\xff\xff\xff\xff\xff\xff", instructions::Error::Integer),
    ] {
        assert_eq!(Partial::default().decoder(bytes), Err(error), "{bytes:x?}");
    }
    assert_eq!(
        Partial::default().encoder(b"\x3f\x80\x80\x80\x80\x80\x80"),
        Err(instructions::Error::Integer)
    );
}

#[test]
fn what_is_written_is_read() {
    let mut out = BytesMut::new();
    let mut encoder = Encoder;
    encoder.begin(&mut out);
    let mut lines = Vec::new();
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "CONNECT", "PATCH"] {
        encoder.method(&mut out, &Method::from_bytes(method.as_bytes()).unwrap());
        lines.push(format!(":method: {method}"));
    }
    for scheme in ["http", "https", "ftp"] {
        encoder.scheme(&mut out, scheme.as_bytes());
        lines.push(format!(":scheme: {scheme}"));
    }
    for path in ["/", "/index.html"] {
        encoder.path(&mut out, path.as_bytes());
        lines.push(format!(":path: {path}"));
    }
    for status in [100, 103, 200, 204, 206, 302, 304, 400, 403, 404, 421, 425, 429, 500, 503, 999] {
        encoder.status(&mut out, StatusCode::from_u16(status).unwrap());
        lines.push(format!(":status: {status}"));
    }
    encoder.authority(&mut out, b"host");
    encoder.protocol(&mut out, b"websocket");
    lines.extend([":authority: host".to_owned(), ":protocol: websocket".to_owned()]);
    let long = "v".repeat(300);
    let fields = [
        (header::ACCEPT, "*/*"),
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_TYPE, "x"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
        (header::SERVER, ""),
        (header::USER_AGENT, long.as_str()),
        (HeaderName::from_static("x-forwarded-for"), "1.2.3.4"),
        (HeaderName::from_static("x"), ""),
        (HeaderName::from_bytes("n".repeat(200).as_bytes()).unwrap(), long.as_str()),
    ];
    for (name, value) in &fields {
        encoder.field(&mut out, name, value.as_bytes(), false);
        encoder.field(&mut out, name, value.as_bytes(), true);
        lines.extend([format!("{name}: {value}"), format!("!{name}: {value}")]);
    }
    assert_eq!(read(&out).unwrap(), lines);
    // Cut anywhere it is refused, or ends after a field.
    for end in 0..out.len() {
        match read(&out[..end]) {
            Ok(some) => assert_eq!(some, lines[..some.len()]),
            Err(error) => assert!(matches!(error, Error::Prefix | Error::Truncated), "{error}"),
        }
    }
}

#[test]
fn strings_may_be_huffman_coded() {
    // `www.example.com` (RFC 7541 C.4.1), as a value, and `custom-key` (C.4.3), as a name.
    let mut section = b"\x00\x00\x50\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff".to_vec();
    section.extend_from_slice(b"\x2f\x01\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x01v");
    assert_eq!(read(&section).unwrap(), [":authority: www.example.com", "custom-key: v"]);
    assert_eq!(read(b"\x00\x00\x50\x84\xff\xff\xff\xff"), Err(Error::Huffman));
    assert_eq!(read(b"\x00\x00\xff\xff\xff\xff\xff\x7f"), Err(Error::Integer));
    assert_eq!(read(b"\x00\x00\xff\x24"), Err(Error::Static));
    assert_eq!(read(b"\x00"), Err(Error::Prefix));
    assert_eq!(read(b""), Err(Error::Prefix));
}

#[test]
fn nothing_at_random_panics() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let len = random.usize(..40);
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
        let _ = Partial::default().encoder(&bytes);
        let _ = Partial::default().decoder(&bytes);
        if let Some(prefix) = bytes.get_mut(..2) {
            prefix.fill(0);
        }
        let _ = read(&bytes);
    }
}
