//! A request's route in tables of 10, 1,000 and 10,000 entries, by virtual host and by path.
//!
//! 256 requests spread over the table are matched in turn, so that neither the cache nor the branch predictor
//! holds one answer.
#![allow(clippy::expect_used, clippy::panic)]

use criterion::{BenchmarkId, Criterion};
use tidegate_benches::document::{DIRECT, Document, connection_manager, route, virtual_host};
use tidegate_benches::messages::request_for;
use tidegate_filter::route::ErasedConfig;
use tidegate_router::{FilterSlots, RouteTable};
use tidegate_stats::Store;
use tidegate_types::json::{JsonPath, Problem, TypedConfig};
use tidegate_types::{RequestHead, Scheme};

fn main() {
    tidegate_benches::run(&[exact_hosts, wildcard_hosts, prefixes, exact_paths]);
}

/// Virtual hosts by their names.
fn exact_hosts(criterion: &mut Criterion) {
    measure(criterion, "route_match/exact_hosts", one_host_each("service-N.bench.test"), |n| {
        request_for(format!("service-{n}.bench.test"), "/items/1".to_owned())
    });
}

/// Virtual hosts by the ends of their names.
fn wildcard_hosts(criterion: &mut Criterion) {
    measure(criterion, "route_match/wildcard_hosts", one_host_each("*.tenant-N.bench.test"), |n| {
        request_for(format!("www.tenant-{n}.bench.test"), "/items/1".to_owned())
    });
}

/// Routes of one virtual host by prefix, the first that matches in configured order.
fn prefixes(criterion: &mut Criterion) {
    measure(criterion, "route_match/prefixes", one_route_each("prefix", "/service-N/"), |n| {
        request_for("bench.test".to_owned(), format!("/service-{n}/items/1"))
    });
}

/// Routes of one virtual host by exact path.
fn exact_paths(criterion: &mut Criterion) {
    measure(criterion, "route_match/exact_paths", one_route_each("path", "/service/N/items"), |n| {
        request_for("bench.test".to_owned(), format!("/service/{n}/items?page=2"))
    });
}

fn one_host_each(domain: &'static str) -> impl Fn(usize) -> Vec<String> {
    move |count| {
        let routes = [route("prefix", "/", DIRECT)];
        (0..count).map(|n| virtual_host(&domain.replace('N', &n.to_string()), &routes)).collect()
    }
}

fn one_route_each(condition: &'static str, path: &'static str) -> impl Fn(usize) -> Vec<String> {
    move |count| {
        let one = |n: usize| route(condition, &path.replace('N', &n.to_string()), DIRECT);
        vec![virtual_host("*", &(0..count).map(one).collect::<Vec<_>>())]
    }
}

fn measure(
    criterion: &mut Criterion,
    name: &str,
    hosts: impl Fn(usize) -> Vec<String>,
    request: impl Fn(usize) -> RequestHead,
) {
    let mut group = criterion.benchmark_group(name);
    for entries in [10, 1_000, 10_000] {
        let table = compile(hosts(entries));
        // A stride that shares no factor with the sizes visits the entries in no helpful order.
        let requests: Vec<_> = (0..256).map(|n| request(n * 7_919 % entries)).collect();
        let mut turn = requests.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
            bencher.iter(|| {
                let head = turn.next().expect("a cycle");
                table.matches(head, Scheme::Http, 1).expect("every request has a route")
                    as *const std::sync::Arc<_>
            });
        });
    }
}

fn compile(virtual_hosts: Vec<String>) -> RouteTable {
    let bootstrap = Document { virtual_hosts, ..Document::default() }.load();
    let routes = &connection_manager(&bootstrap).route_config;
    RouteTable::compile(routes, &JsonPath::root(), &NoFilters(Store::new(1)))
        .unwrap_or_else(|errors| panic!("{errors:?}"))
}

struct NoFilters(Store);

impl FilterSlots for NoFilters {
    fn names(&self) -> &[String] {
        &[]
    }

    fn resolve(&self, _: usize, _: &TypedConfig) -> Result<ErasedConfig, Vec<Problem>> {
        Err(Vec::new())
    }

    fn store(&self) -> &Store {
        &self.0
    }
}
