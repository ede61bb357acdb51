use super::*;

mod shares;

/// Nowhere, at a time.
pub(super) fn at(now_ms: u64) -> Scene<'static> {
    Scene { now_ms, home: Member::of(0, Health::Healthy).place, census: None }
}

fn terms(method: Method) -> Terms {
    Terms { method, ..Terms::default() }
}

fn members(hosts: &[(u32, Health)]) -> Vec<Member<'static>> {
    hosts.iter().map(|(weight, health)| Member { weight: *weight, ..Member::of(0, *health) }).collect()
}

/// A load balancer of hosts in one priority.
fn balancer(method: Method, panic_threshold: u32, hosts: &[(u32, Health)], seed: u64) -> Balancer {
    let terms = Terms { panic_threshold, ..terms(method) };
    Balancer::new(Arc::new(Roster::build(&terms, &members(hosts), at(0))), seed)
}

fn choose(table: &mut Balancer, random: u64) -> Pick {
    table.choose(Wish::default(), Moment::default(), &mut || random)
}

fn peek(table: &mut Balancer, random: u64) -> Option<Pick> {
    table.peek(Moment::default(), &mut || random)
}

fn picks(table: &mut Balancer, n: usize) -> Vec<usize> {
    (0..n).filter_map(|i| choose(table, i as u64 * 128 + 5).host).collect()
}

#[test]
fn equal_weights_rotate_from_a_seeded_start() {
    let hosts = [(1, Health::Healthy); 3];
    let mut table = balancer(Method::RoundRobin, 50, &hosts, 7);
    assert_eq!(picks(&mut table, 6), [1, 2, 0, 1, 2, 0]);
}

#[test]
fn what_was_peeked_is_chosen_next() {
    let hosts = [(1, Health::Healthy), (1, Health::Healthy), (1, Health::Unhealthy)];
    for policy in [Method::RoundRobin, Method::Random] {
        let mut table = balancer(policy, 50, &hosts, 3);
        let peeked = [peek(&mut table, 640), peek(&mut table, 1280)];
        // No further than there are healthy hosts.
        assert_eq!(peek(&mut table, 0), None);
        assert_eq!([Some(choose(&mut table, 77)), Some(choose(&mut table, 78))], peeked);
        assert!(peek(&mut table, 0).is_some());
    }
}

#[test]
fn unequal_weights_share_exactly() {
    let hosts = [(1, Health::Healthy), (3, Health::Healthy), (6, Health::Healthy)];
    let mut table = balancer(Method::RoundRobin, 50, &hosts, 2);
    let chosen = picks(&mut table, 1000);
    let count = |host| chosen.iter().filter(|h| **h == host).count();
    assert_eq!((count(0), count(1), count(2)), (100, 300, 600));
}

#[test]
fn random_reaches_all_and_unhealthy_hosts_get_nothing() {
    let hosts = [(1, Health::Healthy), (1, Health::Unhealthy), (1, Health::Healthy)];
    let mut table = balancer(Method::Random, 50, &hosts, 0);
    let chosen = picks(&mut table, 100);
    assert!(chosen.contains(&0) && chosen.contains(&2) && !chosen.contains(&1));
}

#[test]
fn too_few_healthy_hosts_are_panic() {
    let hosts = [(1, Health::Healthy), (1, Health::Unhealthy), (1, Health::Unhealthy)];
    let mut table = balancer(Method::RoundRobin, 50, &hosts, 0);
    assert_eq!(picks(&mut table, 3), [0, 1, 2]);
    assert!(choose(&mut table, 0).panic);
    let mut off = balancer(Method::RoundRobin, 0, &hosts, 0);
    assert_eq!(choose(&mut off, 0), Pick { host: Some(0), panic: false, zone: None });
    let mut none = balancer(Method::RoundRobin, 0, &hosts[1..], 0);
    assert_eq!(choose(&mut none, 0), Pick { host: None, panic: false, zone: None });
    let mut empty = balancer(Method::RoundRobin, 50, &[], 0);
    assert_eq!(choose(&mut empty, 0), Pick { host: None, panic: true, zone: None });
}

