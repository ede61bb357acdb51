//! Clients that do not read: what the end of a response waits for, and what ends the wait.

use std::time::Duration;

use integration_tests::proxy::Options;
use integration_tests::{Config, Origin, Proxy, Wire, wait};
use serde_json::{Value, json};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const LENGTH: usize = 16 * 1024;

fn origin() -> Origin {
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n{}", "x".repeat(LENGTH));
    Origin::answering(move |_| answer.clone())
}

/// A client that asks again and again and reads nothing, until nothing can be written to it any more: its last answer
/// was taken from the upstream, and its end stands in the proxy.
fn deaf(proxy: &Proxy) -> Wire {
    let mut client = Wire::connect(proxy.address);
    client.shrink_receive_buffer(4 * 1024);
    let requests = REQUEST.repeat(256);
    let (mut seen, mut sent) = (0, 0);
    wait::until("a full socket", || {
        // Where it was left off.
        let rest = &requests.as_bytes()[sent % REQUEST.len()..];
        sent += client.send_some(rest, Duration::from_millis(1));
        std::thread::sleep(Duration::from_millis(50));
        let served = proxy.stat("http.ingress.downstream_rq_total");
        std::mem::replace(&mut seen, served) == served && served > 0
    });
    client
}

fn start(origin: &Origin, change: Value) -> Proxy {
    let arguments = vec!["--drain-time-s".to_owned(), "1".to_owned()];
    let config = Config::new(origin.address()).hcm(change);
    Options { arguments, ..Options::default() }.start(&config)
}

fn http(proxy: &Proxy, name: &str) -> u64 {
    proxy.stat(&format!("http.ingress.downstream_{name}"))
}

#[test]
fn the_idle_timeout_ends_a_client_that_does_not_read() {
    let origin = origin();
    let proxy = start(
        &origin,
        json!({"common_http_protocol_options": {"idle_timeout": "1s"}, "drain_timeout": "0.1s"}),
    );
    let _client = deaf(&proxy);
    wait::until("its end", || http(&proxy, "cx_active") == 0);
    assert_eq!((http(&proxy, "cx_idle_timeout"), http(&proxy, "rq_active")), (1, 0));
    assert_eq!(http(&proxy, "cx_destroy_local"), 1);
    assert_eq!(proxy.get("/").body.len(), LENGTH);
}

#[test]
fn the_longest_duration_ends_a_client_that_does_not_read() {
    let origin = origin();
    let proxy = start(
        &origin,
        json!({"common_http_protocol_options": {"max_connection_duration": "1s"}, "drain_timeout": "0.1s"}),
    );
    let _client = deaf(&proxy);
    wait::until("its end", || http(&proxy, "cx_active") == 0);
    assert_eq!((http(&proxy, "cx_max_duration_reached"), http(&proxy, "rq_active")), (1, 0));
}

#[test]
fn a_client_that_does_not_read_may_go() {
    let origin = origin();
    let proxy = start(&origin, json!({}));
    deaf(&proxy).reset();
    wait::until("its end", || http(&proxy, "cx_active") == 0);
    assert_eq!((http(&proxy, "rq_active"), http(&proxy, "cx_destroy_remote")), (0, 1));
}

#[test]
fn the_end_of_the_process_does_not_wait_for_ever() {
    let origin = origin();
    let mut proxy = start(&origin, json!({}));
    let _client = deaf(&proxy);
    proxy.process.signal("TERM");
    assert!(proxy.process.exit().success());
}
