//! Follows frames through a stream of bytes without decoding them (RFC 9113 §4.1): who resets what, what the
//! peer's SETTINGS and GOAWAY say, and where one frame ends and another may be put in between.
//!
//! Sans-IO, and it never fails: what is malformed is the protocol library's to refuse. Start from
//! [`FrameScan::scan`].

/// Frame types (RFC 9113 §6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0x0;
    pub(crate) const HEADERS: u8 = 0x1;
    pub(crate) const PRIORITY: u8 = 0x2;
    pub(crate) const RST_STREAM: u8 = 0x3;
    pub(crate) const SETTINGS: u8 = 0x4;
    pub(crate) const PING: u8 = 0x6;
    pub(crate) const GOAWAY: u8 = 0x7;
    pub(crate) const WINDOW_UPDATE: u8 = 0x8;
    pub(crate) const CONTINUATION: u8 = 0x9;
}

/// END_STREAM of DATA and HEADERS; ACK of SETTINGS and PING.
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
/// END_HEADERS of HEADERS and CONTINUATION.
const END_HEADERS: u8 = 0x4;
/// PADDED of DATA and HEADERS.
const PADDED: u8 = 0x8;
/// PRIORITY of HEADERS.
const PRIORITY: u8 = 0x20;

/// SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113 §6.5.2).
pub(crate) const SETTING_MAX_CONCURRENT_STREAMS: u16 = 0x3;

/// SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 §6.5.2).
pub(crate) const SETTING_INITIAL_WINDOW_SIZE: u16 = 0x4;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    /// Bytes that follow.
    pub(crate) len: u32,
}

impl FrameHead {
    /// Whether a connection error that this frame of a client causes is that its stream was closed (RFC 9113 §5.1),
    /// which the library calls PROTOCOL_ERROR. `last_stream` is the highest that was opened before. Padding and
    /// dependencies can be wrong by themselves.
    pub(crate) fn is_late(self, last_stream: u32) -> bool {
        match self.kind {
            kind::DATA => self.flags & PADDED == 0 && (1..=last_stream).contains(&self.stream),
            // A lower one may never have been opened (§5.1.1).
            kind::HEADERS => {
                self.flags & (PADDED | PRIORITY) == 0 && self.stream == last_stream && last_stream > 0
            }
            _ => false,
        }
    }

    /// Whether the length is one that the type can have (RFC 9113 §6): the library calls a wrong one
    /// PROTOCOL_ERROR.
    pub(crate) fn has_valid_length(self) -> bool {
        match self.kind {
            kind::PRIORITY => self.len == 5,
            kind::RST_STREAM | kind::WINDOW_UPDATE => self.len == 4,
            kind::PING => self.len == 8,
            kind::SETTINGS if self.flags & ACK != 0 => self.len == 0,
            kind::SETTINGS => self.len.is_multiple_of(6),
            _ => true,
        }
    }
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A frame begins.
    Frame(FrameHead),
    /// RST_STREAM's error code.
    Reset { code: u32 },
    /// One setting of a SETTINGS frame.
    Setting { id: u16, value: u32 },
    /// The end of a SETTINGS frame without ACK.
    SettingsEnd,
    /// GOAWAY, without its debug data.
    GoAway { last_stream: u32, code: u32 },
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameScan {
    head: [u8; 9],
    have: u8,
    kind: u8,
    flags: u8,
    /// Bytes of the payload still to come.
    left: u32,
    /// The payload's bytes that make up one entry of SETTINGS, RST_STREAM or GOAWAY.
    entry: [u8; 8],
    entry_len: u8,
    preface_left: u8,
    /// HEADERS without END_HEADERS: nothing but its CONTINUATION may follow (RFC 9113 §6.10).
    in_header_block: bool,
}

impl FrameScan {
    /// A direction that begins with `preface` bytes that are no frame.
    pub(crate) fn new(preface: u8) -> Self {
        Self {
            head: [0; 9],
            have: 0,
            kind: 0,
            flags: 0,
            left: 0,
            entry: [0; 8],
            entry_len: 0,
            preface_left: preface,
            in_header_block: false,
        }
    }

    /// Whether a part of a head came, and not its end.
    pub(crate) fn is_in_header_block(&self) -> bool {
        self.in_header_block || self.left > 0 && self.kind == kind::HEADERS
    }

    /// Whether another frame may be put in here.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.preface_left == 0 && self.have == 0 && self.left == 0 && !self.in_header_block
    }

