//! One request to an upstream and its response.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use tidegate_types::{EndStream, RequestHead};

use crate::fields::{Asked, size_of};
use crate::h2::conn::Shared;
use crate::h2::streams::{Failure, Key, SendPhase};
use crate::multiplex;
use crate::stream::{BodyFrame, ClientStream, ResetCode, ResponseFrame, StreamError};

/// A stream that we open. Dropping it before its end resets it (CANCEL).
pub struct ClientExchange {
    shared: Shared,
    state: State,
    request_head_bytes: u64,
    response_head_bytes: u64,
}

#[derive(Clone, Copy)]
enum State {
    /// No head was sent.
    New,
    Sent(Key),
    /// The stream never began.
    Failed(ResetCode),
}

impl ClientExchange {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared, state: State::New, request_head_bytes: 0, response_head_bytes: 0 }
    }

    /// The stream's number, once its head was sent.
    pub fn id(&self) -> Option<u32> {
        let State::Sent(key) = self.state else { return None };
        self.shared.borrow().streams.get(key).map(|stream| stream.id).filter(|id| *id != 0)
    }

    /// Bytes of the request's head, uncompressed.
    pub fn request_head_bytes(&self) -> u64 {
        self.request_head_bytes
    }

    /// Bytes of the response's head, uncompressed.
    pub fn response_head_bytes(&self) -> u64 {
        self.response_head_bytes
    }

    /// The stream, or why there is none.
    fn key(&self) -> Result<Key, StreamError> {
        match self.state {
            State::Sent(key) => Ok(key),
            State::New => Err(StreamError::Closed),
            State::Failed(code) => Err(StreamError::Reset { code, by_peer: false }),
        }
    }
}

/// A stream that never came to the wire was not processed, however it ended.
fn prove(failure: Failure, unwritten: bool) -> StreamError {
    match failure {
        Failure::Closed | Failure::Io(_) if unwritten => REFUSED,
        failure => failure.to_error(),
    }
}

impl ClientStream for ClientExchange {
    fn send_head(&mut self, head: &RequestHead, end: EndStream) {
        if !matches!(self.state, State::New) {
            return;
        }
        let core = &mut *self.shared.borrow_mut();
        if core.is_over() || core.facts.goaway.is_some() {
            self.state = State::Failed(ResetCode::Refused);
            return;
        }
        self.request_head_bytes =
            size_of(&head.headers) + (head.path.len() + head.authority.len()) as u64 + PSEUDO_BYTES;
        core.before_stream();
        let key = core.insert();
        if let Some(stream) = core.streams.get_mut(key) {
            stream.rx.asked = Asked::of(head);
        }
        self.state = match core.open(key, head, end) {
            Ok(()) => State::Sent(key),
            Err(_) => {
                core.release(key, ResetCode::Internal);
                State::Failed(ResetCode::Internal)
            }
        };
    }

    fn send_data(&mut self, data: Bytes, end: EndStream) {
        if let State::Sent(key) = self.state {
            self.shared.borrow_mut().send_data(key, data, end);
        }
    }

