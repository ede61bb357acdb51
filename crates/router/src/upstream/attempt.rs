//! One attempt: a host, a connection, the head up, the head down; and whether another one follows.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::SET_COOKIE;
use http::{HeaderName, HeaderValue};
use tidegate_cluster::judged::Verdict;
use tidegate_cluster::stream::{BodyFrame, ClientStream, ResponseFrame};
use tidegate_cluster::{Ask, Failed, Host, HostStat, PoolError};
use tidegate_config::hcm::SchemeTransformation;
use tidegate_types::{
    EndStream, RequestHead, ResetReason, ResponseFlags, ResponseHead, Scheme, UpstreamInfo,
};

use super::carrier::{Carrier, Waiting};
use super::deadlines::RouterTimeout;
use super::outcome::Failure;
use super::{RequestBody, RequestFacts, Upstream, UpstreamHead};
use crate::retry::safe::Fate;
use crate::retry::{Decision, Outcome, Pace, RequestSent};
use crate::route::EnvoyHeaders;

/// Bytes of a retried response that are read so that its connection can be used again, and how long that
/// may take (deviations, row 16).
const DISCARD_BYTES: usize = 64 * 1024;
const DISCARD_TIME: Duration = Duration::from_millis(100);

/// `x-envoy-attempt-count`.
pub(super) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// `x-envoy-is-timeout-retry`.
pub(super) const IS_TIMEOUT_RETRY: HeaderName = HeaderName::from_static("x-envoy-is-timeout-retry");
/// `x-envoy-upstream-service-time`.
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// What a response means for the attempts to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is what the client gets.
    Accepted,
    /// It gives way to another attempt, after this time.
    Again(Duration),
    /// It would, if another attempt were allowed.
    Denied,
}

