//! The Huffman code (RFC 7541 appendix B), reading only.
//!
//! The code is canonical: symbols in the order of (length, value) have consecutive codes, so the lengths are all
//! there is to know.

use std::sync::LazyLock;

/// The lengths in bits of the codes of 0 to 255 and of the end of the string (256).
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

/// (length, code, symbol), sorted.
static CODES: LazyLock<Vec<(u8, u32, u16)>> = LazyLock::new(|| {
    let mut order: Vec<(u8, u16)> = LENGTHS.iter().copied().zip(0..).collect();
    order.sort_unstable();
    let (mut code, mut last) = (0_u32, 0_u8);
    let mut codes = Vec::with_capacity(order.len());
    for (length, symbol) in order {
        code <<= length - last;
        codes.push((length, code, symbol));
        (code, last) = (code + 1, length);
    }
    codes
});

/// The bytes that are coded.
///
/// # Errors
/// When the end of the string is coded, or the padding is not the start of its code (RFC 7541 section 5.2).
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::new();
    let (mut length, mut code) = (0_u8, 0_u32);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        (length, code) = (length + 1, code << 1 | u32::from(bit));
        match CODES.binary_search_by_key(&(length, code), |(length, code, _)| (*length, *code)) {
            Ok(at) => {
                let symbol = u8::try_from(CODES[at].2).map_err(|_| "the end of the string is coded")?;
                decoded.push(symbol);
                (length, code) = (0, 0);
            }
            Err(_) if length == 30 => return Err("no such code".to_owned()),
            Err(_) => {}
        }
    }
    if length >= 8 || code != (1 << length) - 1 {
        return Err("the padding is wrong".to_owned());
    }
    Ok(decoded)
}
