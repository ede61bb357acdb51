//! Whether a failed try is made again, and after how long.
//!
//! Envoy docs, "Router": `x-envoy-retry-on`, `x-envoy-retry-grpc-on`, `x-envoy-max-retries`. A sans-IO
//! machine: [`RetryPolicy`] is compiled once, [`RetryState`] lives as long as a request and is asked
//! after each try; clocks and random numbers are arguments, circuit breakers are the caller's. The
//! connection manager has already removed the headers of requests that are not internal. Failures of
//! reused connections are [`safe`]'s, which needs no configuration.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use tidegate_config::route::{self as config, BackOff, HostPredicate};
use tidegate_types::fields::take_in_order;
use tidegate_types::{RequestHead, ResetReason, ResponseHead};

use crate::table::matcher::HeaderMatcher;

mod back_off;
mod conditions;
mod priorities;
pub mod safe;

#[cfg(test)]
mod tests;

pub use back_off::RateLimited;
pub use conditions::RetryOn;
pub use priorities::PriorityAvoidance;

/// A compiled `envoy.config.route.v3.RetryPolicy`.
#[derive(Debug)]
pub struct RetryPolicy {
    on: RetryOn,
    num_retries: u32,
    back_off: BackOff,
    rate_limited: Option<RateLimited>,
    retriable_status_codes: Box<[u16]>,
    retriable_headers: Box<[HeaderMatcher]>,
    retriable_request_headers: Box<[HeaderMatcher]>,
    /// Which hosts a retry avoids, and how often it chooses again.
    pub hosts: HostAvoidance,
    /// `per_try_timeout`, `None` when unset or 0.
    pub per_try_timeout: Option<Duration>,
    /// `per_try_idle_timeout`, `None` when unset or 0.
    pub per_try_idle_timeout: Option<Duration>,
}

impl Default for RetryPolicy {
    /// No retries, except those that a request's headers ask for.
    fn default() -> Self {
        Self {
            on: RetryOn::NONE,
            num_retries: 1,
            back_off: BackOff {
                base_interval: Duration::from_millis(25),
                max_interval: Duration::from_millis(250),
            },
            rate_limited: None,
            retriable_status_codes: Box::default(),
            retriable_headers: Box::default(),
            retriable_request_headers: Box::default(),
            hosts: HostAvoidance::default(),
            per_try_timeout: None,
            per_try_idle_timeout: None,
        }
    }
}

impl RetryPolicy {
    /// Compiles a policy. The error names the header matcher that is wrong, or what this build cannot do.
    pub fn compile(policy: &config::RetryPolicy) -> Result<Self, String> {
        let matchers = |list: &[config::HeaderMatcher]| {
            list.iter().map(HeaderMatcher::compile).collect::<Result<Box<[_]>, String>>()
        };
        Ok(Self {
            on: policy.retry_on.iter().fold(RetryOn::NONE, |on, name| on.with(RetryOn::parse(name))),
            num_retries: policy.num_retries,
            back_off: policy.back_off,
            rate_limited: policy.rate_limited_back_off.as_ref().map(RateLimited::compile).transpose()?,
            retriable_status_codes: policy.retriable_status_codes.clone().into(),
            retriable_headers: matchers(&policy.retriable_headers)?,
            retriable_request_headers: matchers(&policy.retriable_request_headers)?,
            hosts: HostAvoidance {
                predicates: policy.host_predicates.clone().into(),
                attempts: policy.host_selection_attempts,
                priorities: policy.retry_priority.map(|priorities| priorities.update_frequency),
            },
            per_try_timeout: policy.per_try_timeout.filter(|timeout| !timeout.is_zero()),
            per_try_idle_timeout: policy.per_try_idle_timeout.filter(|timeout| !timeout.is_zero()),
        })
    }
}

/// `retry_host_predicate`, `host_selection_retry_max_attempts` and `retry_priority`.
#[derive(Debug, Default)]
pub struct HostAvoidance {
    /// Any of them rejects a host.
    pub predicates: Box<[HostPredicate]>,
    /// How often one try's host is chosen again; the last choice is then taken.
    pub attempts: u32,
    /// Priorities of earlier tries are left out; counted anew after so many tries.
    pub priorities: Option<u32>,
}

