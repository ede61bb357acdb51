//! A rate of new connections: what the listener's and the network's `local_ratelimit` have in common.

use std::sync::Arc;

use tidegate_filter::FactoryContext;
use tidegate_stats::{Scope, stat_block};

use crate::config::RuntimeFeatureFlag;
use crate::token_bucket::{Taken, TokenBucket, since_epoch};

stat_block! {
    /// What a limit did.
    struct LimitStats {
        counters {
            /// Connections that were refused.
            rate_limited,
        }
    }
}

/// The limit: shared by all workers. Each connection takes a token.
pub struct ConnectionRate {
    bucket: Arc<TokenBucket>,
    enabled: bool,
    stats: LimitStats,
}

impl ConnectionRate {
    /// A limit that counts in `scope`; with `enabled` off, everything passes.
    pub(crate) fn new(
        bucket: Arc<TokenBucket>,
        enabled: Option<RuntimeFeatureFlag>,
        scope: Scope,
        cx: &FactoryContext<'_>,
    ) -> Self {
        let enabled = enabled.is_none_or(|flag| flag.is_on(cx.runtime));
        Self { bucket, enabled, stats: LimitStats::new(cx.stats, scope) }
    }

    /// Whether there is a token for a new connection; counts it if not.
    pub(crate) fn admits(&self) -> bool {
        let admitted = !self.enabled || self.bucket.take(since_epoch()) == Taken::Yes;
        if !admitted {
            self.stats.rate_limited().inc();
        }
        admitted
    }
}