impl Upstream<'_> {
    /// Chooses a host, takes a connection and sends the head and whatever of the body was sent before.
    pub(super) async fn begin_attempt(&self) -> Result<(), Failure> {
        let info = self.stream.info();
        info.attempts.set(info.attempts.get() + 1);
        self.deadlines.attempt_begins();
        self.judged_late.set(false);
        let cluster = &self.facts.cluster;
        let host = self.choose_host().ok_or(Failure::NoHost)?;
        *self.host.borrow_mut() = Some(host.clone());
        if info.attempts.get() == 1 && self.facts.scheme == SchemeTransformation::MatchUpstream {
            self.match_scheme(&host);
        }
        self.tally.replace(self.measure(&host));
        let ask = Ask {
            priority: self.facts.priority,
            now: self.now(),
            downstream: info.protocol.get(),
            care: self.care(),
            ways: self.ways.get(),
            options: self.transport_options(&host),
            connection: Some(info.connection.id),
        };
        let mut acquire = Waiting::begin(cluster, &host, ask, self.facts.tunnel);
        let mut waits = false;
        let lease = poll_fn(|cx| {
            if let Some(timeout) = self.deadlines.take_fired() {
                return Poll::Ready(Err(Failure::Timeout(timeout)));
            }
            let lease = Pin::new(&mut acquire).poll(cx);
            if lease.is_pending() && !std::mem::replace(&mut waits, true) {
                // Whoever ends the stream while it waits finds the host named.
                *info.upstream.borrow_mut() = Some(unreached(&host));
            }
            lease.map(|lease| lease.map_err(|error| self.pool_failure(&host, &error)))
        })
        .await;
        let mut lease = lease?;
        host.judge(Verdict::Connected);
        self.facts.groups.each(|group| group.stats.upstream_rq_total().inc());
        *info.upstream.borrow_mut() = Some(lease.describe(&host));
        let now = self.now();
        self.deadlines.attached(now, self.request_complete.get().is_some());
        if info.first_upstream_tx.get().is_none() {
            info.first_upstream_tx.set(Some(self.facts.clock.elapsed()));
        }
        if let Some(head) = self.stream.request() {
            let end = EndStream::from_last(self.facts.body == RequestBody::None);
            lease.stream().send_head(&self.head_for_attempt(head, &host), end);
        }
        let tally = self.tally.borrow();
        self.replay.borrow().frames().for_each(|frame| {
            if let Some(tally) = tally.as_ref() {
                tally.sent(&frame);
            }
            send_frame(lease.stream(), frame);
        });
        drop(tally);
        *self.lease.borrow_mut() = Some(lease);
        self.write_failed.set(false);
        self.answered.set(false);
        Ok(())
    }

    /// The scheme goes by the host that is asked first; as in Envoy, the attempts that follow keep it, and copies
    /// have it as well.
    fn match_scheme(&self, host: &Host) {
        let scheme = Scheme::of_connection(self.facts.cluster.socket_of(host).tls().is_some());
        if self.stream.request().is_some_and(|head| head.scheme != scheme) {
            self.stream.info().upstream_scheme.set(Some(scheme));
            self.facts.copies.borrow_mut().iter_mut().for_each(|copy| copy.head.scheme = scheme);
        }
    }

    fn pool_failure(&self, host: &Host, error: &PoolError) -> Failure {
        let info = self.stream.info();
        // A stream that was not let into the queue has no upstream; one that failed to connect has, and so has one
        // that a connection stood ready for.
        *info.upstream.borrow_mut() = error.reached_host().then(|| unreached(host));
        match error {
            PoolError::PoolOverflow => return Failure::NoHost,
            PoolError::RequestOverflow => self.count_host(HostStat::RqError),
            _ => {}
        }
        let transport = error.transport_failure().map(str::to_owned);
        info.upstream_transport_failure.borrow_mut().clone_from(&transport);
        Failure::Reset { reason: error.reason(), transport, fate: Fate::from(error) }
    }

    /// Waits for a response head on the attempt's connection.
    pub(super) async fn await_head(&self) -> Result<UpstreamHead, Failure> {
        let mut how = None;
        let frame = poll_fn(|cx| {
            if let Some(timeout) = self.deadlines.take_fired() {
                return Poll::Ready(Err(Failure::Timeout(timeout)));
            }
            let mut lease = self.lease.borrow_mut();
            let Some(lease) = lease.as_mut() else { return Poll::Ready(Err(Failure::NoHost)) };
            // Whoever polls this writes afterwards ([`Upstream::poll_request_flush`]): the head leaves together
            // with the body's first bytes. A failure to write is told by what can be read: perhaps the upstream
            // answered first.
            Poll::Ready(ready!(lease.stream().poll_head(cx)).map_err(|error| {
                // An interim response is whole: a close after it cuts no message.
                how = Some(Failed::of(&error, false));
                let said = lease.stream().failure_details();
                Failure::of_stream(&error).with_fate(self.fate(lease, &error)).with_transport(said)
            }))
        })
        .await;
        match frame {
            Ok(ResponseFrame::Informational(head)) => {
                self.answered.set(true);
                Ok(UpstreamHead::Informational(head))
            }
            Ok(ResponseFrame::Head(head, end)) => {
                if let Some(tally) = self.tally.borrow().as_ref() {
                    tally.answered(&head);
                }
                self.judge_answer(&head);
                Ok(UpstreamHead::Final(head, end))
            }
            Err(failure) => {
                if let Some(how) = how {
                    self.give_up_lease(how);
                }
                Err(failure)
            }
        }
    }

    /// The attempt's connection failed.
    pub(super) fn give_up_lease(&self, how: Failed) {
        if let Some(lease) = self.lease.borrow_mut().take() {
            lease.failed(how);
        }
    }

    /// A deadline passed, the router's or another one: the connection under the request is closed for it.
    pub fn out_of_time(&self) {
        self.end_attempt();
        self.rivals.out_of_time();
    }

    /// The latest attempt's time is over: closed by us with a request on it.
    fn end_attempt(&self) {
        self.tally.take();
        if let Some(lease) = self.lease.borrow_mut().take() {
            lease.failed(Failed::TimedOut);
        }
    }

    /// Passes the head on: no attempt follows.
    pub(super) fn accept(&self, mut head: ResponseHead, end: EndStream) -> UpstreamHead {
        let now = self.now();
        self.response_began.set(true);
        self.rivals.clear();
        self.deadlines.response_began();
        self.deadlines.touch(now);
        if self.facts.copies.borrow().is_empty() {
            self.replay.borrow_mut().stop();
        }
        let info = self.stream.info();
        info.first_upstream_rx.set(Some(self.facts.clock.elapsed()));
        // Envoy 1.40 names no time for a response that outran its request.
        if self.facts.envoy == EnvoyHeaders::Add && self.request_complete.get().is_some() {
            let ms = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
            head.headers.insert(SERVICE_TIME, crate::number::value(ms));
        }
        if self.facts.attempt_headers.in_response {
            head.headers.insert(ATTEMPT_COUNT, HeaderValue::from(info.attempts.get()));
        }
        for cookie in self.selection.take_cookies() {
            head.headers.append(SET_COOKIE, cookie);
        }
        self.safe_retry_ended(true);
        self.count_accepted(&head, end);
        UpstreamHead::Final(head, end)
    }

    /// What a response means for the attempts to come.
    pub(super) fn judge_response(&self, head: &ResponseHead, end: EndStream) -> Judgement {
        if end.is_end() && self.facts.retries.borrow().is_some() {
            self.release_stream();
        }
        let judgement = self.decide(Outcome::Response(head));
        if matches!(judgement, Judgement::Again(_)) {
            self.count_retried_response(head);
            self.was_late.set(false);
        }
        judgement
    }

    /// A stream among others that has ended: as in Envoy it counts no more when a retry budget is asked.
    fn release_stream(&self) {
        let mut lease = self.lease.borrow_mut();
        if lease.as_ref().is_some_and(Carrier::is_multiplexed)
            && let Some(lease) = lease.take()
        {
            lease.finish();
        }
    }

    /// Whether a failed attempt is followed by another.
    pub(super) fn retry_failure(&self, failure: &mut Failure) -> Option<Duration> {
        self.count_failure(failure);
        self.was_late.set(matches!(failure, Failure::Timeout(_)));
        self.safe_retry_ended(false);
        self.end_attempt();
        if self.safe_retry(failure) {
            return Some(Duration::ZERO);
        }
        let outcome = match failure {
            Failure::NoHost | Failure::Timeout(RouterTimeout::Route | RouterTimeout::MaxStreamDuration) => {
                return None;
            }
            Failure::Timeout(RouterTimeout::PerTry | RouterTimeout::PerTryIdle) => Outcome::PerTryTimeout,
            Failure::Reset { reason, fate, .. } => {
                let unsent = reason.is_connect_failure() || *fate == Fate::Unwritten;
                let request = if unsent { RequestSent::No } else { RequestSent::Yes };
                Outcome::Reset { reason: *reason, request }
            }
            Failure::Stale => {
                let reason = ResetReason::ConnectionTermination;
                Outcome::Reset { reason, request: RequestSent::Yes }
            }
        };
        match self.decide(outcome) {
            Judgement::Again(wait) => Some(wait),
            Judgement::Accepted | Judgement::Denied => None,
        }
    }

    fn decide(&self, outcome: Outcome<'_>) -> Judgement {
        let (decision, made, pace) = match self.facts.retries.borrow_mut().as_mut() {
            Some(state) => {
                let unix_now =
                    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                let decision = state.should_retry(outcome, fastrand::u64(..), unix_now);
                (decision, state.retries(), state.last_pace())
            }
            None => return Judgement::Accepted,
        };
        let stats = &self.facts.cluster.stats().router;
        if decision == Decision::No {
            if made > 0 {
                stats.upstream_rq_retry_success().inc();
                self.facts.groups.each(|group| group.stats.upstream_rq_retry_success().inc());
            }
            return Judgement::Accepted;
        }
        match self.granted(decision, pace) {
            Some(wait) => Judgement::Again(wait),
            None => Judgement::Denied,
        }
    }

    /// The time to wait before the retry that was decided on, if the body and the circuit breaker allow it.
    pub(super) fn granted(&self, decision: Decision, pace: Pace) -> Option<Duration> {
        let stats = &self.facts.cluster.stats().router;
        let wait = match decision {
            Decision::No => return None,
            Decision::LimitExceeded => {
                stats.upstream_rq_retry_limit_exceeded().inc();
                self.facts.groups.each(|group| group.stats.upstream_rq_retry_limit_exceeded().inc());
                self.stream.info().flag(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
                return None;
            }
            Decision::After(wait) => wait,
        };
        if !self.replay.borrow().fits(self.facts.replay_limit) {
            return None;
        }
        let Some(permit) = self.facts.cluster.reserve_retry(self.facts.priority, self.now()) else {
            stats.upstream_rq_retry_overflow().inc();
            self.facts.groups.each(|group| group.stats.upstream_rq_retry_overflow().inc());
            self.stream.info().flag(ResponseFlags::UPSTREAM_OVERFLOW);
            return None;
        };
        if let Some(state) = self.facts.retries.borrow_mut().as_mut() {
            state.handle_granted();
        }
        // Held while the retry waits and runs.
        *self.retry_permit.borrow_mut() = Some(permit);
        self.due_retry.set(Some(pace));
        Some(wait)
    }

    /// Reads a response that is not passed on to its end, within bounds, so that its connection lives. One among
    /// others costs no connection: what has not come of it is refused.
    pub(super) async fn discard_response(&self, end: EndStream) {
        self.tally.take();
        let Some(mut lease) = self.lease.borrow_mut().take() else { return };
        let time = if lease.is_multiplexed() { Duration::ZERO } else { DISCARD_TIME };
        if end.is_end() || discard(&mut lease, time).await {
            lease.finish();
        }
    }
}

