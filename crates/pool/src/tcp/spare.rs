//! A connection that no session has yet: what its peer says meanwhile is kept for the session.
//!
//! A plain socket is looked at without being read. Of any other transport the bytes have to be taken; they are
//! put in front of the rest.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tidegate_net::{Io, Peeked};
use tidegate_types::{Address, CloseReason, TlsInfo};

use crate::dialer::Opened;

/// How much of an early message is read. The rest waits below.
const EARLY_BYTES: usize = 4 * 1024;

/// See the module.
pub(super) struct Spare {
    opened: Opened,
    early: BytesMut,
}

/// What happened on a spare connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Early {
    /// The peer sent something.
    Spoke,
    /// The connection is over, in this way.
    Ended(CloseReason),
}

impl Spare {
    pub(super) fn new(opened: Opened) -> Self {
        Self { opened, early: BytesMut::new() }
    }

    /// Ready when something happened.
    pub(super) fn poll_stirred(&mut self, cx: &mut Context<'_>) -> Poll<Early> {
        if !self.early.is_empty() {
            return Poll::Ready(Early::Spoke);
        }
        let seen = match self.opened.io.peek() {
            Some(peek) => {
                let mut look = BytesMut::new();
                ready!(peek.poll_peek(cx, &mut look, 0, 1)).map(|peeked| peeked == Peeked::More)
            }
            None => {
                // No buffer before there is something to read.
                match ready!(self.opened.io.poll_read_ready(cx)) {
                    Ok(()) => {
                        self.early.reserve(EARLY_BYTES);
                        let read = self.opened.io.poll_read(cx, &mut self.early);
                        if self.early.is_empty() {
                            self.early = BytesMut::new();
                        }
                        ready!(read).map(|read| read > 0)
                    }
                    Err(error) => Err(error),
                }
            }
        };
        Poll::Ready(match seen {
            Ok(true) => Early::Spoke,
            Ok(false) => Early::Ended(CloseReason::PeerFin),
            Err(error) => Early::Ended(CloseReason::of_io(&error)),
        })
    }

    /// The connection for its session.
    pub(super) fn into_opened(self) -> Opened {
        if self.early.is_empty() {
            return self.opened;
        }
        let early = Prefixed { first: self.early, io: self.opened.io };
        Opened { io: Box::new(early), ..self.opened }
    }
}

/// Bytes in front of a connection's.
struct Prefixed {
    first: BytesMut,
    io: tidegate_net::BoxIo,
}

impl Io for Prefixed {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        if self.first.is_empty() {
            return self.io.poll_read(cx, buf);
        }
        if buf.capacity() == buf.len() {
            buf.reserve(1);
        }
        let length = self.first.len().min(buf.capacity() - buf.len());
        buf.extend_from_slice(&self.first[..length]);
        self.first.advance(length);
        Poll::Ready(Ok(length))
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() { self.io.poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.io.poll_write(cx, bufs)
    }

    fn before_close(&mut self, reason: CloseReason) {
        self.io.before_close(reason);
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_shutdown(cx)
    }

    fn abort_on_drop(&mut self) {
        self.io.abort_on_drop();
    }

    fn local_address(&self) -> Option<Address> {
        self.io.local_address()
    }

    fn peer_address(&self) -> Option<Address> {
        self.io.peer_address()
    }

    fn tls(&self) -> Option<&Rc<TlsInfo>> {
        self.io.tls()
    }

    fn failure(&self) -> Option<&str> {
        self.io.failure()
    }
}
