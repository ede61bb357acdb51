//! The pool of a protocol whose connections carry many streams: one connection while one suffices.
//!
//! A stream asks with [`Pool::acquire`], is an exchange on a connection that others use too, and ends with
//! [`Lease::finish`]. The pool's task reads and writes all its connections, and tells the machine what their
//! peers say: how many streams they take, and that they go away. What ends a connection ends exactly its streams.
//! Which protocol that is, is a [`Speaks`]: [`crate::h2`], [`crate::h3`].

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tidegate_codec::multiplex::{ClientConnection, ClientDrive};
use tidegate_types::Address;

use crate::driver::{Attempt, Connect, Grant, Inner, Kind, Neighbours, Pool};
use crate::h1::ConnFacts;
use crate::machine::{Settings, Shared};

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
        Self::start(Multiplexed { connector, taken }, settings, shared, neighbours)
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

    #[inline]
    fn lend(pool: &Rc<Pool<Self>>, inner: &mut Inner<Slot<V>>, grant: Grant) -> Option<Lease<V>> {
        let link = inner.slots.get(grant.key.index())?.link()?;
        let reused = link.is_reused_by(grant);
        inner.count_request(grant, reused);
        Some(Lease::new(pool.clone(), grant.key, link, reused))
    }
}
