//! A connection whose bytes pass network filters.
//!
//! As soon as every filter is done (and nothing waits) all calls go straight to the connection below, whose
//! TCP socket shows again. A filter that closes the connection closes it at once: the terminal filter
//! then reads and writes [`io::ErrorKind::ConnectionAborted`], which no socket gives after `accept`.

use std::io::{self, IoSlice};
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tidegate_filter::NetworkClose;
use tidegate_net::{BoxIo, Io};
use tidegate_types::{Address, CloseReason, EndStream, TlsInfo};
use tokio::net::TcpStream;

use super::filters::{Direction, OpenFilters, Walk};
use crate::HalfClose;

/// [`Io`] with filters in it.
pub(super) struct FilteredIo {
    /// `None` once a filter closed it.
    io: Option<BoxIo>,
    filters: OpenFilters,
    inbound: Inbound,
    outbound: Outbound,
    half_close: HalfClose,
    /// The terminal filter closes the connection.
    closing: bool,
}

/// What was read and not yet handed on.
struct Inbound {
    walk: Option<Walk>,
    /// Through all filters.
    ready: BytesMut,
    /// The client's FIN is through all filters.
    end: EndStream,
}

/// What was taken for writing and is not yet written.
#[derive(Default)]
struct Outbound {
    walk: Option<Walk>,
    /// Through all filters.
    ready: BytesMut,
    /// How many of the writer's bytes these are. The writer hears of them when all are written, so that
    /// nothing waits here that nobody comes back for.
    taken: usize,
    /// Whether the filters know of our FIN.
    ended: bool,
}

impl FilteredIo {
    /// A connection from which `early` bytes have been read; with the end, all there are.
    pub(super) fn new(
        io: BoxIo,
        filters: OpenFilters,
        half_close: HalfClose,
        (early, end): (BytesMut, EndStream),
    ) -> Self {
        let walk =
            (!early.is_empty() || end == EndStream::Yes).then(|| Walk::new(Direction::Read, early, end));
        let inbound = Inbound { walk, ready: BytesMut::new(), end: EndStream::No };
        Self { io: Some(io), filters, inbound, outbound: Outbound::default(), half_close, closing: false }
    }

    /// What an error on the socket says of the connection's end.
    pub(super) fn reason_of(error: &io::Error) -> CloseReason {
        match error.kind() {
            io::ErrorKind::TimedOut => CloseReason::ConnectTimeout,
            io::ErrorKind::InvalidData => CloseReason::TlsError,
            _ => CloseReason::PeerRst,
        }
    }

    /// Hands on what is ready: bytes, or 0 at the end; `None` when nothing is.
    fn hand_on(&mut self, buf: &mut BytesMut) -> Option<usize> {
        let ready = &mut self.inbound.ready;
        if ready.is_empty() {
            return (self.inbound.end == EndStream::Yes).then_some(0);
        }
        if buf.capacity() == buf.len() {
            buf.reserve(ready.len());
        }
        let part = ready.split_to(ready.len().min(buf.capacity() - buf.len()));
        buf.extend_from_slice(&part);
        if ready.is_empty() {
            *ready = BytesMut::new();
        }
        Some(part.len())
    }

    /// Takes what was read through the filters; then it is ready.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(walk) = &mut self.inbound.walk else { return Poll::Ready(Ok(())) };
        let walked = ready!(walk.poll(&mut self.filters, cx));
        let Some(walk) = self.inbound.walk.take() else { return Poll::Ready(Ok(())) };
        if let Err(close) = walked {
            return Poll::Ready(Err(self.close(close, walk.received(), cx)));
        }
        (self.inbound.ready, self.inbound.end) = (walk.data, walk.end);
        Poll::Ready(Ok(()))
    }

    /// Takes what is to be written through the filters and writes all of it.
    fn poll_outbound(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(walk) = &mut self.outbound.walk {
            let walked = ready!(walk.poll(&mut self.filters, cx));
            let walk = self.outbound.walk.take();
            if let Err(close) = walked {
                return Poll::Ready(Err(self.close(close, 0, cx)));
            }
            self.outbound.ready = walk.map(|walk| walk.data).unwrap_or_default();
        }
        let Some(io) = &mut self.io else { return Poll::Ready(Err(aborted())) };
        let bytes = &mut self.outbound.ready;
        while !bytes.is_empty() {
            let written = ready!(io.poll_write(cx, &[IoSlice::new(bytes)]))?;
            bytes.advance(written);
        }
        *bytes = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Closes the connection below: FIN, or RST if the client sent what nobody read, as Envoy's close does.
    fn close(&mut self, close: NetworkClose, unserved: usize, cx: &mut Context<'_>) -> io::Error {
        self.filters.refuse(close, unserved);
        if let Some(mut io) = self.io.take() {
            io.before_close(CloseReason::Refused);
            // One attempt, for the farewell of TLS: a client that does not read cannot hold the close up.
            let _ = io.poll_shutdown(cx);
        }
        aborted()
    }

    /// The connection below, if bytes of `direction` go straight to it.
    fn direct(&mut self, direction: Direction) -> Option<&mut BoxIo> {
        let direct = match direction {
            // What comes once the terminal filter closes is only thrown away: no filter judges it.
            Direction::Read => self.closing || (self.inbound.is_clear() && !self.filters.any(direction)),
            Direction::Write => self.outbound.is_clear() && !self.filters.any(direction),
        };
        if direct { self.io.as_mut() } else { None }
    }
}

