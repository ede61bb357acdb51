//! How sessions end, and what each end is called: one table for counters, flags, logs and the wire.

use std::io;

use tidegate_types::{CloseReason, CloseType, ResponseFlags};

/// A side of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client's.
    Downstream,
    /// The cluster's.
    Upstream,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Both sides are through, the `first` one first.
    Both {
        /// Whose FIN came first.
        first: Side,
    },
    /// A side broke.
    Broken {
        /// Which one.
        side: Side,
        /// How.
        reason: CloseReason,
        /// Its FIN had come before: nothing of what it had to say is missing.
        finished: bool,
    },
    /// `idle_timeout`.
    Idle,
    /// `max_downstream_connection_duration`.
    MaxDuration,
    /// The host began to fail, and `close_connections_on_host_health_failure` is set.
    HostFailed,
    /// The listener or the process goes, and time is up.
    Drained,
    /// No upstream connection within the allowed attempts.
    ConnectFailed,
    /// No host to connect to.
    NoHost,
    /// `max_connections` of the cluster.
    Overflow,
    /// The cluster does not exist.
    NoCluster,
    /// A network filter closed the connection before there was a session.
    Refused,
    /// The client left before it said anything, and nothing was connected yet.
    NeverBegun,
}

/// What is done to a connection at the end of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// It is over already.
    Close,
    /// RST: the other side was reset.
    Reset,
    /// FIN, and what still comes is read and discarded for a while, so that the peer meets no RST.
    Fin,
}

impl End {
    /// The end that an error of `side` is.
    pub(crate) fn broken(side: Side, error: &io::Error, finished: bool) -> Self {
        let reason = match error.kind() {
            // A network filter closed the connection: it gives this, and no socket does.
            io::ErrorKind::ConnectionAborted => CloseReason::Refused,
            // The handshake took too long.
            io::ErrorKind::TimedOut if side == Side::Downstream => CloseReason::ConnectTimeout,
            _ => CloseReason::of_io(error),
        };
        Self::Broken { side, reason, finished }
    }

    /// Why the connection of `side` ended.
    pub(crate) fn reason(self, side: Side) -> CloseReason {
        match self {
            // The last FIN closes: whoever sent the first one waited for it.
            Self::Both { first: Side::Downstream } => CloseReason::PeerFin,
            Self::Both { .. } => CloseReason::Announced,
            Self::Broken { side: broken, reason, .. } if broken == side => reason,
            Self::Broken { .. } | Self::ConnectFailed => CloseReason::RequestReset,
            Self::Idle => CloseReason::IdleTimeout,
            Self::MaxDuration => CloseReason::MaxDuration,
            Self::HostFailed => CloseReason::HostUnhealthy,
            Self::Drained => CloseReason::Drained,
            Self::Overflow => CloseReason::Overflow,
            Self::NoHost | Self::NoCluster | Self::Refused => CloseReason::Refused,
            Self::NeverBegun => CloseReason::PeerFin,
        }
    }

    /// `%RESPONSE_FLAGS%` beyond those of failed attempts.
    pub(crate) fn flags(self) -> ResponseFlags {
        match self {
            Self::Broken { side: Side::Upstream, finished: false, .. } => {
                ResponseFlags::UPSTREAM_REMOTE_RESET
            }
            Self::MaxDuration => ResponseFlags::DURATION_TIMEOUT,
            Self::ConnectFailed => ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED.retries_last(),
            Self::NoHost => ResponseFlags::NO_HEALTHY_UPSTREAM,
            Self::Overflow => ResponseFlags::UPSTREAM_OVERFLOW,
            Self::NoCluster => ResponseFlags::NO_CLUSTER_FOUND,
            _ => ResponseFlags::NONE,
        }
    }

    /// `%DOWNSTREAM_LOCAL_CLOSE_REASON%`, as Envoy writes it (sic).
    pub(crate) fn local_close_reason(self) -> Option<&'static str> {
        match self {
            Self::Idle => Some("tcp_session_idle_timeout"),
            Self::MaxDuration => Some("max_connection_duration_reached"),
            Self::ConnectFailed => Some("tcp_initializion_failure:0"),
            Self::NoHost => Some("tcp_initializion_failure:1"),
            Self::Overflow => Some("tcp_initializion_failure:2"),
            Self::NoCluster => Some("tcp_initializion_failure:3"),
            Self::Broken { side: Side::Downstream, reason: CloseReason::ConnectTimeout, .. } => {
                Some("transport_socket_timeout")
            }
            _ => None,
        }
    }

    /// `%CONNECTION_TERMINATION_DETAILS%`, where no filter has said why.
    pub(crate) fn termination_details(self) -> Option<&'static str> {
        match self {
            Self::Broken { side: Side::Downstream, reason: CloseReason::ConnectTimeout, .. } => {
                Some("transport socket timeout was reached")
            }
            _ => None,
        }
    }

    /// `%DOWNSTREAM_DETECTED_CLOSE_TYPE%` or `%UPSTREAM_DETECTED_CLOSE_TYPE%`. Envoy notes its own resets on
    /// the downstream's side only.
    pub(crate) fn close_type(self, side: Side) -> CloseType {
        match self {
            // It had ended before: what was sent since met nobody.
            Self::Broken { side: Side::Upstream, finished: true, .. } => CloseType::Normal,
            Self::Broken { side: broken, reason: CloseReason::PeerRst, .. } => match (broken == side, side) {
                (true, _) => CloseType::RemoteReset,
                (false, Side::Downstream) => CloseType::LocalReset,
                (false, Side::Upstream) => CloseType::Normal,
            },
            _ => CloseType::Normal,
        }
    }

    /// What is done to the connection of `side`.
    pub(crate) fn parting(self, side: Side) -> Parting {
        match self {
            Self::Both { .. } | Self::NeverBegun => Parting::Close,
            Self::Broken { side: broken, .. } if broken == side => Parting::Close,
            Self::Broken { reason: CloseReason::PeerRst, .. } => Parting::Reset,
            _ => Parting::Fin,
        }
    }

    /// The words of its debug line: Envoy's where it has one.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Idle => "Session timed out",
            Self::MaxDuration => "max connection duration reached",
            Self::Drained => "drain closing tcp_proxy connection",
            other => other.reason(Side::Downstream).words(),
        }
    }
}
