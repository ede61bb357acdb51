use super::*;

/// A load balancer of hosts in one priority.
fn balancer(policy: LbPolicy, panic_threshold: f64, hosts: &[(u32, Health)], seed: u64) -> Balancer {
    let member = |(weight, health): &(u32, Health)| Member { weight: *weight, health: *health, priority: 0 };
    let members: Vec<_> = hosts.iter().map(member).collect();
    Balancer::new(policy, Common { panic_threshold, ..Common::default() }, &members, seed)
}

fn choose(table: &mut Balancer, random: u64) -> Pick {
    table.choose(Wish::default(), random)
}

fn picks(table: &mut Balancer, n: usize) -> Vec<usize> {
    (0..n).filter_map(|i| choose(table, i as u64 * 128 + 5).host).collect()
}

#[test]
fn equal_weights_rotate_from_a_seeded_start() {
    let hosts = [(1, Health::Healthy); 3];
    let mut table = balancer(LbPolicy::RoundRobin, 50.0, &hosts, 7);
    assert_eq!(picks(&mut table, 6), [1, 2, 0, 1, 2, 0]);
}

#[test]
fn what_was_peeked_is_chosen_next() {
    let hosts = [(1, Health::Healthy), (1, Health::Healthy), (1, Health::Unhealthy)];
    for policy in [LbPolicy::RoundRobin, LbPolicy::Random] {
        let mut table = balancer(policy, 50.0, &hosts, 3);
        let peeked = [table.peek(640), table.peek(1280)];
        // No further than there are healthy hosts.
        assert_eq!(table.peek(0), None);
        assert_eq!([Some(choose(&mut table, 77)), Some(choose(&mut table, 78))], peeked);
        assert!(table.peek(0).is_some());
    }
}

#[test]
fn unequal_weights_share_exactly() {
    let hosts = [(1, Health::Healthy), (3, Health::Healthy), (6, Health::Healthy)];
    let mut table = balancer(LbPolicy::RoundRobin, 50.0, &hosts, 2);
    let chosen = picks(&mut table, 1000);
    let count = |host| chosen.iter().filter(|h| **h == host).count();
    assert_eq!((count(0), count(1), count(2)), (100, 300, 600));
}

#[test]
fn random_reaches_all_and_unhealthy_hosts_get_nothing() {
    let hosts = [(1, Health::Healthy), (1, Health::Unhealthy), (1, Health::Healthy)];
    let mut table = balancer(LbPolicy::Random, 50.0, &hosts, 0);
    let chosen = picks(&mut table, 100);
    assert!(chosen.contains(&0) && chosen.contains(&2) && !chosen.contains(&1));
}

#[test]
fn too_few_healthy_hosts_are_panic() {
    let hosts = [(1, Health::Healthy), (1, Health::Unhealthy), (1, Health::Unhealthy)];
    let mut table = balancer(LbPolicy::RoundRobin, 50.0, &hosts, 0);
    assert_eq!(picks(&mut table, 3), [0, 1, 2]);
    assert!(choose(&mut table, 0).panic);
    let mut off = balancer(LbPolicy::RoundRobin, 0.0, &hosts, 0);
    assert_eq!(choose(&mut off, 0), Pick { host: Some(0), panic: false });
    let mut none = balancer(LbPolicy::RoundRobin, 0.0, &hosts[1..], 0);
    assert_eq!(choose(&mut none, 0), Pick { host: None, panic: false });
    let mut empty = balancer(LbPolicy::RoundRobin, 50.0, &[], 0);
    assert_eq!(choose(&mut empty, 0), Pick { host: None, panic: true });
}

#[test]
fn degraded_hosts_take_what_the_healthy_ones_cannot() {
    let hosts = [(1, Health::Healthy), (1, Health::Degraded)];
    let mut table = balancer(LbPolicy::Random, 50.0, &hosts, 0);
    let degraded = (0..10_000).filter(|i| choose(&mut table, *i).host == Some(1)).count();
    assert_eq!(degraded, 3000);
}

#[test]
fn the_next_priority_takes_what_the_first_one_cannot() {
    let host = |health, priority| Member { weight: 1, health, priority };
    let members = [
        host(Health::Healthy, 0),
        host(Health::Unhealthy, 0),
        host(Health::Healthy, 1),
        host(Health::Healthy, 1),
    ];
    let mut balancer = Balancer::new(LbPolicy::RoundRobin, Common::default(), &members, 0);
    let count =
        |balancer: &mut Balancer, host| (0..1000).filter(|i| choose(balancer, *i).host == Some(host)).count();
    // One of two can take 70 of 100.
    assert_eq!(count(&mut balancer, 0), 700);
    assert_eq!(count(&mut balancer, 1), 0);
    assert_eq!((count(&mut balancer, 2), count(&mut balancer, 3)), (150, 150));
    let loads = balancer.priorities().without(&[true]);
    let wish = Wish { hash: None, loads: loads.as_ref() };
    assert!((0..100).all(|i| matches!(balancer.choose(wish, i).host, Some(2 | 3))));
}
