//! What a peer's first bytes say before rustls sees them: that it speaks plain HTTP, no TLS at all, or an
//! old version of it. Answered as Envoy answers (BoringSSL's `ssl_open_record`).

use crate::failure::Fault;

/// Why a connection cannot become TLS, and the alert that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) fault: Fault,
    /// A whole record; empty: nothing is answered.
    pub(crate) answer: &'static [u8],
}

/// What becomes of a connection after a look at its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// There are too few yet.
    Unknown,
    /// It may be TLS.
    Tls,
    /// The peer says goodbye before anything else.
    Goodbye,
    Refused(Refused),
}

/// Looks at the first record's header (RFC 8446 §5.1) and the version behind it (§4.1.2).
pub(crate) fn judge(received: &[u8]) -> Opening {
    let Some(header) = received.first_chunk() else { return Opening::Unknown };
    if let Some(refused) = refuse(*header) {
        return Opening::Refused(refused);
    }
    match (header, received.get(HEADER..)) {
        ([HANDSHAKE, ..], Some([CLIENT_HELLO, _, _, _, 3, 0..=2, ..])) => {
            Opening::Refused(Refused { fault: Fault::UNSUPPORTED_PROTOCOL, answer: &PROTOCOL_VERSION })
        }
        ([HANDSHAKE, ..], Some([_, a, b, c, ..])) if too_long(&[*a, *b, *c]) => {
            Opening::Refused(Refused { fault: Fault::EXCESSIVE_MESSAGE_SIZE, answer: &ILLEGAL_PARAMETER })
        }
        ([HANDSHAKE, ..], Some(hello)) if hello.len() < 6 => Opening::Unknown,
        ([ALERT, ..], Some([1, 0, ..])) => Opening::Goodbye,
        ([ALERT, ..], Some(alert)) if alert.len() < 2 => Opening::Unknown,
        _ => Opening::Tls,
    }
}

fn refuse(header: [u8; HEADER]) -> Option<Refused> {
    if [b"GET ", b"POST", b"HEAD", b"PUT "].iter().any(|method| header.starts_with(*method)) {
        return Some(Refused { fault: Fault::HTTP_REQUEST, answer: &[] });
    }
    if header.starts_with(b"CONNE") {
        return Some(Refused { fault: Fault::HTTPS_PROXY_REQUEST, answer: &[] });
    }
    let [kind, major, _, length @ ..] = header;
    if major != 3 {
        return Some(Refused { fault: Fault::WRONG_VERSION_NUMBER, answer: &PROTOCOL_VERSION });
    }
    if u16::from_be_bytes(length) > MAX_RECORD {
        return Some(Refused { fault: Fault::ENCRYPTED_LENGTH_TOO_LONG, answer: &RECORD_OVERFLOW });
    }
    if kind != ALERT && kind != HANDSHAKE {
        return Some(Refused { fault: Fault::UNEXPECTED_RECORD, answer: &UNEXPECTED_MESSAGE });
    }
    None
}

/// Bytes of a record before its payload.
const HEADER: usize = 5;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// RFC 5246 §6.2.3: 2^14 + 2048.
const MAX_RECORD: u16 = 16 * 1024 + 2048;

/// No hello is as long as this (BoringSSL's limit of a handshake message).
fn too_long(length: &[u8; 3]) -> bool {
    let [a, b, c] = length.map(u32::from);
    a << 16 | b << 8 | c > 16 * 1024
}

const ILLEGAL_PARAMETER: [u8; 7] = [21, 3, 1, 0, 2, 2, 47];
const PROTOCOL_VERSION: [u8; 7] = [21, 3, 1, 0, 2, 2, 70];
const RECORD_OVERFLOW: [u8; 7] = [21, 3, 1, 0, 2, 2, 22];
const UNEXPECTED_MESSAGE: [u8; 7] = [21, 3, 1, 0, 2, 2, 10];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_protocols_are_told_apart() {
        let fault = |bytes: &[u8]| match judge(bytes) {
            Opening::Refused(refused) => Some(refused.fault),
            Opening::Unknown | Opening::Tls | Opening::Goodbye => None,
        };
        assert_eq!(fault(b"GET / HTTP/1.1\r\n"), Some(Fault::HTTP_REQUEST));
        assert_eq!(fault(b"CONNECT a:1 HTTP/1.1\r\n"), Some(Fault::HTTPS_PROXY_REQUEST));
        assert_eq!(fault(b"OPTIONS * HTTP/1.1\r\n"), Some(Fault::WRONG_VERSION_NUMBER));
        assert_eq!(fault(b"abc"), None);
        assert_eq!(judge(&[22, 3, 1, 0, 200, 1]), Opening::Unknown);
        assert_eq!(judge(&[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3]), Opening::Tls);
        assert_eq!(judge(&[21, 3, 1, 0, 2, 1, 0]), Opening::Goodbye);
        assert_eq!(fault(&[22, 3, 1, 0, 200, 9, 9, 9, 9]), Some(Fault::EXCESSIVE_MESSAGE_SIZE));
        assert_eq!(fault(&[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 2]), Some(Fault::UNSUPPORTED_PROTOCOL));
        assert_eq!(fault(&[22, 3, 1, 0xff, 0xff]), Some(Fault::ENCRYPTED_LENGTH_TOO_LONG));
        assert_eq!(fault(&[23, 3, 3, 0, 20]), Some(Fault::UNEXPECTED_RECORD));
    }
}
