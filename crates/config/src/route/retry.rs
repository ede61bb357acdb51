//! `envoy.config.route.v3.RetryPolicy`.

use std::time::Duration;

use tidegate_types::json::TypedConfig;

use crate::route::HeaderMatcher;

/// `RetryPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// `retry_on` split at commas: `5xx`, `connect-failure`, ...; each is a name Envoy knows.
    pub retry_on: Vec<String>,
    /// `num_retries`, 1 when unset.
    pub num_retries: u32,
    /// `per_try_timeout`; `None` is the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// `per_try_idle_timeout`; `None` is off.
    pub per_try_idle_timeout: Option<Duration>,
    /// `retry_back_off`.
    pub back_off: BackOff,
    /// `rate_limited_retry_back_off`.
    pub rate_limited_back_off: Option<RateLimitedBackOff>,
    /// `retriable_status_codes`.
    pub retriable_status_codes: Vec<u16>,
    /// `retriable_headers` of the response: any may match.
    pub retriable_headers: Vec<HeaderMatcher>,
    /// `retriable_request_headers`: any must match, unless empty.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    /// `retry_host_predicate`.
    pub host_predicates: Vec<TypedConfig>,
    /// `host_selection_retry_max_attempts`, 1 when unset.
    pub host_selection_max_attempts: u32,
}

/// `retry_back_off`: exponential with full jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// `base_interval`, 25 ms when unset, at least 1 ms.
    pub base_interval: Duration,
    /// `max_interval`, ten times the base when unset.
    pub max_interval: Duration,
}

/// `rate_limited_retry_back_off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitedBackOff {
    /// `reset_headers`, in order; at least one.
    pub reset_headers: Vec<ResetHeader>,
    /// `max_interval`, 300 s when unset: a longer wish is ignored.
    pub max_interval: Duration,
}

/// `ResetHeader`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetHeader {
    /// `name`, lower case.
    pub name: String,
    /// `format`.
    pub format: ResetHeaderFormat,
}

/// `ResetHeaderFormat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResetHeaderFormat {
    /// `SECONDS` to wait.
    #[default]
    Seconds,
    /// `UNIX_TIMESTAMP` to wait for, in seconds.
    UnixTimestamp,
}
