//! Which HTTP a client speaks, by its first bytes (`codec_type: AUTO`): an HTTP/2 client begins with a fixed
//! preface (RFC 9113 §3.4), which no HTTP/1.1 request can be.

/// What an HTTP/2 client sends first.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What of it tells an HTTP/2 client, as Envoy has it; what follows must still be the rest.
const TELLING: &[u8] = b"PRI * HTTP/2";

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// HTTP/2.
    Http2,
    /// Something else, to be taken for HTTP/1.1.
    Http1,
    /// So far the beginning of a preface.
    Undecided,
}

/// Judges the first bytes of a connection; more than 12 are not looked at.
pub fn detect(bytes: &[u8]) -> Detected {
    let seen = bytes.len().min(TELLING.len());
    if bytes.get(..seen) != TELLING.get(..seen) {
        Detected::Http1
    } else if seen == TELLING.len() {
        Detected::Http2
    } else {
        Detected::Undecided
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn one_byte_may_be_enough_to_tell_and_12_are() {
        assert_eq!(detect(b""), Detected::Undecided);
        assert_eq!(detect(b"PRI * HTTP/"), Detected::Undecided);
        assert_eq!(detect(PREFACE), Detected::Http2);
        assert_eq!(detect(b"PRI * HTTP/2"), Detected::Http2);
        assert_eq!(detect(b"PRI * HTTP/2.0\r\nhost: x"), Detected::Http2);
        assert_eq!(detect(b"POST"), Detected::Http1);
        assert_eq!(detect(b"PRI * HTTP/1.1"), Detected::Http1);
    }
}
