//! One worker's part of a host: its pools, and what the worker saw of it last.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_config::route::Priority;
use tidegate_pool::host::HostCounters;
use tidegate_pool::tcp;
use tidegate_pool::{HttpPool, TransportOptions};
use tidegate_types::{Address, CloseReason};

use super::{HostAttributes, HostShared};
use crate::cut::{Cut, Cuts};
use crate::judged::Verdict;
use crate::lb::Health;
use crate::stats::{ClusterStats, ZoneStats};

/// One worker's part of a host.
///
/// In the order in which a request needs it: of a thousand hosts none is in a cache when its turn comes, so that each line
/// of 64 bytes is waited for.
#[repr(C)]
pub struct Host {
    counters: HostCounters,
    /// Whether outlier detection listens.
    judged: bool,
    /// As this worker saw it last.
    seen: Cell<Health>,
    address: RefCell<Arc<Address>>,
    attributes: RefCell<Arc<HostAttributes>>,
    /// Pools of requests that ask for nothing: by protocol and priority.
    pools: [[RefCell<Option<HttpPool>>; 2]; 5],
    shared: Arc<HostShared>,
    /// Pools of requests that ask something of their connections.
    special_pools: RefCell<HashMap<PoolKey, HttpPool>>,
    tcp_pool: RefCell<Option<Rc<tcp::Pool>>>,
    /// What its zone's answers are counted in, once one was.
    zone: RefCell<Option<Rc<ZoneStats>>>,
    /// Sessions that end when it begins to fail.
    cuts: Cuts,
}

/// What happened to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// Nothing that concerns its connections.
    Same,
    /// It has another hostname: its connections carry the old one in TLS.
    Renamed,
    /// It was healthy or degraded, and is neither now.
    LostHealth,
}

/// What is spoken on a pool's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    Http3,
    /// What ALPN chooses.
    Auto,
    /// HTTP/3 or what ALPN chooses, whichever connects.
    Grid,
}

/// Which of a host's pools.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) protocol: Protocol,
    pub(crate) priority: Priority,
    /// What its requests ask for.
    pub(crate) options: Option<Rc<TransportOptions>>,
    /// The downstream connection that has the pool to itself.
    pub(crate) owner: Option<u64>,
}

impl PoolKey {
    /// Whether its requests ask for nothing in particular.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.options.is_none() && self.owner.is_none()
    }
}

impl Host {
    pub(crate) fn new(shared: Arc<HostShared>) -> Self {
        let counters = shared.stats.writer();
        let seen = Cell::new(shared.health());
        let attributes = RefCell::new(shared.attributes());
        let address = RefCell::new(shared.address());
        Self {
            judged: shared.record.is_some(),
            shared,
            counters,
            pools: Default::default(),
            special_pools: RefCell::default(),
            tcp_pool: RefCell::default(),
            seen,
            attributes,
            zone: RefCell::default(),
            address,
            cuts: Cuts::default(),
        }
    }

    /// What all workers share of it.
    pub fn shared(&self) -> &Arc<HostShared> {
        &self.shared
    }

    /// Its primary address.
    #[inline]
    pub fn address(&self) -> Arc<Address> {
        self.address.borrow().clone()
    }

    /// What is said about it.
    pub fn attributes(&self) -> Arc<HostAttributes> {
        self.attributes.borrow().clone()
    }

    /// Whether its answers count as a canary's.
    #[inline]
    pub fn is_canary(&self) -> bool {
        self.attributes.borrow().canary
    }

    /// What answers of its zone are counted in, if it and this proxy are said to be in some; `stats`: its cluster's.
    #[inline]
    pub fn zone(&self, stats: &ClusterStats) -> Option<Rc<ZoneStats>> {
        if !stats.counts_zones() {
            return None;
        }
        let known = self.zone.borrow().clone();
        known.or_else(|| {
            let made = stats.zone(&self.attributes.borrow().locality.zone).map(Rc::new);
            self.zone.replace(made.clone());
            made
        })
    }

    /// This worker's handle on its numbers: `rq_success`, `rq_error` and `rq_timeout` are the router's to
    /// count.
    pub fn counters(&self) -> &HostCounters {
        &self.counters
    }

    /// Tells outlier detection how it went. Costs nothing to speak of where there is none.
    #[inline]
    pub fn judge(&self, verdict: Verdict) {
        if !self.judged {
            return;
        }
        if let Some(record) = &self.shared.record {
            record.note(&self.shared, &self.counters, verdict);
        }
    }

    /// Whether outlier detection listens.
    #[inline]
    pub fn is_judged(&self) -> bool {
        self.judged
    }

