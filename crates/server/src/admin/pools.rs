//! `/pools`: what is in each worker's pools, and what their limits leave.

use std::collections::HashMap;
use std::fmt::{Display, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use serde_json::{Map, Value, json};
use tidegate_cluster::lb::Health;
use tidegate_cluster::limits::{Limit, Limits};
use tidegate_cluster::{ClusterShared, HostShared, IdleAge, PoolReport, Priority};

use super::Reply;
use super::query::Query;
use crate::control::Control;

/// What the workers said.
struct Told {
    /// By worker.
    pools: Vec<(usize, ByCluster)>,
    /// Who said nothing in time.
    missing: Vec<usize>,
}

type ByCluster = HashMap<Arc<str>, Vec<PoolReport>>;

/// `/pools[?format=text][&filter=REGEX]`
pub(super) async fn pools(control: Rc<Control>, query: Query) -> Reply {
    let filter = match query.value("filter").map(Regex::new).transpose() {
        Ok(filter) => filter,
        Err(error) => return Reply::bad(format!("Invalid re2 regex: {error}")),
    };
    let told = ask(&control).await;
    let snapshot = control.snapshot();
    let mut shown: Vec<_> = snapshot.clusters.iter().collect();
    shown.retain(|cluster| filter.as_ref().is_none_or(|filter| filter.is_match(cluster.name())));
    if query.value("format") == Some("text") {
        let mut text = String::new();
        shown.iter().for_each(|cluster| cluster_text(&mut text, cluster, &told));
        for worker in &told.missing {
            let _ = writeln!(text, "worker_{worker} did not answer");
        }
        return Reply::text(text);
    }
    let clusters: Vec<_> = shown.iter().map(|cluster| cluster_json(cluster, &told)).collect();
    let mut answer = json!({ "clusters": clusters });
    if let (false, Some(fields)) = (told.missing.is_empty(), answer.as_object_mut()) {
        fields.insert("missing_workers".to_owned(), told.missing.into());
    }
    Reply::json(&answer)
}

/// Workers answer between two tasks; nobody waits for them but this page.
async fn ask(control: &Control) -> Told {
    let asked: Vec<_> = control
        .workers
        .iter()
        .map(|mailbox| {
            let mailbox = mailbox.clone();
            tokio::task::spawn_local(async move {
                let answer = mailbox.ask(|worker| worker.pool_reports());
                (mailbox.worker(), tokio::time::timeout(PATIENCE, answer).await)
            })
        })
        .collect();
    let mut told = Told { pools: Vec::new(), missing: Vec::new() };
    for (worker, task) in asked.into_iter().enumerate() {
        match task.await {
            Ok((worker, Ok(Ok(pools)))) => told.pools.push((worker, pools)),
            _ => told.missing.push(worker),
        }
    }
    told
}

/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

impl Told {
    /// The pools of a host, with their workers.
    fn of<'a>(
        &'a self,
        cluster: &'a ClusterShared,
        host: &HostShared,
    ) -> impl Iterator<Item = (usize, &'a PoolReport)> + use<'a> {
        let address = host.address().to_string();
        self.pools.iter().flat_map(move |(worker, clusters)| {
            let address = address.clone();
            let pools = clusters.get(cluster.name()).into_iter().flatten();
            pools.filter(move |pool| pool.address == address).map(|pool| (*worker, pool))
        })
    }
}

fn health(host: &HostShared) -> &'static str {
    match host.health() {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Unhealthy => "unhealthy",
    }
}

/// Until outlier detection takes the host back at its next look; `None`: it is not ejected.
fn ejected_ms_left(host: &HostShared) -> Option<u64> {
    let until = host.record()?.history().until?;
    let left = until.saturating_duration_since(tokio::time::Instant::now());
    Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
}

/// What was learned of how long the host lets connections idle.
fn learned_idle_ms(host: &HostShared) -> Option<u64> {
    let learned = host.idle_limit().learned()?;
    Some(u64::try_from(learned.as_millis()).unwrap_or(u64::MAX))
}

/// A limit as it is now.
#[derive(Clone, Copy)]
struct Shown {
    max: u64,
    remaining: u64,
}

