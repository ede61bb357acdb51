//! `/stats`, `/stats/prometheus`, `/reset_counters`.

use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;

use regex::Regex;
use tidegate_cluster::lb::Health;
use tidegate_cluster::{ClusterShared, HostStat};
use tidegate_stats::render::{self, Buckets, Extra, ExtraKind, Filter, Types, UsedOnly};

use super::Reply;
use super::query::Query;
use crate::control::Control;
use crate::gauges;

enum Format {
    Text,
    Json,
    Prometheus,
}

/// `/stats[?usedonly&filter=REGEX&format=text|json|prometheus&type=...&histogram_buckets=...]`
pub(super) fn stats(control: &Rc<Control>, query: &Query) -> Reply {
    let format = match query.value("format").unwrap_or("text") {
        "text" | "" => Format::Text,
        "json" => Format::Json,
        "prometheus" => Format::Prometheus,
        _ => return Reply::bad("usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"),
    };
    print(control, query, &format)
}

/// `/stats/prometheus[?usedonly&filter=REGEX]`
pub(super) fn prometheus(control: &Rc<Control>, query: &Query) -> Reply {
    print(control, query, &Format::Prometheus)
}

fn print(control: &Rc<Control>, query: &Query, format: &Format) -> Reply {
    match query.value("hidden") {
        // No statistic is hidden.
        Some("only") => return empty(format),
        None | Some("" | "include" | "exclude") => {}
        Some(_) => return Reply::bad("usage: /stats?hidden=(include|only|exclude)\n\n"),
    }
    let types = match query.value("type").unwrap_or("All") {
        "All" => Types::All,
        "Counters" => Types::Counters,
        "Gauges" => Types::Gauges,
        "Histograms" => Types::Histograms,
        "TextReadouts" => Types::Texts,
        _ => return Reply::bad("invalid &type= param"),
    };
    let buckets = match buckets(query, format) {
        Ok(buckets) => buckets,
        Err(refused) => return Reply::bad(refused),
    };
    let regex = match query.value("filter").map(Regex::new).transpose() {
        Ok(regex) => regex,
        Err(error) => return Reply::bad(format!("Invalid re2 regex: {error}")),
    };
    let inverted = query.has("invert_filter");
    let matches = |name: &str| regex.as_ref().is_none_or(|regex| regex.is_match(name) != inverted);
    let filter = Filter {
        name: regex.is_some().then_some(&matches),
        used_only: if query.has("usedonly") { UsedOnly::Yes } else { UsedOnly::No },
        types,
        buckets,
        extras: &[],
    };
    gauges::update(control);
    let extras = endpoints(control);
    let filter = Filter { extras: &extras, ..filter };
    match format {
        Format::Text => Reply::text(render::text(&control.store, &filter)),
        Format::Json => Reply::raw_json(render::json(&control.store, &filter)),
        Format::Prometheus => Reply::text(render::prometheus(&control.store, &filter)),
    }
}

/// The hosts' numbers, of clusters with `per_endpoint_stats`.
fn endpoints(control: &Control) -> Vec<Extra> {
    let snapshot = control.snapshot();
    let tracked = |cluster: &&Arc<ClusterShared>| cluster.config().track_stats.per_endpoint;
    let mut clusters: Vec<_> = snapshot.clusters.iter().filter(tracked).collect();
    clusters.sort_by_key(|cluster| cluster.config().stat_name());
    let mut extras = Vec::new();
    for cluster in clusters {
        let cluster_name = cluster.config().stat_name();
        for host in &cluster.hosts().hosts {
            let address = host.address().to_string();
            let mut labels = format!(
                "envoy_cluster_name=\"{}\",envoy_endpoint_address=\"{}\"",
                escaped(cluster_name),
                escaped(&address)
            );
            let hostname = &host.attributes().hostname;
            if !hostname.is_empty() {
                let _ = write!(labels, ",envoy_endpoint_hostname=\"{}\"", escaped(hostname));
            }
            let prefix = format!("cluster.{cluster_name}.endpoint.{}", address.replace(':', "_"));
            let healthy = u64::from(host.health() == Health::Healthy);
            let numbers = NUMBERS.iter().map(|(name, metric, kind, stat)| {
                (*name, *metric, *kind, stat.map_or(healthy, |stat| host.stats.value(stat)))
            });
            extras.extend(numbers.map(|(name, metric, kind, value)| Extra {
                name: format!("{prefix}.{name}"),
                labels: labels.clone(),
                metric,
                kind,
                value,
            }));
        }
    }
    extras
}

/// A host's numbers in Envoy's order; `healthy` is none that is counted.
const NUMBERS: [(&str, &str, ExtraKind, Option<HostStat>); 10] = [
    (
        "cx_connect_fail",
        "cluster_endpoint_cx_connect_fail",
        ExtraKind::Counter,
        Some(HostStat::CxConnectFail),
    ),
    ("cx_total", "cluster_endpoint_cx_total", ExtraKind::Counter, Some(HostStat::CxTotal)),
    ("rq_error", "cluster_endpoint_rq_error", ExtraKind::Counter, Some(HostStat::RqError)),
    ("rq_success", "cluster_endpoint_rq_success", ExtraKind::Counter, Some(HostStat::RqSuccess)),
    ("rq_timeout", "cluster_endpoint_rq_timeout", ExtraKind::Counter, Some(HostStat::RqTimeout)),
    ("rq_total", "cluster_endpoint_rq_total", ExtraKind::Counter, Some(HostStat::RqTotal)),
    ("cx_active", "cluster_endpoint_cx_active", ExtraKind::Gauge, Some(HostStat::CxActive)),
    ("rq_active", "cluster_endpoint_rq_active", ExtraKind::Gauge, Some(HostStat::RqActive)),
    (
        "rq_pending_active",
        "cluster_endpoint_rq_pending_active",
        ExtraKind::Gauge,
        Some(HostStat::RqPendingActive),
    ),
    ("healthy", "cluster_endpoint_healthy", ExtraKind::Gauge, None),
];

/// A label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Prometheus knows no buckets but cumulative ones, and a summary; native ones need a format of their own.
fn buckets(query: &Query, format: &Format) -> Result<Buckets, &'static str> {
    let prometheus = matches!(format, Format::Prometheus);
    match query.value("histogram_buckets").unwrap_or_default() {
        "" | "none" => Ok(Buckets::Usual),
        "summary" => Ok(Buckets::Summary),
        "cumulative" => Ok(Buckets::Cumulative),
        "disjoint" | "detailed" if prometheus => Err("unsupported prometheus histogram bucket mode"),
        "disjoint" => Ok(Buckets::Disjoint),
        "detailed" => Ok(Buckets::Detailed),
        "prometheusnative" if prometheus => {
            Err("unsupported prometheusnative histogram type when not using protobuf exposition format")
        }
        "prometheusnative" => Err("Invalid histogram_buckets type for non prometheus stats type"),
        _ => Err("usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n"),
    }
}

fn empty(format: &Format) -> Reply {
    match format {
        Format::Json => Reply::raw_json("{\"stats\":[]}".to_owned()),
        Format::Text | Format::Prometheus => Reply::text(""),
    }
}

/// `/reset_counters`
pub(super) fn reset_counters(control: &Rc<Control>, _: &Query) -> Reply {
    control.store.reset_counters();
    Reply::ok()
}
