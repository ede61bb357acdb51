//! Whether hosts work: active health checks, and outlier detection that judges by the requests themselves.
//!
//! Both are machines without I/O (`now` in, actions out) with thin drivers on the main thread, so that they cost the
//! workers nothing. They note what they find with [`tidegate_cluster::HostShared::set_failing`]; choosing hosts by it
//! is the cluster's matter. Start from [`attend`].

use std::sync::Arc;

use tidegate_cluster::ClusterShared;
use tidegate_cluster::attend::{AttendContext, Attendant};

pub mod active;
pub mod event_log;
pub mod outlier;

/// Starts what the configuration of `cluster` asks for. On the main thread, within a `LocalSet` or local runtime.
pub fn attend(cluster: &Arc<ClusterShared>, cx: AttendContext<'_>) -> Vec<Attendant> {
    let mut attendants = active::attend(cluster, cx);
    attendants.extend(outlier::attend(cluster, cx));
    attendants
}