impl Inbound {
    fn is_clear(&self) -> bool {
        self.walk.is_none() && self.ready.is_empty() && self.end == EndStream::No
    }
}

impl Outbound {
    fn is_clear(&self) -> bool {
        self.taken == 0 && self.walk.is_none() && self.ready.is_empty()
    }
}

impl Io for FilteredIo {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        loop {
            if let Some(io) = self.direct(Direction::Read) {
                return io.poll_read(cx, buf);
            }
            ready!(self.poll_inbound(cx))?;
            if let Some(read) = self.hand_on(buf) {
                return Poll::Ready(Ok(read));
            }
            let Some(io) = &mut self.io else { return Poll::Ready(Err(aborted())) };
            let before = buf.len();
            if buf.capacity() == before {
                buf.reserve(READ);
            }
            let read = match ready!(io.poll_read(cx, buf)) {
                Ok(read) => read,
                Err(error) => {
                    self.filters.reason = Some(Self::reason_of(&error));
                    return Poll::Ready(Err(error));
                }
            };
            let end = EndStream::from_last(read == 0);
            if read == 0 {
                self.filters.reason = Some(CloseReason::PeerFin);
                if self.half_close == HalfClose::Ends {
                    self.inbound.end = EndStream::Yes;
                    return Poll::Ready(Ok(0));
                }
            }
            // The new bytes alone, in the reader's own buffer: with no filter that waits they are not copied.
            let data = if before == 0 { mem::take(buf) } else { buf.split_off(before) };
            let mut walk = Walk::new(Direction::Read, data, end);
            match walk.poll(&mut self.filters, cx) {
                Poll::Pending => {
                    self.inbound.walk = Some(walk);
                    return Poll::Pending;
                }
                Poll::Ready(Err(close)) => {
                    return Poll::Ready(Err(self.close(close, walk.received(), cx)));
                }
                Poll::Ready(Ok(())) => {
                    let left = walk.data.len();
                    buf.unsplit(walk.data);
                    self.inbound.end = end;
                    if left > 0 || end == EndStream::Yes {
                        return Poll::Ready(Ok(left));
                    }
                }
            }
        }
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(io) = self.direct(Direction::Read) {
            return io.poll_read_ready(cx);
        }
        ready!(self.poll_inbound(cx))?;
        if !self.inbound.is_clear() {
            return Poll::Ready(Ok(()));
        }
        match &mut self.io {
            Some(io) => io.poll_read_ready(cx),
            None => Poll::Ready(Err(aborted())),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(io) = self.direct(Direction::Write) {
            return io.poll_write(cx, bufs);
        }
        if self.outbound.is_clear() {
            let mut data = BytesMut::new();
            for buf in bufs {
                let room = WRITE - data.len();
                data.extend_from_slice(buf.get(..room).unwrap_or(buf));
            }
            self.outbound.taken = data.len();
            self.outbound.walk = Some(Walk::new(Direction::Write, data, EndStream::No));
        }
        ready!(self.poll_outbound(cx))?;
        // Whoever was told `Pending` comes again with the same bytes first, perhaps with more behind them.
        let offered = bufs.iter().map(|buf| buf.len()).sum();
        Poll::Ready(Ok(mem::take(&mut self.outbound.taken).min(offered)))
    }

    fn before_close(&mut self, reason: CloseReason) {
        self.filters.reason = Some(reason);
        self.closing = true;
        if let Some(io) = &mut self.io {
            io.before_close(reason);
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.io.is_none() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_outbound(cx))?;
        if !self.outbound.ended {
            self.outbound.ended = true;
            if self.filters.any(Direction::Write) {
                self.outbound.walk = Some(Walk::new(Direction::Write, BytesMut::new(), EndStream::Yes));
                ready!(self.poll_outbound(cx))?;
            }
        }
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(())) };
        let shut = ready!(io.poll_shutdown(cx));
        if self.closing {
            // Reading on for the client's sake is no part of the connection: `connection_limit` counts it no more.
            self.filters.end();
        }
        Poll::Ready(shut)
    }

    fn abort_on_drop(&mut self) {
        if let Some(io) = &mut self.io {
            io.abort_on_drop();
        }
    }

    fn local_address(&self) -> Option<Address> {
        self.io.as_ref()?.local_address()
    }

    fn peer_address(&self) -> Option<Address> {
        self.io.as_ref()?.peer_address()
    }

    fn plain_tcp(&self) -> Option<&TcpStream> {
        let idle = self.inbound.is_clear() && self.outbound.is_clear();
        let unseen = !self.filters.any(Direction::Read) && !self.filters.any(Direction::Write);
        if idle && unseen { self.io.as_ref()?.plain_tcp() } else { None }
    }

    fn tls(&self) -> Option<&Rc<TlsInfo>> {
        self.io.as_ref()?.tls()
    }

    fn failure(&self) -> Option<&str> {
        self.io.as_ref()?.failure()
    }
}

/// What the terminal filter gets of a connection that a filter closed.
fn aborted() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// Bytes per read into a buffer that came without room.
const READ: usize = 4096;

/// Most bytes that filters see of one write: keeps a large body from being copied as a whole.
const WRITE: usize = 64 * 1024;
