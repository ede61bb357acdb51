//! The admin server: methods, codes, content types, and that what claims to be JSON or Prometheus is.

use integration_tests::{Config, Origin, Proxy, Wire, wait};
use serde_json::json;

fn start() -> (Origin, Proxy) {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    assert_eq!(proxy.get("/").status, 200);
    (origin, proxy)
}

#[test]
fn every_page_has_envoys_headers() {
    let (_origin, proxy) = start();
    for (path, content_type) in [
        ("/", "text/html; charset=UTF-8"),
        ("/help", "text/plain; charset=UTF-8"),
        ("/ready", "text/plain; charset=UTF-8"),
        ("/stats", "text/plain; charset=UTF-8"),
        ("/stats?format=json", "application/json"),
        ("/stats/prometheus", "text/plain; charset=UTF-8"),
        ("/clusters", "text/plain; charset=UTF-8"),
        ("/clusters?format=json", "application/json"),
        ("/listeners", "text/plain; charset=UTF-8"),
        ("/listeners?format=json", "application/json"),
        ("/config_dump", "application/json"),
        ("/server_info", "application/json"),
        ("/memory", "application/json"),
    ] {
        let response = proxy.admin.get(path);
        assert_eq!((response.status, response.header("content-type")), (200, Some(content_type)), "{path}");
        assert_eq!(response.header("cache-control"), Some("no-cache, max-age=0"), "{path}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(response.header("transfer-encoding"), Some("chunked"), "{path}");
        assert!(!response.body.is_empty(), "{path}");
        if content_type == "application/json" {
            response.json();
        }
    }
}

#[test]
fn its_listener_counts_connections_while_they_live() {
    let (_origin, proxy) = start();
    let mut client = Wire::connect(proxy.admin.0);
    let mut active = move || {
        let page = "/stats?filter=^listener.admin.downstream_cx_active$";
        client.ask(&format!("GET {page} HTTP/1.1\r\nhost: admin\r\n\r\n")).text()
    };
    wait::until("the one that asks, alone", || active() == "listener.admin.downstream_cx_active: 1\n");
    let other = Wire::connect(proxy.admin.0);
    wait::until("two", || active() == "listener.admin.downstream_cx_active: 2\n");
    drop(other);
    wait::until("one again", || active() == "listener.admin.downstream_cx_active: 1\n");
}

#[test]
fn what_changes_something_wants_a_post() {
    let (_origin, proxy) = start();
    for path in
        ["/logging", "/reset_counters", "/drain_listeners", "/healthcheck/fail", "/quitquitquit", "/reload"]
    {
        let response = proxy.admin.get(path);
        assert_eq!(
            (response.status, response.text().as_str()),
            (405, "Method GET not allowed, POST required."),
            "{path}"
        );
    }
    // Envoy asks for nothing else than that: any method reads.
    assert_eq!(proxy.admin.ask("PUT", "/ready").status, 200);
    let unknown = proxy.admin.get("/nope");
    assert_eq!(unknown.status, 404);
    assert!(unknown.text().starts_with("invalid path. admin commands are:\n"), "{}", unknown.text());
}

#[test]
fn the_admin_connection_is_kept() {
    let (_origin, proxy) = start();
    let mut client = Wire::connect(proxy.admin.0);
    for _ in 0..5 {
        assert_eq!(client.ask("GET /ready HTTP/1.1\r\nhost: a\r\n\r\n").text(), "LIVE\n");
    }
}

#[test]
fn stats_can_be_filtered_and_are_sorted() {
    let (_origin, proxy) = start();
    let text = proxy.admin.get("/stats?filter=upstream_rq_2").text();
    let expected = "cluster.origin.external.upstream_rq_200: 1\ncluster.origin.external.upstream_rq_2xx: 1\n\
                    cluster.origin.upstream_rq_200: 1\ncluster.origin.upstream_rq_2xx: 1\n";
    assert_eq!(text, expected);
    let all = proxy.admin.get("/stats").text();
    let names: Vec<&str> = all
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(_, v)| v.parse::<u64>().is_ok())
        .map(|(n, _)| n)
        .collect();
    assert!(names.is_sorted(), "{all}");
    let used = proxy.admin.get("/stats?usedonly").text();
    assert!(used.lines().count() < all.lines().count());
    assert!(proxy.admin.get("/stats").text().contains("cluster.origin.upstream_cx_connect_ms: "));
    assert_eq!(proxy.admin.get("/stats?filter=(").status, 400);
    assert_eq!(proxy.admin.get("/stats?format=foo").status, 400);
}

