//! The end of an exchange: the answer to a failure, the counters, the access log.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;

use http::{Method, StatusCode};
use tidegate_codec::{ClientEnd, ResetCode};
use tidegate_filter::LocalReply;
use tidegate_types::{CloseReason, EndStream, RequestHead, ResponseFlags, ResponseHead, details};

use super::{Abort, Exchange, ResponseState, WatchClient, panics};
use crate::access_log;
use crate::chain::ResponseChain;
use crate::connection::Lost;
use crate::timers::StreamTimeout;

/// What an exchange leaves to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExchangeEnd {
    /// The response is complete; the codec knows whether another request may follow.
    Complete,
    /// As `Complete`, with a response of our own or one that outran its request: if the connection
    /// closes, the client gets time to read.
    Replied,
    /// The response is complete, the request is not: the client gets time to read before the close.
    DelayedClose,
    /// The response is incomplete and the connection is the only way to say so.
    Reset,
    /// The response is incomplete because a deadline of ours passed: closed after the client had time
    /// to read what there is.
    ResetDelayed,
    /// The client went away.
    Gone,
}

impl Exchange<'_> {
    /// Answers a failure if it can still be answered, counts, and writes the access log.
    pub(super) async fn settle(
        &self,
        outcome: Result<(), Abort>,
        filters: &mut ResponseChain,
    ) -> ExchangeEnd {
        let end = match outcome {
            Ok(()) => self.completed(),
            // Boxed: the way of an answer of our own is no room in every exchange.
            Err(abort) => Box::pin(self.aborted(abort, filters)).await,
        };
        self.let_out(end).await;
        self.count_end(end);
        access_log::write(self);
        end
    }

    /// A filter panicked, or an access logger. The stream's own code is gone: the client gets a bare 500 if no
    /// response has begun, and the connection ends.
    pub(super) async fn after_panic(&self) -> ExchangeEnd {
        let connection = self.cx.connection.info.id;
        if self.stream.info().ended.get().is_some() {
            tracing::error!(target: "http", connection, "an access logger panicked");
            return ExchangeEnd::Reset;
        }
        tracing::error!(target: "http", connection, "a filter panicked: its stream is lost");
        // The access log is other people's code as well.
        let settled = panics::catch(pin!(self.settle_panic()), || self.cx.tick()).await;
        settled.unwrap_or(ExchangeEnd::Reset)
    }

    async fn settle_panic(&self) -> ExchangeEnd {
        self.stream.info().detail(details::FILTER_PANICKED);
        let end = match self.response.get() {
            ResponseState::None => self.send_bare_error().await,
            ResponseState::Started | ResponseState::Complete => ExchangeEnd::Reset,
        };
        self.let_out(end).await;
        self.count_end(end);
        access_log::write(self);
        end
    }

    /// A cut response: what was sent of it goes out before the reset, which would overtake it on a connection
    /// of many streams. One turn of the connection is enough where its socket takes anything.
    async fn let_out(&self, end: ExchangeEnd) {
        let cut = matches!(end, ExchangeEnd::Reset | ExchangeEnd::ResetDelayed);
        if !cut || self.cx.is_alone() || self.response.get() == ResponseState::None {
            return;
        }
        let mut turned = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut turned, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// The connection was dropped, with all that was under way on it.
    pub(super) fn dropped(&self) {
        if self.stream.info().ended.get().is_some() {
            return;
        }
        let end = self.gone();
        self.count_end(end);
        // Other people's code, and nobody is left to catch its panic.
        let logged = std::panic::catch_unwind(AssertUnwindSafe(|| access_log::write(self)));
        if logged.is_err() {
            tracing::error!(target: "http", connection = self.cx.connection.info.id, "an access logger panicked");
        }
    }

    /// Past all filters and `local_reply_config`: any of them may be what panicked.
    async fn send_bare_error(&self) -> ExchangeEnd {
        self.replied.set(true);
        self.close_after.set(true);
        self.timers.set_request(None);
        self.write_head(ResponseHead::new(StatusCode::INTERNAL_SERVER_ERROR), EndStream::Yes);
        match self.guard(self.flush(), WatchClient::No).await {
            Ok(Ok(())) => {
                self.response.set(ResponseState::Complete);
                self.completed()
            }
            Ok(Err(Abort::Gone)) => self.gone(),
            Ok(Err(_)) | Err(_) => ExchangeEnd::Reset,
        }
    }

    fn completed(&self) -> ExchangeEnd {
        match (self.request_ended.get(), self.replied.get() || self.outran_request.get()) {
            (true, false) => ExchangeEnd::Complete,
            (true, true) => ExchangeEnd::Replied,
            (false, _) => ExchangeEnd::DelayedClose,
        }
    }

    async fn aborted(&self, abort: Abort, filters: &mut ResponseChain) -> ExchangeEnd {
        let reply = match abort {
            Abort::Gone => return self.gone(),
            Abort::Redirected(again) => {
                self.again.replace(Some(again));
                // As far as this one is concerned: another exchange goes on with the client's stream.
                return ExchangeEnd::Complete;
            }
            Abort::Cut { flag, details } => {
                self.count_unread();
                let info = self.stream.info();
                info.flag(flag);
                info.detail(details);
                return ExchangeEnd::Gone;
            }
            Abort::UpstreamReset if self.was_grpc_reset() => {
                self.hcm.shared.stats.rq_reset_after_downstream_response_started().inc();
                return ExchangeEnd::Reset;
            }
            Abort::UpstreamReset if self.tunnel.get() || self.was_too_late() => {
                if self.was_too_late() {
                    self.cx.closes_for(CloseReason::RequestTimeout);
                }
                return ExchangeEnd::ResetDelayed;
            }
            Abort::UpstreamReset => return ExchangeEnd::Reset,
            Abort::Reset => return ExchangeEnd::Reset,
            Abort::Timeout(StreamTimeout::Flush) => return self.held_back(),
            Abort::Timeout(timeout) => {
                self.count_timeout(timeout);
                let reply = self.timeout_reply(timeout);
                if self.response.get() != ResponseState::None {
                    let info = self.stream.info();
                    info.flag(reply.flags);
                    info.detail(reply.details);
                    return ExchangeEnd::ResetDelayed;
                }
                Box::new(reply)
            }
            Abort::BadRequest(details) => {
                self.cx.closes_for(CloseReason::ProtocolError);
                Box::new(
                    LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", details)
                        .with_flags(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR),
                )
            }
            Abort::Refused(reply) => {
                self.cx.closes_for(CloseReason::ProtocolError);
                self.close_after.set(true);
                reply
            }
            Abort::Reply(reply) => reply,
        };
        if self.response.get() != ResponseState::None {
            self.stream.info().flag(reply.flags);
            self.stream.info().detail(reply.details);
            return ExchangeEnd::ResetDelayed;
        }
        match self.send_reply(reply, filters).await {
            Ok(()) => self.completed(),
            Err(Abort::Gone) => self.gone(),
            Err(Abort::Timeout(StreamTimeout::Flush)) => self.held_back(),
            Err(Abort::Timeout(timeout)) => {
                self.count_timeout(timeout);
                ExchangeEnd::ResetDelayed
            }
            // A filter answered or refused the answer: one reply is all there is.
            Err(_) => ExchangeEnd::Reset,
        }
    }

    /// The client does not take the rest of a response that was complete for everybody else.
    fn held_back(&self) -> ExchangeEnd {
        self.count_timeout(StreamTimeout::Flush);
        self.response.set(ResponseState::Complete);
        self.server.borrow_mut().reset_with(ResetCode::Internal);
        self.completed()
    }

    /// Whether a deadline of the router cut the response. When the upstream itself did, the client is told at
    /// once (deviations, row 14).
    fn was_too_late(&self) -> bool {
        let late = ResponseFlags::UPSTREAM_REQUEST_TIMEOUT;
        self.stream.info().flags.get().intersects(late)
            || self.stream.info().flags.get().intersects(ResponseFlags::UPSTREAM_MAX_STREAM_DURATION)
    }

    /// Whether the upstream cut a gRPC response that had begun: Envoy counts these alone.
    fn was_grpc_reset(&self) -> bool {
        !self.was_too_late() && !self.tunnel.get() && self.stream.request().is_some_and(RequestHead::is_grpc)
    }

    /// Whether the request was for a tunnel, and the connection that it was to lead to failed.
    fn lost_its_tunnel(&self) -> bool {
        let flags = self.stream.info().flags.get();
        let failed = flags.intersects(ResponseFlags::UPSTREAM_CONNECTION_FAILURE)
            || flags.intersects(ResponseFlags::UPSTREAM_CONNECTION_TERMINATION);
        let asks = |head: &RequestHead| head.method == Method::CONNECT || head.upgrade.is_some();
        failed && self.stream.request().is_some_and(asks)
    }

    /// What came with the end was received, too.
    fn count_unread(&self) {
        let unread = self.server.borrow().unread();
        self.stream.info().bytes_received.update(|received| received + unread);
    }

    fn gone(&self) -> ExchangeEnd {
        self.count_unread();
        let info = self.stream.info();
        let lost = self.cx.connection.lost.get();
        let (flag, details) = match (self.server.borrow().ended_by_client(), lost) {
            (Some(ClientEnd::Reset(ResetCode::NoError)), _) => return ExchangeEnd::Gone,
            (Some(ClientEnd::Reset(ResetCode::Protocol)), _) => {
                (ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR, details::DOWNSTREAM_RESET)
            }
            (Some(ClientEnd::Reset(ResetCode::Refused)), _) => {
                (ResponseFlags::DOWNSTREAM_REMOTE_RESET, details::DOWNSTREAM_REFUSED)
            }
            (Some(ClientEnd::Reset(_)), _) => {
                (ResponseFlags::DOWNSTREAM_REMOTE_RESET, details::DOWNSTREAM_RESET)
            }
            (Some(ClientEnd::Malformed { details, is_violation: true }), _) => {
                (ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR, details)
            }
            (Some(ClientEnd::Malformed { details, is_violation: false }), _) => {
                (ResponseFlags::DOWNSTREAM_REMOTE_RESET, details)
            }
            (None, Some(Lost { flag, details })) => (flag, details),
            (None, None) => {
                (ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION, details::DOWNSTREAM_REMOTE_DISCONNECT)
            }
        };
        info.flag(flag);
        info.detail(details);
        ExchangeEnd::Gone
    }

    fn count_end(&self, end: ExchangeEnd) {
        let stats = &self.hcm.shared.stats;
        stats.downstream_rq_active().dec();
        let elapsed = self.cx.clock.elapsed();
        self.stream.info().ended.set(Some(elapsed));
        match end {
            ExchangeEnd::Complete | ExchangeEnd::Replied => {}
            ExchangeEnd::DelayedClose => stats.downstream_rq_rx_reset().inc(),
            ExchangeEnd::Reset | ExchangeEnd::ResetDelayed => {
                stats.downstream_rq_rx_reset().inc();
                stats.downstream_rq_tx_reset().inc();
            }
            ExchangeEnd::Gone => stats.downstream_rq_rx_reset().inc(),
        }
        self.set_reading_paused(false);
        if self.tunnel.get() {
            stats.downstream_cx_upgrades_active().dec();
        }
        if self.response.get() != ResponseState::None {
            stats.downstream_rq_time().record(elapsed.as_millis() as u64);
        }
        if end == ExchangeEnd::DelayedClose && !self.cx.is_alone() && self.lost_its_tunnel() {
            // RFC 9113 §8.5.
            self.server.borrow_mut().reset_with(ResetCode::Connect);
        }
        if !matches!(end, ExchangeEnd::Complete | ExchangeEnd::Replied | ExchangeEnd::DelayedClose) {
            let mut server = self.server.borrow_mut();
            match (self.tunnel.get(), end) {
                // RFC 9113 §8.5.
                (true, ExchangeEnd::ResetDelayed) => server.reset_with(ResetCode::Connect),
                _ => server.reset(),
            }
        }
    }
}
