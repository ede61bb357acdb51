//! Responses that the proxy makes itself, sent through the response filters like any other.

use bytes::Bytes;
use http::{StatusCode, Version};
use tidegate_filter::LocalReply;
use tidegate_router::Route;
use tidegate_types::{BodyBuf, CloseReason, EndStream, ResponseFlags, ResponseHead, details};

use super::proxy::Sent;
use super::{Abort, Exchange, ResponseState};
use crate::chain::ResponseChain;
use crate::timers::StreamTimeout;
use crate::{local_reply, response};

impl Exchange<'_> {
    /// The answer to a deadline of the manager: 504 once the request is complete, 408 before
    /// (Envoy docs, "FAQ: how do I configure timeouts").
    pub(super) fn timeout_reply(&self, timeout: StreamTimeout) -> LocalReply {
        let complete = self.request_ended.get();
        let late = if complete { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::REQUEST_TIMEOUT };
        match timeout {
            StreamTimeout::RequestHeaders => LocalReply::new(
                StatusCode::REQUEST_TIMEOUT,
                "request header timeout",
                details::REQUEST_HEADER_TIMEOUT,
            ),
            StreamTimeout::Request => LocalReply::new(
                StatusCode::REQUEST_TIMEOUT,
                "request timeout",
                details::REQUEST_OVERALL_TIMEOUT,
            ),
            StreamTimeout::StreamIdle => {
                LocalReply::new(late, "stream timeout", details::STREAM_IDLE_TIMEOUT)
                    .with_flags(ResponseFlags::STREAM_IDLE_TIMEOUT)
            }
            // Of a response that is complete: `aborted` does not ask.
            StreamTimeout::MaxDuration | StreamTimeout::Flush => {
                LocalReply::new(late, "downstream duration timeout", details::MAX_DURATION_TIMEOUT)
                    .with_grpc_status(DEADLINE_EXCEEDED)
            }
        }
    }

    /// Counts a deadline and notes it in the stream's facts.
    pub(super) fn count_timeout(&self, timeout: StreamTimeout) {
        if !self.request_ended.get() || self.response.get() != ResponseState::None {
            // No other request can follow.
            self.cx.closes_for(CloseReason::RequestTimeout);
        }
        let stats = &self.hcm.shared.stats;
        match timeout {
            StreamTimeout::RequestHeaders => stats.downstream_rq_header_timeout().inc(),
            StreamTimeout::Request => stats.downstream_rq_timeout().inc(),
            StreamTimeout::StreamIdle => stats.downstream_rq_idle_timeout().inc(),
            StreamTimeout::MaxDuration => stats.downstream_rq_max_duration_reached().inc(),
            StreamTimeout::Flush if self.cx.protocol == Version::HTTP_3 => {
                self.hcm.shared.http3_stats.tx_flush_timeout().inc();
            }
            StreamTimeout::Flush => self.hcm.shared.http2_stats.tx_flush_timeout().inc(),
        }
    }

    /// A router's own reply has the fields that its route adds to every response.
    pub(super) fn with_route_headers(&self, route: &Route, mut reply: Box<LocalReply>) -> Abort {
        // The fields may print both.
        self.stream.info().flag(reply.flags);
        self.stream.info().detail(reply.details.clone());
        let mut added = ResponseHead::new(reply.status);
        added.headers.extend(reply.headers.drain(..));
        route.finalize_response(&mut added, &self.log_context(None));
        reply.headers.extend(added.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        Abort::Reply(reply)
    }

    /// Sends `reply` through the response filters and writes it.
    pub(super) async fn send_reply(
        &self,
        mut reply: Box<LocalReply>,
        filters: &mut ResponseChain,
    ) -> Result<(), Abort> {
        let info = self.stream.info();
        info.flag(reply.flags);
        info.detail(std::mem::take(&mut reply.details));
        // From here on the reply is the response: a second failure only resets.
        self.replied.set(true);
        self.timers.set_request(None);
        let http_10 = self.stream.request().is_some_and(|request| request.version == http::Version::HTTP_10);
        if !self.request_ended.get() || http_10 {
            self.close_after.set(true);
        }
        let (head, body) = local_reply::render(&self.hcm.shared, &reply, self.stream.request(), info);
        self.guard(self.deliver_reply(head, body, filters), super::WatchClient::No).await?
    }

    async fn deliver_reply(
        &self,
        mut head: ResponseHead,
        body: Bytes,
        filters: &mut ResponseChain,
    ) -> Result<(), Abort> {
        let asked_head = self.stream.request().is_some_and(|request| request.method == http::Method::HEAD);
        let end = EndStream::from_last(body.is_empty() || asked_head);
        let held = self.filter_response(&mut head, end, filters, None).await?;
        if self.send_response(head, end, held) == Sent::Head {
            let mut body = BodyBuf::from(body);
            if filters.wants_body() {
                filters.data(0..filters.len(), &mut body, EndStream::Yes).await?;
            }
            self.write_data(&mut body, true);
        }
        self.flush_rest().await?;
        self.response.set(ResponseState::Complete);
        Ok(())
    }

    /// Finishes the head as the manager does for every response, and serialises it.
    pub(super) fn write_head(&self, mut head: ResponseHead, end: EndStream) {
        let info = self.stream.info();
        let elapsed = self.cx.clock.elapsed();
        response::finish(&self.hcm, &mut head, info, elapsed, &self.response_request_id);
        info.response_code.set(head.status.as_u16());
        info.first_downstream_tx.set(Some(elapsed));
        self.response.set(ResponseState::Started);
        self.count_response(head.status);
        let tunnel = head.status == StatusCode::SWITCHING_PROTOCOLS || self.is_connect(&head);
        if !self.request_ended.get() {
            self.hcm.shared.stats.downstream_rq_response_before_rq_complete().inc();
            // What is left of the request could not be told from the next one.
            self.outran_request.set(!tunnel);
        }
        let mut server = self.server.borrow_mut();
        if self.must_close() {
            server.announce_close();
        }
        if tunnel {
            self.tunnel.set(true);
            self.hcm.shared.stats.downstream_cx_upgrades_active().inc();
        }
        server.send_head(&head, end);
        *self.response_head.borrow_mut() = Some(head);
    }

    /// Whether the response opens a CONNECT tunnel (RFC 9110 §9.3.6).
    fn is_connect(&self, head: &ResponseHead) -> bool {
        let request = self.stream.request();
        head.status.is_success() && request.is_some_and(|request| request.method == http::Method::CONNECT)
    }

    /// Whether this response is the connection's last, or the one to announce that it drains.
    fn must_close(&self) -> bool {
        let hcm = &self.hcm.shared;
        if self.cx.announces_drain(hcm, &self.close_after) | self.cx.sheds_load(hcm, &self.close_after) {
            return true;
        }
        let alone = self.cx.is_alone();
        alone && self.close_after.get() || self.cx.is_last_request(hcm) || alone && self.outran_request.get()
    }

    /// Counts a head that was sent, a 1xx as well.
    pub(super) fn count_response(&self, status: StatusCode) {
        if self.stream.info().health_check.get() {
            return;
        }
        let (stats, listener) = (&self.hcm.shared.stats, &self.hcm.shared.listener_stats);
        match status.as_u16() / 100 {
            1 => (stats.downstream_rq_1xx().inc(), listener.downstream_rq_1xx().inc()),
            2 => (stats.downstream_rq_2xx().inc(), listener.downstream_rq_2xx().inc()),
            3 => (stats.downstream_rq_3xx().inc(), listener.downstream_rq_3xx().inc()),
            4 => (stats.downstream_rq_4xx().inc(), listener.downstream_rq_4xx().inc()),
            5 => (stats.downstream_rq_5xx().inc(), listener.downstream_rq_5xx().inc()),
            _ => ((), ()),
        };
        stats.downstream_rq_completed().inc();
        listener.downstream_rq_completed().inc();
    }
}

/// DEADLINE_EXCEEDED (gRPC docs, "Status codes").
const DEADLINE_EXCEEDED: u32 = 4;
