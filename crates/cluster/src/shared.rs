//! What all workers share of a cluster.

mod figures;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use tidegate_config::ClusterConfig;
use tidegate_config::cluster::{
    Discovery, DropOverload, EndpointConfig, LocalityEndpoints, OutlierDetectionConfig, ResolverConfig,
    Thresholds, UpstreamProtocol,
};
use tidegate_config::route::Priority;
use tidegate_config::runtime::Runtime;
use tidegate_config::transport::UpstreamTransport;
use tidegate_pool::limits::{Limits, Maxima, RetryBudget};
use tidegate_stats::Store;
use tidegate_types::json::Node;
use tidegate_types::recent::Recent;
use tidegate_types::{Address, Compat};
use tokio::sync::{Notify, watch};

use crate::attend::Warming;
use crate::breakers::Breakers;
use crate::checks::Mark;
use crate::discovery::{Destination, Destinations, original_place};
use crate::drop_overload::{DropOverloads, Dropped};
use crate::home::Home;
use crate::host::{Failing, HostScale, HostSet, HostShared};
use crate::host_update::{HostChanges, HostUpdate};
use crate::judged::Watch;
use crate::lb::Terms;
use crate::merging::Merging;
use crate::services::Services;
use crate::stats::{ClusterStats, ManagerStats};
use crate::transports::{Choice, Matcher, Transports};

/// A cluster as the whole process sees it: configuration, hosts, limits, statistics.
#[derive(Debug)]
pub struct ClusterShared {
    name: Arc<str>,
    config: Arc<ClusterConfig>,
    transports: Transports,
    hosts: ArcSwap<HostSet>,
    scale: HostScale,
    /// The hosts of the cluster that this one replaces, until it has hosts of its own: the same ones leave them what
    /// was counted, learned and found out.
    ancestors: Mutex<Option<Arc<HostSet>>>,
    /// Grows with each change of `hosts`, so that workers look at them only then.
    generation: AtomicU64,
    /// The same, for those on the main thread who wait for it, if there are any.
    changes: OnceLock<watch::Sender<u64>>,
    warming: Warming,
    /// Some host said of itself that it fails.
    told: Notify,
    watch: Option<Arc<Watch>>,
    breakers: Arc<Breakers>,
    tuning: ArcSwap<Tuning>,
    maintenance_percent: AtomicU64,
    drops: DropOverloads,
    terms: Terms,
    home: Arc<Home>,
    learns_idle: bool,
    /// Of an `ORIGINAL_DST` cluster: the hosts that workers made.
    destinations: Option<Box<Destinations>>,
    /// Of a cluster with `update_merge_window`.
    merging: Option<Box<Merging>>,
    /// Where DNS is asked who takes HTTP/3.
    services: Option<Box<Services>>,
    stats: Arc<ClusterStats>,
    pub(crate) manager: ManagerStats,
}

impl Drop for ClusterShared {
    /// Its subsets go; those of a cluster that replaces it were counted when that was built.
    fn drop(&mut self) {
        if let Some(subsets) = self.hosts.load().subsets() {
            self.stats.balance.lb_subsets_removed().add(subsets.count() as u64);
            self.stats.balance.lb_subsets_active().sub(subsets.count() as i64);
        }
    }
}

/// Whether HTTPS records of its names are of use to a cluster: a cache takes them up.
fn asks_for_services(config: &ClusterConfig) -> bool {
    let looks_up = match &config.discovery {
        Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => {
            !matches!(dns.resolver, Some(ResolverConfig::System(_)))
        }
        _ => false,
    };
    let selects = matches!(&config.protocol, UpstreamProtocol::Auto(options)
        if options.http3.is_some() && options.alternate_protocols.is_some());
    looks_up && selects && config.http3_selection.https_records
}

/// When load balancers are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Now,
    Later,
}

