#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use tidegate_testkit::filter::FilterHarness;
use tidegate_types::{RequestHead, ResponseFlags, ResponseHead};

use super::LocalRateLimit;

const ON: &str = r#""filter_enabled": {"default_value": {"numerator": 100}},
    "filter_enforced": {"runtime_key": "k", "default_value": {"numerator": 100, "denominator": "HUNDRED"}}"#;
const BUCKET: &str = r#""token_bucket": {"max_tokens": 2, "fill_interval": "3s"}"#;

fn request() -> RequestHead {
    RequestHead::new(Method::GET, "example.com", "/")
}

fn harness(fields: &str) -> FilterHarness {
    FilterHarness::new::<LocalRateLimit>(&format!(r#"{{"stat_prefix": "rl", {fields}}}"#))
        .unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn refused(config: &str) -> String {
    FilterHarness::new::<LocalRateLimit>(config).err().unwrap()[0].to_string()
}

fn counters(harness: &FilterHarness, prefix: &str) -> Vec<Option<u64>> {
    ["enabled", "ok", "rate_limited", "enforced"]
        .map(|name| harness.stat(&format!("{prefix}.http_local_rate_limit.{name}")))
        .into()
}

fn text(headers: &HeaderMap) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn the_third_request_is_refused_until_the_bucket_fills() {
    let harness = harness(&format!(
        r#"{ON}, {BUCKET}, "response_headers_to_add": [{{"header": {{"key": "x-rl", "value": "1"}}}}]"#
    ));
    for _ in 0..2 {
        harness.open().request(request()).await.forwarded();
    }
    let reply = harness.open().request(request()).await.reply();
    assert_eq!(reply.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!((&*reply.body, &*reply.details), (&b"local_rate_limited"[..], "local_rate_limited"));
    assert_eq!((reply.flags, reply.grpc_status), (ResponseFlags::RATE_LIMITED, None));
    assert_eq!(reply.headers.len(), 1);
    assert_eq!(counters(&harness, "rl"), [3, 2, 1, 1].map(Some));

    tokio::time::advance(Duration::from_secs(3)).await;
    harness.open().request(request()).await.forwarded();
    harness.open().request(request()).await.reply();
}

#[tokio::test(start_paused = true)]
async fn limits_are_announced_in_every_response() {
    let harness = harness(&format!(
        r#"{ON}, {BUCKET}, "enable_x_ratelimit_headers": "DRAFT_VERSION_03", "status": {{"code": 503}},
           "rate_limited_as_resource_exhausted": true"#
    ));
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut run = harness.open();
        run.request(request()).await;
        let out = run.response(ResponseHead::new(StatusCode::OK)).await.forwarded();
        seen.push(text(&out.head.headers).join(", ").replace("x-ratelimit-", ""));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    // As Envoy 1.40 answers to the same three requests.
    assert_eq!(
        seen,
        [
            "limit: 2, remaining: 1, reset: 0",
            "limit: 2, remaining: 0, reset: 2",
            "limit: 2, remaining: 0, reset: 1",
        ]
    );
    let reply = harness.open().request(request()).await;
    reply.forwarded();
    let reply = harness.open().request(request()).await.reply();
    assert_eq!((reply.status.as_u16(), reply.grpc_status), (503, Some(8)));
}

#[tokio::test]
async fn unset_shares_mean_that_nothing_happens() {
    let off = harness(r#""token_bucket": {"max_tokens": 0, "fill_interval": "1s"}"#);
    off.open().request(request()).await.forwarded();
    assert_eq!(counters(&off, "rl"), [0; 4].map(Some));

    let shadow = harness(
        r#""token_bucket": {"max_tokens": 0, "fill_interval": "1s"},
           "filter_enabled": {"default_value": {"numerator": 100}},
           "request_headers_to_add_when_not_enforced": [{"header": {"key": "x-over", "value": "yes"}}]"#,
    );
    let out = shadow.open().request(request()).await.forwarded();
    assert_eq!(text(&out.head.headers), ["x-over: yes"]);
    assert_eq!(counters(&shadow, "rl"), [1, 0, 1, 0].map(Some));
}

#[tokio::test]
async fn a_route_has_its_own_bucket_and_counters() {
    let route = format!(
        r#"{{"stat_prefix": "route", "token_bucket": {{"max_tokens": 0, "fill_interval": "1s"}}, {ON}}}"#
    );
    let harness = harness(&format!("{ON}, {BUCKET}")).route(&route).unwrap();
    harness.open().request(request()).await.reply();
    assert_eq!(counters(&harness, "rl"), [0; 4].map(Some));
    assert_eq!(counters(&harness, "route"), [1, 0, 1, 1].map(Some));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let at = "typed_config";
    assert_eq!(refused("{}"), format!("{at}: missing field `stat_prefix`"));
    assert_eq!(refused(r#"{"stat_prefix": ""}"#), format!("{at}.stat_prefix: must not be empty"));
    assert_eq!(
        refused(r#"{"stat_prefix": "a", "token_bucket": {"max_tokens": 1, "fill_interval": "0.02s"}}"#),
        format!("{at}.token_bucket: local rate limit token bucket fill timer must be >= 50ms")
    );
    assert_eq!(
        refused(r#"{"stat_prefix": "a", "descriptors": []}"#),
        format!("{at}.descriptors: unknown field `descriptors`")
    );
    assert_eq!(
        refused(r#"{"stat_prefix": "a", "local_rate_limit_per_downstream_connection": true}"#),
        format!(
            "{at}.local_rate_limit_per_downstream_connection: a bucket for each connection is not supported yet"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn runtime_keys_override_the_shares() {
    let config = format!(
        r#"{{"stat_prefix": "rl", {ON}, "token_bucket": {{"max_tokens": 0, "fill_interval": "1s"}}}}"#
    );
    let harness = |runtime| FilterHarness::with_runtime::<LocalRateLimit>(&config, runtime).unwrap();
    harness(&[("k", 100)]).open().request(request()).await.reply();
    let harness = harness(&[("k", 0)]).route(&config).unwrap();
    harness.open().request(request()).await.forwarded();
    assert_eq!(counters(&harness, "rl"), [1, 0, 1, 0].map(Some));
}
