//! Field names that `http` does not know but proxies see all the time: without them each costs an
//! allocation a message.

use http::HeaderName;

/// The name, if it is one of the frequent ones, in any case.
pub(super) fn frequent(name: &[u8]) -> Option<HeaderName> {
    // Most names are `http`'s own and leave here.
    if !matches!(name.first()? | 0x20, b'x' | b's' | b't' | b'k' | b'g' | b'p') {
        return None;
    }
    FREQUENT.iter().find(|known| known.as_str().as_bytes().eq_ignore_ascii_case(name)).cloned()
}

static FREQUENT: [HeaderName; 22] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("sec-fetch-dest"),
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("sec-fetch-user"),
    HeaderName::from_static("sec-ch-ua"),
    HeaderName::from_static("sec-ch-ua-mobile"),
    HeaderName::from_static("sec-ch-ua-platform"),
    HeaderName::from_static("priority"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("x-requested-with"),
    HeaderName::from_static("x-envoy-upstream-service-time"),
    HeaderName::from_static("x-powered-by"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_names_are_found_in_any_case_and_others_are_not() {
        assert_eq!(frequent(b"X-Forwarded-For").unwrap(), "x-forwarded-for");
        for name in ["", "x-forwarded-fo", "x", "host", "te"] {
            assert!(frequent(name.as_bytes()).is_none());
        }
    }
}
