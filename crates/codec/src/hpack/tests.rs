//! Blocks, both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod peer;
mod rfc;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, Method, StatusCode, header};

use super::huffman::tests::encode as huffman;
use super::*;
use crate::fields::WriteFields;

/// `name: value` of each field, `!` before sensitive ones; sizes are checked.
fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Error> {
    let mut fields = Vec::new();
    decoder.decode(&Bytes::copy_from_slice(block), &mut |field: Field, size| {
        let name = text(&field.name);
        if field.name != Name::Invalid && field.name != Name::UnknownPseudo {
            assert_eq!(size, name.len() + field.value.len() + 32);
        }
        let mark = if field.sensitive { "!" } else { "" };
        fields.push(format!("{mark}{name}: {}", field.value.escape_ascii()));
    })?;
    let (_, size) = decoder.table_len();
    assert!(size <= 4096 * 16);
    Ok(fields)
}

fn text(name: &Name) -> &str {
    match name {
        Name::Method => ":method",
        Name::Scheme => ":scheme",
        Name::Authority => ":authority",
        Name::Path => ":path",
        Name::Status => ":status",
        Name::Protocol => ":protocol",
        Name::UnknownPseudo => ":?",
        Name::Header(name) => name.as_str(),
        Name::Invalid => "?",
    }
}

fn decoder() -> Decoder {
    Decoder::new(4096)
}

/// A literal that goes into the table.
fn incremental(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = BytesMut::from(&[0x40][..]);
    for part in [name, value] {
        integer::encode(&mut block, 0, 7, part.len());
        block.extend_from_slice(part);
    }
    block.to_vec()
}

fn size_update(size: usize) -> Vec<u8> {
    let mut block = BytesMut::new();
    integer::encode(&mut block, 0x20, 5, size);
    block.to_vec()
}

#[test]
fn what_the_encoder_writes_is_read() {
    let mut encoder = Encoder::new();
    let mut block = BytesMut::new();
    encoder.begin(&mut block);
    let mut expected: Vec<String> = Vec::new();
    for method in [Method::GET, Method::POST, Method::PUT, Method::from_bytes(b"foo").unwrap()] {
        encoder.method(&mut block, &method);
        expected.push(format!(":method: {method}"));
    }
    for scheme in ["http", "https", "ftp"] {
        encoder.scheme(&mut block, scheme.as_bytes());
        expected.push(format!(":scheme: {scheme}"));
    }
    for path in ["/", "/index.html", "/a?b=c", &"/x".repeat(200)] {
        encoder.path(&mut block, path.as_bytes());
        expected.push(format!(":path: {path}"));
    }
    for status in [200, 204, 206, 304, 400, 404, 500, 503, 103] {
        encoder.status(&mut block, StatusCode::from_u16(status).unwrap());
        expected.push(format!(":status: {status}"));
    }
    encoder.authority(&mut block, b"a.test:80");
    encoder.protocol(&mut block, b"websocket");
    expected.extend([":authority: a.test:80".to_owned(), ":protocol: websocket".to_owned()]);
    let long = "v".repeat(20_000);
    let long_name = "n".repeat(200);
    let names = ["accept", "accept-encoding", "www-authenticate", "x-request-id", "te", long_name.as_str()];
    for name in names {
        let header = HeaderName::from_bytes(name.as_bytes()).unwrap();
        for value in ["", "v", "gzip, deflate", &long[..126], &long[..127], &long] {
            encoder.field(&mut block, &header, value.as_bytes(), false);
            encoder.field(&mut block, &header, value.as_bytes(), true);
            expected.push(format!("{name}: {value}"));
            expected.push(format!("!{name}: {value}"));
        }
    }
    let mut decoder = decoder();
    assert_eq!(read(&mut decoder, &block).unwrap(), expected);
    assert_eq!(decoder.table_len(), (0, 0));
}

#[test]
fn whole_static_fields_are_one_byte() {
    let encoder = Encoder::new();
    let mut block = BytesMut::new();
    encoder.method(&mut block, &Method::GET);
    encoder.scheme(&mut block, b"https");
    encoder.path(&mut block, b"/");
    encoder.status(&mut block, StatusCode::NOT_FOUND);
    encoder.field(&mut block, &header::ACCEPT_ENCODING, b"gzip, deflate", false);
    assert_eq!(&block[..], [0x82, 0x87, 0x84, 0x8d, 0x90]);
}

#[test]
fn a_lowered_table_is_told_once() {
    let mut encoder = Encoder::new();
    let mut begin = || {
        let mut block = BytesMut::new();
        encoder.begin(&mut block);
        block.to_vec()
    };
    assert_eq!(begin(), b"");
    encoder.set_peer_max(65_536);
    let mut begin = || {
        let mut block = BytesMut::new();
        encoder.begin(&mut block);
        block.to_vec()
    };
    assert_eq!(begin(), b"");
    encoder.set_peer_max(0);
    encoder.set_peer_max(100);
    let mut block = BytesMut::new();
    encoder.begin(&mut block);
    assert_eq!(&block[..], [0x20]);
    encoder.set_peer_max(0);
    encoder.begin(&mut block);
    assert_eq!(&block[..], [0x20]);
}

#[test]
fn names_are_told_apart() {
    let mut block = Vec::new();
    for name in [":protocol", ":foo", ":", "X", "", "a b", "x", "cookie", "te", "!#$%&'*+-.^_`|~"] {
        block.extend(incremental(name.as_bytes(), b""));
        let coded = huffman(name.as_bytes());
        block.extend([0x00, 0x80 | coded.len() as u8]);
        block.extend(coded);
        block.push(0);
    }
    let each = [":protocol", ":?", ":?", "?", "?", "?", "x", "cookie", "te", "!#$%&'*+-.^_`|~"];
    let expected: Vec<String> =
        each.iter().flat_map(|name| [format!("{name}: "), format!("{name}: ")]).collect();
    assert_eq!(read(&mut decoder(), &block).unwrap(), expected);
}

