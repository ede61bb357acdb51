//! The filter `health_check`: answers, counters, and what it keeps out of the service's numbers. As Envoy 1.40.

use integration_tests::config::{filter, text_format};
use integration_tests::proxy::await_lines;
use integration_tests::{Config, Origin, Proxy};
use serde_json::{Value, json};

const HEALTH_CHECK: &str = "envoy.extensions.filters.http.health_check.v3.HealthCheck";

fn checks(mut settings: Value) -> Value {
    settings["headers"] = json!([{"name": ":path", "string_match": {"exact": "/hc"}}]);
    json!([filter("check", HEALTH_CHECK, settings)])
}

fn config(origin: &Origin, settings: Value) -> Config {
    Config::new(origin.address())
        .filters(checks(settings))
        .bootstrap(json!({"node": {"id": "n", "cluster": "service"}}))
}

#[test]
fn checks_are_answered_and_counted_nowhere_else() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let config = config(&origin, json!({"pass_through_mode": false})).access_log(
        &log,
        text_format("%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"),
    );
    let proxy = Proxy::start(&config);
    let answer = proxy.get("/hc");
    assert_eq!(
        (answer.status, answer.header("x-envoy-upstream-healthchecked-cluster")),
        (200, Some("service"))
    );
    assert_eq!((answer.header("content-length"), answer.header("content-type")), (Some("0"), None));
    assert_eq!(proxy.admin.post("/healthcheck/fail").status, 200);
    let answer = proxy.get("/hc");
    assert_eq!((answer.status, answer.header("x-envoy-immediate-health-check-fail")), (503, Some("true")));
    let other = proxy.get("/");
    assert_eq!((other.status, other.header("x-envoy-immediate-health-check-fail")), (200, Some("true")));
    assert_eq!(proxy.admin.post("/healthcheck/ok").status, 200);
    assert_eq!(proxy.get("/hc").status, 200);
    let lines = await_lines(&log, 4);
    assert_eq!(
        lines,
        [
            "/hc 200 - health_check_ok",
            "/hc 503 LH health_check_failed",
            "/ 200 - via_upstream",
            "/hc 200 - health_check_ok"
        ]
    );
    let prefix = "http.ingress";
    for (name, count) in [
        ("health_check.request_total", 3),
        ("health_check.ok", 2),
        ("health_check.failed", 1),
        ("downstream_rq_total", 4),
        ("downstream_rq_completed", 1),
        ("downstream_rq_2xx", 1),
        ("downstream_rq_5xx", 0),
    ] {
        proxy.admin.await_stat(&format!("{prefix}.{name}"), count);
    }
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn checks_that_pass_through_are_kept_for_a_time() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&config(&origin, json!({"pass_through_mode": true, "cache_time": "60s"})));
    for _ in 0..3 {
        let answer = proxy.get("/hc");
        assert_eq!(
            (answer.status, answer.header("x-envoy-upstream-healthchecked-cluster")),
            (200, Some("service"))
        );
    }
    assert_eq!(origin.requests().len(), 1);
    proxy.admin.await_stat("http.ingress.health_check.cached_response", 2);
    // What passed is one of the pool's requests, and none of the service's answers.
    proxy.admin.await_stat("cluster.origin.upstream_rq_total", 1);
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_completed"), 0);
}

#[test]
fn clusters_that_lost_too_many_hosts_fail_checks() {
    let origin = Origin::ok();
    let of = |name: &str| json!({"pass_through_mode": false, "cluster_min_healthy_percentages": {name: {"value": 50}}});
    let proxy = Proxy::start(&config(&origin, of("origin")));
    assert_eq!(proxy.get("/hc").status, 200);
    let proxy = Proxy::start(&config(&origin, of("nowhere")));
    assert_eq!(proxy.get("/hc").status, 503);
    proxy.admin.await_stat("http.ingress.health_check.failed_cluster_not_found", 1);
}

#[test]
fn access_logs_can_leave_checks_out() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut config =
        config(&origin, json!({"pass_through_mode": false})).access_log(&log, text_format("%REQ(:PATH)%\n"));
    let manager =
        &mut config.0["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    manager["access_log"][0]["filter"] = json!({"not_health_check_filter": {}});
    let proxy = Proxy::start(&config);
    proxy.get("/hc");
    proxy.get("/a");
    assert_eq!(await_lines(&log, 1), ["/a"]);
}
