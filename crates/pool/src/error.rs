//! Why a pool gave no connection.

use std::borrow::Cow;

use tidegate_types::{ErrorSource, ResetReason};

use crate::machine::Queued;

/// Why a pool gave no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// `max_pending_requests` refused the stream.
    #[error("overflow")]
    Overflow,
    /// `max_requests` refused the stream, for which the host had a connection.
    #[error("request overflow")]
    RequestOverflow,
    /// `max_connection_pools` refused the pool. Envoy answers as if there were no host.
    #[error("no pool left for the host")]
    PoolOverflow,
    /// `max_connections` refused the TCP session.
    #[error("connection overflow")]
    ConnectionOverflow,
    /// The connection ended between its assignment to the stream and its use: nothing of the stream was written.
    #[error("{}", ResetReason::ConnectionTermination.as_str())]
    Lost,
    /// The connection attempt that the stream waited for failed.
    #[error("{}", reason.as_str())]
    Connect {
        /// What kind of failure.
        reason: ResetReason,
        /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`, if the transport said more.
        transport: Option<Cow<'static, str>>,
    },
}

impl From<Queued> for PoolError {
    /// The error of a refusal.
    fn from(refused: Queued) -> Self {
        match refused {
            Queued::PoolOverflow => Self::PoolOverflow,
            Queued::ConnectionOverflow => Self::ConnectionOverflow,
            Queued::Overflow | Queued::Waiting(_) => Self::Overflow,
        }
    }
}

impl PoolError {
    /// The reset reason, as in response-code details and retry policies.
    pub fn reason(&self) -> ResetReason {
        match self {
            Self::Overflow | Self::RequestOverflow | Self::PoolOverflow | Self::ConnectionOverflow => {
                ResetReason::Overflow
            }
            Self::Lost => ResetReason::ConnectionTermination,
            Self::Connect { reason, .. } => *reason,
        }
    }

    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`, for instance `delayed_connect_error:_Connection_refused`.
    pub fn transport_failure(&self) -> Option<&str> {
        match self {
            Self::Connect { transport, .. } => transport.as_deref(),
            Self::Overflow
            | Self::RequestOverflow
            | Self::PoolOverflow
            | Self::ConnectionOverflow
            | Self::Lost => None,
        }
    }

    /// Whether the stream got as far as its host: what keeps it out of the queue, or the host without a pool, does not
    /// let it.
    pub fn reached_host(&self) -> bool {
        match self {
            Self::Overflow | Self::PoolOverflow | Self::ConnectionOverflow => false,
            Self::RequestOverflow | Self::Lost | Self::Connect { .. } => true,
        }
    }

    /// Whether it was the TLS handshake that failed.
    pub fn is_tls(&self) -> bool {
        self.transport_failure().is_some_and(|text| text.starts_with("TLS_error"))
    }

    /// Who is to blame.
    pub fn source(&self) -> ErrorSource {
        match self {
            Self::Overflow | Self::RequestOverflow | Self::PoolOverflow | Self::ConnectionOverflow => {
                ErrorSource::Internal
            }
            Self::Connect { .. } | Self::Lost => ErrorSource::Upstream,
        }
    }
}
