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
use tidegate_stats::Scope;

use crate::config::RuntimeFeatureFlag;
use crate::connection_rate::ConnectionRate;
use crate::token_bucket::TokenBucket;

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

impl ListenerFilterType for LocalRateLimit {
    const NAME: &'static str = "envoy.filters.listener.local_ratelimit";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit";
    type Config = Config;
    type Factory = ConnectionRate;

    fn build(config: Config, cx: &FactoryContext<'_>) -> Result<ConnectionRate, String> {
        let scope = Scope::root().child("listener_local_ratelimit");
        let tag = "envoy_local_listener_ratelimit_prefix";
        let bucket = Arc::new(config.token_bucket);
        let scope = scope.tagged(tag, &config.stat_prefix);
        Ok(ConnectionRate::new(bucket, config.runtime_enabled, scope, cx))
    }

    fn open(factory: &Arc<ConnectionRate>) -> Box<dyn ListenerFilter> {
        Box::new(Connection { limit: factory.clone() })
    }
}

struct Connection {
    limit: Arc<ConnectionRate>,
}

impl ListenerFilter for Connection {
    fn inspect(&mut self, _: &mut Arrival, _: &[u8]) -> ListenerFlow {
        if self.limit.admits() { ListenerFlow::DONE } else { ListenerFlow::Refuse }
    }
}
