//! The HTTP/1.1 pool: one exchange at a time on a connection.
//!
//! A stream asks with [`Pool::acquire`], uses the connection through its [`Lease`] and ends with
//! [`Lease::finish`]. With an idle connection at hand both are a few list operations: no allocation, no
//! task, no system call. Idle connections are watched for their peer's close; the rest is the driver's.

use std::rc::{Rc, Weak};
use std::sync::Arc;

use tidegate_types::Address;

use crate::driver::{Attempt, Grant, Inner, Kind};
use crate::machine::{Settings, Shared};

mod conn;
pub(crate) mod connector;
mod lease;
pub(crate) mod slot;

pub use crate::driver::{Connect, Neighbour, Neighbours};
pub use conn::{AfterExchange, Conn, ConnFacts, Connected, IdleEnd, Opened};
pub use connector::SocketConnector;
pub use lease::Lease;
pub use tidegate_codec::h1::{ClientOptions, KeptNames, NameCase};
pub use tidegate_codec::multiplex::Traffic;
pub use tidegate_net::socket_option::SocketOption;
pub use tidegate_net::{Binding, DialOptions, Keepalive, TransportOptions};

use slot::Slot;

/// Connections to one host that speak HTTP/1.1.
pub type Pool = crate::driver::Pool<Http1>;

/// Waits for a connection; see [`Pool::acquire`].
pub type Acquire = crate::driver::Acquire<Http1>;

/// HTTP/1.1, as a pool knows it.
pub struct Http1 {
    connector: Rc<dyn Connect<Opened>>,
}

impl Pool {
    /// A pool without connections. Must be called on a thread whose runtime takes local tasks.
    pub fn new(
        settings: Rc<Settings>,
        shared: Shared,
        connector: Rc<dyn Connect<Opened>>,
        neighbours: Weak<dyn Neighbours>,
    ) -> Rc<Self> {
        Self::start(Http1 { connector }, settings, shared, neighbours)
    }
}

impl Kind for Http1 {
    type Slot = Slot;
    type Lent = Lease;
    const PROTOCOL: &'static str = "http1";

    fn connect(&self) -> Attempt<Opened> {
        self.connector.connect()
    }

    fn address(&self) -> Option<Arc<Address>> {
        self.connector.address()
    }

    #[inline]
    fn lend(pool: &Rc<Pool>, inner: &mut Inner<Slot>, grant: Grant) -> Option<Lease> {
        let reused = inner.machine.carried(grant.key) > 1;
        inner.count_request(grant, reused);
        let (conn, facts) = inner.slots.get_mut(grant.key.index())?.lend()?;
        Some(Lease::new(pool.clone(), grant.key, conn, facts, reused))
    }
}

#[cfg(test)]
mod tests;
