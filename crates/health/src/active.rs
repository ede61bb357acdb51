//! Active health checks: each host is asked at intervals whether it works (Envoy docs, "Health checking").
//!
//! `session` is the machine of one host, without I/O; `plan` is what is asked, `probe` asks it; the `driver` is one
//! task on the main thread for all hosts of a cluster, with one timer and no task for a host. A cluster with several
//! checks has a driver for each, and their `ballot` decides. Start from [`attend`].

use std::rc::Rc;
use std::sync::Arc;

use tidegate_cluster::ClusterShared;
use tidegate_cluster::attend::{AttendContext, Attendant};
use tidegate_config::ClusterConfig;
use tidegate_stats::Scope;
use tidegate_types::json::Problem;

mod ballot;
mod bell;
mod driver;
mod event;
mod headers;
mod log;
mod plan;
mod probe;
mod schedule;
mod session;
mod stats;

#[cfg(test)]
mod tests;

use ballot::Ballot;
use driver::{Driver, Seat};
use plan::Plan;

/// Starts the checks that `cluster` asks for.
pub fn attend(cluster: &Arc<ClusterShared>, cx: AttendContext<'_>) -> Vec<Attendant> {
    let checks = &cluster.config().health_checks;
    if checks.is_empty() {
        return Vec::new();
    }
    let verify_percent = cx.runtime.integer("health_check.verify_cluster").unwrap_or(ALL);
    let scope = Scope::cluster(cluster.config().stat_name());
    let ballot = (checks.len() > 1).then(|| Rc::new(Ballot::new(checks.len(), cx.store, &scope)));
    let driver = |(number, config)| {
        let buffer_limit = cluster.config().per_connection_buffer_limit_bytes;
        // Others were refused.
        let plan = Plan::new(config, buffer_limit, verify_percent).ok()?;
        let seat = Seat { number, of: checks.len(), ballot: ballot.clone() };
        Some(Driver::new(cluster, config, plan, seat, cx))
    };
    // All of them hold the cluster before one of them runs.
    let drivers: Vec<_> = checks.iter().enumerate().filter_map(driver).collect();
    drivers.into_iter().map(|driver| Attendant::spawn(driver.run())).collect()
}

/// What is wrong with the checks of a cluster, beside what their message shows.
pub fn problem(cluster: &ClusterConfig) -> Option<Problem> {
    cluster.health_checks.iter().find_map(|config| {
        let wrong = Plan::new(config, cluster.per_connection_buffer_limit_bytes, ALL).err()?;
        Some(config.place.problem(wrong))
    })
}

/// Per cent.
const ALL: u64 = 100;
