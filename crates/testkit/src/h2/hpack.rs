//! Header blocks (RFC 7541): a writer without state and a whole reader.
//!
//! [`encode`] writes each field as a literal that is never indexed, without Huffman coding, so that what a test
//! sends is what it says. [`Decoder`] has the static and the dynamic table and Huffman coding.

use std::collections::VecDeque;

use super::huffman;
use super::static_table::STATIC;

/// A field as it came: name and value.
pub type Field = (String, String);

/// What every entry of a table counts beside its bytes (RFC 7541 section 4.1).
const ENTRY: usize = 32;

/// A block of literals without indexing.
pub fn encode<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        literal(&mut block, name.as_ref());
        literal(&mut block, value.as_ref());
    }
    block
}

fn literal(block: &mut Vec<u8>, bytes: &[u8]) {
    integer(block, 0, 7, bytes.len());
    block.extend_from_slice(bytes);
}

/// An integer with a prefix of `bits` bits after `first`'s bits (RFC 7541 section 5.1).
pub fn integer(block: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        block.push(first | value as u8);
        return;
    }
    block.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// The reading side's state of one connection and direction.
#[derive(Debug)]
pub struct Decoder {
    dynamic: VecDeque<Field>,
    size: usize,
    limit: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { dynamic: VecDeque::new(), size: 0, limit: 4096 }
    }
}

impl Decoder {
    /// The fields of a whole block in their order.
    ///
    /// # Errors
    /// What breaks RFC 7541 in it.
    pub fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, String> {
        let mut rest = block;
        let mut fields = Vec::new();
        while let Some(first) = rest.first().copied() {
            match first {
                0x80.. => {
                    let index = read_integer(&mut rest, 7)?;
                    fields.push(self.entry(index)?);
                }
                0x40..=0x7f => {
                    let field = self.read_field(&mut rest, 6)?;
                    self.insert(field.clone());
                    fields.push(field);
                }
                0x20..=0x3f => {
                    self.limit = read_integer(&mut rest, 5)?;
                    self.evict();
                }
                _ => fields.push(self.read_field(&mut rest, 4)?),
            }
        }
        Ok(fields)
    }

    fn read_field(&self, rest: &mut &[u8], bits: u32) -> Result<Field, String> {
        let name = match read_integer(rest, bits)? {
            0 => read_string(rest)?,
            index => self.entry(index)?.0,
        };
        Ok((name, read_string(rest)?))
    }

    fn entry(&self, index: usize) -> Result<Field, String> {
        let fixed = index.checked_sub(1).and_then(|at| STATIC.get(at));
        if let Some((name, value)) = fixed {
            return Ok(((*name).to_owned(), (*value).to_owned()));
        }
        let dynamic = index.checked_sub(STATIC.len() + 1).and_then(|at| self.dynamic.get(at));
        dynamic.cloned().ok_or_else(|| format!("no entry {index}"))
    }

    fn insert(&mut self, field: Field) {
        self.size += field.0.len() + field.1.len() + ENTRY;
        self.dynamic.push_front(field);
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.limit {
            let Some((name, value)) = self.dynamic.pop_back() else { return };
            self.size -= name.len() + value.len() + ENTRY;
        }
    }
}

fn read_integer(rest: &mut &[u8], bits: u32) -> Result<usize, String> {
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(take(rest)?) & most;
    if value < most {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21, 28] {
        let byte = take(rest)?;
        value += usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("an integer is too long".to_owned())
}

fn read_string(rest: &mut &[u8]) -> Result<String, String> {
    let coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = read_integer(rest, 7)?;
    let (bytes, after) = rest.split_at_checked(length).ok_or("a string is cut")?;
    *rest = after;
    let bytes = if coded { huffman::decode(bytes)? } else { bytes.to_vec() };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn take(rest: &mut &[u8]) -> Result<u8, String> {
    let (first, after) = rest.split_first().ok_or("the block is cut")?;
    *rest = after;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex
            .bytes()
            .filter(|byte| *byte != b' ')
            .map(|byte| (byte as char).to_digit(16).unwrap() as u8)
            .collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    fn text(fields: &[Field]) -> Vec<String> {
        fields.iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let long = "x".repeat(5000);
        let fields = [(":path", "/"), ("x-long", &long), ("empty", "")];
        let read = Decoder::default().decode(&encode(&fields)).unwrap();
        assert_eq!(text(&read), [":path: /".to_owned(), format!("x-long: {long}"), "empty: ".to_owned()]);
    }

    /// RFC 7541 appendix C.4: three requests with Huffman coding over one table.
    #[test]
    fn the_requests_of_the_rfc() {
        let mut decoder = Decoder::default();
        let head = |method: &[&str]| method.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let first = decoder.decode(&bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff")).unwrap();
        let common = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        assert_eq!(text(&first), head(&common));
        let second = decoder.decode(&bytes("8286 84be 5886 a8eb 1064 9cbf")).unwrap();
        assert_eq!(text(&second)[4], "cache-control: no-cache");
        let third =
            decoder.decode(&bytes("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf")).unwrap();
        assert_eq!(
            text(&third)[2..],
            [":path: /index.html", ":authority: www.example.com", "custom-key: custom-value"]
        );
        assert_eq!(decoder.size, 164);
    }

    /// RFC 7541 appendix C.5, the third response: evictions in a table of 256 bytes.
    #[test]
    fn entries_are_evicted_from_a_small_table() {
        let mut decoder = Decoder { limit: 256, ..Decoder::default() };
        for index in 0..20 {
            let mut block = vec![0x40];
            literal(&mut block, b"name");
            literal(&mut block, format!("{index:028}").as_bytes());
            decoder.decode(&block).unwrap();
        }
        assert_eq!((decoder.dynamic.len(), decoder.size), (4, 256));
        assert!(decoder.decode(&[0x80 | 66]).is_err());
    }

    #[test]
    fn broken_blocks_are_errors() {
        for block in
            [&[0x80][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0, 5, b'a'], &[0x40], &[0, 0x81, 0]]
        {
            assert!(Decoder::default().decode(block).is_err(), "{block:?}");
        }
    }
}
