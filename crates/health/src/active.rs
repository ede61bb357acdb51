//! Active health checks: each host is asked at intervals whether it works (Envoy docs, "Health checking").
//!
//! `session` is the machine of one host, without I/O; `plan` is what is asked, `probe` asks it; the `driver` is one
//! task on the main thread for all hosts of a cluster, with one timer and no task for a host. Start from
//! [`attend`].

use std::sync::Arc;

use tidegate_cluster::ClusterShared;
use tidegate_cluster::attend::{AttendContext, Attendant};
use tidegate_config::ClusterConfig;
use tidegate_types::json::Problem;

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

use driver::Driver;
use plan::Plan;

/// Starts the checks that `cluster` asks for.
pub fn attend(cluster: &Arc<ClusterShared>, cx: AttendContext<'_>) -> Vec<Attendant> {
    let Some(config) = &cluster.config().health_check else { return Vec::new() };
    let verify_percent = cx.runtime.integer("health_check.verify_cluster").unwrap_or(ALL);
    match Plan::new(config, cluster.config().per_connection_buffer_limit_bytes, verify_percent) {
        Ok(plan) => vec![Attendant::spawn(Driver::new(cluster, config, plan, cx).run())],
        // Such a configuration was refused.
        Err(_) => Vec::new(),
    }
}

/// What is wrong with the checks of a cluster, beside what their message shows.
pub fn problem(cluster: &ClusterConfig) -> Option<Problem> {
    let config = cluster.health_check.as_ref()?;
    let wrong = Plan::new(config, cluster.per_connection_buffer_limit_bytes, ALL).err()?;
    Some(config.place.problem(wrong))
}

/// Per cent.
const ALL: u64 = 100;
