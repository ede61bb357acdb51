//! What of a request decides how its response is read and written.

use bytes::Bytes;
use http::{Method, StatusCode};
use tidegate_types::RequestHead;

/// What of the request decides how its response is read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Ordinary,
    Head,
    /// `CONNECT`: a successful response makes a tunnel.
    Connect,
    /// Extended CONNECT for this protocol (RFC 8441), which HTTP/1.1 calls an upgrade: 101 there, 200 here.
    Upgrade(Bytes),
}

impl Asked {
    pub(crate) fn of(head: &RequestHead) -> Self {
        match (&head.upgrade, &head.method) {
            (Some(protocol), _) => Self::Upgrade(protocol.clone()),
            (None, &Method::HEAD) => Self::Head,
            (None, &Method::CONNECT) => Self::Connect,
            (None, _) => Self::Ordinary,
        }
    }

    /// Whether a response has no body, whatever its fields say (RFC 9110 §6.4.1).
    pub(crate) fn is_bodiless(&self, status: StatusCode) -> bool {
        *self == Self::Head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }
}
