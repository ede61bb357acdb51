//! What statistics say of a cluster's hosts, set whenever others are published.

use super::HostSet;
use crate::lb::{Health, Subsets, ZoneFault};
use crate::stats::ClusterStats;

/// How many hosts there are, and how they are.
pub(super) fn membership(stats: &ClusterStats, hosts: &HostSet) {
    if hosts.hosts.iter().any(|host| host.addresses().all().len() > 1) {
        // Listed before the first connection.
        stats.eyeballs();
    }
    let count = |health| hosts.hosts.iter().filter(|host| host.health() == health).count() as i64;
    stats.members.membership_total().set(hosts.hosts.len() as i64);
    stats.members.membership_healthy().set(count(Health::Healthy));
    stats.members.membership_degraded().set(count(Health::Degraded));
    let excluded = hosts.hosts.iter().filter(|host| host.checks.is_excluded()).count();
    stats.members.membership_excluded().set(excluded as i64);
}

/// Which subsets there are now, and which there were. Counted once, where Envoy counts for each thread.
pub(super) fn subsets(stats: &ClusterStats, old: Option<&Subsets>, new: &Subsets) {
    let created = old.map_or(new.count(), |old| new.count_beyond(old));
    let removed = old.map_or(0, |old| old.count_beyond(new));
    stats.balance.lb_subsets_created().add(created as u64);
    stats.balance.lb_subsets_removed().add(removed as u64);
    stats.balance.lb_subsets_active().add(created as i64 - removed as i64);
    if let Some(subsets) = &stats.subsets {
        subsets.lb_subsets_single_host_per_subset_duplicate().set(new.duplicates() as i64);
    }
}

/// What making the roster came to.
pub(super) fn choice(stats: &ClusterStats, hosts: &HostSet, zone_aware: bool) {
    if zone_aware {
        stats.balance.lb_recalculate_zone_structures().inc();
    }
    match hosts.roster().zone_fault() {
        None => {}
        Some(ZoneFault::LocalClusterNotOk) => stats.balance.lb_local_cluster_not_ok().inc(),
        Some(ZoneFault::ClusterTooSmall) => stats.balance.lb_zone_cluster_too_small().inc(),
    }
    let spread = hosts.roster().hashed().map(|table| table.spread()).unwrap_or_default();
    let [size, min, max] = [spread.size, spread.min, spread.max].map(|count| count as i64);
    if let Some(ring) = &stats.ring_hash {
        ring.size().set(size);
        ring.min_hashes_per_host().set(min);
        ring.max_hashes_per_host().set(max);
    }
    if let Some(maglev) = &stats.maglev {
        maglev.min_entries_per_host().set(min);
        maglev.max_entries_per_host().set(max);
    }
}