#[test]
fn json_stats_say_the_same() {
    let (_origin, proxy) = start();
    let stats = proxy.admin.get("/stats?format=json&filter=upstream_rq_2xx").json();
    let list = stats["stats"].as_array().unwrap();
    let found =
        list.iter().any(|stat| stat["name"] == "cluster.origin.upstream_rq_2xx" && stat["value"] == 1);
    assert!(found, "{stats}");
}

#[test]
fn prometheus_lines_parse() {
    let (_origin, proxy) = start();
    let text = proxy.admin.get("/stats/prometheus").text();
    let name = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    let mut types = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (metric, kind) = rest.split_once(' ').unwrap();
            assert!(name(metric) && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(metric.to_owned()), "a second {line}");
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (metric, rest) = line.split_once('{').unwrap_or_else(|| panic!("no labels: {line}"));
        let (labels, value) = rest.rsplit_once("} ").unwrap_or_else(|| panic!("{line}"));
        assert!(name(metric) && value.parse::<f64>().is_ok(), "{line}");
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(metric);
        assert!(types.contains(metric) || types.contains(base), "no type: {line}");
        for label in labels.split("\",").filter(|label| !label.is_empty()) {
            let (key, text) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(name(key) && !text.trim_end_matches('"').contains('"'), "{line}");
        }
    }
    let expected = "envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"origin\"} 1";
    assert!(text.lines().any(|line| line == expected), "{text}");
}

#[test]
fn reset_counters_resets_counters_and_not_gauges() {
    let (_origin, proxy) = start();
    let _open = proxy.connect().ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = proxy.admin.post("/reset_counters");
    assert_eq!((answer.status, answer.text().as_str()), (200, "OK\n"));
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("cluster.origin.upstream_rq_total"), 0);
    assert_eq!(stats.get("cluster.origin.upstream_cx_active"), 1);
    assert_eq!(proxy.get("/").status, 200);
    proxy.admin.await_stat("cluster.origin.upstream_rq_total", 1);
}

#[test]
fn listeners_show_the_real_port() {
    let (_origin, proxy) = start();
    assert_ne!(proxy.address.port(), 0);
    assert_eq!(proxy.admin.get("/listeners").text(), format!("ingress::{}\n", proxy.address));
    let json = proxy.admin.get("/listeners?format=json").json();
    let address = &json["listener_statuses"][0]["local_address"]["socket_address"];
    assert_eq!(address["port_value"], proxy.address.port());
}

#[test]
fn clusters_show_their_hosts() {
    let (origin, proxy) = start();
    let text = proxy.admin.get("/clusters").text();
    let address = origin.address();
    for line in [
        "origin::default_priority::max_connections::1024".to_owned(),
        format!("origin::{address}::cx_active::1"),
        format!("origin::{address}::rq_total::1"),
        format!("origin::{address}::health_flags::healthy"),
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in {text}");
    }
    let json = proxy.admin.get("/clusters?format=json").json();
    assert_eq!(json["cluster_statuses"][0]["name"], "origin");
}

