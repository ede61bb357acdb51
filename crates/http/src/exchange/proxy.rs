//! The request goes up while the response comes down, in one task and without a channel.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tidegate_codec::{BodyFrame, StreamError, prefetch, prefetch_from};
use tidegate_filter::LocalReply;
use tidegate_router::{Route, Upstream, UpstreamHead};
use tidegate_types::{BodyBuf, EndStream, ResponseFlags, ResponseHead, details};

use super::route_phase::overridden;
use super::{Abort, Exchange, Filters, HeldBody, Passed, ResponseState};
use crate::chain::{HeadStep, ResponseChain};

/// Bytes that are collected before a write is worth it: below this, what arrives together leaves
/// together in one system call; above it, the reader waits for the writer.
const WRITE_HIGH: usize = 32 * 1024;

/// Bytes of a field in a map, about.
const FIELD: usize = 104;

/// How much of a response [`Exchange::send_response`] sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All of it.
    All,
    /// The head: the body is to follow.
    Head,
}

/// A response filter's wish for the body: the filter, and bytes at most.
struct Wish {
    index: usize,
    limit: usize,
}

impl Exchange<'_> {
    /// Runs the request and the response until the response is complete.
    pub(super) async fn proxy(
        &self,
        route: &Route,
        upstream: &Upstream<'_>,
        held: &mut HeldBody,
        request_filters: Filters<'_>,
        response_filters: &mut ResponseChain,
    ) -> Result<(), Abort> {
        let has_body = !self.request_ended.get() || !held.is_empty();
        // Boxed: most requests have no body, and need no room for its way up.
        let mut pump = has_body.then(|| Box::pin(self.pump(upstream, held, request_filters)));
        let mut respond = pin!(self.respond(route, upstream, response_filters));
        let mut in_line = false;
        let mut waited = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut waited, true) {
                self.fetch();
            }
            loop {
                // The response side first: it connects and sends the head, then the pump has somewhere to
                // pump to. Whatever the pump waits for is changed only by `respond`, in this very poll.
                if let Poll::Ready(done) = respond.as_mut().poll(cx) {
                    return Poll::Ready(done);
                }
                match pump.as_mut().map(|pump| pump.as_mut().poll(cx)) {
                    Some(Poll::Ready(Ok(()))) => pump = None,
                    Some(Poll::Ready(Err(abort))) => return Poll::Ready(Err(abort)),
                    Some(Poll::Pending) | None => {}
                }
                // Last, since both set deadlines: one that nobody armed the timer for would never pass.
                if self.poll_deadlines(cx, upstream)?.is_pending() {
                    break;
                }
            }
            let tunnel = self.tunnel.get() && self.cx.is_alone();
            // Before anything is written: nobody is asked on behalf of a client that has gone already.
            if self.is_client_watchable() && !tunnel && self.server.borrow_mut().poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Abort::Gone));
            }
            if self.request_ended.get() {
                if self.cx.is_alone() && !in_line && upstream.has_unwritten() {
                    // Not before every task that is ready had its turn. A worker that first reads all that came and then
                    // writes all that is to go finds its peers awake for most of the writes: to wake one costs the
                    // kernel more than to append to its queue. Streams of one connection gain nothing: the second
                    // poll of many costs as much in misses.
                    in_line = true;
                    cx.waker().wake_by_ref();
                } else {
                    let _ = upstream.poll_request_flush(cx);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Asks for what the response will touch, ahead of the call that reads it.
    fn fetch(&self) {
        prefetch(&*self.stream);
        if let Some(head) = self.stream.request() {
            prefetch(head);
            if let Some(name) = head.headers.keys().next() {
                prefetch_from(name, head.headers.len() * FIELD);
            }
        }
        self.server.borrow().fetch();
    }

    /// The manager's deadlines end the stream; the router's are handed to it, and the response side is to
    /// look at them: `Ready`.
    fn poll_deadlines(&self, cx: &mut Context<'_>, upstream: &Upstream<'_>) -> Poll<Result<(), Abort>> {
        let nearer = self.timers.settle() | upstream.deadlines_changed();
        if !nearer && self.cx.is_armed() {
            return Poll::Pending;
        }
        self.poll_deadline(cx, upstream.next_deadline()).map(|passed| match passed {
            Passed::Own(timeout) => {
                upstream.out_of_time();
                Err(Abort::Timeout(timeout))
            }
            Passed::OfRouter => {
                upstream.deadline_passed(self.now());
                Ok(())
            }
        })
    }

    /// Sends the request's body and trailers up as fast as the upstream takes them; `proxy` writes the last of
    /// them.
    async fn pump(
        &self,
        upstream: &Upstream<'_>,
        held: &mut HeldBody,
        filters: Filters<'_>,
    ) -> Result<(), Abort> {
        let wants_body = filters.wants_body();
        if !held.body.is_empty() || (held.end.is_end() && held.trailers.is_none()) {
            self.send_up(upstream, &mut held.body, held.end.is_end() && held.trailers.is_none()).await;
        }
        if let Some(mut trailers) = held.trailers.take() {
            filters.trailers(&mut trailers).await?;
            upstream.send(BodyFrame::Trailers(*trailers));
        }
        while !self.request_ended.get() {
            // Nothing is read that cannot be written on.
            let frame = poll_fn(|cx| {
                std::task::ready!(self.poll_room(cx, upstream));
                match self.server.borrow_mut().poll_body(cx) {
                    Poll::Ready(frame) => Poll::Ready(frame),
                    Poll::Pending => {
                        let _ = upstream.poll_request_flush(cx);
                        Poll::Pending
                    }
                }
            })
            .await;
            let frame = self.account_frame(frame)?;
            if self.tunnel.get() && self.request_ended.get() && self.cx.is_alone() {
                // The client's FIN ends an upgraded connection both ways.
                poll_fn(|cx| upstream.poll_request_flush(cx)).await;
                return Err(Abort::Gone);
            }
            match self.to_tunnel(frame, upstream) {
                BodyFrame::Data(data, end) if !wants_body => upstream.send(BodyFrame::Data(data, end)),
                BodyFrame::Data(data, end) => {
                    let mut part = BodyBuf::from(data);
                    filters.data(0..filters.len(), &mut part, end).await?;
                    self.send_up(upstream, &mut part, end.is_end()).await;
                }
                BodyFrame::Trailers(mut trailers) => {
                    filters.trailers(&mut trailers).await?;
                    upstream.send(BodyFrame::Trailers(trailers));
                }
            }
        }
        upstream.request_complete(self.now());
        Ok(())
    }

    /// Ready when the upstream takes more of the request.
    fn poll_room(&self, cx: &mut Context<'_>, upstream: &Upstream<'_>) -> Poll<()> {
        let room = upstream.poll_request_ready(cx, WRITE_HIGH);
        self.set_reading_paused(upstream.is_backed_up());
        room
    }

    /// What of a client's last frame goes into a tunnel: an upgraded HTTP/1.1 connection has no half-close, and
    /// may still answer.
    fn to_tunnel(&self, frame: BodyFrame, upstream: &Upstream<'_>) -> BodyFrame {
        let upgraded = || self.stream.request().is_some_and(|head| head.upgrade.is_some());
        match frame {
            BodyFrame::Data(data, EndStream::Yes)
                if self.tunnel.get() && upgraded() && !upstream.has_orderly_ends() =>
            {
                BodyFrame::Data(data, EndStream::No)
            }
            other => other,
        }
    }

    async fn send_up(&self, upstream: &Upstream<'_>, body: &mut BodyBuf, last: bool) {
        poll_fn(|cx| self.poll_room(cx, upstream)).await;
        while let Some(chunk) = body.pop() {
            upstream.send(BodyFrame::Data(chunk, EndStream::from_last(last && body.is_empty())));
            if body.is_empty() {
                return;
            }
        }
        if last {
            upstream.send(BodyFrame::Data(Bytes::new(), EndStream::Yes));
        }
    }

    /// Waits for the response, whatever it takes, and sends it down.
    async fn respond(
        &self,
        route: &Route,
        upstream: &Upstream<'_>,
        filters: &mut ResponseChain,
    ) -> Result<(), Abort> {
        let (mut head, end) = loop {
            match upstream.head().await {
                Ok(UpstreamHead::Final(head, end)) => break (head, end),
                // Boxed, as all that few exchanges need: it is no room in those that do not.
                Ok(UpstreamHead::Informational(head)) => Box::pin(self.inform(head, filters)).await?,
                Ok(UpstreamHead::Redirect(head, end)) => {
                    let head = Box::pin(self.redirect(route, upstream, head, end)).await?;
                    if let UpstreamHead::Final(head, end) = head {
                        break (head, end);
                    }
                }
                Err(reply) => {
                    self.read_waiting(&reply);
                    return Err(self.with_route_headers(route, reply));
                }
            }
        };
        self.timers.touch(self.now());
        self.timers.set_request(None);
        self.stream.info().detail(details::VIA_UPSTREAM);
        if head.status == StatusCode::OK && self.stream.request().is_some_and(|head| head.upgrade.is_some()) {
            return Box::pin(self.upgrade_ignored(head, filters)).await;
        }
        self.stream.info().response_code.set(head.status.as_u16());
        route.finalize_response(&mut head, &self.log_context(None));
        let held = self.filter_response(&mut head, end, filters, Some(upstream)).await?;
        if self.send_response(head, end, held) == Sent::Head {
            self.stream_body(upstream, filters).await?;
        }
        if self.tunnel.get() && !upstream.has_orderly_ends() {
            upstream.tunnel_closed();
            self.flush().await?;
            return Err(Abort::UpstreamReset);
        }
        upstream.complete(self.now());
        if !self.leaves_rest() {
            self.flush_rest().await?;
        }
        self.response.set(ResponseState::Complete);
        Ok(())
    }

    /// Whether the connection writes the rest of the response, after this exchange: one that has it to itself does so
    /// when others had their turn, with nothing more of the exchange to wake for it. As in Envoy the exchange is over
    /// then; a long rest waits here for the client to take it.
    fn leaves_rest(&self) -> bool {
        self.cx.is_alone() && !self.tunnel.get() && self.server.borrow().buffered() < WRITE_HIGH
    }

    /// What came of the request while its upstream was awaited in vain: Envoy has read it by then, so that a whole
    /// request keeps its connection. What is refused at once is refused before its body.
    fn read_waiting(&self, reply: &LocalReply) {
        let at_once = ResponseFlags::NO_HEALTHY_UPSTREAM.with(ResponseFlags::UPSTREAM_OVERFLOW);
        let mut left = self.hcm.shared.buffer_limit;
        let mut cx = Context::from_waker(Waker::noop());
        while !self.request_ended.get() && !reply.flags.intersects(at_once) && left > 0 {
            // Who waits for more registers again.
            let Poll::Ready(frame) = self.server.borrow_mut().poll_body(&mut cx) else { return };
            match self.account_frame(frame) {
                Ok(BodyFrame::Data(data, _)) => left = left.saturating_sub(data.len()),
                // The reply's own reading of the client finds it again.
                Ok(BodyFrame::Trailers(_)) | Err(_) => return,
            }
        }
    }

    /// The upstream answered an upgrade with 200, as if it had not seen it: the client must not take the
    /// body for the other protocol.
    async fn upgrade_ignored(
        &self,
        mut head: ResponseHead,
        filters: &mut ResponseChain,
    ) -> Result<(), Abort> {
        self.stream.info().detail("websocket_handshake_unsuccessful");
        head.headers.remove(http::header::CONTENT_LENGTH);
        self.close_after.set(true);
        let held = self.filter_response(&mut head, EndStream::Yes, filters, None).await?;
        self.send_response(head, EndStream::Yes, held);
        self.flush().await?;
        self.response.set(ResponseState::Complete);
        Ok(())
    }

    async fn inform(&self, mut head: ResponseHead, filters: &mut ResponseChain) -> Result<(), Abort> {
        // The proxy answers `Expect` itself and keeps the upstream's 1xx to itself, unless the upstream is
        // to decide; then the first one passes (Envoy 1.40).
        if !self.hcm.shared.config.proxy_100_continue || self.informed.replace(true) {
            return Ok(());
        }
        filters.informational(&mut head).await?;
        self.server.borrow_mut().send_informational(&head);
        self.count_response(head.status);
        self.flush().await
    }

    /// Shows the head to the filters; what of the body was collected for them, if one asked for it.
    pub(super) async fn filter_response(
        &self,
        head: &mut ResponseHead,
        end: EndStream,
        filters: &mut ResponseChain,
        upstream: Option<&Upstream<'_>>,
    ) -> Result<Option<Box<HeldBody>>, Abort> {
        match filters.head(0, head, end).await? {
            HeadStep::Done => Ok(None),
            HeadStep::Buffer { index, limit } => {
                let wish = Wish { index, limit };
                Box::pin(self.buffer_response(head, end, filters, upstream, wish)).await.map(Some)
            }
        }
    }

    /// Collects the body for the filters that ask for it, the one of `wish` first.
    async fn buffer_response(
        &self,
        head: &mut ResponseHead,
        mut end: EndStream,
        filters: &mut ResponseChain,
        upstream: Option<&Upstream<'_>>,
        mut wish: Wish,
    ) -> Result<Box<HeldBody>, Abort> {
        let mut held = Box::new(HeldBody::new(end));
        loop {
            let Wish { index, limit } = wish;
            if let Some(upstream) = upstream
                && !end.is_end()
            {
                held.trailers = self
                    .collect_response(upstream, filters, index, limit, &mut held.body)
                    .await?
                    .map(Box::new);
            }
            filters.buffered(index, head, &mut held.body).await?;
            let from = index + 1;
            end = EndStream::from_last(held.is_empty());
            if from < filters.len() && !held.body.is_empty() {
                let last = EndStream::from_last(held.trailers.is_none());
                filters.data(from..filters.len(), &mut held.body, last).await?;
            }
            if !held.is_empty() {
                head.headers.remove(http::header::CONTENT_LENGTH);
                if held.trailers.is_none() {
                    head.headers.insert(http::header::CONTENT_LENGTH, held.body.len().into());
                }
            }
            held.end = end;
            match filters.head(from, head, end).await? {
                HeadStep::Done => return Ok(held),
                HeadStep::Buffer { index, limit } => wish = Wish { index, limit },
            }
        }
    }

    /// Sends the head, with the whole body where that was collected.
    pub(super) fn send_response(
        &self,
        head: ResponseHead,
        end: EndStream,
        held: Option<Box<HeldBody>>,
    ) -> Sent {
        let Some(held) = held else {
            self.write_head(head, end);
            return if end.is_end() { Sent::All } else { Sent::Head };
        };
        let HeldBody { mut body, trailers, end } = *held;
        self.write_head(head, end);
        self.write_data(&mut body, trailers.is_none());
        if let Some(trailers) = trailers {
            self.write_trailers(*trailers);
        }
        Sent::All
    }

    async fn collect_response(
        &self,
        upstream: &Upstream<'_>,
        filters: &mut ResponseChain,
        index: usize,
        limit: usize,
        held: &mut BodyBuf,
    ) -> Result<Option<HeaderMap>, Abort> {
        loop {
            match self.upstream_frame(poll_fn(|cx| upstream.poll_body(cx)).await)? {
                BodyFrame::Data(data, end) => {
                    let mut part = BodyBuf::from(data);
                    filters.data(0..index, &mut part, end).await?;
                    held.append(&mut part);
                    if held.len() > limit {
                        self.hcm.shared.stats.rs_too_large().inc();
                        let status = StatusCode::INTERNAL_SERVER_ERROR;
                        let reply = LocalReply::new(
                            status,
                            "Internal Server Error",
                            details::RESPONSE_PAYLOAD_TOO_LARGE,
                        );
                        return Err(Abort::Reply(Box::new(reply)));
                    }
                    if end.is_end() {
                        return Ok(None);
                    }
                }
                BodyFrame::Trailers(trailers) => return Ok(Some(trailers)),
            }
        }
    }

    /// Passes the body on: what arrives together leaves together.
    async fn stream_body(&self, upstream: &Upstream<'_>, filters: &mut ResponseChain) -> Result<(), Abort> {
        // The end of an HTTP/1.1 connection is no end in order of the tunnel: the reset that follows says so.
        let withholds_end = self.tunnel.get() && !self.cx.is_alone() && !upstream.has_orderly_ends();
        if filters.wants_body() {
            return Box::pin(self.filter_body(upstream, filters, withholds_end)).await;
        }
        poll_fn(|cx| {
            loop {
                match ready!(self.poll_upstream(cx, upstream))? {
                    BodyFrame::Data(data, end) => {
                        let info = self.stream.info();
                        info.bytes_sent.set(info.bytes_sent.get() + data.len() as u64);
                        let last = end.is_end() && !withholds_end;
                        if last || !data.is_empty() {
                            self.server.borrow_mut().send_data(data, EndStream::from_last(last));
                        }
                        if end.is_end() {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    BodyFrame::Trailers(trailers) => {
                        self.write_trailers(trailers);
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        })
        .await
    }

    /// The same for filters that look at the body.
    async fn filter_body(
        &self,
        upstream: &Upstream<'_>,
        filters: &mut ResponseChain,
        withholds_end: bool,
    ) -> Result<(), Abort> {
        loop {
            match poll_fn(|cx| self.poll_upstream(cx, upstream)).await? {
                BodyFrame::Data(data, end) => {
                    let mut part = BodyBuf::from(data);
                    filters.data(0..filters.len(), &mut part, end).await?;
                    self.write_data(&mut part, end.is_end() && !withholds_end);
                    if end.is_end() {
                        return Ok(());
                    }
                }
                BodyFrame::Trailers(mut trailers) => {
                    filters.trailers(&mut trailers).await?;
                    self.write_trailers(trailers);
                    return Ok(());
                }
            }
        }
    }

    /// The next part of the body, once the client has taken enough of what was sent. What waits to be sent is
    /// written while there is none.
    fn poll_upstream(&self, cx: &mut Context<'_>, upstream: &Upstream<'_>) -> Poll<Result<BodyFrame, Abort>> {
        let mut server = self.server.borrow_mut();
        if server.buffered() >= WRITE_HIGH {
            match server.poll_flush(cx) {
                Poll::Ready(Ok(())) => upstream.set_reading_paused(false),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.client_error(error))),
                Poll::Pending => {
                    if server.is_held_back() {
                        upstream.set_reading_paused(true);
                    }
                    return Poll::Pending;
                }
            }
        }
        match upstream.poll_body(cx) {
            Poll::Ready(frame) => {
                self.timers.touch(self.now());
                Poll::Ready(self.upstream_frame(frame))
            }
            Poll::Pending if server.buffered() > 0 => match server.poll_flush(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(self.client_error(error))),
                _ => Poll::Pending,
            },
            Poll::Pending => Poll::Pending,
        }
    }

    fn upstream_frame(&self, frame: Result<BodyFrame, ()>) -> Result<BodyFrame, Abort> {
        frame.map_err(|()| Abort::UpstreamReset)
    }

    pub(super) fn client_error(&self, error: StreamError) -> Abort {
        match error {
            StreamError::Protocol { details } if self.cx.is_alone() => Abort::BadRequest(details),
            // Its stream, or its connection, knows why.
            StreamError::Protocol { .. }
            | StreamError::Closed
            | StreamError::Truncated
            | StreamError::Io(_)
            | StreamError::Reset { .. } => Abort::Gone,
        }
    }

    pub(super) fn write_data(&self, body: &mut BodyBuf, last: bool) {
        let info = self.stream.info();
        info.bytes_sent.set(info.bytes_sent.get() + body.len() as u64);
        let mut server = self.server.borrow_mut();
        while let Some(chunk) = body.pop() {
            let end = EndStream::from_last(last && body.is_empty());
            server.send_data(chunk, end);
            if end.is_end() {
                return;
            }
        }
        if last {
            server.send_data(Bytes::new(), EndStream::Yes);
        }
    }

    fn write_trailers(&self, trailers: HeaderMap) {
        self.server.borrow_mut().send_trailers(&trailers);
        *self.response_trailers.borrow_mut() = Some(trailers);
    }

    /// Writes the rest of a complete response, which a client of many streams may hold back for as long as
    /// `stream_flush_timeout`: all of it, as in Envoy, not each piece.
    pub(super) async fn flush_rest(&self) -> Result<(), Abort> {
        if self.cx.is_alone() {
            return self.flush().await;
        }
        let mut begun = false;
        poll_fn(|cx| {
            let mut server = self.server.borrow_mut();
            let flushed = server.poll_flush(cx);
            if flushed.is_pending() && !std::mem::replace(&mut begun, true) {
                let timeouts = &self.hcm.shared.config.timeouts;
                let of_manager = overridden(timeouts.stream_flush, timeouts.stream_idle);
                self.timers.flush(overridden(self.flush_timeout.get(), of_manager), self.now());
            }
            flushed
        })
        .await
        .map_err(|error| self.client_error(error))
    }

    /// Writes everything that was sent.
    pub(super) async fn flush(&self) -> Result<(), Abort> {
        poll_fn(|cx| self.server.borrow_mut().poll_flush(cx)).await.map_err(|error| self.client_error(error))
    }
}
