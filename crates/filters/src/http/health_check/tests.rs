#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use http::Method;
use tidegate_filter::Presence;
use tidegate_testkit::filter::{FakeClusters, FilterHarness, Message, Run};

use super::*;

const CHECKS: &str = r#""headers": [{"name": ":path", "string_match": {"exact": "/hc"}}]"#;

fn harness(rest: &str) -> FilterHarness {
    FilterHarness::new::<HealthCheck>(&format!("{{{rest}, {CHECKS}}}")).unwrap()
}

fn request(path: &'static str) -> Message<RequestHead> {
    Message::new(RequestHead::new(Method::GET, "example.com", path))
}

async fn response(run: &mut Run, status: u16) -> ResponseHead {
    let head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
    run.response(Message::new(head)).await.forwarded().head
}

async fn answer(harness: &FilterHarness) -> (u16, String) {
    let reply = harness.open().request(request("/hc")).await.reply();
    assert!(reply.body.is_empty());
    (reply.status.as_u16(), reply.details.into_owned())
}

fn said(status: u16, details: &str) -> (u16, String) {
    (status, details.to_owned())
}

#[tokio::test]
async fn checks_are_answered_by_the_operators_word() {
    let harness = harness(r#""pass_through_mode": false"#);
    assert_eq!(answer(&harness).await, said(200, "health_check_ok"));
    harness.clusters().set_fails_checks(true);
    let mut run = harness.open();
    let reply = run.request(request("/hc")).await.reply();
    assert_eq!((reply.status.as_u16(), &*reply.details), (503, "health_check_failed"));
    assert_eq!(reply.flags, ResponseFlags::FAILED_LOCAL_HEALTH_CHECK);
    let head = response(&mut run, 503).await;
    assert_eq!(head.headers[HEALTHCHECKED_CLUSTER], "local");
    assert_eq!(head.headers[IMMEDIATE_FAIL], "true");
    for (name, count) in [("request_total", 2), ("ok", 1), ("failed", 1)] {
        assert_eq!(harness.stat(&format!("http.test.health_check.{name}")), Some(count), "{name}");
    }
}

#[tokio::test]
async fn other_requests_pass_and_are_told_of_the_failing() {
    let harness = harness(r#""pass_through_mode": false"#);
    let mut run = harness.open();
    run.request(request("/")).await.forwarded();
    assert!(!run.stream().info().health_check.get());
    assert!(response(&mut run, 200).await.headers.is_empty());
    harness.clusters().set_fails_checks(true);
    let head = response(&mut run, 200).await;
    assert_eq!((head.headers.len(), &head.headers[IMMEDIATE_FAIL]), (1, &HeaderValue::from_static("true")));
}

#[tokio::test]
async fn clusters_must_have_their_share_of_hosts_that_serve() {
    let harness = harness(
        r#""pass_through_mode": false, "cluster_min_healthy_percentages": {"a": {"value": 66.9}, "b": {}}"#,
    );
    let set = |clusters: &FakeClusters, total, serving| {
        clusters.set_presence("a", Presence { total, serving });
    };
    assert_eq!(answer(&harness).await, said(503, "health_check_failed_no_cluster_found"));
    set(harness.clusters(), 0, 0);
    assert_eq!(answer(&harness).await, said(503, "health_check_failed_cluster_empty"));
    set(harness.clusters(), 100, 65);
    assert_eq!(answer(&harness).await, said(503, "health_check_failed_cluster_unhealthy"));
    set(harness.clusters(), 100, 66);
    harness.clusters().set_presence("b", Presence::default());
    assert_eq!(answer(&harness).await, said(200, "health_check_ok_cluster_healthy"));
    for name in ["failed_cluster_not_found", "failed_cluster_empty", "failed_cluster_unhealthy"] {
        assert_eq!(harness.stat(&format!("http.test.health_check.{name}")), Some(1), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstreams_answer_is_kept_for_a_time() {
    let harness = harness(r#""pass_through_mode": true, "cache_time": "1s""#);
    let mut run = harness.open();
    run.request(request("/hc")).await.forwarded();
    assert!(run.stream().info().health_check.get());
    let mut head = ResponseHead::new(StatusCode::SERVICE_UNAVAILABLE);
    head.headers.insert(DEGRADED, HeaderValue::from_static("yes"));
    run.response(Message::new(head)).await.forwarded();
    tokio::time::advance(Duration::from_millis(999)).await;
    let reply = harness.open().request(request("/hc")).await.reply();
    assert_eq!((reply.status.as_u16(), &*reply.details), (503, CACHED));
    assert_eq!(reply.headers, [(DEGRADED, HeaderValue::from_static(""))]);
    tokio::time::advance(Duration::from_millis(1)).await;
    harness.open().request(request("/hc")).await.forwarded();
    harness.clusters().set_fails_checks(true);
    assert_eq!(answer(&harness).await, said(503, "health_check_failed"));
    for (name, count) in [("request_total", 2), ("cached_response", 1), ("degraded", 1), ("failed", 2)] {
        assert_eq!(harness.stat(&format!("http.test.health_check.{name}")), Some(count), "{name}");
    }
}

#[test]
fn settings_are_validated() {
    let refused = |config: &str| FilterHarness::new::<HealthCheck>(config).err().unwrap()[0].to_string();
    assert_eq!(refused("{}"), "typed_config: missing field `pass_through_mode`");
    assert_eq!(
        refused(r#"{"pass_through_mode": false, "cache_time": "1s"}"#),
        "typed_config: `cache_time` must not be set without `pass_through_mode`"
    );
    let percent = r#"{"pass_through_mode": false, "cluster_min_healthy_percentages": {"a": {"value": 101}}}"#;
    assert!(refused(percent).ends_with("101 is not within 0 to 100"), "{}", refused(percent));
    let nameless = r#"{"pass_through_mode": false, "headers": [{"exact_match": "a"}]}"#;
    assert_eq!(refused(nameless), "typed_config.headers[0]: `name` must not be empty");
}

#[test]
fn header_matchers_test_as_envoys() {
    let matches = |matcher: &str, name: &str, value: &str| {
        let config = format!(r#"{{"pass_through_mode": false, "headers": [{matcher}]}}"#);
        let harness = FilterHarness::new::<HealthCheck>(&config).unwrap();
        let mut head = RequestHead::new(Method::GET, "example.com", "/");
        if !name.is_empty() {
            head.headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut run = harness.open();
        runtime.block_on(run.request(Message::new(head)));
        run.stream().info().health_check.get()
    };
    for (matcher, value, expected) in [
        (r#"{"name": "x"}"#, "a", true),
        (r#"{"name": "x", "present_match": false}"#, "a", false),
        (r#"{"name": "x", "exact_match": "a.b"}"#, "a.b", true),
        (r#"{"name": "x", "exact_match": "a.b"}"#, "acb", false),
        (r#"{"name": "x", "prefix_match": "a"}"#, "abc", true),
        (r#"{"name": "x", "suffix_match": "c"}"#, "abc", true),
        (r#"{"name": "x", "contains_match": "b"}"#, "abc", true),
        (r#"{"name": "x", "safe_regex_match": {"regex": "a|b"}}"#, "ab", false),
        (r#"{"name": "x", "range_match": {"start": "-5", "end": "7"}}"#, "6", true),
        (r#"{"name": "x", "range_match": {"start": "-5", "end": "7"}}"#, "7", false),
        (r#"{"name": "x", "exact_match": "a", "invert_match": true}"#, "b", true),
        (r#"{"name": "y", "exact_match": "a", "invert_match": true}"#, "b", false),
        (r#"{"name": "y", "exact_match": "", "treat_missing_header_as_empty": true}"#, "b", true),
        (r#"{"name": ":method", "exact_match": "GET"}"#, "", true),
    ] {
        assert_eq!(matches(matcher, "x", value), expected, "{matcher} on {value}");
    }
}
