//! `envoy.filters.listener.local_ratelimit`: each connection takes a token from a bucket that all workers share;
//! one that finds none is closed before it is a connection.
//!
//! Configuration, as in Envoy's `LocalRateLimit` message:
//! - `stat_prefix` (required): `listener_local_ratelimit.PREFIX.rate_limited` counts the refused;
//! - `token_bucket {max_tokens, tokens_per_fill, fill_interval}` (required);
//! - `runtime_enabled`: off, everything passes.

use std::sync::Arc;

use serde::Deserialize;
use tidegate_filter::{Arrival, FactoryContext, ListenerFilter, ListenerFilterType, ListenerFlow};
use tidegate_stats::{Scope, stat_block};

use crate::config::RuntimeFeatureFlag;
use crate::token_bucket::{Taken, TokenBucket, since_epoch};

/// The filter's type.
pub struct LocalRateLimit;

/// The configuration.
#[derive(Debug, Deserialize)]
pub struct Config {
    #[serde(deserialize_with = "crate::config::non_empty")]
    stat_prefix: String,
    token_bucket: TokenBucket,
    #[serde(default)]
    runtime_enabled: Option<RuntimeFeatureFlag>,
}

stat_block! {
    /// What a limit did.
    struct LimitStats {
        counters {
            /// Connections that were refused.
            rate_limited,
        }
    }
}

/// The limit: shared by all workers.
pub struct Limit {
    bucket: TokenBucket,
    enabled: bool,
    stats: LimitStats,
}

impl ListenerFilterType for LocalRateLimit {
    const NAME: &'static str = "envoy.filters.listener.local_ratelimit";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit";
    type Config = Config;
    type Factory = Limit;

    fn build(config: Config, cx: &FactoryContext<'_>) -> Result<Limit, String> {
        let scope = Scope::root().child("listener_local_ratelimit");
        let tag = "envoy_local_listener_ratelimit_prefix";
        Ok(Limit {
            bucket: config.token_bucket,
            enabled: config.runtime_enabled.is_none_or(|flag| flag.is_on(cx.runtime)),
            stats: LimitStats::new(cx.stats, scope.tagged(tag, &config.stat_prefix)),
        })
    }

    fn open(factory: &Arc<Limit>) -> Box<dyn ListenerFilter> {
        Box::new(Connection { limit: factory.clone() })
    }
}

struct Connection {
    limit: Arc<Limit>,
}

impl ListenerFilter for Connection {
    fn inspect(&mut self, _: &mut Arrival, _: &[u8]) -> ListenerFlow {
        if !self.limit.enabled || self.limit.bucket.take(since_epoch()) == Taken::Yes {
            return ListenerFlow::DONE;
        }
        self.limit.stats.rate_limited().inc();
        ListenerFlow::Refuse
    }
}
