//! One request's bytes, and a response's, as they stand on a stream (RFC 9114 §4.1, RFC 9204).

use bytes::Bytes;

/// A request that is sent again and again.
pub(in super::super) struct Request {
    /// HEADERS and, if it has a body, DATA.
    pub(super) bytes: Bytes,
    /// Bytes that the response's body is to have.
    pub(super) expected: u64,
}

/// Frame types (RFC 9114 §7.2).
const DATA: u64 = 0;
const HEADERS: u64 = 1;

/// The control stream's beginning: its type, and SETTINGS without any (RFC 9114 §6.2.1).
pub(super) const CONTROL: &[u8] = &[0, 4, 0];

impl Request {
    /// A GET of `path`, or a POST of `upload` bytes, which is answered by `expected` bytes.
    pub(in super::super) fn new(path: &str, upload: usize, expected: u64) -> Self {
        // Required insert count and base are 0: no dynamic table.
        let mut fields = vec![0, 0];
        let static_index = |index: u8| 0xc0 | index;
        fields.push(static_index(if upload == 0 { 17 } else { 20 }));
        fields.push(static_index(23));
        literal(&mut fields, 0, super::certificate::NAME);
        literal(&mut fields, 1, path);
        literal(&mut fields, 95, "tidegate-bench");
        fields.push(static_index(29));
        if upload > 0 {
            literal(&mut fields, 4, &upload.to_string());
        }
        let mut bytes = Vec::new();
        frame(&mut bytes, HEADERS, &fields);
        if upload > 0 {
            frame(&mut bytes, DATA, &vec![b'y'; upload]);
        }
        Self { bytes: bytes.into(), expected }
    }
}

fn frame(out: &mut Vec<u8>, kind: u64, payload: &[u8]) {
    varint(out, kind);
    varint(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

/// RFC 9000 §16.
fn varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// A field whose name is in the static table, its value as it is (RFC 9204 §4.5.4).
fn literal(out: &mut Vec<u8>, name: u64, value: &str) {
    integer(out, 0x50, 4, name);
    integer(out, 0, 7, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

/// An integer behind a prefix (RFC 7541 §5.1).
fn integer(out: &mut Vec<u8>, first: u8, bits: u32, value: u64) {
    let most = (1 << bits) - 1;
    if value < most {
        out.push(first | value as u8);
        return;
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// What has come of a response.
#[derive(Default)]
pub(super) struct Response {
    /// A frame's type and length, as far as they have come.
    head: Vec<u8>,
    /// What is left of the frame: its type, and bytes.
    left: Option<(u64, u64)>,
    /// The first bytes of the first HEADERS.
    status: Vec<u8>,
    seen_headers: bool,
    body: u64,
}

/// `:status: 200` in the static table, behind the two bytes of the section's prefix.
const STATUS_200: [u8; 3] = [0, 0, 0xd9];

impl Response {
    /// Takes bytes of the stream.
    pub(super) fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some((kind, left)) = self.left else {
                self.head.push(bytes[0]);
                bytes = &bytes[1..];
                if let Some(frame) = parse_head(&self.head) {
                    self.head.clear();
                    self.left = (frame.1 > 0).then_some(frame);
                }
                continue;
            };
            let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match kind {
                DATA => self.body += taken as u64,
                HEADERS if !self.seen_headers => {
                    let missing = STATUS_200.len() - self.status.len();
                    self.status.extend_from_slice(&bytes[..taken.min(missing)]);
                }
                _ => {}
            }
            bytes = &bytes[taken..];
            self.left = (left > taken as u64).then_some((kind, left - taken as u64));
            if self.left.is_none() && kind == HEADERS {
                self.seen_headers = true;
            }
        }
    }

    /// Whether the response, which has ended, is a 200 with a body of this length.
    pub(super) fn is_good(&self, expected: u64) -> bool {
        self.status == STATUS_200 && self.body == expected && self.left.is_none() && self.head.is_empty()
    }
}

/// A frame's type and length, if both are there.
fn parse_head(bytes: &[u8]) -> Option<(u64, u64)> {
    let (kind, rest) = parse_varint(bytes)?;
    let (length, _) = parse_varint(rest)?;
    Some((kind, length))
}

fn parse_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let (own, rest) = bytes.split_at_checked(length)?;
    let value = own[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length_are_read_back() {
        for value in [0, 63, 64, 16_383, 16_384, 1 << 29, 1 << 30, 1 << 61] {
            let mut bytes = Vec::new();
            varint(&mut bytes, value);
            assert_eq!(parse_varint(&bytes), Some((value, &[][..])));
            assert_eq!(parse_varint(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn a_request_is_a_frame_of_fields() {
        let request = Request::new("/100", 0, 100);
        // HEADERS, the prefix, GET, https.
        assert_eq!(request.bytes[0], 1);
        assert_eq!(usize::from(request.bytes[1]), request.bytes.len() - 2);
        assert_eq!(request.bytes[2..6], [0, 0, 0xd1, 0xd7]);
        assert!(request.bytes.windows(6).any(|window| window == b"\x51\x04/100"));
        let posted = Request::new("/100", 3, 100);
        assert!(posted.bytes.ends_with(b"\x00\x03yyy"));
    }

    #[test]
    fn a_response_in_single_bytes_is_the_same() {
        let mut bytes = Vec::new();
        frame(&mut bytes, HEADERS, &[0, 0, 0xd9, 0x54]);
        // A reserved frame, which means nothing (RFC 9114 §7.2.8).
        frame(&mut bytes, 0x21, b"grease");
        frame(&mut bytes, DATA, &[b'x'; 70]);
        frame(&mut bytes, DATA, &[b'x'; 30]);
        let (mut whole, mut parts) = (Response::default(), Response::default());
        whole.receive(&bytes);
        bytes.chunks(1).for_each(|byte| parts.receive(byte));
        assert!(whole.is_good(100) && parts.is_good(100));
        assert!(!whole.is_good(99));
        let mut refused = Response::default();
        refused.receive(&[1, 3, 0, 0, 0xdb]);
        assert!(!refused.is_good(0));
    }
}
