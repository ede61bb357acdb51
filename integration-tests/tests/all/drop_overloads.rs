//! `drop_overloads`: what is refused before a host is looked for, as Envoy 1.40 answers and counts it.

use integration_tests::{Config, Origin, Proxy, config, proxy};
use serde_json::{Value, json};

fn dropping(origin: &Origin, numerator: u32) -> Config {
    let drops = json!([{"category": "throttle", "drop_percentage": {"numerator": numerator}}]);
    Config::new(origin.address()).cluster(json!({"load_assignment": {"policy": {"drop_overloads": drops}}}))
}

#[track_caller]
fn counted(proxy: &Proxy, refused: u64) {
    let stats = proxy.admin.stats();
    for name in ["upstream_rq_503", "upstream_rq_5xx", "upstream_rq_completed"] {
        assert_eq!(stats.get(&format!("cluster.origin.{name}")), refused, "{name}");
    }
    assert_eq!(
        (stats.get("cluster.origin.upstream_rq_total"), stats.get("cluster.origin.upstream_cx_total")),
        (0, 0)
    );
}

#[test]
fn all_requests_of_a_cluster() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let format = config::text_format("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    let proxy = Proxy::start(&dropping(&origin, 100).access_log(&log, format));
    let response = proxy.get("/");
    assert_eq!(response.status, 503);
    assert_eq!(response.text(), "unconditional drop overload");
    assert_eq!(response.header("x-envoy-unconditional-drop-overload"), Some("true"));
    assert_eq!(response.header("x-envoy-overloaded"), None);
    counted(&proxy, 1);
    assert_eq!(proxy::await_lines(&log, 1), ["503 UDO unconditional_drop_overload"]);
    let dump = proxy.admin.get("/config_dump?include_eds");
    let dump: Value = serde_json::from_slice(&dump.body).unwrap();
    let policies: Vec<_> = dump["configs"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|config| config["static_endpoint_configs"][0]["endpoint_config"].get("policy"))
        .collect();
    let drops = json!([{"category": "throttle", "drop_percentage": {"numerator": 1_000_000, "denominator": "MILLION"}}]);
    assert_eq!(policies, [&json!({"overprovisioning_factor": 140, "drop_overloads": drops})]);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_share_of_them() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&dropping(&origin, 50));
    let refused =
        (0..60).map(|_| proxy.get("/")).filter(|response| response.status == 503).inspect(|response| {
            assert_eq!(response.text(), "drop overload");
            assert_eq!(response.header("x-envoy-drop-overload"), Some("true"));
        });
    let refused = refused.count();
    // Once in 2^59 all or none are.
    assert!((1..60).contains(&refused), "{refused}");
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_503"), refused as u64);
    assert_eq!(origin.requests().len(), 60 - refused);
}

#[test]
fn no_more_than_the_runtime_allows() {
    let origin = Origin::ok();
    let layer = json!({"name": "limit", "static_layer": {"load_balancing_policy.drop_overload_limit": 0}});
    let proxy =
        Proxy::start(&dropping(&origin, 100).bootstrap(json!({"layered_runtime": {"layers": [layer]}})));
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn copies_are_counted_and_not_sent() {
    let (origin, mirror) = (Origin::ok(), Origin::ok());
    let mut mirrored = config::cluster("mirror", &[mirror.address()]);
    let drops = json!([{"category": "throttle", "drop_percentage": {"numerator": 100}}]);
    config::merge(&mut mirrored, json!({"load_assignment": {"policy": {"drop_overloads": drops}}}));
    let clusters = [config::cluster("origin", &[origin.address()]), mirrored];
    let policy = json!({"route": {"request_mirror_policies": [{"cluster": "mirror"}]}});
    let proxy = Proxy::start(&Config::with_clusters(&clusters).route(policy));
    assert_eq!(proxy.get("/").status, 200);
    proxy.admin.await_stat("cluster.mirror.internal.upstream_rq_503", 1);
    assert_eq!(mirror.connections(), 0);
}
