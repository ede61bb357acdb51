//! `/clusters`.

use std::fmt::Write;
use std::rc::Rc;

use regex::Regex;
use serde_json::{Value, json};
use tidegate_cluster::judged::{NO_RATE, Record};
use tidegate_cluster::{ClusterShared, Failing, HostShared, HostStat, Mark, Priority};

use super::Reply;
use super::listeners::address_json;
use super::query::Query;
use crate::control::Control;

/// `/clusters[?format=json][&filter=REGEX]`
pub(super) fn clusters(control: &Rc<Control>, query: &Query) -> Reply {
    let filter = match query.value("filter").map(Regex::new).transpose() {
        Ok(filter) => filter,
        Err(error) => return Reply::bad(format!("Invalid re2 regex: {error}")),
    };
    let snapshot = control.snapshot();
    let mut shown: Vec<_> = snapshot.clusters.iter().collect();
    shown.retain(|cluster| filter.as_ref().is_none_or(|filter| filter.is_match(cluster.name())));
    if query.value("format") == Some("json") {
        let statuses: Vec<_> =
            shown.iter().map(|cluster| cluster_json(cluster, snapshot.is_discovered(cluster))).collect();
        let mut answer = serde_json::Map::new();
        if !statuses.is_empty() {
            answer.insert("cluster_statuses".to_owned(), statuses.into());
        }
        return Reply::json(&Value::Object(answer));
    }
    let mut text = String::new();
    for cluster in shown {
        cluster_text(&mut text, cluster, snapshot.is_discovered(cluster));
    }
    Reply::text(text)
}

fn cluster_text(text: &mut String, cluster: &ClusterShared, discovered: bool) {
    let name = cluster.name();
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "{name}::{key}::{value}");
    };
    line("observability_name", &cluster.config().stat_name());
    if let Some(watch) = cluster.watch() {
        for (name, average) in ["", "local_origin_"].into_iter().zip(watch.averages()) {
            let (mean, threshold) = average.unwrap_or((NO_RATE, NO_RATE));
            line(&format!("outlier::{name}success_rate_average"), &general(mean));
            line(&format!("outlier::{name}success_rate_ejection_threshold"), &general(threshold));
        }
    }
    for (label, priority) in [("default_priority", Priority::Default), ("high_priority", Priority::High)] {
        let maxima = cluster.maxima(priority);
        for (limit, max) in [
            ("max_connections", maxima.connections),
            ("max_pending_requests", maxima.pending),
            ("max_requests", maxima.requests),
            ("max_retries", maxima.retries),
        ] {
            line(&format!("{label}::{limit}"), &max);
        }
    }
    line("added_via_api", &discovered);
    if let Some(service) = cluster.config().eds.as_ref().and_then(|eds| eds.service_name.as_ref()) {
        line("eds_service_name", service);
    }
    for host in &cluster.hosts().hosts {
        let address = host.address();
        for (key, value) in host_lines(host) {
            line(&format!("{address}::{key}"), &value);
        }
    }
}

fn host_lines(host: &HostShared) -> Vec<(&'static str, String)> {
    let attributes = host.attributes();
    let [success_rate, local_origin] = host.record().map_or([NO_RATE; 2], Record::rates);
    let mut lines: Vec<_> =
        TEXT_ORDER.iter().map(|(name, stat)| (*name, host.stats.value(*stat).to_string())).collect();
    lines.extend([
        ("hostname", attributes.hostname.clone()),
        ("health_flags", host.health_flags().into_owned()),
        ("weight", attributes.weight.to_string()),
        ("region", attributes.locality.region.clone()),
        ("zone", attributes.locality.zone.clone()),
        ("sub_zone", attributes.locality.sub_zone.clone()),
        ("canary", attributes.canary.to_string()),
        ("priority", attributes.priority.to_string()),
        ("success_rate", success_rate.to_string()),
        ("local_origin_success_rate", local_origin.to_string()),
    ]);
    lines
}

