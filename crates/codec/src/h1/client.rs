//! A connection to an upstream: one exchange after the other.
//!
//! [`ClientConn`] is a [`ClientStream`] for the exchange under way; [`ClientConn::is_reusable`] says after
//! it whether another may follow, and [`ClientConn::poll_idle_closed`] watches the connection in the pool.
//! Timeouts and retries are the caller's.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tidegate_net::BoxIo;
use tidegate_net::prefetch::prefetch;
use tidegate_types::{Address, CloseReason, EndStream, RequestHead};

use super::body::{Decoder, Trailers};
use super::encode::{self, Encoder};
use super::options::ClientOptions;
use super::parse::{HeadScan, Limits, ParsedResponse, parse_response};
use super::rules::{Asked, Framing};
use super::wire::{Wire, protocol_error};
use crate::stream::{BodyFrame, ClientStream, ResponseFrame, StreamError};

/// An HTTP/1.1 connection to an upstream.
pub struct ClientConn {
    wire: Wire,
    options: Rc<ClientOptions>,
    request: Request,
    response: Response,
    asked: Asked,
    reuse: Reuse,
    /// Seconds that the upstream said it would keep the connection.
    keep_alive_timeout: Option<u32>,
    response_head_bytes: u64,
    request_head_bytes: u64,
    /// [`Wire::tx`] when the exchange under way began.
    tx_before: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    /// None was sent.
    None,
    Body(Encoder),
    Tunnel(Encoder),
    /// A tunnel whose outgoing direction has ended with a FIN.
    TunnelShut,
}

enum Response {
    /// None is due.
    None,
    Head(HeadScan),
    Body(Decoder),
    Done,
    Failed,
}

/// Whether another exchange may follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reuse {
    Yes,
    /// The upstream said `connection: close`, or speaks HTTP/1.0.
    Refused,
    /// Framing or failure forbids it.
    No,
}

/// What happened to an idle connection.
#[derive(Debug)]
pub enum IdleEvent {
    /// The upstream's FIN.
    Closed,
    /// The connection broke.
    Broken(io::Error),
    /// Bytes that answer no request: whatever they are, the next response could not be trusted.
    UnexpectedBytes,
}

impl ClientConn {
    /// Uses `io`. Holds no buffer until a request is sent.
    pub fn new(io: BoxIo, options: Rc<ClientOptions>) -> Self {
        Self {
            wire: Wire::new(io, options.buffer_limit),
            options,
            request: Request::None,
            response: Response::None,
            asked: Asked::Ordinary,
            reuse: Reuse::Yes,
            keep_alive_timeout: None,
            response_head_bytes: 0,
            request_head_bytes: 0,
            tx_before: 0,
        }
    }

    /// Whether a request may be sent now: none is under way, and the last one and its response ended whole,
    /// with nothing after them and no word of closing (RFC 9112 §9.3).
    pub fn is_reusable(&self) -> bool {
        let whole = match (&self.request, &self.response) {
            (Request::None, Response::None) => true,
            (Request::Body(encoder), Response::Done) => encoder.is_done(),
            _ => false,
        };
        whole
            && self.reuse == Reuse::Yes
            && !self.wire.eof
            && self.wire.input.is_empty()
            && self.wire.output.is_empty()
    }

    /// Whether the response announced that the connection ends after it.
    pub fn saw_close_notice(&self) -> bool {
        self.reuse == Reuse::Refused
    }

    /// For how long the upstream said that it keeps the connection without a request (`Keep-Alive: timeout=N`).
    #[inline]
    pub fn announced_idle_limit(&self) -> Option<Duration> {
        self.keep_alive_timeout.map(|seconds| Duration::from_secs(u64::from(seconds)))
    }

    /// Whether the peer's FIN was read.
    pub fn is_closed_by_peer(&self) -> bool {
        self.wire.eof
    }

    /// Whether bytes came behind the response, which nobody asked for.
    pub fn has_excess(&self) -> bool {
        matches!(self.response, Response::Done) && !self.wire.input.is_empty()
    }

    /// Whether the request was written whole, to the last byte.
    pub fn is_request_complete(&self) -> bool {
        self.wire.output.is_empty() && matches!(self.request, Request::Body(encoder) if encoder.is_done())
    }

