//! `cluster.<name>.zone.<here>.<there>.`: answers of hosts in one zone, where both zones are known (Envoy docs, "Cluster
//! manager statistics: availability zone").

use std::sync::OnceLock;

use tidegate_stats::{CodeCounters, DynScope, OwnedHistogram, Scope, Store};

/// What is counted of one zone's answers.
#[derive(Debug)]
pub struct ZoneStats {
    /// Response codes.
    pub codes: CodeCounters,
    scope: DynScope,
    time: OnceLock<OwnedHistogram>,
}

impl ZoneStats {
    pub(super) fn new(store: &Store, scope: Scope) -> Self {
        let codes = CodeCounters::new(store, scope.clone());
        Self { codes, scope: DynScope::new(store, scope), time: OnceLock::new() }
    }

    /// Records `upstream_rq_time`, in ms.
    pub fn record_time(&self, ms: u64) {
        self.time.get_or_init(|| self.scope.histogram("upstream_rq_time")).record(ms);
    }
}
