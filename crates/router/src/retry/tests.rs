use http::{HeaderValue, Method};
use tidegate_config::route::{RateLimitedBackOff, ResetHeader, ResetHeaderFormat};

use super::*;

fn policy(retry_on: &[&str]) -> config::RetryPolicy {
    config::RetryPolicy {
        retry_on: retry_on.iter().map(|on| (*on).to_owned()).collect(),
        num_retries: 2,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        back_off: BackOff {
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_millis(60),
        },
        rate_limited_back_off: None,
        retriable_status_codes: vec![418],
        retriable_headers: Vec::new(),
        retriable_request_headers: Vec::new(),
        host_predicates: Vec::new(),
        host_selection_attempts: 1,
        retry_priority: None,
    }
}

fn request(headers: &[(&'static str, &'static str)]) -> RequestHead {
    let mut head = RequestHead::new(Method::GET, "a.test", "/");
    for (name, value) in headers {
        head.headers.append(*name, HeaderValue::from_static(value));
    }
    head
}

fn response(status: u16, headers: &[(&'static str, &'static str)]) -> ResponseHead {
    let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        head.headers.append(*name, HeaderValue::from_static(value));
    }
    head
}

fn retries(retry_on: &[&str], outcome: Outcome<'_>) -> bool {
    let policy = RetryPolicy::compile(&policy(retry_on)).unwrap();
    let mut state = RetryState::of_request(&policy, &mut request(&[])).unwrap();
    state.should_retry(outcome, 0, 0) != Decision::No
}

fn reset(reason: ResetReason, request: RequestSent) -> Outcome<'static> {
    Outcome::Reset { reason, request }
}

#[test]
fn responses_are_retried_by_condition() {
    let retries = |on: &str, status, headers: &[(&'static str, &'static str)]| {
        retries(&[on], Outcome::Response(&response(status, headers)))
    };
    assert!(retries("5xx", 500, &[]) && retries("5xx", 599, &[]) && !retries("5xx", 404, &[]));
    assert!(retries("gateway-error", 502, &[]) && !retries("gateway-error", 500, &[]));
    assert!(retries("retriable-4xx", 409, &[]) && !retries("retriable-4xx", 404, &[]));
    assert!(retries("retriable-status-codes", 418, &[]) && !retries("retriable-status-codes", 503, &[]));
    assert!(!retries("5xx", 503, &[("x-envoy-ratelimited", "true")]));
    assert!(retries("envoy-ratelimited", 429, &[("x-envoy-ratelimited", "true")]));
    assert!(retries("unavailable", 200, &[("grpc-status", "14")]));
    assert!(!retries("unavailable", 200, &[("grpc-status", "13")]));
    assert!(!retries("connect-failure", 503, &[]));
}

#[test]
fn resets_are_retried_by_condition() {
    use RequestSent::{No, Yes};
    use ResetReason::{ConnectionTermination, ConnectionTimeout, Overflow, RemoteRefused, RemoteReset};
    for on in ["5xx", "gateway-error", "reset"] {
        assert!(retries(&[on], reset(ConnectionTermination, Yes)), "{on}");
        assert!(retries(&[on], Outcome::PerTryTimeout), "{on}");
        assert!(!retries(&[on], reset(Overflow, No)), "{on}");
    }
    assert!(retries(&["connect-failure"], reset(ConnectionTimeout, No)));
    assert!(!retries(&["connect-failure"], reset(ConnectionTermination, Yes)));
    assert!(retries(&["reset-before-request"], reset(RemoteReset, No)));
    assert!(!retries(&["reset-before-request"], reset(RemoteReset, Yes)));
    assert!(retries(&["refused-stream"], reset(RemoteRefused, Yes)));
    assert!(!retries(&["refused-stream"], reset(RemoteReset, Yes)));
}

