//! Whose fault a failure is, and why a stream was reset.

/// Who caused a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorSource {
    /// The client, or its connection.
    Downstream,
    /// The upstream, or its connection.
    Upstream,
    /// This process: its limits, its configuration, its bugs.
    Internal,
}

/// Why a stream ended before it was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// A local limit refused it before it reached the wire (circuit breaker).
    Overflow,
    /// The connection could not be made: the remote refused, or its handshake failed.
    RemoteConnectionFailure,
    /// The connection could not be made: no local socket or address.
    LocalConnectionFailure,
    /// The connection could not be made within `connect_timeout`.
    ConnectionTimeout,
    /// The connection ended under the stream.
    ConnectionTermination,
    /// The peer reset the stream.
    RemoteReset,
    /// The peer reset the stream and promises that it did not process it (RFC 9113 §8.7).
    RemoteRefused,
    /// The peer reset the stream of a CONNECT, whose connection broke (RFC 9113 §7, CONNECT_ERROR).
    ConnectError,
    /// We reset the stream.
    LocalReset,
    /// The peer broke its protocol.
    ProtocolError,
}

impl ResetReason {
    /// Envoy's words for the reason, as in `reset reason: connection termination`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::RemoteConnectionFailure => "remote connection failure",
            Self::LocalConnectionFailure => "local connection failure",
            Self::ConnectionTimeout => "connection timeout",
            Self::ConnectionTermination => "connection termination",
            Self::RemoteReset => "remote reset",
            Self::RemoteRefused => "remote refused stream reset",
            Self::ConnectError => "remote error with CONNECT request",
            Self::LocalReset => "local reset",
            Self::ProtocolError => "protocol error",
        }
    }

    /// Whether no connection ever carried the stream.
    pub fn is_connect_failure(self) -> bool {
        matches!(self, Self::RemoteConnectionFailure | Self::LocalConnectionFailure | Self::ConnectionTimeout)
    }
}
