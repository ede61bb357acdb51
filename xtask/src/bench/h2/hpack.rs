//! HPACK decoding (RFC 7541) of the few fields that a benchmark looks at.
//!
//! The dynamic table is followed exactly, since later indices depend on it, but values are kept only of the
//! fields with a [`Name`] of their own: a block of indexed fields costs no allocation. Start from
//! [`Decoder::decode`].

use std::collections::VecDeque;

use super::super::load::ProtocolError;
use super::huffman;

/// A field's name, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Status,
    Path,
    GrpcStatus,
    Other,
}

/// Decodes the header blocks of one connection.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    entries: VecDeque<Entry>,
    /// Sum of the entries' sizes, and what it may be when a size update said so.
    size: usize,
    lowered_limit: Option<usize>,
    text: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    name_length: usize,
    /// Empty for [`Name::Other`].
    value: Vec<u8>,
    size: usize,
}

impl Decoder {
    /// Calls `on` with the value of each field that has a [`Name`] of its own.
    pub(super) fn decode(
        &mut self,
        mut block: &[u8],
        mut on: impl FnMut(Name, &[u8]),
    ) -> Result<(), ProtocolError> {
        while let Some(first) = block.first().copied() {
            // RFC 7541 section 6: the leading bits say which representation follows.
            if first & 0x80 != 0 {
                self.indexed(integer(&mut block, 7)?, &mut on)?;
            } else if first & 0xc0 == 0x40 {
                self.literal(&mut block, 6, true, &mut on)?;
            } else if first & 0xe0 == 0x20 {
                let limit = integer(&mut block, 5)?;
                if limit > TABLE_LIMIT {
                    return Err(BROKEN);
                }
                self.lowered_limit = Some(limit);
                self.evict(0);
            } else {
                self.literal(&mut block, 4, false, &mut on)?;
            }
        }
        Ok(())
    }

    fn indexed(&self, index: usize, on: &mut impl FnMut(Name, &[u8])) -> Result<(), ProtocolError> {
        if let Some((name, value)) = index.checked_sub(1).and_then(|at| STATIC_TABLE.get(at)) {
            if value.is_empty() {
                return Ok(());
            }
            match name_of(name.as_bytes()) {
                Name::Other => {}
                name => on(name, value.as_bytes()),
            }
            return Ok(());
        }
        let entry = self.entry(index)?;
        if entry.name != Name::Other {
            on(entry.name, &entry.value);
        }
        Ok(())
    }