/// What is known of an upstream that no connection was made to.
fn unreached(host: &Host) -> UpstreamInfo {
    UpstreamInfo {
        host: host.address(),
        remote_address: None,
        local_address: None,
        connection_id: None,
        protocol: None,
        tls: None,
    }
}

/// Whether the rest of the response could be read within the bounds.
async fn discard(lease: &mut Carrier, time: Duration) -> bool {
    let whole = async {
        let mut read = 0;
        loop {
            match poll_fn(|cx| lease.stream().poll_body(cx)).await {
                Ok(BodyFrame::Data(data, end)) => {
                    read += data.len();
                    if end.is_end() || read > DISCARD_BYTES {
                        return end.is_end();
                    }
                }
                Ok(BodyFrame::Trailers(_)) => return true,
                Err(_) => return false,
            }
        }
    };
    tokio::time::timeout(time, whole).await.unwrap_or(false)
}

pub(crate) fn send_frame(stream: &mut dyn ClientStream, frame: BodyFrame) {
    match frame {
        BodyFrame::Data(data, end) => stream.send_data(data, end),
        BodyFrame::Trailers(trailers) => stream.send_trailers(&trailers),
    }
}

/// Adds what differs between attempts; borrows when nothing does.
pub(super) fn with_attempt_headers<'h>(
    head: &'h RequestHead,
    facts: &RequestFacts<'_>,
    host: &Host,
    attempt: u32,
    elapsed: impl FnOnce() -> Duration,
) -> Cow<'h, RequestHead> {
    let named = facts.route.rewrites_host_automatically().then(|| host.attributes());
    let named = named.filter(|attributes| !attributes.hostname.is_empty());
    if attempt <= 1 && named.is_none() {
        return Cow::Borrowed(head);
    }
    let mut head = head.clone();
    if let Some(named) = named {
        let name = bytes::Bytes::copy_from_slice(named.hostname.as_bytes());
        facts.route.rewrite_host(&mut head, name, facts.envoy);
    }
    if attempt <= 1 {
        return Cow::Owned(head);
    }
    if facts.attempt_headers.in_request {
        head.headers.insert(ATTEMPT_COUNT, HeaderValue::from(attempt));
    }
    let elapsed = elapsed();
    if facts.envoy == EnvoyHeaders::Add {
        facts.timeouts.write_expected(elapsed, &mut head.headers);
    }
    facts.timeouts.write_grpc(elapsed, &mut head.headers);
    Cow::Owned(head)
}
