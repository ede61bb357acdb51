//! Retries that need no configuration: what provably was not processed goes again whatever its method; what
//! was written on a reused connection, and got no byte of an answer, goes again when its method is
//! idempotent (RFC 9110 §9.2.2, RFC 9112 §9.3.1).
//!
//! Tidegate's deviations 7 and 8 from Envoy; `--envoy-strict` does not ask here. One such retry a request,
//! on a new connection: the caller keeps count, and asks the circuit breaker. A dial that failed is not
//! this case. Start with [`judge`].

use http::Method;
use tidegate_cluster::PoolError;
use tidegate_cluster::stream::{ResetCode, StreamError};

/// What is known of a request whose attempt failed on an established connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing of it was handed to the socket.
    Unwritten,
    /// The peer's own word that it did not process it (RFC 9113 §6.8, §8.7).
    Refused,
    /// Bytes were written on a connection that had served before, and the connection ended without a byte
    /// of an answer: perhaps it was idle too long for the peer.
    Stale,
    /// Anything else: it may have been processed.
    Unknown,
}

/// What the connection tells of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Nothing of the request was handed to the socket.
    pub unwritten: bool,
    /// The connection had carried an exchange before.
    pub reused: bool,
    /// Some of an answer came, a 1xx head for instance.
    pub answered: bool,
}

impl Fate {
    /// What `error` and the connection say together.
    pub fn of(error: &StreamError, trace: Trace) -> Self {
        match error {
            _ if trace.answered => Self::Unknown,
            StreamError::Reset { code: ResetCode::Refused, .. } => Self::Refused,
            // Bytes that are no HTTP are an answer of sorts, and would come again.
            StreamError::Protocol { .. } | StreamError::Truncated => Self::Unknown,
            StreamError::Closed | StreamError::Io(_) | StreamError::Reset { .. } if trace.unwritten => {
                Self::Unwritten
            }
            StreamError::Closed | StreamError::Io(_) if trace.reused => Self::Stale,
            StreamError::Closed | StreamError::Io(_) | StreamError::Reset { .. } => Self::Unknown,
        }
    }
}

impl From<&PoolError> for Fate {
    /// Of a request that got no connection: a dial that failed is none of ours, and limits are to be heeded.
    fn from(error: &PoolError) -> Self {
        match error {
            PoolError::Lost => Self::Unwritten,
            PoolError::Connect { .. }
            | PoolError::Overflow
            | PoolError::RequestOverflow
            | PoolError::PoolOverflow
            | PoolError::ConnectionOverflow => Self::Unknown,
        }
    }
}

/// Whether a request can be sent again as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Its head and all of its body that was read are still there.
    Possible,
    /// Body bytes are gone.
    Impossible,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not a case of this module.
    Unconcerned,
    /// Send it again, if the circuit breaker for retries lets it.
    Again,
    /// It may have been processed, and twice is not the same as once.
    DeniedByMethod,
    /// Body bytes are gone.
    DeniedByBody,
}

/// Judges one failed attempt.
pub fn judge(method: &Method, fate: Fate, replay: Replay) -> Verdict {
    match (fate, replay) {
        (Fate::Unknown, _) => Verdict::Unconcerned,
        (Fate::Stale, _) if !method.is_idempotent() => Verdict::DeniedByMethod,
        (_, Replay::Impossible) => Verdict::DeniedByBody,
        (Fate::Unwritten | Fate::Refused | Fate::Stale, Replay::Possible) => Verdict::Again,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Trace = Trace { unwritten: false, reused: true, answered: false };

    fn judged(method: Method, error: StreamError, trace: Trace) -> Verdict {
        judge(&method, Fate::of(&error, trace), Replay::Possible)
    }

    fn broken() -> StreamError {
        StreamError::Io(std::io::ErrorKind::ConnectionReset.into())
    }

    fn reset(code: ResetCode) -> StreamError {
        StreamError::Reset { code, by_peer: true }
    }

    #[test]
    fn what_was_not_written_goes_again_whatever_its_method() {
        for reused in [true, false] {
            let trace = Trace { unwritten: true, reused, answered: false };
            assert_eq!(judged(Method::POST, StreamError::Closed, trace), Verdict::Again);
            assert_eq!(judged(Method::POST, broken(), trace), Verdict::Again);
            let nonsense = StreamError::Protocol { details: "http1.codec_error" };
            assert_eq!(judged(Method::GET, nonsense, trace), Verdict::Unconcerned);
        }
    }

    #[test]
    fn what_lost_its_connection_before_it_could_use_it_goes_again() {
        let of = |error| judge(&Method::POST, Fate::from(&error), Replay::Possible);
        assert_eq!(of(PoolError::Lost), Verdict::Again);
        let reason = tidegate_types::ResetReason::RemoteConnectionFailure;
        for error in [PoolError::Overflow, PoolError::Connect { reason, transport: None }] {
            assert_eq!(of(error), Verdict::Unconcerned);
        }
    }

    #[test]
    fn what_was_refused_goes_again_whatever_its_method() {
        for reused in [true, false] {
            let trace = Trace { reused, ..STALE };
            assert_eq!(judged(Method::POST, reset(ResetCode::Refused), trace), Verdict::Again);
            assert_eq!(judged(Method::GET, reset(ResetCode::Cancel), trace), Verdict::Unconcerned);
        }
    }

    #[test]
    fn what_was_written_on_a_reused_connection_goes_again_if_idempotent() {
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE]
        {
            assert_eq!(judged(method.clone(), StreamError::Closed, STALE), Verdict::Again);
            assert_eq!(judged(method, broken(), STALE), Verdict::Again);
        }
        for method in [Method::POST, Method::PATCH, Method::CONNECT] {
            assert_eq!(judged(method, broken(), STALE), Verdict::DeniedByMethod);
        }
        let new = Trace { reused: false, ..STALE };
        assert_eq!(judged(Method::GET, broken(), new), Verdict::Unconcerned);
    }

    #[test]
    fn an_answer_or_lost_bytes_forbid_it() {
        let answered = Trace { answered: true, ..STALE };
        assert_eq!(judged(Method::GET, StreamError::Closed, answered), Verdict::Unconcerned);
        assert_eq!(judged(Method::GET, StreamError::Truncated, STALE), Verdict::Unconcerned);
        assert_eq!(judge(&Method::GET, Fate::Stale, Replay::Impossible), Verdict::DeniedByBody);
        assert_eq!(judge(&Method::POST, Fate::Refused, Replay::Impossible), Verdict::DeniedByBody);
    }
}
