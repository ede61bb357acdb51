//! Outlier detection: who is ejected, what becomes of connections, and who returns. The counts and lines are those that
//! Envoy 1.40 gives for the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};

use integration_tests::config::cluster;
use integration_tests::proxy::await_lines;
use integration_tests::{Config, Nobody, Origin, Proxy, Request, wait};
use serde_json::{Value, json};

/// Answers with a status that can be changed.
fn moody(status: u16) -> (Origin, Arc<AtomicU16>) {
    let mood = Arc::new(AtomicU16::new(status));
    let says = mood.clone();
    let answer = move |_: &Request| format!("HTTP/1.1 {} X\r\ncontent-length: 0\r\n\r\n", says.load(SeqCst));
    (Origin::answering(answer), mood)
}

/// Hosts as they are given, with `outlier_detection`.
fn config(hosts: &[std::net::SocketAddr], outlier: Value) -> Config {
    let mut cluster = cluster("origin", hosts);
    cluster["outlier_detection"] = outlier;
    Config::with_clusters(&[cluster])
}

fn statuses(proxy: &Proxy, requests: usize) -> Vec<u16> {
    (0..requests).map(|_| proxy.get("/").status).collect()
}

fn await_stat(proxy: &Proxy, name: &str, value: u64) {
    proxy.admin.await_stat(&format!("cluster.origin.outlier_detection.{name}"), value);
}

fn health(proxy: &Proxy, host: &Origin) -> String {
    let page = proxy.admin.get("/clusters").text();
    let key = format!("origin::{}::health_flags::", host.address());
    page.lines().find_map(|line| line.strip_prefix(&key)).unwrap().to_owned()
}

#[test]
fn five_errors_in_a_row_eject_a_host_which_returns_afresh() {
    let (bad, mood) = moody(500);
    let good = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("events");
    let outlier = json!({"max_ejection_percent": 50, "interval": "0.1s", "base_ejection_time": "0.5s"});
    let config = config(&[bad.address(), good.address()], outlier)
        .bootstrap(json!({"cluster_manager": {"outlier_detection": {"event_log_path": log}}}));
    let proxy = Proxy::start(&config);
    let answers = statuses(&proxy, 10);
    assert_eq!(answers.iter().filter(|status| **status == 500).count(), 5);
    await_stat(&proxy, "ejections_active", 1);
    assert_eq!(health(&proxy, &bad), "/failed_outlier_check");
    let pools = proxy.admin.get("/pools").json();
    let left = &pools["clusters"][0]["hosts"][0]["ejected_ms_left"];
    assert!(left.as_u64().unwrap() <= 500, "{left}");
    wait::until("connections closed", || bad.open_connections() == 0);
    assert!(statuses(&proxy, 6).iter().all(|status| *status == 200));
    mood.store(204, SeqCst);
    await_stat(&proxy, "ejections_active", 0);
    assert_eq!(health(&proxy, &bad), "healthy");
    let connections = bad.connections();
    wait::until("a request to the host that is back", || proxy.get("/").status == 204);
    assert!(bad.connections() > connections);
    for (name, count) in [
        ("ejections_enforced_total", 1),
        ("ejections_detected_consecutive_5xx", 1),
        ("ejections_enforced_consecutive_5xx", 1),
        ("ejections_consecutive_5xx", 1),
        ("ejections_total", 1),
        ("ejections_overflow", 0),
    ] {
        await_stat(&proxy, name, count);
    }
    let events: Vec<Value> =
        await_lines(&log, 2).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for event in &events {
        assert_eq!(event["type"], "CONSECUTIVE_5XX");
        assert_eq!(event["cluster_name"], "origin");
        assert_eq!(event["upstream_url"], bad.address().to_string());
        assert_eq!(event["num_ejections"], 1);
    }
    assert_eq!((&events[0]["action"], &events[0]["enforced"]), (&json!("EJECT"), &json!(true)));
    assert_eq!(events[0]["eject_consecutive_event"], json!({}));
    assert_eq!((&events[1]["action"], &events[1]["enforced"]), (&json!("UNEJECT"), &json!(false)));
    assert_eq!(events[1]["secs_since_last_action"], "0");
}