#[test]
fn waits_grow_with_full_jitter_until_the_tries_are_used_up() {
    let policy = RetryPolicy::compile(&config::RetryPolicy { num_retries: 3, ..policy(&["5xx"]) }).unwrap();
    let mut state = RetryState::of_request(&policy, &mut request(&[])).unwrap();
    let failed = response(503, &[]);
    let mut next = |seed| state.should_retry(Outcome::Response(&failed), seed, 0);
    assert_eq!(next(24), Decision::After(Duration::from_millis(24)));
    assert_eq!(next(49), Decision::After(Duration::from_millis(49)));
    assert_eq!(next(59), Decision::After(Duration::from_millis(59)));
    assert_eq!(next(0), Decision::LimitExceeded);
    assert_eq!(state.retries(), 3);
}

#[test]
fn request_headers_steer_and_go_no_further() {
    let none = RetryPolicy::default();
    assert!(RetryState::of_request(&none, &mut request(&[("x-envoy-max-retries", "3")])).is_none());
    let mut head = request(&[
        ("x-envoy-retry-on", "connect-failure, retriable-status-codes,retriable-headers"),
        ("x-envoy-retriable-status-codes", "404,x, 406"),
        ("x-envoy-retriable-header-names", "x-again"),
        ("x-envoy-max-retries", "0"),
        ("x-keep", "1"),
    ]);
    let mut state = RetryState::of_request(&none, &mut head).unwrap();
    assert_eq!(head.headers.len(), 1);
    let mut decide = |status, headers: &[(&'static str, &'static str)]| {
        state.should_retry(Outcome::Response(&response(status, headers)), 0, 0)
    };
    assert_eq!(decide(406, &[]), Decision::LimitExceeded);
    assert_eq!(decide(200, &[("x-again", "")]), Decision::LimitExceeded);
    assert_eq!(decide(405, &[]), Decision::No);
}

/// A policy may mix the words of both headers.
#[test]
fn each_request_header_has_its_own_words() {
    let none = RetryPolicy::default();
    let wanted = |name, value| RetryState::of_request(&none, &mut request(&[(name, value)])).is_some();
    assert!(wanted("x-envoy-retry-on", "5xx") && wanted("x-envoy-retry-grpc-on", "unavailable"));
    assert!(!wanted("x-envoy-retry-on", "unavailable") && !wanted("x-envoy-retry-grpc-on", "5xx"));
}

/// As Envoy, which keeps 32 bits of the number.
#[test]
fn a_number_of_retries_is_cut_to_32_bits() {
    let policy = RetryPolicy::compile(&policy(&["5xx"])).unwrap();
    for (number, none_left) in [("4294967296", true), ("4294967297", false), ("18446744073709551616", false)]
    {
        let mut head = request(&[("x-envoy-max-retries", number)]);
        let mut state = RetryState::of_request(&policy, &mut head).unwrap();
        let decided = state.should_retry(Outcome::Response(&response(503, &[])), 0, 0);
        assert_eq!(decided == Decision::LimitExceeded, none_left, "{number}");
    }
}

#[test]
fn the_upstream_may_name_the_wait() {
    let limited = RateLimitedBackOff {
        reset_headers: vec![
            ResetHeader { name: "retry-after".to_owned(), format: ResetHeaderFormat::Seconds },
            ResetHeader { name: "x-reset".to_owned(), format: ResetHeaderFormat::UnixTimestamp },
        ],
        max_interval: Duration::from_secs(10),
    };
    let config =
        config::RetryPolicy { rate_limited_back_off: Some(limited), num_retries: 9, ..policy(&["5xx"]) };
    let policy = RetryPolicy::compile(&config).unwrap();
    let mut state = RetryState::of_request(&policy, &mut request(&[])).unwrap();
    let mut wait = |headers: &[(&'static str, &'static str)]| {
        state.should_retry(Outcome::Response(&response(503, headers)), 7, 1_000)
    };
    assert_eq!(wait(&[("retry-after", "2")]), Decision::After(Duration::from_millis(2_007)));
    assert_eq!(wait(&[("x-reset", "1003")]), Decision::After(Duration::from_millis(3_007)));
    assert_eq!(wait(&[("x-reset", "9000")]), Decision::After(Duration::from_millis(7)));
    assert_eq!(wait(&[]), Decision::After(Duration::from_millis(7)));
}
