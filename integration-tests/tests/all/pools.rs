//! Upstream connections: reuse, order, ends.

use integration_tests::{Config, End, Gate, Origin, Proxy, Wire};
use serde_json::json;

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

#[test]
fn clients_share_upstream_connections() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    for _ in 0..10 {
        assert_eq!(proxy.get("/").status, 200);
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn the_connection_that_finished_last_is_used_first() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut clients: Vec<Wire> = (0..3_usize)
        .map(|number| {
            let mut client = proxy.connect();
            client.send(GET);
            origin.await_requests(number + 1);
            client
        })
        .collect();
    gate.open(3);
    for client in &mut clients {
        client.response();
    }
    assert_eq!(origin.connections(), 3);
    proxy.admin.await_stat("cluster.origin.upstream_rq_active", 0);
    gate.open(5);
    for _ in 0..5 {
        proxy.get("/");
    }
    let used: Vec<usize> = origin.requests()[3..].iter().map(|request| request.connection).collect();
    assert!(used.iter().all(|connection| *connection == used[0]), "{used:?}");
    assert_eq!(origin.connections(), 3);
}

#[test]
fn a_connection_that_the_upstream_closed_is_never_used_again() {
    let origin = Origin::script(|mut peer| {
        if peer.request().is_some() {
            peer.send(integration_tests::origin::OK);
        }
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    for number in 1..=30_u64 {
        assert_eq!(client.ask(GET).status, 200);
        // Its end is seen while it idles.
        proxy.admin.await_stat("cluster.origin.upstream_cx_destroy", number);
    }
    assert_eq!(origin.connections(), 30);
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_5xx"), 0);
}

/// Row 7 of "Coming from Envoy": the upstream's close races with the next request.
#[test]
fn a_request_on_a_connection_that_is_just_closing_is_sent_again() {
    let origin = Origin::script(|mut peer| {
        // Closes at once after its answer, so that the next request may be written into the close.
        if peer.request().is_some() {
            peer.send(integration_tests::origin::OK);
        }
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    for number in 0..300 {
        assert_eq!(client.ask(GET).status, 200, "request {number}");
    }
}

#[test]
fn max_requests_per_connection_of_the_cluster_ends_it() {
    let origin = Origin::ok();
    let config = Config::new(origin.address())
        .cluster_http(json!({"common_http_protocol_options": {"max_requests_per_connection": 2}}));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    for _ in 0..6 {
        assert_eq!(client.ask(GET).status, 200);
    }
    let used: Vec<usize> = origin.requests().iter().map(|request| request.connection).collect();
    assert_eq!(used, [0, 0, 1, 1, 2, 2]);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_max_requests"), 3);
}

#[test]
fn bytes_after_a_response_close_the_connection_and_reach_nobody() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    );
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    for _ in 0..5 {
        assert_eq!(client.ask(GET).text(), "ok");
    }
    assert_eq!(origin.connections(), 5);
}

#[test]
fn a_client_that_leaves_midway_costs_the_connection_not_the_pool() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send(GET);
    origin.await_requests(1);
    client.reset();
    proxy.admin.await_stat("cluster.origin.upstream_cx_active", 0);
    gate.open(2);
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn workers_have_pools_of_their_own() {
    let origin = Origin::ok();
    let options = integration_tests::proxy::Options { concurrency: 2, ..Default::default() };
    let proxy = options.start(&Config::new(origin.address()));
    for _ in 0..40 {
        assert_eq!(proxy.get("/").status, 200);
    }
    assert!((1..=2).contains(&origin.connections()), "{}", origin.connections());
}

#[test]
fn ipv6_upstreams_work() {
    let Ok(listener) = std::net::TcpListener::bind("[::1]:0") else {
        return integration_tests::binary::skipped("IPv6");
    };
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut wire = Wire::new(stream);
        wire.request();
        wire.send(integration_tests::origin::OK);
        assert_ne!(wire.end(), End::Open);
    });
    assert_eq!(Proxy::start(&Config::new(address)).get("/").text(), "ok");
}
