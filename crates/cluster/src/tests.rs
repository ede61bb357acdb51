//! Directories with real upstreams on port 0.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::rc::Rc;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tidegate_config::ClusterConfig;
use tidegate_config::cluster::{
    CircuitBreakers, ClusterSettings, Discovery, EndpointConfig, HealthStatus, LbPolicy, LocalityEndpoints,
    Settings, Thresholds, UpstreamProtocol,
};
use tidegate_config::runtime::Runtime;
use tidegate_config::transport::UpstreamTransport;
use tidegate_filter::{CalloutError, Clusters};
use tidegate_stats::Store;
use tidegate_types::{Address, CloseReason, Compat, RequestHead};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::{Ask, BuildContext, ClusterShared, Directory, HostStat, Peers, Priority, Transports};

mod pools;

pub(crate) fn config(name: &str, addresses: &[Address]) -> ClusterConfig {
    let endpoint = |address: &Address| EndpointConfig {
        address: address.clone(),
        additional_addresses: Vec::new(),
        name: None,
        hostname: String::new(),
        weight: 1,
        health_check: Default::default(),
        health_status: HealthStatus::Unknown,
        metadata: None,
    };
    let place = LocalityEndpoints {
        locality: Default::default(),
        priority: 0,
        weight: None,
        metadata: None,
        endpoints: addresses.iter().map(endpoint).collect(),
    };
    let settings = ClusterSettings {
        discovery: Discovery::Static,
        lb_policy: LbPolicy::default(),
        locality_lb: Default::default(),
        subsets: None,
        weighted_priority_health: false,
        overprovisioning_factor: 140,
        drop_overload: None,
        healthy_panic_threshold: 50.0,
        close_connections_on_host_set_change: false,
        update_merge_window: None,
        ignore_new_hosts_until_first_hc: false,
        health_checks: Vec::new(),
        ignore_health_on_host_removal: false,
        close_connections_on_host_health_failure: false,
        pool_per_downstream_connection: false,
        connect_timeout: Duration::from_secs(5),
        per_connection_buffer_limit_bytes: 1 << 20,
        circuit_breakers: CircuitBreakers::default(),
        protocol: UpstreamProtocol::Http1(Default::default()),
        common_http: Default::default(),
        tcp_idle_timeout: None,
        outlier_detection: None,
        preconnect: Default::default(),
        tcp_keepalive: None,
        happy_eyeballs: Default::default(),
        bind: None,
        auto_sni: Default::default(),
        reuse: Default::default(),
        http3_selection: Default::default(),
        retry_policy: None,
        mirrors: Vec::new(),
        transport_matches: Vec::new(),
        wait_for_warm_on_init: true,
        track_stats: tidegate_config::cluster::TrackStats::default(),
    };
    ClusterConfig {
        name: name.into(),
        alt_stat_name: None,
        eds: None,
        endpoints: vec![place],
        transport_socket: UpstreamTransport::Raw,
        metadata: None,
        settings: Settings::share(settings),
    }
}

pub(crate) fn build(
    config: ClusterConfig,
    store: &Store,
    previous: Option<&Arc<ClusterShared>>,
) -> Arc<ClusterShared> {
    let runtime = Runtime::default();
    let cx = BuildContext {
        runtime: &runtime,
        home: &Arc::default(),
        store,
        workers: 2,
        compat: Compat::Tidegate,
    };
    ClusterShared::build(&Arc::new(config), Transports::default(), cx, previous)
}

