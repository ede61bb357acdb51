//! Hosts: what all workers share, and each worker's part with its pools.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use tidegate_config::ClusterConfig;
use tidegate_config::bootstrap::Locality;
use tidegate_config::cluster::{EndpointConfig, HashedName, HealthStatus, LbPolicy, LocalityEndpoints};
use tidegate_config::route::Priority;
use tidegate_pool::TransportOptions;
use tidegate_pool::h1::Pool;
use tidegate_pool::host::{HostCounters, HostStats};
use tidegate_pool::learned::IdleLimit;
use tidegate_pool::limits::Limit;
use tidegate_pool::tcp;
use tidegate_types::{Address, CloseReason};

use crate::lb::{HashTable, Health, NamedHost};

/// One host of a cluster, shared by all workers.
#[derive(Debug)]
pub struct HostShared {
    /// `endpoint.address`.
    pub address: Arc<Address>,
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
    /// `metadata`, `envoy.lb`, `hash_key`.
    hash_key: Option<Box<str>>,
    /// What was learned of its idle timeout, once there is a pool.
    idle_limit: OnceLock<Arc<IdleLimit>>,
    pub(crate) connections: Option<Arc<Limit>>,
}

/// The hosts of a cluster at one time.
#[derive(Debug, Default)]
pub struct HostSet {
    /// In the order of the configuration.
    pub hosts: Vec<Arc<HostShared>>,
    hashed: Option<Arc<HashTable>>,
}

impl HostSet {
    /// These hosts.
    pub fn new(hosts: Vec<Arc<HostShared>>) -> Self {
        Self { hosts, hashed: None }
    }

    /// The table of a hashing `lb_policy`.
    pub fn hashed(&self) -> Option<&Arc<HashTable>> {
        self.hashed.as_ref()
    }

    /// Builds the table that `config` asks for: off the workers, since a large one takes a while.
    pub(crate) fn hash(&mut self, config: &ClusterConfig) {
        let by = match &config.lb_policy {
            LbPolicy::RingHash(ring) => ring.host_name,
            LbPolicy::Maglev(maglev) => maglev.host_name,
            LbPolicy::RoundRobin | LbPolicy::Random => return,
        };
        let hosts: Vec<_> = self.hosts.iter().map(|host| host.named(by)).collect();
        let table = HashTable::build(&config.lb_policy, config.healthy_panic_threshold, &hosts);
        self.hashed = table.map(Arc::new);
    }
}

impl HostShared {
    pub(crate) fn new(
        endpoint: &EndpointConfig,
        place: &LocalityEndpoints,
        workers: usize,
        max_connections: Option<u32>,
        previous: Option<&HostShared>,
    ) -> Self {
        let stats = previous.map_or_else(|| Arc::new(HostStats::new(workers)), |host| host.stats.clone());
        let kept = previous.and_then(|host| host.connections.clone());
        let connections = max_connections.map(|max| {
            let max = u64::from(max);
            let limit = kept.unwrap_or_else(|| Arc::new(Limit::new(max, None, None)));
            limit.set_max(max);
            limit
        });
        Self {
            address: Arc::new(endpoint.address.clone()),
            hostname: endpoint.hostname.clone(),
            weight: endpoint.weight,
            health_status: endpoint.health_status,
            locality: place.locality.clone(),
            priority: place.priority,
            stats,
            hash_key: hash_key(endpoint),
            idle_limit: previous.map(|host| host.idle_limit.clone()).unwrap_or_default(),
            connections,
        }
    }

    /// What is learned of how long it lets connections idle.
    pub fn idle_limit(&self) -> &Arc<IdleLimit> {
        self.idle_limit.get_or_init(Arc::default)
    }

    /// As the tables of hashing load balancers see it.
    fn named(&self, by: HashedName) -> NamedHost<'_> {
        let name = match (&self.hash_key, by) {
            (Some(key), _) => Cow::Borrowed(&**key),
            (None, HashedName::Hostname) => Cow::Borrowed(&*self.hostname),
            (None, HashedName::Address) => Cow::Owned(self.address.to_string()),
        };
        NamedHost { name, weight: self.weight, health: self.health() }
    }

    /// How the load balancer sees it.
    pub fn health(&self) -> Health {
        match self.health_status {
            HealthStatus::Unknown | HealthStatus::Healthy => Health::Healthy,
            HealthStatus::Degraded => Health::Degraded,
            HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => Health::Unhealthy,
        }
    }

    /// `health_flags` of `/clusters`.
    pub fn health_flags(&self) -> &'static str {
        match self.health_status {
            HealthStatus::Unknown | HealthStatus::Healthy => "healthy",
            HealthStatus::Degraded => "/degraded_eds_health",
            HealthStatus::Draining => "/failed_eds_health/eds_status_draining",
            HealthStatus::Unhealthy | HealthStatus::Timeout => "/failed_eds_health",
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
    pools: [RefCell<Option<Rc<Pool>>>; 2],
    /// Pools of requests that ask something of their connections.
    special_pools: RefCell<SpecialPools>,
    tcp_pool: RefCell<Option<Rc<tcp::Pool>>>,
}

type SpecialPools = HashMap<(Priority, Rc<TransportOptions>), Rc<Pool>>;

impl Host {
    pub(crate) fn new(shared: Arc<HostShared>) -> Self {
        let counters = shared.stats.writer();
        Self {
            shared,
            counters,
            pools: Default::default(),
            special_pools: RefCell::default(),
            tcp_pool: RefCell::default(),
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

    pub(crate) fn pool(&self, priority: Priority) -> Option<Rc<Pool>> {
        self.pools[priority as usize].borrow().clone()
    }

    pub(crate) fn set_pool(&self, priority: Priority, pool: Rc<Pool>) {
        *self.pools[priority as usize].borrow_mut() = Some(pool);
    }

    pub(crate) fn special_pool(
        &self,
        priority: Priority,
        options: &Rc<TransportOptions>,
    ) -> Option<Rc<Pool>> {
        self.special_pools.borrow().get(&(priority, options.clone())).cloned()
    }

    /// Forgets pools that have lost their last connection: clients choose what they ask for, and it may never be
    /// asked for again.
    pub(crate) fn add_special_pool(&self, priority: Priority, options: Rc<TransportOptions>, pool: Rc<Pool>) {
        let mut pools = self.special_pools.borrow_mut();
        pools.retain(|_, pool| !pool.is_empty());
        pools.insert((priority, options), pool);
    }

    pub(crate) fn tcp_pool(&self) -> Option<Rc<tcp::Pool>> {
        self.tcp_pool.borrow().clone()
    }

    pub(crate) fn set_tcp_pool(&self, pool: Rc<tcp::Pool>) {
        *self.tcp_pool.borrow_mut() = Some(pool);
    }

    pub(crate) fn drain(&self, reason: CloseReason) {
        if let Some(pool) = self.tcp_pool.take() {
            pool.drain(reason);
        }
        for pool in self.special_pools.take().into_values() {
            pool.drain(reason);
        }
        for pool in &self.pools {
            if let Some(pool) = pool.take() {
                pool.drain(reason);
            }
        }
    }
}
