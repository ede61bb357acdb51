//! The HTTP/1.1 pool: one exchange at a time on a connection.
//!
//! A stream asks with [`Pool::acquire`], uses the connection through its [`Lease`] and ends with
//! [`Lease::finish`]. With an idle connection at hand both are a few list operations: no allocation, no
//! task, no system call. Idle connections are watched for their peer's close; the rest is the driver's.

use std::rc::{Rc, Weak};

use tidegate_types::{Address, CloseReason};
use tokio::time::Instant;

use crate::driver::{Attempt, Core, Drive, Grant, Inner};
use crate::machine::{Care, Machine, Settings, Shared};

mod conn;
mod connector;
mod lease;
mod slot;

pub use crate::driver::{Neighbour, Neighbours};
pub use conn::{AfterExchange, Conn, ConnFacts, Connect, Connected, IdleEnd, Traffic};
pub use connector::SocketConnector;
pub use lease::Lease;
pub use tidegate_codec::h1::{ClientOptions, NameCase};
pub use tidegate_net::{DialOptions, Keepalive, TransportOptions};

use slot::Slot;

/// Waits for a connection; see [`Pool::acquire`].
pub type Acquire = crate::driver::Acquire<Pool>;

/// Connections to one host, with one priority, on one worker.
pub struct Pool {
    core: Core<Slot>,
    connector: Rc<dyn Connect>,
}

impl Pool {
    /// A pool without connections. Must be called on a thread whose runtime takes local tasks.
    pub fn new(
        settings: Rc<Settings>,
        shared: Shared,
        connector: Rc<dyn Connect>,
        neighbours: Weak<dyn Neighbours>,
    ) -> Rc<Self> {
        Self { core: Core::new(settings, shared, neighbours), connector }.start()
    }

    /// Asks for a connection: at once if one is idle, else when one is free or connected. Dropping the
    /// future gives the place in the queue up.
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
    const PROTOCOL: &'static str = "http1";

    #[inline]
    fn core(&self) -> &Core<Slot> {
        &self.core
    }

    fn connect(&self) -> Attempt<(Box<dyn Conn>, ConnFacts)> {
        self.connector.connect()
    }

    fn address(&self) -> Option<&Address> {
        self.connector.address()
    }

    #[inline]
    fn lend(self: &Rc<Self>, inner: &mut Inner<Slot>, grant: Grant) -> Option<Lease> {
        let reused = inner.machine.carried(grant.key) > 1;
        inner.count_request(grant, reused);
        let (conn, facts) = inner.slots.get_mut(grant.key.index())?.lend()?;
        Some(Lease::new(self.clone(), grant.key, conn, facts, reused))
    }
}

#[cfg(test)]
mod tests;