/// An upstream that answers every request with its own address.
async fn upstream() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut seen = Vec::new();
                while let Ok(read @ 1..) = socket.read_buf(&mut seen).await {
                    if seen[seen.len() - read..].ends_with(b"\r\n\r\n") || seen.ends_with(b"body") {
                        let body = address.to_string();
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                        socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    address.into()
}

async fn get(directory: &Directory, cluster: &str) -> Result<Bytes, CalloutError> {
    let request = RequestHead::new(Method::GET, "a.test", "/");
    let callout = directory.http(cluster).unwrap();
    callout.send(request, Bytes::new(), Duration::from_secs(5)).await.map(|response| response.body)
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn callouts_rotate_over_hosts_and_reuse_connections() {
    let store = Store::new(3);
    let test = async {
        let (a, b) = (upstream().await, upstream().await);
        let shared = build(config("c", &[a.clone(), b.clone()]), &store, None);
        let directory = Directory::new(&Arc::new(Peers::default()));
        directory.apply(slice::from_ref(&shared));
        let mut bodies = Vec::new();
        for _ in 0..4 {
            bodies.push(String::from_utf8(get(&directory, "c").await.unwrap().to_vec()).unwrap());
        }
        assert_eq!(bodies.iter().filter(|body| **body == a.to_string()).count(), 2);
        assert_eq!((&bodies[0], &bodies[1]), (&bodies[2], &bodies[3]));
        let stats = shared.stats();
        assert_eq!(stats.upstream.upstream_cx_total().value(), 2);
        assert_eq!(stats.upstream.upstream_rq_total().value(), 4);
        assert_eq!(stats.members.membership_total().value(), 2);
        let host = &shared.hosts().hosts[0];
        let value = |stat| host.stats.value(stat);
        assert_eq!((value(HostStat::CxTotal), value(HostStat::CxActive)), (1, 1));
        assert_eq!(
            (value(HostStat::RqTotal), value(HostStat::RqActive), value(HostStat::RqSuccess)),
            (2, 0, 2)
        );
        assert!(directory.http("other").is_none());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn an_empty_cluster_has_no_host_and_counts_panic() {
    let store = Store::new(3);
    let test = async {
        let shared = build(config("c", &[]), &store, None);
        let directory = Directory::new(&Arc::new(Peers::default()));
        directory.apply(slice::from_ref(&shared));
        assert_eq!(get(&directory, "c").await, Err(CalloutError::Failed("no healthy upstream")));
        assert_eq!(shared.stats().upstream.upstream_cx_none_healthy().value(), 1);
        assert_eq!(shared.stats().balance.lb_healthy_panic().value(), 1);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_reload_keeps_what_did_not_change_and_drains_the_rest() {
    let store = Store::new(3);
    let test = async {
        let address = upstream().await;
        let old: Vec<_> = ["same", "changed", "removed"]
            .map(|name| build(config(name, slice::from_ref(&address)), &store, None))
            .into();
        let directory = Directory::new(&Arc::new(Peers::default()));
        directory.apply(&old);
        for name in ["same", "changed", "removed"] {
            get(&directory, name).await.unwrap();
        }
        let mut changed = config("changed", slice::from_ref(&address));
        changed.connect_timeout = Duration::from_secs(1);
        let new = [
            build(config("same", slice::from_ref(&address)), &store, Some(&old[0])),
            build(changed, &store, Some(&old[1])),
        ];
        assert!(Arc::ptr_eq(&new[0], &old[0]) && !Arc::ptr_eq(&new[1], &old[1]));

        // A request in flight ends under what it began with.
        let cluster = directory.cluster("changed").unwrap();
        let host = cluster.choose_host().unwrap();
        let lease = cluster.acquire(&host, Ask::new(Priority::Default, Instant::now())).await.unwrap();
        directory.apply(&new);
        let active = |shared: &Arc<ClusterShared>| shared.stats().upstream.upstream_cx_active().value();
        assert_eq!((active(&old[0]), active(&old[1]), active(&old[2])), (1, 1, 0));
        lease.finish();
        assert_eq!(active(&new[1]), 0);
        assert!(directory.cluster("removed").is_none());
        get(&directory, "changed").await.unwrap();
        get(&directory, "same").await.unwrap();
        assert_eq!(new[1].stats().upstream.upstream_rq_total().value(), 3, "counters go on");
        assert_eq!(new[0].stats().upstream.upstream_cx_total().value(), 1);
        assert_eq!(new[1].limits(Priority::Default).connections.used(), 1);
        drop(directory);
        assert_eq!(active(&old[0]), 0);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn idle_connections_of_other_hosts_and_workers_make_room() {
    let store = Store::new(3);
    let test = async {
        let one = Thresholds { max_connections: 1, ..Thresholds::default() };
        let breakers = CircuitBreakers { default: one, ..CircuitBreakers::default() };
        let hosts = [upstream().await, upstream().await];
        let mut config = config("c", &hosts);
        config.circuit_breakers = breakers;
        let shared = build(config, &store, None);
        let peers = Arc::new(Peers::default());
        // Two workers, here on one thread.
        let workers: Vec<Rc<Directory>> = (0..2).map(|_| Directory::new(&peers)).collect();
        workers.iter().for_each(|worker| worker.apply(slice::from_ref(&shared)));
        for round in 0..8 {
            get(&workers[round / 2 % 2], "c").await.unwrap();
            assert_eq!(shared.limits(Priority::Default).connections.used(), 1);
        }
        let all = all_at_once(&workers).await;
        assert!(all.iter().all(Result::is_ok));
        assert!(shared.limits(Priority::Default).connections.used() <= 1);
        until("requests are over", || shared.stats().upstream.upstream_rq_active().value() == 0).await;
    };
    LocalSet::new().run_until(test).await;
}

/// Twenty requests at once, from all workers.
async fn all_at_once(workers: &[Rc<Directory>]) -> Vec<Result<Bytes, CalloutError>> {
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let worker = workers[i % workers.len()].clone();
            tokio::task::spawn_local(async move { get(&worker, "c").await })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

#[tokio::test]
async fn runtime_overrides_limits() {
    let store = Store::new(1);
    let mut runtime = Runtime::default();
    let value = tidegate_config::runtime::RuntimeValue::Number(7.0);
    runtime.values.insert("circuit_breakers.c.high.max_connections".into(), value);
    let cx = BuildContext {
        runtime: &runtime,
        home: &Arc::default(),
        store: &store,
        workers: 1,
        compat: Compat::Tidegate,
    };
    let shared = ClusterShared::build(&Arc::new(config("c", &[])), Transports::default(), cx, None);
    assert_eq!(shared.limits(Priority::High).connections.max(), 7);
    assert_eq!(shared.limits(Priority::Default).connections.max(), 1024);
}

/// Runs `test` on a thread of its own, as a worker does.
fn worker<F: Future<Output = ()> + 'static>(
    test: impl FnOnce() -> F + Send + 'static,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, test());
    })
}

#[test]
fn two_threads_share_one_connection_and_nobody_starves() {
    let (address_to, address_from) = std::sync::mpsc::channel();
    let (done, over) = tokio::sync::oneshot::channel::<()>();
    let server = worker(move || async move {
        address_to.send(upstream().await).unwrap();
        let _ = over.await;
    });
    let hosts = [address_from.recv().unwrap()];
    let store = Store::new(1);
    let one = Thresholds { max_connections: 1, ..Thresholds::default() };
    let breakers = CircuitBreakers { default: one, ..CircuitBreakers::default() };
    let mut config = config("c", &hosts);
    config.circuit_breakers = breakers;
    let shared = build(config, &store, None);
    let peers = Arc::new(Peers::default());
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (shared, peers) = (shared.clone(), peers.clone());
            worker(move || async move {
                let directory = Directory::new(&peers);
                directory.apply(slice::from_ref(&shared));
                for _ in 0..50 {
                    get(&directory, "c").await.unwrap();
                    assert!(shared.limits(Priority::Default).connections.used() <= 1);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    drop(done);
    server.join().unwrap();
    assert_eq!(shared.limits(Priority::Default).connections.used(), 0);
    assert_eq!(shared.stats().upstream.upstream_rq_total().value(), 100);
}

#[tokio::test]
async fn connections_are_opened_ahead_of_the_load_balancers_choices() {
    let store = Store::new(3);
    let test = async {
        let addresses = [upstream().await, upstream().await];
        let mut config = config("c", &addresses);
        config.preconnect.predictive = 2.0;
        let shared = build(config, &store, None);
        let directory = Directory::new(&Arc::new(Peers::default()));
        directory.apply(slice::from_ref(&shared));
        get(&directory, "c").await.unwrap();
        // One for the request, one for what follows, with the hosts that are next.
        let hosts = shared.hosts();
        let totals =
            || hosts.hosts.iter().map(|host| host.stats.value(HostStat::CxTotal)).collect::<Vec<_>>();
        assert_eq!(totals(), [1, 1]);
        let stats = &shared.stats().upstream;
        until("both idle", || stats.upstream_cx_idle().value() == 2).await;
        get(&directory, "c").await.unwrap();
        assert_eq!(totals(), [1, 1]);
        assert_eq!(stats.upstream_rq_pending_total().value(), 1);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_spare_connection_makes_room_for_a_session_with_another_host() {
    let store = Store::new(3);
    let test = async {
        let addresses = [upstream().await, upstream().await];
        let mut config = config("c", &addresses);
        config.preconnect.per_upstream = 2.0;
        config.circuit_breakers.default =
            Thresholds { max_connections: 2, ..config.circuit_breakers.default.clone() };
        let shared = build(config, &store, None);
        let directory = Directory::new(&Arc::new(Peers::default()));
        directory.apply(slice::from_ref(&shared));
        let cluster = directory.cluster("c").unwrap();
        let stats = &shared.stats().upstream;
        let mut sessions = Vec::new();
        for _ in 0..2 {
            let host = cluster.choose_host().unwrap();
            sessions.push(cluster.acquire_tcp(&host, Rc::default()).await.unwrap());
        }
        assert_eq!((stats.upstream_cx_total().value(), stats.upstream_cx_active().value()), (3, 2));
        assert_eq!(stats.upstream_cx_close_reason().of(CloseReason::Overflow).value(), 1);
        let host = cluster.choose_host().unwrap();
        assert!(cluster.acquire_tcp(&host, Rc::default()).await.is_err(), "what is in use stays in use");
    };
    LocalSet::new().run_until(test).await;
}

#[test]
fn connection_reuse_says_what_is_learned_and_how_many_connect_at_once() {
    let reuse = tidegate_config::cluster::ConnectionReuse {
        learn_idle: false,
        max_connecting: Some(3),
        ..Default::default()
    };
    let store = Store::new(1);
    let mut learning = config("c", &[]);
    learning.reuse = reuse;
    let shared = build(learning, &store, None);
    assert!(!shared.learns_idle());
    assert_eq!(shared.limits(Priority::High).connecting.max(), 3);
    let runtime = Runtime::default();
    for (compat, learns) in [(Compat::Tidegate, true), (Compat::EnvoyStrict, false)] {
        let cx = BuildContext { runtime: &runtime, home: &Arc::default(), store: &store, workers: 1, compat };
        let shared = ClusterShared::build(&Arc::new(config("d", &[])), Transports::default(), cx, None);
        assert_eq!(shared.learns_idle(), learns);
    }
}

#[test]
fn what_a_cluster_was_not_asked_for_is_listed_and_made_with_the_first_use() {
    let store = Store::new(1);
    let listed = || tidegate_stats::render::text(&store, &Default::default());
    let first = build(config("c", &[]), &store, None);
    assert_eq!(store.scopes(), 2, "its hosts, and the manager of all clusters");
    let before = listed();
    for name in [
        "upstream_rq_total",
        "upstream_cx_close_reason.idle_timeout",
        "lb_healthy_panic",
        "http1.response_flood",
    ] {
        assert_eq!(before.matches(&format!("cluster.c.{name}: 0\n")).count(), 1, "{name}: {before}");
    }
    assert!(before.contains("cluster.c.circuit_breakers.high.rq_open: 0\n"));

    // One that is replaced before its first use counts together with its successor, and is listed once.
    let mut changed = config("c", &[]);
    changed.connect_timeout = Duration::from_secs(1);
    let second = build(changed, &store, Some(&first));
    assert_eq!(listed().replace("membership_change: 2", "membership_change: 1"), before);
    first.stats().upstream.upstream_rq_total().inc();
    drop(first);
    assert_eq!(second.stats().upstream.upstream_rq_total().value(), 1);
    let names =
        |text: &str| text.lines().map(|line| line.split(':').next().map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(names(&listed()), names(&before));
    drop(second);
    assert_eq!(listed(), "");
}
