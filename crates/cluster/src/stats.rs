//! `cluster.<name>.` beside what pools count: what the router counts, members, load balancing, discovery,
//! codecs. Names follow Envoy docs, "Cluster manager statistics"; those of features that this build lacks
//! stay 0, so that dashboards find them.

use std::sync::{Arc, OnceLock};

use tidegate_config::ClusterConfig;
use tidegate_config::cluster::LbPolicy;
use tidegate_pool::dialer::EyeballsStats;
use tidegate_pool::h2::CodecStats;
use tidegate_pool::h3;
use tidegate_pool::stats::UpstreamStats;
use tidegate_stats::{CodeCounters, DynScope, OwnedHistogram, QuicCodes, Scope, Store, stat_block};

use crate::home::Home;
use crate::lb::ZoneChoice;

mod zones;

pub use zones::ZoneStats;

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
    /// Hosts, load balancing and discovery.
    pub struct MemberStats {
        counters {
            membership_change,
            /// Selections made among all hosts because too few were healthy.
            lb_healthy_panic,
            /// Hosts whose transport socket was chosen: one for each host of each new host set.
            default_total_match_count = "default.total_match_count",
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
            membership_total,
            membership_healthy,
            membership_degraded,
            membership_excluded,
            max_host_weight,
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

impl MemberStats {
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

/// All statistics of one cluster.
#[derive(Debug)]
pub struct ClusterStats {
    /// Connections, and requests as pools see them.
    pub upstream: UpstreamStats,
    /// Requests as the router sees them.
    pub router: RouterStats,
    /// Hosts and load balancing.
    pub members: MemberStats,
    /// The HTTP/1.1 codec.
    pub http1: Http1Stats,
    /// The HTTP/2 codec, where it may be spoken.
    pub http2: Option<CodecStats>,
    /// The HTTP/3 codec, where it may be spoken.
    pub http3: Option<h3::Counting>,
    /// Of `RING_HASH` clusters.
    pub ring_hash: Option<RingHashStats>,
    /// Of clusters with `lb_subset_config`.
    pub subsets: Option<SubsetStats>,
    /// Of `MAGLEV` clusters.
    pub maglev: Option<MaglevStats>,
    /// Once a host has several addresses.
    eyeballs: OnceLock<EyeballsStats>,
    /// Where `track_cluster_stats` asks for them.
    pub budgets: Option<BudgetStats>,
    /// Where `track_cluster_stats` asks for them.
    pub sizes: Option<SizeStats>,
    /// Response codes.
    pub codes: CodeCounters,
    /// What lists the times; `None`: nothing did when the cluster was built.
    times: Option<DynScope>,
    store: Store,
    time: OnceLock<OwnedHistogram>,
    external_time: OnceLock<OwnedHistogram>,
    internal_time: OnceLock<OwnedHistogram>,
    canary_time: OnceLock<OwnedHistogram>,
    home: Arc<Home>,
}

/// Where a request came from, for `external.` and `internal.` statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Outside.
    External,
    /// Inside: a trusted `x-envoy-internal`.
    Internal,
}

impl ClusterStats {
    /// The statistics of `config`'s cluster, for a proxy that is at `home`: those living in `store` go on.
    pub(crate) fn new(store: &Store, config: &ClusterConfig, home: &Arc<Home>) -> Self {
        let scope = Scope::cluster(config.stat_name());
        Self {
            upstream: UpstreamStats::new(store, scope.clone()),
            router: RouterStats::new(store, scope.clone()),
            members: MemberStats::new(store, scope.clone()),
            http1: Http1Stats::new(store, scope.child("http1")),
            http2: config.protocol.http2().map(|_| CodecStats::new(store, scope.child("http2"))),
            http3: config.protocol.http3().map(|_| h3::Counting {
                codec: h3::CodecStats::new(store, scope.child("http3")),
                codes: QuicCodes::upstream(store),
            }),
            ring_hash: matches!(config.lb_policy, LbPolicy::RingHash(_))
                .then(|| RingHashStats::new(store, scope.child("ring_hash_lb"))),
            subsets: config.subsets.as_ref().map(|_| SubsetStats::new(store, scope.clone())),
            maglev: matches!(config.lb_policy, LbPolicy::Maglev(_))
                .then(|| MaglevStats::new(store, scope.child("maglev_lb"))),
            eyeballs: OnceLock::new(),
            budgets: config.track_stats.timeout_budgets.then(|| BudgetStats::new(store, scope.clone())),
            sizes: config.track_stats.request_response_sizes.then(|| SizeStats::new(store, scope.clone())),
            codes: CodeCounters::new(store, scope.clone()),
            times: DynScope::lives(store, &scope).then(|| DynScope::new(store, scope)),
            store: store.clone(),
            time: OnceLock::new(),
            external_time: OnceLock::new(),
            internal_time: OnceLock::new(),
            canary_time: OnceLock::new(),
            home: home.clone(),
        }
    }

    /// Connections to hosts with several addresses: `happy_eyeballs.`, listed once there is such a host.
    pub fn eyeballs(&self) -> &EyeballsStats {
        self.eyeballs
            .get_or_init(|| EyeballsStats::new(&self.store, self.upstream.scope().child("happy_eyeballs")))
    }

    /// Records `upstream_rq_time`: milliseconds from the request sent to the response complete. Like Envoy's,
    /// these histograms exist from their first value on.
    #[inline]
    pub fn record_time(&self, origin: Option<Origin>, ms: u64) {
        self.time.get_or_init(|| self.histogram("upstream_rq_time")).record(ms);
        match origin {
            Some(Origin::External) => {
                let time = || self.histogram("external.upstream_rq_time");
                self.external_time.get_or_init(time).record(ms);
            }
            Some(Origin::Internal) => {
                let time = || self.histogram("internal.upstream_rq_time");
                self.internal_time.get_or_init(time).record(ms);
            }
            None => {}
        }
    }

    /// Records `canary.upstream_rq_time` in ms: a canary answered.
    pub fn record_canary_time(&self, ms: u64) {
        self.canary_time.get_or_init(|| self.histogram("canary.upstream_rq_time")).record(ms);
    }

    /// Whether answers are counted by zones: where this proxy is said to be in one.
    #[inline]
    pub(crate) fn counts_zones(&self) -> bool {
        !self.home.locality().zone.is_empty()
    }

    /// Where answers from `zone` are counted; `None`: it has no name.
    pub(crate) fn zone(&self, zone: &str) -> Option<ZoneStats> {
        let here = &self.home.locality().zone;
        let scope = self.upstream.scope().child("zone").child(here).child(zone);
        (!zone.is_empty()).then(|| ZoneStats::new(&self.store, scope))
    }

    #[cold]
    fn histogram(&self, name: &str) -> OwnedHistogram {
        match &self.times {
            Some(times) => times.histogram(name),
            None => DynScope::new(&self.store, self.upstream.scope().clone()).histogram(name),
        }
    }
}
