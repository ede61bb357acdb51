//! `envoy.config.route.v3.RetryPolicy`.

use std::time::Duration;

use tidegate_types::json::{Node, Problem, nearest};

use crate::reader::{Any, Message, Reader};
use crate::route::HeaderMatcher;
use crate::route::headers::header_name;
use crate::values::Metadata;

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
    /// `retry_host_predicate`: a retry's host is chosen again while any of them rejects it.
    pub host_predicates: Vec<HostPredicate>,
    /// `host_selection_retry_max_attempts`, 1 when unset or 0: how often the host of one try is chosen again; the
    /// last choice is then taken whatever the predicates say.
    pub host_selection_attempts: u32,
    /// `retry_priority`: retries prefer other priorities.
    pub retry_priority: Option<PreviousPriorities>,
}

/// An entry of `retry_host_predicate`.
#[derive(Debug, Clone, PartialEq)]
pub enum HostPredicate {
    /// `envoy.retry_host_predicates.previous_hosts`: rejects hosts that this request has tried.
    PreviousHosts,
    /// `envoy.retry_host_predicates.omit_host_metadata`: rejects hosts whose metadata `envoy.lb` has all of these;
    /// an empty list rejects none.
    OmitHostMetadata(Vec<(String, Node)>),
    /// `envoy.retry_host_predicates.omit_canary_hosts`: rejects hosts whose metadata `envoy.lb` has `canary: true`.
    OmitCanaryHosts,
}

/// `envoy.retry_priorities.previous_priorities`: a retry leaves out the priorities of earlier tries, as long as
/// another one has healthy hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreviousPriorities {
    /// `update_frequency`, at least 1: the load is spread anew after so many tries.
    pub update_frequency: u32,
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
        let host_predicates = r.repeated::<Option<HostPredicate>>("retry_host_predicate").or_default();
        let attempts = r
            .i64("host_selection_retry_max_attempts")
            .convert(|attempts| u32::try_from(attempts).map_err(|_| format!("{attempts} is out of range")));
        let attempts = attempts.optional().filter(|attempts| *attempts > 0).unwrap_or(1);
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
            host_predicates: host_predicates.into_iter().flatten().collect(),
            host_selection_attempts: attempts,
            retry_priority: r.message::<Option<PreviousPriorities>>("retry_priority").optional().flatten(),
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

impl Message for Option<HostPredicate> {
    const NAME: &'static str = "envoy.config.route.v3.RetryPolicy.RetryHostPredicate";

    fn read(r: &Reader<'_>) -> Self {
        r.may_be::<PreviousHosts>();
        r.may_be::<OmitHostMetadata>();
        r.may_be::<OmitCanaryHosts>();
        let config = r.extension_any()?.config;
        if config.is::<PreviousHosts>() {
            config.read::<PreviousHosts>(r);
            Some(HostPredicate::PreviousHosts)
        } else if config.is::<OmitHostMetadata>() {
            Some(HostPredicate::OmitHostMetadata(config.read::<OmitHostMetadata>(r).0))
        } else if config.is::<OmitCanaryHosts>() {
            config.read::<OmitCanaryHosts>(r);
            Some(HostPredicate::OmitCanaryHosts)
        } else {
            unsupported(r, &config, &[PreviousHosts::NAME, OmitHostMetadata::NAME, OmitCanaryHosts::NAME]);
            None
        }
    }
}

impl Message for Option<PreviousPriorities> {
    const NAME: &'static str = "envoy.config.route.v3.RetryPolicy.RetryPriority";

    fn read(r: &Reader<'_>) -> Self {
        r.may_be::<PreviousPriorities>();
        let config = r.extension_any()?.config;
        if config.is::<PreviousPriorities>() {
            return Some(config.read(r));
        }
        unsupported(r, &config, &[PreviousPriorities::NAME]);
        None
    }
}

pub(super) fn unsupported(r: &Reader<'_>, config: &Any<'_>, known: &[&str]) {
    r.cx.report(Problem {
        expected: Some(format!("one of {}", known.join(", "))),
        ..Problem::new(config.path.clone(), r.span, "this extension is not supported by this build")
    });
}

impl Message for PreviousPriorities {
    const NAME: &'static str =
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self { update_frequency: r.u32("update_frequency").within(1..=i32::MAX as u32).required() }
    }
}

struct PreviousHosts;

impl Message for PreviousHosts {
    const NAME: &'static str = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

struct OmitCanaryHosts;

impl Message for OmitCanaryHosts {
    const NAME: &'static str = "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

struct OmitHostMetadata(Vec<(String, Node)>);

impl Message for OmitHostMetadata {
    const NAME: &'static str = "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(Metadata::labels(r, "metadata_match"))
    }
}
