//! A fixed list of header fields as HPACK: first as entries for the peer's table, then as their indices.
//!
//! That is what a good client does that asks for the same thing again and again, and it makes a block of six
//! fields six bytes long.

use super::hpack::{STATIC_TABLE, TABLE_LIMIT};

/// One list of fields, for all connections.
#[derive(Debug)]
pub(super) struct HeaderBlock {
    literal: Vec<u8>,
    inserting: Vec<u8>,
    indexed: Vec<u8>,
}

/// What the peer's table holds of one block. Only one block a connection may be inserted, since a later one
/// would move its indices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Table {
    /// The peer's settings are not known yet: it might want a smaller table.
    #[default]
    Unknown,
    Empty,
    Inserted,
    /// The peer's table is to be emptied (RFC 7541 section 4.2: the next block must say so).
    Lowered,
    Unused,
}

impl Table {
    /// Takes the peer's SETTINGS_HEADER_TABLE_SIZE, or its absence in the first SETTINGS frame.
    pub(super) fn allow(&mut self, size: Option<u32>) {
        match size {
            Some(size) if (size as usize) < TABLE_LIMIT => *self = Self::Lowered,
            _ if *self == Self::Unknown => *self = Self::Empty,
            _ => {}
        }
    }
}

impl HeaderBlock {
    /// Encodes these fields, pseudo-headers first.
    pub(super) fn new(fields: &[(&str, &str)]) -> Self {
        let mut block = Self { literal: Vec::new(), inserting: Vec::new(), indexed: Vec::new() };
        let at = |name: &str, value: &str| STATIC_TABLE.iter().position(|known| *known == (name, value));
        let inserted = fields.iter().filter(|(name, value)| at(name, value).is_none()).count();
        let mut newer = inserted;
        for (name, value) in fields {
            if let Some(at) = at(name, value) {
                for out in [&mut block.literal, &mut block.inserting, &mut block.indexed] {
                    integer(out, 0x80, 7, at + 1);
                }
                continue;
            }
            // The newest entry of the dynamic table follows the static ones.
            newer -= 1;
            integer(&mut block.indexed, 0x80, 7, STATIC_TABLE.len() + 1 + newer);
            let known = STATIC_TABLE.iter().position(|(known, _)| known == name).map_or(0, |at| at + 1);
            for (out, pattern, bits) in [(&mut block.literal, 0x00, 4), (&mut block.inserting, 0x40, 6)] {
                integer(out, pattern, bits, known);
                if known == 0 {
                    text(out, name);
                }
                text(out, value);
            }
        }
        block
    }

    /// The bytes that say it as shortly as the peer's table allows now. They must be sent in order.
    pub(super) fn encode(&self, table: &mut Table, out: &mut Vec<u8>) {
        let bytes = match *table {
            Table::Unknown | Table::Unused => &self.literal,
            Table::Empty => {
                *table = Table::Inserted;
                &self.inserting
            }
            Table::Inserted => &self.indexed,
            Table::Lowered => {
                *table = Table::Unused;
                // A table of size 0, which every limit allows.
                out.push(0x20);
                &self.literal
            }
        };
        out.extend_from_slice(bytes);
    }

    /// The bytes that say it without the peer's table.
    pub(super) fn encode_literally(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.literal);
    }
}

/// RFC 7541 section 5.1.
fn integer(out: &mut Vec<u8>, pattern: u8, bits: u32, value: usize) {
    let mask = (1_usize << bits) - 1;
    if value < mask {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// RFC 7541 section 5.2, without Huffman coding.
fn text(out: &mut Vec<u8>, text: &str) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::hpack::{Decoder, Name};
    use super::*;

    /// What a peer reads of a block that is sent in this state of the table.
    fn sent(block: &HeaderBlock, table: &mut Table, decoder: &mut Decoder) -> (usize, Vec<(Name, Vec<u8>)>) {
        let (mut out, mut seen) = (Vec::new(), Vec::new());
        block.encode(table, &mut out);
        decoder.decode(&out, |name, value| seen.push((name, value.to_vec()))).unwrap();
        (out.len(), seen)
    }

    #[test]
    fn every_way_says_the_same() {
        let long = "x".repeat(300);
        let block =
            HeaderBlock::new(&[(":method", "GET"), (":path", "/100"), ("grpc-status", "0"), ("y", &long)]);
        let expected = vec![(Name::Path, b"/100".to_vec()), (Name::GrpcStatus, b"0".to_vec())];
        let (mut table, mut decoder) = (Table::default(), Decoder::default());
        assert_eq!(sent(&block, &mut table, &mut decoder).1, expected);
        table.allow(None);
        assert_eq!(sent(&block, &mut table, &mut decoder).1, expected);
        for _ in 0..3 {
            assert_eq!(sent(&block, &mut table, &mut decoder), (4, expected.clone()));
        }
        table.allow(Some(4096));
        assert_eq!(sent(&block, &mut table, &mut decoder).0, 4);
        table.allow(Some(100));
        for _ in 0..2 {
            let (length, seen) = sent(&block, &mut table, &mut decoder);
            assert!(length > 300);
            assert_eq!(seen, expected);
        }
    }
}
