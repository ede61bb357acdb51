//! `x-request-id`: a random UUID (RFC 9562, version 4) that follows a request through every hop.

use http::header::Entry;
use http::{HeaderName, HeaderValue};
use tidegate_config::hcm::RequestIdConfig;
use tidegate_types::RequestHead;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request its id; the value for the response, if it is to have one.
///
/// At the edge a client's own id is replaced, unless it is to be preserved.
pub(super) fn apply(
    config: &RequestIdConfig,
    head: &mut RequestHead,
    edge: bool,
    forced_trace: bool,
) -> Option<HeaderValue> {
    if config.generate {
        match head.headers.entry(X_REQUEST_ID) {
            Entry::Vacant(entry) => _ = entry.insert(generate()),
            Entry::Occupied(mut entry) if edge && !config.preserve_external => _ = entry.insert(generate()),
            Entry::Occupied(_) => {}
        }
    }
    if !config.always_set_in_response && !forced_trace {
        return None;
    }
    head.headers.get(&X_REQUEST_ID).cloned()
}

/// A new id.
fn generate() -> HeaderValue {
    // Version 4 in the thirteenth digit, variant 10xx in the seventeenth.
    let high = (fastrand::u64(..) & !0xf000) | 0x4000;
    let low = (fastrand::u64(..) & !(0x3 << 62)) | (0x2 << 62);
    let mut digits = [0; 32];
    hex(high, &mut digits[..16]);
    hex(low, &mut digits[16..]);
    let mut text = [b'-'; 36];
    for (to, from) in [(0..8, 0..8), (9..13, 8..12), (14..18, 12..16), (19..23, 16..20), (24..36, 20..32)] {
        text[to].copy_from_slice(&digits[from]);
    }
    // Hex digits and dashes are always a valid value.
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Sixteen lower-case digits. Word-wise: a digit at a time with 128-bit shifts cost 600 instructions
/// an id.
fn hex(number: u64, digits: &mut [u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (digit, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        digit[0] = HEX[usize::from(byte >> 4)];
        digit[1] = HEX[usize::from(byte & 0xf)];
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn config() -> RequestIdConfig {
        RequestIdConfig {
            generate: true,
            preserve_external: false,
            always_set_in_response: false,
            pack_trace_reason: true,
        }
    }

    #[test]
    fn ids_are_version_4_uuids() {
        for _ in 0..100 {
            let id = generate();
            let text = id.to_str().unwrap();
            assert_eq!((text.len(), &text[14..15]), (36, "4"));
            assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
            assert!(text.chars().enumerate().all(|(at, c)| match at {
                8 | 13 | 18 | 23 => c == '-',
                _ => c.is_ascii_hexdigit(),
            }));
        }
    }

    #[test]
    fn the_edge_replaces_a_clients_id_and_the_inside_keeps_it() {
        let mut head = RequestHead::new(Method::GET, "a", "/");
        head.headers.insert(X_REQUEST_ID, HeaderValue::from_static("abc"));
        apply(&config(), &mut head, false, false);
        assert_eq!(head.headers[X_REQUEST_ID], "abc");
        apply(&RequestIdConfig { preserve_external: true, ..config() }, &mut head, true, false);
        assert_eq!(head.headers[X_REQUEST_ID], "abc");
        let response = apply(&config(), &mut head, true, true);
        assert_ne!(head.headers[X_REQUEST_ID], "abc");
        assert_eq!(response.as_ref(), head.headers.get(X_REQUEST_ID));
    }
}