/// How a try ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// With a response.
    Response(&'a ResponseHead),
    /// Without one, before a head was passed on.
    Reset {
        /// Why.
        reason: ResetReason,
        /// Whether any byte of the request went upstream.
        request: RequestSent,
    },
    /// `per_try_timeout` or `per_try_idle_timeout` fired.
    PerTryTimeout,
}

/// Whether the upstream may have seen a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestSent {
    /// Nothing was written.
    No,
    /// At least its first byte was.
    Yes,
}

/// What to do after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Pass the outcome on.
    No,
    /// It would be tried again, but the tries are used up: flag `URX`, `upstream_rq_retry_limit_exceeded`.
    LimitExceeded,
    /// Try again after this time, if the cluster's retry budget allows it.
    After(Duration),
}

/// What a retry's wait was computed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// `retry_back_off`.
    #[default]
    Exponential,
    /// `rate_limited_retry_back_off`: the upstream's wish.
    RateLimited,
}

/// The retries of one request.
#[derive(Clone, Debug)]
pub struct RetryState<'p> {
    pace: Pace,
    policy: &'p RetryPolicy,
    on: RetryOn,
    remaining: u32,
    made: u32,
    retried: bool,
    asked_status_codes: Vec<u16>,
    asked_headers: Vec<HeaderName>,
}

/// `x-envoy-*` request headers that steer retries. None of them goes upstream.
const HEADERS: [HeaderName; 6] = [
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
];

/// Whether a header may be one of [`HEADERS`].
fn steers_retries(name: &str) -> bool {
    name.strip_prefix("x-envoy-")
        .is_some_and(|rest| ["ret", "max-ret", "hedge"].iter().any(|start| rest.starts_with(start)))
}

const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

impl<'p> RetryState<'p> {
    /// The retries that `head` may have; takes the retry headers out of it. `None`: none at all, which
    /// costs a walk over the header names and no allocation.
    pub fn of_request(policy: &'p RetryPolicy, head: &mut RequestHead) -> Option<Self> {
        let mut state = Self::new(policy);
        // One walk over the names is cheaper than six look-ups, and nearly always the end of it.
        if head.headers.keys().any(|name| steers_retries(name.as_str())) {
            state.take_headers(&mut head.headers);
        }
        state.wanted(head)
    }

    fn new(policy: &'p RetryPolicy) -> Self {
        Self {
            pace: Pace::default(),
            policy,
            on: policy.on,
            remaining: policy.num_retries,
            made: 0,
            retried: false,
            asked_status_codes: Vec::new(),
            asked_headers: Vec::new(),
        }
    }

    fn wanted(self, head: &RequestHead) -> Option<Self> {
        let limits = &self.policy.retriable_request_headers;
        if !limits.is_empty() && !limits.iter().any(|matcher| matcher.matches_request(head)) {
            return None;
        }
        (self.on != RetryOn::NONE).then_some(self)
    }

    fn take_headers(&mut self, headers: &mut HeaderMap) {
        let [on, grpc_on, max, codes, names, hedge] = &HEADERS;
        // Each has its own words, where a policy may mix them.
        for (name, words) in [(on, RetryOn::HTTP), (grpc_on, RetryOn::GRPC)] {
            let value = take_in_order(headers, name);
            let list = value.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
            self.on = list
                .split(',')
                .fold(self.on, |on, condition| on.with(RetryOn::parse(condition.trim()).and(words)));
        }
        let number =
            take_in_order(headers, max).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        if let Some(number) = number {
            // As Envoy keeps it: its low 32 bits.
            self.remaining = (number & u64::from(u32::MAX)) as u32;
        }
        if let Some(value) = take_in_order(headers, codes) {
            let list = value.to_str().unwrap_or_default();
            self.asked_status_codes
                .extend(list.split(',').filter_map(|code| code.trim().parse::<u16>().ok()));
        }
        if let Some(value) = take_in_order(headers, names) {
            let list = value.to_str().unwrap_or_default();
            self.asked_headers
                .extend(list.split(',').filter_map(|name| name.trim().parse::<HeaderName>().ok()));
        }
        take_in_order(headers, hedge);
    }

