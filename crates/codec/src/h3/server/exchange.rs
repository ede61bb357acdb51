//! One request of a client and its response.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tidegate_types::{EndStream, RequestHead, ResponseHead};

use crate::fields::{Asked, Dialect, Received, size_of};
use crate::h3::conn::{Core, Shared};
use crate::h3::streams::{Failure, Key, Phase, SendPhase};
use crate::stream::{BodyFrame, ClientEnd, HeadError, ResetCode, ServerStream, StreamError};

/// A stream that a client opened. Dropping it before its end resets it.
pub struct ServerExchange {
    shared: Shared,
    key: Key,
    id: u64,
    /// Until somebody asks for it.
    head: Option<Box<RequestHead>>,
    asked: Asked,
    expectation: Expectation,
    response: Response,
    is_early: bool,
    /// The method is empty.
    is_nameless: bool,
    head_bytes: u64,
    response_head_bytes: u64,
    /// How the client ended it, if it did.
    ended: Option<ClientEnd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expectation {
    None,
    /// The client waits for 100 (Continue) before it sends its body.
    Continue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Response {
    /// Its head is awaited.
    Head,
    /// Its head was sent.
    Body,
    /// It has no body: whatever comes is dropped.
    Bodiless,
}

impl ServerExchange {
    /// For a stream that a client opened; its head may not have come to its end.
    pub(super) fn new(shared: Shared, core: &mut Core, key: Key) -> Self {
        let mut exchange = Self {
            shared,
            key,
            id: 0,
            head: None,
            asked: Asked::Ordinary,
            expectation: Expectation::None,
            response: Response::Head,
            is_early: false,
            is_nameless: false,
            head_bytes: 0,
            response_head_bytes: 0,
            ended: None,
        };
        if let Some(stream) = core.streams.get_mut(key) {
            exchange.id = stream.id.map_or(0, u64::from);
            exchange.is_early = stream.is_early;
            if let Some(received) = stream.rx.request.take() {
                exchange.take(received);
            }
        }
        exchange
    }

    fn take(&mut self, received: Received) {
        self.head_bytes = received.bytes;
        self.asked = received.asked;
        self.is_nameless = received.is_nameless;
        if received.expects_continue {
            self.expectation = Expectation::Continue;
        }
        self.head = Some(received.head);
    }

    /// The stream's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the request was read to its end.
    pub fn is_request_complete(&self) -> bool {
        self.shared.borrow().streams.get(self.key).is_some_and(|stream| stream.rx.phase == Phase::Ended)
    }

    /// Bytes of the request's head, uncompressed (`%REQUEST_HEADERS_BYTES%`).
    pub fn request_head_bytes(&self) -> u64 {
        self.head_bytes
    }

    /// Bytes of the response's head, uncompressed (`%RESPONSE_HEADERS_BYTES%`).
    pub fn response_head_bytes(&self) -> u64 {
        self.response_head_bytes
    }
}

/// Keeps the client's word. In Envoy's logs a client that gives up a stream or the connection leaves no trace, unless
/// its code says that a rule was broken.
fn note(ended: &mut Option<ClientEnd>, failure: Failure) -> StreamError {
    let end = match failure {
        Failure::Reset { code: ResetCode::Protocol, by_peer: true } | Failure::Violation => {
            Some(ClientEnd::Malformed { details: NO_DETAILS, is_violation: true })
        }
        Failure::Reset { by_peer: true, .. } | Failure::Closed => Some(ClientEnd::Reset(ResetCode::NoError)),
        Failure::Protocol(details) => Some(ClientEnd::Malformed { details, is_violation: true }),
        _ => None,
    };
    *ended = ended.or(end);
    failure.to_error()
}

impl ServerStream for ServerExchange {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Box<RequestHead>, EndStream), HeadError>> {
        let (late, failed, end) = {
            let core = &mut *self.shared.borrow_mut();
            let Some(stream) = core.streams.get_mut(self.key) else {
                return Poll::Ready(Err(HeadError::Gone { partial: false }));
            };
            if let Some(verdict) = stream.rx.refused {
                return Poll::Ready(Err(HeadError::Malformed {
                    details: verdict.details(Dialect::Http3),
                    // In Envoy's eyes, also what is only over a limit.
                    is_violation: true,
                }));
            }
            let whole = stream.rx.phase == Phase::Ended;
            (stream.rx.request.take(), stream.failed, EndStream::from_last(whole))
        };
        if let Some(received) = late {
            self.take(received);
        }
        match (self.head.take(), failed) {
            (Some(head), None) if self.is_nameless => Poll::Ready(Err(HeadError::Refused {
                status: StatusCode::BAD_REQUEST,
                body: "",
                details: INVALID_METHOD.into(),
                head: Some(head),
            })),
            (Some(head), failed) if failed.is_none_or(Failure::is_by_content) => Poll::Ready(Ok((head, end))),
            (_, None) => {
                if let Some(stream) = self.shared.borrow_mut().streams.get_mut(self.key) {
                    stream.reader.wait(cx);
                }
                Poll::Pending
            }
            // It was given up before anybody looked at it: no work is begun for it.
            (_, Some(failure)) => {
                note(&mut self.ended, failure);
                Poll::Ready(Err(HeadError::Gone { partial: true }))
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyFrame, StreamError>> {
        if self.response == Response::Head && self.expectation == Expectation::Continue {
            self.send_informational(&ResponseHead::new(StatusCode::CONTINUE));
        }
        let next = self.shared.borrow_mut().poll_body(self.key, cx);
        next.map_err(|failure| note(&mut self.ended, failure))
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let core = &mut *self.shared.borrow_mut();
        let Some(stream) = core.streams.get_mut(self.key) else { return Poll::Ready(()) };
        if let Some(failure) = stream.failed {
            note(&mut self.ended, failure);
            return Poll::Ready(());
        }
        stream.writer.wait(cx);
        Poll::Pending
    }

    fn ended_by_client(&self) -> Option<ClientEnd> {
        self.ended
    }

    fn expects_continue(&self) -> bool {
        self.expectation == Expectation::Continue
    }

    fn is_early(&self) -> bool {
        self.is_early && !self.shared.borrow().facts.connected
    }

    fn poll_confirmed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let core = &mut *self.shared.borrow_mut();
        match core.streams.get_mut(self.key) {
            Some(stream) if !core.facts.connected && stream.failed.is_none() => {
                stream.reader.wait(cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    fn send_informational(&mut self, head: &ResponseHead) {
        // 101 does not exist in HTTP/3 (RFC 9114 §4.5).
        if self.response == Response::Head && head.status != StatusCode::SWITCHING_PROTOCOLS {
            self.expectation = Expectation::None;
            self.shared.borrow_mut().send_response(self.key, head, &Asked::Ordinary, EndStream::No);
        }
    }

    fn announce_close(&mut self) {
        let core = &mut *self.shared.borrow_mut();
        if !std::mem::replace(&mut core.facts.close_announced, true) {
            // Before the response that says so, as Envoy does.
            core.announce_goaway();
            core.wake();
        }
    }

    fn send_head(&mut self, head: &ResponseHead, end: EndStream) {
        if self.response != Response::Head {
            return;
        }
        self.expectation = Expectation::None;
        let end = EndStream::from_last(end.is_end() || self.asked.is_bodiless(head.status));
        self.response = if end.is_end() { Response::Bodiless } else { Response::Body };
        self.response_head_bytes = size_of(&head.headers) + STATUS_BYTES;
        self.shared.borrow_mut().send_response(self.key, head, &self.asked, end);
    }

    fn send_data(&mut self, data: Bytes, end: EndStream) {
        if self.response == Response::Body {
            self.shared.borrow_mut().send_data(self.key, data, end);
        }
    }

    fn send_trailers(&mut self, trailers: &HeaderMap) {
        if self.response == Response::Body {
            self.shared.borrow_mut().send_trailers(self.key, trailers);
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let core = &mut *self.shared.borrow_mut();
        let Some(stream) = core.streams.get_mut(self.key) else { return Poll::Ready(Ok(())) };
        match stream.failed {
            // Nothing was to be sent.
            Some(_) if self.response == Response::Head => Poll::Ready(Ok(())),
            Some(failure) => Poll::Ready(Err(note(&mut self.ended, failure))),
            None if stream.tx.queue.is_empty() && stream.tx.phase != SendPhase::Ended => Poll::Ready(Ok(())),
            None => {
                stream.writer.wait(cx);
                Poll::Pending
            }
        }
    }

    fn is_held_back(&self) -> bool {
        self.shared.borrow().is_held_back(self.key)
    }

    fn buffered(&self) -> usize {
        self.shared.borrow().streams.get(self.key).map_or(0, |stream| stream.tx.buffered)
    }

    fn reset(&mut self) {
        let core = &mut *self.shared.borrow_mut();
        let complete = core.streams.get(self.key).is_some_and(|stream| {
            matches!(stream.tx.phase, SendPhase::Ended | SendPhase::Done) && stream.failed.is_none()
        });
        // A complete response goes out first; what is left of the request is refused when the exchange is dropped
        // (RFC 9114 §4.1).
        if !complete {
            // Envoy's code for what was cut: who has a part of a response does not ask again.
            let begun = self.response != Response::Head;
            core.reset(self.key, if begun { ResetCode::Refused } else { ResetCode::Internal });
        }
    }

    fn reset_with(&mut self, code: ResetCode) {
        self.shared.borrow_mut().reset(self.key, code);
    }
}

impl Drop for ServerExchange {
    fn drop(&mut self) {
        self.shared.borrow_mut().release(self.key, ResetCode::Internal);
    }
}

impl fmt::Debug for ServerExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerExchange").field("id", &self.id).finish_non_exhaustive()
    }
}

/// `:status` with its value.
const STATUS_BYTES: u64 = 7 + 3 + 32;

/// `%RESPONSE_CODE_DETAILS%` of an empty method.
const INVALID_METHOD: &str = "http.invalid_method";

/// What Envoy's logs have for details where there are none.
const NO_DETAILS: &str = "-";