/// What the runtime may change while the cluster serves.
#[derive(Debug, PartialEq)]
struct Tuning {
    maxima: Arc<[Maxima; 2]>,
    maintenance_percent: u64,
    /// Of 100 requests, how many `drop_overloads` may refuse.
    drop_limit: u64,
    tries_all_addresses: bool,
    outlier_detection: Option<OutlierDetectionConfig>,
    check_interval_ms: (u64, u64),
}

/// What a cluster is built with beside its own message.
#[derive(Clone, Copy, Debug)]
pub struct BuildContext<'a> {
    /// Overrides of circuit breakers: `circuit_breakers.<cluster>.<priority>.<limit>`,
    /// `tidegate.compat.connection_per_host`, `upstream.maintenance_mode.<cluster>`, and
    /// `envoy.reloadable_features.allow_multiple_dns_addresses`.
    pub runtime: &'a Runtime,
    /// All statistics.
    pub store: &'a Store,
    /// Worker threads.
    pub workers: usize,
    /// Where this proxy is.
    pub home: &'a Arc<Home>,
    /// Whose behaviour holds: Envoy learns no idle limits.
    pub compat: Compat,
}

impl ClusterShared {
    /// Builds a cluster. An unchanged one is `previous` itself; a changed one keeps its counters, the
    /// counts of its limits, and the numbers of hosts that stay. `transports` are those of
    /// `config.transport_socket`. To be called on the main thread.
    pub fn build(
        config: &Arc<ClusterConfig>,
        transports: Transports,
        cx: BuildContext<'_>,
        previous: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let tuning = shared_tuning(Tuning::new(config, cx));
        let terms = Terms::new(config, cx.runtime);
        if let Some(previous) = previous
            && previous.config.same_but_content(config)
            && previous.terms == terms
            && previous.home.serves_for(cx.home)
        {
            previous.tune(tuning);
            return previous.clone();
        }
        let counted = previous.map(|previous| &*previous.stats);
        let stats = ClusterStats::new(cx.store, config, cx.home, counted);
        let breakers = match previous.filter(|previous| previous.config.stat_name() == config.stat_name()) {
            Some(previous) => {
                previous.breakers.set_maxima(tuning.maxima.clone());
                previous.breakers.clone()
            }
            None => Arc::new(Breakers::new(cx.store, stats.scope(), tuning.maxima.clone())),
        };
        let watch = config.outlier_detection.as_ref().map(Watch::new);
        let scale = HostScale {
            workers: cx.workers,
            max_connections: config.circuit_breakers.per_host_max_connections,
            counts_load: config.lb_policy.counts_requests(),
            checked: config.is_checked(),
            watch: watch.clone(),
            matcher: Arc::new(Matcher::new(config, cx.store, &stats)),
        };
        let shared = Arc::new_cyclic(|me| Self {
            name: config.name.as_str().into(),
            config: config.clone(),
            transports,
            hosts: ArcSwap::default(),
            scale,
            ancestors: Mutex::new(previous.map(|previous| previous.hosts())),
            generation: AtomicU64::new(0),
            changes: OnceLock::new(),
            warming: Warming::default(),
            told: Notify::new(),
            watch,
            breakers,
            maintenance_percent: AtomicU64::new(tuning.maintenance_percent),
            tuning: ArcSwap::new(tuning),
            drops: DropOverloads::new(config.drop_overload.as_deref()),
            terms,
            home: cx.home.clone(),
            learns_idle: config.reuse.learn_idle && !cx.compat.is_strict(),
            destinations: matches!(config.discovery, Discovery::OriginalDst(_)).then(Box::default),
            merging: config.update_merge_window.map(|window| Box::new(Merging::new(window, me))),
            services: (asks_for_services(config) && !cx.compat.is_strict()).then(Box::default),
            stats,
            manager: ManagerStats::of(cx.store),
        });
        match &config.discovery {
            Discovery::Static => {
                shared.count_made(&config.endpoints);
                shared.replace_endpoints(&config.endpoints, Ancestors::Forget);
            }
            // They are to be found yet.
            _ => drop(shared.replace_endpoints(&[], Ancestors::Keep)),
        }
        shared
    }

