//! `max_connections` over HTTP/2 upstreams: exact on any number of workers, counted at each accept.

use integration_tests::h2::{H2Client, Manners, setting};
use integration_tests::proxy::Options;
use integration_tests::{Config, H2Origin, Proxy};
use serde_json::json;

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
