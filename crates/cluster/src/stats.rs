//! `cluster.<name>.` beside what pools count: what the router counts, members, load balancing, discovery,
//! codecs. Names follow Envoy docs, "Cluster manager statistics"; those of features that this build lacks
//! stay 0, so that dashboards find them.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use tidegate_config::ClusterConfig;
use tidegate_config::cluster::LbPolicy;
use tidegate_pool::dialer::EyeballsStats;
use tidegate_stats::{Outline, Scope, Store, Unmade, stat_block};

use crate::home::Home;
use crate::lb::ZoneChoice;

mod in_use;
mod zones;

pub(crate) use in_use::BREAKERS;
pub use in_use::InUse;
pub use zones::ZoneStats;

use in_use::Parts;

stat_block! {
    /// `cluster_manager.`
    pub struct ManagerStats {
        counters {
            cluster_added, cluster_modified, cluster_removed,
            /// Changes of hosts that load balancers were told of at once.
            cluster_updated,
            /// Those that waited for the end of an `update_merge_window`.
            cluster_updated_via_merge,
            /// Those that waited, and were told of with others before.
            update_merge_cancelled,
            /// Those of clusters with a window that came after its end.
            update_out_of_merge_window,
        }
        gauges { active_clusters, warming_clusters }
    }
}

impl ManagerStats {
    /// Those in `store`.
    pub fn of(store: &Store) -> Self {
        Self::new(store, Scope::new("cluster_manager", &[]))
    }
}

stat_block! {
    /// Counted by the router.
    pub struct RouterStats {
        counters {
            /// The route's `timeout` fired.
            upstream_rq_timeout,
            upstream_rq_per_try_timeout,
            upstream_rq_per_try_idle_timeout,
            /// The cluster's `max_stream_duration` fired.
            upstream_rq_max_duration_reached,
            /// Retries started.
            upstream_rq_retry,
            upstream_rq_retry_success,
            upstream_rq_retry_limit_exceeded,
            upstream_rq_retry_overflow,
            upstream_rq_retry_backoff_exponential,
            upstream_rq_retry_backoff_ratelimited,
            /// Requests sent again without a policy, since that could do no harm.
            upstream_rq_safe_retry,
            /// Those of them that got a response.
            upstream_rq_safe_retry_success,
            /// Written on a reused connection, and not idempotent.
            upstream_rq_safe_retry_denied_method = "upstream_rq_safe_retry_denied.method",
            /// More body than `replay_buffer_bytes` was gone.
            upstream_rq_safe_retry_denied_body = "upstream_rq_safe_retry_denied.body",
            /// `max_retries` or the retry budget was reached.
            upstream_rq_safe_retry_denied_limit = "upstream_rq_safe_retry_denied.limit",
            retry_or_shadow_abandoned,
            upstream_rq_maintenance_mode,
            upstream_internal_redirect_failed_total,
            upstream_internal_redirect_succeeded_total,
        }
    }
}

stat_block! {
    /// Hosts: what a cluster sets when it begins. Few, since there are as many as clusters from the start.
    pub struct MemberStats {
        counters {
            membership_change,
            /// Hosts whose transport socket was chosen: one for each host of each new host set.
            default_total_match_count = "default.total_match_count",
        }
        gauges {
            membership_total,
            membership_healthy,
            membership_degraded,
            membership_excluded,
            max_host_weight,
        }
    }
}

stat_block! {
    /// Load balancing and discovery.
    pub struct BalanceStats {
        counters {
            /// Selections made among all hosts because too few were healthy.
            lb_healthy_panic,
            lb_local_cluster_not_ok,
            lb_recalculate_zone_structures,
            lb_subsets_created,
            lb_subsets_fallback,
            lb_subsets_fallback_panic,
            lb_subsets_removed,
            lb_subsets_selected,
            lb_zone_cluster_too_small,
            lb_zone_no_capacity_left,
            lb_zone_routing_all_directly,
            lb_zone_routing_cross_zone,
            lb_zone_routing_sampled,
            original_dst_host_invalid,
            update_attempt,
            update_success,
            update_failure,
            update_empty,
            update_no_rebuild,
            assignment_stale,
            assignment_timeout_received,
            assignment_use_cached,
        }
        gauges {
            lb_subsets_active,
            warming_state,
            version,
        }
    }
}

stat_block! {
    /// `http1.`: the upstream codec.
    pub struct Http1Stats {
        counters {
            dropped_headers_with_underscores,
            metadata_not_supported_error,
            requests_rejected_with_underscores_in_headers,
            response_flood,
        }
    }
}

stat_block! {
    /// `ring_hash_lb.`: how evenly hosts share the ring.
    pub struct RingHashStats {
        gauges { size, min_hashes_per_host, max_hashes_per_host }
    }
}

stat_block! {
    /// What only clusters with subsets have.
    pub struct SubsetStats {
        gauges {
            /// Hosts that `single_host_per_subset` leaves out.
            lb_subsets_single_host_per_subset_duplicate,
        }
    }
}

stat_block! {
    /// `maglev_lb.`: how evenly hosts share the table.
    pub struct MaglevStats {
        gauges { min_entries_per_host, max_entries_per_host }
    }
}

stat_block! {
    /// `track_cluster_stats.timeout_budgets`: how much of a time was used, in percent.
    pub struct BudgetStats {
        histograms {
            /// Of the route's time, once for a request that was answered in full or too late.
            upstream_rq_timeout_budget_percent_used,
            /// Of a try's, for each try but those that the route's time ended.
            upstream_rq_timeout_budget_per_try_percent_used,
        }
    }
}