    /// Follows `bytes`.
    pub(crate) fn scan(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Seen)) {
        let preface = usize::from(self.preface_left).min(bytes.len());
        self.preface_left -= preface as u8;
        bytes = bytes.get(preface..).unwrap_or_default();
        while !bytes.is_empty() {
            if self.left == 0 {
                bytes = self.take_head(bytes, &mut seen);
            } else {
                bytes = self.take_payload(bytes, &mut seen);
            }
        }
    }

    fn take_head<'a>(&mut self, bytes: &'a [u8], seen: &mut impl FnMut(Seen)) -> &'a [u8] {
        let have = usize::from(self.have);
        let (part, rest) = bytes.split_at(bytes.len().min(self.head.len() - have));
        for (to, from) in self.head.iter_mut().skip(have).zip(part) {
            *to = *from;
        }
        self.have += part.len() as u8;
        if usize::from(self.have) < self.head.len() {
            return rest;
        }
        self.have = 0;
        let [a, b, c, kind, flags, s @ ..] = self.head;
        let len = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes(s) & STREAM_MASK;
        (self.kind, self.flags, self.left, self.entry_len) = (kind, flags, len, 0);
        if matches!(kind, kind::HEADERS | kind::CONTINUATION) {
            self.in_header_block = flags & END_HEADERS == 0;
        }
        seen(Seen::Frame(FrameHead { kind, flags, stream, len }));
        if len == 0 {
            self.end_frame(seen);
        }
        rest
    }

    fn take_payload<'a>(&mut self, bytes: &'a [u8], seen: &mut impl FnMut(Seen)) -> &'a [u8] {
        let take = bytes.len().min(self.left as usize);
        let (part, rest) = bytes.split_at(take);
        self.left -= take as u32;
        let size = match self.kind {
            kind::RST_STREAM => 4,
            kind::SETTINGS => 6,
            kind::GOAWAY => 8,
            _ => 0,
        };
        if size > 0 {
            for &byte in part {
                self.take_entry(byte, size, seen);
            }
        }
        if self.left == 0 {
            self.end_frame(seen);
        }
        rest
    }

    fn take_entry(&mut self, byte: u8, size: u8, seen: &mut impl FnMut(Seen)) {
        let Some(slot) = self.entry.get_mut(usize::from(self.entry_len)).filter(|_| self.entry_len < size)
        else {
            return;
        };
        *slot = byte;
        self.entry_len += 1;
        if self.entry_len < size {
            return;
        }
        let [a, b, c, d, e, f, g, h] = self.entry;
        match self.kind {
            kind::RST_STREAM => seen(Seen::Reset { code: u32::from_be_bytes([a, b, c, d]) }),
            kind::SETTINGS => {
                let (id, value) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
                seen(Seen::Setting { id, value });
                self.entry_len = 0;
            }
            _ => {
                let last_stream = u32::from_be_bytes([a, b, c, d]) & STREAM_MASK;
                seen(Seen::GoAway { last_stream, code: u32::from_be_bytes([e, f, g, h]) });
            }
        }
    }

    fn end_frame(&mut self, seen: &mut impl FnMut(Seen)) {
        if self.kind == kind::SETTINGS && self.flags & ACK == 0 {
            seen(Seen::SettingsEnd);
        }
    }
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

/// The highest bit of a stream's identifier is reserved.
const STREAM_MASK: u32 = 0x7fff_ffff;

/// The largest window (RFC 9113 §6.9.1).
pub(crate) const MAX_WINDOW: u32 = 0x7fff_ffff;

/// The last stream of a GOAWAY that only announces (RFC 9113 §6.8).
pub(crate) const ANNOUNCE: u32 = STREAM_MASK;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], split: usize) -> (Vec<Seen>, FrameScan) {
        let mut scan = FrameScan::new(3);
        let mut seen = Vec::new();
        for part in bytes.chunks(split) {
            scan.scan(part, |one| seen.push(one));
        }
        (seen, scan)
    }

    #[test]
    fn frames_are_followed_however_they_are_split() {
        let mut bytes = b"pre".to_vec();
        bytes.extend_from_slice(&[0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100, 0, 4, 0, 1, 0, 0]);
        bytes.extend_from_slice(&[0, 0, 0, 4, 1, 0, 0, 0, 0]);
        bytes.extend_from_slice(&goaway(7, 2));
        bytes.extend_from_slice(&[0, 0, 4, 3, 0, 0, 0, 0, 5, 0, 0, 0, 8]);
        bytes.extend_from_slice(&[0, 0, 2, 0, 1, 0, 0, 0, 5, 9, 9]);
        let (whole, scan) = all(&bytes, bytes.len());
        assert!(scan.is_between_frames());
        for split in 1..20 {
            assert_eq!(all(&bytes, split).0, whole);
        }
        let told: Vec<_> = whole.into_iter().filter(|seen| !matches!(seen, Seen::Frame(_))).collect();
        let expected = [
            Seen::Setting { id: 3, value: 100 },
            Seen::Setting { id: 4, value: 0x10000 },
            Seen::SettingsEnd,
            Seen::GoAway { last_stream: 7, code: 2 },
            Seen::Reset { code: 8 },
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn nothing_goes_between_a_head_and_its_continuation() {
        let mut scan = FrameScan::new(0);
        scan.scan(&[0, 0, 0, 1, 0, 0, 0, 0, 1], |_| {});
        assert!(!scan.is_between_frames());
        scan.scan(&[0, 0, 0, 9, 4, 0, 0, 0, 1], |_| {});
        assert!(scan.is_between_frames());
        scan.scan(&[0], |_| {});
        assert!(!scan.is_between_frames());
    }
}