    /// What DNS says of who takes HTTP/3; `None`: it is not asked.
    pub(crate) fn services(&self) -> Option<&Services> {
        self.services.as_deref()
    }

    /// Goes by other values of the runtime: its connections and hosts stay as they are.
    fn tune(&self, tuning: Arc<Tuning>) {
        if **self.tuning.load() == *tuning {
            return;
        }
        self.breakers.set_maxima(tuning.maxima.clone());
        self.maintenance_percent.store(tuning.maintenance_percent, SeqCst);
        self.tuning.store(tuning);
    }

    /// `name`.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The validated message.
    pub fn config(&self) -> &Arc<ClusterConfig> {
        &self.config
    }

    /// What connections speak below their protocol.
    pub fn transports(&self) -> &Transports {
        &self.transports
    }

    /// The hosts now.
    pub fn hosts(&self) -> Arc<HostSet> {
        self.hosts.load_full()
    }

    /// Takes over what discovery found: `endpoints` are all there are. A host whose address stays is kept, with its
    /// pools, numbers and health on every worker, whatever else is said about it; where nothing but the order
    /// differs, nothing happens. If active checks find a host that left well, it stays until they do not, unless
    /// `ignore_health_on_host_removal` is set.
    ///
    /// Workers follow at their next choice, or at once with [`Peers::tell_of_hosts`]. On the main thread.
    ///
    /// [`Peers::tell_of_hosts`]: crate::Peers::tell_of_hosts
    pub fn set_endpoints(&self, endpoints: &[LocalityEndpoints]) -> HostChanges {
        self.count_made(endpoints);
        self.take_over(endpoints, Ancestors::Forget)
    }

    /// As [`ClusterShared::set_endpoints`], without counting those that were made.
    pub(crate) fn take_over(&self, endpoints: &[LocalityEndpoints], ancestors: Ancestors) -> HostChanges {
        let changes = self.replace_endpoints(endpoints, ancestors);
        // As in Envoy, not of those that the configuration names; and none is lighter than 1.
        let heaviest = self.hosts.load().hosts.iter().map(|host| host.weight()).max();
        self.stats.members.max_host_weight().set(i64::from(heaviest.unwrap_or(1)));
        changes
    }

    fn count_made(&self, places: &[LocalityEndpoints]) {
        places.iter().for_each(|place| self.note_made(place, &place.endpoints));
    }

    /// Counts the transports that hosts of `place` were made with.
    pub(crate) fn note_made(&self, place: &LocalityEndpoints, endpoints: &[EndpointConfig]) {
        self.scale.matcher.count_made(place, endpoints, &self.stats);
    }

    fn replace_endpoints(&self, endpoints: &[LocalityEndpoints], ancestors: Ancestors) -> HostChanges {
        let old = self.hosts.load_full();
        let mut kept = lock(&self.ancestors);
        let update = HostUpdate::new(&old, kept.as_deref(), endpoints, &self.scale);
        if ancestors == Ancestors::Forget {
            *kept = None;
        }
        drop(kept);
        let update = update.keeping(|host| self.stays_when_removed(host));
        let HostUpdate { hosts, changes, rematched, priorities, .. } = update;
        rematched.into_iter().for_each(|choice| self.count_transport(choice));
        if changes.is_news() || self.generation() == 0 {
            self.stats.members.membership_change().add(priorities as u64);
            match changes.added + changes.removed == 0 && self.generation() > 0 {
                true => drop(self.publish_findings(HostSet::new(hosts))),
                false => self.publish(HostSet::new(hosts)),
            }
        }
        changes
    }

