//! What an operator sees of connections: `stats_config`, close reasons, idle gauges and ages, debug lines.

use integration_tests::process::run;
use integration_tests::{Config, Origin, Proxy, binary};
use serde_json::json;

#[test]
fn a_matcher_hides_statistics_in_every_format_and_warns_of_idle_counters() {
    let origin = Origin::ok();
    let patterns = json!([{"suffix": "_idle_timeout"}, {"prefix": "server."}, {"contains": "LENGTH_ms", "ignore_case": true}]);
    let config = Config::new(origin.address()).bootstrap(json!({
        "stats_config": {"stats_matcher": {"exclusion_list": {"patterns": patterns}}},
        "stats_flush_interval": "0.05s",
    }));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").status, 200);
    proxy.admin.await_stat("http.ingress.downstream_cx_destroy", 1);
    for page in ["/stats", "/stats?format=json", "/stats/prometheus"] {
        let text = proxy.admin.get(page).text();
        assert!(text.contains("upstream_cx_total"), "{page}: {text}");
        for hidden in ["cx_idle_timeout", "rq_idle_timeout", "length_ms", "\"server.", "envoy_server"] {
            assert!(!text.contains(hidden), "{page} shows {hidden}");
        }
    }
    let warning = "stats_config.stats_matcher.exclusion_list.patterns[0] hides \
                   `cluster.origin.upstream_cx_idle_timeout`, `http.ingress.downstream_cx_idle_timeout`";
    assert!(proxy.log().contains(warning), "{}", proxy.log());
    let said = run(std::process::Command::new(binary::tidegate()).arg("validate").arg(proxy.config_file()));
    assert_eq!(said.code, Some(0));
    assert!(said.stderr.contains(&format!("warning: {warning}")), "{}", said.stderr);
    // The bootstrap is static.
    let mut changed = config.0.clone();
    changed["stats_config"] = json!({});
    std::fs::write(proxy.config_file(), changed.to_string()).unwrap();
    assert_eq!(proxy.admin.post("/reload").status, 200);
    assert!(proxy.log().contains("a change of `stats_config` takes effect at the next start"));
    assert!(!proxy.admin.get("/stats").text().contains("cx_idle_timeout"));
}

#[test]
fn tags_become_labels() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).bootstrap(json!({"stats_config": {"stats_tags": [
        {"tag_name": "my.dc", "fixed_value": "ams"},
        {"tag_name": "side", "regex": "((up|down)stream)_cx_total$"},
    ]}}));
    let proxy = Proxy::start(&config);
    let text = proxy.admin.get("/stats/prometheus").text();
    for line in [
        "envoy_cluster__cx_total{my_dc=\"ams\",side=\"up\",envoy_cluster_name=\"origin\"} 0",
        "envoy_http__cx_total{my_dc=\"ams\",side=\"down\",envoy_http_conn_manager_prefix=\"ingress\"} 0",
        "envoy_server_live{my_dc=\"ams\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in {text}");
    }
}
