//! Hosts: what all workers share, and each worker's part with its pools.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use tidegate_config::bootstrap::Locality;
use tidegate_config::cluster::{EndpointConfig, HashedName, HealthStatus, LocalityEndpoints};
use tidegate_config::route::Priority;
use tidegate_pool::host::{HostCounters, HostStats};
use tidegate_pool::learned::IdleLimit;
use tidegate_pool::limits::Limit;
use tidegate_pool::tcp;
use tidegate_pool::{HttpPool, TransportOptions};
use tidegate_types::json::Node;
use tidegate_types::{Address, CloseReason};
use tokio::time::Instant;

use crate::lb::{Health, Member, Method, Roster, Terms};

/// One host of a cluster, shared by all workers.
#[derive(Debug)]
pub struct HostShared {
    /// `endpoint.address`.
    pub address: Arc<Address>,
    /// Its other addresses, raced with the first one.
    pub additional_addresses: Box<[Address]>,
    /// `endpoint.hostname`.
    pub hostname: String,
    /// `load_balancing_weight`.
    pub weight: u32,
    /// `health_status` as configured.
    pub health_status: HealthStatus,
    /// Where it is.
    pub locality: Locality,
    /// The priority of its locality.
    pub priority: u32,
    /// The numbers of `/clusters`.
    pub stats: Arc<HostStats>,
    /// `metadata`, `envoy.lb`: labels that retries may avoid.
    pub labels: Option<Node>,
    /// `metadata`, `envoy.lb`, `hash_key`.
    hash_key: Option<Box<str>>,
    /// What was learned of its idle timeout, once there is a pool.
    idle_limit: OnceLock<Arc<IdleLimit>>,
    pub(crate) connections: Option<Arc<Limit>>,
    /// What was found out about it: bits of [`Failing`].
    failing: AtomicU8,
    /// When it was found to be healthy, on [`clock_ms`]; 0: never yet. What starts slowly starts then.
    eligible_since: AtomicU64,
}

/// Who found that a host fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failing {
    /// Active health checks.
    ActiveCheck = 1,
    /// Outlier detection, which has ejected it.
    Outlier = 2,
}

/// The hosts of a cluster at one time.
#[derive(Debug, Default)]
pub struct HostSet {
    /// In the order of the configuration.
    pub hosts: Vec<Arc<HostShared>>,
    roster: Arc<Roster>,
}

impl HostSet {
    /// These hosts.
    pub fn new(hosts: Vec<Arc<HostShared>>) -> Self {
        Self { hosts, roster: Arc::default() }
    }

    /// As load balancers see them.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// Makes what load balancers share: off the workers, since that of many hosts takes a while.
    pub(crate) fn prepare(&mut self, terms: &Terms) {
        let by = match terms.method {
            Method::Ring(ring) => Some(ring.host_name),
            Method::Maglev(maglev) => Some(maglev.host_name),
            Method::RoundRobin | Method::LeastRequest { .. } | Method::Random => None,
        };
        let now_ms = clock_ms();
        if terms.ramp.is_some() {
            self.hosts.iter().for_each(|host| host.note_eligible(now_ms));
        }
        let members: Vec<_> = self.hosts.iter().map(|host| host.member(by)).collect();
        self.roster = Arc::new(Roster::build(terms, &members, now_ms));
    }
}

/// Milliseconds of the process, at least 1.
pub(crate) fn clock_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    let start = *START.get_or_init(|| now);
    now.saturating_duration_since(start).as_millis() as u64 + 1
}

impl HostShared {
    pub(crate) fn new(
        endpoint: &EndpointConfig,
        place: &LocalityEndpoints,
        workers: usize,
        max_connections: Option<u32>,
        counts_load: bool,
        previous: Option<&HostShared>,
    ) -> Self {
        let stats = match previous.map(|host| &host.stats) {
            Some(stats) if stats.load().is_some() == counts_load => stats.clone(),
            Some(stats) => Arc::new(stats.counting_load(counts_load)),
            None => Arc::new(HostStats::new(workers).counting_load(counts_load)),
        };
        let kept = previous.and_then(|host| host.connections.clone());
        let connections = max_connections.map(|max| {
            let max = u64::from(max);
            let limit = kept.unwrap_or_else(|| Arc::new(Limit::new(max, None, None)));
            limit.set_max(max);
            limit
        });
        Self {
            address: Arc::new(endpoint.address.clone()),
            additional_addresses: endpoint.additional_addresses.as_slice().into(),
            hostname: endpoint.hostname.clone(),
            weight: endpoint.weight,
            health_status: endpoint.health_status,
            locality: place.locality.clone(),
            priority: place.priority,
            stats,
            labels: endpoint.metadata.as_ref().and_then(|all| all.member("envoy.lb")).cloned(),
            hash_key: hash_key(endpoint),
            idle_limit: previous.map(|host| host.idle_limit.clone()).unwrap_or_default(),
            connections,
            failing: AtomicU8::new(previous.map_or(0, |host| host.failing.load(Relaxed))),
            eligible_since: AtomicU64::new(previous.map_or(0, |host| host.eligible_since.load(Relaxed))),
        }
    }

    /// What is learned of how long it lets connections idle.
    pub fn idle_limit(&self) -> &Arc<IdleLimit> {
        self.idle_limit.get_or_init(Arc::default)
    }