    /// The one host of the cluster is the one of `place` now. As long as its address is still one of those it stays,
    /// with its connections; else it is another host, as in Envoy 1.40. Whether that is news.
    pub(crate) fn move_sole_host(&self, place: &LocalityEndpoints) -> bool {
        let old = self.hosts.load_full();
        let stays = |host: &&Arc<HostShared>| {
            let address = host.address();
            place.endpoints.iter().any(|endpoint| {
                endpoint.address == *address || endpoint.additional_addresses.contains(&address)
            })
        };
        let host = old.hosts.first().filter(stays);
        let (Some(host), [endpoint]) = (host, place.endpoints.as_slice()) else {
            let places = std::slice::from_ref(place);
            self.count_made(places);
            return self.replace_endpoints(places, Ancestors::Forget).is_news();
        };
        self.note_made(place, &place.endpoints);
        let changed = host.update(endpoint, place, &self.scale).news;
        if changed {
            self.stats.members.membership_change().inc();
            self.publish(HostSet::new(old.hosts.clone()));
        }
        changed
    }

    /// What hosts with these labels speak.
    pub(crate) fn transport_by(&self, labels: &Node) -> Choice {
        self.scale.matcher.choose_by(Some(labels)).unwrap_or_default()
    }

    /// The configuration of what is spoken by `choice`.
    pub(crate) fn socket_of(&self, choice: Choice) -> &UpstreamTransport {
        let matches = &self.config.transport_matches;
        let matched = choice.index().and_then(|index| matches.get(index)).map(|one| &one.socket);
        matched.unwrap_or(&self.config.transport_socket)
    }

    /// Counts that a host or a connection was given its transport.
    pub(crate) fn count_transport(&self, choice: Choice) {
        self.scale.matcher.count(choice, &self.stats);
    }

    /// The hosts that workers made, if the cluster is one where they do.
    pub(crate) fn destinations(&self) -> Option<&Destinations> {
        self.destinations.as_deref()
    }

    /// The host at `address` of an `ORIGINAL_DST` cluster, made at once if need be. For workers.
    pub(crate) fn destination(&self, address: &Address) -> Option<Arc<Destination>> {
        let make = || {
            let place = original_place(&self.name, address);
            let kept = lock(&self.ancestors).clone();
            let ancestor = kept.iter().flat_map(|set| &set.hosts).find(|host| *host.address() == *address);
            self.note_made(&place, &place.endpoints);
            let endpoint = place.endpoints.first()?;
            Some(Arc::new(HostShared::new(endpoint, &place, &self.scale, ancestor.map(Arc::as_ref))))
        };
        self.destinations()?.host(address, make)
    }

    /// Publishes the hosts that workers made, without those that left; whether that is news. On the main thread.
    pub(crate) fn publish_destinations(&self) -> bool {
        let Some(destinations) = self.destinations() else { return false };
        let old = self.hosts.load_full();
        let hosts = destinations.follow(&old.hosts);
        let same = |(old, new)| Arc::ptr_eq(old, new);
        let news = hosts.len() != old.hosts.len() || !old.hosts.iter().zip(&hosts).all(same);
        if news {
            self.set_hosts(HostSet::new(hosts));
        }
        news
    }

    /// Whoever was to inherit has done so.
    pub(crate) fn forget_ancestors(&self) {
        *lock(&self.ancestors) = None;
    }

    /// Whether `host`, which discovery does not name any more, stays.
    fn stays_when_removed(&self, host: &HostShared) -> bool {
        self.config.keeps_checked_hosts() && !host.is_failing(Failing::ActiveCheck)
    }

    /// Publishes other hosts; workers follow at their next choice. To be called on the main thread.
    pub fn set_hosts(&self, hosts: HostSet) {
        self.stats.members.membership_change().inc();
        self.publish(hosts);
    }

