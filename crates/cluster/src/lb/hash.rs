//! Hashes that decide which host gets a key: those of Envoy, so that stickiness survives a migration.

use std::io::Write;
use std::net::IpAddr;

use xxhash_rust::xxh64::xxh64;

/// xxHash64 with seed 0, as Envoy hashes what hash policies find and what ring entries are called.
#[inline]
pub fn xx64(bytes: &[u8]) -> u64 {
    xxh64(bytes, 0)
}

/// Of several texts, each hashed with the hash of those before it for a seed, as Envoy does.
pub fn xx64_of_all<'t>(texts: impl IntoIterator<Item = &'t [u8]>) -> u64 {
    texts.into_iter().fold(0, |seed, text| xxh64(text, seed))
}

/// Of what `source_ip` policies hash: the address as text, without its port.
pub fn of_ip(ip: IpAddr) -> u64 {
    // The longest text is an IPv4-mapped one of 45 bytes.
    let mut text = [0; 64];
    let mut rest = &mut text[..];
    let _ = write!(rest, "{ip}");
    let unused = rest.len();
    xx64(&text[..text.len() - unused])
}

/// `MURMUR_HASH_2`: MurmurHash64A with the seed of libstdc++'s `std::hash`.
pub(super) fn murmur2(bytes: &[u8]) -> u64 {
    const SEED: u64 = 0xc70f_6907;
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |word: u64| word ^ (word >> 47);
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = mix(little_endian(chunk).wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
        hash = (hash ^ word).wrapping_mul(FACTOR);
    }
    if !chunks.remainder().is_empty() {
        hash = (hash ^ little_endian(chunks.remainder())).wrapping_mul(FACTOR);
    }
    mix(mix(hash).wrapping_mul(FACTOR))
}

/// Up to eight bytes as a number.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xx64_is_the_reference() {
        assert_eq!(xx64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xx64(b"abc"), 0x44bc_2cf5_ad77_0999);
    }

    #[test]
    fn addresses_hash_as_their_text() {
        assert_eq!(of_ip([127, 0, 0, 2].into()), xx64(b"127.0.0.2"));
        assert_eq!(of_ip("2001:db8::1".parse().unwrap()), xx64(b"2001:db8::1"));
    }

    /// Taken from `std::hash<std::string>` of libstdc++ 12.
    #[test]
    fn murmur2_is_the_standard_librarys() {
        assert_eq!(murmur2(b""), 6142509188972423790);
        assert_eq!(murmur2(b"foo"), 9631199822919835226);
        assert_eq!(murmur2(b"foo\nbar"), 16306510975912980159);
        assert_eq!(murmur2(b"host-a_0"), 16483786653569235346);
        assert_eq!(murmur2(b"10.0.0.1:8080_1023"), 2096237707045935151);
    }
}