    /// A literal field; `bits` of its first byte are the name's index.
    fn literal(
        &mut self,
        block: &mut &[u8],
        bits: u32,
        is_kept: bool,
        on: &mut impl FnMut(Name, &[u8]),
    ) -> Result<(), ProtocolError> {
        let index = integer(block, bits)?;
        let (name, name_length) = match index.checked_sub(1) {
            None => {
                let name = text(block, &mut self.text)?;
                (name_of(name), name.len())
            }
            Some(at) => match STATIC_TABLE.get(at) {
                Some((name, _)) => (name_of(name.as_bytes()), name.len()),
                None => {
                    let entry = self.entry(index)?;
                    (entry.name, entry.name_length)
                }
            },
        };
        let value = text(block, &mut self.text)?;
        let size = name_length + value.len() + ENTRY_OVERHEAD;
        let kept = if name == Name::Other {
            Vec::new()
        } else {
            on(name, value);
            // Not needed for a field that does not go into the table, but such are rare among these.
            value.to_vec()
        };
        if is_kept {
            self.evict(size);
            if size <= self.limit() {
                self.size += size;
                self.entries.push_front(Entry { name, name_length, value: kept, size });
            }
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<&Entry, ProtocolError> {
        index.checked_sub(STATIC_TABLE.len() + 1).and_then(|at| self.entries.get(at)).ok_or(BROKEN)
    }

    fn limit(&self) -> usize {
        self.lowered_limit.unwrap_or(TABLE_LIMIT)
    }

    /// Makes room for an entry of this size (RFC 7541 section 4.4).
    fn evict(&mut self, size: usize) {
        while self.size + size > self.limit() {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size;
        }
    }
}

/// The size of the table that a peer may use: the default, since no setting of ours changes it.
pub(super) const TABLE_LIMIT: usize = 4096;

/// RFC 7541 section 4.1.
const ENTRY_OVERHEAD: usize = 32;

const BROKEN: ProtocolError = ProtocolError("broken header block");

fn name_of(name: &[u8]) -> Name {
    match name {
        b":status" => Name::Status,
        b":path" => Name::Path,
        b"grpc-status" => Name::GrpcStatus,
        _ => Name::Other,
    }
}

/// An integer whose first `bits` stand in the first byte (RFC 7541 section 5.1).
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, ProtocolError> {
    let (first, mut rest) = block.split_first().ok_or(BROKEN)?;
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (byte, after) = rest.split_first().ok_or(BROKEN)?;
            rest = after;
            value += (usize::from(*byte) & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 28 {
                return Err(BROKEN);
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// A string (RFC 7541 section 5.2): a part of the block, or decoded into `scratch`.
fn text<'a, 'b: 'a>(block: &mut &'b [u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    let is_coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(BROKEN)?;
    *block = rest;
    if !is_coded {
        return Ok(text);
    }
    scratch.clear();
    huffman::decode(text, scratch).ok_or(BROKEN)?;
    Ok(scratch)
}

/// RFC 7541 appendix A.
#[rustfmt::skip]
pub(super) const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""),
    ("cache-control", ""), ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""),
    ("content-length", ""), ("content-location", ""), ("content-range", ""), ("content-type", ""),
    ("cookie", ""), ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Vec<(Name, Vec<u8>)> {
        let mut seen = Vec::new();
        decoder.decode(block, |name, value| seen.push((name, value.to_vec()))).unwrap();
        seen
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: String = hex.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    /// The requests of RFC 7541 appendix C.4: Huffman coded, with a dynamic table.
    #[test]
    fn requests_of_the_rfc() {
        let mut decoder = Decoder::default();
        let path = |text: &str| vec![(Name::Path, text.as_bytes().to_vec())];
        assert_eq!(decoded(&mut decoder, &bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff")), path("/"));
        assert_eq!(decoder.size, 57);
        assert_eq!(decoded(&mut decoder, &bytes("8286 84be 5886 a8eb 1064 9cbf")), path("/"));
        assert_eq!(decoder.size, 110);
        let third = bytes("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
        assert_eq!(decoded(&mut decoder, &third), path("/index.html"));
        assert_eq!((decoder.size, decoder.entries.len()), (164, 3));
    }

    /// The responses of RFC 7541 appendix C.5, with room for less than all of them.
    #[test]
    fn responses_of_the_rfc() {
        let mut decoder = Decoder { lowered_limit: Some(256), ..Decoder::default() };
        let status = |text: &str| vec![(Name::Status, text.as_bytes().to_vec())];
        let first = "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a \
                     3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d";
        assert_eq!(decoded(&mut decoder, &bytes(first)), status("302"));
        assert_eq!(decoder.size, 222);
        assert_eq!(decoded(&mut decoder, &bytes("4803 3330 37c1 c0bf")), status("307"));
        assert_eq!((decoder.size, decoder.entries.len()), (222, 4));
        assert_eq!(decoded(&mut decoder, &bytes("c1")), []);
        assert_eq!(decoded(&mut decoder, &bytes("be")), status("307"));
    }

    #[test]
    fn a_size_update_empties_the_table() {
        let mut decoder = Decoder::default();
        decoded(&mut decoder, &bytes("4803 3330 37"));
        assert_eq!(decoded(&mut decoder, &bytes("20 88")), [(Name::Status, b"200".to_vec())]);
        assert!(decoder.decode(&[0xbe], |_, _| {}).is_err());
    }

    #[test]
    fn nonsense_is_an_error() {
        for block in [
            &[0x80][..],
            &[0xff],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[0x48, 0x05, 1],
            &[0x3f, 0xff, 0x7f],
        ] {
            assert!(Decoder::default().decode(block, |_, _| {}).is_err(), "{block:?}");
        }
    }
}
