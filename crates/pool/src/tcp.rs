//! The TCP pool: its streams are sessions, one to a connection and never a second one.
//!
//! A session asks with [`Pool::acquire`], gets the connection's bytes as its own and a [`Lease`], and ends with
//! [`Lease::end`]. So the pool is a way to a connection under the cluster's limits, with the same statistics
//! as the other protocols. Connections without a session are those that were opened ahead of demand
//! (`preconnect_policy`): watched for their peer's close, and closed after the pool's idle timeout.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tidegate_net::{BoxIo, TransportOptions};
use tidegate_types::{Address, CloseReason};

use crate::dialer::{Dialer, Opened, Opening};
use crate::driver::{Grant, Inner, Kind, Neighbours};
use crate::machine::{Carries, ConnKey, Settings, Shared, StreamEnd};

mod lease;
mod slot;
mod spare;

pub use lease::{Facts, Lease};

use slot::Slot;

/// Connections to one host for sessions.
pub type Pool = crate::driver::Pool<Tcp>;

/// Waits for a session's connection; see [`Pool::acquire`].
pub type Acquire = crate::driver::Acquire<Tcp>;

/// Sessions, as a pool knows them.
pub struct Tcp {
    connector: Rc<dyn Connect>,
    options: Rc<TransportOptions>,
}

/// Opens connections to the pool's host.
pub trait Connect {
    /// Starts an attempt, handshakes included. Dropping the future gives it up.
    fn connect(&self, options: Rc<TransportOptions>) -> Opening;

    /// Where it connects to first, for the log.
    fn address(&self) -> Option<Arc<Address>> {
        None
    }
}

impl Connect for Dialer {
    fn connect(&self, options: Rc<TransportOptions>) -> Opening {
        self.open(options)
    }

    fn address(&self) -> Option<Arc<Address>> {
        Some(self.addresses.primary())
    }
}

/// A session's connection.
pub struct Connection {
    /// Its bytes.
    pub io: BoxIo,
    /// Its place under the limits.
    pub lease: Lease,
}

impl Pool {
    /// A pool without connections, whose sessions all ask for `options`. Of `settings` the numbers of streams
    /// are a TCP pool's own. Must be called on a thread whose runtime takes local tasks.
    pub fn new(
        settings: &Settings,
        shared: Shared,
        connector: Rc<dyn Connect>,
        options: Rc<TransportOptions>,
        neighbours: Weak<dyn Neighbours>,
    ) -> Rc<Self> {
        let settings =
            Settings { max_streams: Some(1), concurrency: 1, carries: Carries::Sessions, ..settings.clone() };
        Self::start(Tcp { connector, options }, Rc::new(settings), shared, neighbours)
    }

    fn end_session(self: &Rc<Self>, key: ConnKey, reason: CloseReason, idle: Duration) {
        self.end_stream(key, StreamEnd::Session(reason), |slot, _| slot.idle = idle);
    }
}

impl Kind for Tcp {
    type Slot = Slot;
    type Lent = Connection;
    const PROTOCOL: &'static str = "tcp";

    fn connect(&self) -> Opening {
        self.connector.connect(self.options.clone())
    }

    fn address(&self) -> Option<Arc<Address>> {
        self.connector.address()
    }

    fn lend(pool: &Rc<Pool>, inner: &mut Inner<Slot>, grant: Grant) -> Option<Connection> {
        let key = grant.key;
        let Opened { io, id, local_address, remote_address } = inner.slots.get_mut(key.index())?.take()?;
        let facts = Facts { id, local_address, remote_address, tls: io.tls().cloned() };
        let stats = inner.machine.stats().clone();
        Some(Connection { io, lease: Lease::new(pool.clone(), key, facts, stats) })
    }
}

#[cfg(test)]
mod tests;
