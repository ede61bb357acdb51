//! Request and response heads, the same for every HTTP version.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use crate::names::WrittenNames;

/// Whether a frame is the last one of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndStream {
    /// More follows.
    No,
    /// Nothing follows: no body, no trailers.
    Yes,
}

impl EndStream {
    /// `Yes` if `last`.
    pub const fn from_last(last: bool) -> Self {
        if last { Self::Yes } else { Self::No }
    }

    /// Whether this is the end.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Yes)
    }
}

/// The scheme of a request (`:scheme`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// What requests over a connection with or without TLS are for.
    pub const fn of_connection(secure: bool) -> Self {
        if secure { Self::Https } else { Self::Http }
    }

    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A request's head. `host` is not in `headers`: it is [`RequestHead::authority`], on every
/// version (RFC 9113 §8.3.1).
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The scheme as the client named it, or as its connection says.
    pub scheme: Scheme,
    /// `Host` or `:authority`; printable ASCII, empty when the request had none.
    pub authority: Bytes,
    /// Path and query in origin form, or `*`, as it will go on the wire; printable ASCII. Empty only
    /// for `CONNECT` without a path.
    pub path: Bytes,
    /// The version that the client spoke.
    pub version: Version,
    /// All fields but `host` and pseudo-header fields.
    pub headers: HeaderMap,
    /// Extended CONNECT's `:protocol`, or the HTTP/1.1 `Upgrade` that asks for the same.
    pub upgrade: Option<Bytes>,
    /// The fields' names as the client wrote them, where its codec was told to keep them.
    pub names: Option<Box<WrittenNames>>,
}

impl RequestHead {
    /// `GET path` for `authority` over HTTP/1.1: a start for callouts and tests.
    pub fn new(method: Method, authority: impl Into<Bytes>, path: impl Into<Bytes>) -> Self {
        Self {
            method,
            scheme: Scheme::Http,
            authority: authority.into(),
            path: path.into(),
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            upgrade: None,
            names: None,
        }
    }

    /// Path and query as text.
    pub fn path_str(&self) -> &str {
        std::str::from_utf8(&self.path).unwrap_or_default()
    }

    /// The authority as text.
    pub fn authority_str(&self) -> &str {
        std::str::from_utf8(&self.authority).unwrap_or_default()
    }

    /// The path without its query.
    pub fn path_only(&self) -> &str {
        let path = self.path_str();
        path.split_once('?').map_or(path, |(path, _)| path)
    }

    /// The query without its `?`.
    pub fn query(&self) -> Option<&str> {
        self.path_str().split_once('?').map(|(_, query)| query)
    }

    /// A header's value as text; `None` when absent or not text. Of several, the first.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether this is a gRPC request (`content-type: application/grpc`, optionally `+suffix`).
    pub fn is_grpc(&self) -> bool {
        self.headers.get(http::header::CONTENT_TYPE).is_some_and(is_grpc_content_type)
    }
}

/// A response's head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The version that the upstream spoke.
    pub version: Version,
    /// All fields but pseudo-header fields.
    pub headers: HeaderMap,
    /// The fields' names as the upstream wrote them, where its codec was told to keep them.
    pub names: Option<Box<WrittenNames>>,
}

impl ResponseHead {
    /// A head without fields.
    pub fn new(status: StatusCode) -> Self {
        Self { status, version: Version::HTTP_11, headers: HeaderMap::new(), names: None }
    }
}

/// Whether a `content-type` is gRPC's: `application/grpc` or `application/grpc+...`.
pub fn is_grpc_content_type(value: &HeaderValue) -> bool {
    match value.as_bytes().strip_prefix(b"application/grpc") {
        Some([]) => true,
        Some([next, ..]) => *next == b'+',
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_are_split_at_the_first_question_mark() {
        let head = RequestHead::new(Method::GET, "a", "/x?y=1?z");
        assert_eq!((head.path_only(), head.query()), ("/x", Some("y=1?z")));
        assert_eq!(RequestHead::new(Method::GET, "a", "/x").query(), None);
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let grpc = |text: &'static str| is_grpc_content_type(&HeaderValue::from_static(text));
        assert!(grpc("application/grpc") && grpc("application/grpc+proto"));
        assert!(!grpc("application/grpc-web") && !grpc("text/plain"));
    }
}
