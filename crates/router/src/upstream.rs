//! The upstream side of one request: attempts, their timeouts and retries, and the bytes both ways.
//!
//! The connection manager pumps the request in ([`Upstream::poll_request_ready`], [`Upstream::send`]) and
//! takes the response out ([`Upstream::head`], [`Upstream::poll_body`]). Timers are the caller's: it asks
//! for [`Upstream::next_deadline`] and calls [`Upstream::deadline_passed`]. Knows no protocol version and
//! no downstream connection.

mod accounting;
mod attempt;
mod carrier;
mod deadlines;
mod grpc;
mod hedge;
mod judging;
mod outcome;
mod pressure;
mod redirected;
mod replay;
mod safe_retry;
mod selection;
mod tally;
mod transport;
mod tunnel;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Version};
use tidegate_cluster::stream::{BodyFrame, StreamError};
use tidegate_cluster::{Cluster, Failed, Host, HostStat, RetryPermit, Ways};
use tidegate_config::hcm::{SchemeTransformation, TunnelEnd};
use tidegate_filter::{LocalReply, Stream};
use tidegate_types::{CloseReason, Compat, EndStream, RequestHead, ResetReason, ResponseFlags, ResponseHead};
use tokio::time::Instant;

use crate::clock::PollClock;
use crate::group::Groups;
use crate::mirror::{Copy, Shadow};
use crate::retry::{Pace, RetryState};
use crate::route::{AttemptHeaders, EnvoyHeaders, Route};
use crate::timeout::Timeouts;
pub use accounting::refusal;
use attempt::Judgement;
pub(crate) use attempt::send_frame;
use carrier::Carrier;
use deadlines::{Deadlines, Limits, RouterTimeout};
use hedge::Rivals;
use outcome::Failure;
use pressure::Pressure;
use replay::Replay;
use safe_retry::SafeRetry;
use selection::Selection;
use tally::Tally;

/// What comes down before the body.
#[derive(Debug)]
pub enum UpstreamHead {
    /// A 1xx head other than 101.
    Informational(ResponseHead),
    /// The final head; `EndStream::Yes` if nothing follows.
    Final(ResponseHead, EndStream),
    /// A redirect that the route wants followed: the caller does ([`Upstream::redirected`]), or takes it for what goes
    /// down ([`Upstream::pass_on`]).
    Redirect(ResponseHead, EndStream),
}

/// Whether a body follows the request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// The head is the whole request.
    None,
    /// Frames will be sent.
    Follows,
}

/// What the router needs to know of a request besides its head.
pub struct RequestFacts<'r> {
    /// Where the request goes.
    pub cluster: Rc<Cluster>,
    /// The route's priority, as circuit breakers and pools know it.
    pub priority: tidegate_config::route::Priority,
    /// The request's times.
    pub timeouts: Timeouts,
    /// The route's retry policy, and what was made of it.
    pub retries: RefCell<Option<RetryState<'r>>>,
    /// Bytes of the body kept for retries when there is a policy.
    pub replay_limit: usize,
    /// The time of the current poll of the stream's task.
    pub clock: &'r PollClock,
    /// The request came from inside: response codes count as `internal.`.
    pub internal: bool,
    /// The groups of requests that this one is counted in.
    pub groups: Groups<'r>,
    /// Which attempt headers the virtual host asks for.
    pub attempt_headers: AttemptHeaders,
    /// The route, which may name the host after the upstream's.
    pub route: &'r Route,
    /// Whether `x-envoy-*` fields are added.
    pub envoy: EnvoyHeaders,
    /// Where the scheme comes from that upstreams are told.
    pub scheme: SchemeTransformation,
    /// Whether what needs no policy is retried (deviations, rows 7 and 8).
    pub compat: Compat,
    /// Whether a body follows.
    pub body: RequestBody,
    /// Where a tunnel ends.
    pub tunnel: TunnelEnd,
    /// Copies to be sent to other clusters once the request is complete.
    pub copies: RefCell<Vec<Copy>>,
}

/// Why an attempt did not bring the response that goes down.
enum Setback {
    /// It gives way to another attempt, after this time.
    Replaced(EndStream, Duration),
    /// It is none that is wanted, and other attempts still run.
    Denied(EndStream),
    /// There was none.
    Failed(Failure),
}

