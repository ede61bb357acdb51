//! Frames as bytes (RFC 9113 section 4.1).
//!
//! Nothing is checked on the way out: a length that is wrong on purpose is a payload that is wrong on purpose.

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113 section 6).
#[allow(missing_docs)]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames (RFC 9113 section 6).
#[allow(missing_docs)]
pub mod flag {
    pub const NONE: u8 = 0;
    pub const END_STREAM: u8 = 0x1;
    pub const ACK: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Error codes (RFC 9113 section 7).
#[allow(missing_docs)]
pub mod code {
    pub const NO_ERROR: u32 = 0x0;
    pub const PROTOCOL_ERROR: u32 = 0x1;
    pub const INTERNAL_ERROR: u32 = 0x2;
    pub const FLOW_CONTROL_ERROR: u32 = 0x3;
    pub const SETTINGS_TIMEOUT: u32 = 0x4;
    pub const STREAM_CLOSED: u32 = 0x5;
    pub const FRAME_SIZE_ERROR: u32 = 0x6;
    pub const REFUSED_STREAM: u32 = 0x7;
    pub const CANCEL: u32 = 0x8;
    pub const COMPRESSION_ERROR: u32 = 0x9;
    pub const CONNECT_ERROR: u32 = 0xa;
    pub const ENHANCE_YOUR_CALM: u32 = 0xb;
    pub const INADEQUATE_SECURITY: u32 = 0xc;
    pub const HTTP_1_1_REQUIRED: u32 = 0xd;
}

/// Names of settings (RFC 9113 section 6.5.2, RFC 8441 section 3).
#[allow(missing_docs)]
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type: see [`kind`].
    pub kind: u8,
    /// Its flags: see [`flag`].
    pub flags: u8,
    /// Its stream, 31 bits.
    pub stream: u32,
    /// What follows the nine bytes of its head.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Any frame.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// A whole header block in one HEADERS.
    pub fn headers(stream: u32, block: impl Into<Vec<u8>>, end_stream: bool) -> Self {
        Self::new(kind::HEADERS, flag::END_HEADERS | end(end_stream), stream, block)
    }

    /// DATA without padding.
    pub fn data(stream: u32, bytes: impl Into<Vec<u8>>, end_stream: bool) -> Self {
        Self::new(kind::DATA, end(end_stream), stream, bytes)
    }

    /// RST_STREAM.
    pub fn reset(stream: u32, code: u32) -> Self {
        Self::new(kind::RST_STREAM, 0, stream, code.to_be_bytes())
    }

    /// SETTINGS with these values.
    pub fn settings(values: &[(u16, u32)]) -> Self {
        let pair = |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
        Self::new(kind::SETTINGS, 0, 0, values.iter().flat_map(pair).collect::<Vec<u8>>())
    }

    /// The answer to SETTINGS.
    pub fn settings_ack() -> Self {
        Self::new(kind::SETTINGS, flag::ACK, 0, [])
    }

    /// PING.
    pub fn ping(data: [u8; 8]) -> Self {
        Self::new(kind::PING, 0, 0, data)
    }

    /// The answer to PING.
    pub fn pong(data: impl Into<Vec<u8>>) -> Self {
        Self::new(kind::PING, flag::ACK, 0, data)
    }

    /// GOAWAY without debug data.
    pub fn goaway(last: u32, code: u32) -> Self {
        Self::new(kind::GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
    }

    /// WINDOW_UPDATE; stream 0 is the connection.
    pub fn window_update(stream: u32, increment: u32) -> Self {
        Self::new(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
    }

    /// PRIORITY.
    pub fn priority(stream: u32, depends_on: u32, weight: u8) -> Self {
        let payload = [&depends_on.to_be_bytes()[..], &[weight]].concat();
        Self::new(kind::PRIORITY, 0, stream, payload)
    }

    /// CONTINUATION.
    pub fn continuation(stream: u32, block: impl Into<Vec<u8>>, end_headers: bool) -> Self {
        Self::new(kind::CONTINUATION, if end_headers { flag::END_HEADERS } else { 0 }, stream, block)
    }

    /// The same frame on another stream.
    #[must_use]
    pub fn with_stream(mut self, stream: u32) -> Self {
        self.stream = stream;
        self
    }

    /// The bytes of the frame.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_of_length(self.payload.len())
    }

    /// The bytes of the frame with another length in its head.
    pub fn bytes_of_length(&self, length: usize) -> Vec<u8> {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        let mut bytes = vec![a, b, c, self.kind, self.flags];
        bytes.extend_from_slice(&self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The frame at the start of `bytes`, and its length; `None` while it is not whole.
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (head, rest) = bytes.split_first_chunk::<9>()?;
        let length = number(&head[..3]) as usize;
        let payload = rest.get(..length)?.to_vec();
        let stream = number(&head[5..]) & 0x7fff_ffff;
        Some((Self { kind: head[3], flags: head[4], stream, payload }, 9 + length))
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The four bytes at `at` of the payload, as a number; 0 when they are not there.
    pub fn u32_at(&self, at: usize) -> u32 {
        self.payload.get(at..at + 4).map_or(0, number)
    }

    /// The pairs of a SETTINGS.
    pub fn settings_values(&self) -> Vec<(u16, u32)> {
        self.payload.chunks_exact(6).map(|pair| (number(&pair[..2]) as u16, number(&pair[2..]))).collect()
    }

    /// The payload of DATA or HEADERS without padding and priority; `None` when the padding is too long.
    pub fn content(&self) -> Option<&[u8]> {
        let mut rest = &self.payload[..];
        let mut padding = 0;
        if self.has(flag::PADDED) {
            let (length, after) = rest.split_first()?;
            (padding, rest) = (usize::from(*length), after);
        }
        if self.kind == kind::HEADERS && self.has(flag::PRIORITY) {
            rest = rest.get(5..)?;
        }
        rest.get(..rest.len().checked_sub(padding)?)
    }
}

fn end(end_stream: bool) -> u8 {
    if end_stream { flag::END_STREAM } else { flag::NONE }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_frame_reads_as_it_was_written() {
        let frame = Frame::headers(5, *b"block", true);
        let mut bytes = frame.bytes();
        assert_eq!(bytes[..9], [0, 0, 5, 1, 5, 0, 0, 0, 5]);
        assert_eq!(Frame::parse(&bytes[..13]), None);
        bytes.push(1);
        assert_eq!(Frame::parse(&bytes), Some((frame, 14)));
    }

    #[test]
    fn padding_and_priority_are_no_content() {
        let padded = Frame::new(kind::DATA, flag::PADDED, 1, *b"\x02body..");
        assert_eq!(padded.content(), Some(&b"body"[..]));
        let both = Frame::new(kind::HEADERS, flag::PADDED | flag::PRIORITY, 1, *b"\x01\0\0\0\x01\x10block.");
        assert_eq!(both.content(), Some(&b"block"[..]));
        assert_eq!(Frame::new(kind::DATA, flag::PADDED, 1, *b"\x05abc").content(), None);
    }

    #[test]
    fn settings_are_pairs() {
        let values = [(setting::MAX_CONCURRENT_STREAMS, 7), (setting::INITIAL_WINDOW_SIZE, 1 << 20)];
        assert_eq!(Frame::settings(&values).settings_values(), values);
        assert_eq!(Frame::goaway(9, code::ENHANCE_YOUR_CALM).u32_at(4), 0xb);
    }
}
