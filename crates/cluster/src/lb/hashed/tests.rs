use tidegate_config::cluster::HashedName;
use tidegate_pool::host::HostLoad;

use super::*;
use crate::lb::tests::at;
use crate::lb::{Balancer, Moment, Roster, Wish, hash};

fn ring_method(hash_function: HashFunction) -> Method {
    Method::Ring(RingHashConfig {
        minimum_size: 1024,
        maximum_size: 8_388_608,
        hash_function,
        host_name: HashedName::Address,
        balance_factor: None,
    })
}

fn methods() -> [Method; 3] {
    let host_name = HashedName::Address;
    [
        ring_method(HashFunction::XxHash),
        ring_method(HashFunction::MurmurHash2),
        Method::Maglev(MaglevConfig { table_size: 65_537, host_name, balance_factor: None }),
    ]
}

fn hosts(names: &[(&str, u32, Health)]) -> Vec<Member<'static>> {
    let host = |(name, weight, health): &(&str, u32, Health)| Member {
        name: (*name).to_owned().into(),
        weight: *weight,
        ..Member::of(0, *health)
    };
    names.iter().map(host).collect()
}

fn healthy(names: &[&str]) -> Vec<Member<'static>> {
    hosts(&names.iter().map(|name| (*name, 1, Health::Healthy)).collect::<Vec<_>>())
}

/// The tables of hosts that are all in one priority.
struct Table(Roster);

impl Table {
    fn choose(&self, hash: u64) -> Pick {
        self.0.hashed().unwrap().choose(hash, None, &self.0.hosts, 0)
    }

    fn spread(&self) -> Spread {
        self.0.hashed().unwrap().spread()
    }
}

fn table(method: Method, hosts: &[Member<'_>]) -> Table {
    Table(Roster::build(&Terms { method, ..Terms::default() }, hosts, at(0)))
}

fn key(n: u64) -> u64 {
    hash::xx64(&n.to_le_bytes())
}

#[test]
fn a_host_that_leaves_moves_only_its_keys() {
    let names = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80", "10.0.0.5:80"];
    for method in methods() {
        // As many entries for each host of the smaller ring: otherwise those that stay would get more.
        let smaller = match method {
            Method::Ring(ring) => Method::Ring(RingHashConfig { minimum_size: 4 * 205, ..ring }),
            other => other,
        };
        let (before, after) = (table(method, &healthy(&names)), table(smaller, &healthy(&names[..4])));
        let moved = (0..10_000)
            .filter(|n| {
                let old = before.choose(key(*n)).host;
                old != Some(4) && old != after.choose(key(*n)).host
            })
            .count();
        // Maglev's table is refilled, which shifts a few slots.
        let most = if matches!(method, Method::Maglev(_)) { 400 } else { 0 };
        assert!(moved <= most, "{method:?}: {moved} of 10000 keys moved between hosts that stayed");
    }
}

#[test]
fn weights_are_shares_of_keys() {
    let weighted = hosts(&[("a", 1, Health::Healthy), ("b", 3, Health::Healthy)]);
    for method in methods() {
        let table = table(method, &weighted);
        let spread = table.spread();
        let share = spread.max as f64 / spread.size as f64;
        assert!((share - 0.75).abs() < 0.01, "{method:?}: {spread:?}");
    }
}

#[test]
fn equal_hosts_share_evenly() {
    let pair = healthy(&["host-a", "host-b"]);
    let [ring, _, maglev] = methods();
    assert_eq!(table(ring, &pair).spread(), Spread { size: 1024, min: 512, max: 512 });
    assert_eq!(table(maglev, &pair).spread(), Spread { size: 65_537, min: 32_768, max: 32_769 });
    let three = healthy(&["a", "b", "c"]);
    // ceil(1024 / 3) for each.
    assert_eq!(table(ring, &three).spread(), Spread { size: 1026, min: 342, max: 342 });
}

#[test]
fn the_ring_never_exceeds_its_maximum() {
    let config = RingHashConfig {
        minimum_size: 2,
        maximum_size: 4,
        hash_function: HashFunction::XxHash,
        host_name: HashedName::Address,
        balance_factor: None,
    };
    let table = table(Method::Ring(config), &healthy(&["a", "b", "c", "d", "e", "f"]));
    assert_eq!(table.spread(), Spread { size: 4, min: 0, max: 1 });
}

#[test]
fn only_healthy_hosts_get_keys_unless_in_panic() {
    use Health::{Degraded, Healthy, Unhealthy};
    for method in methods() {
        let mixed = hosts(&[("a", 1, Healthy), ("b", 1, Unhealthy), ("c", 1, Degraded)]);
        let calm = table(method, &mixed);
        assert!((0..1000).all(|n| calm.choose(key(n)) == Pick { host: Some(0), panic: false, zone: None }));
        let sick = hosts(&[("a", 1, Healthy), ("b", 1, Unhealthy), ("c", 1, Unhealthy)]);
        let panic = table(method, &sick);
        assert!(panic.choose(0).panic);
        assert!((0..1000).any(|n| panic.choose(key(n)).host == Some(1)));
        assert_eq!(table(method, &[]).choose(7), Pick { host: None, panic: true, zone: None });
        let degraded = table(method, &hosts(&[("c", 1, Degraded)]));
        assert_eq!(degraded.choose(7), Pick { host: None, panic: false, zone: None });
    }
}

/// Where Envoy 1.40 sends 127.0.0.2 to 127.0.0.9 with hosts of these names (1 is host-b).
#[test]
fn hosts_are_those_of_envoy() {
    let pair = healthy(&["host-a", "host-b"]);
    let [ring, _, maglev] = methods();
    let chosen = |method: Method| -> Vec<_> {
        let table = table(method, &pair);
        (2..10).filter_map(|n| table.choose(hash::of_ip([127, 0, 0, n].into())).host).collect()
    };
    assert_eq!(chosen(ring), [1, 0, 0, 1, 1, 0, 1, 1]);
    assert_eq!(chosen(maglev), [1, 1, 0, 1, 1, 0, 1, 0]);
}

/// The hosts of the recordings: `127.0.0.(1 + n):(20001 + 7 n)` of weight `1 + n % 3`.
fn recorded_hosts() -> Vec<Member<'static>> {
    let host = |n: u32| Member {
        name: format!("127.0.0.{}:{}", 1 + n, 20_001 + 7 * n).into(),
        weight: 1 + n % 3,
        ..Member::of(0, Health::Healthy)
    };
    (0..12).map(host).collect()
}