    /// Ready when an idle connection became useless. Costs no system call and holds no buffer unless
    /// something did happen.
    pub fn poll_idle_closed(&mut self, cx: &mut Context<'_>) -> Poll<IdleEvent> {
        if !self.wire.input.is_empty() {
            return Poll::Ready(IdleEvent::UnexpectedBytes);
        }
        if self.wire.eof {
            return Poll::Ready(IdleEvent::Closed);
        }
        if let Err(error) = ready!(self.wire.io.poll_read_ready(cx)) {
            return Poll::Ready(IdleEvent::Broken(error));
        }
        let mut probe = BytesMut::with_capacity(PROBE);
        match ready!(self.wire.io.poll_read(cx, &mut probe)) {
            Ok(0) => {
                self.wire.eof = true;
                Poll::Ready(IdleEvent::Closed)
            }
            Ok(read) => {
                self.wire.rx += read as u64;
                self.reuse = Reuse::No;
                Poll::Ready(IdleEvent::UnexpectedBytes)
            }
            Err(error) => Poll::Ready(IdleEvent::Broken(error)),
        }
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

    /// The connection below, for a farewell that needs no codec.
    pub fn into_io(self) -> BoxIo {
        self.wire.io
    }

    /// Makes the close that follows (by drop) an RST.
    pub fn abort(&mut self) {
        self.wire.io.abort_on_drop();
    }

    /// Bytes read from the upstream, ever.
    pub fn rx_bytes(&self) -> u64 {
        self.wire.rx
    }

    /// Bytes written to the upstream, ever.
    pub fn tx_bytes(&self) -> u64 {
        self.wire.tx
    }

    /// Bytes of the current request's head on the wire.
    pub fn request_head_bytes(&self) -> u64 {
        self.request_head_bytes
    }

    /// Bytes of the current response's head on the wire.
    pub fn response_head_bytes(&self) -> u64 {
        self.response_head_bytes
    }

    /// Our end, if it has a name.
    pub fn local_address(&self) -> Option<Address> {
        self.wire.io.local_address()
    }

    /// The upstream's end, if it has a name.
    pub fn peer_address(&self) -> Option<Address> {
        self.wire.io.peer_address()
    }

    fn limits(&self) -> Limits {
        Limits { bytes: self.options.max_head_bytes, fields: self.options.max_headers }
    }

    fn trailers(&self) -> Trailers {
        if self.options.enable_trailers { Trailers::Keep } else { Trailers::Drop }
    }

    fn fail(&mut self, error: StreamError) -> StreamError {
        self.response = Response::Failed;
        self.reuse = Reuse::No;
        error
    }

    /// Head => (Head | Body | Done)
    fn on_head(&mut self, parsed: ParsedResponse) -> ResponseFrame {
        let ParsedResponse { head, framing, persists, announces_close, keep_alive_timeout } = parsed;
        if keep_alive_timeout.is_some() {
            self.keep_alive_timeout = keep_alive_timeout;
        }
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            self.response = Response::Head(HeadScan::default());
            return ResponseFrame::Informational(head);
        }
        match framing {
            Framing::Tunnel => self.reuse = Reuse::No,
            _ if announces_close => self.reuse = Reuse::Refused,
            _ if !persists => self.reuse = Reuse::No,
            _ => {}
        }
        if let (Request::Tunnel(_), true) = (self.request, framing != Framing::Tunnel) {
            // The upgrade was refused. What was sent for the tunnel may be taken for a request there.
            self.request = Request::Body(Encoder::Broken);
            self.reuse = Reuse::No;
        }
        self.response = Response::Body(Decoder::new(framing, self.limits(), self.trailers()));
        if framing == Framing::None {
            self.complete();
        }
        ResponseFrame::Head(head, EndStream::from_last(framing == Framing::None))
    }

    fn complete(&mut self) {
        self.response = Response::Done;
        self.wire.release_input();
    }
}