#[test]
fn values_do_not_keep_the_block_in_the_table() {
    let mut decoder = decoder();
    let block = Bytes::from(incremental(b"x", b"value"));
    decoder.decode(&block, &mut |_, _| {}).unwrap();
    assert!(block.is_unique());
    // A literal that is not indexed is a part of the block.
    let block = Bytes::from_static(b"\x00\x01x\x05value");
    let mut value = Bytes::new();
    decoder.decode(&block, &mut |field, _| value = field.value).unwrap();
    assert_eq!(value.as_ptr(), block[4..].as_ptr());
}

#[test]
fn the_oldest_entries_are_evicted() {
    let mut decoder = decoder();
    read(&mut decoder, &size_update(100)).unwrap();
    // 34 bytes each: two fit.
    for name in [b"a", b"b", b"c"] {
        read(&mut decoder, &incremental(name, b"1")).unwrap();
    }
    assert_eq!(decoder.table_len(), (2, 68));
    assert_eq!(read(&mut decoder, &[0xbe, 0xbf]).unwrap(), ["c: 1", "b: 1"]);
    assert_eq!(read(&mut decoder, &[0xc0]), Err(Error::Index));
    // A name may come from the entry that its own insertion evicts.
    let mut block = vec![0x7f, 0x00, 40];
    block.extend([b'v'; 40]);
    assert_eq!(read(&mut decoder, &block).unwrap(), [format!("b: {}", "v".repeat(40))]);
    assert_eq!(decoder.table_len(), (1, 73));
    // Too large for the table: empties it.
    read(&mut decoder, &incremental(b"x", &[b'v'; 100])).unwrap();
    assert_eq!(decoder.table_len(), (0, 0));
}

#[test]
fn size_updates_stand_first_and_within_the_limit() {
    let mut decoder = decoder();
    let block = [size_update(0), size_update(4096), vec![0x82]].concat();
    assert_eq!(read(&mut decoder, &block).unwrap(), [":method: GET"]);
    assert_eq!(read(&mut decoder, &[0x82, 0x20]), Err(Error::TableSize));
    assert_eq!(read(&mut decoder, &size_update(4097)), Err(Error::TableSize));
}

#[test]
fn the_default_table_lives_until_our_settings_are_acknowledged() {
    let mut decoder = Decoder::new(0);
    read(&mut decoder, &incremental(b"a", b"1")).unwrap();
    assert_eq!(read(&mut decoder, &[0xbe]).unwrap(), ["a: 1"]);
    decoder.settings_acknowledged();
    // The next block must lower it.
    assert_eq!(read(&mut decoder, &[0x82]), Err(Error::TableSize));
    assert_eq!(read(&mut decoder, &[0x20, 0x82]).unwrap(), [":method: GET"]);
    assert_eq!(decoder.table_len(), (0, 0));
    assert_eq!(read(&mut decoder, &size_update(1)), Err(Error::TableSize));

    let mut decoder = Decoder::new(65_536);
    read(&mut decoder, &size_update(65_536)).unwrap();
    decoder.settings_acknowledged();
    read(&mut decoder, &incremental(b"a", &[b'v'; 10_000])).unwrap();
    assert_eq!(decoder.table_len(), (1, 10_033));
}

#[test]
fn malformed_blocks_are_told_apart() {
    for (block, error) in [
        (&[0x80][..], Error::Index),
        (&[0xbe], Error::Index),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], Error::Integer),
        (&[0xff], Error::Truncated),
        (&[0x40], Error::Truncated),
        (&[0x00, 0x01], Error::Truncated),
        (&[0x00, 0x01, b'a'], Error::Truncated),
        (&[0x00, 0x01, b'a', 0x02, b'b'], Error::Truncated),
        (&[0x00, 0x01, b'a', 0x7f, 0xff, 0xff, 0xff, 0xff, 0x0f, b'b'], Error::Integer),
        (&[0x00, 0x01, b'a', 0x7f, 0x80, 0xff, 0xff, 0xff, 0x0f, b'b'], Error::Long),
        (&[0x7f, 0x00, 0x00], Error::Index),
        (&[0x00, 0x81, 0xff, 0x00], Error::Huffman),
        (&[0x00, 0x01, b'a', 0x84, 0xff, 0xff, 0xff, 0xff], Error::Huffman),
        (&[0x04, 0x81, 0x18], Error::Huffman),
    ] {
        assert_eq!(read(&mut decoder(), block), Err(error), "{block:x?}");
    }
    assert_eq!(read(&mut decoder(), &[]).unwrap(), [""; 0]);
}

#[test]
fn random_blocks_never_panic_and_keep_the_tables_bounds() {
    let mut random = fastrand::Rng::with_seed(42);
    for _ in 0..2_000 {
        let mut decoder = Decoder::new(random.usize(..300));
        if random.bool() {
            decoder.settings_acknowledged();
        }
        for _ in 0..20 {
            // Well-formed literals among the noise, so that tables fill.
            let mut block = Vec::new();
            for _ in 0..random.usize(..6) {
                match random.u8(..4) {
                    0 => block.extend(incremental(b"x-a", &vec![b'v'; random.usize(..80)])),
                    1 => block.push(0x80 | random.u8(1..70)),
                    2 => block.extend(size_update(random.usize(..300))),
                    _ => block.extend((0..random.usize(..12)).map(|_| random.u8(..))),
                }
            }
            let _ = read(&mut decoder, &block);
            decoder.table_len();
        }
    }
}