stat_block! {
    /// `track_cluster_stats.request_response_sizes`: for each try, in bytes and fields.
    pub struct SizeStats {
        histograms {
            upstream_rq_headers_size,
            upstream_rq_headers_count,
            upstream_rq_body_size,
            upstream_rs_headers_size,
            upstream_rs_headers_count,
            upstream_rs_body_size,
        }
    }
}

impl BalanceStats {
    /// Counts what a choice by zones came to.
    pub(crate) fn count_zone(&self, choice: ZoneChoice) {
        match choice {
            ZoneChoice::AllDirectly => self.lb_zone_routing_all_directly().inc(),
            ZoneChoice::Sampled => self.lb_zone_routing_sampled().inc(),
            ZoneChoice::CrossZone => self.lb_zone_routing_cross_zone().inc(),
            ZoneChoice::NoCapacityLeft => {
                self.lb_zone_routing_cross_zone().inc();
                self.lb_zone_no_capacity_left().inc();
            }
            ZoneChoice::LocalClusterNotOk => self.lb_local_cluster_not_ok().inc(),
        }
    }
}

/// Where a request came from, for `external.` and `internal.` statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Outside.
    External,
    /// Inside: a trusted `x-envoy-internal`.
    Internal,
}

/// All statistics of one cluster: those that it has from the start, and through [`Deref`] the others ([`InUse`]).
pub struct ClusterStats {
    /// Hosts.
    pub members: MemberStats,
    /// Of `RING_HASH` clusters.
    pub ring_hash: Option<RingHashStats>,
    /// Of clusters with `lb_subset_config`.
    pub subsets: Option<SubsetStats>,
    /// Of `MAGLEV` clusters.
    pub maglev: Option<MaglevStats>,
    /// Once a host has several addresses.
    eyeballs: OnceLock<EyeballsStats>,
    in_use: OnceLock<Arc<InUse>>,
    /// The same, shared with the cluster that this one's replaces and the one that replaces it.
    shared: Arc<OnceLock<Arc<InUse>>>,
    parts: Parts,
    scope: Scope,
    store: Store,
    home: Arc<Home>,
}

impl Deref for ClusterStats {
    type Target = InUse;

    #[inline]
    fn deref(&self) -> &InUse {
        match self.in_use.get() {
            Some(in_use) => in_use,
            None => self.begin(),
        }
    }
}

impl Unmade for ClusterStats {
    fn outline(&self, outline: &mut Outline<'_>) {
        if self.shared.get().is_none() {
            InUse::outline(&self.scope, self.parts, outline);
        }
    }
}

impl fmt::Debug for ClusterStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterStats").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl ClusterStats {
    /// The statistics of `config`'s cluster, for a proxy that is at `home`: those living in `store`, or of the cluster
    /// that this one's replaces, go on.
    pub(crate) fn new(
        store: &Store,
        config: &ClusterConfig,
        home: &Arc<Home>,
        previous: Option<&ClusterStats>,
    ) -> Arc<Self> {
        let scope = Scope::cluster(config.stat_name());
        let parts = Parts::of(config);
        let previous = previous.filter(|previous| previous.scope == scope);
        let same_parts = previous.filter(|previous| previous.parts == parts);
        let stats = Arc::new(Self {
            members: MemberStats::new(store, scope.clone()),
            ring_hash: matches!(config.lb_policy, LbPolicy::RingHash(_))
                .then(|| RingHashStats::new(store, scope.child("ring_hash_lb"))),
            subsets: config.subsets.as_ref().map(|_| SubsetStats::new(store, scope.clone())),
            maglev: matches!(config.lb_policy, LbPolicy::Maglev(_))
                .then(|| MaglevStats::new(store, scope.child("maglev_lb"))),
            eyeballs: OnceLock::new(),
            in_use: OnceLock::new(),
            shared: same_parts.map(|previous| previous.shared.clone()).unwrap_or_default(),
            parts,
            scope,
            store: store.clone(),
            home: home.clone(),
        });
        if same_parts.is_none() && (previous.is_some() || InUse::lives(store, &stats.scope)) {
            // While somebody still holds what has been counted.
            stats.begin();
        }
        let weak = Arc::downgrade(&stats);
        store.list_unmade(weak);
        stats
    }

    /// Makes those that are made at their first use.
    #[cold]
    fn begin(&self) -> &InUse {
        let make = || Arc::new(InUse::new(&self.store, &self.scope, self.parts));
        self.in_use.get_or_init(|| self.shared.get_or_init(make).clone())
    }

    /// The scope of all of them.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Connections to hosts with several addresses: `happy_eyeballs.`, listed once there is such a host.
    pub fn eyeballs(&self) -> &EyeballsStats {
        self.eyeballs.get_or_init(|| EyeballsStats::new(&self.store, self.scope.child("happy_eyeballs")))
    }

    /// Whether answers are counted by zones: where this proxy is said to be in one.
    #[inline]
    pub(crate) fn counts_zones(&self) -> bool {
        !self.home.locality().zone.is_empty()
    }

    /// Where answers from `zone` are counted; `None`: it has no name.
    pub(crate) fn zone(&self, zone: &str) -> Option<ZoneStats> {
        let here = &self.home.locality().zone;
        let scope = self.scope.child("zone").child(here).child(zone);
        (!zone.is_empty()).then(|| ZoneStats::new(&self.store, scope))
    }
}