    /// Hosts failed, or recovered ([`HostShared::set_failing`]): balancers are made anew. One that discovery does not
    /// name any more goes when an active check finds it failing. To be called on the main thread.
    pub fn health_changed(&self) {
        let old = self.hosts.load();
        let gone = |host: &&Arc<HostShared>| host.is_removing() && host.is_failing(Failing::ActiveCheck);
        let priorities: HashSet<_> = old.hosts.iter().filter(gone).map(|host| host.priority()).collect();
        let hosts = HostSet::new(old.hosts.iter().filter(|host| !gone(host)).cloned().collect());
        self.stats.members.membership_change().add(priorities.len() as u64);
        let told = match priorities.is_empty() {
            true => self.publish_findings(hosts),
            false => {
                self.publish(hosts);
                Told::Now
            }
        };
        if told == Told::Now {
            self.manager.cluster_updated().inc();
        }
    }

    /// Publishes what was found out about hosts that stay, or, within `update_merge_window`, will.
    fn publish_findings(&self, hosts: HostSet) -> Told {
        if self.merging.as_ref().is_some_and(|merging| merging.holds_back(&self.manager)) {
            figures::membership(&self.stats, &hosts);
            return Told::Later;
        }
        self.publish(hosts);
        Told::Now
    }

    /// An `update_merge_window` is over.
    pub(crate) fn merged(&self) {
        let Some(_pending) = self.merging.as_ref().and_then(|merging| merging.take_pending()) else { return };
        self.publish(HostSet::new(self.hosts.load().hosts.clone()));
        self.manager.cluster_updated_via_merge().inc();
    }

    /// Where this proxy is.
    pub(crate) fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// Whether the local cluster's hosts are looked at; so they are, as in Envoy, where weights of places then decide.
    fn zone_aware(&self) -> bool {
        !self.terms.method.hashes() && self.home.census(&self.name).is_some()
    }

    /// The hosts of the local cluster changed, by which requests are routed.
    pub(crate) fn rebalance(&self) {
        self.publish(HostSet::new(self.hosts.load().hosts.clone()));
    }

    /// A response of `host` said that it fails (`x-envoy-immediate-health-check-fail`): if the cluster is checked, it
    /// counts as failed. For workers.
    pub fn host_says_it_fails(&self, host: &HostShared) {
        if self.is_checked(host) {
            host.checks.set(Mark::Excluded, true);
            if !host.checks.set(Mark::Told, true) {
                self.told.notify_one();
            }
        }
    }

    /// Returns when some host carries [`Mark::Told`].
    pub async fn host_told(&self) {
        self.told.notified().await;
    }

    /// Whether there are active checks of `host`.
    pub fn is_checked(&self, host: &HostShared) -> bool {
        self.config.is_checked() && !host.attributes().health_check.disabled
    }

    /// What hosts begin with: those that are checked fail until they were.
    fn meet(&self, hosts: &HostSet) {
        for host in hosts.hosts.iter().filter(|host| !host.checks.set(Mark::Met, true)) {
            let checked = self.is_checked(host);
            host.set_failing(Failing::ActiveCheck, checked);
            host.checks.set(Mark::Pending, checked && self.config.ignore_new_hosts_until_first_hc);
        }
    }

    fn publish(&self, mut hosts: HostSet) {
        self.meet(&hosts);
        hosts.prepare(&self.config, &self.terms, &self.home);
        figures::membership(&self.stats, &hosts);
        figures::choice(&self.stats, &hosts, self.zone_aware());
        if let Some(subsets) = hosts.subsets() {
            figures::subsets(&self.stats, self.hosts.load().subsets().map(|old| &**old), subsets);
        }
        self.hosts.store(Arc::new(hosts));
        if let Some(merging) = &self.merging {
            merging.told(&self.manager);
        }
        let generation = self.generation.fetch_add(1, SeqCst) + 1;
        if let Some(changes) = self.changes.get() {
            changes.send_replace(generation);
        }
    }