    /// Notes what was found out; whether that is news. To be followed by [`ClusterShared::health_changed`] and
    /// [`Peers::tell_of_hosts`].
    ///
    /// [`ClusterShared::health_changed`]: crate::ClusterShared::health_changed
    /// [`Peers::tell_of_hosts`]: crate::Peers::tell_of_hosts
    pub fn set_failing(&self, by: Failing, failing: bool) -> bool {
        let bit = by as u8;
        let old = match failing {
            true => self.failing.fetch_or(bit, Relaxed),
            false => self.failing.fetch_and(!bit, Relaxed),
        };
        if by == Failing::ActiveCheck && !failing && old & bit != 0 {
            self.eligible_since.store(clock_ms(), Relaxed);
        }
        (old & bit != 0) != failing
    }

    /// Whether that was found.
    pub fn is_failing(&self, by: Failing) -> bool {
        self.failing.load(Relaxed) & by as u8 != 0
    }

    /// As the load balancer sees it; `by`: what of it is hashed.
    fn member(&self, by: Option<HashedName>) -> Member<'_> {
        let name = match (by, &self.hash_key) {
            (None, _) => Cow::Borrowed(""),
            (Some(_), Some(key)) => Cow::Borrowed(&**key),
            (Some(HashedName::Hostname), None) => Cow::Borrowed(&*self.hostname),
            (Some(HashedName::Address), None) => Cow::Owned(self.address.to_string()),
        };
        Member {
            weight: self.weight,
            health: self.health(),
            priority: self.priority,
            name,
            load: self.stats.load(),
            since_ms: self.eligible_since.load(Relaxed),
        }
    }

    /// Its slow start begins, if it is healthy and none has begun. A host starts slowly when it is new or when
    /// active checks find it healthy again, not when its ejection ends, as in Envoy.
    fn note_eligible(&self, now_ms: u64) {
        if self.health() == Health::Healthy {
            let _ = self.eligible_since.compare_exchange(0, now_ms, Relaxed, Relaxed);
        }
    }

    /// How the load balancer sees it.
    pub fn health(&self) -> Health {
        if self.failing.load(Relaxed) != 0 {
            return Health::Unhealthy;
        }
        match self.health_status {
            HealthStatus::Unknown | HealthStatus::Healthy => Health::Healthy,
            HealthStatus::Degraded => Health::Degraded,
            HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => Health::Unhealthy,
        }
    }

    /// `health_flags` of `/clusters`.
    pub fn health_flags(&self) -> Cow<'static, str> {
        let configured = match self.health_status {
            HealthStatus::Unknown | HealthStatus::Healthy => "",
            HealthStatus::Degraded => "/degraded_eds_health",
            HealthStatus::Draining => "/failed_eds_health/eds_status_draining",
            HealthStatus::Unhealthy | HealthStatus::Timeout => "/failed_eds_health",
        };
        let found = match (self.is_failing(Failing::ActiveCheck), self.is_failing(Failing::Outlier)) {
            (false, false) => "",
            (true, false) => "/failed_active_hc",
            (false, true) => "/failed_outlier_check",
            (true, true) => "/failed_active_hc/failed_outlier_check",
        };
        match (found, configured) {
            ("", "") => Cow::Borrowed("healthy"),
            (found, "") => Cow::Borrowed(found),
            ("", configured) => Cow::Borrowed(configured),
            (found, configured) => Cow::Owned(format!("{found}{configured}")),
        }
    }
}

/// Empty, or no string: as if unset, as in Envoy.
fn hash_key(endpoint: &EndpointConfig) -> Option<Box<str>> {
    let key = endpoint.metadata.as_ref()?.member("envoy.lb")?.member("hash_key")?.as_str()?;
    (!key.is_empty()).then(|| key.into())
}

/// One worker's part of a host.
pub struct Host {
    shared: Arc<HostShared>,
    counters: HostCounters,
    /// Pools of requests that ask for nothing: by protocol and priority.
    pools: [[RefCell<Option<HttpPool>>; 2]; 2],
    /// Pools of requests that ask something of their connections.
    special_pools: RefCell<HashMap<PoolKey, HttpPool>>,
    tcp_pool: RefCell<Option<Rc<tcp::Pool>>>,
    /// As this worker saw it last.
    seen: Cell<Health>,
}

/// What is spoken on a pool's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http1,
    Http2,
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
        Self {
            shared,
            counters,
            pools: Default::default(),
            special_pools: RefCell::default(),
            tcp_pool: RefCell::default(),
            seen,
        }
    }

    /// What all workers share of it.
    pub fn shared(&self) -> &Arc<HostShared> {
        &self.shared
    }

    /// Its address.
    pub fn address(&self) -> &Arc<Address> {
        &self.shared.address
    }

    /// This worker's handle on its numbers: `rq_success`, `rq_error` and `rq_timeout` are the router's to
    /// count.
    pub fn counters(&self) -> &HostCounters {
        &self.counters
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

    /// Whether it was healthy or degraded when this was asked last, and is neither now.
    pub(crate) fn lost_health(&self) -> bool {
        let now = self.shared.health();
        self.seen.replace(now) != Health::Unhealthy && now == Health::Unhealthy
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