impl ClientStream for ClientConn {
    fn send_head(&mut self, head: &RequestHead, end: EndStream) {
        self.asked = Asked::of(&head.method, head.upgrade.is_some());
        let before = self.wire.output.len();
        self.tx_before = self.wire.tx;
        let encoder = encode::request_head(&mut self.wire.output, head, end, self.options.name_case);
        self.request_head_bytes = (self.wire.output.len() - before) as u64;
        self.request =
            if encoder == Encoder::Tunnel { Request::Tunnel(encoder) } else { Request::Body(encoder) };
        self.response = Response::Head(HeadScan::default());
    }

    fn send_data(&mut self, data: Bytes, end: EndStream) {
        if let Request::Body(encoder) | Request::Tunnel(encoder) = &mut self.request {
            encoder.data(&mut self.wire.output, data, end);
        }
    }

    fn send_trailers(&mut self, trailers: &HeaderMap) {
        let keep = self.trailers();
        if let Request::Body(encoder) | Request::Tunnel(encoder) = &mut self.request {
            encoder.trailers(&mut self.wire.output, trailers, keep);
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        ready!(self.wire.poll_flush(cx))?;
        if matches!(self.request, Request::Tunnel(encoder) if encoder.is_done()) {
            // Half of a tunnel may end long before the other.
            ready!(self.wire.io.poll_shutdown(cx))?;
            self.request = Request::TunnelShut;
        }
        Poll::Ready(Ok(()))
    }

    fn buffered(&self) -> usize {
        self.wire.output.len()
    }

    fn is_unwritten(&self) -> bool {
        self.wire.tx == self.tx_before
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseFrame, StreamError>> {
        prefetch(self);
        loop {
            let limits = self.limits();
            let Response::Head(scan) = &mut self.response else {
                return Poll::Ready(Err(StreamError::Closed));
            };
            if !self.wire.input.is_empty() {
                let before = self.wire.input.len();
                match parse_response(&mut self.wire.input, scan, limits, self.asked, self.options.keep_names)
                {
                    Ok(None) => {}
                    Ok(Some(parsed)) => {
                        self.response_head_bytes = (before - self.wire.input.len()) as u64;
                        return Poll::Ready(Ok(self.on_head(parsed)));
                    }
                    Err(violation) => return Poll::Ready(Err(self.fail(protocol_error(violation)))),
                }
            }
            match ready!(self.wire.poll_fill(cx)) {
                Ok(0) if self.wire.input.is_empty() => {
                    return Poll::Ready(Err(self.fail(StreamError::Closed)));
                }
                Ok(0) => return Poll::Ready(Err(self.fail(StreamError::Truncated))),
                Ok(_) => {}
                Err(error) if self.wire.input.is_empty() => {
                    return Poll::Ready(Err(self.fail(error.into())));
                }
                // Some of the answer is there: whatever ends the connection, it is cut, as for Envoy.
                Err(_) => return Poll::Ready(Err(self.fail(StreamError::Truncated))),
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyFrame, StreamError>> {
        let Response::Body(decoder) = &mut self.response else {
            return Poll::Ready(Ok(BodyFrame::Data(Bytes::new(), EndStream::Yes)));
        };
        match ready!(self.wire.poll_body(cx, decoder)) {
            Ok(frame) => {
                if decoder.is_done() {
                    self.complete();
                }
                Poll::Ready(Ok(frame))
            }
            // Envoy takes an RST, too, for the end of a message that ends with its connection.
            Err(StreamError::Io(_)) if decoder.is_until_close() => {
                self.complete();
                Poll::Ready(Ok(BodyFrame::Data(Bytes::new(), EndStream::Yes)))
            }
            // An incomplete message (RFC 9112 §8): for Envoy the upstream broke the protocol.
            Err(StreamError::Closed | StreamError::Io(_)) => {
                Poll::Ready(Err(self.fail(StreamError::Truncated)))
            }
            Err(error) => Poll::Ready(Err(self.fail(error))),
        }
    }

    fn reset(&mut self) {
        self.reuse = Reuse::No;
        self.wire.output.clear();
        self.response = Response::Failed;
    }
}

impl fmt::Debug for ClientConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConn")
            .field("rx", &self.wire.rx)
            .field("tx", &self.wire.tx)
            .finish_non_exhaustive()
    }
}

/// Bytes read from a connection that should have none: one would do.
const PROBE: usize = 64;

#[cfg(test)]
mod tests;