#[test]
fn a_small_cluster_ejects_nobody_unless_told() {
    let (bad, _) = moody(500);
    let good = Origin::ok();
    let hosts = [bad.address(), good.address()];
    let proxy = Proxy::start(&config(&hosts, json!({})));
    statuses(&proxy, 12);
    await_stat(&proxy, "ejections_overflow", 1);
    assert_eq!(health(&proxy, &bad), "healthy");
    let proxy = Proxy::start(&config(&hosts, json!({"always_eject_one_host": true})));
    statuses(&proxy, 12);
    await_stat(&proxy, "ejections_active", 1);
}

#[test]
fn gateway_failures_are_only_detected_unless_enforced() {
    let (bad, _) = moody(503);
    let good = Origin::ok();
    let outlier = json!({
        "max_ejection_percent": 50, "enforcing_consecutive_5xx": 0, "consecutive_5xx": 3,
        "consecutive_gateway_failure": 4,
    });
    let hosts = [bad.address(), good.address()];
    let proxy = Proxy::start(&config(&hosts, outlier.clone()));
    statuses(&proxy, 10);
    await_stat(&proxy, "ejections_detected_consecutive_gateway_failure", 1);
    await_stat(&proxy, "ejections_enforced_total", 0);
    let mut enforced = outlier;
    enforced["enforcing_consecutive_gateway_failure"] = json!(100);
    let proxy = Proxy::start(&config(&hosts, enforced));
    statuses(&proxy, 10);
    await_stat(&proxy, "ejections_enforced_consecutive_gateway_failure", 1);
}

#[test]
fn failures_of_our_own_side_are_counted_apart_when_split() {
    let nobody = Nobody::new();
    let (bad, _) = moody(503);
    let good = Origin::ok();
    let hosts = [bad.address(), good.address(), nobody.address()];
    let outlier = json!({"max_ejection_percent": 100, "split_external_local_origin_errors": true});
    let proxy = Proxy::start(&config(&hosts, outlier));
    statuses(&proxy, 24);
    await_stat(&proxy, "ejections_active", 2);
    await_stat(&proxy, "ejections_enforced_consecutive_local_origin_failure", 1);
    await_stat(&proxy, "ejections_enforced_consecutive_5xx", 1);
    let proxy = Proxy::start(&config(&hosts[1..], json!({"max_ejection_percent": 100})));
    let answers = statuses(&proxy, 16);
    assert_eq!(answers.iter().filter(|status| **status == 503).count(), 5);
    await_stat(&proxy, "ejections_enforced_consecutive_5xx", 1);
    await_stat(&proxy, "ejections_detected_consecutive_gateway_failure", 1);
}

#[test]
fn rates_are_judged_after_each_interval() {
    let (bad, _) = moody(500);
    let others: Vec<_> = (0..4).map(|_| Origin::ok()).collect();
    let hosts: Vec<_> = [&bad].into_iter().chain(&others).map(Origin::address).collect();
    let base = json!({
        "max_ejection_percent": 50, "interval": "1s", "base_ejection_time": "60s", "consecutive_5xx": 100_000,
        "success_rate_request_volume": 4, "failure_percentage_request_volume": 4,
        "success_rate_stdev_factor": 1000,
    });
    let run = |change: Value, counted: &str| {
        let mut outlier = base.clone();
        integration_tests::config::merge(&mut outlier, change);
        let proxy = Proxy::start(&config(&hosts, outlier));
        let full = format!("cluster.origin.outlier_detection.{counted}");
        wait::until(counted, || {
            statuses(&proxy, 40);
            proxy.admin.stat(&full) == 1
        });
        assert_eq!(health(&proxy, &bad), "/failed_outlier_check");
        await_stat(&proxy, "ejections_active", 1);
    };
    run(json!({}), "ejections_enforced_success_rate");
    let percentage = json!({"enforcing_success_rate": 0, "enforcing_failure_percentage": 100});
    run(percentage, "ejections_enforced_failure_percentage");
}

#[test]
fn when_all_are_ejected_all_are_used() {
    let (bad, _) = moody(500);
    let proxy = Proxy::start(&config(&[bad.address()], json!({"max_ejection_percent": 100})));
    statuses(&proxy, 5);
    await_stat(&proxy, "ejections_active", 1);
    assert_eq!(statuses(&proxy, 3), [500, 500, 500]);
    assert!(proxy.stat("cluster.origin.lb_healthy_panic") > 0);
}

