//! One request to an upstream and its response.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, StatusCode};
use tidegate_types::{EndStream, RequestHead};

use crate::h2::body::{Incoming, Outgoing};
use crate::h2::codes::MESSAGING_RULE;
use crate::h2::events::Event;
use crate::h2::heads::{self, Asked};
use crate::h2::options::ClientOptions;
use crate::h2::shared::{Shared, StreamLink};
use crate::stream::{BodyFrame, ClientStream, ResetCode, ResponseFrame, StreamError};

/// A stream that we open. Dropping it before its end resets it (CANCEL).
pub struct ClientExchange {
    requests: SendRequest<Bytes>,
    options: Rc<ClientOptions>,
    shared: Rc<Shared>,
    state: State,
    outgoing: Outgoing,
    incoming: Incoming,
    asked: Asked,
    request_head_bytes: u64,
    response_head_bytes: u64,
    /// From the head on; last, since the stream's references go before it.
    link: Option<StreamLink>,
}

enum State {
    /// No head was sent.
    New,
    /// The response's head is awaited.
    Head(ResponseFuture),
    Body,
    /// The stream is lost; with a code if it never began.
    Failed(Option<ResetCode>),
}

impl ClientExchange {
    pub(super) fn new(shared: Rc<Shared>, requests: SendRequest<Bytes>, options: Rc<ClientOptions>) -> Self {
        Self {
            requests,
            options,
            shared,
            state: State::New,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            asked: Asked::Ordinary,
            request_head_bytes: 0,
            response_head_bytes: 0,
            link: None,
        }
    }

    /// The stream's number, once its head was sent.
    pub fn id(&self) -> Option<u32> {
        self.link.as_ref().map(|link| link.id)
    }

    /// Whether the request was handed on to its end.
    pub fn is_request_complete(&self) -> bool {
        self.outgoing.is_complete()
    }

    /// Whether the response was read to its end.
    pub fn is_response_complete(&self) -> bool {
        matches!(self.state, State::Body) && self.incoming.is_done()
    }

    /// Bytes of the request's head, uncompressed.
    pub fn request_head_bytes(&self) -> u64 {
        self.request_head_bytes
    }

    /// Bytes of the response's head, uncompressed.
    pub fn response_head_bytes(&self) -> u64 {
        self.response_head_bytes
    }

    fn fail(&mut self, error: StreamError) -> StreamError {
        self.state = State::Failed(None);
        self.outgoing.close();
        self.incoming.stop();
        self.prove(error)
    }

    /// A stream that never came to the wire was not processed, however it ended.
    fn prove(&self, error: StreamError) -> StreamError {
        match error {
            StreamError::Closed | StreamError::Io(_) | StreamError::Truncated if self.is_unwritten() => {
                REFUSED
            }
            error => error,
        }
    }

    fn end_with(&mut self, code: ResetCode) {
        let over = self.outgoing.is_complete() && self.is_response_complete();
        if let (Some(link), false, false) = (&self.link, over, matches!(self.state, State::Failed(_))) {
            // While its HEADERS wait in the library, only dropping the stream cancels it in order.
            if !is_unwritten(link) {
                link.before_reset(code);
                self.outgoing.reset(code);
            }
        }
        self.outgoing.close();
        self.incoming.stop();
        self.state = State::Failed(None);
    }
}

fn is_unwritten(link: &StreamLink) -> bool {
    link.id > link.shared.wire.borrow().facts.last_sent
}

impl ClientStream for ClientExchange {
    fn send_head(&mut self, head: &RequestHead, end: EndStream) {
        if !matches!(self.state, State::New) {
            return;
        }
        self.asked = Asked::of(head);
        let Ok(request) = heads::to_request(head) else {
            self.state = State::Failed(Some(ResetCode::Internal));
            return;
        };
        self.request_head_bytes = heads::size_of(request.headers())
            + (head.path.len() + head.authority.len()) as u64
            + PSEUDO_BYTES;
        self.shared.before_stream();
        match self.requests.send_request(request, end.is_end()) {
            Ok((response, stream)) => {
                self.link = Some(StreamLink::new(Rc::clone(&self.shared), response.stream_id().as_u32()));
                self.state = State::Head(response);
                self.outgoing.open(stream, end);
            }
            // The connection is over, or going away.
            Err(_) => self.state = State::Failed(Some(ResetCode::Refused)),
        }
    }

