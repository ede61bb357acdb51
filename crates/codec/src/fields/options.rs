//! Settings of messages, which HTTP/2 and HTTP/3 have alike, and what their fields are judged by then.

use tidegate_types::Scheme;

use super::request::RequestRules;
use super::tally::{Dialect, Limits, ObsText, Underscores};
use crate::h1::options::DEFAULT_MAX_HEADERS;

/// What the messages of a connection may be. Defaults are those of Envoy 1.40. Each limit says whom it stops.
#[derive(Clone, Debug)]
pub struct MessageOptions {
    /// Bytes of a head, or of trailers: in HTTP/2 with 32 a field (RFC 9113 §10.5.1), in HTTP/3 without, as Envoy.
    /// Stops endless heads.
    pub max_head_bytes: u32,
    /// Fields of a head. Stops a peer that spends our time on thousands of tiny fields.
    pub max_headers: usize,
    /// Extended CONNECT (RFC 8441, RFC 9220): WebSocket in a stream.
    pub allow_connect: bool,
    /// Fields whose names have underscores, which some servers read as hyphens.
    pub underscores: Underscores,
    /// Values with bytes above 0x7f.
    pub obs_text: ObsText,
    /// An invalid message ends only its stream; without it, the connection, as Envoy does.
    pub override_stream_error_on_invalid_http_message: bool,
}

/// Settings of a server's connection. `O` are those that both roles of its version have.
#[derive(Clone, Debug)]
pub struct ServerOptions<O> {
    /// What both roles have.
    pub common: O,
    /// Forward `Expect: 100-continue` instead of answering it here.
    pub proxy_100_continue: bool,
    /// The scheme of requests whose own cannot be told: the connection's.
    pub scheme: Scheme,
}

/// A version's settings, of which messages are judged by some.
pub(crate) trait Judges {
    const DIALECT: Dialect;

    fn messages(&self) -> &MessageOptions;
}

impl MessageOptions {
    /// The most bytes of a head as it comes, in any number of frames. Above the limit on heads, so that a head over
    /// that is told by its verdict.
    pub(crate) fn max_block_bytes(&self) -> usize {
        (self.max_head_bytes as usize).saturating_mul(2).saturating_add(16 * 1024)
    }
}

impl Default for MessageOptions {
    fn default() -> Self {
        Self {
            max_head_bytes: 60 * 1024,
            max_headers: DEFAULT_MAX_HEADERS,
            allow_connect: false,
            underscores: Underscores::default(),
            obs_text: ObsText::default(),
            override_stream_error_on_invalid_http_message: false,
        }
    }
}

impl<O: Judges> From<&O> for Limits {
    fn from(options: &O) -> Self {
        let messages = options.messages();
        Self {
            bytes: messages.max_head_bytes as usize,
            fields: messages.max_headers,
            underscores: messages.underscores,
            obs_text: messages.obs_text,
            dialect: O::DIALECT,
        }
    }
}

impl<O: Judges> From<&ServerOptions<O>> for RequestRules {
    fn from(options: &ServerOptions<O>) -> Self {
        Self {
            limits: Limits::from(&options.common),
            allow_connect: options.common.messages().allow_connect,
            proxy_100_continue: options.proxy_100_continue,
            scheme: options.scheme,
        }
    }
}
