//! HTTP/2 as the benchmark speaks it, on both ends: frames in and out without an allocation a frame.
//!
//! No general implementation: what the peers of a benchmark send is understood, checked and acknowledged
//! (SETTINGS, PING, flow control both ways, padding, CONTINUATION), priorities are ignored, pushes refused.
//! Start from [`client::Exchanges`] for the load generator and [`origin::Origin`] for the server behind the
//! proxies.

pub(super) mod client;
mod header_block;
mod hpack;
mod huffman;
pub(super) mod origin;

use super::load::ProtocolError;

/// What a client says first (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 section 6).
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PUSH_PROMISE: u8 = 5;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

/// Frame flags (RFC 9113 section 6); ACK shares its bit with END_STREAM.
mod flag {
    pub(super) const NONE: u8 = 0;
    pub(super) const ACK: u8 = 0x1;
    pub(super) const END_STREAM: u8 = 0x1;
    pub(super) const END_HEADERS: u8 = 0x4;
    pub(super) const PADDED: u8 = 0x8;
    pub(super) const PRIORITY: u8 = 0x20;
}

/// Identifiers of settings (RFC 9113 section 6.5.2).
mod setting {
    pub(super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(super) const ENABLE_PUSH: u16 = 2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// Windows before any setting (RFC 9113 section 6.9.2).
const DEFAULT_WINDOW: i64 = 65_535;

/// The longest frame that every peer takes (RFC 9113 section 4.2).
const MAX_FRAME: usize = 16_384;

const HEAD: usize = 9;

/// A received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of DATA or HEADERS without padding and priority.
    fn content(&self) -> Result<&'a [u8], ProtocolError> {
        let mut rest = self.payload;
        let mut padding = 0;
        if self.has(flag::PADDED) {
            let (length, after) = rest.split_first().ok_or(TOO_SHORT)?;
            (padding, rest) = (usize::from(*length), after);
        }
        if self.kind == kind::HEADERS && self.has(flag::PRIORITY) {
            rest = rest.get(5..).ok_or(TOO_SHORT)?;
        }
        rest.get(..rest.len().saturating_sub(padding)).ok_or(TOO_SHORT)
    }

    /// Calls `on` with each setting of a SETTINGS frame.
    fn settings(&self, mut on: impl FnMut(u16, u32)) {
        for entry in self.payload.chunks_exact(6) {
            on(u16::from_be_bytes([entry[0], entry[1]]), number(&entry[2..]));
        }
    }

    /// The increment of a WINDOW_UPDATE.
    fn increment(&self) -> i64 {
        i64::from(number(self.payload) & 0x7fff_ffff)
    }
}

const TOO_SHORT: ProtocolError = ProtocolError("HTTP/2 frame too short");

/// Four bytes, big endian; 0 when there are fewer.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Cuts frames out of byte slices that may end anywhere.
#[derive(Debug, Default)]
struct Frames {
    partial: Vec<u8>,
}

impl Frames {
    /// Calls `on` for each frame that is complete now.
    fn read(
        &mut self,
        mut bytes: &[u8],
        on: &mut dyn FnMut(Frame<'_>) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        while !self.partial.is_empty() && !bytes.is_empty() {
            // Only up to the frame's end: what follows need not be copied.
            let wanted = if self.partial.len() < HEAD { HEAD } else { HEAD + length(&self.partial) };
            let taken = (wanted - self.partial.len()).min(bytes.len());
            self.partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if let Some((frame, _)) = split(&self.partial)? {
                on(frame)?;
                self.partial.clear();
            }
        }
        while let Some((frame, rest)) = split(bytes)? {
            on(frame)?;
            bytes = rest;
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

/// The length that a frame's head announces; the head must be there.
fn length(head: &[u8]) -> usize {
    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
}

/// The first frame and what follows it; `None` when it is not complete.
fn split(bytes: &[u8]) -> Result<Option<(Frame<'_>, &[u8])>, ProtocolError> {
    if bytes.len() < HEAD {
        return Ok(None);
    }
    let end = HEAD + length(bytes);
    if end > HEAD + MAX_FRAME {
        return Err(ProtocolError("HTTP/2 frame longer than allowed"));
    }
    let Some((frame, rest)) = bytes.split_at_checked(end) else { return Ok(None) };
    let stream = number(&frame[5..]) & 0x7fff_ffff;
    Ok(Some((Frame { kind: frame[3], flags: frame[4], stream, payload: &frame[HEAD..] }, rest)))
}

/// Appends the head of a frame whose payload of `length` bytes follows.
fn push_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let [_, high, middle, low] = (length as u32).to_be_bytes();
    let [a, b, c, d] = stream.to_be_bytes();
    out.extend_from_slice(&[high, middle, low, kind, flags, a, b, c, d]);
}

/// Appends a whole frame.
fn push(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    push_head(out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
}

/// Appends a HEADERS frame with the block that `encode` appends: shorter than a frame may be.
fn push_headers(out: &mut Vec<u8>, flags: u8, stream: u32, encode: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    push_head(out, 0, kind::HEADERS, flags | flag::END_HEADERS, stream);
    encode(out);
    let [high, low] = ((out.len() - at - HEAD) as u16).to_be_bytes();
    out[at + 1] = high;
    out[at + 2] = low;
}

/// Appends a SETTINGS frame.
fn push_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    push_head(out, settings.len() * 6, kind::SETTINGS, flag::NONE, 0);
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends a WINDOW_UPDATE.
fn push_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    push(out, kind::WINDOW_UPDATE, flag::NONE, stream, &increment.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each frame's kind, stream and payload, in pieces cut at `splits`.
    fn frames(bytes: &[u8], cut: usize) -> Vec<(u8, u32, Vec<u8>)> {
        let mut frames = Frames::default();
        let mut seen = Vec::new();
        for piece in [&bytes[..cut], &bytes[cut..]] {
            let mut on = |frame: Frame<'_>| {
                seen.push((frame.kind, frame.stream, frame.payload.to_vec()));
                Ok(())
            };
            frames.read(piece, &mut on).unwrap();
        }
        seen
    }

    #[test]
    fn frames_split_anywhere() {
        let mut bytes = Vec::new();
        push_settings(&mut bytes, &[(setting::ENABLE_PUSH, 0)]);
        push(&mut bytes, kind::DATA, flag::END_STREAM, 5, b"hello");
        push_window_update(&mut bytes, 0, 7);
        let expected = vec![
            (kind::SETTINGS, 0, vec![0, 2, 0, 0, 0, 0]),
            (kind::DATA, 5, b"hello".to_vec()),
            (kind::WINDOW_UPDATE, 0, vec![0, 0, 0, 7]),
        ];
        for cut in 0..=bytes.len() {
            assert_eq!(frames(&bytes, cut), expected, "cut at {cut}");
        }
    }

    #[test]
    fn padding_and_priority_are_left_out() {
        let payload = [&[2_u8][..], &[0; 5], b"block", &[0, 0]].concat();
        let flags = flag::PADDED | flag::PRIORITY;
        let frame = Frame { kind: kind::HEADERS, flags, stream: 1, payload: &payload };
        assert_eq!(frame.content().unwrap(), b"block");
        let empty = Frame { payload: &[], ..frame };
        assert!(empty.content().is_err());
    }

    #[test]
    fn an_endless_frame_is_refused() {
        let on = &mut |_: Frame<'_>| Ok(());
        assert!(Frames::default().read(&[0xff; HEAD], on).is_err());
    }
}
