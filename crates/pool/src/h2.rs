//! The HTTP/2 pool: one connection while one suffices.
//!
//! A stream asks with [`Pool::acquire`], is an exchange on a connection that others use too, and ends with
//! [`Lease::finish`]. The pool's task reads and writes all its connections, and tells the machine what their
//! peers say: how many streams they take, and that they go away. A connection counts as connected when its
//! transport is: requests do not wait for the peer's SETTINGS. What ends a connection ends exactly its streams.

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tidegate_types::Address;

use crate::driver::{Attempt, Grant, Inner, Kind};
use crate::machine::{Settings, Shared};

pub(crate) mod connector;
mod lease;
pub(crate) mod slot;
mod stats;

pub use crate::driver::{Connect, Neighbour, Neighbours};
pub use connector::{Opened, SocketConnector};
pub use lease::Lease;
pub use stats::{CodecStats, Counting};
pub use tidegate_codec::h2::{ClientOptions, FloodLimits, KeepaliveOptions, Underscores};

use slot::{Dialed, Slot};

/// Connections to one host that speak HTTP/2.
pub type Pool = crate::driver::Pool<Http2>;

/// Waits for a place on a connection; see [`Pool::acquire`].
pub type Acquire = crate::driver::Acquire<Http2>;

/// HTTP/2, as a pool knows it.
pub struct Http2 {
    connector: Rc<dyn Connect<Opened>>,
    /// How many streams the peer took at a time on the last connection whose SETTINGS came.
    taken: Rc<Cell<u32>>,
}

impl Pool {
    /// A pool without connections; `settings.concurrency` is the configured `max_concurrent_streams`. Must be
    /// called on a thread whose runtime takes local tasks.
    pub fn new(
        settings: Rc<Settings>,
        shared: Shared,
        connector: Rc<dyn Connect<Opened>>,
        neighbours: Weak<dyn Neighbours>,
    ) -> Rc<Self> {
        let taken = Rc::new(Cell::new(u32::MAX));
        Self::start(Http2 { connector, taken }, settings, shared, neighbours)
    }
}

impl Kind for Http2 {
    type Slot = Slot;
    type Lent = Lease;
    const PROTOCOL: &'static str = "http2";

    fn connect(&self) -> Attempt<Dialed> {
        let attempt = self.connector.connect();
        let taken = self.taken.clone();
        Box::pin(async move { attempt.await.map(|opened| Dialed { opened, taken }) })
    }

    fn address(&self) -> Option<Arc<Address>> {
        self.connector.address()
    }

    #[inline]
    fn lend(pool: &Rc<Pool>, inner: &mut Inner<Slot>, grant: Grant) -> Option<Lease> {
        let link = inner.slots.get(grant.key.index())?.link()?;
        let reused = link.is_reused_by(grant);
        inner.count_request(grant, reused);
        Some(Lease::new(pool.clone(), grant.key, link, reused))
    }
}

#[cfg(test)]
mod tests;
