//! One stream's race between QUIC and TCP, without I/O: [`Race`].
//!
//! Envoy docs, "HTTP/3 upstream" and `ConnectivityGrid`. QUIC begins, TCP follows when QUIC took too long or failed,
//! the first connection serves the stream. TCP that wins does not end QUIC's attempt: it is for the streams to come.

use tidegate_types::ResetReason;

use crate::error::PoolError;

/// See the module. Each input answers what is to be done.
#[derive(Debug)]
pub(super) struct Race {
    quic: Runner,
    tcp: Runner,
}

#[derive(Debug)]
enum Runner {
    Waits,
    Runs,
    Failed(PoolError),
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for what runs.
    Wait,
    /// Start TCP.
    StartTcp,
    /// Nothing is left: this is the stream's answer.
    Fail(PoolError),
}

/// What became of QUIC, once TCP has a connection for the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuicThen {
    /// It failed: it is broken.
    Broken,
    /// It runs: what becomes of it is still to be seen.
    Runs,
}

impl Race {
    /// QUIC was started.
    pub(super) fn new() -> Self {
        Self { quic: Runner::Runs, tcp: Runner::Waits }
    }

    /// QUIC took longer than it may have for itself.
    pub(super) fn handle_delay(&mut self) -> Next {
        match self.tcp {
            Runner::Waits => {
                self.tcp = Runner::Runs;
                Next::StartTcp
            }
            _ => Next::Wait,
        }
    }

    /// QUIC failed.
    pub(super) fn handle_quic_failed(&mut self, error: PoolError) -> Next {
        match &self.tcp {
            Runner::Waits => {
                self.quic = Runner::Failed(error);
                self.handle_delay()
            }
            Runner::Runs => {
                self.quic = Runner::Failed(error);
                Next::Wait
            }
            Runner::Failed(earlier) => Next::Fail(after(error, earlier)),
        }
    }

    /// TCP failed.
    pub(super) fn handle_tcp_failed(&mut self, error: PoolError) -> Next {
        match self.quic {
            Runner::Runs => {
                self.tcp = Runner::Failed(error);
                Next::Wait
            }
            // Of two that failed the last one counts; Envoy tells nothing of QUIC then.
            _ => Next::Fail(error),
        }
    }

    /// TCP has a connection.
    pub(super) fn handle_tcp_won(&self) -> QuicThen {
        match &self.quic {
            // A limit of ours says nothing about the way.
            Runner::Failed(PoolError::Connect { .. }) => QuicThen::Broken,
            _ => QuicThen::Runs,
        }
    }
}

/// QUIC's error, with TCP's that came before it, as Envoy words it.
fn after(error: PoolError, earlier: &PoolError) -> PoolError {
    let PoolError::Connect { reason, transport } = error else { return error };
    let number = match earlier.reason() {
        ResetReason::Overflow => 0,
        ResetReason::LocalConnectionFailure => 1,
        ResetReason::ConnectionTimeout => 3,
        _ => 2,
    };
    let quic = transport.unwrap_or_default();
    let tcp = earlier.transport_failure().unwrap_or_default();
    let text = format!("{quic}_(with_earlier_attempt_failure_reason_{number},_TCP:_{tcp})");
    PoolError::Connect { reason, transport: Some(text.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(reason: ResetReason, transport: &'static str) -> PoolError {
        PoolError::Connect { reason, transport: Some(transport.into()) }
    }

    fn refused() -> PoolError {
        failure(ResetReason::RemoteConnectionFailure, "delayed_connect_error:_Connection_refused")
    }

    fn unreachable() -> PoolError {
        failure(ResetReason::LocalConnectionFailure, "QUIC_PACKET_WRITE_ERROR")
    }

    #[test]
    fn tcp_starts_once() {
        let mut race = Race::new();
        assert_eq!(race.handle_delay(), Next::StartTcp);
        assert_eq!(race.handle_delay(), Next::Wait);
        assert_eq!(race.handle_tcp_won(), QuicThen::Runs);
        assert_eq!(race.handle_quic_failed(unreachable()), Next::Wait);
        assert_eq!(race.handle_tcp_won(), QuicThen::Broken);
    }

    #[test]
    fn a_failure_of_quic_starts_tcp_at_once() {
        let mut race = Race::new();
        assert_eq!(race.handle_quic_failed(unreachable()), Next::StartTcp);
        assert_eq!(race.handle_tcp_won(), QuicThen::Broken);
        assert_eq!(race.handle_tcp_failed(refused()), Next::Fail(refused()));
    }

    #[test]
    fn the_last_failure_is_told_with_that_of_tcp() {
        let mut race = Race::new();
        race.handle_delay();
        assert_eq!(race.handle_tcp_failed(refused()), Next::Wait);
        let timeout =
            failure(ResetReason::ConnectionTimeout, "QUIC_NO_ERROR_with_details:_Closed_by_application");
        let text = "QUIC_NO_ERROR_with_details:_Closed_by_application_(with_earlier_attempt_failure_reason_2,_TCP:_delayed_connect_error:_Connection_refused)";
        assert_eq!(
            race.handle_quic_failed(timeout),
            Next::Fail(failure(ResetReason::ConnectionTimeout, text))
        );
    }

    #[test]
    fn a_limit_does_not_break_quic() {
        let mut race = Race::new();
        assert_eq!(race.handle_quic_failed(PoolError::Overflow), Next::StartTcp);
        assert_eq!(race.handle_tcp_won(), QuicThen::Runs);
        assert_eq!(race.handle_tcp_failed(PoolError::Overflow), Next::Fail(PoolError::Overflow));
    }
}
