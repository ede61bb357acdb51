//! One request and its response, from the first byte to the access log.
//!
//! A pipeline of plain async functions: read the head, sanitise it, walk the request filters, match
//! the route, then pump the request up while the response comes down. Nothing here depends on the HTTP
//! version: both ends are codec streams. Waiting happens only in [`Exchange::guard`] and
//! [`Exchange::proxy`], which also watch the stream's deadlines and the client.

mod early;
mod end;
mod filter_phase;
mod panics;
mod proxy;
mod redirected;
mod reply;
mod route_phase;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::SystemTime;

use http::Version;
use tidegate_codec::{HeadError, ServerStream};
use tidegate_config::values::TimeoutOverride;
use tidegate_filter::{LocalReply, Stream};
use tidegate_router::internal_redirect::Redirects;
use tidegate_types::overload::OverloadAction;
use tidegate_types::spare;
use tidegate_types::{CloseReason, EndStream, RequestHead, ResponseFlags, StreamInfo, details};
use tokio::time::Instant;

use crate::chain::{self, RequestChain, ResponseChain, Stop};
use crate::connection::StreamCx;
use crate::hcm::WorkerHcm;
use crate::timers::{StreamTimeout, StreamTimers};

pub(crate) use end::ExchangeEnd;
pub(crate) use redirected::Again;

/// `append_local_overload`: who refused.
const LOCAL_OVERLOADED: http::HeaderName = http::HeaderName::from_static("x-envoy-local-overloaded");

/// Why an exchange stops before its response is complete.
#[derive(Debug)]
pub(crate) enum Abort {
    /// The client is gone: nobody to answer.
    Gone,
    /// A deadline of the manager passed.
    Timeout(StreamTimeout),
    /// Answer with this, if no response has begun.
    Reply(Box<LocalReply>),
    /// End the stream without an answer.
    Reset,
    /// The client's message broke the protocol after its head.
    BadRequest(&'static str),
    /// The stream ends without an answer, and this is noted.
    Cut { flag: ResponseFlags, details: &'static str },
    /// The upstream failed after the response began; flags and details are set.
    UpstreamReset,
    /// The upstream redirected, and another exchange follows.
    Redirected(Box<Again>),
    /// The codec refused the head; the reply closes the connection.
    Refused(Box<LocalReply>),
}

impl From<Stop> for Abort {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Reply(reply) => Self::Reply(reply),
            Stop::Reset => Self::Reset,
        }
    }
}

/// How far the response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseState {
    /// No head was sent.
    None,
    /// The head was sent.
    Started,
    /// Everything was sent.
    Complete,
}

/// One exchange while it runs.
pub(crate) struct Exchange<'a> {
    pub(crate) cx: &'a StreamCx<'a>,
    pub(crate) hcm: Rc<WorkerHcm>,
    pub(crate) server: RefCell<&'a mut dyn ServerStream>,
    pub(crate) stream: Rc<Stream>,
    pub(crate) timers: StreamTimers,
    /// The whole request was read.
    pub(crate) request_ended: Cell<bool>,
    pub(crate) response: Cell<ResponseState>,
    /// The request came from inside, by Envoy's rule.
    pub(crate) internal: Cell<bool>,
    /// The response must announce the close.
    pub(crate) close_after: Cell<bool>,
    /// `x-request-id` to repeat in the response.
    pub(crate) response_request_id: RefCell<Option<http::HeaderValue>>,
    /// The head that went downstream, for access logs.
    pub(crate) response_head: RefCell<Option<tidegate_types::ResponseHead>>,
    /// Trailers that went downstream, for access logs.
    pub(crate) response_trailers: RefCell<Option<http::HeaderMap>>,
    /// An upgrade was granted: bytes flow raw both ways.
    pub(crate) tunnel: Cell<bool>,
    /// A 1xx head was passed on.
    pub(crate) informed: Cell<bool>,
    /// The route's `flush_timeout`.
    pub(crate) flush_timeout: Cell<TimeoutOverride>,
    /// The redirects that led here.
    pub(crate) redirects: Cell<Option<Box<Redirects>>>,
    /// What goes on after this exchange.
    pub(crate) again: RefCell<Option<Box<Again>>>,
    /// The response is the proxy's own.
    pub(crate) replied: Cell<bool>,
    /// The response began before the request was complete.
    pub(crate) outran_request: Cell<bool>,
    /// The upstream takes so little that the request is not read.
    pub(crate) reading_paused: Cell<bool>,
}