    /// Whether it wants to know of `x-envoy-degraded`.
    pub fn hears_degraded(&self) -> bool {
        self.shared.record.as_ref().is_some_and(|record| record.hears_degraded())
    }

    /// A response said `x-envoy-degraded`.
    pub fn said_degraded(&self) {
        if let Some(record) = &self.shared.record {
            record.note_degraded(&self.shared);
        }
    }

    fn plain(&self, key: &PoolKey) -> &RefCell<Option<HttpPool>> {
        &self.pools[key.protocol as usize][key.priority as usize]
    }

    #[inline]
    pub(crate) fn pool(&self, key: &PoolKey) -> Option<HttpPool> {
        match key.is_plain() {
            true => self.plain(key).borrow().clone(),
            false => self.special_pools.borrow().get(key).cloned(),
        }
    }

    pub(crate) fn set_pool(&self, key: &PoolKey, pool: HttpPool) {
        match key.is_plain() {
            true => *self.plain(key).borrow_mut() = Some(pool),
            false => drop(self.special_pools.borrow_mut().insert(key.clone(), pool)),
        }
    }

    /// Removes a pool that has lost its last connection. The next request makes another one.
    pub(crate) fn forget_empty(&self, key: &PoolKey) {
        // Dropped after the borrow: its end may come back here.
        let _pool = match key.is_plain() {
            true => self.plain(key).borrow_mut().take_if(|pool| pool.is_empty()),
            false => {
                let mut pools = self.special_pools.borrow_mut();
                let empty = pools.get(key).is_some_and(HttpPool::is_empty);
                if empty { pools.remove(key) } else { None }
            }
        };
    }

    /// Closes a pool of that priority that nobody uses, so that another may take its place under
    /// `max_connection_pools`. As in Envoy, only the same host's are looked at.
    pub(crate) fn give_up_unused(&self, priority: Priority) {
        let plain = self
            .pools
            .iter()
            .find_map(|pools| pools[priority as usize].borrow_mut().take_if(|pool| pool.is_unused()));
        let unused = plain.or_else(|| {
            let mut special = self.special_pools.borrow_mut();
            let (key, _) = special.iter().find(|(key, pool)| key.priority == priority && pool.is_unused())?;
            let key = key.clone();
            special.remove(&key)
        });
        if let Some(pool) = unused {
            pool.drain(CloseReason::Overflow);
        }
    }

    pub(crate) fn tcp_pool(&self) -> Option<Rc<tcp::Pool>> {
        self.tcp_pool.borrow().clone()
    }

    pub(crate) fn set_tcp_pool(&self, pool: Rc<tcp::Pool>) {
        *self.tcp_pool.borrow_mut() = Some(pool);
    }

    /// As [`Host::forget_empty`].
    pub(crate) fn forget_empty_tcp(&self) {
        let _pool = self.tcp_pool.borrow_mut().take_if(|pool| pool.is_empty());
    }

    /// How many pools of HTTP there are.
    #[cfg(test)]
    pub(crate) fn pools(&self) -> usize {
        let plain = self.pools.as_flattened().iter().filter(|pool| pool.borrow().is_some()).count();
        plain + self.special_pools.borrow().len()
    }

    /// Looks at what all workers share of it, and what happened to it since this was asked last.
    pub(crate) fn follow(&self) -> Followed {
        self.address.replace(self.shared.address());
        let attributes = self.attributes.replace(self.shared.attributes());
        if attributes.locality.zone != self.attributes.borrow().locality.zone {
            self.zone.take();
        }
        let health = self.shared.health();
        let lost = self.seen.replace(health) != Health::Unhealthy && health == Health::Unhealthy;
        match attributes.hostname == self.attributes.borrow().hostname {
            _ if lost => Followed::LostHealth,
            false => Followed::Renamed,
            true => Followed::Same,
        }
    }

    /// For a session that ends when this host begins to fail (`close_connections_on_host_health_failure`).
    pub fn cut(&self) -> Cut {
        self.cuts.watch()
    }

    /// Ends sessions.
    pub(crate) fn cut_sessions(&self) {
        self.cuts.fire();
    }

    /// Closes idle connections now and the others with their streams. What comes next starts afresh.
    pub(crate) fn drain(&self, reason: CloseReason) {
        if let Some(pool) = self.tcp_pool.take() {
            pool.drain(reason);
        }
        for pool in self.special_pools.take().into_values() {
            pool.drain(reason);
        }
        for pool in self.pools.as_flattened() {
            // Not while it is borrowed: an empty pool wants to be forgotten.
            let pool = pool.take();
            if let Some(pool) = pool {
                pool.drain(reason);
            }
        }
    }
}
