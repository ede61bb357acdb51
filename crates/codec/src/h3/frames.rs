//! Frames and stream types as bytes (RFC 9114 §6.2, §7).

use bytes::{Buf, Bytes, BytesMut};

/// Frame types (RFC 9114 §7.2).
pub(crate) mod kind {
    pub(crate) const DATA: u64 = 0x0;
    pub(crate) const HEADERS: u64 = 0x1;
    pub(crate) const CANCEL_PUSH: u64 = 0x3;
    pub(crate) const SETTINGS: u64 = 0x4;
    pub(crate) const PUSH_PROMISE: u64 = 0x5;
    pub(crate) const GOAWAY: u64 = 0x7;
    /// RFC 7838 §4, of HTTP/2; unknown to RFC 9114, and harmless to who does not know it.
    pub(crate) const ALTSVC: u64 = crate::multiplex::ALTSVC as u64;
    pub(crate) const MAX_PUSH_ID: u64 = 0xd;
    /// RFC 9218 §7.2, of requests and of pushes.
    pub(crate) const PRIORITY_UPDATE: u64 = 0xf0700;
    pub(crate) const PRIORITY_UPDATE_PUSH: u64 = 0xf0701;
}

/// Types of unidirectional streams (RFC 9114 §6.2, RFC 9204 §4.2).
pub(crate) mod stream_type {
    pub(crate) const CONTROL: u64 = 0x0;
    pub(crate) const PUSH: u64 = 0x1;
    pub(crate) const ENCODER: u64 = 0x2;
    pub(crate) const DECODER: u64 = 0x3;
}

/// Whether this is a type that HTTP/2 used, and HTTP/3 has not (RFC 9114 §7.2.8).
pub(crate) fn is_http2(kind: u64) -> bool {
    matches!(kind, 0x2 | 0x6 | 0x8 | 0x9)
}

/// An integer of 1, 2, 4 or 8 bytes (RFC 9000 §16) at the front, and how many it took.
#[inline]
pub(crate) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let &first = bytes.first()?;
    let len = 1 << (first >> 6);
    if len == 1 {
        return Some((u64::from(first), 1));
    }
    let rest = bytes.get(1..len)?;
    Some((rest.iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte)), len))
}

/// Takes an integer off the front.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (value, len) = varint(bytes)?;
    bytes.advance(len);
    Some(value)
}

/// Appends an integer in as few bytes as it takes; it is less than 2^62.
pub(crate) fn put_varint(out: &mut BytesMut, value: u64) {
    match value {
        0..=0x3f => out.extend_from_slice(&[value as u8]),
        0x40..=0x3fff => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..=0x3fff_ffff => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// What comes before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) kind: u64,
    /// Bytes of payload.
    pub(crate) len: u64,
}

impl FrameHead {
    /// Bytes of the longest.
    pub(crate) const MAX: usize = 16;

    /// The head at the front, and its bytes.
    #[inline]
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (kind, first) = varint(bytes)?;
        let (len, second) = varint(bytes.get(first..)?)?;
        Some((Self { kind, len }, first + second))
    }

    /// Takes a head off the front of what came, whose beginning may have come before; `None` if all of it is kept
    /// for later.
    #[inline]
    pub(crate) fn take(partial: &mut BytesMut, input: &mut Bytes) -> Option<Self> {
        if partial.is_empty()
            && let Some((head, len)) = Self::parse(input)
        {
            input.advance(len);
            return Some(head);
        }
        Self::take_rest(partial, input)
    }

    #[cold]
    fn take_rest(partial: &mut BytesMut, input: &mut Bytes) -> Option<Self> {
        let before = partial.len();
        let more = input.len().min(Self::MAX.saturating_sub(before));
        partial.extend_from_slice(input.get(..more).unwrap_or_default());
        match Self::parse(partial) {
            Some((head, len)) => {
                // It ends in what came now, or it would have been taken before.
                input.advance(len.saturating_sub(before));
                partial.clear();
                Some(head)
            }
            None => {
                input.advance(more);
                None
            }
        }
    }

    pub(crate) fn put(self, out: &mut BytesMut) {
        put_varint(out, self.kind);
        put_varint(out, self.len);
    }
}

/// Appends a frame whose payload is one integer.
pub(crate) fn put_number(out: &mut BytesMut, kind: u64, value: u64) {
    let mut payload = BytesMut::with_capacity(8);
    put_varint(&mut payload, value);
    FrameHead { kind, len: payload.len() as u64 }.put(out);
    out.extend_from_slice(&payload);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn integers_survive_both_ways() {
        // RFC 9000 A.1.
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            assert_eq!(varint(bytes), Some((value, bytes.len())));
            for end in 0..bytes.len() {
                assert_eq!(varint(&bytes[..end]), None);
            }
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
        }
        assert_eq!(varint(&[0x40, 0x25]), Some((37, 2)), "longer than needed");
        for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, (1 << 62) - 1] {
            let mut out = BytesMut::new();
            FrameHead { kind: value, len: value }.put(&mut out);
            assert_eq!(FrameHead::parse(&out).unwrap(), (FrameHead { kind: value, len: value }, out.len()));
            assert!(out.len() <= FrameHead::MAX);
        }
    }
}
