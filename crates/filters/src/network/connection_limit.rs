//! `envoy.filters.network.connection_limit`: no more than so many connections at a time behind this filter, over
//! all workers. The template of a network filter: state that workers share, statistics, a delayed close.
//!
//! Configuration, as in Envoy's `ConnectionLimit` message:
//! - `stat_prefix` (required): `connection_limit.PREFIX.limited_connections` counts the refused,
//!   `connection_limit.PREFIX.active_connections` those that are open, the refused during `delay` included;
//! - `max_connections` (required, at least 1);
//! - `delay`: how long a refused connection is held before it is closed, which slows a flood down. The held ones
//!   count: while there are any, new ones are refused;
//! - `runtime_enabled`: off, everything passes.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tidegate_filter::{FactoryContext, NetworkFilter, NetworkFilterType, NetworkFlow, Step};
use tidegate_stats::{Scope, stat_block};
use tidegate_types::{CloseReason, ConnectionInfo};

use crate::config::RuntimeFeatureFlag;

/// The filter's type.
pub struct ConnectionLimit;

/// The configuration.
#[derive(Debug, Deserialize)]
pub struct Config {
    #[serde(deserialize_with = "crate::config::non_empty")]
    stat_prefix: String,
    #[serde(deserialize_with = "at_least_one")]
    max_connections: u64,
    #[serde(default, deserialize_with = "tidegate_types::json::optional_duration")]
    delay: Option<Duration>,
    #[serde(default)]
    runtime_enabled: Option<RuntimeFeatureFlag>,
}

stat_block! {
    /// What a limit did.
    struct LimitStats {
        counters {
            /// Connections that were refused.
            limited_connections,
        }
        gauges {
            /// Connections now.
            active_connections,
        }
    }
}

/// The limit: shared by all workers.
pub struct Limit {
    max: u64,
    delay: Duration,
    enabled: bool,
    active: AtomicU64,
    stats: LimitStats,
}

impl NetworkFilterType for ConnectionLimit {
    const NAME: &'static str = "envoy.filters.network.connection_limit";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit";
    type Config = Config;
    type Factory = Limit;

    fn build(config: Config, cx: &FactoryContext<'_>) -> Result<Limit, String> {
        let scope = Scope::root().child("connection_limit");
        Ok(Limit {
            max: config.max_connections,
            delay: config.delay.unwrap_or_default(),
            enabled: config.runtime_enabled.is_none_or(|flag| flag.is_on(cx.runtime)),
            active: AtomicU64::new(0),
            stats: LimitStats::new(
                cx.stats,
                scope.tagged("envoy_connection_limit_prefix", &config.stat_prefix),
            ),
        })
    }

    fn open(factory: &Arc<Limit>, _: &Rc<ConnectionInfo>) -> Box<dyn NetworkFilter> {
        Box::new(Connection { limit: factory.clone() })
    }
}

struct Connection {
    limit: Arc<Limit>,
}

impl NetworkFilter for Connection {
    fn on_open(&mut self, _: &Rc<ConnectionInfo>) -> Step<'static, NetworkFlow> {
        let Limit { max, delay, enabled, active, stats } = &*self.limit;
        if !enabled {
            return Step::Now(NetworkFlow::Skip);
        }
        stats.active_connections().inc();
        // A refused connection counts too until it is closed, as in Envoy; so adding first is exact.
        if active.fetch_add(1, Relaxed) < *max {
            return Step::Now(NetworkFlow::Skip);
        }
        stats.limited_connections().inc();
        let refusal = || NetworkFlow::close("over_connection_limit");
        if delay.is_zero() {
            return Step::Now(refusal());
        }
        let delay = *delay;
        Step::later(async move {
            tokio::time::sleep(delay).await;
            refusal()
        })
    }

    fn on_close(&mut self, _: &Rc<ConnectionInfo>, _: Option<CloseReason>) {
        if self.limit.enabled {
            self.limit.active.fetch_sub(1, Relaxed);
            self.limit.stats.active_connections().dec();
        }
    }
}

fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Err(serde::de::Error::custom("must be at least 1")),
        max => Ok(max),
    }
}

#[cfg(test)]
mod tests;