/// The limits of a priority, with their names; `None`: there is no such limit.
fn limits(cluster: &ClusterShared, priority: Priority) -> [(&'static str, Option<Shown>); 6] {
    let maxima = cluster.maxima(priority);
    let in_use = cluster.limits_in_use(priority);
    let shown = |of: fn(&Limits) -> &Limit, max: u64| match in_use.map(|limits| of(limits)) {
        Some(limit) => Shown { max: limit.max(), remaining: limit.max().saturating_sub(limit.used()) },
        None => Shown { max, remaining: max },
    };
    let bounded = |shown: &Shown| shown.max < u64::MAX;
    // A budget is a share of what is going on, and no number.
    let counts_retries = maxima.retry_budget.is_none();
    [
        ("max_connections", Some(shown(|limits| &limits.connections, maxima.connections))),
        ("max_pending_requests", Some(shown(|limits| &limits.pending, maxima.pending))),
        ("max_requests", Some(shown(|limits| &limits.requests, maxima.requests))),
        ("max_retries", counts_retries.then(|| shown(|limits| &limits.retries, maxima.retries))),
        ("max_connection_pools", Some(shown(|limits| &limits.pools, maxima.pools)).filter(bounded)),
        ("max_connecting", Some(shown(|limits| &limits.connecting, maxima.connecting)).filter(bounded)),
    ]
}

fn cluster_json(cluster: &ClusterShared, told: &Told) -> Value {
    let limits = |priority| {
        let limits = limits(cluster, priority);
        let object = |value: fn(Shown) -> u64| -> Map<String, Value> {
            limits.iter().map(|(name, limit)| ((*name).to_owned(), limit.map(value).into())).collect()
        };
        let mut shown = object(|shown| shown.max);
        shown.insert("remaining".to_owned(), object(|shown| shown.remaining).into());
        Value::Object(shown)
    };
    let hosts: Vec<_> = cluster
        .hosts()
        .hosts
        .iter()
        .map(|host| {
            let pools: Vec<_> =
                told.of(cluster, host).map(|(worker, pool)| pool_json(worker, pool)).collect();
            json!({
                "address": host.address().to_string(),
                "health": health(host),
                "ejected_ms_left": ejected_ms_left(host),
                // Both outlive pools, which go with their last connection.
                "learned_idle_ms": learned_idle_ms(host),
                "last_close_reasons": host.stats.last_closes().names(),
                "pools": pools,
            })
        })
        .collect();
    json!({
        "name": &**cluster.name(),
        "limits": { "default": limits(Priority::Default), "high": limits(Priority::High) },
        "hosts": hosts,
    })
}

fn pool_json(worker: usize, pool: &PoolReport) -> Value {
    let age = |of: fn(IdleAge) -> u64| pool.idle_age.map(of);
    let mut shown = json!({
        "worker": worker,
        "protocol": pool.protocol,
        "connecting": pool.connecting,
        "ready": pool.ready,
        "busy": pool.busy,
        "draining": pool.draining,
        "streams": pool.streams,
        "pending": pool.pending,
        "idle_age_ms": { "p50": age(|age| age.p50), "p90": age(|age| age.p90), "max": age(|age| age.max) },
        "learned_idle_ms": pool.learned_idle_ms,
        "last_close_reasons": pool.last_close_reasons,
    });
    // Only of pools that know of HTTP/3.
    if pool.protocol == "http3" || pool.h3_broken_until_ms.is_some() {
        shown["h3_broken_until_ms"] = pool.h3_broken_until_ms.into();
    }
    shown
}

/// A value a line, as `/clusters` has it; what there is not has no line.
fn cluster_text(text: &mut String, cluster: &ClusterShared, told: &Told) {
    let name = cluster.name();
    let mut line = |key: &str, value: &dyn Display| {
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "{name}::{key}::{value}");
    };
    for (label, priority) in [("default_priority", Priority::Default), ("high_priority", Priority::High)] {
        for (limit, found) in limits(cluster, priority) {
            if let Some(found) = found {
                line(&format!("{label}::{limit}"), &found.max);
                line(&format!("{label}::remaining::{limit}"), &found.remaining);
            }
        }
    }
    for host in &cluster.hosts().hosts {
        let address = host.address();
        line(&format!("{address}::health"), &health(host));
        if let Some(left) = ejected_ms_left(host) {
            line(&format!("{address}::ejected_ms_left"), &left);
        }
        if let Some(learned) = learned_idle_ms(host) {
            line(&format!("{address}::learned_idle_ms"), &learned);
        }
        let closes = host.stats.last_closes().names();
        if !closes.is_empty() {
            line(&format!("{address}::last_close_reasons"), &closes.join(","));
        }
        for (worker, pool) in told.of(cluster, host) {
            pool_text(pool, |key, value| {
                line(&format!("{address}::worker_{worker}::{}::{key}", pool.protocol), value);
            });
        }
    }
}

fn pool_text(pool: &PoolReport, mut line: impl FnMut(&str, &dyn Display)) {
    for (key, count) in [
        ("connecting", pool.connecting),
        ("ready", pool.ready),
        ("busy", pool.busy),
        ("draining", pool.draining),
        ("streams", pool.streams),
        ("pending", pool.pending),
    ] {
        line(key, &count);
    }
    if let Some(IdleAge { p50, p90, max }) = pool.idle_age {
        line("idle_age_ms", &format!("p50={p50} p90={p90} max={max}"));
    }
    if let Some(learned) = pool.learned_idle_ms {
        line("learned_idle_ms", &learned);
    }
    if let Some(until) = pool.h3_broken_until_ms {
        line("h3_broken_until_ms", &until);
    }
    if !pool.last_close_reasons.is_empty() {
        line("last_close_reasons", &pool.last_close_reasons.join(","));
    }
}
