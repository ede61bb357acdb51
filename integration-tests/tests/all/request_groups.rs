//! Requests counted by themselves: virtual clusters, and routes with a `stat_prefix`.

use integration_tests::config::text_format;
use integration_tests::origin::OK;
use integration_tests::proxy::await_lines;
use integration_tests::{Config, Origin, Proxy};
use serde_json::{Value, json};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n")
}

fn virtual_clusters() -> Value {
    json!({"virtual_clusters": [
        {"name": "api", "headers": [
            {"name": ":path", "string_match": {"prefix": "/api"}},
            {"name": ":method", "string_match": {"exact": "GET"}},
        ]},
        {"name": "never", "headers": [{"name": "x-never"}]},
    ]})
}

#[test]
fn a_request_counts_in_the_first_virtual_cluster_that_matches_or_in_other() {
    let origin = Origin::saying(OK);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let config = Config::new(origin.address())
        .virtual_host(virtual_clusters())
        .routes(json!([{"match": {"prefix": "/"}, "stat_prefix": "web", "route": {"cluster": "origin"}}]))
        .access_log(&log, text_format("%REQ(:PATH)% %VIRTUAL_CLUSTER_NAME%\n"));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    for path in ["/api/1", "/api/2", "/"] {
        assert_eq!(client.ask(&get(path)).status, 200);
    }
    assert_eq!(await_lines(&log, 3), ["/api/1 api", "/api/2 api", "/ -"]);
    let stats = proxy.admin.stats();
    for (group, requests) in
        [("vcluster.api", 2), ("vcluster.never", 0), ("vcluster.other", 1), ("route.web", 3)]
    {
        for name in ["upstream_rq_total", "upstream_rq_200", "upstream_rq_2xx", "upstream_rq_completed"] {
            assert_eq!(stats.get(&format!("vhost.all.{group}.{name}")), requests, "{group} {name}");
        }
    }
    let text = proxy.admin.get("/stats").text();
    assert!(text.contains("vhost.all.vcluster.never.upstream_rq_timeout: 0"), "{text}");
    let text = proxy.admin.get("/stats/prometheus").text();
    for label in [r#"envoy_virtual_host="all""#, r#"envoy_virtual_cluster="api""#] {
        assert!(text.contains(label), "{text}");
    }
}

#[test]
fn virtual_clusters_count_retries_and_timeouts() {
    let failing = Origin::saying("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
    let config = Config::new(failing.address())
        .virtual_host(virtual_clusters())
        .route(json!({"route": {"retry_policy": {"retry_on": "5xx", "num_retries": 1}}}));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.connect().ask(&get("/api")).status, 503);
    let stats = proxy.admin.stats();
    let count = |name: &str| stats.get(&format!("vhost.all.vcluster.api.upstream_rq_{name}"));
    assert_eq!(["total", "retry", "retry_limit_exceeded", "503", "completed"].map(count), [2, 1, 1, 1, 1]);

    let silent = Origin::script(|mut peer| {
        peer.request();
        peer.request();
    });
    let config = Config::new(silent.address())
        .virtual_host(virtual_clusters())
        .route(json!({"route": {"timeout": "0.1s"}}));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.connect().ask(&get("/api")).status, 504);
    let stats = proxy.admin.stats();
    let count = |name: &str| stats.get(&format!("vhost.all.vcluster.api.upstream_rq_{name}"));
    assert_eq!(["total", "timeout", "504"].map(count), [1; 3]);
}
