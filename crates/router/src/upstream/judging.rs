//! What outlier detection is told of each attempt (Envoy docs, "Outlier detection"), and active health checks of
//! answers that say that their host fails.
//!
//! Answers are told by their heads, also those that give way to a retry. A limit of ours that refuses a request, and
//! the stream's own longest duration, say nothing of a host.

use http::{HeaderMap, HeaderName};
use tidegate_cluster::Host;
use tidegate_cluster::judged::Verdict;
use tidegate_types::{ResetReason, ResponseHead};

use super::Upstream;
use super::deadlines::RouterTimeout;
use super::outcome::Failure;
use crate::timeout::LateAnswer;

impl Upstream<'_> {
    /// The latest attempt's host answered.
    pub(super) fn judge_answer(&self, head: &ResponseHead) {
        if let Some(host) = self.host.borrow().as_ref() {
            self.judge_answer_of(host, head);
        }
    }

    /// A host answered.
    pub(super) fn judge_answer_of(&self, host: &Host, head: &ResponseHead) {
        let cluster = self.facts.cluster.shared();
        if cluster.config().is_checked() && head.headers.contains_key(FAILS) {
            cluster.host_says_it_fails(host.shared());
        }
        if !host.is_judged() {
            return;
        }
        let by_grpc = if self.is_grpc { grpc_status(&head.headers) } else { None };
        host.judge(Verdict::Answer(by_grpc.unwrap_or(head.status.as_u16())));
        if host.hears_degraded() && head.headers.contains_key(DEGRADED) {
            host.said_degraded();
        }
    }

    /// The latest attempt ended without an answer.
    pub(super) fn judge_failure(&self, failure: &Failure) {
        match failure {
            Failure::NoHost | Failure::Reset { reason: ResetReason::Overflow, .. } => {}
            Failure::Reset { .. } | Failure::Stale => self.judge(Verdict::Failed),
            Failure::Timeout(timeout) => self.judge_lateness(*timeout),
        }
    }

    /// An answer was cut. The route's time, which is the client's, is no fault of a host that has begun to answer.
    pub(super) fn judge_cut(&self, failure: &Failure) {
        if !matches!(failure, Failure::Timeout(RouterTimeout::Route)) {
            self.judge_failure(failure);
        }
    }

    /// A time is over; one that waits for a connection has no host yet, as far as Envoy knows.
    pub(super) fn judge_lateness(&self, timeout: RouterTimeout) {
        if timeout != RouterTimeout::MaxStreamDuration && self.lease.borrow().is_some() {
            let status = match self.facts.timeouts.late {
                LateAnswer::GatewayTimeout => 504,
                LateAnswer::NoContent => 204,
            };
            self.judge(Verdict::TimedOut(status));
            self.judged_late.set(true);
        }
    }

    /// An attempt that was late once, and goes on beside others, is not blamed again.
    fn judge(&self, verdict: Verdict) {
        if let Some(host) = self.host.borrow().as_ref()
            && !self.judged_late.get()
        {
            host.judge(verdict);
        }
    }
}

/// The HTTP status that a `grpc-status` stands for; `None` where there is none, as in most heads.
fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    let status = headers.get(GRPC_STATUS)?.to_str().ok()?.parse::<u32>();
    Some(match status {
        Ok(0) => 200,
        Ok(1) => 499,
        Ok(3 | 9 | 11) => 400,
        Ok(4) => 504,
        Ok(5) => 404,
        Ok(6 | 10) => 409,
        Ok(7) => 403,
        Ok(8) => 429,
        Ok(12) => 501,
        Ok(14) => 503,
        Ok(16) => 401,
        Ok(_) | Err(_) => 500,
    })
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");
const FAILS: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_statuses_stand_for_http_statuses() {
        let of = |status| {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_STATUS, HeaderValue::from_static(status));
            grpc_status(&headers)
        };
        for (status, http) in [("0", 200), ("2", 500), ("4", 504), ("14", 503), ("13", 500), ("16", 401)] {
            assert_eq!(of(status), Some(http), "{status}");
        }
        assert_eq!((of("99"), of("x"), grpc_status(&HeaderMap::new())), (Some(500), Some(500), None));
    }
}
