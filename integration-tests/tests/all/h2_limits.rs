//! `max_connections` over HTTP/2 upstreams: exact on any number of workers, counted at each accept.

use std::io::{Read, copy};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;

use integration_tests::census::Census;
use integration_tests::config::cluster;
use integration_tests::h2::{H2Client, Manners, setting};
use integration_tests::proxy::Options;
use integration_tests::{Config, Gate, H2Origin, Origin, Proxy, wait};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

const CLIENTS: usize = 24;

/// Requests of each client, one after the other.
const ROUNDS: usize = 6;

/// Streams that a connection takes: fewer than the requests that come at once.
const STREAMS: u32 = 2;

fn start(origin: &H2Origin, limit: usize, workers: usize) -> Proxy {
    let config = Config::new(origin.address())
        .hcm(json!({"codec_type": "AUTO"}))
        .http2_upstream(json!({"max_concurrent_streams": STREAMS}))
        .cluster(json!({"circuit_breakers": {"thresholds": [{"max_connections": limit}]}}));
    Options { concurrency: workers, ..Options::default() }.start(&config)
}

#[test]
fn max_connections_is_never_exceeded() {
    for workers in [2, 4] {
        for limit in [1, 2] {
            let manners = Manners::settings(&[(setting::MAX_CONCURRENT_STREAMS, STREAMS)]);
            let origin = H2Origin::with(manners, |stream| {
                stream.request();
                stream.answer(200, "ok");
            });
            let proxy = start(&origin, limit, workers);
            std::thread::scope(|scope| {
                for client in 0..CLIENTS {
                    let proxy = &proxy;
                    scope.spawn(move || ask(proxy, client));
                }
            });
            let what = format!("{workers} workers, {limit} connections");
            assert!(origin.census().most() <= limit, "{what}: {}", origin.census().most());
            assert_eq!(origin.streams().len(), CLIENTS * ROUNDS, "{what}");
            let most = (0..origin.connections()).map(|number| origin.connection(number).most_streams()).max();
            assert!(most <= Some(STREAMS as usize), "{what}: {most:?} streams on one connection");
            assert_eq!(proxy.stat("cluster.origin.upstream_rq_5xx"), 0, "{what}");
        }
    }
}

/// Half of the clients speak HTTP/2 themselves.
fn ask(proxy: &Proxy, client: usize) {
    if client.is_multiple_of(2) {
        let client = H2Client::connect(proxy.address);
        (0..ROUNDS).for_each(|_| assert_eq!(client.ask("/").status(), 200));
    } else {
        let mut client = proxy.connect();
        let get = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
        (0..ROUNDS).for_each(|_| assert_eq!(client.ask(get).status, 200));
    }
}

/// A host of both protocols: passes each connection on to one of two upstreams, by its first byte, and counts it.
fn host(census: &Arc<Census>, http1: SocketAddr, http2: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let census = census.clone();
    std::thread::spawn(move || {
        while let Ok((near, _)) = listener.accept() {
            let near = Arc::new(Socket::from(near));
            census.enter(&near);
            std::thread::spawn(move || pass(&near, http1, http2));
        }
    });
    address
}

fn pass(near: &Arc<Socket>, http1: SocketAddr, http2: SocketAddr) {
    // A preface begins with P, and no request of this test does.
    let mut first = [0];
    let Ok(1) = (&**near).read(&mut first) else { return };
    let far = Arc::new(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    far.connect(&(if first == *b"P" { http2 } else { http1 }).into()).unwrap();
    far.send(&first).unwrap();
    let (from, to) = (near.clone(), far.clone());
    std::thread::spawn(move || one_way(&from, &to));
    one_way(&far, near);
}

fn one_way(from: &Socket, to: &Socket) {
    let _ = copy(&mut &*from, &mut &*to);
    let _ = to.shutdown(Shutdown::Write);
}

/// All connections there may be, and not one more, whichever protocol they speak and whichever host they lead to.
fn is_reached_and_never_exceeded(limit: usize, options: Value) {
    let (gate, census) = (Gate::default(), Arc::new(Census::default()));
    let manners = Manners::settings(&[(setting::MAX_CONCURRENT_STREAMS, STREAMS)]);
    let (http1, http2) = (Origin::gated(&gate), H2Origin::gated(manners, &gate));
    let hosts = [0, 1].map(|_| host(&census, http1.address(), http2.address()));
    let config = Config::with_clusters(&[cluster("origin", &hosts)])
        .hcm(json!({"codec_type": "AUTO"}))
        .cluster_http(options)
        .cluster(json!({"circuit_breakers": {"thresholds": [{"max_connections": limit}]}}));
    let proxy = Options { concurrency: 4, ..Options::default() }.start(&config);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let proxy = &proxy;
            scope.spawn(move || ask(proxy, client));
        }
        wait::until("all connections", || census.now() == limit);
        gate.open(CLIENTS * ROUNDS);
    });
    assert_eq!(census.most(), limit, "of {limit}");
    let served = http1.requests().len() + http2.streams().len();
    assert_eq!((served, proxy.stat("cluster.origin.upstream_rq_5xx")), (CLIENTS * ROUNDS, 0), "{limit}");
}

#[test]
fn max_connections_is_reached_over_http2() {
    for limit in 1..=4 {
        let options = json!({"max_concurrent_streams": STREAMS});
        let options = json!({"http_protocol_options": null, "http2_protocol_options": options});
        is_reached_and_never_exceeded(limit, json!({"explicit_http_config": options}));
    }
}

#[test]
fn max_connections_is_reached_over_both_protocols_at_once() {
    for limit in 1..=4 {
        let both = json!({"http_protocol_options": {}, "http2_protocol_options": {"max_concurrent_streams": STREAMS}});
        let options = json!({"explicit_http_config": null, "use_downstream_protocol_config": both});
        is_reached_and_never_exceeded(limit, options);
    }
}
