//! `envoy.config.cluster.v3.CircuitBreakers`.

use std::time::Duration;

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
    /// `budget_interval`: 0 counts active and pending requests now, else requests started in the window.
    pub budget_interval: Duration,
}
