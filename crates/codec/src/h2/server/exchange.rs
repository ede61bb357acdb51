//! One request of a client and its response.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tidegate_net::prefetch::prefetch;
use tidegate_types::{EndStream, RequestHead, ResponseHead};

use crate::fields::{Asked, Dialect, Received, size_of};
use crate::h2::conn::{Core, Shared};
use crate::h2::streams::{Failure, Key, SendPhase};
use crate::stream::{BodyFrame, ClientEnd, HeadError, ResetCode, ServerStream, StreamError};

/// A stream that a client opened. Dropping it before its end resets it.
pub struct ServerExchange {
    shared: Shared,
    key: Key,
    id: u32,
    /// Until somebody asks for it.
    head: Option<(Box<RequestHead>, EndStream)>,
    asked: Asked,
    expectation: Expectation,
    response: Response,
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
            head_bytes: 0,
            response_head_bytes: 0,
            ended: None,
        };
        if let Some(stream) = core.streams.get_mut(key) {
            exchange.id = stream.id;
            if let Some(received) = stream.rx.request.take() {
                exchange.take(received);
            }
        }
        exchange
    }

    fn take(&mut self, received: Received) {
        self.head_bytes = received.bytes;
        self.asked = received.asked;
        if received.expects_continue {
            self.expectation = Expectation::Continue;
        }
        self.head = Some((received.head, received.end));
    }

    /// The stream's number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether the request was read to its end.
    pub fn is_request_complete(&self) -> bool {
        self.shared.borrow().streams.get(self.key).is_some_and(|stream| stream.rx.is_drained())
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

/// Keeps the client's word.
fn note(ended: &mut Option<ClientEnd>, failure: Failure) -> StreamError {
    let end = match failure {
        Failure::Reset { code, by_peer: true } => Some(ClientEnd::Reset(code)),
        Failure::Protocol(details) => Some(ClientEnd::Malformed { details, is_violation: true }),
        Failure::Unwanted(details) => Some(ClientEnd::Malformed { details, is_violation: false }),
        _ => None,
    };
    *ended = ended.or(end);
    failure.to_error()
}

impl ServerStream for ServerExchange {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Box<RequestHead>, EndStream), HeadError>> {
        let (late, failed) = {
            let core = &mut *self.shared.borrow_mut();
            let Some(stream) = core.streams.get_mut(self.key) else {
                return Poll::Ready(Err(HeadError::Gone { partial: false }));
            };
            if let Some(verdict) = stream.rx.refused {
                return Poll::Ready(Err(HeadError::Malformed {
                    details: verdict.details(Dialect::Http2),
                    is_violation: verdict.is_malformed(),
                }));
            }
            (stream.rx.request.take(), stream.failed)
        };
        if let Some(received) = late {
            self.take(received);
        }
        match (self.head.take(), failed) {
            (Some(head), failed) if failed.is_none_or(Failure::is_by_content) => Poll::Ready(Ok(head)),
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
        let core = &mut *self.shared.borrow_mut();
        let Some(stream) = core.streams.get_mut(self.key) else {
            return Poll::Ready(Err(StreamError::Closed));
        };
        let held = std::mem::take(&mut stream.rx.held);
        // What came before the failure is told first.
        let next = match (stream.rx.next(), stream.failed) {
            (Some(frame), _) => Poll::Ready(Ok(frame)),
            (None, Some(failure)) => Poll::Ready(Err(failure)),
            (None, None) => {
                stream.reader.wait(cx);
                Poll::Pending
            }
        };
        core.give(self.key, held);
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

    fn unread(&self) -> u64 {
        self.shared.borrow().streams.get(self.key).map_or(0, |stream| stream.rx.unread() as u64)
    }

    fn expects_continue(&self) -> bool {
        self.expectation == Expectation::Continue
    }

    fn fetch(&self) {
        if let Some(stream) = self.shared.borrow().streams.get(self.key) {
            prefetch(stream);
        }
    }

    fn send_informational(&mut self, head: &ResponseHead) {
        // 101 does not exist in HTTP/2 (RFC 9113 §8.6).
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
        let sent = match stream.tx.phase {
            SendPhase::Head => self.response == Response::Head,
            phase => phase == SendPhase::Done,
        };
        match stream.failed {
            // What was sent before its end was sent.
            Some(_) if sent => Poll::Ready(Ok(())),
            Some(failure) => Poll::Ready(Err(note(&mut self.ended, failure))),
            None if stream.tx.is_empty() && stream.tx.phase != SendPhase::Ended => Poll::Ready(Ok(())),
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
        // (RFC 9113 §8.1).
        if !complete {
            core.reset(self.key, ResetCode::Internal);
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
