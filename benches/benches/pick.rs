//! Choosing a host: each policy with 10 and with 10,000 hosts, equal and weighted, as a worker does for every request.
//!
//! The hosts of least-request policies have requests in hand, of which one ends and another begins with each choice,
//! so that the numbers that are compared change as they do under load.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use tidegate_cluster::lb::{Balancer, Health, Member, Method, Moment, Roster, Scene, Terms, Wish};
use tidegate_config::bootstrap::Locality;
use tidegate_config::cluster::{HashFunction, HashedName, MaglevConfig, RingHashConfig};
use tidegate_pool::host::HostLoad;

/// Requests in hand for each host.
const IN_HAND: usize = 2;

fn main() {
    tidegate_benches::run(&[round_robin, least_request, random, hashed]);
}

fn round_robin(criterion: &mut Criterion) {
    measure(criterion, "pick/round_robin", Method::RoundRobin, |_| 1);
    measure(criterion, "pick/round_robin_weighted", Method::RoundRobin, |host| 1 + host as u32 % 7);
}

fn random(criterion: &mut Criterion) {
    measure(criterion, "pick/random", Method::Random, |_| 1);
}

fn hashed(criterion: &mut Criterion) {
    let host_name = HashedName::Address;
    let maglev = MaglevConfig { table_size: 65_537, host_name, balance_factor: None };
    let ring = RingHashConfig {
        minimum_size: 1024,
        maximum_size: 8_388_608,
        hash_function: HashFunction::XxHash,
        host_name,
        balance_factor: None,
    };
    measure(criterion, "pick/maglev", Method::Maglev(maglev), |_| 1);
    measure(criterion, "pick/ring_hash", Method::Ring(ring), |_| 1);
}

fn measure(criterion: &mut Criterion, name: &str, method: Method, weight: impl Fn(usize) -> u32) {
    let mut group = criterion.benchmark_group(name);
    for hosts in [10, 10_000] {
        let (mut balancer, _) = balancer(method, hosts, &weight);
        let mut rng = fastrand::Rng::with_seed(1);
        group.bench_function(BenchmarkId::from_parameter(hosts), |bencher| {
            bencher.iter(|| {
                let wish = Wish { hash: Some(rng.u64(..)), ..Wish::default() };
                black_box(balancer.choose(wish, Moment::default(), &mut || rng.u64(..)))
            });
        });
    }
    group.finish();
}

fn least_request(criterion: &mut Criterion) {
    let method = Method::LeastRequest { choices: Some(2), bias: 1.0 };
    least(criterion, "pick/least_request", method, |_| 1);
    least(criterion, "pick/least_request_weighted", method, |host| 1 + host as u32 % 7);
}

fn least(criterion: &mut Criterion, name: &str, method: Method, weight: impl Fn(usize) -> u32) {
    let mut group = criterion.benchmark_group(name);
    for hosts in [10, 10_000] {
        let (mut balancer, loads) = balancer(method, hosts, &weight);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut in_hand: VecDeque<usize> = (0..hosts * IN_HAND).map(|n| n % hosts).collect();
        in_hand.iter().for_each(|host| loads[*host].add(1));
        group.bench_function(BenchmarkId::from_parameter(hosts), |bencher| {
            bencher.iter(|| {
                let pick = balancer.choose(Wish::default(), Moment::default(), &mut || rng.u64(..));
                let host = pick.host.expect("there are hosts");
                loads[host].add(1);
                in_hand.push_back(host);
                if let Some(done) = in_hand.pop_front() {
                    loads[done].add(u64::MAX);
                }
            });
        });
    }
    group.finish();
}

fn balancer(method: Method, hosts: usize, weight: impl Fn(usize) -> u32) -> (Balancer, Vec<Arc<HostLoad>>) {
    let loads: Vec<_> = (0..hosts).map(|_| Arc::new(HostLoad::default())).collect();
    let member = |(host, load)| Member {
        weight: weight(host),
        name: format!("10.{}.{}.1:8080", host / 256, host % 256).into(),
        load: Some(load),
        ..Member::of(0, Health::Healthy)
    };
    let members: Vec<_> = loads.iter().enumerate().map(member).collect();
    let scene = Scene { now_ms: 0, home: &Locality::default(), census: None };
    let roster = Roster::build(&Terms { method, ..Terms::default() }, &members, scene);
    (Balancer::new(Arc::new(roster), 7), loads)
}
