//! The TCP connection of a CONNECT whose tunnel ends here (`connect_config`), as the exchange that the rest of the
//! router knows: it answers 200 by itself, and its body is the connection's bytes.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tidegate_cluster::stream::{BodyFrame, ClientStream, ResponseFrame, StreamError};
use tidegate_cluster::{Failed, tcp};
use tidegate_types::{CloseReason, EndStream, RequestHead, ResponseHead};
use tokio::time::{Duration, Instant};

/// See the module.
pub(super) struct Tunnel {
    connection: tcp::Connection,
    queue: VecDeque<Bytes>,
    queued: usize,
    outgoing: Outgoing,
    answered: bool,
    written: bool,
    active_at: Instant,
}

/// How far our direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outgoing {
    Open,
    /// FIN is due behind what is queued.
    Ending,
    Ended,
}

/// Bytes read at once.
const READ: usize = 16 * 1024;
/// Pieces that one system call takes.
const PIECES: usize = 16;

impl Tunnel {
    pub(super) fn new(connection: tcp::Connection) -> Self {
        Self {
            connection,
            queue: VecDeque::new(),
            queued: 0,
            outgoing: Outgoing::Open,
            answered: false,
            written: false,
            active_at: Instant::now(),
        }
    }

    pub(super) fn facts(&self) -> &tcp::Facts {
        self.connection.lease.facts()
    }

    /// The upstream ended its direction, and the tunnel with it: as in Envoy it counts as closed here.
    pub(super) fn finish(self) {
        self.end(CloseReason::Announced);
    }

    pub(super) fn failed(self, how: Failed) {
        self.end(match how {
            Failed::PeerClosed(reason) | Failed::PeerClosedInMessage(reason) => reason,
            Failed::Protocol => CloseReason::ProtocolError,
            Failed::StreamReset { .. } => CloseReason::RequestReset,
            Failed::TimedOut => CloseReason::RequestTimeout,
        });
    }

    fn end(self, reason: CloseReason) {
        let idle: Duration = self.active_at.elapsed();
        self.connection.lease.end(reason, idle);
    }

    fn advance(&mut self, mut written: usize) {
        self.queued -= written;
        while let Some(front) = self.queue.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.queue.pop_front();
        }
    }
}

impl ClientStream for Tunnel {
    fn send_head(&mut self, _head: &RequestHead, end: EndStream) {
        // The request is for us: nothing of it goes up.
        if end.is_end() {
            self.outgoing = Outgoing::Ending;
        }
    }

    fn send_data(&mut self, data: Bytes, end: EndStream) {
        if self.outgoing != Outgoing::Open {
            return;
        }
        if !data.is_empty() {
            self.queued += data.len();
            self.queue.push_back(data);
        }
        if end.is_end() {
            self.outgoing = Outgoing::Ending;
        }
    }

    fn send_trailers(&mut self, _trailers: &HeaderMap) {
        self.send_data(Bytes::new(), EndStream::Yes);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        while self.queued > 0 {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (piece, bytes) in pieces.iter_mut().zip(&self.queue) {
                *piece = IoSlice::new(bytes);
                count += 1;
            }
            let written = ready!(self.connection.io.poll_write(cx, &pieces[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into()));
            }
            self.connection.lease.stats().upstream_cx_tx_bytes_total().add(written as u64);
            self.written = true;
            self.active_at = Instant::now();
            self.advance(written);
        }
        if self.outgoing == Outgoing::Ending {
            ready!(self.connection.io.poll_shutdown(cx))?;
            self.outgoing = Outgoing::Ended;
        }
        Poll::Ready(Ok(()))
    }

    fn buffered(&self) -> usize {
        self.queued
    }

    fn is_unwritten(&self) -> bool {
        !self.written
    }

    fn poll_head(&mut self, _cx: &mut Context<'_>) -> Poll<Result<ResponseFrame, StreamError>> {
        if std::mem::replace(&mut self.answered, true) {
            return Poll::Ready(Err(StreamError::Closed));
        }
        Poll::Ready(Ok(ResponseFrame::Head(ResponseHead::new(StatusCode::OK), EndStream::No)))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyFrame, StreamError>> {
        // A silent tunnel holds no buffer.
        ready!(self.connection.io.poll_read_ready(cx))?;
        let mut buffer = BytesMut::with_capacity(READ);
        let read = ready!(self.connection.io.poll_read(cx, &mut buffer))?;
        if read == 0 {
            return Poll::Ready(Ok(BodyFrame::Data(Bytes::new(), EndStream::Yes)));
        }
        self.connection.lease.stats().upstream_cx_rx_bytes_total().add(read as u64);
        self.active_at = Instant::now();
        Poll::Ready(Ok(BodyFrame::Data(buffer.freeze(), EndStream::No)))
    }

    fn reset(&mut self) {
        self.queue.clear();
        self.queued = 0;
        self.outgoing = Outgoing::Ended;
        self.connection.io.abort_on_drop();
    }
}
