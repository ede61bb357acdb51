//! A connection to a client: many exchanges at once.
//!
//! [`ServerConn::poll_accept`] drives everything, and must be polled as long as there are exchanges; it wakes
//! its task for whatever an exchange sends. Apart from the clock of `connection_keepalive` it decides nothing
//! about time: idle timeouts and drains are the caller's, in this order: [`ServerConn::announce_goaway`], some
//! time later [`ServerConn::final_goaway`], and when [`ServerConn::streams`] is 0 [`ServerConn::poll_shutdown`].

mod exchange;

use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tidegate_net::BoxIo;
use tidegate_types::{Address, CloseReason};

pub use self::exchange::ServerExchange;
use super::conn::{Core, Shared, Side};
use super::events::{ConnError, Observer};
use super::options::ServerOptions;
use crate::stream::ResetCode;

/// An HTTP/2 connection to a client.
pub struct ServerConn {
    shared: Shared,
    drain: Drain,
    discarded: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// The client was asked to open no more streams, and may.
    Announced,
    /// Streams that come from now on are refused.
    Final,
}

impl ServerConn {
    /// Serves `io`, of which `seen` was read already (the preface, or nothing).
    pub fn new(io: BoxIo, seen: BytesMut, options: Rc<ServerOptions>, observer: Rc<dyn Observer>) -> Self {
        let shared = Core::new(io, seen, Side::Server(options), observer);
        Self { shared, drain: Drain::No, discarded: 0 }
    }

    /// The next exchange; drives the connection and must be called until it is pending, since bytes are written
    /// then. `None` when the client has closed the connection, or said goodbye and has nothing left. After an error
    /// come the exchanges that the client opened shortly before, to be told of the end, and `None`.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ServerExchange, ConnError>>> {
        loop {
            {
                let core = &mut *self.shared.borrow_mut();
                // Before the exchanges that came with it: they are told by it why they end.
                if let Some(error) = core.take_fault() {
                    // What can still be said; the rest goes with the shutdown.
                    let _ = core.wire.poll_flush(cx);
                    return Poll::Ready(Some(Err(error)));
                }
                if let Some(key) = core.rx.accept.pop_front() {
                    return Poll::Ready(Some(Ok(ServerExchange::new(Rc::clone(&self.shared), core, key))));
                }
                if core.take_ended().is_some() || core.is_over() {
                    return Poll::Ready(None);
                }
            }
            ready!(self.shared.borrow_mut().poll_drive(cx));
        }
    }

    /// Asks the client to open no more streams, and still serves those that it does (GOAWAY 2^31-1, RFC 9113
    /// §6.8).
    pub fn announce_goaway(&mut self) {
        let core = &mut *self.shared.borrow_mut();
        if self.drain == Drain::No && !core.is_over() {
            self.drain = Drain::Announced;
            core.announce_goaway();
        }
    }

    /// Streams that were not received by now are refused (the last GOAWAY); those under way are finished.
    pub fn final_goaway(&mut self) {
        if self.drain != Drain::Final {
            self.drain = Drain::Final;
            let core = &mut *self.shared.borrow_mut();
            core.tx.last_served = Some(core.rx.last_stream);
            core.say_goodbye(ResetCode::NoError);
        }
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.drain != Drain::No
    }

    /// Ends the connection now: its exchanges fail. With a code the client is told by GOAWAY.
    pub fn close_now(&mut self, code: Option<ResetCode>) {
        let core = &mut *self.shared.borrow_mut();
        if let Some(code) = code {
            core.say_goodbye(code);
        }
        core.close();
    }

    /// Exchanges that live. The task is woken when the last one ends.
    pub fn streams(&self) -> u32 {
        self.shared.borrow().live
    }

    /// Gives back the room for streams, if there are none. For a connection that has been without for a while: to
    /// make room for many costs more than they do.
    pub fn release_places(&mut self) {
        self.shared.borrow_mut().streams.shrink();
    }

    /// Whether an exchange asked for the connection to be drained
    /// ([`announce_close`](crate::ServerStream::announce_close)). The task is woken when one does.
    pub fn is_close_announced(&self) -> bool {
        self.shared.borrow().facts.close_announced
    }

    /// Whether a request's head has begun of which there is no exchange yet.
    pub fn is_head_open(&self) -> bool {
        self.shared.borrow().is_head_open()
    }

    /// Says why the shutdown or drop that follows comes.
    pub fn before_close(&mut self, reason: CloseReason) {
        self.shared.borrow_mut().wire.io.before_close(reason);
    }

    /// Sends FIN after everything written. The exchanges that are left fail.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let core = &mut *self.shared.borrow_mut();
        core.close();
        ready!(core.wire.poll_flush(cx))?;
        core.wire.io.poll_shutdown(cx)
    }

    /// Reads and drops what still comes; ready at the client's FIN, when the connection breaks, or when more
    /// came than a closing connection is worth.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.shared.borrow_mut().poll_drop_input(cx)) {
                Ok(read @ 1..) => {
                    self.discarded = self.discarded.saturating_add(read);
                    if self.discarded > MAX_DISCARD {
                        return Poll::Ready(());
                    }
                }
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Makes the close that follows (by drop) an RST.
    pub fn abort(&mut self) {
        self.shared.borrow_mut().wire.io.abort_on_drop();
    }

    /// Whether the client's FIN was read.
    pub fn is_closed_by_peer(&self) -> bool {
        self.shared.borrow().wire.eof
    }

    /// Bytes read from the client, ever.
    pub fn rx_bytes(&self) -> u64 {
        self.shared.borrow().wire.rx
    }

    /// Bytes written to the client, ever.
    pub fn tx_bytes(&self) -> u64 {
        self.shared.borrow().wire.tx
    }

    /// Our end, if it has a name.
    pub fn local_address(&self) -> Option<Address> {
        self.shared.borrow().wire.io.local_address()
    }

    /// The client's end, if it has a name.
    pub fn peer_address(&self) -> Option<Address> {
        self.shared.borrow().wire.io.peer_address()
    }
}

impl fmt::Debug for ServerConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConn").field("streams", &self.streams()).finish_non_exhaustive()
    }
}

/// Bytes that a closing connection reads and drops before it gives up. Stops an endless upload.
const MAX_DISCARD: usize = 1024 * 1024;

impl Drop for ServerConn {
    fn drop(&mut self) {
        self.shared.borrow_mut().close();
    }
}

#[cfg(test)]
mod tests;
