//! A connection to an upstream: the pool opens exchanges on it, a task of its own drives it.
//!
//! [`connect`] gives both halves: [`ClientConnection::open`] for exchanges, [`ClientDrive::poll_event`] to be polled
//! until it says [`ClientEvent::Closed`]. How many exchanges fit is known exactly: streams are opened as the peer
//! allows them, which sends nothing, and used later. An exchange that is one too many waits in the codec.

mod exchange;

use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tidegate_quic::Conn;
use tidegate_types::{Address, CloseReason};

pub use self::exchange::ClientExchange;
use super::conn::{Core, Shared, Side};
use super::options::ClientOptions;
use super::transport::Transport;
use crate::multiplex::{Accounting, AltSvc, ClientConnection, ClientDrive, ClientEvent, Observer, Traffic};
use crate::stream::ResetCode;

/// Opens exchanges. Clones are the same connection.
#[derive(Clone)]
pub struct ClientConn {
    shared: Shared,
}

/// Reads and writes.
pub struct ClientDriver {
    shared: Shared,
}

/// Speaks HTTP/3 on `conn`, whose handshake may still be under way: what is sent before its end goes as early data if
/// that is possible, and waits if not.
pub fn connect(
    conn: Conn,
    options: Rc<ClientOptions>,
    observer: Rc<dyn Observer>,
) -> (ClientConn, ClientDriver) {
    connect_over(Box::new(conn), options, observer)
}

pub(super) fn connect_over(
    transport: Box<dyn Transport>,
    options: Rc<ClientOptions>,
    observer: Rc<dyn Observer>,
) -> (ClientConn, ClientDriver) {
    let shared = Core::new(transport, Side::Client(options), observer);
    // Of a connection that stands, the capacity is known from the beginning.
    shared.borrow_mut().begin();
    (ClientConn { shared: Rc::clone(&shared) }, ClientDriver { shared })
}

impl ClientConnection for ClientConn {
    type Exchange = ClientExchange;

    fn open(&self) -> ClientExchange {
        ClientExchange::new(Rc::clone(&self.shared))
    }

    fn capacity(&self) -> u32 {
        self.shared.borrow().capacity()
    }

    fn streams(&self) -> u32 {
        self.shared.borrow().live
    }

    fn is_going_away(&self) -> bool {
        self.shared.borrow().facts.goaway.is_some()
    }

    fn is_closed_by_peer(&self) -> bool {
        self.shared.borrow().facts.closed_by_peer
    }

    fn takes_extended_connect(&self) -> bool {
        self.shared.borrow().peer.extended_connect
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

impl Accounting for ClientDriver {
    const NAMES_FAULTS: bool = true;
}

impl ClientDrive for ClientDriver {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ClientEvent> {
        let core = &mut *self.shared.borrow_mut();
        loop {
            if let Some(event) = take_event(core) {
                return Poll::Ready(event);
            }
            if let Some(ended) = core.take_ended() {
                return Poll::Ready(ClientEvent::Closed(ended.into_result()));
            }
            if core.is_over() {
                return Poll::Ready(ClientEvent::Closed(Ok(())));
            }
            ready!(core.poll_drive(cx));
        }
    }

    fn streams(&self) -> u32 {
        self.shared.borrow().live
    }

    fn before_close(&mut self, reason: CloseReason) {
        self.shared.borrow_mut().facts.reason = Some(reason);
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.borrow_mut().poll_shutdown(cx)
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.shared.borrow_mut().poll_lost(cx).map(|()| Ok(0))
    }

    /// A dropped connection is closed: there is nothing harder.
    fn abort(&mut self) {}
}

impl Drop for ClientDriver {
    fn drop(&mut self) {
        let core = &mut *self.shared.borrow_mut();
        core.close();
        core.part();
    }
}

fn take_event(core: &mut Core) -> Option<ClientEvent> {
    if core.is_capacity_news() && !core.is_over() {
        let capacity = core.capacity();
        core.facts.told_capacity = Some(capacity);
        return Some(ClientEvent::Capacity(capacity));
    }
    if std::mem::take(&mut core.facts.goaway_came) {
        let last_stream = core.facts.goaway?;
        return Some(ClientEvent::GoAway { last_stream, code: ResetCode::NoError });
    }
    AltSvc::take(&mut core.facts.alt_svc).map(ClientEvent::AltSvc)
}

impl fmt::Debug for ClientConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConn").field("streams", &self.streams()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientDriver").field("streams", &self.streams()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
