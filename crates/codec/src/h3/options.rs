//! Settings of the HTTP/3 codec: Envoy's `Http3ProtocolOptions` and the limits of the connection manager. Each limit
//! says whom it stops. What belongs to QUIC (windows, the number of streams, idle time) is configured there.

use tidegate_types::Scheme;

use crate::fields::{self, Dialect, Judges, MessageOptions};

/// Settings that both roles have. Defaults are those of Envoy 1.40.
#[derive(Clone, Debug)]
pub struct Options {
    /// Streams that a client has open at once, however many the peer allows. A server says its own number in QUIC's
    /// transport parameters.
    pub max_concurrent_streams: u32,
    /// What heads and trailers may be.
    pub messages: MessageOptions,
}

/// Settings of a [`ServerConn`](super::ServerConn).
pub type ServerOptions = fields::ServerOptions<Options>;

/// Settings of a [`ClientConn`](super::ClientConn).
pub type ClientOptions = Options;

impl Default for Options {
    fn default() -> Self {
        Self { max_concurrent_streams: 100, messages: MessageOptions::default() }
    }
}

impl From<MessageOptions> for Options {
    /// Everything else is as by default.
    fn from(messages: MessageOptions) -> Self {
        Self { messages, ..Self::default() }
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { common: Options::default(), proxy_100_continue: false, scheme: Scheme::Https }
    }
}

impl Judges for Options {
    const DIALECT: Dialect = Dialect::Http3;

    fn messages(&self) -> &MessageOptions {
        &self.messages
    }
}
