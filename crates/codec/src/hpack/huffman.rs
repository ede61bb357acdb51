//! The Huffman code of strings (RFC 7541 §5.2, Appendix B). Reading only: we write raw strings.
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, longer codes
//! after shorter ones. So its lengths say all; the tables are made from them at compile time.

use bytes::BytesMut;

use super::Error;

/// Bytes that `len` bytes of code can become: the shortest code has 5 bits.
pub(crate) const fn decoded_bound(len: usize) -> usize {
    len * 8 / 5
}

/// Appends the text of `code`.
pub(crate) fn decode(code: &[u8], out: &mut BytesMut) -> Result<(), Error> {
    let start = out.len();
    out.resize(start + decoded_bound(code.len()), 0);
    let decoded = decode_into(code, &mut out[start..]);
    out.truncate(start + decoded.as_ref().map_or(0, |&len| len));
    decoded.map(|_| ())
}

/// Writes the text to `out`, which has room for [`decoded_bound`]; gives its length.
fn decode_into(mut code: &[u8], out: &mut [u8]) -> Result<usize, Error> {
    // The next bits, from the highest one down; zeros behind the last of them.
    let mut bits = 0_u64;
    let mut have = 0_u32;
    let mut len = 0;
    loop {
        if have < 32 {
            if let Some((word, rest)) = code.split_first_chunk() {
                bits |= u64::from(u32::from_be_bytes(*word)) << (32 - have);
                have += 32;
                code = rest;
            } else {
                for &byte in code {
                    bits |= u64::from(byte) << (56 - have);
                    have += 8;
                }
                code = &[];
            }
        }
        let (symbol, length) = match FIRST[(bits >> (64 - FIRST_BITS)) as usize] {
            0 => long(bits),
            entry => (entry as u8, u32::from(entry >> 8)),
        };
        if length > have {
            // Padding is less than a byte, and all ones: the beginning of EOS. No code is all ones.
            let ones = bits.leading_ones() >= have;
            return if have < 8 && ones { Ok(len) } else { Err(Error::Huffman) };
        }
        bits <<= length;
        have -= length;
        // Never fails: `out` is long enough.
        *out.get_mut(len).ok_or(Error::Huffman)? = symbol;
        len += 1;
    }
}

/// The symbol of a code over [`FIRST_BITS`] bits, and its length.
#[cold]
fn long(bits: u64) -> (u8, u32) {
    let window = (bits >> 34) as u32;
    let row = &LONG[LONG.partition_point(|row| row.end <= window).min(LONG.len() - 1)];
    let symbol = usize::from(row.first_symbol) + ((window - row.first) >> (30 - row.bits)) as usize;
    match SORTED.get(symbol) {
        Some(&symbol) if symbol < EOS => (symbol as u8, row.bits),
        // A whole EOS, or what may be its beginning where the string ends.
        _ => (0, u32::MAX),
    }
}

/// Codes of one length over [`FIRST_BITS`], as numbers of 30 bits with zeros behind.
#[derive(Clone, Copy)]
struct Row {
    bits: u32,
    /// The first code.
    first: u32,
    /// What follows the last code.
    end: u32,
    /// Where the first code's symbol is in [`SORTED`].
    first_symbol: u16,
}

/// Bits that are looked up at once: all letters and digits have codes of at most 8, `?` and `!` of 10.
const FIRST_BITS: u32 = 10;

/// By the next bits: the code's length above its symbol, 0 for longer codes.
static FIRST: [u16; 1 << FIRST_BITS] = first_table();

static LONG: [Row; 20] = long_table();

/// Symbols in the order of their codes.
static SORTED: [u16; 257] = sorted();

const EOS: u16 = 256;

