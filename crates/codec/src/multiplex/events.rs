//! What happens on a connection besides its exchanges, for whoever counts it. No statistic is named here.

use std::io;

use crate::stream::ResetCode;

/// Something to be counted; the scopes of Envoy's `http2.` and `http3.` statistics have one for most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A stream began.
    StreamOpened,
    /// A stream ended, however it did.
    StreamClosed,
    /// A stream was reset by the peer (RST_STREAM; RESET_STREAM or STOP_SENDING).
    RxReset,
    /// With that it was refused (beside [`Event::RxReset`]).
    RxRefused,
    /// A stream was reset by us.
    TxReset,
    /// It was refused by us (beside [`Event::TxReset`]): the peer exceeds its limit, or came
    /// too late.
    TxRefused,
    /// GOAWAY was sent by the owner's wish; neither the one that only announces, nor one that tells of a fault.
    GoawaySent,
    /// A PING was not answered in time.
    KeepaliveTimeout,
    /// A head had too many fields.
    HeaderOverflow,
    /// A head had too many bytes.
    HeadTooLarge,
    /// A field was dropped for an underscore in its name.
    UnderscoreDropped,
    /// A message was refused for an underscore in a field's name.
    UnderscoreRejected,
    /// The peer exceeded a limit on frames.
    Flood(Flood),
    /// Trailers came.
    Trailers,
    /// An invalid message came (RFC 9113 §8.1.1).
    MessagingError,
    /// HTTP/3: what [`Event::RxReset`] said, by the name under which Envoy counts it
    /// (`quic_reset_stream_error_code_*`).
    RxResetNamed(&'static str),
    /// HTTP/3: the same of [`Event::TxReset`].
    TxResetNamed(&'static str),
    /// HTTP/3: the peer closed the connection, by Envoy's name (`quic_connection_close_error_code_*`).
    RxCloseNamed(&'static str),
    /// HTTP/3: we closed the connection, by Envoy's name.
    TxCloseNamed(&'static str),
}

/// Counts [`Event`]s. Called in the midst of reading and writing: it must not call the connection.
pub trait Observer {
    /// `event` happened.
    fn on_event(&self, event: Event);
}

/// Counts nothing.
impl Observer for () {
    fn on_event(&self, _event: Event) {}
}

/// Why a connection ended, other than by either side's wish.
#[derive(Debug, thiserror::Error)]
pub enum ConnError {
    /// The connection broke.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer broke the protocol; it was told so by GOAWAY if it had said that it speaks our version.
    #[error("the peer broke the protocol: {0:?}")]
    Violation(ResetCode),
    /// A message of the peer was malformed, which ends its whole connection; it was told so (RFC 9114 §4.1.2).
    #[error("the peer sent a malformed message")]
    Malformed,
    /// The peer sent GOAWAY with an error and nothing was left to do.
    #[error("the peer went away: {0:?}")]
    PeerError(ResetCode),
    /// The peer exceeded a limit on frames.
    #[error("too many frames: {0:?}")]
    Flood(Flood),
    /// The peer did not answer a PING.
    #[error("no answer to a PING")]
    KeepaliveTimeout,
}

/// Which limit a peer exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flood {
    /// `max_consecutive_inbound_frames_with_empty_payload`.
    EmptyFrames,
    /// `max_inbound_priority_frames_per_stream`.
    Priority,
    /// `max_inbound_window_update_frames_per_data_frame_sent`.
    WindowUpdate,
    /// `max_outbound_control_frames`.
    OutboundControl,
    /// `max_outbound_frames`.
    Outbound,
    /// Streams that were reset before their response (CVE-2023-44487).
    PrematureResets,
}