/// Serves one exchange whose first byte has arrived. A stream error on one side never outlives this call:
/// everything that it holds is dropped with it.
pub(crate) async fn serve(
    cx: &StreamCx<'_>,
    hcm: Rc<WorkerHcm>,
    server: &mut dyn ServerStream,
) -> ExchangeEnd {
    let (hcm, again) = {
        let exchange = Exchange::new(cx, hcm, &mut *server);
        exchange.begin();
        let end = match panics::catch(pin!(exchange.run_to_end()), || cx.tick()).await {
            Ok(end) => end,
            Err(panics::Panicked) => Box::pin(exchange.after_panic()).await,
        };
        let Some(again) = exchange.again.take() else { return end };
        (exchange.hcm.clone(), again)
    };
    // Boxed: few requests are redirected, and the others need no room for it.
    Box::pin(redirected::follow(cx, hcm, server, again)).await
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.dropped();
        if let Some(head) = self.response_head.take() {
            spare::give_map(head.headers);
        }
    }
}

impl<'a> Exchange<'a> {
    fn new(cx: &'a StreamCx<'a>, hcm: Rc<WorkerHcm>, server: &'a mut dyn ServerStream) -> Self {
        let info = StreamInfo::new(cx.connection.info.clone(), SystemTime::now());
        let timers = StreamTimers::new(cx.clock.now());
        let timeouts = &hcm.shared.config.timeouts;
        timers.set_idle(timeouts.stream_idle);
        timers.set_headers(hcm.shared.request_headers_timeout);
        timers.set_request(timeouts.request);
        timers.set_max_duration(hcm.shared.config.common.max_stream_duration);
        Self {
            cx,
            server: RefCell::new(server),
            stream: Rc::new(Stream::new(info, cx.connection.clusters.clone())),
            timers,
            request_ended: Cell::new(false),
            response: Cell::new(ResponseState::None),
            internal: Cell::new(false),
            close_after: Cell::new(false),
            response_request_id: RefCell::new(None),
            response_head: RefCell::new(None),
            response_trailers: RefCell::new(None),
            tunnel: Cell::new(false),
            informed: Cell::new(false),
            flush_timeout: Cell::new(TimeoutOverride::Inherit),
            redirects: Cell::new(None),
            again: RefCell::new(None),
            replied: Cell::new(false),
            outran_request: Cell::new(false),
            reading_paused: Cell::new(false),
            hcm,
        }
    }
}

