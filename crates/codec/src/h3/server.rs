//! A connection to a client: many exchanges at once.
//!
//! [`ServerConn`] is used as a [`ServerConnection`]. It decides nothing about time: idle time, keep-alive and lost
//! packets are the transport's.

mod exchange;

use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tidegate_quic::Conn;
use tidegate_types::{Address, CloseReason};

pub use self::exchange::ServerExchange;
use super::conn::{Core, Shared, Side};
use super::options::ServerOptions;
use super::transport::Transport;
use crate::multiplex::{Accounting, ConnError, Event, Observer, ServerConnection, Traffic};
use crate::stream::ResetCode;

/// An HTTP/3 connection to a client.
pub struct ServerConn {
    shared: Shared,
    drain: Drain,
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
    /// Serves `conn`, whose handshake may still be under way.
    pub fn new(conn: Conn, options: Rc<ServerOptions>, observer: Rc<dyn Observer>) -> Self {
        Self::over(Box::new(conn), options, observer)
    }

    pub(super) fn over(
        transport: Box<dyn Transport>,
        options: Rc<ServerOptions>,
        observer: Rc<dyn Observer>,
    ) -> Self {
        Self { shared: Core::new(transport, Side::Server(options), observer), drain: Drain::No }
    }

    /// Bytes that streams hold of what is not whole.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let core = &mut *self.shared.borrow_mut();
        core.streams.iter_mut().map(|(_, stream)| stream.rx.partial.capacity() + stream.rx.input.len()).sum()
    }
}

impl Accounting for ServerConn {
    const NAMES_FAULTS: bool = true;
}

impl ServerConnection for ServerConn {
    type Exchange = ServerExchange;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<ServerExchange, ConnError>>> {
        loop {
            {
                let core = &mut *self.shared.borrow_mut();
                // Before the exchanges that came with it: they are told by it why they end.
                if let Some(error) = core.take_fault() {
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

    fn announce_goaway(&mut self) {
        if self.drain == Drain::No {
            self.drain = Drain::Announced;
            self.shared.borrow_mut().announce_goaway();
        }
    }

    fn final_goaway(&mut self) {
        if self.drain != Drain::Final {
            self.drain = Drain::Final;
            let core = &mut *self.shared.borrow_mut();
            if !core.is_over() {
                let next = core.rx.next_request;
                core.tx.first_refused = Some(next);
                core.put_goaway(next);
                core.count(Event::GoawaySent);
            }
        }
    }

    fn is_draining(&self) -> bool {
        self.drain != Drain::No
    }

    fn close_now(&mut self, code: Option<ResetCode>) {
        let core = &mut *self.shared.borrow_mut();
        if let Some(code) = code {
            core.close_with(code);
        }
        core.close();
    }

    fn streams(&self) -> u32 {
        self.shared.borrow().live
    }

    fn release_places(&mut self) {
        self.shared.borrow_mut().release_room();
    }

    fn is_close_announced(&self) -> bool {
        self.shared.borrow().facts.close_announced
    }

    fn is_head_open(&self) -> bool {
        // Every stream of which bytes came has an exchange.
        false
    }

    fn is_opening(&self) -> bool {
        let core = self.shared.borrow();
        !core.facts.connected && !core.is_over()
    }

    fn before_close(&mut self, reason: CloseReason) {
        self.shared.borrow_mut().facts.reason = Some(reason);
    }

    fn explain_close(&mut self, words: &str) {
        self.shared.borrow_mut().facts.words = Some(words.into());
    }

    /// Closes the connection when what is complete was delivered; a QUIC connection has no half-closed state.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.borrow_mut().poll_shutdown(cx)
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let core = &mut *self.shared.borrow_mut();
        core.close();
        core.poll_lost(cx)
    }

    /// A dropped connection is closed: there is nothing harder.
    fn abort(&mut self) {}

    fn is_closed_by_peer(&self) -> bool {
        self.shared.borrow().facts.closed_by_peer
    }

    fn traffic(&self) -> Traffic {
        self.shared.borrow().quic.traffic()
    }

    fn local_address(&self) -> Option<Address> {
        Some(self.shared.borrow().local_address())
    }

    fn peer_address(&self) -> Option<Address> {
        Some(self.shared.borrow().peer_address())
    }
}

impl fmt::Debug for ServerConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConn").field("streams", &self.streams()).finish_non_exhaustive()
    }
}

impl Drop for ServerConn {
    fn drop(&mut self) {
        let core = &mut *self.shared.borrow_mut();
        core.close();
        core.part();
    }
}

#[cfg(test)]
mod tests;