#[test]
fn degraded_hosts_take_what_the_healthy_ones_cannot() {
    let hosts = [(1, Health::Healthy), (1, Health::Degraded)];
    let mut table = balancer(Method::Random, 50, &hosts, 0);
    let degraded = (0..10_000).filter(|i| choose(&mut table, *i).host == Some(1)).count();
    assert_eq!(degraded, 3000);
}

#[test]
fn the_next_priority_takes_what_the_first_one_cannot() {
    let host = |health, priority| Member::of(priority, health);
    let members = [
        host(Health::Healthy, 0),
        host(Health::Unhealthy, 0),
        host(Health::Healthy, 1),
        host(Health::Healthy, 1),
    ];
    let mut balancer = Balancer::new(Arc::new(Roster::build(&Terms::default(), &members, at(0))), 0);
    let count =
        |balancer: &mut Balancer, host| (0..1000).filter(|i| choose(balancer, *i).host == Some(host)).count();
    // One of two can take 70 of 100.
    assert_eq!(count(&mut balancer, 0), 700);
    assert_eq!(count(&mut balancer, 1), 0);
    assert_eq!((count(&mut balancer, 2), count(&mut balancer, 3)), (150, 150));
    let loads = balancer.roster().priorities().without(&[true]);
    let wish = Wish { loads: loads.as_ref(), ..Wish::default() };
    assert!(
        (0..100).all(|i| matches!(balancer.choose(wish, Moment::default(), &mut || i).host, Some(2 | 3)))
    );
}

/// A number for each call, evenly spread and the same in each run.
fn chance() -> impl FnMut() -> u64 {
    let mut rng = fastrand::Rng::with_seed(5);
    move || rng.u64(..)
}

/// Balancer of a method that goes by requests in hand, and those of each host.
fn loaded(method: Method, weights: &[u32]) -> (Balancer, Vec<Arc<HostLoad>>) {
    let loads: Vec<_> = weights.iter().map(|_| Arc::new(HostLoad::default())).collect();
    let hosts = weights.iter().zip(&loads).map(|(weight, load)| Member {
        weight: *weight,
        load: Some(load),
        ..Member::of(0, Health::Healthy)
    });
    let members: Vec<_> = hosts.collect();
    let roster = Roster::build(&terms(method), &members, at(0));
    (Balancer::new(Arc::new(roster), 0), loads)
}

fn shares(balancer: &mut Balancer, hosts: usize, n: usize) -> Vec<usize> {
    let mut chance = chance();
    let mut counts = vec![0; hosts];
    for _ in 0..n {
        counts[balancer.choose(Wish::default(), Moment::default(), &mut chance).host.unwrap()] += 1;
    }
    counts
}

/// Of two drawn with the same probability, the second only if it has fewer: the busy one of two hosts is left with a
/// quarter, as Envoy's docs say.
#[test]
fn the_better_of_two_gets_it() {
    let method = Method::LeastRequest { choices: Some(2), bias: 1.0 };
    let (mut balancer, loads) = loaded(method, &[1, 1]);
    loads[0].add(1);
    let [busy, idle] = shares(&mut balancer, 2, 100_000)[..] else { panic!() };
    assert!((24_500..25_500).contains(&busy), "{busy} {idle}");
    // Equal ones share evenly.
    loads[1].add(1);
    let [one, other] = shares(&mut balancer, 2, 100_000)[..] else { panic!() };
    assert!(one.abs_diff(other) < 1500, "{one} {other}");
    assert_eq!(peek(&mut balancer, 1), None);
}

