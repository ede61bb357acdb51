//! A connection to a client: one exchange after the other.
//!
//! [`ServerConn`] is a [`ServerStream`] for the exchange under way, and has methods for what lies between
//! exchanges. Call order: [`ServerConn::poll_readable`] while idle, then the methods of [`ServerStream`],
//! then [`ServerConn::finish_exchange`], which says whether to begin again. It decides nothing about time:
//! timeouts are the caller's.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Version, header};
use tidegate_net::BoxIo;
use tidegate_types::{Address, CloseReason, EndStream, RequestHead, ResponseHead};

use super::body::{Decoder, Trailers};
use super::encode::{self, Encoder, ResponseContext};
use super::options::ServerOptions;
use super::parse::{HeadScan, Limits, ParsedRequest, RefusedRequest, parse_request};
use super::rules::{Asked, Framing, Violation};
use super::wire::Wire;
use crate::stream::{BodyFrame, HeadError, ServerStream, StreamError};

/// An HTTP/1.1 connection to a client.
pub struct ServerConn {
    wire: Wire,
    options: Rc<ServerOptions>,
    request: Request,
    response: Response,
    asked: Asked,
    version: Version,
    after: After,
    expectation: Expectation,
    /// Bytes of blank lines before the current request.
    blank: usize,
    request_head_bytes: u64,
    response_head_bytes: u64,
    discarded: usize,
}

enum Request {
    /// Its head is awaited.
    Head(HeadScan),
    Body(Decoder),
    /// What follows the head is decided by the response.
    Upgrade(Option<Waker>),
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Response {
    /// Its head is awaited.
    Head,
    Body(Encoder),
    Tunnel(Encoder),
    /// A tunnel whose outgoing direction has ended with a FIN.
    TunnelShut,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    KeepAlive,
    Close,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expectation {
    None,
    /// The client waits for 100 (Continue) before it sends its body.
    Continue,
}

/// What came while the connection was idle.
#[derive(Debug)]
pub enum Readable {
    /// The first bytes of a request.
    Bytes,
    /// The client's FIN.
    Closed,
    /// The connection broke.
    Broken(io::Error),
}

/// What becomes of the connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It awaits the next request.
    KeepAlive,
    /// It is to be closed.
    Close,
}

impl ServerConn {
    /// Serves `io`. Holds no buffer until bytes arrive.
    pub fn new(io: BoxIo, options: Rc<ServerOptions>) -> Self {
        Self {
            wire: Wire::new(io, options.buffer_limit),
            options,
            request: Request::Head(HeadScan::default()),
            response: Response::Head,
            asked: Asked::Ordinary,
            version: Version::HTTP_11,
            after: After::KeepAlive,
            expectation: Expectation::None,
            blank: 0,
            request_head_bytes: 0,
            response_head_bytes: 0,
            discarded: 0,
        }
    }