/// Envoy 1.40.0 (9e5580933739775e8bce696a57a2e1bc99368f23) was sent requests with the headers `key: key-0` to `key:
/// key-9999` and a `hash_policy` of that header; its access log told the host of each. A file has a digit of base 12
/// for each key.
#[test]
fn hosts_of_10_000_keys_are_those_of_envoy() {
    let Method::Ring(ring) = ring_method(HashFunction::MurmurHash2) else { panic!() };
    let murmur = Method::Ring(RingHashConfig { minimum_size: 4096, ..ring });
    let [xx, _, maglev] = methods();
    for (method, recorded) in [
        (xx, include_str!("envoy-1.40/ring-xx-hash.txt")),
        (murmur, include_str!("envoy-1.40/ring-murmur-hash-2.txt")),
        (maglev, include_str!("envoy-1.40/maglev.txt")),
    ] {
        let table = table(method, &recorded_hosts());
        let recorded: Vec<_> = recorded.chars().filter_map(|digit| digit.to_digit(12)).collect();
        assert_eq!(recorded.len(), 10_000);
        for (n, host) in recorded.into_iter().enumerate() {
            let hash = hash::xx64_of_all([format!("key-{n}").as_bytes()]);
            assert_eq!(table.choose(hash).host, Some(host as usize), "{method:?}: key-{n}");
        }
    }
}

/// A key whose host has more than its share goes to another, always the same; the rest stay.
#[test]
fn a_host_takes_no_more_than_its_bound() {
    let host_name = HashedName::Address;
    for method in [
        Method::Maglev(MaglevConfig { table_size: 65_537, host_name, balance_factor: Some(120) }),
        Method::Ring(RingHashConfig {
            minimum_size: 1024,
            maximum_size: 8_388_608,
            hash_function: HashFunction::XxHash,
            host_name,
            balance_factor: Some(120),
        }),
    ] {
        let loads: Vec<_> = (0..4).map(|_| std::sync::Arc::new(HostLoad::default())).collect();
        let mut hosts = healthy(&["a", "b", "c", "d"]);
        hosts.iter_mut().zip(&loads).for_each(|(host, load)| host.load = Some(load));
        let roster = Roster::build(&Terms { method, ..Terms::default() }, &hosts, at(0));
        let mut balancer = Balancer::new(std::sync::Arc::new(roster), 0);
        let mut in_hand = 0;
        let mut choose = |key_number| {
            let wish = Wish { hash: Some(key(key_number)), ..Wish::default() };
            let moment = Moment { ms: 0, active: in_hand };
            let host = balancer.choose(wish, moment, &mut || 0).host.unwrap();
            loads[host].add(1);
            in_hand += 1;
            host
        };
        // One key 400 times: each host may have 120 % of the average, rounded up, and one more.
        for _ in 0..400 {
            choose(7);
        }
        let taken: Vec<_> = loads.iter().map(|load| load.active()).collect();
        assert!(taken.iter().all(|taken| *taken <= 122), "{taken:?}");
        assert!(taken.iter().filter(|taken| **taken >= 100).count() >= 3, "{taken:?}");
    }
}