#[test]
fn config_dump_shows_what_was_loaded() {
    let (_origin, proxy) = start();
    let dump = proxy.admin.get("/config_dump").json();
    let types: Vec<&str> =
        dump["configs"].as_array().unwrap().iter().map(|part| part["@type"].as_str().unwrap()).collect();
    let expected = ["Bootstrap", "Clusters", "Listeners", "ScopedRoutes", "Routes", "Secrets"];
    let expected: Vec<String> =
        expected.iter().map(|name| format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump")).collect();
    assert_eq!(types, expected);
    assert_eq!(dump["configs"][0]["bootstrap"]["static_resources"]["clusters"][0]["name"], "origin");
    assert_eq!(proxy.admin.get("/config_dump?resource=foo").status, 404);
}

/// Texts, shapes and statuses are what Envoy 1.40 answers to the same requests.
#[test]
fn config_dump_shows_what_a_mask_leaves() {
    let (_origin, proxy) = start();
    let masked = proxy.admin.get("/config_dump?mask=bootstrap.admin").json();
    let parts = masked["configs"].as_array().unwrap();
    assert_eq!(parts.len(), 1, "{masked}");
    assert_eq!(parts[0]["bootstrap"].as_object().unwrap().len(), 1, "{masked}");
    let names = proxy.admin.get("/config_dump?resource=static_clusters&mask=cluster.name").json();
    let expected = json!({
        "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
        "cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "origin"},
    });
    assert_eq!(names["configs"], json!([expected]));
    assert_eq!(proxy.admin.get("/config_dump?resource=dynamic_listeners").json(), json!({}));
    for (page, refusal) in [
        ("?mask=nosuch", "FieldMask nosuch could not be successfully applied to any configs."),
        (
            "?resource=bootstrap",
            "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field",
        ),
    ] {
        let answer = proxy.admin.get(&format!("/config_dump{page}"));
        assert_eq!((answer.status, answer.text().as_str()), (400, refusal), "{page}");
        assert_eq!(answer.header("content-type"), Some("text/plain"), "{page}");
    }
}

#[test]
fn config_dump_shows_hosts_as_they_are_now() {
    let (_origin, proxy) = start();
    let dump = proxy.admin.get("/config_dump?include_eds").json();
    let hosts =
        dump["configs"].as_array().unwrap().iter().find_map(|part| part.get("static_endpoint_configs"));
    let assignment = &hosts.unwrap()[0]["endpoint_config"];
    assert_eq!(
        (&assignment["cluster_name"], &assignment["policy"]["overprovisioning_factor"]),
        (&json!("origin"), &json!(140))
    );
    let host = &assignment["endpoints"][0]["lb_endpoints"][0];
    assert_eq!((&host["health_status"], &host["load_balancing_weight"]), (&json!("HEALTHY"), &json!(1)));
    assert_eq!(host["endpoint"]["address"]["socket_address"]["address"], "127.0.0.1");
}

#[test]
fn histograms_are_shown_as_buckets() {
    let (_origin, proxy) = start();
    let page =
        |query: &str| proxy.admin.get(&format!("/stats{query}&filter=cluster.origin.upstream_cx_length"));
    assert_eq!(
        page("?histogram_buckets=cumulative").text(),
        "cluster.origin.upstream_cx_length_ms: No recorded values\n"
    );
    let json = page("?format=json&histogram_buckets=disjoint").json();
    assert_eq!(json["stats"][0]["histograms"][0]["buckets"][18]["upper_bound"], 3_600_000);
    let summary = page("?format=prometheus&histogram_buckets=summary").text();
    assert!(summary.starts_with("# TYPE envoy_cluster_upstream_cx_length_ms summary\n"), "{summary}");
    let empty = page("?format=prometheus").text();
    assert!(
        empty.contains("upstream_cx_length_ms_bucket{envoy_cluster_name=\"origin\",le=\"+Inf\"} 0\n"),
        "{empty}"
    );
    for (query, refusal) in [
        (
            "?histogram_buckets=all",
            "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n",
        ),
        ("?format=prometheus&histogram_buckets=detailed", "unsupported prometheus histogram bucket mode"),
        (
            "?histogram_buckets=prometheusnative",
            "Invalid histogram_buckets type for non prometheus stats type",
        ),
    ] {
        let answer = page(query);
        assert_eq!((answer.status, answer.text().as_str()), (400, refusal), "{query}");
    }
}

#[test]
fn server_info_says_who_serves() {
    let (_origin, proxy) = start();
    let info = proxy.admin.get("/server_info").json();
    assert_eq!(info["state"], "LIVE");
    assert!(info["version"].is_string() && info["command_line_options"].is_object(), "{info}");
}

#[test]
fn a_failed_health_check_announces_the_close() {
    let (_origin, proxy) = start();
    let mut client = proxy.connect();
    assert!(!client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").closes());
    assert_eq!(proxy.admin.post("/healthcheck/fail").status, 200);
    let ready = proxy.admin.get("/ready");
    assert_eq!((ready.status, ready.text().as_str()), (503, "DRAINING\n"));
    assert!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").closes());
    assert_eq!(proxy.admin.post("/healthcheck/ok").status, 200);
    assert_eq!(proxy.admin.get("/ready").text(), "LIVE\n");
    assert!(!proxy.get("/").closes());
}

#[test]
fn drain_listeners_refuses_new_connections_and_keeps_old_ones() {
    let (_origin, proxy) = start();
    let mut client = proxy.connect();
    client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(proxy.admin.post("/drain_listeners").status, 200);
    wait::until("the listener's end", || Wire::try_connect(proxy.address).is_err());
    assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
    assert_eq!(proxy.admin.get("/ready").text(), "LIVE\n");
}

#[test]
fn quitquitquit_ends_the_process() {
    let (_origin, mut proxy) = start();
    assert_eq!(proxy.admin.post("/quitquitquit").text(), "OK\n");
    assert_eq!(proxy.process.exit().code(), Some(0));
}

#[test]
fn logging_levels_can_be_changed() {
    let (_origin, proxy) = start();
    assert_eq!(proxy.admin.post("/logging").status, 200);
    assert_eq!(proxy.admin.post("/logging?level=debug").status, 200);
    assert!(proxy.admin.post("/logging").text().contains("debug"));
    assert_eq!(proxy.admin.post("/logging?level=nope").status, 400);
}