#[test]
fn a_reload_keeps_ejections() {
    let (bad, _) = moody(500);
    let good = Origin::ok();
    let hosts = [bad.address(), good.address()];
    let outlier = json!({"max_ejection_percent": 50, "base_ejection_time": "60s"});
    let proxy = Proxy::start(&config(&hosts, outlier.clone()));
    statuses(&proxy, 10);
    await_stat(&proxy, "ejections_active", 1);
    let changed = config(&hosts, outlier).cluster(json!({"connect_timeout": "3s"}));
    std::fs::write(proxy.config_file(), changed.0.to_string()).unwrap();
    assert_eq!(proxy.admin.post("/reload").status, 200);
    assert_eq!(health(&proxy, &bad), "/failed_outlier_check");
    assert!(statuses(&proxy, 6).iter().all(|status| *status == 200));
    await_stat(&proxy, "ejections_active", 1);
}

/// Checked every 0.1 s on `/hc`, which `checks` answers.
fn checked(config: Config) -> Config {
    config.cluster(json!({
        "common_lb_config": {"healthy_panic_threshold": {}},
        "health_checks": [{
            "timeout": "1s",
            "interval": "0.1s",
            "no_traffic_interval": "0.1s",
            "unhealthy_threshold": 2,
            "healthy_threshold": 2,
            "http_health_check": {"path": "/hc"},
        }],
    }))
}

/// A host whose answers to requests and to checks can be changed apart.
fn checked_host() -> (Origin, Arc<AtomicU16>, Arc<AtomicU16>) {
    let (mood, check) = (Arc::new(AtomicU16::new(500)), Arc::new(AtomicU16::new(200)));
    let (says, passes) = (mood.clone(), check.clone());
    let answer = move |request: &Request| {
        let status = if request.path() == "/hc" { &passes } else { &says };
        format!("HTTP/1.1 {} X\r\ncontent-length: 0\r\n\r\n", status.load(SeqCst))
    };
    (Origin::answering(answer), mood, check)
}

#[test]
fn a_passed_check_takes_a_host_back_before_its_time() {
    let (bad, mood, _) = checked_host();
    let good = Origin::ok();
    let outlier = json!({"interval": "0.1s", "base_ejection_time": "100s", "consecutive_5xx": 3, "max_ejection_percent": 100});
    let proxy = Proxy::start(&checked(config(&[bad.address(), good.address()], outlier)));
    proxy.admin.await_stat("cluster.origin.membership_healthy", 2);
    wait::until("it is ejected", || {
        proxy.get("/");
        proxy.stat("cluster.origin.outlier_detection.ejections_enforced_total") > 0
    });
    mood.store(200, SeqCst);
    await_stat(&proxy, "ejections_active", 0);
    assert_eq!(health(&proxy, &bad), "healthy");
}

/// The flags are Envoy's for the same.
#[test]
fn checks_and_ejections_do_not_answer_for_each_other() {
    let (bad, mood, check) = checked_host();
    let (good, other) = (Origin::ok(), Origin::ok());
    let outlier = json!({
        "interval": "0.1s",
        "base_ejection_time": "100s",
        "consecutive_5xx": 3,
        "max_ejection_percent": 100,
        "successful_active_health_check_uneject_host": false,
    });
    let hosts = [bad.address(), good.address(), other.address()];
    let proxy = Proxy::start(&checked(config(&hosts, outlier)));
    proxy.admin.await_stat("cluster.origin.membership_healthy", 3);
    statuses(&proxy, 9);
    await_stat(&proxy, "ejections_active", 1);
    let passed = proxy.stat("cluster.origin.health_check.success");
    wait::until("more checks pass", || proxy.stat("cluster.origin.health_check.success") > passed + 6);
    assert_eq!(health(&proxy, &bad), "/failed_outlier_check");
    check.store(500, SeqCst);
    proxy.admin.await_stat("cluster.origin.health_check.healthy", 2);
    assert_eq!(health(&proxy, &bad), "/failed_active_hc/failed_outlier_check");
    assert_eq!(proxy.stat("cluster.origin.membership_healthy"), 2);
    check.store(200, SeqCst);
    mood.store(200, SeqCst);
    proxy.admin.await_stat("cluster.origin.health_check.healthy", 3);
    assert_eq!(health(&proxy, &bad), "/failed_outlier_check");
    let before = bad.requests().iter().filter(|request| request.path() == "/").count();
    assert!(statuses(&proxy, 9).iter().all(|status| *status == 200));
    assert_eq!(bad.requests().iter().filter(|request| request.path() == "/").count(), before);
}
