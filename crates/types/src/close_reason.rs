//! Why a connection was closed: the last part of `upstream_cx_close_reason.<reason>` and
//! `downstream_cx_close_reason.<reason>`, and a word of each close's debug line.
//!
//! Every connection that counts in `cx_destroy` counts under exactly one reason, so that the family adds up.

use std::io;

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// It idled for `idle_timeout`.
    IdleTimeout,
    /// It reached its maximal duration.
    MaxDuration,
    /// It carried as many requests as it may.
    MaxRequests,
    /// The peer closed it in order.
    PeerFin,
    /// The peer reset it.
    PeerRst,
    /// The handshake failed, or a record was bad.
    TlsError,
    /// It was drained: its listener, its cluster or the process goes.
    Drained,
    /// Its host became unhealthy or left.
    HostUnhealthy,
    /// A limit of connections took it, or gave its place to a request that needed one.
    Overflow,
    /// The peer broke the protocol.
    ProtocolError,
    /// The peer announced the close (`connection: close`, GOAWAY), or we did, with the last message.
    Announced,
    /// It was never established: refused, unreachable.
    ConnectFailed,
    /// It could not be established from here: no socket, no address, no packet that could be sent.
    ConnectFailedHere,
    /// It was not established within `connect_timeout`, or its handshake not within its own.
    ConnectTimeout,
    /// A timeout of the request that it carried.
    RequestTimeout,
    /// The request that it carried was given up, here or by the other side.
    RequestReset,
    /// A filter refused it.
    Refused,
    /// The peer did not answer a PING in time (`connection_keepalive`).
    KeepaliveTimeout,
}

impl CloseReason {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 18] = [
        Self::IdleTimeout,
        Self::MaxDuration,
        Self::MaxRequests,
        Self::PeerFin,
        Self::PeerRst,
        Self::TlsError,
        Self::Drained,
        Self::HostUnhealthy,
        Self::Overflow,
        Self::ProtocolError,
        Self::Announced,
        Self::ConnectFailed,
        Self::ConnectFailedHere,
        Self::ConnectTimeout,
        Self::RequestTimeout,
        Self::RequestReset,
        Self::Refused,
        Self::KeepaliveTimeout,
    ];

    /// As it is written in statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle_timeout",
            Self::MaxDuration => "max_duration",
            Self::MaxRequests => "max_requests",
            Self::PeerFin => "peer_fin",
            Self::PeerRst => "peer_rst",
            Self::TlsError => "tls_error",
            Self::Drained => "drained",
            Self::HostUnhealthy => "host_unhealthy",
            Self::Overflow => "overflow",
            Self::ProtocolError => "protocol_error",
            Self::Announced => "announced",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectFailedHere => "connect_failed_here",
            Self::ConnectTimeout => "connect_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::RequestReset => "request_reset",
            Self::Refused => "refused",
            Self::KeepaliveTimeout => "keepalive_timeout",
        }
    }

    /// In words, for the log: Envoy's where it logs one.
    pub const fn words(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle timeout",
            Self::MaxDuration => "max connection duration reached",
            Self::MaxRequests => "max requests per connection reached",
            Self::PeerFin => "closed by the peer",
            Self::PeerRst => "reset by the peer",
            Self::TlsError => "TLS error",
            Self::Drained => "drained",
            Self::HostUnhealthy => "host unhealthy or gone",
            Self::Overflow => "given up under a connection limit",
            Self::ProtocolError => "protocol error",
            Self::Announced => "announced with the last message",
            Self::ConnectFailed => "connect failure",
            Self::ConnectFailedHere => "local connect failure",
            Self::ConnectTimeout => "connect timeout",
            Self::RequestTimeout => "request timeout",
            Self::RequestReset => "request reset",
            Self::Refused => "refused",
            Self::KeepaliveTimeout => "no answer to a PING",
        }
    }

    /// What an error of a connection's bytes says of its end.
    pub fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::PeerFin,
            // How TLS says that a record, or the handshake, is bad.
            io::ErrorKind::InvalidData => Self::TlsError,
            // A handshake's limit of time, which no system call reports; the kernel's own has a number.
            io::ErrorKind::TimedOut if error.raw_os_error().is_none() => Self::ConnectTimeout,
            // RST, a write after one, or the kernel's keepalive: the peer is not there in order.
            _ => Self::PeerRst,
        }
    }

    /// Whether the close was the peer's doing: `cx_destroy_remote`, else `cx_destroy_local`.
    pub const fn is_remote(self) -> bool {
        matches!(self, Self::PeerFin | Self::PeerRst | Self::ConnectFailed | Self::TlsError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_of_declaration_and_names_are_unique() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        let names: std::collections::HashSet<_> = CloseReason::ALL.map(CloseReason::name).into();
        assert_eq!(names.len(), CloseReason::ALL.len());
    }
}
