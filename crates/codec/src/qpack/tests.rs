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
    read_with(None, section)
}

fn read_with(table: Option<&DynamicTable>, section: &[u8]) -> Result<Vec<String>, Error> {
    let mut fields = Vec::new();
    decode(&Bytes::copy_from_slice(section), table, &mut |field: Field, size| {
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
fn the_examples_with_a_table() {
    let mut table = DynamicTable::default();
    // RFC 9204 B.2: a capacity of 220 and two entries, then a section that uses them.
    table.handle(b"\x3f\xbd\x01\xc0\x0fwww.example.com\xc1\x0c/sample/path").unwrap();
    assert_eq!(table.inserted(), 2);
    let section = b"\x03\x81\x10\x11";
    assert_eq!(required_insertions(section, 2), Some(2));
    assert_eq!(required_insertions(section, 0), Some(2), "which have not come");
    assert_eq!(read(section), Err(Error::Dynamic));
    assert_eq!(
        read_with(Some(&table), section).unwrap(),
        [":authority: www.example.com", ":path: /sample/path"]
    );
    table.acknowledge(4, 2);
    assert_eq!(table.take_words()[..], *b"\x84");
    // B.3.
    table.handle(b"\x4acustom-key\x0ccustom-value").unwrap();
    table.acknowledge(8, 0);
    assert_eq!(table.take_words()[..], *b"\x01", "with a section that needs nothing");
    // B.4: a copy of the first entry.
    table.handle(b"\x02").unwrap();
    assert_eq!(table.inserted(), 4);
    let section = b"\x05\x00\x80\xc1\x81";
    assert_eq!(
        read_with(Some(&table), section).unwrap(),
        [":authority: www.example.com", ":path: /", "custom-key: custom-value"]
    );
    table.cancel(8);
    assert_eq!(table.take_words()[..], *b"\x48");
    // B.5: the oldest goes.
    table.handle(b"\x81\x0dcustom-value2").unwrap();
    assert_eq!(table.inserted(), 5);
    assert!(table.get(0).is_none() && table.get(1).is_some());
    assert_eq!(read_with(Some(&table), b"\x06\x00\x80").unwrap(), ["custom-key: custom-value2"]);
    assert_eq!(read_with(Some(&table), b"\x06\x00\x84"), Err(Error::Dynamic), "it went");
}

#[test]
fn sections_name_entries_before_and_behind_their_base() {
    let mut table = DynamicTable::default();
    let stream = b"\x3f\xe1\xff\x03\x43abc\x011\x43abd\x012\x43abe\x013";
    // In any pieces.
    stream.iter().for_each(|byte| table.handle(&[*byte]).unwrap());
    assert_eq!(table.inserted(), 3);
    let all = Some(&table);
    assert_eq!(read_with(all, b"\x04\x80\x81\x80\x10").unwrap(), ["abc: 1", "abd: 2", "abe: 3"]);
    // Names alone, before and behind.
    assert_eq!(read_with(all, b"\x04\x80\x40\x01x\x60\x01y").unwrap(), ["abd: x", "!abd: y"]);
    assert_eq!(read_with(all, b"\x04\x80\x00\x01x\x08\x01y").unwrap(), ["abe: x", "!abe: y"]);
    for section in [
        &b"\x03\x00\x10"[..], // beyond what the section says to need
        b"\x04\x00\x83",
        b"\x04\x83\x80",
        b"\x05\x00\x80",
        b"\x00\x00\x80",
        b"\x00\x00\x40\x00",
        b"\x00\x00\x10",
        b"\x00\x00\x00\x00",
        b"\x00\x80",
        b"\x01\x00",
        b"\xff\x82\x1f\x00",
    ] {
        assert_eq!(read_with(all, section), Err(Error::Dynamic), "{section:x?}");
    }
}

#[test]
fn instructions_that_cannot_be_followed() {
    use dynamic::*;
    for (stream, error) in [
        (&b"\x3f\xe2\xff\x03"[..], OVER_CAPACITY),
        (b"\x3f\xff\xff\xff\xff\xff\x0f", INTEGER),
        (b"\xc0\x01x", INSERT_STATIC),
        (b"\x21\x41a\x00", INSERT_LITERAL_ENTRY),
        (b"\x3f\xe1\x1f\xff\x25\x00", STATIC_ENTRY),
        (b"\x3f\xe1\x1f\x80\x00", INSERT_RELATIVE),
        (b"\x3f\xe1\x1f\x00", DUPLICATE_RELATIVE),
        (b"\x3f\xe1\x1f\xc0\x7f\x82\xff\x03", TOO_LONG),
        (b"\x3f\xe1\x1f\xc0\x81\x00", HUFFMAN),
    ] {
        assert_eq!(DynamicTable::default().handle(stream), Err(error), "{stream:x?}");
    }
}

#[test]
fn counts_wrap_around() {
    let mut table = DynamicTable::default();
    table.handle(b"\x3f\xe1\x1f").unwrap();
    for number in 1..10_000u64 {
        table.handle(b"\x41a\x00").unwrap();
        assert_eq!(table.inserted(), number);
        let encoded = number % 4096 + 1;
        let mut section = BytesMut::new();
        crate::hpack::integer::encode(&mut section, 0, 8, encoded as usize);
        assert_eq!(required_insertions(&section, number), Some(number));
        assert!(number < 2000 || required_insertions(&section, number - 2000) == Some(number));
    }
    table.acknowledge(0, 0);
    assert_eq!(table.take_words()[..], *b"\x3f\xd0\x4d", "all at once");
    table.shrink();
}

#[test]
fn instructions_come_in_any_pieces() {
    let mut partial = Partial::default();
    for _ in 0..3 {
        // 0 in more bytes than it needs.
        for byte in b"\x7f\x80\x80\x00" {
            partial.decoder(&[*byte]).unwrap();
        }
    }
    for (bytes, error) in [
        (&b"\x00"[..], instructions::Error::NoIncrement),
        (b"\x01", instructions::Error::Increment(1)),
        (b"\x84", instructions::Error::Acknowledgement(4)),
        (b"\x7f\xff\xff\xff\xff\xff\xff", instructions::Error::Integer),
    ] {
        assert_eq!(Partial::default().decoder(bytes), Err(error), "{bytes:x?}");
    }
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
        let mut table = DynamicTable::default();
        let _ = table.handle(b"\x3f\xe1\x1f\x41a\x011\x41b\x012");
        let _ = table.handle(&bytes);
        let _ = read_with(Some(&table), &bytes);
        let _ = Partial::default().decoder(&bytes);
        if let Some(prefix) = bytes.get_mut(..2) {
            prefix.fill(0);
        }
        let _ = read(&bytes);
    }
}
