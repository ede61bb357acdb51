//! The pool of a protocol whose connections carry many streams: one connection while one suffices.
//!
//! A stream asks with [`Pool::acquire`], is an exchange on a connection that others use too, and ends with
//! [`Lease::finish`]. The pool's task reads and writes all its connections, and tells the machine what their
//! peers say: how many streams they take, and that they go away. What ends a connection ends exactly its streams.
//! Which protocol that is, is a [`Speaks`]: [`crate::h2`], [`crate::h3`].

use std::cell::{Cell, OnceCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tidegate_codec::multiplex::{AltSvc, ClientConnection, ClientDrive};
use tidegate_types::{Address, CloseReason};

use crate::driver::{Attempt, Connect, Grant, Inner, Kind, Neighbours, Pool};
use crate::h1::ConnFacts;
use crate::machine::{Settings, Shared};
use crate::report::PoolReport;

mod lease;
pub(crate) mod slot;

pub use lease::Lease;

use slot::{Dialed, Slot};

/// A protocol.
pub trait Speaks: Sized + 'static {
    /// The half of a connection that opens exchanges.
    type Conn: ClientConnection<Exchange: 'static> + 'static;
    /// The half that reads and writes.
    type Driver: ClientDrive + 'static;

    /// As the admin page `/pools` says it.
    const PROTOCOL: &'static str;
    /// What its connections are in the log.
    const LOGGED: &'static str;
}

/// A connection that may carry streams.
pub struct Opened<V: Speaks> {
    /// Opens exchanges.
    pub conn: V::Conn,
    /// Reads and writes.
    pub driver: V::Driver,
    /// What is known of it.
    pub facts: ConnFacts,
}

/// Connections of many streams, as a pool knows them.
pub struct Multiplexed<V: Speaks> {
    connector: Rc<dyn Connect<Opened<V>>>,
    /// How many streams the peer took at a time on the last connection that said so.
    taken: Rc<Cell<u32>>,
    watcher: OnceCell<Weak<dyn Watcher>>,
}

/// Who uses a pool beside another one, and wants to know how its attempts go.
pub(crate) trait Watcher {
    /// One ended, this way.
    fn attempted(&self, outcome: Result<(), CloseReason>);

    /// A peer says where else its origins are served.
    fn advertised(&self, said: &AltSvc);

    /// Adds what it knows.
    fn describe(&self, report: &mut PoolReport);
}

impl<V: Speaks> Pool<Multiplexed<V>> {
    /// A pool without connections; `settings.concurrency` is the configured `max_concurrent_streams`. Must be
    /// called on a thread whose runtime takes local tasks.
    pub fn new(
        settings: Rc<Settings>,
        shared: Shared,
        connector: Rc<dyn Connect<Opened<V>>>,
        neighbours: Weak<dyn Neighbours>,
    ) -> Rc<Self> {
        let taken = Rc::new(Cell::new(u32::MAX));
        Self::start(Multiplexed { connector, taken, watcher: OnceCell::new() }, settings, shared, neighbours)
    }

    /// Tells `watcher` how attempts go. The first one counts.
    pub(crate) fn watch_attempts(&self, watcher: Weak<dyn Watcher>) {
        let _ = self.kind.watcher.set(watcher);
    }
}

impl<V: Speaks> Kind for Multiplexed<V> {
    type Slot = Slot<V>;
    type Lent = Lease<V>;
    const PROTOCOL: &'static str = V::PROTOCOL;

    fn connect(&self) -> Attempt<Dialed<V>> {
        let attempt = self.connector.connect();
        let taken = self.taken.clone();
        Box::pin(async move { attempt.await.map(|opened| Dialed { opened, taken }) })
    }

    fn address(&self) -> Option<Arc<Address>> {
        self.connector.address()
    }

    fn attempted(&self, outcome: Result<(), CloseReason>) {
        if let Some(watcher) = self.watcher.get().and_then(Weak::upgrade) {
            watcher.attempted(outcome);
        }
    }

    fn advertised(&self, said: &AltSvc) {
        if let Some(watcher) = self.watcher.get().and_then(Weak::upgrade) {
            watcher.advertised(said);
        }
    }

    fn describe(&self, report: &mut PoolReport) {
        if let Some(watcher) = self.watcher.get().and_then(Weak::upgrade) {
            watcher.describe(report);
        }
    }

    #[inline]
    fn lend(pool: &Rc<Pool<Self>>, inner: &mut Inner<Slot<V>>, grant: Grant) -> Option<Lease<V>> {
        let link = inner.slots.get(grant.key.index())?.link()?;
        let reused = link.is_reused_by(grant);
        inner.count_request(grant, reused);
        Some(Lease::new(pool.clone(), grant.key, link, reused))
    }
}