    /// Ready when a request begins, or when none will. Blank lines before a request are no request
    /// (RFC 9112 §2.2); waiting holds no buffer.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<Readable> {
        loop {
            self.skip_blank_lines();
            if self.has_buffered_input() {
                return Poll::Ready(Readable::Bytes);
            }
            let filled = self.wire.poll_fill(cx);
            if filled.is_pending() {
                self.wire.release_input();
            }
            match ready!(filled) {
                Ok(0) => return Poll::Ready(Readable::Closed),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Readable::Broken(error)),
            }
        }
    }

    /// Whether bytes of a (pipelined) request are here already.
    pub fn has_buffered_input(&self) -> bool {
        !matches!(&self.wire.input[..], [] | b"\r")
    }

    /// Bytes read and not yet taken: before the first request, what tells which HTTP the client speaks
    /// ([`detect`](crate::h2::preface::detect)).
    pub fn input(&self) -> &[u8] {
        &self.wire.input
    }

    /// Reads more of what has begun, for whoever judges [`ServerConn::input`].
    pub fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Readable> {
        Poll::Ready(match ready!(self.wire.poll_fill(cx)) {
            Ok(0) => Readable::Closed,
            Ok(_) => Readable::Bytes,
            Err(error) => Readable::Broken(error),
        })
    }

    /// The protocol agreed on in the TLS handshake (RFC 7301), once that is over.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.wire.io.tls().and_then(|tls| tls.alpn.as_deref())
    }

    /// The connection with the bytes read so far, for another codec. Before the first request.
    pub fn into_input(self) -> (BoxIo, BytesMut) {
        (self.wire.io, self.wire.input)
    }

    /// Ends the exchange, whose response and request are complete: says what comes next. A connection that
    /// stays holds no buffer unless a pipelined request is in it.
    pub fn finish_exchange(&mut self) -> Next {
        let answered = matches!(self.response, Response::Body(encoder) if encoder.is_done());
        if !answered || self.will_close() || !self.wire.output.is_empty() || !self.drain_request() {
            self.after = After::Close;
            return Next::Close;
        }
        self.wire.release_input();
        self.request = Request::Head(HeadScan::default());
        self.response = Response::Head;
        self.asked = Asked::Ordinary;
        self.expectation = Expectation::None;
        self.blank = 0;
        Next::KeepAlive
    }

    /// The response will carry `connection: close` and end the connection. To be called before its head
    /// is sent; later it still ends the connection.
    pub fn close_after_response(&mut self) {
        self.after = After::Close;
    }

    /// Whether the connection ends after this exchange.
    pub fn will_close(&self) -> bool {
        self.after == After::Close
    }

    /// Whether the request was read to its end. Envoy closes the connection after a local reply to a request
    /// that was not; the codec closes by itself only where the rest is not in its buffer.
    pub fn is_request_complete(&self) -> bool {
        matches!(self.request, Request::Done)
    }

    /// How the client ended the connection, once a read or a write has shown it.
    pub fn ended(&self) -> Option<CloseReason> {
        self.wire.ended()
    }

    /// Says why the shutdown or drop that follows comes.
    pub fn before_close(&mut self, reason: CloseReason) {
        self.wire.io.before_close(reason);
    }

    /// Sends FIN after everything written.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.wire.poll_flush(cx))?;
        self.wire.io.poll_shutdown(cx)
    }

    /// Reads and drops what still comes; ready at the client's FIN, when the connection breaks, or when more
    /// came than a closing connection is worth. With a FIN sent before, this keeps late bytes from turning
    /// the close into an RST, which would cost the client the response (RFC 9112 §9.6).
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.wire.input.clear();
            match self.wire.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(read)) => {
                    self.discarded = self.discarded.saturating_add(read);
                    if self.discarded > MAX_DISCARD {
                        return Poll::Ready(());
                    }
                }
                Poll::Pending => {
                    self.wire.input.clear();
                    self.wire.release_input();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Makes the close that follows (by drop) an RST.
    pub fn abort(&mut self) {
        self.wire.io.abort_on_drop();
    }

    /// Bytes read from the client, ever.
    pub fn rx_bytes(&self) -> u64 {
        self.wire.rx
    }

    /// Bytes written to the client, ever.
    pub fn tx_bytes(&self) -> u64 {
        self.wire.tx
    }

    /// Bytes of the current request's head on the wire (`%REQUEST_HEADERS_BYTES%`).
    pub fn request_head_bytes(&self) -> u64 {
        self.request_head_bytes
    }

    /// Bytes of the current response's head on the wire (`%RESPONSE_HEADERS_BYTES%`).
    pub fn response_head_bytes(&self) -> u64 {
        self.response_head_bytes
    }

    /// Our end, if it has a name.
    pub fn local_address(&self) -> Option<Address> {
        self.wire.io.local_address()
    }

    /// The client's end, if it has a name.
    pub fn peer_address(&self) -> Option<Address> {
        self.wire.io.peer_address()
    }

    fn skip_blank_lines(&mut self) {
        while self.blank < MAX_BLANK && self.wire.input.starts_with(b"\r\n") {
            self.wire.input.advance(2);
            self.blank += 2;
        }
    }

    fn limits(&self) -> Limits {
        Limits { bytes: self.options.max_head_bytes, fields: self.options.max_headers }
    }

    fn trailers(&self) -> Trailers {
        if self.options.enable_trailers { Trailers::Keep } else { Trailers::Drop }
    }

    /// Head => (Body | Upgrade | Done)
    fn begin(&mut self, parsed: ParsedRequest) -> (Box<RequestHead>, EndStream) {
        let ParsedRequest { head, framing, persists, expects_continue } = parsed;
        self.asked = Asked::of(&head.method, head.upgrade.is_some());
        self.version = head.version;
        if !persists {
            self.after = After::Close;
        }
        if expects_continue {
            self.expectation = Expectation::Continue;
        }
        self.request = match framing {
            Framing::None => Request::Done,
            Framing::Tunnel => Request::Upgrade(None),
            _ => Request::Body(Decoder::new(framing, self.limits(), self.trailers())),
        };
        (head, EndStream::from_last(framing == Framing::None))
    }

    fn refuse(&mut self, refused: RefusedRequest) -> HeadError {
        let RefusedRequest { violation, head, leaves_connection } = refused;
        if let Some(head) = &head {
            self.asked = Asked::of(&head.method, false);
        }
        // Only a request without a host was understood; of others nothing is told on.
        let head = head.filter(|_| violation == Violation::MissingHost);
        if let Some(head) = &head {
            self.version = head.version;
        }
        // Nothing behind a message that was not understood can be (RFC 9112 §2.2).
        let understood = head.is_some() && leaves_connection && self.options.keep_without_host;
        if !understood {
            self.after = After::Close;
        }
        self.request = Request::Done;
        HeadError::Refused {
            status: violation.status(),
            body: violation.body(),
            details: violation.details().into(),
            head,
        }
    }

    /// Whether the rest of the request is here, so that the connection outlives an early response.
    fn rest_of_request_is_here(&self) -> bool {
        match &self.request {
            Request::Done => true,
            Request::Body(decoder) => decoder.needs_at_most(self.wire.input.len()),
            Request::Head(_) | Request::Upgrade(_) => false,
        }
    }

    fn drain_request(&mut self) -> bool {
        if let Request::Body(decoder) = &mut self.request {
            while let Ok(Some(_)) = decoder.decode(&mut self.wire.input) {}
            if decoder.is_done() {
                self.request = Request::Done;
            }
        }
        matches!(self.request, Request::Done)
    }

    /// Upgrade => (Body | Done): the response decides what follows the request's head.
    fn settle_upgrade(&mut self, tunnel: bool) {
        let Request::Upgrade(waker) = &mut self.request else { return };
        let waker = waker.take();
        self.request = if tunnel {
            Request::Body(Decoder::new(Framing::Tunnel, self.limits(), Trailers::Drop))
        } else {
            Request::Done
        };
        // Refused: the client may have begun to speak the other protocol, and those bytes are no request.
        // Accepted: HTTP ends here anyway.
        self.after = After::Close;
        // `poll_body` waits for this decision and for nothing on the wire.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl ServerStream for ServerConn {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Box<RequestHead>, EndStream), HeadError>> {
        loop {
            let Request::Head(scan) = &mut self.request else {
                return Poll::Ready(Err(HeadError::Gone { partial: false }));
            };
            if !scan.has_begun() {
                self.skip_blank_lines();
            }
            if self.has_buffered_input() {
                let Request::Head(scan) = &mut self.request else {
                    return Poll::Ready(Err(HeadError::Gone { partial: false }));
                };
                let before = self.wire.input.len();
                match parse_request(&mut self.wire.input, scan, &self.options) {
                    Ok(None) => {}
                    Ok(Some(parsed)) => {
                        self.request_head_bytes = (before - self.wire.input.len()) as u64;
                        return Poll::Ready(Ok(self.begin(parsed)));
                    }
                    Err(refused) => {
                        self.request_head_bytes = (before - self.wire.input.len()) as u64;
                        return Poll::Ready(Err(self.refuse(refused)));
                    }
                }
            }
            match ready!(self.wire.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => {
                    return Poll::Ready(Err(HeadError::Gone { partial: self.has_buffered_input() }));
                }
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyFrame, StreamError>> {
        let decoder = match &mut self.request {
            Request::Body(decoder) => decoder,
            Request::Upgrade(waker) => {
                *waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Request::Head(_) | Request::Done => {
                return Poll::Ready(Ok(BodyFrame::Data(Bytes::new(), EndStream::Yes)));
            }
        };
        if self.response == Response::Head {
            if self.expectation == Expectation::Continue {
                self.expectation = Expectation::None;
                self.wire.output.text(CONTINUE.len()).extend_from_slice(CONTINUE);
            }
            // The client may be waiting for it before it sends a byte. A failure shows in the read.
            if !self.wire.output.is_empty() {
                let _ = self.wire.poll_flush(cx);
            }
        }
        let frame = ready!(self.wire.poll_body(cx, decoder));
        if frame.is_err() {
            self.after = After::Close;
        } else if decoder.is_done() {
            self.request = Request::Done;
        }
        Poll::Ready(frame)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.wire.input.len() < MAX_PIPELINED {
            match ready!(self.wire.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        // Whoever sends that much ahead waits for the response like the rest; a failed write will tell.
        Poll::Pending
    }

    fn expects_continue(&self) -> bool {
        self.expectation == Expectation::Continue
    }

    fn announce_close(&mut self) {
        self.close_after_response();
    }

    fn send_informational(&mut self, head: &ResponseHead) {
        // HTTP/1.0 knows no 1xx (RFC 9110 §15.2).
        if self.version == Version::HTTP_11 && self.response == Response::Head {
            self.expectation = Expectation::None;
            encode::informational_head(&mut self.wire.output, head, self.options.name_case);
        }
    }

    fn send_head(&mut self, head: &ResponseHead, end: EndStream) {
        if self.response != Response::Head {
            return;
        }
        let tunnel = self.asked.makes_tunnel(head.status) && matches!(self.request, Request::Upgrade(_));
        self.settle_upgrade(tunnel);
        if !tunnel {
            // The client may or may not send the rest of a body that nobody asked for: what would follow
            // it could not be told from it (RFC 9112 §9.3, RFC 9110 §10.1.1).
            let closes = !self.rest_of_request_is_here()
                || encode::ends_with_connection(head, end, self.asked, self.version)
                || head.headers.get(header::CONNECTION).is_some_and(|value| value == "close");
            if closes {
                self.after = After::Close;
            }
        }
        self.expectation = Expectation::None;
        let before = self.wire.output.len();
        let asked = if tunnel { self.asked } else { self.asked.refused() };
        let context = ResponseContext {
            asked,
            version: self.version,
            close: self.after == After::Close,
            case: self.options.name_case,
        };
        let encoder = encode::response_head(&mut self.wire.output, head, end, context);
        self.response_head_bytes = (self.wire.output.len() - before) as u64;
        self.response = if tunnel { Response::Tunnel(encoder) } else { Response::Body(encoder) };
    }

    fn send_data(&mut self, data: Bytes, end: EndStream) {
        if let Response::Body(encoder) | Response::Tunnel(encoder) = &mut self.response {
            encoder.data(&mut self.wire.output, data, end);
        }
    }

    fn send_trailers(&mut self, trailers: &HeaderMap) {
        let keep = self.trailers();
        if let Response::Body(encoder) | Response::Tunnel(encoder) = &mut self.response {
            encoder.trailers(&mut self.wire.output, trailers, keep);
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        ready!(self.wire.poll_flush(cx))?;
        if matches!(self.response, Response::Tunnel(encoder) if encoder.is_done()) {
            // Half of a tunnel may end long before the other.
            ready!(self.wire.io.poll_shutdown(cx))?;
            self.response = Response::TunnelShut;
        }
        Poll::Ready(Ok(()))
    }

    fn buffered(&self) -> usize {
        self.wire.output.len()
    }

    fn reset(&mut self) {
        // What was written before stays: it shows how far the response came.
        self.after = After::Close;
        self.response = Response::Body(Encoder::Broken);
    }
}

impl fmt::Debug for ServerConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConn")
            .field("rx", &self.wire.rx)
            .field("tx", &self.wire.tx)
            .finish_non_exhaustive()
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Bytes of blank lines before a request that count for nothing. Stops a client that sends only these.
const MAX_BLANK: usize = 512;

/// Bytes kept of requests that come while one is being answered. Stops a client that sends without
/// reading.
const MAX_PIPELINED: usize = 64 * 1024;

/// Bytes that a closing connection reads and drops before it gives up. Stops an endless upload.
const MAX_DISCARD: usize = 1024 * 1024;

#[cfg(test)]
mod tests;