const fn sorted() -> [u16; 257] {
    let mut sorted = [0; 257];
    let (mut at, mut bits) = (0, 5);
    while bits <= 30 {
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] == bits {
                sorted[at] = symbol as u16;
                at += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    sorted
}

const fn first_table() -> [u16; 1 << FIRST_BITS] {
    let sorted = sorted();
    let mut table = [0; 1 << FIRST_BITS];
    let (mut at, mut index) = (0, 0);
    while LENGTHS[sorted[index] as usize] as u32 <= FIRST_BITS {
        let bits = LENGTHS[sorted[index] as usize] as u32;
        let end = at + (1 << (FIRST_BITS - bits));
        while at < end {
            table[at] = (bits as u16) << 8 | sorted[index];
            at += 1;
        }
        index += 1;
    }
    table
}

const fn long_table() -> [Row; 20] {
    let sorted = sorted();
    let mut table = [Row { bits: 0, first: 0, end: 0, first_symbol: 0 }; 20];
    let (mut code, mut index) = (0_u32, 0);
    while index < 257 {
        let bits = LENGTHS[sorted[index] as usize] as u32;
        if bits > FIRST_BITS {
            let row = &mut table[(bits - FIRST_BITS - 1) as usize];
            if row.bits == 0 {
                *row = Row { bits, first: code, end: 0, first_symbol: index as u16 };
            }
            row.end = code + (1 << (30 - bits));
        }
        code += 1 << (30 - bits);
        index += 1;
    }
    // A length without codes takes nothing.
    let mut row = 1;
    while row < 20 {
        if table[row].bits == 0 {
            table[row] = Row { end: table[row - 1].end, ..table[row - 1] };
        }
        row += 1;
    }
    table
}

/// Bits of each symbol's code; the last one is EOS.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

#[cfg(test)]
pub(crate) mod tests {
    //! With a writer of its own.
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Codes the text.
    pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
        let mut codes = [0_u64; 257];
        let mut next = 0_u64;
        for &symbol in &SORTED {
            let bits = LENGTHS[usize::from(symbol)];
            codes[usize::from(symbol)] = next >> (30 - bits);
            next += 1 << (30 - bits);
        }
        assert_eq!((next, codes[256]), (1 << 30, 0x3fff_ffff));
        let (mut bits, mut have, mut out) = (0_u64, 0, Vec::new());
        for &byte in text {
            let length = LENGTHS[usize::from(byte)];
            bits = bits << length | codes[usize::from(byte)];
            have += length;
            while have >= 8 {
                have -= 8;
                out.push((bits >> have) as u8);
            }
        }
        if have > 0 {
            out.push((bits << (8 - have)) as u8 | 0xff >> have);
        }
        out
    }

    fn text(code: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = BytesMut::from(&b"before"[..]);
        decode(code, &mut out).map(|()| out[6..].to_vec())
    }

    #[test]
    fn every_symbol_is_read_back_wherever_it_stands() {
        for byte in 0..=255_u8 {
            for before in 0..8 {
                let mut expected = vec![b'a'; before];
                expected.extend([byte, b'x', byte]);
                assert_eq!(text(&encode(&expected)).as_deref(), Ok(&expected[..]));
            }
        }
    }

    #[test]
    fn random_texts_are_read_back() {
        let mut random = fastrand::Rng::with_seed(7541);
        for length in 0..600 {
            let expected: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            assert_eq!(text(&encode(&expected)).as_deref(), Ok(&expected[..]));
        }
    }

    #[test]
    fn padding_is_short_and_all_ones() {
        // `a` is 00011.
        assert_eq!(text(&[0b0001_1111]).as_deref(), Ok(&b"a"[..]));
        assert_eq!(text(&[0b0001_1110]), Err(Error::Huffman));
        assert_eq!(text(&[0b0001_1011]), Err(Error::Huffman));
        assert_eq!(text(&[0b0001_1111, 0xff]), Err(Error::Huffman));
        assert_eq!(text(&[0xff]), Err(Error::Huffman));
        assert_eq!(text(&[]).as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn eos_is_refused() {
        assert_eq!(text(&[0xff, 0xff, 0xff, 0xff]), Err(Error::Huffman));
        assert_eq!(text(&[0xff, 0xff, 0xff, 0xfc]), Err(Error::Huffman));
        assert_eq!(text(&[0x1f, 0xff, 0xff, 0xff, 0xe3, 0x1f, 0x1f, 0x1f]), Err(Error::Huffman));
    }

    #[test]
    fn random_codes_never_panic_and_what_is_read_is_written_the_same() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..50_000 {
            let code: Vec<u8> = (0..random.usize(..12)).map(|_| random.u8(..)).collect();
            if let Ok(text) = text(&code) {
                assert_eq!(encode(&text), code);
            }
        }
    }
}