#[test]
fn a_full_scan_finds_the_least_loaded_and_draws_lots_among_equals() {
    let (mut balancer, loads) = loaded(Method::LeastRequest { choices: None, bias: 1.0 }, &[1; 5]);
    for (load, n) in loads.iter().zip([3, 1, 2, 1, 1]) {
        load.add(n);
    }
    let shares = shares(&mut balancer, 5, 30_000);
    assert_eq!((shares[0], shares[2]), (0, 0));
    assert!([1, 3, 4].iter().all(|host| shares[*host].abs_diff(10_000) < 400), "{shares:?}");
}

/// Envoy docs, "Weighted least request": weight / (active + 1) ^ bias.
#[test]
fn where_weights_differ_requests_in_hand_lower_them() {
    let least = |bias| Method::LeastRequest { choices: Some(2), bias };
    let (mut balancer, loads) = loaded(least(1.0), &[1, 4]);
    assert_eq!(shares(&mut balancer, 2, 1000), [200, 800]);
    // 1 / 1 and 4 / 8.
    loads[1].add(7);
    let [light, heavy] = shares(&mut balancer, 2, 3000)[..] else { panic!() };
    assert!(light.abs_diff(2000) <= 2 && heavy.abs_diff(1000) <= 2, "{light} {heavy}");
    // The root of 8 is 2.83: 1 and 1.41.
    let (mut balancer, loads) = loaded(least(0.5), &[1, 4]);
    loads[1].add(7);
    let [light, _] = shares(&mut balancer, 2, 24_142)[..] else { panic!() };
    assert!(light.abs_diff(10_000) <= 3, "{light}");
    // No bias: round robin.
    let (mut balancer, loads) = loaded(least(0.0), &[1, 4]);
    loads[1].add(7);
    assert_eq!(shares(&mut balancer, 2, 1000), [200, 800]);
    assert!(peek(&mut balancer, 1).is_some());
}

#[test]
fn rotation_goes_on_when_hosts_change_and_what_was_peeked_is_forgotten() {
    let roster =
        |n| Arc::new(Roster::build(&Terms::default(), &members(&vec![(1, Health::Healthy); n]), at(0)));
    let mut balancer = Balancer::new(roster(4), 0);
    assert_eq!(picks(&mut balancer, 6), [0, 1, 2, 3, 0, 1]);
    assert!(peek(&mut balancer, 0).is_some());
    balancer.follow(roster(8));
    // The seventh and the peeked one are gone by.
    assert_eq!(picks(&mut balancer, 3), [7, 0, 1]);
}

/// Envoy docs, "Slow start mode": weight * max(min_weight_percent, time_factor ^ (1 / aggression)).
#[test]
fn a_new_host_gets_its_share_little_by_little() {
    let ramp = Ramp { window_ms: 1000, aggression: 1.0, least: 0.1 };
    assert_eq!([0, 50, 100, 500, 1000, 5000].map(|age| ramp.factor(age)), [0.1, 0.1, 0.1, 0.5, 1.0, 1.0]);
    let steep = Ramp { aggression: 2.0, ..ramp };
    assert_eq!(steep.factor(250), 0.5);
    let terms = Terms { ramp: Some(ramp), ..Terms::default() };
    let member = |since_ms| Member { since_ms, ..Member::of(0, Health::Healthy) };
    let mut balancer =
        Balancer::new(Arc::new(Roster::build(&terms, &[member(1), member(10_000)], at(10_250))), 0);
    let mut new_of = |ms, n| {
        let moment = Moment { ms, active: 0 };
        let hosts = (0..n).filter_map(|_| balancer.choose(Wish::default(), moment, &mut || 0).host);
        hosts.filter(|host| *host == 1).count()
    };
    assert!(new_of(10_250, 1000).abs_diff(200) <= 2);
    assert!(new_of(10_500, 900).abs_diff(300) <= 2);
    assert!(new_of(20_000, 1000).abs_diff(500) <= 2);
    // Long after, there is nothing to schedule.
    let roster = Roster::build(&terms, &[member(1), member(10_000)], at(20_000));
    assert!(!roster.needs_time());
}
