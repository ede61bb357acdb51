//! The HTTP/2 pool: one connection while one suffices.
//!
//! A stream asks with [`Pool::acquire`], is an exchange on a connection that others use too, and ends with
//! [`Lease::finish`]. The pool's task reads and writes all its connections, and tells the machine what their
//! peers say: how many streams they take, and that they go away. A connection counts as connected when its
//! transport is: requests do not wait for the peer's SETTINGS. What ends a connection ends exactly its streams.

use std::cell::Cell;
use std::rc::{Rc, Weak};

use tidegate_types::{Address, CloseReason};
use tokio::time::Instant;

use crate::driver::{Attempt, Core, Drive, Grant, Inner};
use crate::machine::{Care, Machine, Settings, Shared};
use crate::stats::UpstreamStats;

mod connector;
mod lease;
mod slot;
mod stats;

pub use crate::driver::{Neighbour, Neighbours};
pub use connector::{Connect, Opened, SocketConnector};
pub use lease::Lease;
pub use stats::{CodecStats, Counting};
pub use tidegate_codec::h2::{ClientOptions, FloodLimits, KeepaliveOptions};

use slot::{Dialed, Slot};

/// Waits for a connection; see [`Pool::acquire`].
pub type Acquire = crate::driver::Acquire<Pool>;

/// Connections to one host, with one priority, on one worker.
pub struct Pool {
    core: Core<Slot>,
    connector: Rc<dyn Connect>,
    stats: UpstreamStats,
    /// How many streams the peer took at a time on the last connection whose SETTINGS came.
    taken: Rc<Cell<u32>>,
}

impl Pool {
    /// A pool without connections; `settings.concurrency` is the configured `max_concurrent_streams`. Must be
    /// called on a thread whose runtime takes local tasks.
    pub fn new(
        settings: Rc<Settings>,
        shared: Shared,
        connector: Rc<dyn Connect>,
        neighbours: Weak<dyn Neighbours>,
    ) -> Rc<Self> {
        let stats = shared.stats.clone();
        let taken = Rc::new(Cell::new(u32::MAX));
        Self { core: Core::new(settings, shared, neighbours), connector, stats, taken }.start()
    }

    /// Asks for a place on a connection: at once if one is connected and has a place, else when there is one.
    /// Dropping the future gives the place in the queue up.
    #[inline]
    pub fn acquire(self: &Rc<Self>) -> Acquire {
        self.acquire_at(Instant::now(), Care::Any)
    }

    /// As [`Pool::acquire`], for a caller that knows the time, and how much its request minds a stale connection.
    #[inline]
    pub fn acquire_at(self: &Rc<Self>, now: Instant, care: Care) -> Acquire {
        Drive::acquire_at(self, now, care)
    }

    /// Closes idle connections now and the others with their streams, for a reason: the host or the cluster
    /// is gone. Streams that already wait are served.
    pub fn drain(self: &Rc<Self>, reason: CloseReason) {
        Drive::drain(self, reason);
    }

    /// A stream is expected here: see [`Machine::handle_anticipated`].
    pub fn anticipate(self: &Rc<Self>, ratio: f32) -> bool {
        Drive::anticipate(self, ratio)
    }

    /// No connection in any state, no waiting stream.
    pub fn is_empty(&self) -> bool {
        self.core.machine(Machine::is_empty)
    }

    /// Connections in any state.
    pub fn connections(&self) -> usize {
        self.core.machine(Machine::connections)
    }

    /// Attached and waiting streams.
    pub fn streams(&self) -> usize {
        self.core.machine(Machine::streams)
    }
}

impl Drive for Pool {
    type Slot = Slot;
    type Lent = Lease;
    const PROTOCOL: &'static str = "http2";

    #[inline]
    fn core(&self) -> &Core<Slot> {
        &self.core
    }

    fn connect(&self) -> Attempt<Dialed> {
        let attempt = self.connector.connect();
        let taken = self.taken.clone();
        Box::pin(async move { attempt.await.map(|opened| Dialed { opened, taken }) })
    }

    fn address(&self) -> Option<&Address> {
        self.connector.address()
    }

    #[inline]
    fn lend(self: &Rc<Self>, inner: &mut Inner<Slot>, grant: Grant) -> Option<Lease> {
        let link = inner.slots.get(grant.key.index())?.link()?;
        // One of many for which it was opened did not find it.
        let reused = grant.since.is_none_or(|since| link.is_older_than(since));
        inner.count_request(grant, reused);
        Some(Lease::new(self.clone(), grant.key, link, reused))
    }
}

#[cfg(test)]
mod tests;
