//! Settings of the HTTP/3 codec: Envoy's `Http3ProtocolOptions` and the limits of the connection manager. Each limit
//! says whom it stops. What belongs to QUIC (windows, the number of streams, idle time) is configured there.

use tidegate_types::Scheme;

use crate::fields::{Dialect, Limits, RequestRules, Underscores};
use crate::h1::options::DEFAULT_MAX_HEADERS;

/// Settings that both roles have. Defaults are those of Envoy 1.40.
#[derive(Clone, Debug)]
pub struct Options {
    /// Streams that a client has open at once, however many the peer allows. A server says its own number in QUIC's
    /// transport parameters.
    pub max_concurrent_streams: u32,
    /// Bytes of a head, or of trailers, without anything added for each field. Stops endless heads.
    pub max_head_bytes: u32,
    /// Fields of a head. Stops a peer that spends our time on thousands of tiny fields.
    pub max_headers: usize,
    /// Extended CONNECT (RFC 9220): WebSocket over HTTP/3.
    pub allow_connect: bool,
    /// Fields whose names have underscores, which some servers read as hyphens.
    pub underscores: Underscores,
    /// An invalid message ends only its stream; without it, the connection, as Envoy does.
    pub override_stream_error_on_invalid_http_message: bool,
}

/// Settings of a [`ServerConn`](super::ServerConn).
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// What both roles have.
    pub common: Options,
    /// Forward `Expect: 100-continue` instead of answering it here.
    pub proxy_100_continue: bool,
    /// The scheme of requests whose own cannot be told: the connection's.
    pub scheme: Scheme,
}

/// Settings of a [`ClientConn`](super::ClientConn).
pub type ClientOptions = Options;

impl Default for Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 100,
            max_head_bytes: 60 * 1024,
            max_headers: DEFAULT_MAX_HEADERS,
            allow_connect: false,
            underscores: Underscores::default(),
            override_stream_error_on_invalid_http_message: false,
        }
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { common: Options::default(), proxy_100_continue: false, scheme: Scheme::Https }
    }
}

impl From<&Options> for Limits {
    fn from(options: &Options) -> Self {
        Self {
            bytes: options.max_head_bytes as usize,
            fields: options.max_headers,
            underscores: options.underscores,
            dialect: Dialect::Http3,
        }
    }
}

impl From<&ServerOptions> for RequestRules {
    fn from(options: &ServerOptions) -> Self {
        Self {
            limits: Limits::from(&options.common),
            allow_connect: options.common.allow_connect,
            proxy_100_continue: options.proxy_100_continue,
            scheme: options.scheme,
        }
    }
}
