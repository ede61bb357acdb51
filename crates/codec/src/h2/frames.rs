//! Frames: their heads, read and written, and the small frames whole (RFC 9113 §4.1, §6).
//!
//! Sans-IO, no state. Start from [`FrameHead`].

use std::ops::Range;

/// Frame types (RFC 9113 §6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const PRIORITY: u8 = 0x2;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PUSH_PROMISE: u8 = 0x5;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    pub(crate) const CONTINUATION: u8 = 0x9;
}

/// END_STREAM of DATA and HEADERS.
pub(crate) const END_STREAM: u8 = 0x1;
/// ACK of SETTINGS and PING.
pub(crate) const ACK: u8 = 0x1;
/// END_HEADERS of HEADERS and CONTINUATION.
pub(crate) const END_HEADERS: u8 = 0x4;
/// PADDED of DATA and HEADERS.
pub(crate) const PADDED: u8 = 0x8;
/// PRIORITY of HEADERS.
pub(crate) const PRIORITY: u8 = 0x20;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    /// Bytes that follow.
    pub(crate) len: usize,
}

impl FrameHead {
    /// Bytes of a frame's header.
    pub(crate) const LEN: usize = 9;

    /// The head at the front of `bytes`, if all of it is there. The reserved bit is ignored.
    #[inline]
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, d, e, f, g, ..] = *bytes else { return None };
        Some(Self {
            kind,
            flags,
            stream: u32::from_be_bytes([d, e, f, g]) & STREAM_MASK,
            len: u32::from_be_bytes([0, a, b, c]) as usize,
        })
    }

    #[inline]
    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let [_, a, b, c] = (self.len as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    #[inline]
    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Where the content lies in the payload of a frame that may be padded; `None` if the padding does not fit
    /// (RFC 9113 §6.1).
    #[inline]
    pub(crate) fn content(self, payload: &[u8]) -> Option<Range<usize>> {
        if !self.has(PADDED) {
            return Some(0..payload.len());
        }
        let padding = usize::from(*payload.first()?);
        let end = payload.len().checked_sub(padding)?;
        (end >= 1).then_some(1..end)
    }
}

/// The first four bytes of a payload as a number.
#[inline]
pub(crate) fn number(payload: &[u8]) -> Option<u32> {
    let [a, b, c, d, ..] = *payload else { return None };
    Some(u32::from_be_bytes([a, b, c, d]))
}

/// A frame with four bytes of payload.
fn short(kind: u8, stream: u32, value: u32) -> [u8; 13] {
    let [s, t, u, v] = stream.to_be_bytes();
    let [a, b, c, d] = value.to_be_bytes();
    [0, 0, 4, kind, 0, s, t, u, v, a, b, c, d]
}

/// A RST_STREAM frame (RFC 9113 §6.4).
pub(crate) fn reset(stream: u32, code: u32) -> [u8; 13] {
    short(kind::RST_STREAM, stream, code)
}

/// A WINDOW_UPDATE frame (RFC 9113 §6.9).
pub(crate) fn window_update(stream: u32, increment: u32) -> [u8; 13] {
    short(kind::WINDOW_UPDATE, stream, increment)
}

/// A GOAWAY frame (RFC 9113 §6.8).
pub(crate) fn goaway(last_stream: u32, code: u32) -> [u8; 17] {
    let [a, b, c, d] = (last_stream & STREAM_MASK).to_be_bytes();
    let [e, f, g, h] = code.to_be_bytes();
    [0, 0, 8, kind::GOAWAY, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

/// A PING frame (RFC 9113 §6.7).
pub(crate) fn ping(payload: u64) -> [u8; 17] {
    let [a, b, c, d, e, f, g, h] = payload.to_be_bytes();
    [0, 0, 8, kind::PING, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h]
}

/// The answer to a PING.
pub(crate) fn pong(payload: [u8; 8]) -> [u8; 17] {
    let mut frame = ping(u64::from_be_bytes(payload));
    frame[4] = ACK;
    frame
}

/// The acknowledgement of SETTINGS (RFC 9113 §6.5.3).
pub(crate) const SETTINGS_ACK: [u8; 9] = [0, 0, 0, kind::SETTINGS, ACK, 0, 0, 0, 0];

/// The highest bit of a stream's identifier is reserved.
pub(crate) const STREAM_MASK: u32 = 0x7fff_ffff;

/// The largest window (RFC 9113 §6.9.1).
pub(crate) const MAX_WINDOW: i64 = 0x7fff_ffff;

/// The window of connections and streams before anybody says otherwise (RFC 9113 §6.9.2).
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;

/// The largest payload that we take, and that we send even where the peer takes more: SETTINGS_MAX_FRAME_SIZE's
/// default (RFC 9113 §6.5.2).
pub(crate) const MAX_FRAME: usize = 16_384;

/// The last stream of a GOAWAY that only announces (RFC 9113 §6.8).
pub(crate) const ANNOUNCE: u32 = STREAM_MASK;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_survive_both_ways() {
        let head = FrameHead { kind: 9, flags: 0x2c, stream: 0x7fff_fffe, len: 0x01_02_03 };
        assert_eq!(FrameHead::parse(&head.to_bytes()), Some(head));
        assert_eq!(FrameHead::parse(&head.to_bytes()[..8]), None);
        let mut reserved = head.to_bytes();
        reserved[5] |= 0x80;
        assert_eq!(FrameHead::parse(&reserved), Some(head));
    }

    #[test]
    fn padding_leaves_the_content() {
        let padded = FrameHead { kind: kind::DATA, flags: PADDED, stream: 1, len: 4 };
        assert_eq!(padded.content(&[1, b'a', b'b', 0]), Some(1..3));
        assert_eq!(padded.content(&[3, 0, 0, 0]), Some(1..1));
        assert_eq!(padded.content(&[4, 0, 0, 0]), None);
        assert_eq!(padded.content(&[]), None);
        let plain = FrameHead { flags: 0, ..padded };
        assert_eq!(plain.content(&[4, 0, 0, 0]), Some(0..4));
    }
}
