//! Settings of the HTTP/2 codec: Envoy's `Http2ProtocolOptions` and the limits of the connection manager. Each
//! limit says whom it stops.

use std::time::Duration;

use tidegate_types::Scheme;

use crate::fields::{self, Dialect, Judges, MessageOptions};
use crate::h1::options::DEFAULT_BUFFER_LIMIT;

/// Settings that both roles have. Defaults are those of Envoy 1.40.
#[derive(Clone, Debug)]
pub struct Options {
    /// Streams that the peer may have open (server), or that we open (client, together with what the peer
    /// allows). Stops a client that has us serve without end.
    pub max_concurrent_streams: u32,
    /// Bytes of a stream that the peer may send before we took any. Bounds memory per stream.
    pub initial_stream_window_size: u32,
    /// Bytes of all streams that the peer may send before we took any. Bounds memory per connection.
    pub initial_connection_window_size: u32,
    /// Bytes of the table that decodes header fields (RFC 7541 §4.2). Bounds memory per connection.
    pub hpack_table_size: u32,
    /// Bytes of a field's name or value as it is coded. Stops a peer whose one field fills the whole head.
    pub max_header_field_bytes: u32,
    /// Settings sent ahead of ours as they are, none of them twice. They change nothing here but
    /// `SETTINGS_MAX_FRAME_SIZE`, the frames that are taken then.
    pub custom_settings: Vec<(u16, u32)>,
    /// What heads and trailers may be.
    pub messages: MessageOptions,
    /// Frames that cost us and not the peer.
    pub floods: FloodLimits,
    /// PINGs that find dead peers; none by default.
    pub keepalive: Option<KeepaliveOptions>,
    /// Envoy's `per_connection_buffer_limit_bytes`: bytes that one read takes.
    pub buffer_limit: usize,
}

/// Settings of a [`ServerConn`](super::ServerConn).
pub type ServerOptions = fields::ServerOptions<Options>;

/// Settings of a [`ClientConn`](super::ClientConn).
pub type ClientOptions = Options;

/// Limits on frames that cost us work and the peer nothing; Envoy's fields and defaults.
#[derive(Clone, Copy, Debug)]
pub struct FloodLimits {
    /// HEADERS, CONTINUATION and DATA without payload and without END_STREAM, in a row.
    pub max_consecutive_inbound_frames_with_empty_payload: u32,
    /// PRIORITY frames, times one more than the streams opened.
    pub max_inbound_priority_frames_per_stream: u32,
    /// WINDOW_UPDATE frames: 5 + 2 * (streams opened + this * DATA frames sent).
    pub max_inbound_window_update_frames_per_data_frame_sent: u32,
    /// Frames that the socket has not taken. Bodies stop long before; stops who asks and takes no answers.
    pub max_outbound_frames: u32,
    /// The same of answers to PING and SETTINGS, and of RST_STREAM.
    pub max_outbound_control_frames: u32,
    /// RST_STREAM frames of a client that are taken at once, and how many more each second: over that the
    /// connection ends with GOAWAY and INTERNAL_ERROR. Stops who asks and at once thinks better of it.
    pub stream_reset_burst: u64,
    /// See `stream_reset_burst`.
    pub stream_reset_rate: u64,
}

/// Envoy's `connection_keepalive`.
#[derive(Clone, Copy, Debug)]
pub struct KeepaliveOptions {
    /// Between one PING's answer and the next PING; without it there are no periodic PINGs.
    pub interval: Option<Duration>,
    /// For an answer, or any other frame, to come.
    pub timeout: Duration,
    /// Per cent of `interval` that are added at random.
    pub interval_jitter: f64,
    /// A stream that is opened after so long a silence is sent behind a PING.
    pub connection_idle_interval: Option<Duration>,
}

impl KeepaliveOptions {
    /// PINGs every `interval`, answered within `timeout`.
    pub fn new(interval: Option<Duration>, timeout: Duration) -> Self {
        Self { interval, timeout, interval_jitter: DEFAULT_JITTER, connection_idle_interval: None }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1024,
            initial_stream_window_size: 16 * 1024 * 1024,
            initial_connection_window_size: 24 * 1024 * 1024,
            hpack_table_size: 4096,
            max_header_field_bytes: 64 * 1024,
            custom_settings: Vec::new(),
            messages: MessageOptions::default(),
            floods: FloodLimits::default(),
            keepalive: None,
            buffer_limit: DEFAULT_BUFFER_LIMIT,
        }
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
        Self { common: Options::default(), proxy_100_continue: false, scheme: Scheme::Http }
    }
}

impl Default for FloodLimits {
    fn default() -> Self {
        Self {
            max_consecutive_inbound_frames_with_empty_payload: 1,
            max_inbound_priority_frames_per_stream: 100,
            max_inbound_window_update_frames_per_data_frame_sent: 10,
            max_outbound_frames: 10_000,
            max_outbound_control_frames: 1000,
            stream_reset_burst: 1000,
            stream_reset_rate: 33,
        }
    }
}

impl Judges for Options {
    const DIALECT: Dialect = Dialect::Http2;

    fn messages(&self) -> &MessageOptions {
        &self.messages
    }
}

/// Envoy's default of `interval_jitter`, per cent.
const DEFAULT_JITTER: f64 = 15.0;
