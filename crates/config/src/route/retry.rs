//! `envoy.config.route.v3.RetryPolicy`.

use std::time::Duration;

use tidegate_types::json::nearest;

use crate::reader::{Message, Reader};
use crate::route::HeaderMatcher;
use crate::route::headers::header_name;

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

impl Message for RetryPolicy {
    const NAME: &'static str = "envoy.config.route.v3.RetryPolicy";

    fn read(r: &Reader<'_>) -> Self {
        let retry_on = r.string("retry_on").convert(split_conditions);
        let codes = r.u32s("retriable_status_codes").convert(|codes| {
            codes
                .into_iter()
                .map(|code| u16::try_from(code).map_err(|_| format!("{code} is no status")))
                .collect()
        });
        Self {
            retry_on: retry_on.or_default(),
            num_retries: r.u32("num_retries").or(1),
            per_try_timeout: r.duration("per_try_timeout").zero_is_off(None),
            per_try_idle_timeout: r.duration("per_try_idle_timeout").zero_is_off(None),
            back_off: r.message("retry_back_off").optional().unwrap_or_default(),
            rate_limited_back_off: r.message("rate_limited_retry_back_off").optional(),
            retriable_status_codes: codes.or_default(),
            retriable_headers: r.repeated("retriable_headers").or_default(),
            retriable_request_headers: r.repeated("retriable_request_headers").or_default(),
        }
    }
}

/// Envoy ignores a condition that it does not know, and so must we; but a misspelt one would never retry, and
/// the log says so.
fn split_conditions(text: String) -> Result<Vec<String>, String> {
    let conditions = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let conditions: Vec<_> = conditions.map(str::to_owned).collect();
    for name in conditions.iter().filter(|name| !CONDITIONS.contains(&name.as_str())) {
        let known = match nearest(name, CONDITIONS.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("known are {}", CONDITIONS.join(", ")),
        };
        tracing::warn!(target: "config", "retry_on: unknown condition `{name}` is ignored; {known}");
    }
    Ok(conditions)
}

/// Envoy docs, "Router": `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
const CONDITIONS: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

impl Default for BackOff {
    fn default() -> Self {
        Self { base_interval: Duration::from_millis(25), max_interval: Duration::from_millis(250) }
    }
}

impl Message for BackOff {
    const NAME: &'static str = "envoy.config.route.v3.RetryPolicy.RetryBackOff";

    fn read(r: &Reader<'_>) -> Self {
        let base = r.duration("base_interval").greater_than_zero();
        if !r.has("base_interval") {
            base.report("missing field `base_interval`", None);
        }
        // Envoy rounds up to its timers' resolution.
        let base_interval = base.or_default().max(Duration::from_millis(1));
        let most = r.duration("max_interval").greater_than_zero();
        if most.peek().is_some_and(|most| *most < base_interval) {
            most.report("`max_interval` is shorter than `base_interval`", None);
        }
        Self { base_interval, max_interval: most.or(base_interval.saturating_mul(10)) }
    }
}

impl Message for RateLimitedBackOff {
    const NAME: &'static str = "envoy.config.route.v3.RetryPolicy.RateLimitedRetryBackOff";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            reset_headers: r.repeated("reset_headers").required_non_empty(),
            max_interval: r.duration("max_interval").greater_than_zero().or(Duration::from_secs(300)),
        }
    }
}

impl Message for ResetHeader {
    const NAME: &'static str = "envoy.config.route.v3.RetryPolicy.ResetHeader";

    fn read(r: &Reader<'_>) -> Self {
        const FORMATS: &[(&str, u32, ResetHeaderFormat)] = &[
            ("SECONDS", 0, ResetHeaderFormat::Seconds),
            ("UNIX_TIMESTAMP", 1, ResetHeaderFormat::UnixTimestamp),
        ];
        Self {
            name: header_name(r, "name").required_non_empty(),
            format: r.enumeration("format", FORMATS, &[]).or_default(),
        }
    }
}