    fn send_trailers(&mut self, trailers: &HeaderMap) {
        if let State::Sent(key) = self.state {
            self.shared.borrow_mut().send_trailers(key, trailers);
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let key = match self.state {
            State::New => return Poll::Ready(Ok(())),
            State::Sent(key) => key,
            State::Failed(code) => return Poll::Ready(Err(StreamError::Reset { code, by_peer: false })),
        };
        let core = &mut *self.shared.borrow_mut();
        let Some(stream) = core.streams.get_mut(key) else { return Poll::Ready(Ok(())) };
        match stream.failed {
            Some(_) if stream.tx.phase == SendPhase::Done && stream.id != 0 => Poll::Ready(Ok(())),
            // The response is complete, or says more than the reset that follows it (RFC 9113 §8.1).
            Some(Failure::Reset { code: ResetCode::NoError, .. }) => Poll::Ready(Ok(())),
            Some(failure) => {
                let unwritten = core.streams.get(key).is_some_and(|stream| core.is_unwritten(stream));
                Poll::Ready(Err(prove(failure, unwritten)))
            }
            None if stream.tx.is_empty() && stream.tx.phase != SendPhase::Ended => Poll::Ready(Ok(())),
            None => {
                stream.writer.wait(cx);
                Poll::Pending
            }
        }
    }

    fn is_held_back(&self) -> bool {
        matches!(self.state, State::Sent(key) if self.shared.borrow().is_held_back(key))
    }

    fn buffered(&self) -> usize {
        let State::Sent(key) = self.state else { return 0 };
        self.shared.borrow().streams.get(key).map_or(0, |stream| stream.tx.buffered)
    }

    fn is_unwritten(&self) -> bool {
        let State::Sent(key) = self.state else { return true };
        let core = self.shared.borrow();
        core.streams.get(key).is_none_or(|stream| core.is_unwritten(stream))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseFrame, StreamError>> {
        let key = self.key()?;
        let core = &mut *self.shared.borrow_mut();
        let Some(stream) = core.streams.get_mut(key) else { return Poll::Ready(Err(StreamError::Closed)) };
        if let Some(frame) = stream.rx.responses.pop_front() {
            if let ResponseFrame::Head(head, _) = &frame {
                self.response_head_bytes = size_of(&head.headers) + STATUS_BYTES;
            }
            return Poll::Ready(Ok(frame));
        }
        if let Some(failure) = stream.failed {
            let unwritten = core.streams.get(key).is_some_and(|stream| core.is_unwritten(stream));
            return Poll::Ready(Err(prove(failure, unwritten)));
        }
        stream.reader.wait(cx);
        Poll::Pending
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyFrame, StreamError>> {
        let key = self.key()?;
        let core = &mut *self.shared.borrow_mut();
        let Some(stream) = core.streams.get_mut(key) else { return Poll::Ready(Err(StreamError::Closed)) };
        let held = std::mem::take(&mut stream.rx.held);
        // What came before the failure is told first.
        let next = match (stream.rx.next(), stream.failed) {
            (Some(frame), _) => Poll::Ready(Ok(frame)),
            (None, Some(failure)) => Poll::Ready(Err(failure.to_error())),
            (None, None) => {
                stream.reader.wait(cx);
                Poll::Pending
            }
        };
        core.give(key, held);
        next
    }

    fn reset(&mut self) {
        self.reset_with(ResetCode::Cancel);
    }

    fn reset_with(&mut self, code: ResetCode) {
        let State::Sent(key) = self.state else { return };
        let core = &mut *self.shared.borrow_mut();
        core.reset(key, code);
    }
}

impl multiplex::ClientExchange for ClientExchange {
    fn is_request_complete(&self) -> bool {
        let State::Sent(key) = self.state else { return false };
        self.shared.borrow().streams.get(key).is_some_and(|stream| stream.tx.phase == SendPhase::Done)
    }

    fn is_response_complete(&self) -> bool {
        let State::Sent(key) = self.state else { return false };
        let core = self.shared.borrow();
        core.streams.get(key).is_some_and(|stream| stream.rx.is_drained() && stream.rx.responses.is_empty())
    }
}

impl Drop for ClientExchange {
    fn drop(&mut self) {
        if let State::Sent(key) = self.state {
            self.shared.borrow_mut().release(key, ResetCode::Cancel);
        }
    }
}

impl fmt::Debug for ClientExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientExchange").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The request was not processed.
const REFUSED: StreamError = StreamError::Reset { code: ResetCode::Refused, by_peer: false };

/// `:status` with its value.
const STATUS_BYTES: u64 = 7 + 3 + 32;

/// The four pseudo-header fields, without path and authority.
const PSEUDO_BYTES: u64 = 4 * 40;