/// Six significant digits, as C's `%g`.
fn general(value: f64) -> String {
    let whole = value.abs().log10().floor().max(0.0) as usize;
    let text = format!("{value:.*}", 5_usize.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn cluster_json(cluster: &ClusterShared, discovered: bool) -> Value {
    let thresholds = [Priority::Default, Priority::High].map(|priority| {
        let maxima = cluster.maxima(priority);
        let mut threshold = json!({
            "max_connections": maxima.connections,
            "max_pending_requests": maxima.pending,
            "max_requests": maxima.requests,
            "max_retries": maxima.retries,
        });
        if let (Priority::High, Some(fields)) = (priority, threshold.as_object_mut()) {
            fields.insert("priority".to_owned(), "HIGH".into());
        }
        threshold
    });
    let hosts: Vec<_> = cluster.hosts().hosts.iter().map(|host| host_json(host)).collect();
    let mut status = json!({
        "name": &**cluster.name(),
        "observability_name": cluster.config().stat_name(),
        "circuit_breakers": {"thresholds": thresholds},
        "host_statuses": hosts,
    });
    let averages = cluster.watch().map(|watch| watch.averages()).unwrap_or_default();
    if let Some(fields) = status.as_object_mut() {
        for (name, average) in ["", "local_origin_"].into_iter().zip(averages) {
            // Envoy shows no threshold that nobody can be below.
            if let Some((_, threshold)) = average.filter(|(_, threshold)| *threshold > 0.0) {
                fields.insert(format!("{name}success_rate_ejection_threshold"), json!({"value": threshold}));
            }
        }
    }
    if discovered {
        status["added_via_api"] = true.into();
    }
    if let Some(service) = cluster.config().eds.as_ref().and_then(|eds| eds.service_name.as_ref()) {
        status["eds_service_name"] = service.as_str().into();
    }
    status
}

/// As protobuf's JSON form prints it: zeros are left out, 64-bit numbers are strings, `COUNTER` is the
/// default type.
fn host_json(host: &HostShared) -> Value {
    let attributes = host.attributes();
    let stats = JSON_ORDER.iter().map(|(name, stat, kind)| {
        let mut entry = serde_json::Map::new();
        if *kind == Kind::Gauge {
            entry.insert("type".to_owned(), "GAUGE".into());
        }
        let value = host.stats.value(*stat);
        if value > 0 {
            entry.insert("value".to_owned(), value.to_string().into());
        }
        entry.insert("name".to_owned(), (*name).into());
        Value::Object(entry)
    });
    let mut locality = serde_json::Map::new();
    for (key, value) in [
        ("region", &attributes.locality.region),
        ("zone", &attributes.locality.zone),
        ("sub_zone", &attributes.locality.sub_zone),
    ] {
        if !value.is_empty() {
            locality.insert(key.to_owned(), value.as_str().into());
        }
    }
    let mut status = json!({
        "address": address_json(&host.address()),
        "stats": stats.collect::<Vec<_>>(),
        "health_status": health_json(host),
        "weight": attributes.weight,
        "locality": locality,
    });
    if let Some(fields) = status.as_object_mut() {
        if !attributes.hostname.is_empty() {
            fields.insert("hostname".to_owned(), attributes.hostname.as_str().into());
        }
        if attributes.priority > 0 {
            fields.insert("priority".to_owned(), attributes.priority.into());
        }
        let rates = host.record().map_or([NO_RATE; 2], Record::rates);
        for (name, rate) in ["success_rate", "local_origin_success_rate"].into_iter().zip(rates) {
            if rate >= 0.0 {
                fields.insert(name.to_owned(), json!({"value": rate}));
            }
        }
    }
    status
}

fn health_json(host: &HostShared) -> Value {
    let mut health = serde_json::Map::new();
    for (name, by) in [
        ("failed_active_health_check", Failing::ActiveCheck),
        ("failed_outlier_check", Failing::Outlier),
        ("failed_degraded_outlier_detection", Failing::OutlierDegraded),
    ] {
        if host.is_failing(by) {
            health.insert(name.to_owned(), true.into());
        }
    }
    for (name, set) in [
        ("failed_active_degraded_check", host.checks.has(Mark::Degraded)),
        ("pending_dynamic_removal", host.is_removing()),
        ("pending_active_hc", host.checks.has(Mark::Pending)),
        ("excluded_via_immediate_hc_fail", host.checks.has(Mark::Excluded)),
        ("active_hc_timeout", host.checks.has(Mark::TimedOut)),
    ] {
        if set {
            health.insert(name.to_owned(), true.into());
        }
    }
    health.insert("eds_health_status".to_owned(), eds_health(host).into());
    Value::Object(health)
}

fn eds_health(host: &HostShared) -> &'static str {
    use tidegate_config::cluster::HealthStatus;
    match host.health_status() {
        HealthStatus::Unknown | HealthStatus::Healthy => "HEALTHY",
        HealthStatus::Degraded => "DEGRADED",
        HealthStatus::Draining => "DRAINING",
        HealthStatus::Unhealthy | HealthStatus::Timeout => "UNHEALTHY",
    }
}

#[derive(PartialEq)]
enum Kind {
    Counter,
    Gauge,
}

/// Sorted by name, as Envoy's text.
const TEXT_ORDER: [(&str, HostStat); 9] = [
    ("cx_active", HostStat::CxActive),
    ("cx_connect_fail", HostStat::CxConnectFail),
    ("cx_total", HostStat::CxTotal),
    ("rq_active", HostStat::RqActive),
    ("rq_error", HostStat::RqError),
    ("rq_pending_active", HostStat::RqPendingActive),
    ("rq_success", HostStat::RqSuccess),
    ("rq_timeout", HostStat::RqTimeout),
    ("rq_total", HostStat::RqTotal),
];

/// Counters, then gauges, as Envoy's JSON.
const JSON_ORDER: [(&str, HostStat, Kind); 9] = [
    ("cx_connect_fail", HostStat::CxConnectFail, Kind::Counter),
    ("cx_total", HostStat::CxTotal, Kind::Counter),
    ("rq_error", HostStat::RqError, Kind::Counter),
    ("rq_success", HostStat::RqSuccess, Kind::Counter),
    ("rq_timeout", HostStat::RqTimeout, Kind::Counter),
    ("rq_total", HostStat::RqTotal, Kind::Counter),
    ("cx_active", HostStat::CxActive, Kind::Gauge),
    ("rq_active", HostStat::RqActive, Kind::Gauge),
    ("rq_pending_active", HostStat::RqPendingActive, Kind::Gauge),
];
