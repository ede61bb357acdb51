//! `envoy.filters.network.local_ratelimit`: each connection takes a token from a bucket that all workers share;
//! one that finds none is closed.
//!
//! Configuration, as in Envoy's `LocalRateLimit` message:
//! - `stat_prefix` (required): `local_rate_limit.PREFIX.rate_limited` counts the refused;
//! - `token_bucket {max_tokens, tokens_per_fill, fill_interval}` (required);
//! - `runtime_enabled`: off, everything passes;
//! - `share_key`: filters with the same key and the same `token_bucket` share one bucket.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::Deserialize;
use tidegate_filter::{FactoryContext, NetworkClose, NetworkFilter, NetworkFilterType, NetworkFlow, Step};
use tidegate_stats::Scope;
use tidegate_types::{ConnectionInfo, ResponseFlags};

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
    #[serde(default)]
    share_key: String,
}

impl NetworkFilterType for LocalRateLimit {
    const NAME: &'static str = "envoy.filters.network.local_ratelimit";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit";
    type Config = Config;
    type Factory = ConnectionRate;

    fn build(config: Config, cx: &FactoryContext<'_>) -> Result<ConnectionRate, String> {
        let scope = Scope::root().child("local_rate_limit");
        let tag = "envoy_local_network_ratelimit_prefix";
        let bucket = shared(config.share_key, config.token_bucket);
        let scope = scope.tagged(tag, &config.stat_prefix);
        Ok(ConnectionRate::new(bucket, config.runtime_enabled, scope, cx))
    }

    fn open(factory: &Arc<ConnectionRate>, _: &Rc<ConnectionInfo>) -> Box<dyn NetworkFilter> {
        Box::new(Connection { limit: factory.clone() })
    }
}

struct Connection {
    limit: Arc<ConnectionRate>,
}

impl NetworkFilter for Connection {
    fn on_open(&mut self, _: &Rc<ConnectionInfo>) -> Step<'static, NetworkFlow> {
        if self.limit.admits() {
            return Step::Now(NetworkFlow::Skip);
        }
        Step::Now(NetworkFlow::Close(NetworkClose {
            reason: "local_ratelimit_close_over_limit".into(),
            // Envoy's choice.
            flags: ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED,
        }))
    }
}

/// The living bucket of `key` that fills as `bucket` does, else `bucket`. Only while a configuration is loaded.
fn shared(key: String, bucket: TokenBucket) -> Arc<TokenBucket> {
    static SHARED: Mutex<BTreeMap<String, Vec<Weak<TokenBucket>>>> = Mutex::new(BTreeMap::new());
    if key.is_empty() {
        return Arc::new(bucket);
    }
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.retain(|_, buckets| {
        buckets.retain(|bucket| bucket.strong_count() > 0);
        !buckets.is_empty()
    });
    let buckets = shared.entry(key).or_default();
    let alike = buckets.iter().filter_map(Weak::upgrade).find(|other| other.is_like(&bucket));
    alike.unwrap_or_else(|| {
        let bucket = Arc::new(bucket);
        buckets.push(Arc::downgrade(&bucket));
        bucket
    })
}

#[cfg(test)]
mod tests;