    /// Tells of each change of hosts or of their health, for those on the main thread.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.get_or_init(|| watch::Sender::new(self.generation())).subscribe()
    }

    /// Who has still to speak before it is used.
    pub fn warming(&self) -> &Warming {
        &self.warming
    }

    /// `outlier_detection`, runtime overrides included.
    pub fn outlier_detection(&self) -> Option<OutlierDetectionConfig> {
        self.tuning.load().outlier_detection.clone()
    }

    /// The shortest and the longest time between two health checks of a host, in ms: the runtime's
    /// `health_check.min_interval` and `.max_interval`.
    pub fn check_interval_ms(&self) -> (u64, u64) {
        self.tuning.load().check_interval_ms
    }

    /// What outlier detection hears from the workers, if the cluster has it.
    pub fn watch(&self) -> Option<&Arc<Watch>> {
        self.watch.as_ref()
    }

    /// Changes with the hosts.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// The circuit breakers of a priority.
    #[inline]
    pub fn limits(&self, priority: Priority) -> &Arc<Limits> {
        self.breakers.limits(priority)
    }

    /// The same, if anything has needed them yet; all of what they limit is free before.
    pub fn limits_in_use(&self, priority: Priority) -> Option<&Arc<Limits>> {
        self.breakers.limits_in_use(priority)
    }

    /// The maxima in force, runtime overrides included.
    pub fn maxima(&self, priority: Priority) -> Maxima {
        self.tuning.load().maxima[priority as usize]
    }

    /// Whether the request that drew `random` is refused with 503 for maintenance: so many of 100 as the runtime
    /// key `upstream.maintenance_mode.<cluster>` says (Envoy docs, "HTTP routing: runtime").
    #[inline]
    pub fn refuses_for_maintenance(&self, random: impl FnOnce() -> u64) -> bool {
        let percent = self.maintenance_percent.load(Relaxed);
        percent > 0 && random() % 100 < percent
    }

    /// Whether the request that drew `random` is refused with 503 by `drop_overloads`, of which the runtime key
    /// `load_balancing_policy.drop_overload_limit` allows so many of 100.
    #[inline]
    pub fn refuses_for_overload(&self, random: impl FnOnce() -> u64) -> Option<Dropped> {
        match self.drops.is_any() {
            true => self.drops.refuses(self.tuning.load().drop_limit, random()),
            false => None,
        }
    }

    /// Goes by what came with the hosts, in place of what the configuration says.
    pub fn set_drop_overload(&self, configured: Option<&DropOverload>) {
        self.drops.set(configured);
    }

    /// What holds of `drop_overloads`.
    pub fn drop_overload(&self) -> Option<DropOverload> {
        self.drops.configured()
    }

    /// Whether its hosts' idle timeouts are learned ([`tidegate_pool::learned`]).
    #[inline]
    pub fn learns_idle(&self) -> bool {
        self.learns_idle
    }

    /// Whether connections to a host with several addresses try more than the first.
    pub fn tries_all_addresses(&self) -> bool {
        self.tuning.load().tries_all_addresses
    }

    /// Statistics.
    #[inline]
    pub fn stats(&self) -> &Arc<ClusterStats> {
        &self.stats
    }
}

/// What becomes of the hosts of the cluster that this one replaces, once others took over from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ancestors {
    /// More hosts will come.
    Keep,
    /// All are there.
    Forget,
}

impl Tuning {
    fn new(config: &ClusterConfig, cx: BuildContext<'_>) -> Self {
        Self {
            maxima: Arc::new(
                [Priority::Default, Priority::High].map(|priority| maxima(config, cx.runtime, priority)),
            ),
            maintenance_percent: maintenance_percent(config, cx.runtime),
            drop_limit: cx.runtime.integer("load_balancing_policy.drop_overload_limit").unwrap_or(100),
            tries_all_addresses: tries_all_addresses(cx),
            outlier_detection: config.outlier_detection.as_ref().map(|outlier| outlier.under(cx.runtime)),
            check_interval_ms: match config.is_checked() {
                true => (
                    cx.runtime.integer("health_check.min_interval").unwrap_or(0),
                    cx.runtime.integer("health_check.max_interval").unwrap_or(u64::MAX),
                ),
                false => (0, u64::MAX),
            },
        }
    }
}

