//! Retries that need no configuration: a reused connection that the upstream was just closing.
//!
//! Tidegate's deviation 7 from Envoy: what provably was not processed goes again whatever its method,
//! what was written on a reused connection goes again when its method is idempotent (RFC 9110 §9.2.2,
//! RFC 9112 §9.3.1). `--envoy-strict` does not ask here.

use http::Method;
use tidegate_types::ResetReason;

/// What is known about the connection under a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// On a new connection: its failure is no accident of reuse.
    New,
    /// On a connection that had served before, which ended before anything of the request was written.
    ReusedUnwritten,
    /// On a connection that had served before; bytes were written and not a byte of a response came.
    ReusedWritten,
    /// Some of the response came.
    Answered,
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
pub enum ReuseRetry {
    /// Ask the retry policy as for any failure.
    No,
    /// Send it again at once; does not count against `num_retries`.
    Again,
}

/// Decides about one failed try. `seen` is how many reuse failures this request has had: connections of
/// a host that restarts fail one after the other, so the caller asks for a new connection then.
pub fn decide(
    method: &Method,
    reason: ResetReason,
    attempt: Attempt,
    replay: Replay,
    seen: u32,
) -> ReuseRetry {
    if replay == Replay::Impossible || seen >= MAX_REUSE_RETRIES {
        return ReuseRetry::No;
    }
    let again = match (reason, attempt) {
        // The peer's own word that it did not process it (RFC 9113 §8.7), on any connection.
        (ResetReason::RemoteRefused, Attempt::New | Attempt::ReusedUnwritten | Attempt::ReusedWritten) => {
            true
        }
        (ResetReason::ConnectionTermination, Attempt::ReusedUnwritten) => true,
        (ResetReason::ConnectionTermination, Attempt::ReusedWritten) => method.is_idempotent(),
        _ => false,
    };
    if again { ReuseRetry::Again } else { ReuseRetry::No }
}

/// Bounds the extra tries of one request: what stops a peer that refuses every stream from keeping a
/// request in a loop. Two stale connections in a row are chance, three are the host's state.
pub const MAX_REUSE_RETRIES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn again(method: Method, reason: ResetReason, attempt: Attempt) -> bool {
        decide(&method, reason, attempt, Replay::Possible, 0) == ReuseRetry::Again
    }

    #[test]
    fn proof_decides() {
        let end = ResetReason::ConnectionTermination;
        assert!(again(Method::POST, end, Attempt::ReusedUnwritten));
        assert!(again(Method::GET, end, Attempt::ReusedWritten));
        assert!(again(Method::DELETE, end, Attempt::ReusedWritten));
        assert!(!again(Method::POST, end, Attempt::ReusedWritten));
        assert!(!again(Method::GET, end, Attempt::New));
        assert!(!again(Method::GET, end, Attempt::Answered));
        assert!(again(Method::POST, ResetReason::RemoteRefused, Attempt::New));
        assert!(!again(Method::GET, ResetReason::RemoteReset, Attempt::ReusedWritten));
    }

    #[test]
    fn nothing_is_sent_twice_that_is_gone_and_nothing_forever() {
        let end = ResetReason::ConnectionTermination;
        let gone = decide(&Method::GET, end, Attempt::ReusedWritten, Replay::Impossible, 0);
        let often = decide(&Method::GET, end, Attempt::ReusedWritten, Replay::Possible, MAX_REUSE_RETRIES);
        assert_eq!((gone, often), (ReuseRetry::No, ReuseRetry::No));
    }
}