/// The upstream side of one request. Dropping it cancels whatever is under way.
pub struct Upstream<'r> {
    stream: Rc<Stream>,
    facts: RequestFacts<'r>,
    deadlines: Deadlines,
    replay: RefCell<Replay>,
    host: RefCell<Option<Rc<Host>>>,
    lease: RefCell<Option<Carrier>>,
    request_complete: Cell<Option<Instant>>,
    response_began: Cell<bool>,
    /// A 1xx head came.
    informed: Cell<bool>,
    /// The answer that is passed on is a canary's.
    canary: Cell<bool>,
    /// Anything of a response came on the attempt's connection.
    answered: Cell<bool>,
    safe: SafeRetry,
    /// By what the next attempt may go.
    ways: Cell<Ways>,
    selection: Selection,
    rivals: Rivals<'r>,
    /// Of the latest attempt, where its cluster has it measured.
    tally: RefCell<Option<Box<Tally<'r>>>>,
    /// What the last attempt that was replaced fell short of was time.
    was_late: Cell<bool>,
    /// Outlier detection was told that the latest attempt is late.
    judged_late: Cell<bool>,
    /// The request's `content-type` says so. Asked once, while the head is at hand: when the answer comes it has long
    /// left the caches, and to ask then costs the wait for memory.
    is_grpc: bool,
    /// Whether the host did well is told by the response's end.
    grpc_status_due: Cell<bool>,
    /// The attempt's connection takes no more bytes; what it answered may still be read.
    write_failed: Cell<bool>,
    /// The circuit breaker's place for a retry under way.
    retry_permit: RefCell<Option<RetryPermit>>,
    /// A retry of the policy that waits for its time: it counts when it is made.
    due_retry: Cell<Option<Pace>>,
    pressure: Pressure,
}

impl<'r> Upstream<'r> {
    /// A request that is about to go up. Its head is the stream's ([`Stream::request`]).
    pub fn new(stream: Rc<Stream>, facts: RequestFacts<'r>, now: Instant) -> Self {
        let deadlines = Deadlines::new(Limits {
            route: facts.timeouts.global,
            per_try: facts.timeouts.per_try,
            per_try_idle: facts.timeouts.per_try_idle,
            max_stream_duration: facts
                .timeouts
                .stream_duration
                .unwrap_or(facts.cluster.config().common_http.max_stream_duration),
        });
        let safe = SafeRetry::new(&facts);
        let wanted = facts.keeps_bodies();
        let by_policy = if wanted { facts.replay_limit } else { 0 };
        let limit = safe.kept_bytes().max(by_policy);
        let is_grpc = stream.request().is_some_and(RequestHead::is_grpc);
        let upstream = Self {
            is_grpc,
            stream,
            deadlines,
            replay: RefCell::new(Replay::new(limit)),
            host: RefCell::default(),
            lease: RefCell::default(),
            request_complete: Cell::default(),
            response_began: Cell::default(),
            informed: Cell::default(),
            canary: Cell::default(),
            answered: Cell::default(),
            safe,
            ways: Cell::default(),
            selection: Selection::default(),
            rivals: Rivals::default(),
            tally: RefCell::default(),
            was_late: Cell::default(),
            judged_late: Cell::default(),
            grpc_status_due: Cell::default(),
            write_failed: Cell::default(),
            retry_permit: RefCell::default(),
            due_retry: Cell::default(),
            pressure: Pressure::default(),
            facts,
        };
        if upstream.facts.body == RequestBody::None {
            upstream.request_complete(now);
        }
        upstream
    }

    /// Waits for the response's head, through as many attempts as the route allows. The error is the
    /// answer to give instead. Writes nothing: that is [`Upstream::poll_request_flush`], to be polled after it.
    ///
    /// # Errors
    /// No host, no connection, no response in time, and no retry left.
    pub async fn head(&self) -> Result<UpstreamHead, Box<LocalReply>> {
        let mut latest = pin!(self.head_of_latest());
        poll_fn(|cx| self.poll_race(cx, |cx| latest.as_mut().poll(cx), Ok)).await
    }

