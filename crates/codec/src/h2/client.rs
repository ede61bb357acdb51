//! A connection to an upstream: the pool opens exchanges on it, a task of its own drives it.
//!
//! [`connect`] gives both halves: [`ClientConnection::open`] for exchanges, [`ClientDrive::poll_event`] to be polled
//! until it says [`ClientEvent::Closed`]. How many exchanges fit, and when one is too many, is the pool's to
//! know; a stream over the peer's limit waits in the codec until there is room.

mod exchange;

use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tidegate_net::BoxIo;
use tidegate_types::{Address, CloseReason};

pub use self::exchange::ClientExchange;
use super::conn::{Core, Ended, Shared, Side};
use super::options::ClientOptions;
use crate::multiplex::{
    Accounting, AltSvc, ClientConnection, ClientDrive, ClientEvent, ConnError, Observer, Traffic,
};
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

/// Speaks HTTP/2 on `io`: the preface and SETTINGS go out with the first request, which need not wait for the
/// peer's SETTINGS (RFC 9113 §3.4).
///
/// # Errors
/// None that the peer could cause: nothing is written yet.
pub fn connect(
    io: BoxIo,
    options: Rc<ClientOptions>,
    observer: Rc<dyn Observer>,
) -> io::Result<(ClientConn, ClientDriver)> {
    let shared = Core::new(io, BytesMut::new(), Side::Client(options), observer);
    Ok((ClientConn { shared: Rc::clone(&shared) }, ClientDriver { shared }))
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
        self.shared.borrow().wire.eof
    }

    fn takes_extended_connect(&self) -> bool {
        self.shared.borrow().peer.extended_connect
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

impl Accounting for ClientDriver {}

impl ClientDrive for ClientDriver {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ClientEvent> {
        let core = &mut *self.shared.borrow_mut();
        loop {
            if let Some(event) = take_event(core) {
                return Poll::Ready(event);
            }
            if let Some(ended) = core.take_ended() {
                // What can still be said; the rest goes with the shutdown.
                let _ = core.wire.poll_flush(cx);
                return Poll::Ready(ClientEvent::Closed(how(core, ended)));
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
        self.shared.borrow_mut().wire.io.before_close(reason);
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let core = &mut *self.shared.borrow_mut();
        core.close();
        ready!(core.wire.poll_flush(cx))?;
        core.wire.io.poll_shutdown(cx)
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.shared.borrow_mut().poll_drop_input(cx)
    }

    fn abort(&mut self) {
        self.shared.borrow_mut().wire.io.abort_on_drop();
    }
}

impl Drop for ClientDriver {
    fn drop(&mut self) {
        self.shared.borrow_mut().close();
    }
}

fn take_event(core: &mut Core) -> Option<ClientEvent> {
    if std::mem::take(&mut core.facts.settings_came) {
        return Some(ClientEvent::Capacity(core.capacity()));
    }
    if std::mem::take(&mut core.facts.goaway_came) {
        let goaway = core.facts.goaway?;
        let code = ResetCode::from_wire(goaway.code);
        return Some(ClientEvent::GoAway { last_stream: u64::from(goaway.last_stream), code });
    }
    AltSvc::take(&mut core.facts.alt_svc).map(ClientEvent::AltSvc)
}

/// The peer closed the connection for the reason that it gave before, if it gave one.
fn how(core: &Core, ended: Ended) -> Result<(), ConnError> {
    match (ended, core.facts.goaway) {
        (Ended::Fault(ConnError::Io(_)) | Ended::ByPeer | Ended::GoneAway, Some(goaway))
            if goaway.code != 0 =>
        {
            Err(ConnError::PeerError(ResetCode::from_wire(goaway.code)))
        }
        (Ended::Fault(ConnError::Io(_)), _) if core.wire.eof => Ok(()),
        (Ended::Fault(error), _) => Err(error),
        (Ended::ByPeer | Ended::GoneAway | Ended::Closed, _) => Ok(()),
    }
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
