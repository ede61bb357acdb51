use super::*;

fn picks(table: &mut Table, n: usize) -> Vec<usize> {
    (0..n).filter_map(|i| table.choose(i as u64 * 128 + 5).host).collect()
}

#[test]
fn equal_weights_rotate_from_a_seeded_start() {
    let hosts = [(1, Health::Healthy); 3];
    let mut table = Table::new(LbPolicy::RoundRobin, 50.0, &hosts, 7);
    assert_eq!(picks(&mut table, 6), [1, 2, 0, 1, 2, 0]);
}

#[test]
fn what_was_peeked_is_chosen_next() {
    let hosts = [(1, Health::Healthy), (1, Health::Healthy), (1, Health::Unhealthy)];
    for policy in [LbPolicy::RoundRobin, LbPolicy::Random] {
        let mut table = Table::new(policy, 50.0, &hosts, 3);
        let peeked = [table.peek(640), table.peek(1280)];
        // No further than there are healthy hosts.
        assert_eq!(table.peek(0), None);
        assert_eq!([Some(table.choose(77)), Some(table.choose(78))], peeked);
        assert!(table.peek(0).is_some());
    }
}

#[test]
fn unequal_weights_share_exactly() {
    let hosts = [(1, Health::Healthy), (3, Health::Healthy), (6, Health::Healthy)];
    let mut table = Table::new(LbPolicy::RoundRobin, 50.0, &hosts, 2);
    let chosen = picks(&mut table, 1000);
    let count = |host| chosen.iter().filter(|h| **h == host).count();
    assert_eq!((count(0), count(1), count(2)), (100, 300, 600));
}

#[test]
fn random_reaches_all_and_unhealthy_hosts_get_nothing() {
    let hosts = [(1, Health::Healthy), (1, Health::Unhealthy), (1, Health::Healthy)];
    let mut table = Table::new(LbPolicy::Random, 50.0, &hosts, 0);
    let chosen = picks(&mut table, 100);
    assert!(chosen.contains(&0) && chosen.contains(&2) && !chosen.contains(&1));
}

#[test]
fn too_few_healthy_hosts_are_panic() {
    let hosts = [(1, Health::Healthy), (1, Health::Unhealthy), (1, Health::Unhealthy)];
    let mut table = Table::new(LbPolicy::RoundRobin, 50.0, &hosts, 0);
    assert_eq!(picks(&mut table, 3), [0, 1, 2]);
    assert!(table.choose(0).panic);
    let mut off = Table::new(LbPolicy::RoundRobin, 0.0, &hosts, 0);
    assert_eq!(off.choose(0), Pick { host: Some(0), panic: false });
    let mut none = Table::new(LbPolicy::RoundRobin, 0.0, &hosts[1..], 0);
    assert_eq!(none.choose(0), Pick { host: None, panic: false });
    let mut empty = Table::new(LbPolicy::RoundRobin, 50.0, &[], 0);
    assert_eq!(empty.choose(0), Pick { host: None, panic: true });
}

#[test]
fn degraded_hosts_take_what_the_healthy_ones_cannot() {
    let hosts = [(1, Health::Healthy), (1, Health::Degraded)];
    let mut table = Table::new(LbPolicy::Random, 50.0, &hosts, 0);
    let degraded = (0..10_000).filter(|i| table.choose(*i).host == Some(1)).count();
    assert_eq!(degraded, 3000);
}
