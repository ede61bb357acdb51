//! Attempts that go on beside the latest one (`hedge_policy.hedge_on_per_try_timeout`): the first good response wins,
//! the others are reset.
//!
//! As in Envoy an attempt whose `per_try_timeout` passed is joined by another one whatever `retry_on` says, as long as
//! retries are left; a response that the policy would rather replace waits for the others' answers.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use tidegate_cluster::stream::ResponseFrame;
use tidegate_cluster::{Failed, Host, HostStat};
use tidegate_types::{EndStream, ResponseHead, UpstreamInfo};

use super::carrier::Carrier;
use super::deadlines::RouterTimeout;
use super::outcome::Failure;
use super::tally::Tally;
use super::{Upstream, UpstreamHead};
use crate::retry::{Decision, Pace};
use crate::timeout::Hedge;

/// The attempts beside the latest.
#[derive(Default)]
pub(super) struct Rivals<'r> {
    list: RefCell<Vec<Rival<'r>>>,
    /// The latest attempt has failed for good: they are all that is left.
    awaited: Cell<bool>,
    last_failure: RefCell<Option<Box<Failure>>>,
}

/// An attempt whose time is over.
struct Rival<'r> {
    lease: Carrier,
    tally: Option<Box<Tally<'r>>>,
    host: Rc<Host>,
    upstream: Option<UpstreamInfo>,
}

/// A rival that answered first, and its answer.
type Winner<'r> = Box<(Rival<'r>, ResponseHead, EndStream)>;

impl Rivals<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// Resets them all.
    pub(super) fn clear(&self) {
        if !self.is_empty() {
            self.list.borrow_mut().clear();
        }
    }

    /// A deadline passed: they end with it. Returns their hosts.
    pub(super) fn out_of_time(&self) -> Vec<Rc<Host>> {
        let ended = self.list.take().into_iter().map(|rival| {
            if let Some(tally) = &rival.tally {
                tally.out_of_time();
            }
            rival.lease.failed(Failed::TimedOut);
            rival.host
        });
        ended.collect()
    }

    /// Writes what is left of their requests.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) {
        for rival in self.list.borrow_mut().iter_mut() {
            // A failure shows in the response.
            let _ = rival.lease.stream().poll_flush(cx);
        }
    }
}

impl<'r> Upstream<'r> {
    /// Whether attempts outlive their `per_try_timeout`.
    pub(super) fn hedges(&self) -> bool {
        self.facts.timeouts.hedge == Hedge::OnPerTryTimeout
    }

    /// The latest attempt's time is over: it goes on alone, or as a rival of another one that is due now.
    ///
    /// # Errors
    /// The route's time is over, too.
    pub(super) async fn hedge(&self) -> Result<(), Failure> {
        self.judge_lateness(RouterTimeout::PerTry);
        let decision = match self.facts.retries.borrow_mut().as_mut() {
            Some(retries) => retries.should_hedge(fastrand::u64(..)),
            None => Decision::No,
        };
        let Some(wait) = self.granted(decision, Pace::Exponential) else { return Ok(()) };
        self.was_late.set(true);
        let (lease, host) = (self.lease.borrow_mut().take(), self.host.borrow_mut().take());
        if let (Some(lease), Some(host)) = (lease, host) {
            let upstream = self.stream.info().upstream.borrow().clone();
            let tally = self.tally.take();
            self.rivals.list.borrow_mut().push(Rival { lease, tally, host, upstream });
        }
        self.pause(wait).await
    }

    /// Polls the latest attempt and, beside it, its rivals.
    pub(super) fn poll_race<T>(
        &self,
        cx: &mut Context<'_>,
        mut latest: impl FnMut(&mut Context<'_>) -> Poll<T>,
        won: impl Fn(UpstreamHead) -> T,
    ) -> Poll<T> {
        loop {
            if let Poll::Ready(answer) = latest(cx) {
                return Poll::Ready(answer);
            }
            if self.rivals.is_empty() {
                return Poll::Pending;
            }
            match self.poll_rivals(cx) {
                Poll::Ready(Some(winner)) => return Poll::Ready(won(self.install(*winner))),
                // The latest may have waited for just that.
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The latest attempt is over with `failure`: waits for its rivals, and returns the failure to answer with once
    /// they have all failed. A rival that wins ends this from outside.
    pub(super) async fn await_rivals(&self, failure: Failure) -> Failure {
        self.rivals.awaited.set(true);
        self.deadlines.attempt_over();
        let mut last = Some(failure);
        poll_fn(|_| {
            if let Some(timeout @ RouterTimeout::Route) = self.deadlines.take_fired() {
                return Poll::Ready(Failure::Timeout(timeout));
            }
            if !self.rivals.is_empty() {
                return Poll::Pending;
            }
            let failure = self.rivals.last_failure.take().map(|failure| *failure).or_else(|| last.take());
            Poll::Ready(failure.unwrap_or(Failure::NoHost))
        })
        .await
    }

    /// The winner; `None` when the last of them has failed.
    fn poll_rivals(&self, cx: &mut Context<'_>) -> Poll<Option<Winner<'r>>> {
        let mut list = self.rivals.list.borrow_mut();
        let mut index = 0;
        while let Some(rival) = list.get_mut(index) {
            match rival.lease.stream().poll_head(cx) {
                Poll::Pending => index += 1,
                Poll::Ready(Ok(ResponseFrame::Informational(_))) => {}
                Poll::Ready(Ok(ResponseFrame::Head(head, end))) => {
                    let rival = list.swap_remove(index);
                    if let Some(tally) = &rival.tally {
                        tally.answered(&head);
                    }
                    self.judge_answer_of(&rival.host, &head);
                    let waits = !self.rivals.awaited.get() || !list.is_empty();
                    if waits
                        && self
                            .facts
                            .retries
                            .borrow()
                            .as_ref()
                            .is_some_and(|retries| retries.would_retry(&head))
                    {
                        rival.host.counters().inc(HostStat::RqError);
                        continue;
                    }
                    return Poll::Ready(Some(Box::new((rival, head, end))));
                }
                Poll::Ready(Err(error)) => {
                    let rival = list.swap_remove(index);
                    rival.host.counters().inc(HostStat::RqError);
                    rival.lease.failed(Failed::of(&error, false));
                    self.rivals.last_failure.replace(Some(Box::new(Failure::of_stream(&error))));
                }
            }
        }
        if list.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }

    /// A rival answered first: the latest attempt, and all others, are reset.
    fn install(&self, (rival, head, end): (Rival<'r>, ResponseHead, EndStream)) -> UpstreamHead {
        let latest = self.lease.borrow_mut().replace(rival.lease);
        drop(latest);
        self.tally.replace(rival.tally);
        self.host.replace(Some(rival.host));
        self.stream.info().upstream.replace(rival.upstream);
        self.write_failed.set(false);
        self.accept(head, end)
    }
}
