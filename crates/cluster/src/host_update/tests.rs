#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use tidegate_config::cluster::{EndpointConfig, HealthStatus, LocalityEndpoints};
use tidegate_types::Address;

use super::{HostChanges, HostUpdate};
use crate::Failing;
use crate::host::{HostScale, HostSet, HostShared};

fn endpoint(port: u16) -> EndpointConfig {
    EndpointConfig {
        address: Address::Ip(([127, 0, 0, 1], port).into()),
        hostname: String::new(),
        weight: 1,
        health_status: HealthStatus::Unknown,
        health_check: Default::default(),
        additional_addresses: Vec::new(),
        name: None,
        metadata: None,
    }
}

fn place(priority: u32, endpoints: Vec<EndpointConfig>) -> LocalityEndpoints {
    LocalityEndpoints { locality: Default::default(), priority, weight: None, metadata: None, endpoints }
}

fn ports(priority: u32, ports: &[u16]) -> LocalityEndpoints {
    place(priority, ports.iter().map(|port| endpoint(*port)).collect())
}

fn scale() -> HostScale {
    HostScale {
        workers: 1,
        max_connections: None,
        counts_load: false,
        checked: true,
        watch: None,
        matcher: Arc::default(),
    }
}

fn update(old: &HostSet, endpoints: &[LocalityEndpoints]) -> (HostSet, HostChanges, usize) {
    let scale = scale();
    let update = HostUpdate::new(old, None, endpoints, &scale).keeping(|_| false);
    (HostSet::new(update.hosts), update.changes, update.priorities)
}

fn is(a: &Arc<HostShared>, b: &Arc<HostShared>) -> bool {
    Arc::ptr_eq(a, b)
}

#[test]
fn hosts_that_stay_are_the_same_ones() {
    let (first, changes, priorities) = update(&HostSet::default(), &[ports(0, &[1, 2, 3])]);
    assert_eq!(changes, HostChanges { named: 3, added: 3, ..HostChanges::default() });
    assert_eq!(priorities, 1);
    first.hosts[0].set_failing(Failing::Outlier, true);

    let (second, changes, priorities) = update(&first, &[ports(0, &[3, 4, 1])]);
    assert_eq!(changes, HostChanges { named: 3, added: 1, removed: 1, changed: 0 });
    assert_eq!(priorities, 1);
    assert!(is(&second.hosts[0], &first.hosts[2]) && is(&second.hosts[2], &first.hosts[0]));
    assert!(second.hosts[2].is_failing(Failing::Outlier));

    let (third, changes, priorities) = update(&second, &[ports(0, &[1, 3, 4])]);
    assert!(!changes.is_news(), "only the order differs");
    assert_eq!((third.hosts.len(), priorities), (3, 0));
}

#[test]
fn what_is_said_about_a_host_changes_in_place() {
    let (first, ..) = update(&HostSet::default(), &[ports(0, &[1]), ports(1, &[2])]);
    let mut heavy = endpoint(1);
    heavy.weight = 7;
    heavy.health_status = HealthStatus::Degraded;
    heavy.hostname = "a.test".into();
    let (second, changes, priorities) = update(&first, &[place(0, vec![heavy]), ports(2, &[2])]);
    assert_eq!(changes, HostChanges { named: 2, changed: 2, ..HostChanges::default() });
    assert_eq!(priorities, 2, "one left a priority and came to another");
    let host = &second.hosts[0];
    assert!(is(host, &first.hosts[0]));
    assert_eq!((host.weight(), host.health_status()), (7, HealthStatus::Degraded));
    assert_eq!(host.attributes().hostname, "a.test");
    assert_eq!(second.hosts[1].priority(), 2);
}

#[test]
fn a_host_that_is_checked_elsewhere_is_another_one() {
    let (first, ..) = update(&HostSet::default(), &[ports(0, &[1])]);
    let mut elsewhere = endpoint(1);
    elsewhere.health_check.port = Some(9);
    let (second, changes, _) = update(&first, &[place(0, vec![elsewhere.clone()])]);
    assert_eq!((changes.added, changes.removed), (1, 1));
    elsewhere.health_check.hostname = "checks.test".into();
    let (third, changes, _) = update(&second, &[place(0, vec![elsewhere])]);
    assert_eq!(changes, HostChanges { named: 1, changed: 1, ..HostChanges::default() });
    assert_eq!(third.hosts[0].attributes().health_check.hostname, "checks.test");
}

#[test]
fn an_address_that_is_named_twice_is_two_hosts() {
    let (first, changes, _) = update(&HostSet::default(), &[ports(0, &[1, 1])]);
    assert_eq!(changes.added, 2);
    let (second, changes, _) = update(&first, &[ports(0, &[1])]);
    assert_eq!((changes.added, changes.removed, second.hosts.len()), (0, 1, 1));
    let (_, changes, _) = update(&second, &[ports(0, &[1, 1])]);
    assert_eq!((changes.added, changes.removed), (1, 0));
}

#[test]
fn a_host_that_checks_find_well_stays_until_they_do_not() {
    let scale = scale();
    let (first, ..) = update(&HostSet::default(), &[ports(0, &[1, 2])]);
    first.hosts[1].set_failing(Failing::ActiveCheck, true);
    let well = |host: &HostShared| !host.is_failing(Failing::ActiveCheck);
    let left = HostUpdate::new(&first, None, &[ports(0, &[3])], &scale).keeping(well);
    assert_eq!(left.changes, HostChanges { named: 1, added: 1, removed: 1, changed: 1 });
    assert!(left.hosts[1].is_removing() && is(&left.hosts[1], &first.hosts[0]));
    let left = HostSet::new(left.hosts);
    let again = HostUpdate::new(&left, None, &[ports(0, &[3])], &scale).keeping(well);
    assert!(!again.changes.is_news());
    let back = HostUpdate::new(&left, None, &[ports(0, &[1, 3])], &scale).keeping(well);
    assert_eq!(back.changes, HostChanges { named: 2, changed: 1, ..HostChanges::default() });
    assert!(!back.hosts[0].is_removing());
}

#[test]
fn a_reloaded_cluster_inherits_what_was_found_out() {
    let scale = scale();
    let (old, ..) = update(&HostSet::default(), &[ports(0, &[1, 2])]);
    old.hosts[1].set_failing(Failing::ActiveCheck, true);
    old.hosts[1].set_failing(Failing::Outlier, true);
    let new =
        HostUpdate::new(&HostSet::default(), Some(&old), &[ports(0, &[2, 3])], &scale).keeping(|_| false);
    assert_eq!(new.changes.added, 2);
    assert!(!is(&new.hosts[0], &old.hosts[1]));
    assert!(Arc::ptr_eq(&new.hosts[0].stats, &old.hosts[1].stats));
    assert!(new.hosts[0].is_failing(Failing::ActiveCheck) && !new.hosts[1].is_failing(Failing::ActiveCheck));
    // Without outlier detection nobody would take it back.
    assert!(!new.hosts[0].is_failing(Failing::Outlier));
}

#[test]
fn ten_thousand_hosts_are_compared_at_once() {
    let many: Vec<u16> = (1..=10_000).collect();
    let (first, ..) = update(&HostSet::default(), &[ports(0, &many)]);
    let (_, changes, _) = update(&first, &[ports(0, &many.iter().rev().copied().collect::<Vec<_>>())]);
    assert_eq!(changes, HostChanges { named: 10_000, ..HostChanges::default() });
}