/// The one that another cluster got, if it is the same: most of many clusters are tuned alike.
fn shared_tuning(tuning: Tuning) -> Arc<Tuning> {
    thread_local! {
        static RECENT: Recent<Tuning> = const { Recent::new() };
    }
    RECENT.with(|recent| recent.share(tuning, PartialEq::eq))
}

/// `default` or `high`, as in statistics and runtime keys.
fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Default => "default",
        Priority::High => "high",
    }
}

/// Of 100 requests; 0 unless the runtime says otherwise.
fn maintenance_percent(config: &ClusterConfig, runtime: &Runtime) -> u64 {
    let prefix = "upstream.maintenance_mode.";
    if !runtime.has_keys_under(prefix) {
        return 0;
    }
    runtime.integer(&format!("{prefix}{}", config.name)).unwrap_or(0).min(100)
}

/// A runtime key that Envoy had before 1.40: since then it tries them all.
fn tries_all_addresses(cx: BuildContext<'_>) -> bool {
    let key = "envoy.reloadable_features.allow_multiple_dns_addresses";
    cx.compat.is_strict() || cx.runtime.flag(key).unwrap_or(true)
}

fn maxima(config: &ClusterConfig, runtime: &Runtime, priority: Priority) -> Maxima {
    let thresholds: &Thresholds = match priority {
        Priority::Default => &config.circuit_breakers.default,
        Priority::High => &config.circuit_breakers.high,
    };
    // Eight keys a priority: nobody spells them out for thousands of clusters where there are none.
    let overrides = runtime.has_keys_under("circuit_breakers.");
    let prefix = match overrides {
        true => format!("circuit_breakers.{}.{}", config.name, priority_name(priority)),
        false => String::new(),
    };
    let integer = |key: &str, configured: u64| match overrides {
        true => runtime.integer(&format!("{prefix}.{key}")).unwrap_or(configured),
        false => configured,
    };
    let configured = thresholds.retry_budget.as_ref();
    let (percent, least) = match overrides {
        true => (
            runtime.number(&format!("{prefix}.retry_budget.budget_percent")),
            runtime.integer(&format!("{prefix}.retry_budget.min_retry_concurrency")),
        ),
        false => (None, None),
    };
    // As in Envoy a key alone puts a budget in the place of `max_retries`.
    let has_budget = configured.is_some() || percent.is_some() || least.is_some();
    let retry_budget = has_budget.then(|| RetryBudget {
        percent: percent.or(configured.map(|budget| budget.budget_percent)).unwrap_or(20.0),
        min_concurrency: least
            .or(configured.map(|budget| u64::from(budget.min_retry_concurrency)))
            .unwrap_or(3),
        interval: configured.and_then(|budget| budget.budget_interval),
    });
    Maxima {
        connections: integer("max_connections", u64::from(thresholds.max_connections)),
        pending: integer("max_pending_requests", u64::from(thresholds.max_pending_requests)),
        requests: integer("max_requests", u64::from(thresholds.max_requests)),
        retries: integer("max_retries", u64::from(thresholds.max_retries)),
        retry_budget,
        pools: integer("max_connection_pools", thresholds.max_connection_pools.map_or(u64::MAX, u64::from)),
        connecting: config.reuse.max_connecting.map_or(u64::MAX, u64::from),
        connection_per_host: runtime.flag("tidegate.compat.connection_per_host").unwrap_or(false),
        track_remaining: thresholds.track_remaining,
    }
}

/// Ignores poison: what is inside is valid after any panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