impl Exchange<'_> {
    async fn run_to_end(&self) -> ExchangeEnd {
        let mut response_filters = ResponseChain::default();
        let outcome = self.run(&mut response_filters).await;
        self.settle(outcome, &mut response_filters).await
    }

    pub(crate) fn set_reading_paused(&self, paused: bool) {
        if self.reading_paused.replace(paused) != paused {
            let stats = &self.hcm.shared.stats;
            match paused {
                true => stats.downstream_flow_control_paused_reading_total().inc(),
                false => stats.downstream_flow_control_resumed_reading_total().inc(),
            }
        }
    }

    fn begin(&self) {
        // Said of a request that never shows its own version.
        self.stream.info().protocol.set(Some(self.cx.protocol));
        let stats = &self.hcm.shared.stats;
        stats.downstream_rq_total().inc();
        match self.cx.protocol {
            Version::HTTP_2 => stats.downstream_rq_http2_total().inc(),
            Version::HTTP_3 => stats.downstream_rq_http3_total().inc(),
            _ => stats.downstream_rq_http1_total().inc(),
        }
        stats.downstream_rq_active().inc();
    }

    /// The pipeline.
    async fn run(&self, response_filters: &mut ResponseChain) -> Result<(), Abort> {
        // The head, whole, within `request_headers_timeout`.
        let (mut head, end) = self.read_head().await?;
        // Before anything is spent on it (Envoy docs, "Overload manager: actions").
        if let Some(reply) = self.overloaded() {
            self.stream.set_request(head);
            return Err(Abort::Reply(reply));
        }
        // Whose request it is, what it may carry, what it is called: before any filter sees it.
        if let Err(abort) = self.sanitise(&mut head) {
            self.stream.set_request(head);
            return Err(abort);
        }
        // What somebody may have recorded and sent again does no harm, or waits until it is known to be new.
        if let Err(abort) = self.judge_early(&mut head).await {
            self.stream.set_request(head);
            return Err(abort);
        }
        // The route decides which filters are on and which timeouts hold.
        let route = self.match_route(&mut head);
        if let Err(abort) = self.check_upgrade(&head, route.as_deref()) {
            self.stream.set_request(head);
            return Err(abort);
        }
        let (mut request_filters, filters) =
            chain::open(&self.hcm.shared.filters, &self.stream, route.as_ref().map(|route| &*route.view));
        *response_filters = filters;
        // Filters see the head, and those that ask for it the whole body.
        let mut held = HeldBody::new(end);
        if let Err(abort) = self.filter_head(&mut request_filters, &mut head, &mut held).await {
            self.stream.set_request(head);
            return Err(abort);
        }
        // The router: answer, or send it up.
        self.route_request(route, head, &mut held, &mut request_filters, response_filters).await
    }

    async fn read_head(&self) -> Result<(Box<RequestHead>, EndStream), Abort> {
        let head = self.guard(poll_fn(|cx| self.server.borrow_mut().poll_head(cx)), WatchClient::No).await?;
        self.timers.set_headers(None);
        match head {
            Ok((head, end)) => {
                let now = self.now();
                self.stream.info().protocol.set(Some(head.version));
                if end.is_end() {
                    self.request_complete(now);
                }
                if self.server.borrow().expects_continue() {
                    self.answer_expectation().await?;
                }
                Ok((head, end))
            }
            Err(HeadError::Gone { .. }) => Err(Abort::Gone),
            Err(HeadError::Malformed { details, is_violation: true }) => {
                Err(Abort::Cut { flag: ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR, details })
            }
            Err(HeadError::Malformed { details, is_violation: false }) => {
                Err(Abort::Cut { flag: ResponseFlags::DOWNSTREAM_REMOTE_RESET, details })
            }
            Err(HeadError::Refused { status, body, details, head }) => {
                let reply = LocalReply::new(status, body, details);
                let Some(head) = head else {
                    let reply = reply.with_flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
                    self.note_protocol_error();
                    return Err(Abort::Refused(Box::new(reply)));
                };
                // Well-formed, and refused for what it says: no protocol error for Envoy.
                self.stream.info().protocol.set(Some(head.version));
                self.stream.set_request(head);
                self.request_complete(self.now());
                Err(match self.hcm.shared.keeps_after_bad_request() {
                    true => Abort::Reply(Box::new(reply)),
                    false => Abort::Refused(Box::new(reply)),
                })
            }
        }
    }

    /// What the client sent is no HTTP: the listener's access log tells it of the connection, too.
    fn note_protocol_error(&self) {
        self.hcm.shared.stats.downstream_cx_protocol_error().inc();
        let flags = &self.cx.connection.info.state.flags;
        flags.set(flags.get().with(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR));
    }

    /// The client waits for word before it sends its body: Envoy gives it at once, whatever will be answered.
    async fn answer_expectation(&self) -> Result<(), Abort> {
        let head = tidegate_types::ResponseHead::new(http::StatusCode::CONTINUE);
        self.stream.info().response_code.set(100);
        self.server.borrow_mut().send_informational(&head);
        self.count_response(head.status);
        self.guard(self.flush(), WatchClient::No).await?
    }

    /// The answer to a request that comes when there are too many.
    fn overloaded(&self) -> Option<Box<LocalReply>> {
        let overload = &self.cx.connection.overload;
        if !overload.is_saturated(OverloadAction::StopAcceptingRequests) {
            return None;
        }
        let hcm = &self.hcm.shared;
        hcm.stats.downstream_rq_overload_close().inc();
        let status = http::StatusCode::SERVICE_UNAVAILABLE;
        let mut reply = LocalReply::new(status, "envoy overloaded", details::OVERLOAD);
        if hcm.config.append_local_overload {
            reply.headers.push((LOCAL_OVERLOADED, http::HeaderValue::from_static("true")));
        }
        Some(Box::new(reply))
    }

    /// The request's last byte was read.
    pub(crate) fn request_complete(&self, now: Instant) {
        self.request_ended.set(true);
        self.timers.set_request(None);
        self.timers.touch(now);
        self.stream.info().request_complete.set(Some(self.cx.clock.elapsed()));
    }

    /// Bytes of a request's body that may be held: where streams have windows of their own, a window, as in Envoy.
    pub(crate) fn stream_buffer_limit(&self) -> usize {
        let config = &self.hcm.shared.config;
        match self.cx.protocol {
            Version::HTTP_3 => config.http3.quic.initial_stream_window_size as usize,
            Version::HTTP_2 => config.http2.initial_stream_window_size as usize,
            _ => self.hcm.shared.buffer_limit,
        }
    }

    /// The time of this poll: one look at the clock serves all that happens in it.
    pub(crate) fn now(&self) -> Instant {
        self.cx.clock.now()
    }

    /// Waits for `future` while watching the stream's deadlines and, on request, the client.
    pub(crate) async fn guard<T>(
        &self,
        future: impl Future<Output = T>,
        watch: WatchClient,
    ) -> Result<T, Abort> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            if let Poll::Ready(Passed::Own(timeout)) = self.poll_deadline(cx, None) {
                return Poll::Ready(Err(Abort::Timeout(timeout)));
            }
            if watch == WatchClient::Yes && self.is_client_watchable() {
                return self.server.borrow_mut().poll_gone(cx).map(|()| Err(Abort::Gone));
            }
            Poll::Pending
        })
        .await
    }

    /// Whether the client's going shows elsewhere than in what is read of the request: where nothing more of
    /// that is due, and on a connection of many streams at any time.
    pub(crate) fn is_client_watchable(&self) -> bool {
        self.request_ended.get() || !self.cx.is_alone()
    }

    /// Ready when one of the manager's deadlines passed, or `router`, the nearest of the router's.
    pub(crate) fn poll_deadline(
        &self,
        cx: &mut std::task::Context<'_>,
        router: Option<Instant>,
    ) -> Poll<Passed> {
        loop {
            let overload = &self.cx.connection.overload;
            let own = self.timers.next(|timer, timeout| overload.scale(timer, timeout));
            let age = self.cx.age_deadline();
            let nearest = [router, own.map(|(at, _)| at), age].into_iter().flatten().min();
            std::task::ready!(self.cx.poll_deadline(cx, nearest));
            let now = self.now();
            if router.is_some_and(|at| at <= now) {
                return Poll::Ready(Passed::OfRouter);
            }
            if age.is_some_and(|age| age <= now) {
                // The connection is old: this response, or the next, is its last; the stream itself goes on.
                self.cx.age_reached(&self.hcm.shared);
                if !self.hcm.shared.config.timeouts.http1_safe_max_connection_duration {
                    self.cx.closes_for(CloseReason::MaxDuration);
                    self.close_after.set(true);
                }
                continue;
            }
            if let Some((at, timeout)) = own
                && at <= now
            {
                return Poll::Ready(Passed::Own(timeout));
            }
        }
    }
}

/// Whose deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// The manager's: the stream ends.
    Own(StreamTimeout),
    /// The router's: the response side acts on it.
    OfRouter,
}

/// Whether a wait ends when the client goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchClient {
    /// Once the request is complete, the client's end of stream ends the wait.
    Yes,
    /// Somebody else reads from the client.
    No,
}

/// A body after the filters saw the head: what was collected, and whether that is all.
#[derive(Debug)]
pub(crate) struct HeldBody {
    pub(crate) body: tidegate_types::BodyBuf,
    pub(crate) trailers: Option<Box<http::HeaderMap>>,
    pub(crate) end: EndStream,
}

impl HeldBody {
    /// Nothing yet; `end` when nothing follows the head.
    fn new(end: EndStream) -> Self {
        Self { body: tidegate_types::BodyBuf::new(), trailers: None, end }
    }

    /// Whether there is nothing to pass on.
    fn is_empty(&self) -> bool {
        self.body.is_empty() && self.trailers.is_none()
    }
}

pub(crate) type Filters<'f> = &'f mut RequestChain;