    fn send_data(&mut self, data: Bytes, end: EndStream) {
        if let Some(link) = &self.link {
            self.outgoing.data(data, end, link);
        }
    }

    fn send_trailers(&mut self, trailers: &HeaderMap) {
        if let Some(link) = &self.link {
            self.outgoing.trailers(trailers, link);
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if let State::Failed(Some(code)) = self.state {
            return Poll::Ready(Err(StreamError::Reset { code, by_peer: false }));
        }
        let Some(link) = &self.link else { return Poll::Ready(Ok(())) };
        match ready!(self.outgoing.poll_flush(cx, link)) {
            // The response is complete, or says more than the reset that follows it (RFC 9113 §8.1).
            Err(StreamError::Reset { code: ResetCode::NoError, .. }) => {
                self.outgoing.close();
                Poll::Ready(Ok(()))
            }
            other => Poll::Ready(other.map_err(|error| self.prove(error))),
        }
    }

    fn buffered(&self) -> usize {
        self.outgoing.buffered()
    }

    fn is_unwritten(&self) -> bool {
        self.link.as_ref().is_none_or(is_unwritten)
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseFrame, StreamError>> {
        let response = match &mut self.state {
            State::Head(response) => response,
            State::Failed(Some(code)) => {
                return Poll::Ready(Err(StreamError::Reset { code: *code, by_peer: false }));
            }
            State::Failed(None) | State::New | State::Body => return Poll::Ready(Err(StreamError::Closed)),
        };
        let Some(link) = &self.link else { return Poll::Ready(Err(StreamError::Closed)) };
        match ready!(response.poll_informational(cx)) {
            Some(Ok(informational)) if informational.status() == StatusCode::SWITCHING_PROTOCOLS => {
                // RFC 9113 §8.6.
                self.end_with(ResetCode::Protocol);
                return Poll::Ready(Err(StreamError::Protocol { details: MESSAGING_RULE }));
            }
            Some(Ok(informational)) => {
                let head = heads::response(informational.into_parts().0, &Asked::Ordinary);
                return Poll::Ready(Ok(ResponseFrame::Informational(head)));
            }
            Some(Err(error)) => {
                let error = link.error(&error);
                return Poll::Ready(Err(self.fail(error)));
            }
            None => {}
        }
        match ready!(Pin::new(response).poll(cx)) {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                self.response_head_bytes = heads::size_of(&parts.headers) + STATUS_BYTES;
                if self.response_head_bytes > u64::from(self.options.max_head_bytes)
                    || parts.headers.len() > self.options.max_headers
                {
                    self.shared.count(Event::HeaderOverflow);
                    self.end_with(ResetCode::Protocol);
                    return Poll::Ready(Err(StreamError::Protocol { details: TOO_LARGE }));
                }
                self.incoming = Incoming::new(body);
                self.state = State::Body;
                let end = EndStream::from_last(self.incoming.is_done());
                Poll::Ready(Ok(ResponseFrame::Head(heads::response(parts, &self.asked), end)))
            }
            Err(error) => {
                let error = link.error(&error);
                Poll::Ready(Err(self.fail(error)))
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyFrame, StreamError>> {
        let Some(link) = &self.link else { return Poll::Ready(Err(StreamError::Closed)) };
        match ready!(self.incoming.poll(cx, link)) {
            Ok(frame) => {
                if let BodyFrame::Trailers(_) = &frame {
                    self.shared.count(Event::Trailers);
                }
                Poll::Ready(Ok(frame))
            }
            Err(error) => Poll::Ready(Err(self.fail(error))),
        }
    }

    fn reset(&mut self) {
        self.end_with(ResetCode::Cancel);
    }

    fn reset_with(&mut self, code: ResetCode) {
        self.end_with(code);
    }
}

impl Drop for ClientExchange {
    fn drop(&mut self) {
        self.reset();
    }
}

impl fmt::Debug for ClientExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientExchange").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The request was not processed.
const REFUSED: StreamError = StreamError::Reset { code: ResetCode::Refused, by_peer: false };

/// `%RESPONSE_CODE_DETAILS%` of a response whose head is over a limit.
const TOO_LARGE: &str = "http2.headers_too_large";

/// `:status` with its value.
const STATUS_BYTES: u64 = 7 + 3 + 32;

/// The four pseudo-header fields, without path and authority.
const PSEUDO_BYTES: u64 = 4 * 40;
