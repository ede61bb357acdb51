//! What a cluster counts once it is used: listed from the start, made when the first request, connection or discovery
//! asks for it, since most of many clusters are never asked. Start from [`InUse`].

use std::sync::OnceLock;

use tidegate_config::ClusterConfig;
use tidegate_pool::h2::CodecStats;
use tidegate_pool::h3;
use tidegate_pool::stats::{BreakerStats, UpstreamStats};
use tidegate_stats::{CodeCounters, DynScope, Outline, OwnedHistogram, QuicCodes, Scope, Store};

use super::{BalanceStats, BudgetStats, Http1Stats, Origin, RouterStats, SizeStats};

/// See the module.
#[derive(Debug)]
pub struct InUse {
    /// Connections, and requests as pools see them.
    pub upstream: UpstreamStats,
    /// Requests as the router sees them.
    pub router: RouterStats,
    /// Load balancing and discovery.
    pub balance: BalanceStats,
    /// The HTTP/1.1 codec.
    pub http1: Http1Stats,
    /// The HTTP/2 codec, where it may be spoken.
    pub http2: Option<CodecStats>,
    /// The HTTP/3 codec, where it may be spoken.
    pub http3: Option<h3::Counting>,
    /// Where `track_cluster_stats` asks for them.
    pub budgets: Option<BudgetStats>,
    /// Where `track_cluster_stats` asks for them.
    pub sizes: Option<SizeStats>,
    /// Response codes.
    pub codes: CodeCounters,
    /// Listed with the others; who limits has them too.
    _breakers: [BreakerStats; 2],
    /// What lists the times; `None`: nothing did when this was made.
    times: Option<DynScope>,
    store: Store,
    time: OnceLock<OwnedHistogram>,
    external_time: OnceLock<OwnedHistogram>,
    internal_time: OnceLock<OwnedHistogram>,
    canary_time: OnceLock<OwnedHistogram>,
}

/// What a cluster's configuration adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    http2: bool,
    http3: bool,
    budgets: bool,
    sizes: bool,
}

impl Parts {
    pub(super) fn of(config: &ClusterConfig) -> Self {
        Self {
            http2: config.protocol.http2().is_some(),
            http3: config.protocol.http3().is_some(),
            budgets: config.track_stats.timeout_budgets,
            sizes: config.track_stats.request_response_sizes,
        }
    }
}

/// Of the circuit breakers of a priority, in its cluster's scope. A child's name may have dots: one scope less to make.
pub(crate) const BREAKERS: [&str; 2] = ["circuit_breakers.default", "circuit_breakers.high"];

impl InUse {
    pub(super) fn new(store: &Store, scope: &Scope, parts: Parts) -> Self {
        Self {
            upstream: UpstreamStats::new(store, scope.clone()),
            router: RouterStats::new(store, scope.clone()),
            balance: BalanceStats::new(store, scope.clone()),
            http1: Http1Stats::new(store, scope.child("http1")),
            http2: parts.http2.then(|| CodecStats::new(store, scope.child("http2"))),
            http3: parts.http3.then(|| h3::Counting {
                codec: h3::CodecStats::new(store, scope.child("http3")),
                codes: QuicCodes::upstream(store),
            }),
            budgets: parts.budgets.then(|| BudgetStats::new(store, scope.clone())),
            sizes: parts.sizes.then(|| SizeStats::new(store, scope.clone())),
            codes: CodeCounters::new(store, scope.clone()),
            _breakers: BREAKERS.map(|name| BreakerStats::new(store, scope.child(name))),
            times: DynScope::lives(store, scope).then(|| DynScope::new(store, scope.clone())),
            store: store.clone(),
            time: OnceLock::new(),
            external_time: OnceLock::new(),
            internal_time: OnceLock::new(),
            canary_time: OnceLock::new(),
        }
    }

    /// What [`InUse::new`] makes.
    pub(super) fn outline(scope: &Scope, parts: Parts, outline: &mut Outline<'_>) {
        UpstreamStats::outline(scope, outline);
        RouterStats::outline(scope, outline);
        BalanceStats::outline(scope, outline);
        Http1Stats::outline(&scope.child("http1"), outline);
        if parts.http2 {
            CodecStats::outline(&scope.child("http2"), outline);
        }
        if parts.http3 {
            h3::CodecStats::outline(&scope.child("http3"), outline);
        }
        if parts.budgets {
            BudgetStats::outline(scope, outline);
        }
        if parts.sizes {
            SizeStats::outline(scope, outline);
        }
        BREAKERS.iter().for_each(|name| BreakerStats::outline(&scope.child(name), outline));
    }

    /// Whether someone holds what was made of `scope`.
    pub(super) fn lives(store: &Store, scope: &Scope) -> bool {
        UpstreamStats::lives(store, scope)
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

    #[cold]
    fn histogram(&self, name: &str) -> OwnedHistogram {
        match &self.times {
            Some(times) => times.histogram(name),
            None => DynScope::new(&self.store, self.upstream.scope().clone()).histogram(name),
        }
    }
}
