//! The pool that leaves the protocol to the peer: ALPN decides, HTTP/2 or HTTP/1.1 (`auto_config`; Envoy docs,
//! "Automatic protocol selection").
//!
//! A connection under way is expected to take as many streams as HTTP/2 may, so that a burst on an empty pool opens one
//! connection and not many. If the peer chooses HTTP/1.1 after all it takes one; what waits gets connections of its
//! own then, and the next ones are expected to be like the last. A peer that answers no ALPN speaks HTTP/1.1.

use std::cell::{Cell, OnceCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tidegate_codec::multiplex::AltSvc;
use tidegate_types::Address;

use crate::driver::{Attempt, Grant, Inner, Kind, Neighbours};
use crate::h2::Dialed;
use crate::machine::{Settings, Shared};
use crate::multiplexed::Watcher;
use crate::report::PoolReport;
use crate::{h1, h2};

mod connector;
mod slot;

pub use crate::driver::Connect;
pub use connector::{Opened, SocketConnector};

use slot::{Slot, Speaking};

/// Connections to one host that speak what it chooses.
pub type Pool = crate::driver::Pool<Auto>;

/// Waits for a connection or a place on one; see [`Pool::acquire`].
pub type Acquire = crate::driver::Acquire<Auto>;

/// HTTP/1.1 or HTTP/2, as a pool knows it.
pub struct Auto {
    connector: Rc<dyn Connect<Opened>>,
    /// How many streams the peer took at a time on the last HTTP/2 connection whose SETTINGS came.
    taken: Rc<Cell<u32>>,
    watcher: OnceCell<Weak<dyn Watcher>>,
}

/// What a stream gets.
pub enum Lease {
    /// A connection.
    H1(h1::Lease<Auto>),
    /// A place on one.
    H2(h2::Lease<Auto>),
}

impl Pool {
    /// A pool without connections; `settings.concurrency` is what an HTTP/2 connection may carry
    /// (`max_concurrent_streams`). Must be called on a thread whose runtime takes local tasks.
    pub fn new(
        settings: Rc<Settings>,
        shared: Shared,
        connector: Rc<dyn Connect<Opened>>,
        neighbours: Weak<dyn Neighbours>,
    ) -> Rc<Self> {
        let taken = Rc::new(Cell::new(u32::MAX));
        Self::start(Auto { connector, taken, watcher: OnceCell::new() }, settings, shared, neighbours)
    }

    /// Lets `watcher` add to the pool's report. The first one counts.
    pub(crate) fn described_by(&self, watcher: Weak<dyn Watcher>) {
        let _ = self.kind.watcher.set(watcher);
    }
}

impl Kind for Auto {
    type Slot = Slot;
    type Lent = Lease;
    const PROTOCOL: &'static str = "auto";

    fn connect(&self) -> Attempt<Speaking> {
        let attempt = self.connector.connect();
        let taken = self.taken.clone();
        Box::pin(async move {
            Ok(match attempt.await? {
                Opened::H1(conn, facts) => Speaking::H1((conn, facts)),
                Opened::H2(opened) => Speaking::H2(Dialed { opened, taken }),
            })
        })
    }

    fn address(&self) -> Option<Arc<Address>> {
        self.connector.address()
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
    fn lend(pool: &Rc<Pool>, inner: &mut Inner<Slot>, grant: Grant) -> Option<Lease> {
        let carried = inner.machine.carried(grant.key);
        match inner.slots.get_mut(grant.key.index())? {
            Slot::Empty(_) => None,
            Slot::H1(slot) => {
                let (conn, facts) = slot.lend()?;
                let reused = carried > 1;
                inner.count_request(grant, reused);
                Some(Lease::H1(h1::Lease::new(pool.clone(), grant.key, conn, facts, reused)))
            }
            Slot::H2(slot) => {
                let link = slot.link()?;
                let reused = link.is_reused_by(grant);
                inner.count_request(grant, reused);
                Some(Lease::H2(h2::Lease::new(pool.clone(), grant.key, link, reused)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
