//! `envoy.config.cluster.v3.CircuitBreakers`.

use std::time::Duration;

use crate::reader::{Message, Reader};
use crate::route::Priority;
use crate::values::Percent;

/// Limits of a cluster, all workers together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CircuitBreakers {
    /// `thresholds` of priority `DEFAULT`.
    pub default: Thresholds,
    /// `thresholds` of priority `HIGH`.
    pub high: Thresholds,
    /// `per_host_thresholds.max_connections`; `None`: no limit.
    pub per_host_max_connections: Option<u32>,
}

/// `CircuitBreakers.Thresholds`.
#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    /// `max_connections`, 1024 when unset.
    pub max_connections: u32,
    /// `max_pending_requests`, 1024 when unset.
    pub max_pending_requests: u32,
    /// `max_requests`, 1024 when unset.
    pub max_requests: u32,
    /// `max_retries`, 3 when unset; unused with a `retry_budget`.
    pub max_retries: u32,
    /// `retry_budget`.
    pub retry_budget: Option<RetryBudget>,
    /// `track_remaining`: the `remaining_*` gauges exist.
    pub track_remaining: bool,
    /// `max_connection_pools`; `None`: no limit.
    pub max_connection_pools: Option<u32>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
            track_remaining: false,
            max_connection_pools: None,
        }
    }
}

/// `retry_budget`.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryBudget {
    /// `budget_percent`, 20 when unset: retries as a percentage of requests.
    pub budget_percent: f64,
    /// `min_retry_concurrency`, 3 when unset.
    pub min_retry_concurrency: u32,
    /// `budget_interval`: the percentage is of the requests that began within this time; `None` (unset or 0): of those
    /// that are active or pending now.
    pub budget_interval: Option<Duration>,
}

impl Message for CircuitBreakers {
    const NAME: &'static str = "envoy.config.cluster.v3.CircuitBreakers";

    fn read(r: &Reader<'_>) -> Self {
        let all = r.repeated::<(Priority, Thresholds)>("thresholds").or_default();
        // The first entry of a priority wins, as in Envoy (pools §7.1).
        let of =
            |priority| all.iter().find(|(p, _)| *p == priority).map(|(_, t)| t.clone()).unwrap_or_default();
        let per_host = r.repeated::<PerHost>("per_host_thresholds").or_default();
        Self {
            default: of(Priority::Default),
            high: of(Priority::High),
            per_host_max_connections: per_host.into_iter().find_map(|limit| limit.0),
        }
    }
}

impl Message for (Priority, Thresholds) {
    const NAME: &'static str = "envoy.config.cluster.v3.CircuitBreakers.Thresholds";

    fn read(r: &Reader<'_>) -> Self {
        let default = Thresholds::default();
        let thresholds = Thresholds {
            max_connections: r.u32("max_connections").or(default.max_connections),
            max_pending_requests: r.u32("max_pending_requests").or(default.max_pending_requests),
            max_requests: r.u32("max_requests").or(default.max_requests),
            max_retries: r.u32("max_retries").or(default.max_retries),
            retry_budget: r.message("retry_budget").optional(),
            track_remaining: r.bool("track_remaining").or_default(),
            max_connection_pools: r.u32("max_connection_pools").optional(),
        };
        (r.enumeration("priority", Priority::NAMES, &[]).or_default(), thresholds)
    }
}

/// `per_host_thresholds`: the same message, of which Envoy takes one field.
struct PerHost(Option<u32>);

impl Message for PerHost {
    const NAME: &'static str = "tidegate.PerHostThresholds";

    fn read(r: &Reader<'_>) -> Self {
        r.enumeration("priority", &[("DEFAULT", 0, ())], &[("HIGH", 1)]).or_default();
        Self(r.u32("max_connections").optional())
    }
}

impl Message for RetryBudget {
    const NAME: &'static str = "envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget";

    fn read(r: &Reader<'_>) -> Self {
        let percent = r.message::<Percent>("budget_percent").optional();
        Self {
            budget_percent: percent.map_or(20.0, |percent| percent.0),
            min_retry_concurrency: r.u32("min_retry_concurrency").or(3),
            budget_interval: r.duration("budget_interval").zero_is_off(None),
        }
    }
}
