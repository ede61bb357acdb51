//! `retry_on`: the conditions as a set.

use http::{HeaderMap, HeaderName};

/// A set of conditions, as Envoy names them (Envoy docs, "Router", `x-envoy-retry-on`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

macro_rules! conditions {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl RetryOn {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
        }
        const NAMES: &[(&str, RetryOn)] = &[$(($text, RetryOn::$name)),*];
    };
}

conditions! {
    /// Any 5xx, and no response at all.
    STATUS_5XX = 0, "5xx";
    /// 502, 503, 504, and no response at all.
    GATEWAY_ERROR = 1, "gateway-error";
    /// No response: disconnect, reset, timeout.
    RESET = 2, "reset";
    /// As `reset`, while nothing of the request was sent.
    RESET_BEFORE_REQUEST = 3, "reset-before-request";
    /// No connection.
    CONNECT_FAILURE = 4, "connect-failure";
    /// `x-envoy-ratelimited` in the response.
    ENVOY_RATELIMITED = 5, "envoy-ratelimited";
    /// 409.
    RETRIABLE_4XX = 6, "retriable-4xx";
    /// The upstream refused the stream unprocessed.
    REFUSED_STREAM = 7, "refused-stream";
    /// A status of `retriable_status_codes`.
    RETRIABLE_STATUS_CODES = 8, "retriable-status-codes";
    /// A header of `retriable_headers`.
    RETRIABLE_HEADERS = 9, "retriable-headers";
    /// HTTP/3 failed after the handshake.
    HTTP3_POST_CONNECT_FAILURE = 10, "http3-post-connect-failure";
    /// `grpc-status` 1 in the head.
    GRPC_CANCELLED = 16, "cancelled";
    /// `grpc-status` 4 in the head.
    GRPC_DEADLINE_EXCEEDED = 17, "deadline-exceeded";
    /// `grpc-status` 8 in the head.
    GRPC_RESOURCE_EXHAUSTED = 18, "resource-exhausted";
    /// `grpc-status` 13 in the head.
    GRPC_INTERNAL = 19, "internal";
    /// `grpc-status` 14 in the head.
    GRPC_UNAVAILABLE = 20, "unavailable";
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

impl RetryOn {
    /// No condition.
    pub const NONE: Self = Self(0);
    /// All gRPC conditions.
    pub(super) const GRPC: Self = Self(0x1f << 16);
    /// All others.
    pub(super) const HTTP: Self = Self(0xffff);

    /// The condition of that name; none for a name that Envoy does not know either.
    pub fn parse(name: &str) -> Self {
        NAMES.iter().find(|(text, _)| *text == name).map_or(Self::NONE, |(_, on)| *on)
    }

    /// This set and `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set and in `other`.
    #[must_use]
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether any condition of `other` is in the set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the set holds the condition for the gRPC status in a response's head.
    pub(super) fn wants_grpc(self, headers: &HeaderMap) -> bool {
        if !self.has(Self::GRPC) {
            return false;
        }
        let condition = match headers.get(&GRPC_STATUS).map(|value| value.as_bytes()) {
            Some(b"1") => Self::GRPC_CANCELLED,
            Some(b"4") => Self::GRPC_DEADLINE_EXCEEDED,
            Some(b"8") => Self::GRPC_RESOURCE_EXHAUSTED,
            Some(b"13") => Self::GRPC_INTERNAL,
            Some(b"14") => Self::GRPC_UNAVAILABLE,
            _ => return false,
        };
        self.has(condition)
    }
}