    /// The same, of the latest attempt and those that follow it.
    async fn head_of_latest(&self) -> Result<UpstreamHead, Box<LocalReply>> {
        loop {
            let attempt = if self.lease.borrow().is_none() { self.begin_attempt().await } else { Ok(()) };
            let answer = match attempt {
                Ok(()) => self.await_head().await.inspect_err(|failure| self.note_way(failure)),
                Err(failure) => Err(failure),
            };
            let setback = match answer {
                Ok(UpstreamHead::Final(head, end)) => match self.judge_response(&head, end) {
                    Judgement::Again(wait) => Setback::Replaced(end, wait),
                    Judgement::Denied if !self.rivals.is_empty() => Setback::Denied(end),
                    _ if self.is_redirect(head.status) => return Ok(UpstreamHead::Redirect(head, end)),
                    Judgement::Accepted | Judgement::Denied => return Ok(self.accept(head, end)),
                },
                Ok(UpstreamHead::Informational(head)) => {
                    self.count_informational(head.status);
                    return Ok(UpstreamHead::Informational(head));
                }
                Ok(redirect @ UpstreamHead::Redirect(..)) => return Ok(redirect),
                Err(failure) => Setback::Failed(failure),
            };
            // Boxed: few requests need a second attempt, and the others no room for what comes before it.
            Box::pin(self.after_setback(setback)).await?;
        }
    }

    /// A connection of HTTP/3 that broke: the next attempt goes another way, as in Envoy.
    fn note_way(&self, failure: &Failure) {
        let broke = matches!(
            failure,
            Failure::Reset { reason: ResetReason::ConnectionTermination | ResetReason::ProtocolError, .. }
        );
        let upstream = self.stream.info().upstream.borrow();
        if broke && upstream.as_ref().is_some_and(|upstream| upstream.protocol == Some(Version::HTTP_3)) {
            self.ways.set(Ways::TcpOnly);
        }
    }

    /// Waits for the time of the next attempt, or for what other attempts bring. The error is the answer to give
    /// when nothing is left.
    async fn after_setback(&self, setback: Setback) -> Result<(), Box<LocalReply>> {
        let mut failure = match setback {
            Setback::Replaced(end, wait) => {
                self.discard_response(end).await;
                return self.pause(wait).await.map_err(|failure| self.refuse_in_pause(&failure));
            }
            Setback::Denied(end) => {
                self.count_host(HostStat::RqError);
                self.discard_response(end).await;
                let failure = self.await_rivals(Failure::NoHost).await;
                return Err(self.give_up(&failure));
            }
            Setback::Failed(Failure::Timeout(RouterTimeout::PerTry | RouterTimeout::PerTryIdle))
                if self.hedges() =>
            {
                match self.hedge().await {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                }
            }
            Setback::Failed(failure) => failure,
        };
        if let Some(wait) = self.retry_failure(&mut failure) {
            return self.pause(wait).await.map_err(|failure| self.refuse_in_pause(&failure));
        }
        let is_over = matches!(failure, Failure::Timeout(RouterTimeout::Route));
        if !is_over && !self.rivals.is_empty() {
            failure = self.await_rivals(failure).await;
            return Err(self.give_up(&failure));
        }
        Err(self.refuse(&failure))
    }

    /// The last of several attempts failed, each counted by itself, or the time of all is over.
    fn give_up(&self, failure: &Failure) -> Box<LocalReply> {
        if matches!(failure, Failure::Timeout(_)) {
            self.count_failure(failure);
        }
        self.refuse(failure)
    }

    /// Ready when another frame of the request may be sent: an attempt is connected and has less than
    /// `high` bytes unwritten. Failures to write show in the response.
    pub fn poll_request_ready(&self, cx: &mut Context<'_>, high: usize) -> Poll<()> {
        let mut lease = self.lease.borrow_mut();
        // No connection: `head` is the one to make one, in the same task, and the pump is polled after it.
        let Some(lease) = lease.as_mut() else { return Poll::Pending };
        if lease.stream().buffered() >= high {
            match lease.stream().poll_flush(cx) {
                Poll::Ready(written) => self.write_failed.set(written.is_err()),
                Poll::Pending => {
                    if lease.stream().is_held_back() {
                        self.set_backed_up(true);
                    }
                    return Poll::Pending;
                }
            }
        }
        self.set_backed_up(false);
        Poll::Ready(())
    }

