//! What the proxy holds: memory under slow readers and writers, descriptors, many connections.

use std::time::Duration;

use integration_tests::{Config, Gate, Origin, Proxy, Wire, wait};
use serde_json::json;

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const MIB: u64 = 1 << 20;

#[test]
fn a_slow_reader_bounds_what_is_read_from_the_upstream() {
    let origin = Origin::script(|mut peer| {
        while peer.request().is_some() {
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 * MIB));
            let block = vec![b'x'; MIB as usize];
            for _ in 0..64 {
                peer.send(&block);
            }
        }
    });
    let config = Config::new(origin.address())
        .listener(json!({"per_connection_buffer_limit_bytes": 65536}))
        .cluster(json!({"per_connection_buffer_limit_bytes": 65536}));
    let proxy = Proxy::start(&config);
    let before = proxy.process.resident_bytes();
    let mut client = proxy.connect();
    client.shrink_receive_buffer(16 * 1024);
    client.send(GET);
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"));
    let mut most = 0;
    let mut left = 64 * MIB - client.text().len() as u64;
    let mut blocks = 0;
    while left > 0 {
        let count = client.discard(64 * 1024) as u64;
        assert_ne!(count, 0, "ended with {left} bytes to come");
        left -= count;
        blocks += 1;
        // Slow at first, so that the upstream runs ahead if it is let.
        if blocks < 100 {
            std::thread::sleep(Duration::from_millis(2));
        }
        if blocks % 50 == 0 {
            most = most.max(proxy.process.resident_bytes());
        }
    }
    let growth = most.saturating_sub(before);
    assert!(growth < 8 * MIB, "{growth} bytes more than before");
}

#[test]
fn a_slow_upstream_bounds_what_is_read_from_the_client() {
    let gate = Gate::default();
    let waiting = gate.clone();
    let origin = Origin::script(move |mut peer| {
        peer.wire.head();
        waiting.pass();
        while peer.wire.discard(1 << 16) != 0 {}
    });
    let config = Config::new(origin.address())
        .listener(json!({"per_connection_buffer_limit_bytes": 65536}))
        .cluster(json!({"per_connection_buffer_limit_bytes": 65536}));
    let proxy = Proxy::start(&config);
    let before = proxy.process.resident_bytes();
    let mut client = proxy.connect();
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 64 * MIB));
    let sent = client.send_some(&vec![b'x'; 64 << 20], Duration::from_millis(300));
    assert!(sent < 64 << 20, "the client was never held back");
    let growth = proxy.process.resident_bytes().saturating_sub(before);
    assert!(growth < 8 * MIB, "{growth} bytes more than before");
    gate.open(1);
}

#[test]
fn a_thousand_idle_connections_leave_nothing_behind() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    assert_eq!(proxy.get("/").status, 200);
    proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
    let before = proxy.process.descriptors();
    let mut clients: Vec<Wire> = (0..1000).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask(GET).status, 200);
    }
    assert_eq!(proxy.stat("http.ingress.downstream_cx_active"), 1000);
    assert!(proxy.process.descriptors() >= 1000);
    drop(clients);
    proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
    // The admin server's own connections come and go.
    wait::until("the descriptors", || proxy.process.descriptors() <= before + 2);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_destroy"), 1001);
    assert_eq!(proxy.get("/").status, 200);
}

#[test]
fn connections_in_every_state_leave_no_descriptor_behind() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let proxy = Proxy::start(&Config::new(origin.address()));
    gate.open(1);
    proxy.get("/");
    proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
    let before = proxy.process.descriptors();
    let mut clients = Vec::new();
    for sent in ["", "GET / HT", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc", GET] {
        for _ in 0..25 {
            let mut client = proxy.connect();
            client.send(sent);
            clients.push(client);
        }
    }
    proxy.admin.await_stat("http.ingress.downstream_cx_active", 100);
    origin.await_requests(26);
    for (number, client) in clients.into_iter().enumerate() {
        if number % 2 == 0 { client.reset() } else { drop(client) }
    }
    proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
    proxy.admin.await_stat("cluster.origin.upstream_rq_active", 0);
    gate.open(25);
    wait::until("the descriptors", || proxy.process.descriptors() <= before + 3);
}