    /// Which hosts the next try avoids.
    pub fn hosts(&self) -> &'p HostAvoidance {
        &self.policy.hosts
    }

    /// Retries decided on so far.
    pub fn retries(&self) -> u32 {
        self.made
    }

    /// The body and the circuit breaker allow the retry that was decided on.
    pub fn handle_granted(&mut self) {
        self.retried = true;
    }

    /// Whether a retry was made, or is about to be.
    pub fn has_retried(&self) -> bool {
        self.retried
    }

    /// What the wait before the last retry was computed from.
    pub fn last_pace(&self) -> Pace {
        self.pace
    }

    /// What to do after a try. `seed` is a fresh random number, `unix_now` the wall clock in seconds,
    /// for upstreams that name a time.
    pub fn should_retry(&mut self, outcome: Outcome<'_>, seed: u64, unix_now: u64) -> Decision {
        let wanted = match outcome {
            Outcome::Response(head) => self.wants_response(head),
            Outcome::Reset { reason, request } => self.wants_reset(reason, request),
            Outcome::PerTryTimeout => self.wants_reset(ResetReason::LocalReset, RequestSent::Yes),
        };
        if !wanted {
            return Decision::No;
        }
        if self.remaining == 0 {
            return Decision::LimitExceeded;
        }
        self.remaining -= 1;
        let asked = match (outcome, &self.policy.rate_limited) {
            (Outcome::Response(head), Some(limited)) => limited.wait(head, seed, unix_now),
            _ => None,
        };
        self.pace = if asked.is_some() { Pace::RateLimited } else { Pace::Exponential };
        let wait = asked.unwrap_or_else(|| back_off::exponential(&self.policy.back_off, self.made, seed));
        self.made += 1;
        Decision::After(wait)
    }

    /// What to do when a try's time is over and the try goes on (hedging): as in Envoy another one starts whatever
    /// `retry_on` says.
    pub fn should_hedge(&mut self, seed: u64) -> Decision {
        if self.remaining == 0 {
            return Decision::LimitExceeded;
        }
        self.remaining -= 1;
        let wait = back_off::exponential(&self.policy.back_off, self.made, seed);
        self.made += 1;
        Decision::After(wait)
    }

    /// Whether a response is one that the policy would rather replace.
    pub fn would_retry(&self, head: &ResponseHead) -> bool {
        self.wants_response(head)
    }

    fn wants_response(&self, head: &ResponseHead) -> bool {
        // Another proxy's rate limit would only be hit again.
        if head.headers.contains_key(&RATE_LIMITED) {
            return self.on.has(RetryOn::ENVOY_RATELIMITED);
        }
        let status = head.status.as_u16();
        let codes = || self.policy.retriable_status_codes.iter().chain(&self.asked_status_codes);
        (self.on.has(RetryOn::STATUS_5XX) && (500..600).contains(&status))
            || (self.on.has(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&status))
            || (self.on.has(RetryOn::RETRIABLE_4XX) && head.status == StatusCode::CONFLICT)
            || (self.on.has(RetryOn::RETRIABLE_STATUS_CODES) && codes().any(|code| *code == status))
            || (self.on.has(RetryOn::RETRIABLE_HEADERS) && self.has_retriable_header(head))
            || self.on.wants_grpc(&head.headers)
    }

    fn has_retriable_header(&self, head: &ResponseHead) -> bool {
        self.policy.retriable_headers.iter().any(|matcher| matcher.matches_response(head))
            || self.asked_headers.iter().any(|name| head.headers.contains_key(name))
    }

    fn wants_reset(&self, reason: ResetReason, request: RequestSent) -> bool {
        // A local limit refused it: trying again adds to the load.
        if reason == ResetReason::Overflow {
            return false;
        }
        self.on.has(RetryOn::STATUS_5XX)
            || self.on.has(RetryOn::GATEWAY_ERROR)
            || self.on.has(RetryOn::RESET)
            || (self.on.has(RetryOn::RESET_BEFORE_REQUEST) && request == RequestSent::No)
            || (self.on.has(RetryOn::REFUSED_STREAM) && reason == ResetReason::RemoteRefused)
            || (self.on.has(RetryOn::CONNECT_FAILURE) && reason.is_connect_failure())
    }
}
