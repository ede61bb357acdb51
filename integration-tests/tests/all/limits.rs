//! Limits that are exact, counted where they matter: at the upstream, at each accept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use integration_tests::config::cluster;
use integration_tests::origin::OK;
use integration_tests::proxy::Options;
use integration_tests::{Config, Gate, Origin, Proxy, Stats, Wire};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const CLIENTS: usize = 24;
const EACH: usize = 12;

fn thresholds(limits: Value) -> Value {
    json!({"circuit_breakers": {"thresholds": [limits]}})
}

/// An upstream whose connections end now and then, so that there is something to open again.
fn churning() -> Origin {
    let count = AtomicUsize::new(0);
    Origin::script(move |mut peer| {
        while peer.request().is_some() {
            match count.fetch_add(1, Ordering::SeqCst) % 7 {
                0 => {
                    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
                    return;
                }
                3 => std::thread::sleep(Duration::from_millis(2)),
                _ => {}
            }
            peer.send(OK);
        }
    })
}

/// [`CLIENTS`] clients ask [`EACH`] times, each at once after its answer; every request is answered.
#[track_caller]
fn ask_all(proxy: &Proxy) {
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = proxy.connect();
                for number in 0..EACH {
                    let response = client.ask(GET);
                    assert_eq!(response.status, 200, "{number}: {}", response.head);
                }
            });
        }
    });
}

/// No starvation, never one connection too many, with one host and with more hosts than connections.
#[test]
fn max_connections_holds_at_each_moment_whatever_the_workers() {
    for limit in [1_usize, 2, 8] {
        for concurrency in [1, 2, 4] {
            let origin = churning();
            let config = Config::new(origin.address()).cluster(thresholds(json!({"max_connections": limit})));
            let proxy = Options { concurrency, ..Options::default() }.start(&config);
            ask_all(&proxy);
            let most = origin.census().most();
            assert!(most <= limit, "{most} connections: limit {limit}, {concurrency} workers");
            assert_eq!(origin.requests().len(), CLIENTS * EACH);
        }
    }
}

#[test]
fn max_connections_holds_over_hosts_and_workers_together() {
    for (limit, concurrency) in [(1, 1), (2, 4), (3, 2)] {
        let shared = Arc::new(integration_tests::census::Census::default());
        let hosts: Vec<Origin> = (0..4)
            .map(|_| {
                let shared = shared.clone();
                Origin::script(move |mut peer| {
                    peer.join(&shared);
                    while peer.request().is_some() {
                        peer.send(OK);
                    }
                })
            })
            .collect();
        let addresses: Vec<_> = hosts.iter().map(Origin::address).collect();
        let config = Config::with_clusters(&[cluster("origin", &addresses)])
            .cluster(thresholds(json!({"max_connections": limit})));
        let proxy = Options { concurrency, ..Options::default() }.start(&config);
        ask_all(&proxy);
        assert!(shared.most() <= limit, "{} connections of {limit}, {concurrency} workers", shared.most());
        assert_eq!(hosts.iter().map(|host| host.requests().len()).sum::<usize>(), CLIENTS * EACH);
    }
}

/// `max_connections: 1` with `max_pending_requests: 1` under as many requests at once: statuses and counters as
/// measured with Envoy.
#[test]
fn one_connection_and_one_place_to_wait_under_one_two_and_three_requests() {
    const COUNTERS: [&str; 9] = [
        "upstream_cx_total",
        "upstream_cx_overflow",
        "upstream_rq_total",
        "upstream_rq_pending_total",
        "upstream_rq_pending_overflow",
        "upstream_rq_completed",
        "upstream_rq_503",
        "circuit_breakers.default.cx_open",
        "circuit_breakers.default.rq_pending_open",
    ];
    for (requests, during, after) in [
        (1, [1, 0, 1, 1, 0, 0, 0, 1, 0], [1, 0, 1, 1, 0, 1, 0, 1, 0]),
        (2, [1, 1, 1, 2, 0, 0, 0, 1, 1], [1, 1, 2, 2, 0, 2, 0, 1, 0]),
        (3, [1, 1, 1, 2, 1, 1, 1, 1, 1], [1, 1, 2, 2, 1, 3, 1, 1, 0]),
    ] {
        let gate = Gate::default();
        let origin = Origin::gated(&gate);
        let limits = json!({"max_connections": 1, "max_pending_requests": 1, "track_remaining": true});
        let proxy = Proxy::start(&Config::new(origin.address()).cluster(thresholds(limits)));
        let taken_up = ["upstream_rq_active", "upstream_rq_pending_active", "upstream_rq_pending_overflow"];
        let mut clients: Vec<Wire> = taken_up[..requests]
            .iter()
            .map(|sign| {
                let mut client = proxy.connect();
                client.send(GET);
                proxy.admin.await_stat(&format!("cluster.origin.{sign}"), 1);
                client
            })
            .collect();
        let look = |stats: &Stats| COUNTERS.map(|name| stats.get(&format!("cluster.origin.{name}")));
        let refused = (requests == 3).then(|| clients.remove(2).response());
        assert_eq!(look(&proxy.admin.stats()), during, "{requests} requests: {COUNTERS:?}");
        gate.open(requests);
        assert!(clients.iter_mut().all(|client| client.response().status == 200));
        if let Some(refused) = refused {
            assert_eq!((refused.status, refused.header("x-envoy-overloaded")), (503, Some("true")));
        }
        proxy.admin.await_stat("cluster.origin.upstream_rq_active", 0);
        assert_eq!(look(&proxy.admin.stats()), after, "{requests} requests: {COUNTERS:?}");
        assert_eq!(proxy.stat("cluster.origin.circuit_breakers.default.remaining_cx"), 0);
        assert_eq!(proxy.stat("cluster.origin.circuit_breakers.default.remaining_pending"), 1);
    }
}

