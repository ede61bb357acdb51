//! A connection taken from a pool that has an idle one, and given back: the machine alone, and the HTTP/1.1
//! driver around it. It must cost the same with 1,000 idle connections, and beside the pools of 10,000 hosts, as with
//! one of each.
#![allow(clippy::expect_used)]

use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use http::Version;
use tidegate_benches::memory::{MemoryIo, pair};
use tidegate_codec::h1::ClientConn;
use tidegate_pool::h1::{Conn, ConnFacts, Connect, Connected, Neighbours, Opened, Pool};
use tidegate_pool::host::{HostCounters, HostStats};
use tidegate_pool::learned::IdleLimit;
use tidegate_pool::limits::{Limits, Maxima};
use tidegate_pool::machine::{Attached, Care, Carries, ConnKey, Event, Machine, Settings, Shared, StreamEnd};
use tidegate_pool::stats::UpstreamStats;
use tidegate_stats::{Scope, Store};
use tokio::time::Instant;

fn main() {
    tidegate_benches::run(&[idle_connections, hosts, driver]);
}

fn idle_connections(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pool/machine");
    for idle in [1, 64, 1000] {
        let now = Instant::now();
        let mut machine = filled(&shared(&Store::new(2)), now, idle);
        group.bench_function(format!("checkout_checkin/{idle}_idle"), |bencher| {
            bencher.iter(|| check_out_and_in(&mut machine, now));
        });
        assert_eq!(machine.connections(), idle, "no connection was lost or made");
    }
}

/// The pools of many hosts of a cluster share limits and statistics.
fn hosts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pool/machine");
    for hosts in [1, 10_000] {
        let now = Instant::now();
        let shared = shared(&Store::new(2));
        let mut machines: Vec<_> = (0..hosts).map(|_| filled(&shared, now, 1)).collect();
        let busy = &mut machines[hosts / 2];
        group.bench_function(format!("checkout_checkin/{hosts}_hosts"), |bencher| {
            bencher.iter(|| check_out_and_in(busy, now));
        });
    }
}

fn check_out_and_in(machine: &mut Machine, now: Instant) -> Option<Event> {
    if let Some(Attached::To(key)) = machine.try_attach(now, Care::Fresh) {
        machine.handle_stream_end(now, key, StreamEnd::Complete);
    }
    machine.poll_event()
}

/// A pool with so many idle connections.
fn filled(shared: &Shared, now: Instant, idle: usize) -> Machine {
    let mut machine = Machine::new(Rc::new(settings()), shared.clone());
    let keys: Vec<_> = (0..idle).map(|token| connected(&mut machine, now, token)).collect();
    keys.into_iter().for_each(|key| machine.handle_stream_end(now, key, StreamEnd::Complete));
    machine
}

fn driver(criterion: &mut Criterion) {
    let runtime = tidegate_benches::runtime();
    let pool = runtime.block_on(async {
        let nobody: Weak<dyn Neighbours> = Weak::<Alone>::new();
        let pool = Pool::new(Rc::new(settings()), shared(&Store::new(2)), Rc::new(MemoryConnector), nobody);
        pool.acquire().await.expect("a connection").finish();
        pool
    });
    criterion.bench_function("pool/h1/checkout_checkin", |bencher| {
        bencher.iter_custom(|count| {
            runtime.block_on(async {
                let start = std::time::Instant::now();
                for _ in 0..count {
                    pool.acquire().await.expect("an idle connection").finish();
                }
                start.elapsed()
            })
        });
    });
    assert_eq!(pool.connections(), 1, "no connection was lost or made");
}

/// Makes a stream wait and gives it a new connection.
fn connected(machine: &mut Machine, now: Instant, token: usize) -> ConnKey {
    machine.enqueue(now, token);
    while let Some(event) = machine.poll_event() {
        match event {
            Event::Open(key) => machine.handle_connected(now, key, 1),
            Event::Attach { conn, .. } => return conn,
            _ => {}
        }
    }
    unreachable!("a waiting stream gets a connection")
}

fn settings() -> Settings {
    Settings {
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Some(Duration::from_secs(3600)),
        max_connection_duration: None,
        max_streams: None,
        concurrency: 1,
        carries: Carries::Requests,
        timeout_text: None,
        preconnect_ratio: 1.0,
    }
}

fn shared(store: &Store) -> Shared {
    let scope = Scope::cluster("bench");
    let maxima = Maxima { connections: u64::MAX, requests: u64::MAX, ..Maxima::default() };
    let limits = Limits::new(store, scope.child("circuit_breakers").child("default"), &maxima);
    let host: HostCounters = HostStats::new(1).writer();
    let stats = UpstreamStats::new(store, scope);
    Shared {
        limits: Arc::new(limits),
        host_connections: None,
        stats,
        host,
        idle_limit: Some(Arc::new(taught())),
        tally: None,
    }
}

/// A host that was seen to close.
fn taught() -> IdleLimit {
    let learned = IdleLimit::default();
    learned.closed(Instant::now(), Duration::from_secs(75), None);
    learned
}

struct Alone;

impl Neighbours for Alone {
    fn reclaim(&self) {}
}

/// Connects to a peer that never says anything.
struct MemoryConnector;

impl Connect<Opened> for MemoryConnector {
    fn connect(&self) -> Pin<Box<dyn Future<Output = Connected>>> {
        Box::pin(async {
            let (near, far) = pair();
            keep_open(far);
            let conn: Box<dyn Conn> = Box::new(ClientConn::new(Box::new(near), Rc::default()));
            let facts = ConnFacts {
                id: 1,
                local_address: None,
                remote_address: None,
                protocol: Version::HTTP_11,
                tls: None,
            };
            Ok((conn, facts))
        })
    }
}

/// The peer's end lives as long as the process: dropping it would be a FIN.
fn keep_open(far: MemoryIo) {
    std::mem::forget(far);
}
