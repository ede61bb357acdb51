//! A connection to a client: many exchanges at once.
//!
//! [`ServerConn`] is used as a [`ServerConnection`]. Apart from the clock of `connection_keepalive` it decides
//! nothing about time.

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
use super::options::ServerOptions;
use crate::multiplex::{Accounting, ConnError, Observer, ServerConnection, Traffic};
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
}

impl Accounting for ServerConn {}

impl ServerConnection for ServerConn {
    type Exchange = ServerExchange;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ServerExchange, ConnError>>> {
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

    fn let_output_wait(&mut self, may_wait: bool) {
        self.shared.borrow_mut().may_wait = may_wait;
    }

    fn does_output_wait(&self) -> bool {
        self.shared.borrow().waits
    }

    fn write_waiting(&mut self, cx: &mut Context<'_>) {
        let core = &mut *self.shared.borrow_mut();
        core.waits = false;
        // Who reads next is told of a failure.
        let _ = core.poll_write(cx);
    }

    fn announce_goaway(&mut self) {
        let core = &mut *self.shared.borrow_mut();
        // 2^31-1 (RFC 9113 §6.8).
        if self.drain == Drain::No && !core.is_over() {
            self.drain = Drain::Announced;
            core.announce_goaway();
        }
    }

    fn final_goaway(&mut self) {
        if self.drain != Drain::Final {
            self.drain = Drain::Final;
            let core = &mut *self.shared.borrow_mut();
            core.tx.last_served = Some(core.rx.last_stream);
            core.say_goodbye(ResetCode::NoError);
        }
    }

    fn is_draining(&self) -> bool {
        self.drain != Drain::No
    }

    fn close_now(&mut self, code: Option<ResetCode>) {
        let core = &mut *self.shared.borrow_mut();
        if let Some(code) = code {
            core.say_goodbye(code);
        }
        core.close();
    }

    fn streams(&self) -> u32 {
        self.shared.borrow().live
    }

    fn is_unanswered(&self) -> bool {
        self.shared.borrow().is_unanswered()
    }

    fn release_places(&mut self) {
        self.shared.borrow_mut().streams.shrink();
    }

    fn is_close_announced(&self) -> bool {
        self.shared.borrow().facts.close_announced
    }

    fn is_head_open(&self) -> bool {
        self.shared.borrow().is_head_open()
    }

    fn before_close(&mut self, reason: CloseReason) {
        self.shared.borrow_mut().wire.io.before_close(reason);
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let core = &mut *self.shared.borrow_mut();
        core.close();
        ready!(core.wire.poll_flush(cx))?;
        core.wire.io.poll_shutdown(cx)
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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

    fn abort(&mut self) {
        self.shared.borrow_mut().wire.io.abort_on_drop();
    }

    fn is_closed_by_peer(&self) -> bool {
        self.shared.borrow().wire.eof
    }

    fn traffic(&self) -> Traffic {
        let wire = &self.shared.borrow().wire;
        Traffic { rx: wire.rx, tx: wire.tx }
    }

    fn local_address(&self) -> Option<Address> {
        self.shared.borrow().wire.io.local_address()
    }

    fn peer_address(&self) -> Option<Address> {
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
