//! The pool's side of one connection: the half that reads and writes.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use tidegate_codec::multiplex::{ClientConnection, ClientDrive, ClientEvent, ConnError, Traffic};
use tidegate_types::{Address, CloseReason};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Opened, Speaks};
use crate::driver::bell::{Bell, Watch};
use crate::driver::{self, Grant, Stirred, log_end};
use crate::h1::ConnFacts;
use crate::machine::{Closed, ConnKey};
use crate::parting;
use crate::stats::UpstreamStats;

/// Empty, an attempt, or a connection.
pub struct Slot<V: Speaks> {
    driver: Option<V::Driver>,
    /// There is nothing left to read or write.
    over: bool,
    link: Option<Rc<Link<V>>>,
    attempt: Option<JoinHandle<()>>,
    watch: Watch,
    counted: Traffic,
    /// The pool's.
    taken: Rc<Cell<u32>>,
}

impl<V: Speaks> Default for Slot<V> {
    fn default() -> Self {
        Self {
            driver: None,
            over: false,
            link: None,
            attempt: None,
            watch: Watch::default(),
            counted: Traffic::default(),
            taken: Rc::default(),
        }
    }
}

/// A new connection, and where to note what its peer takes.
pub struct Dialed<V: Speaks> {
    pub(crate) opened: Opened<V>,
    pub(crate) taken: Rc<Cell<u32>>,
}

/// What the streams of a connection have of it.
pub(crate) struct Link<V: Speaks> {
    pub(super) conn: V::Conn,
    pub(super) facts: Rc<ConnFacts>,
    /// The machine knows it no more: its name may be another's.
    pub(super) gone: Cell<bool>,
    /// It went away as it had announced; what is left are exchanges whose owners have not noticed.
    pub(super) over: Cell<bool>,
    connected: Instant,
}

impl<V: Speaks> Link<V> {
    /// Whether it was there before the stream came: one of many for which it was opened did not find it.
    pub(crate) fn is_reused_by(&self, grant: Grant) -> bool {
        grant.since.is_none_or(|since| self.connected < since)
    }
}

impl<V: Speaks> Slot<V> {
    /// The connection, for a stream.
    #[inline]
    pub(crate) fn link(&self) -> Option<Rc<Link<V>>> {
        self.link.clone()
    }

    /// Adds what the connection carried since the last look to the statistics.
    #[inline]
    pub(super) fn count_traffic(&mut self, stats: &UpstreamStats) {
        let Some(link) = &self.link else { return };
        stats.count_traffic(&mut self.counted, link.conn.traffic());
    }
}

impl<V: Speaks> driver::Slot for Slot<V> {
    type Opened = Dialed<V>;

    #[inline]
    fn is_watched_while_busy(&self) -> bool {
        true
    }

    fn begin(&mut self, attempt: JoinHandle<()>) {
        *self = Self { attempt: Some(attempt), ..Self::default() };
    }

    fn connected(&mut self, Dialed { opened, taken }: Dialed<V>) -> u32 {
        let Opened { conn, driver, facts } = opened;
        // More than the last one took would only wait in the codec.
        let capacity = conn.capacity().min(taken.get()).max(1);
        let link = Link {
            conn,
            facts: Rc::new(facts),
            gone: Cell::new(false),
            over: Cell::new(false),
            connected: Instant::now(),
        };
        *self = Self { driver: Some(driver), link: Some(Rc::new(link)), taken, ..Self::default() };
        capacity
    }

    #[inline]
    fn has_fired(&self) -> bool {
        self.watch.has_fired().unwrap_or(self.driver.is_some())
    }

    fn poll_stirred(&mut self, bell: &Arc<Bell>, key: ConnKey) -> Poll<Stirred> {
        let Some(driver) = self.driver.as_mut().filter(|_| !self.over) else { return Poll::Pending };
        match driver.poll_event(&mut self.watch.arm(bell, key)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(ClientEvent::Capacity(streams)) => {
                self.taken.set(streams);
                Poll::Ready(Stirred::Capacity(streams))
            }
            Poll::Ready(ClientEvent::GoAway { .. }) => Poll::Ready(Stirred::GoingAway),
            Poll::Ready(ClientEvent::AltSvc(said)) => Poll::Ready(Stirred::Advertised(said)),
            Poll::Ready(ClientEvent::Closed(how)) => {
                let in_order = matches!(how, Ok(()) | Err(ConnError::PeerError(_)));
                if let Some(link) = self.link.as_ref().filter(|link| in_order && link.conn.is_going_away()) {
                    // Announced, and its exchanges are over: their owners come and say how, the last one closes it.
                    link.over.set(true);
                    self.over = true;
                    return Poll::Pending;
                }
                // Not to be polled again, and there is nobody to part from.
                self.driver = None;
                Poll::Ready(end_of::<V::Driver>(how))
            }
        }
    }

    fn end(&mut self, closed: Closed, host: Option<&Address>, stats: &UpstreamStats) {
        let facts = self.link.as_ref().map(|link| &link.facts);
        let peer = facts.and_then(|facts| facts.remote_address.as_deref()).or(host);
        log_end(V::LOGGED, facts.map(|facts| facts.id), peer, closed, closed.reason.words(), stats);
        if let Some(attempt) = self.attempt.take() {
            attempt.abort();
        }
        self.watch.disarm();
        self.count_traffic(stats);
        let link = self.link.take();
        if let Some(link) = &link {
            link.gone.set(true);
        }
        if let (Some(mut driver), Some(link)) = (self.driver.take(), link) {
            driver.before_close(closed.reason);
            if parting::is_due(closed.reason) {
                parting::part(parting::Multiplexed::new(driver, link.conn.clone(), self.over));
            }
        }
        *self = Self::default();
    }
}

fn end_of<D: ClientDrive>(how: Result<(), ConnError>) -> Stirred {
    match how {
        // A GOAWAY with an error, then FIN.
        Ok(()) | Err(ConnError::PeerError(_)) => Stirred::Closed(CloseReason::PeerFin),
        Err(ConnError::Io(error)) => Stirred::Closed(CloseReason::of_io(&error)),
        Err(ConnError::KeepaliveTimeout) => Stirred::Closed(CloseReason::KeepaliveTimeout),
        Err(ConnError::Malformed) => Stirred::Malformed,
        Err(ConnError::Violation(_) | ConnError::Flood(_)) if D::NAMES_FAULTS => {
            Stirred::Closed(CloseReason::ProtocolError)
        }
        Err(ConnError::Violation(_) | ConnError::Flood(_)) => Stirred::Violated,
    }
}
