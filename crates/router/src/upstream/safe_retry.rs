//! One retry that no policy asks for, if the request provably was not processed or may be processed twice
//! (deviations, rows 7 and 8). What decides is [`crate::retry::safe`]; here are its settings, its counters
//! and the circuit breaker.

use std::cell::Cell;

use http::header::CONTENT_LENGTH;
use tidegate_cluster::Care;
use tidegate_cluster::stream::StreamError;

use super::carrier::Carrier;
use super::outcome::Failure;
use super::{RequestBody, RequestFacts, Upstream};
use crate::retry::safe::{self, Fate, Replay, Trace, Verdict};

/// A request's one safe retry.
#[derive(Debug)]
pub(super) struct SafeRetry {
    allowed: bool,
    /// Bytes of a body that may be sent again.
    pub(super) buffer: usize,
    state: Cell<State>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unused,
    /// The attempt under way is the retry, which asks this of its connection.
    UnderWay(Care),
    Used,
}

impl SafeRetry {
    pub(super) fn new(facts: &RequestFacts<'_>) -> Self {
        let of_cluster = &facts.cluster.config().reuse;
        let of_route = facts.route.forward().and_then(|forward| forward.safe_retry);
        Self {
            allowed: !facts.compat.is_strict() && of_route.unwrap_or(of_cluster.safe_retry),
            buffer: of_cluster.replay_buffer_bytes as usize,
            state: Cell::default(),
        }
    }

    /// Bytes to keep of a body on its behalf.
    pub(super) fn kept_bytes(&self) -> usize {
        if self.allowed { self.buffer } else { 0 }
    }
}

impl Upstream<'_> {
    /// What the next attempt asks of its connection.
    pub(super) fn care(&self) -> Care {
        match self.safe.state.get() {
            _ if !self.safe.allowed => Care::Any,
            State::UnderWay(care) => care,
            State::Unused | State::Used if self.is_repeatable() => Care::Any,
            State::Unused | State::Used => Care::Fresh,
        }
    }

    /// Whether the request may go twice, as far as can be told before its body came.
    fn is_repeatable(&self) -> bool {
        let Some(head) = self.stream.request() else { return false };
        let fits = || {
            let length = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            length.is_none_or(|length: usize| length <= self.safe.buffer)
        };
        head.method.is_idempotent() && (self.facts.body == RequestBody::None || fits())
    }

    /// What became of the request when its stream failed before a response.
    pub(super) fn fate(&self, lease: &mut Carrier, error: &StreamError) -> Fate {
        let (unwritten, reused) = (lease.stream().is_unwritten(), lease.is_reused());
        Fate::of(error, Trace { unwritten, reused, answered: self.answered.get() })
    }

    /// Whether the failed attempt is made good. One that is not, and might have been with another method or
    /// body, is told as what it is.
    pub(super) fn safe_retry(&self, failure: &mut Failure) -> bool {
        let Failure::Reset { fate, .. } = *failure else { return false };
        if !self.safe.allowed || fate == Fate::Unknown {
            return false;
        }
        let again = self.safe.state.get() == State::Unused && self.may_go_again(fate);
        if again {
            let care = match fate {
                // What refused a stream is there, or told that it goes: any other place will do.
                Fate::Refused => Care::Fresh,
                // Other idle connections are as likely to fail as the one that did, and this is the last chance.
                Fate::Unwritten | Fate::Stale | Fate::Unknown => Care::New,
            };
            self.safe.state.set(State::UnderWay(care));
            self.facts.cluster.stats().router.upstream_rq_safe_retry().inc();
        } else {
            self.safe.state.set(State::Used);
            if fate == Fate::Stale {
                *failure = Failure::Stale;
            }
        }
        again
    }

    fn may_go_again(&self, fate: Fate) -> bool {
        let Some(head) = self.stream.request() else { return false };
        let replay = match self.replay.borrow().fits(self.safe.buffer) {
            true => Replay::Possible,
            false => Replay::Impossible,
        };
        let stats = &self.facts.cluster.stats().router;
        match safe::judge(&head.method, fate, replay) {
            Verdict::Unconcerned => false,
            Verdict::DeniedByMethod => {
                stats.upstream_rq_safe_retry_denied_method().inc();
                false
            }
            Verdict::DeniedByBody => {
                stats.upstream_rq_safe_retry_denied_body().inc();
                false
            }
            Verdict::Again => {
                let permit = self.facts.cluster.reserve_retry(self.facts.priority, self.now());
                if permit.is_none() {
                    stats.upstream_rq_safe_retry_denied_limit().inc();
                }
                let granted = permit.is_some();
                *self.retry_permit.borrow_mut() = permit;
                granted
            }
        }
    }

    /// The attempt under way has an answer, or none.
    pub(super) fn safe_retry_ended(&self, answered: bool) {
        if matches!(self.safe.state.get(), State::UnderWay(_)) {
            self.safe.state.set(State::Used);
            if answered {
                self.facts.cluster.stats().router.upstream_rq_safe_retry_success().inc();
            }
        }
    }
}
