//! One request of a client and its response.

use std::fmt;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, StatusCode};
use tidegate_types::{EndStream, RequestHead, ResponseHead};

use crate::h2::body::{Incoming, Outgoing};
use crate::h2::events::Event;
use crate::h2::heads::{self, Asked, Received, Verdict};
use crate::h2::options::ServerOptions;
use crate::h2::shared::StreamLink;
use crate::stream::{BodyFrame, HeadError, ResetCode, ServerStream, StreamError};

/// A stream that a client opened. Dropping it before its end resets it.
pub struct ServerExchange {
    /// Before `link`: the stream's last reference goes before the stream is no longer counted.
    respond: SendResponse<Bytes>,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Until somebody asks for it.
    head: Option<Box<RequestHead>>,
    asked: Asked,
    expectation: Expectation,
    response: Response,
    head_bytes: u64,
    response_head_bytes: u64,
    /// How the client ended it, if it did.
    ended: Option<ResetCode>,
    link: StreamLink,
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
    /// The stream was reset.
    Reset,
}

impl ServerExchange {
    /// `None` if the request cannot be served: its stream is reset then.
    pub(super) fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        link: StreamLink,
        options: &ServerOptions,
    ) -> Option<Self> {
        let (parts, body) = request.into_parts();
        let Received { head, asked, size, expects_continue, verdict } = heads::request(parts, options);
        let expectation = if expects_continue { Expectation::Continue } else { Expectation::None };
        let mut exchange = Self {
            respond,
            incoming: Incoming::new(body),
            outgoing: Outgoing::default(),
            head: Some(head),
            asked,
            expectation,
            response: Response::Head,
            head_bytes: size,
            response_head_bytes: 0,
            ended: None,
            link,
        };
        match verdict {
            Verdict::Valid => return Some(exchange),
            Verdict::TooLarge => {
                exchange.link.shared.count(Event::HeaderOverflow);
                exchange.end_with(ResetCode::Internal);
            }
            Verdict::Invalid => {
                exchange.link.shared.note_invalid_message();
                exchange.end_with(ResetCode::Protocol);
            }
        }
        None
    }

    /// The connection takes no more requests: this one may be sent elsewhere.
    pub(super) fn refuse(&mut self) {
        self.reset_with(ResetCode::Refused);
    }

    /// The stream's number.
    pub fn id(&self) -> u32 {
        self.link.id
    }

    /// Whether the request was read to its end.
    pub fn is_request_complete(&self) -> bool {
        self.incoming.is_done()
    }

    /// Bytes of the request's head, uncompressed (`%REQUEST_HEADERS_BYTES%`).
    pub fn request_head_bytes(&self) -> u64 {
        self.head_bytes
    }

    /// Bytes of the response's head, uncompressed (`%RESPONSE_HEADERS_BYTES%`).
    pub fn response_head_bytes(&self) -> u64 {
        self.response_head_bytes
    }

    /// Keeps the client's word, unless the connection's end said it.
    fn note_reset(&mut self, code: Option<ResetCode>) {
        if !self.link.shared.is_over() {
            self.ended = self.ended.or(code);
        }
    }

    fn end_with(&mut self, code: ResetCode) {
        if self.response != Response::Reset {
            self.response = Response::Reset;
            self.link.before_reset(code);
            self.respond.send_reset(code.into());
        }
        self.incoming.stop();
        self.outgoing.close();
    }

    fn is_response_complete(&self) -> bool {
        self.response == Response::Body && self.outgoing.is_complete()
    }
}

impl ServerStream for ServerExchange {
    fn poll_head(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(Box<RequestHead>, EndStream), HeadError>> {
        let end = EndStream::from_last(self.incoming.is_done());
        let head = self.head.take().ok_or(HeadError::Gone { partial: false });
        Poll::Ready(head.map(|head| (head, end)))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyFrame, StreamError>> {
        if self.response == Response::Head && self.expectation == Expectation::Continue {
            self.send_informational(&ResponseHead::new(StatusCode::CONTINUE));
        }
        let frame = self.incoming.poll(cx, &self.link);
        match &frame {
            Poll::Ready(Ok(BodyFrame::Trailers(_))) => self.link.shared.count(Event::Trailers),
            Poll::Ready(Err(StreamError::Reset { code, .. })) => self.note_reset(Some(*code)),
            _ => {}
        }
        frame
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let code = ready!(match self.response {
            Response::Head => self.respond.poll_reset(cx).map(Result::ok),
            Response::Body => self.outgoing.poll_reset(cx),
            Response::Reset => return Poll::Ready(()),
        });
        self.note_reset(code.map(ResetCode::from));
        Poll::Ready(())
    }

    fn reset_by_client(&self) -> Option<ResetCode> {
        self.ended
    }

    fn expects_continue(&self) -> bool {
        self.expectation == Expectation::Continue
    }

    fn send_informational(&mut self, head: &ResponseHead) {
        // 101 does not exist in HTTP/2 (RFC 9113 §8.6).
        if self.response == Response::Head && head.status != StatusCode::SWITCHING_PROTOCOLS {
            self.expectation = Expectation::None;
            // Fails only for a stream that is gone, which the next read tells.
            let _ = self.respond.send_informational(heads::to_response(head, &Asked::Ordinary));
        }
    }

    fn announce_close(&mut self) {
        self.link.shared.announce_close();
    }

    fn send_head(&mut self, head: &ResponseHead, end: EndStream) {
        if self.response != Response::Head {
            return;
        }
        self.expectation = Expectation::None;
        let end = EndStream::from_last(end.is_end() || self.asked.is_bodiless(head.status));
        let response = heads::to_response(head, &self.asked);
        self.response_head_bytes = heads::size_of(response.headers()) + STATUS_BYTES;
        self.response = Response::Body;
        match self.respond.send_response(response, end.is_end()) {
            Ok(stream) => self.outgoing.open(stream, end),
            // The client ended the stream before: whoever reads or waits for it is told.
            Err(_) => self.end_with(ResetCode::Internal),
        }
    }

    fn send_data(&mut self, data: Bytes, end: EndStream) {
        self.outgoing.data(data, end, &self.link);
    }

    fn send_trailers(&mut self, trailers: &HeaderMap) {
        self.outgoing.trailers(trailers, &self.link);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let flushed = self.outgoing.poll_flush(cx, &self.link);
        if let Poll::Ready(Err(StreamError::Reset { code, .. })) = &flushed {
            self.note_reset(Some(*code));
        }
        flushed
    }

    fn buffered(&self) -> usize {
        self.outgoing.buffered()
    }

    fn reset(&mut self) {
        if self.is_response_complete() {
            // The library says NO_ERROR behind the response when nobody holds the stream (RFC 9113 §8.1); to say
            // it now would overtake the response.
            self.incoming.stop();
        } else {
            self.end_with(ResetCode::Internal);
        }
    }

    fn reset_with(&mut self, code: ResetCode) {
        self.end_with(code);
    }
}

impl Drop for ServerExchange {
    fn drop(&mut self) {
        self.reset();
    }
}

impl fmt::Debug for ServerExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerExchange").field("id", &self.link.id).finish_non_exhaustive()
    }
}

/// `:status` with its value.
const STATUS_BYTES: u64 = 7 + 3 + 32;
