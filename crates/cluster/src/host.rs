//! Hosts: what all workers share, and each worker's part with its pools.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tidegate_config::ClusterConfig;
use tidegate_config::bootstrap::Locality;
use tidegate_config::cluster::{
    EndpointConfig, EndpointHealthCheck, HashedName, HealthStatus, LocalityEndpoints,
};
use tidegate_pool::host::{Addresses, HostStats};
use tidegate_pool::learned::IdleLimit;
use tidegate_pool::limits::Limit;
use tidegate_types::Address;
use tidegate_types::json::{Kind, Node};
use tidegate_types::recent::Recent;
use tokio::time::Instant;

use crate::checks::{Checks, Mark};
use crate::home::Home;
use crate::judged::{Record, Watch};
use crate::lb::{Census, Health, Member, Method, Roster, Scene, Subsets, Terms};
use crate::transports::{Choice, Matcher};

mod local;

pub use local::Host;
pub(crate) use local::{Followed, PoolKey, Protocol};

/// One host of a cluster, shared by all workers.
///
/// It lives as long as discovery names it: what is said about it may change, its pools, numbers and health stay.
#[derive(Debug)]
pub struct HostShared {
    addresses: Arc<Addresses>,
    attributes: ArcSwap<HostAttributes>,
    /// Copies of what choosing a host needs of the attributes.
    weight: AtomicU32,
    priority: AtomicU32,
    health_status: AtomicU8,
    /// Which of its cluster's transports, as [`Choice`] has it.
    transport: AtomicU32,
    /// The numbers of `/clusters`.
    pub stats: Arc<HostStats>,
    /// What was learned of its idle timeout, once there is a pool.
    idle_limit: OnceLock<Arc<IdleLimit>>,
    pub(crate) connections: Option<Arc<Limit>>,
    /// What was found out about it: bits of [`Failing`].
    failing: AtomicU8,
    /// What else active health checks found.
    pub checks: Checks,
    /// Discovery does not name it any more; it stays while active checks find it well.
    removing: AtomicBool,
    /// When it was found to be healthy, on [`clock_ms`]; 0: never yet. What starts slowly starts then.
    eligible_since: AtomicU64,
    /// What outlier detection learns of it, if its cluster has that.
    record: Option<Box<Record>>,
}

/// What is said about a host, and may change while it lives.
#[derive(Clone, Debug, PartialEq)]
pub struct HostAttributes {
    /// `endpoint.hostname`.
    pub hostname: String,
    /// `load_balancing_weight`.
    pub weight: u32,
    /// `health_status` as configured.
    pub health_status: HealthStatus,
    /// Where it is.
    pub locality: Locality,
    /// `load_balancing_weight` of its locality.
    pub locality_weight: Option<u32>,
    /// The priority of its locality.
    pub priority: u32,
    /// `metadata`, `envoy.lb`: labels that retries may avoid.
    pub labels: Option<Node>,
    /// Of `labels`, `canary`: its answers count apart.
    pub canary: bool,
    /// `metadata.filter_metadata`, whole.
    pub metadata: Option<Node>,
    /// `endpoint.health_check_config`.
    pub health_check: EndpointHealthCheck,
}

impl HostAttributes {
    fn new(endpoint: &EndpointConfig, place: &LocalityEndpoints) -> Self {
        let labels = endpoint.metadata.as_ref().and_then(|all| all.member("envoy.lb"));
        Self {
            hostname: endpoint.hostname.clone(),
            weight: endpoint.weight,
            health_status: endpoint.health_status,
            locality: place.locality.clone(),
            locality_weight: place.weight,
            priority: place.priority,
            labels: labels.cloned(),
            canary: labels
                .and_then(|labels| labels.member("canary"))
                .is_some_and(|canary| canary.kind == Kind::Bool(true)),
            metadata: endpoint.metadata.clone(),
            health_check: endpoint.health_check.clone(),
        }
    }

    /// Those of a host that was made lately on this thread, if they are the same: of most hosts nothing is said.
    fn shared(self) -> Arc<Self> {
        thread_local! {
            static RECENT: Recent<HostAttributes> = const { Recent::new() };
        }
        RECENT.with(|recent| recent.share(self, PartialEq::eq))
    }

