//! A response that the proxy makes itself.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use tidegate_types::ResponseFlags;

/// A local reply. On a gRPC request the engine turns it into a trailers-only response with a
/// matching `grpc-status` (gRPC docs, "HTTP to gRPC Status Code Mapping").
#[derive(Debug)]
pub struct LocalReply {
    /// The status.
    pub status: StatusCode,
    /// The body, sent as `text/plain` unless `headers` says otherwise.
    pub body: Bytes,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Cow<'static, str>,
    /// Response flags to add to the stream.
    pub flags: ResponseFlags,
    /// Header fields to add.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The gRPC status to use instead of the mapped one.
    pub grpc_status: Option<u32>,
}

impl LocalReply {
    /// A reply with a text body.
    pub fn new(status: StatusCode, body: impl Into<Bytes>, details: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            body: body.into(),
            details: details.into(),
            flags: ResponseFlags::NONE,
            headers: Vec::new(),
            grpc_status: None,
        }
    }

    /// Sets the gRPC status that a gRPC request is answered with.
    #[must_use]
    pub fn with_grpc_status(mut self, status: u32) -> Self {
        self.grpc_status = Some(status);
        self
    }

    /// Adds response flags.
    #[must_use]
    pub fn with_flags(mut self, flags: ResponseFlags) -> Self {
        self.flags.insert(flags);
        self
    }

    /// Adds a header field.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}