    /// Sends a frame of the request.
    pub fn send(&self, frame: BodyFrame) {
        self.deadlines.touch(self.now());
        self.keep(&frame);
        if let Some(tally) = self.tally.borrow().as_ref() {
            tally.sent(&frame);
        }
        // Into a connection that takes nothing more it would only pile up.
        if let Some(lease) = self.lease.borrow_mut().as_mut()
            && !self.write_failed.get()
        {
            attempt::send_frame(lease.stream(), frame);
        }
    }

    /// Keeps a frame for other attempts; a body that grows too large for the policy's is counted once.
    fn keep(&self, frame: &BodyFrame) {
        let mut replay = self.replay.borrow_mut();
        let before = replay.bytes();
        replay.push(frame);
        let limit = self.facts.replay_limit;
        if before > limit || replay.bytes() <= limit {
            return;
        }
        let had_copies = !std::mem::take(&mut *self.facts.copies.borrow_mut()).is_empty();
        if had_copies || (!self.response_began.get() && self.facts.keeps_bodies()) {
            self.facts.cluster.stats().router.retry_or_shadow_abandoned().inc();
        }
    }

    /// Whether something that was sent is still to be written.
    pub fn has_unwritten(&self) -> bool {
        self.lease.borrow_mut().as_mut().is_some_and(|lease| lease.stream().buffered() > 0)
    }

    /// Writes what was sent. Failures show in the response.
    pub fn poll_request_flush(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.rivals.is_empty() {
            self.rivals.poll_flush(cx);
        }
        match self.lease.borrow_mut().as_mut() {
            Some(lease) => lease.stream().poll_flush(cx).map(|_| ()),
            None => Poll::Ready(()),
        }
    }

    /// The request's last byte was handed over: the route's timeout begins.
    pub fn request_complete(&self, now: Instant) {
        self.request_complete.set(Some(now));
        if !self.facts.copies.borrow().is_empty() {
            self.send_copies();
        }
        if !self.response_began.get() {
            self.deadlines.request_complete(now);
        }
    }

    /// Sends the copies: as much as was kept is all of the body, or there would be none left.
    #[cold]
    fn send_copies(&self) {
        for copy in self.facts.copies.take() {
            let body = self.replay.borrow().frames().collect();
            let (priority, timeout) = (self.facts.priority, self.facts.timeouts.global);
            Shadow { copy, body, priority, timeout }.spawn();
        }
        if self.response_began.get() {
            self.replay.borrow_mut().stop();
        }
    }

    /// Reads the next part of the response. `Err`: the upstream failed or a deadline passed, flags and
    /// details are set, and the response stays incomplete.
    #[allow(clippy::result_unit_err)]
    pub fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Result<BodyFrame, ()>> {
        if let Some(timeout) = self.deadlines.take_fired() {
            self.out_of_time();
            self.cut(&Failure::Timeout(timeout));
            return Poll::Ready(Err(()));
        }
        let frame = match self.lease.borrow_mut().as_mut() {
            Some(lease) => std::task::ready!(lease.stream().poll_body(cx))
                .map_err(|error| (error, lease.stream().failure_details())),
            None => return Poll::Ready(Err(())),
        };
        match frame {
            Ok(frame) => {
                self.deadlines.touch(self.now());
                if let Some(tally) = self.tally.borrow().as_ref() {
                    tally.received(&frame);
                }
                if self.grpc_status_due.get() {
                    self.count_grpc_end(&frame);
                }
                Poll::Ready(Ok(frame))
            }
            Err((error, said)) => {
                self.give_up_lease(Failed::of(&error, true));
                self.cut(&Failure::of_stream(&error).with_transport(said));
                Poll::Ready(Err(()))
            }
        }
    }

    /// Whether a deadline may have come nearer since the last call.
    pub fn deadlines_changed(&self) -> bool {
        self.deadlines.settle()
    }

    /// The nearest deadline of the router.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// A deadline passed: `head` or `poll_body` acts on it when polled next.
    pub fn deadline_passed(&self, now: Instant) {
        self.deadlines.handle_timeout(now);
    }

    /// The response was taken whole: the connection goes back to its pool.
    pub fn complete(&self, now: Instant) {
        self.deadlines.clear();
        self.count_complete(now);
        self.tally.take();
        if let Some(lease) = self.lease.borrow_mut().take() {
            lease.finish();
        }
    }