    /// `metadata`, `envoy.lb`, `hash_key`. Empty, or no string: as if unset, as in Envoy.
    fn hash_key(&self) -> Option<&str> {
        self.labels.as_ref()?.member("hash_key")?.as_str().filter(|key| !key.is_empty())
    }
}

/// Who found that a host fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failing {
    /// Active health checks.
    ActiveCheck = 1,
    /// Outlier detection, which has ejected it.
    Outlier = 2,
    /// Outlier detection, by what the host said of itself: it is degraded, which is no failure yet.
    OutlierDegraded = 4,
}

/// The hosts of a cluster at one time.
#[derive(Debug, Default)]
pub struct HostSet {
    /// In the order of the configuration.
    pub hosts: Vec<Arc<HostShared>>,
    roster: Arc<Roster>,
    /// Of a cluster that has them.
    subsets: Option<Arc<Subsets>>,
}

impl HostSet {
    /// These hosts.
    pub fn new(hosts: Vec<Arc<HostShared>>) -> Self {
        Self { hosts, roster: Arc::default(), subsets: None }
    }

    /// As load balancers see them.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// Those with equal labels, if the cluster has subsets.
    pub fn subsets(&self) -> Option<&Arc<Subsets>> {
        self.subsets.as_ref()
    }

    /// Makes what load balancers share: off the workers, since that of many hosts takes a while.
    pub(crate) fn prepare(&mut self, config: &ClusterConfig, terms: &Terms, home: &Home) {
        let cluster = config.name.as_str();
        let by = match terms.method {
            Method::Ring(ring) => Some(ring.host_name),
            Method::Maglev(maglev) => Some(maglev.host_name),
            Method::RoundRobin | Method::LeastRequest { .. } | Method::Random => None,
        };
        let now_ms = clock_ms();
        if terms.ramp.is_some() {
            self.hosts.iter().for_each(|host| host.note_eligible(now_ms));
        }
        let attributes: Vec<_> = self.hosts.iter().map(|host| host.attributes.load_full()).collect();
        let hosts = self.hosts.iter().zip(&attributes);
        // Where the cluster chooses there is nothing to balance.
        let balanced = hosts.filter(|_| !terms.provided);
        let members: Vec<_> = balanced.map(|(host, attributes)| host.member(attributes, by)).collect();
        let census = home.census(cluster);
        let scene = Scene { now_ms, home: home.locality(), census: census.as_deref() };
        self.roster = Roster::build(terms, &members, scene).shared();
        self.subsets = config.subsets.as_ref().map(|subsets| {
            let labels: Vec<_> = attributes.iter().map(|attributes| attributes.labels.as_ref()).collect();
            Arc::new(Subsets::build(subsets, terms, &members, &labels, scene))
        });
        if home.is_local(cluster) {
            home.count(Census::new(&members, home.locality()));
        }
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
    /// The host of `endpoint`. One at the same address in a cluster that this one's replaces, `previous`, leaves it
    /// what was counted, learned and found out.
    pub(crate) fn new(
        endpoint: &EndpointConfig,
        place: &LocalityEndpoints,
        scale: &HostScale,
        previous: Option<&HostShared>,
    ) -> Self {
        let counts_load = scale.counts_load;
        let stats = match previous.map(|host| &host.stats) {
            Some(stats) if stats.load().is_some() == counts_load => stats.clone(),
            Some(stats) => Arc::new(stats.counting_load(counts_load)),
            None => Arc::new(HostStats::new(scale.workers).counting_load(counts_load)),
        };
        let kept = previous.and_then(|host| host.connections.clone());
        let connections = scale.max_connections.map(|max| {
            let max = u64::from(max);
            let limit = kept.unwrap_or_else(|| Arc::new(Limit::new(max, None, None)));
            limit.set_max(max);
            limit
        });
        // Nobody would take it back that nobody ejects.
        let outlier = Failing::Outlier as u8 | Failing::OutlierDegraded as u8;
        let keeps = if scale.watch.is_some() { u8::MAX } else { !outlier };
        let attributes = HostAttributes::new(endpoint, place);
        Self {
            addresses: Arc::new(Addresses::new(addresses(endpoint))),
            weight: AtomicU32::new(attributes.weight),
            priority: AtomicU32::new(attributes.priority),
            health_status: AtomicU8::new(attributes.health_status as u8),
            transport: AtomicU32::new(scale.transport_of(endpoint, place).to_bits()),
            attributes: ArcSwap::new(attributes.shared()),
            stats,
            idle_limit: previous.map(|host| host.idle_limit.clone()).unwrap_or_default(),
            connections,
            failing: AtomicU8::new(previous.map_or(0, |host| host.failing.load(Relaxed)) & keeps),
            checks: Checks::default(),
            removing: AtomicBool::new(false),
            eligible_since: AtomicU64::new(previous.map_or(0, |host| host.eligible_since.load(Relaxed))),
            record: scale.watch.as_ref().map(|watch| {
                let previous = previous.and_then(|host| host.record.as_deref());
                Box::new(Record::new(watch, previous))
            }),
        }
    }

    /// Takes over what discovery says about it now; whether that is news. On the main thread.
    pub(crate) fn update(
        &self,
        endpoint: &EndpointConfig,
        place: &LocalityEndpoints,
        scale: &HostScale,
    ) -> Updated {
        let was_removing = self.removing.swap(false, Relaxed);
        let other_addresses = self.addresses.set(addresses(endpoint));
        let transport = scale.transport_of(endpoint, place);
        let other_transport = self.transport.swap(transport.to_bits(), Relaxed) != transport.to_bits();
        let attributes = HostAttributes::new(endpoint, place);
        let old = self.attributes.load();
        if **old == attributes {
            let news = was_removing || other_addresses || other_transport;
            return Updated { news, transport: None };
        }
        let transport = (old.metadata != attributes.metadata).then_some(transport);
        self.weight.store(attributes.weight, Relaxed);
        self.priority.store(attributes.priority, Relaxed);
        self.health_status.store(attributes.health_status as u8, Relaxed);
        self.attributes.store(attributes.shared());
        Updated { news: true, transport }
    }

    /// Which of its cluster's transports it speaks.
    #[inline]
    pub(crate) fn transport(&self) -> Choice {
        Choice::from_bits(self.transport.load(Relaxed))
    }

    /// Whether active checks of `endpoint` would go where its own go.
    pub(crate) fn is_checked_as(&self, endpoint: &EndpointConfig) -> bool {
        let own = self.attributes.load().health_check.address(&self.address());
        own == endpoint.health_check.address(&endpoint.address)
    }

    /// Where it is reached: its primary address.
    pub fn address(&self) -> Arc<Address> {
        self.addresses.primary()
    }

    /// All its addresses, of which a connection takes the first that answers.
    pub fn addresses(&self) -> &Arc<Addresses> {
        &self.addresses
    }

    /// What is said about it.
    pub fn attributes(&self) -> Arc<HostAttributes> {
        self.attributes.load_full()
    }

    /// `load_balancing_weight`.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// The priority of its locality.
    pub fn priority(&self) -> u32 {
        self.priority.load(Relaxed)
    }

    /// `health_status` as configured.
    pub fn health_status(&self) -> HealthStatus {
        HealthStatus::ALL.get(usize::from(self.health_status.load(Relaxed))).copied().unwrap_or_default()
    }

    /// Notes that discovery names it no more, but that it may stay until an active check fails.
    pub(crate) fn set_removing(&self) -> bool {
        !self.removing.swap(true, Relaxed)
    }

    /// Whether discovery names it no more (Envoy: `PENDING_DYNAMIC_REMOVAL`).
    pub fn is_removing(&self) -> bool {
        self.removing.load(Relaxed)
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

    /// What outlier detection learns of it; `None`: its cluster has none.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_deref()
    }

    /// An active health check found it healthy: outlier detection may take it back before its time.
    pub fn check_passed(self: &Arc<Self>) {
        if let Some(record) = &self.record
            && self.is_failing(Failing::Outlier)
        {
            record.check_passed(self);
        }
    }

    /// As the load balancer sees it; `by`: what of it is hashed.
    fn member<'a>(&'a self, attributes: &'a HostAttributes, by: Option<HashedName>) -> Member<'a> {
        let name = match (by, attributes.hash_key()) {
            (None, _) => Cow::Borrowed(""),
            (Some(_), Some(key)) => Cow::Borrowed(key),
            (Some(HashedName::Hostname), None) => Cow::Borrowed(&*attributes.hostname),
            (Some(HashedName::Address), None) => Cow::Owned(self.address().to_string()),
        };
        Member {
            weight: attributes.weight,
            health: self.health(),
            excluded: self.checks.is_excluded(),
            priority: attributes.priority,
            name,
            load: self.stats.load(),
            since_ms: self.eligible_since.load(Relaxed),
            place: &attributes.locality,
            place_weight: attributes.locality_weight.unwrap_or(0),
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
        let found = self.failing.load(Relaxed);
        if found & (Failing::ActiveCheck as u8 | Failing::Outlier as u8) != 0 {
            return Health::Unhealthy;
        }
        match self.health_status() {
            HealthStatus::Unknown | HealthStatus::Healthy
                if found == 0 && !self.checks.has(Mark::Degraded) =>
            {
                Health::Healthy
            }
            HealthStatus::Unknown | HealthStatus::Healthy | HealthStatus::Degraded => Health::Degraded,
            HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => Health::Unhealthy,
        }
    }

    /// `health_flags` of `/clusters`, in Envoy's order.
    pub fn health_flags(&self) -> Cow<'static, str> {
        let status = self.health_status();
        let unhealthy =
            matches!(status, HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout);
        let flags = [
            (self.is_failing(Failing::ActiveCheck), "/failed_active_hc"),
            (self.is_failing(Failing::Outlier), "/failed_outlier_check"),
            (unhealthy, "/failed_eds_health"),
            (self.checks.has(Mark::Degraded), "/degraded_active_hc"),
            (status == HealthStatus::Degraded, "/degraded_eds_health"),
            (self.is_removing(), "/pending_dynamic_removal"),
            (self.checks.has(Mark::Pending), "/pending_active_hc"),
            (self.checks.has(Mark::Excluded), "/excluded_via_immediate_hc_fail"),
            (self.checks.has(Mark::TimedOut), "/active_hc_timeout"),
            (status == HealthStatus::Draining, "/eds_status_draining"),
            (self.is_failing(Failing::OutlierDegraded), "/degraded_outlier_detection"),
        ];
        let mut set = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name);
        match (set.next(), set.next()) {
            (None, _) => Cow::Borrowed("healthy"),
            (Some(only), None) => Cow::Borrowed(only),
            (Some(first), Some(second)) => Cow::Owned([first, second].into_iter().chain(set).collect()),
        }
    }
}

/// The primary one first.
fn addresses(endpoint: &EndpointConfig) -> Arc<[Address]> {
    std::iter::once(&endpoint.address).chain(&endpoint.additional_addresses).cloned().collect()
}

/// What came of telling a host what is said about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Updated {
    /// Whether anything differs.
    pub(crate) news: bool,
    /// Its metadata differs, by which its transport was chosen again.
    pub(crate) transport: Option<Choice>,
}

/// What the numbers and limits of a host depend on beside itself.
#[derive(Clone, Debug)]
pub(crate) struct HostScale {
    pub(crate) workers: usize,
    /// `per_host_thresholds`.
    pub(crate) max_connections: Option<u32>,
    /// Whether load balancers go by its requests in hand.
    pub(crate) counts_load: bool,
    /// Whether there are active checks.
    pub(crate) checked: bool,
    /// What outlier detection hears of all hosts.
    pub(crate) watch: Option<Arc<Watch>>,
    /// What chooses transports by labels.
    pub(crate) matcher: Arc<Matcher>,
}

impl HostScale {
    fn transport_of(&self, endpoint: &EndpointConfig, place: &LocalityEndpoints) -> Choice {
        self.matcher.choose(endpoint.metadata.as_ref(), place.metadata.as_ref())
    }
}
