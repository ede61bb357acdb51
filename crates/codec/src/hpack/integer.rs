//! Integers with a prefix (RFC 7541 §5.1).

use bytes::BytesMut;

use super::Error;

/// Reads an integer from the front of `rest`, whose first byte has its prefix in the low `prefix` bits.
pub(crate) fn decode(rest: &mut &[u8], prefix: u32) -> Result<usize, Error> {
    let (&first, mut after) = rest.split_first().ok_or(Error::Truncated)?;
    let mask = u8::MAX >> (8 - prefix);
    let mut value = u64::from(first & mask);
    if first & mask == mask {
        let mut shift = 0;
        loop {
            let (&byte, next) = after.split_first().ok_or(Error::Truncated)?;
            after = next;
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            // Zeros without end would be as good as an overflow: no sender needs a sixth byte.
            if shift > MAX_SHIFT {
                return Err(Error::Integer);
            }
        }
    }
    *rest = after;
    u32::try_from(value).map(|value| value as usize).map_err(|_| Error::Integer)
}

/// Appends an integer, its first byte together with the bits of `pattern`.
pub(crate) fn encode(out: &mut BytesMut, pattern: u8, prefix: u32, value: usize) {
    let mask = u8::MAX >> (8 - prefix);
    if value < usize::from(mask) {
        out.extend_from_slice(&[pattern | value as u8]);
    } else {
        encode_long(out, pattern | mask, value - usize::from(mask));
    }
}

#[cold]
fn encode_long(out: &mut BytesMut, first: u8, mut rest: usize) {
    out.extend_from_slice(&[first]);
    while rest >= 0x80 {
        out.extend_from_slice(&[rest as u8 | 0x80]);
        rest >>= 7;
    }
    out.extend_from_slice(&[rest as u8]);
}

/// Five bytes after the prefix hold 32 bits.
const MAX_SHIFT: u32 = 28;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn examples_of_the_rfc() {
        // RFC 7541 C.1.
        for (bytes, prefix, value) in
            [(&[0x0a][..], 5, 10), (&[0x1f, 0x9a, 0x0a], 5, 1337), (&[0x2a], 8, 42), (&[0xea], 5, 10)]
        {
            assert_eq!(decode(&mut &bytes[..], prefix), Ok(value));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for prefix in 4..=8 {
            for value in (0..600).chain([16_383, 16_384, 1 << 20, u32::MAX as usize]) {
                let mut out = BytesMut::new();
                encode(&mut out, 0, prefix, value);
                out.extend_from_slice(b"x");
                let mut rest = &out[..];
                assert_eq!(decode(&mut rest, prefix), Ok(value));
                assert_eq!(rest, b"x");
            }
        }
    }

    #[test]
    fn too_large_and_cut_integers_are_refused() {
        for bytes in [
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f][..],
            &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ] {
            assert_eq!(decode(&mut &bytes[..], 7), Err(Error::Integer), "{bytes:x?}");
        }
        for bytes in [&[][..], &[0x7f], &[0xff, 0x80]] {
            assert_eq!(decode(&mut &bytes[..], 7), Err(Error::Truncated));
        }
    }
}
