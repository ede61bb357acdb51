//! `x-request-id`: a random UUID (RFC 9562, version 4) that follows a request through every hop.

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
        let present = head.headers.contains_key(&X_REQUEST_ID);
        if !present || (edge && !config.preserve_external) {
            head.headers.insert(X_REQUEST_ID, generate());
        }
    }
    if !config.always_set_in_response && !forced_trace {
        return None;
    }
    head.headers.get(&X_REQUEST_ID).cloned()
}

/// A new id.
fn generate() -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut random = fastrand::u128(..);
    // Version 4 in the thirteenth digit, variant 10xx in the seventeenth.
    random = (random & !(0xf << 76)) | (0x4 << 76);
    random = (random & !(0x3 << 62)) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let mut shift = 128;
    for (at, byte) in text.iter_mut().enumerate() {
        if !matches!(at, 8 | 13 | 18 | 23) {
            shift -= 4;
            *byte = HEX[(random >> shift) as usize & 0xf];
        }
    }
    // Hex digits and dashes are always a valid value.
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
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