/// A third request waits for nothing: the limit of requests is not the limit of those that wait.
#[test]
fn max_requests_is_counted_as_such() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let proxy = Proxy::start(&Config::new(origin.address()).cluster(thresholds(json!({"max_requests": 1}))));
    let mut first = proxy.connect();
    first.send(GET);
    proxy.admin.await_stat("cluster.origin.upstream_rq_active", 1);
    for _ in 0..2 {
        let refused = proxy.get("/");
        assert_eq!((refused.status, refused.header("x-envoy-overloaded")), (503, Some("true")));
    }
    for (name, value) in [
        ("upstream_rq_active_overflow", 2),
        ("upstream_rq_pending_overflow", 0),
        ("upstream_rq_total", 1),
        ("circuit_breakers.default.rq_open", 1),
    ] {
        assert_eq!(proxy.stat(&format!("cluster.origin.{name}")), value, "{name}");
    }
    gate.open(1);
    assert_eq!(first.response().status, 200);
    proxy.admin.await_stat("cluster.origin.circuit_breakers.default.rq_open", 0);
}

/// All that wait above the limit are refused, and none that is within.
#[test]
fn pending_requests_overflow_exactly() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let limits = json!({"max_connections": 1, "max_pending_requests": 3});
    let options = Options { concurrency: 2, ..Options::default() };
    let proxy = options.start(&Config::new(origin.address()).cluster(thresholds(limits)));
    let mut clients: Vec<Wire> = (0..10).map(|_| proxy.connect()).collect();
    clients[0].send(GET);
    proxy.admin.await_stat("cluster.origin.upstream_rq_active", 1);
    for client in &mut clients[1..] {
        client.send(GET);
    }
    proxy.admin.await_stat("cluster.origin.upstream_rq_pending_overflow", 6);
    gate.open(4);
    let mut statuses: Vec<u16> = clients.iter_mut().map(|client| client.response().status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 503, 503, 503, 503, 503, 503]);
    assert_eq!(origin.requests().len(), 4);
    assert_eq!(origin.census().most(), 1);
}

/// A severed upstream connection resets the one request on it.
#[test]
fn a_severed_connection_costs_exactly_one_request() {
    let gate = Gate::default();
    let passed = gate.clone();
    let origin = Origin::script(move |mut peer| {
        while let Some(request) = peer.request() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
            if request.path() == "/cut" {
                return peer.wire.reset();
            }
            passed.pass();
            peer.send("rest");
        }
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut clients: Vec<Wire> = (0..8)
        .map(|number| {
            let mut client = proxy.connect();
            let path = if number == 5 { "/cut" } else { "/" };
            client.send(format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n"));
            client.through("half");
            client
        })
        .collect();
    let mut cut = clients.remove(5);
    assert_ne!(cut.end(), integration_tests::End::Open);
    gate.open(7);
    assert!(clients.iter_mut().all(|client| client.through("rest") == "rest"));
    assert!(clients.iter_mut().all(|client| client.is_quiet_for(Duration::ZERO)));
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_destroy_remote_with_active_rq"), 1);
    proxy.admin.await_stat("cluster.origin.upstream_rq_active", 0);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_active"), 7);
}