    /// Whether the end of the upstream's direction of a tunnel is an orderly one, and the client's can be passed on.
    /// Over HTTP/1.1 it is the connection's, and ends both.
    pub fn has_orderly_ends(&self) -> bool {
        self.lease.borrow().as_ref().is_some_and(Carrier::has_orderly_ends)
    }

    /// The upstream closed an upgraded stream.
    pub fn tunnel_closed(&self) {
        let failure = Failure::of_stream(&StreamError::Closed);
        if let Some(lease) = self.lease.borrow_mut().take() {
            lease.failed(Failed::PeerClosed(CloseReason::PeerFin));
        }
        self.cut(&failure);
    }

    /// Waits before the next attempt, for as long as the route's time allows.
    ///
    /// # Errors
    /// The route's timeout: no attempt runs that would count it.
    async fn pause(&self, wait: Duration) -> Result<(), Failure> {
        self.deadlines.attempt_over();
        if !wait.is_zero() {
            let mut sleep = pin!(tokio::time::sleep(wait));
            poll_fn(|cx| match self.deadlines.take_fired() {
                Some(timeout @ RouterTimeout::Route) => Poll::Ready(Err(Failure::Timeout(timeout))),
                _ => sleep.as_mut().poll(cx).map(Ok),
            })
            .await?;
        }
        self.count_retry();
        Ok(())
    }

    /// No attempt is left: the answer to give.
    fn refuse(&self, failure: &Failure) -> Box<LocalReply> {
        let reply = self.answer_for(failure);
        self.count_reply(failure, reply.status);
        reply
    }

    /// The route's time is over between two attempts: Envoy's codes are those of attempts, and none runs.
    fn refuse_in_pause(&self, failure: &Failure) -> Box<LocalReply> {
        if self.rivals.is_empty() { self.answer_for(failure) } else { self.give_up(failure) }
    }

    fn answer_for(&self, failure: &Failure) -> Box<LocalReply> {
        if matches!(failure, Failure::Timeout(timeout) if *timeout != RouterTimeout::MaxStreamDuration) {
            self.record_budget();
        }
        self.out_of_time();
        self.deadlines.clear();
        let retried = self.facts.retries.borrow().as_ref().is_some_and(RetryState::has_retried);
        let mut reply = failure.reply(retried, self.informed.get(), self.facts.timeouts.late);
        let flagged = self.stream.info().flags.get().intersects(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        if flagged && !retried && !matches!(failure, Failure::Timeout(_)) {
            // The limit was 0: nothing was retried, and Envoy flags only what came too late.
            self.unflag_retry_limit();
        }
        if self.facts.envoy == EnvoyHeaders::Suppress {
            reply.headers.clear();
        }
        if self.facts.attempt_headers.in_response {
            reply.headers.push((attempt::ATTEMPT_COUNT, self.stream.info().attempts.get().into()));
        }
        Box::new(reply)
    }

    fn unflag_retry_limit(&self) {
        let info = self.stream.info();
        info.flags.set(info.flags.get().without(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED));
    }

    /// The response ends where it stands.
    fn cut(&self, failure: &Failure) {
        let (flag, details) = failure.cut();
        self.stream.info().flag(flag);
        self.stream.info().detail(details);
        self.count_cut(failure);
        self.deadlines.clear();
        self.tally.take();
        drop(self.lease.borrow_mut().take());
    }

    /// The head as every attempt sends it.
    fn head_for_attempt<'h>(&self, head: &'h RequestHead, host: &Host) -> Cow<'h, RequestHead> {
        let attempt = self.stream.info().attempts.get();
        let mut head = attempt::with_attempt_headers(head, &self.facts, host, attempt, || self.elapsed());
        if let Some(scheme) = self.stream.info().upstream_scheme.get() {
            head.to_mut().scheme = scheme;
        }
        if attempt > 1 && self.facts.attempt_headers.is_timeout_retry {
            let late = if self.was_late.get() { "true" } else { "false" };
            head.to_mut().headers.insert(attempt::IS_TIMEOUT_RETRY, HeaderValue::from_static(late));
        }
        head
    }

    fn now(&self) -> Instant {
        self.facts.clock.now()
    }

    /// Time since the request was complete.
    fn elapsed(&self) -> Duration {
        self.request_complete.get().map_or(Duration::ZERO, |at| self.now().saturating_duration_since(at))
    }
}
