//! `track_cluster_stats.per_endpoint_stats`: hosts' numbers among the statistics, as Envoy 1.40 prints them.

use integration_tests::{Config, Origin, Proxy, config};
use serde_json::{Value, json};

/// Two hosts, of which one has a name and says 503.
fn start(track: bool) -> (Proxy, [Origin; 2]) {
    let origins = [Origin::ok(), Origin::saying("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")];
    let addresses: Vec<_> = origins.iter().map(Origin::address).collect();
    let mut cluster = config::cluster("origin", &addresses);
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][1]["endpoint"]["hostname"] = json!("b.test");
    cluster["track_cluster_stats"] = json!({"per_endpoint_stats": track});
    (Proxy::start(&Config::with_clusters(&[cluster])), origins)
}

#[test]
fn each_host_has_its_numbers() {
    let (proxy, origins) = start(true);
    for _ in 0..4 {
        proxy.get("/");
    }
    let [first, second] = origins.each_ref().map(|origin| {
        let address = origin.address().to_string();
        format!("cluster.origin.endpoint.{}", address.replace(':', "_"))
    });
    let text = proxy.admin.get("/stats?usedonly&filter=endpoint").text();
    let lines: Vec<_> = text.lines().collect();
    let names = [
        "cx_connect_fail",
        "cx_total",
        "rq_error",
        "rq_success",
        "rq_timeout",
        "rq_total",
        "cx_active",
        "rq_active",
        "rq_pending_active",
        "healthy",
    ];
    let of = |host: &str, line: &str| line.starts_with(&format!("{host}."));
    for host in [&first, &second] {
        let own: Vec<_> = lines.iter().filter(|line| of(host, line)).collect();
        let own = own.iter().map(|line| line[host.len() + 1..].split(": ").next().unwrap());
        assert_eq!(own.collect::<Vec<_>>(), names);
    }
    let value = |host: &str, name: &str| proxy.stat(&format!("{host}.{name}"));
    assert_eq!((value(&first, "rq_success"), value(&first, "rq_error")), (2, 0));
    assert_eq!((value(&second, "rq_success"), value(&second, "rq_error")), (0, 2));
    assert_eq!((value(&second, "rq_total"), value(&second, "healthy")), (2, 1));

    // Hosts' numbers are not the store's to reset.
    proxy.admin.post("/reset_counters");
    assert_eq!(value(&first, "rq_total"), 2);
    let gauges = proxy.admin.get("/stats?type=Gauges&filter=endpoint").text();
    assert_eq!(gauges.lines().count(), 8);
}

#[test]
fn for_prometheus_a_host_is_a_label() {
    let (proxy, origins) = start(true);
    proxy.get("/");
    let text = proxy.admin.get("/stats/prometheus?filter=endpoint").text();
    let [a, b] = origins.each_ref().map(Origin::address);
    let expected = format!(
        "# TYPE envoy_cluster_endpoint_cx_connect_fail counter\n\
         envoy_cluster_endpoint_cx_connect_fail{{envoy_cluster_name=\"origin\",envoy_endpoint_address=\"{a}\"}} 0\n\
         envoy_cluster_endpoint_cx_connect_fail{{envoy_cluster_name=\"origin\",envoy_endpoint_address=\"{b}\",\
         envoy_endpoint_hostname=\"b.test\"}} 0\n"
    );
    assert!(text.starts_with(&expected), "{text}");
    assert!(text.contains("# TYPE envoy_cluster_endpoint_healthy gauge\n"), "{text}");
    let json: Value =
        serde_json::from_str(&proxy.admin.get("/stats?format=json&filter=endpoint").text()).unwrap();
    assert_eq!(json["stats"].as_array().unwrap().len(), 20);
}

#[test]
fn nobody_has_them_unasked() {
    let (proxy, _origins) = start(false);
    assert_eq!(proxy.admin.get("/stats?filter=endpoint").text(), "");
}
