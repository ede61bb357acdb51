//! What a reload has to do, as plain data: a pure function of the old and the new configuration.

use std::sync::Arc;

use tidegate_cluster::ClusterShared;
use tidegate_config::ListenerConfig;

use crate::snapshot::Snapshot;

/// What happens to one listener of the new configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing changed.
    Keep,
    /// The socket stays; what is behind it is swapped.
    Update,
    /// New sockets. `Replaces` drains the old listener of that name once the new one accepts.
    Open(Opening, Address),
}

/// Why sockets are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The name is new.
    Added,
    /// A listener of that name has another address or other socket options.
    Replaces,
}

/// Whether a listener of the old configuration holds the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address {
    /// Nobody of ours does: somebody else there is an error.
    Free,
    /// One does, and leaves it.
    TakenOver,
}

/// Where a socket is: TCP and UDP have the same addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: tidegate_types::Address,
    pub(crate) udp: bool,
}

/// A reload's listeners.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ListenerPlan {
    /// A step for each listener of the new configuration, in its order.
    pub(crate) steps: Vec<Step>,
    /// Names that are no longer there.
    pub(crate) removed: Vec<String>,
}

impl ListenerPlan {
    /// Compares two configurations; `held` are the places of the old one's sockets, port 0 replaced.
    pub(crate) fn new(old: &[Arc<ListenerConfig>], new: &[Arc<ListenerConfig>], held: &[Place]) -> Self {
        let steps = new.iter().map(|listener| step(old, listener, held)).collect();
        let gone = |o: &&Arc<ListenerConfig>| !new.iter().any(|n| n.name == o.name);
        Self { steps, removed: old.iter().filter(gone).map(|o| o.name.clone()).collect() }
    }

    /// Listeners that get new sockets.
    pub(crate) fn opened(&self) -> u64 {
        self.count(|step| matches!(step, Step::Open(..)))
    }

    /// Listeners with `wanted`.
    pub(crate) fn count(&self, wanted: impl Fn(&Step) -> bool) -> u64 {
        self.steps.iter().filter(|step| wanted(step)).count() as u64
    }
}

fn step(old: &[Arc<ListenerConfig>], new: &ListenerConfig, held: &[Place]) -> Step {
    let is_held = |place: &Place| place.address == new.address && place.udp == new.udp.is_some();
    let address = if held.iter().any(is_held) { Address::TakenOver } else { Address::Free };
    match old.iter().find(|o| o.name == new.name) {
        None => Step::Open(Opening::Added, address),
        Some(old) if **old == *new => Step::Keep,
        Some(old) if same_socket(old, new) => Step::Update,
        Some(_) => Step::Open(Opening::Replaces, address),
    }
}

/// Whether the sockets of `old` serve `new` too.
fn same_socket(old: &ListenerConfig, new: &ListenerConfig) -> bool {
    let socket = |l: &ListenerConfig| {
        (l.unix_mode, l.enable_reuse_port, l.tcp_backlog_size, l.tcp_keepalive, l.bind_to_port)
    };
    if old.udp.is_some() != new.udp.is_some() {
        return false;
    }
    let told = |l: &ListenerConfig| (l.freebind, l.transparent, l.tcp_fast_open_queue_length);
    if told(old) != told(new) || old.socket_options != new.socket_options {
        return false;
    }
    // Its statistics are named after the prefix.
    old.address == new.address && socket(old) == socket(new) && old.stat_prefix == new.stat_prefix
}

/// What workers have to do about clusters.
#[derive(Debug, Default)]
pub(crate) struct ClusterPlan {
    /// Those that are new.
    pub(crate) added: Vec<Arc<ClusterShared>>,
    /// Those that replace one of the same name.
    pub(crate) modified: Vec<Arc<ClusterShared>>,
    /// The names of those that are no longer there.
    pub(crate) removed: Vec<Arc<str>>,
}

impl ClusterPlan {
    /// From the clusters of `old` to those of `new`.
    pub(crate) fn new(old: Option<&Snapshot>, new: &Snapshot) -> Self {
        let mut plan = Self::default();
        for cluster in &new.clusters {
            match old.and_then(|old| old.cluster(cluster.name())) {
                None => plan.added.push(cluster.clone()),
                Some(old) if !Arc::ptr_eq(old, cluster) => plan.modified.push(cluster.clone()),
                Some(_) => {}
            }
        }
        let gone = |old: &&Arc<ClusterShared>| !new.by_name.contains_key(old.name());
        let before = old.map_or(&[][..], |old| &old.clusters);
        plan.removed = before.iter().filter(gone).map(|old| old.name().clone()).collect();
        plan
    }
}

#[cfg(test)]
mod tests;
