//! Requests that are sent again, or twice: safe retries of reused connections, retry policies, hedging,
//! mirroring. Scripted upstreams, exact counts.

use integration_tests::config::text_format;
use integration_tests::origin::{OK, Peer};
use integration_tests::proxy::await_lines;
use integration_tests::{Config, Origin, Proxy, Request};
use serde_json::json;

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const EMPTY_POST: &str = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\n\r\n";
const PUT: &str = "PUT / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\n\r\nbody";
const POST: &str = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\n\r\nbody";

/// How an upstream ends a connection on which it has read a second request.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Fin,
    Rst,
    HalfAHead,
}

/// Its first `stale` connections answer one request and read another.
fn closing_on_reuse(stale: usize, ending: Ending) -> Origin {
    Origin::script(move |mut peer| {
        if peer.number < stale {
            peer.request();
            peer.send(OK);
            peer.request();
            return match ending {
                Ending::Fin => {}
                Ending::Rst => peer.wire.reset(),
                Ending::HalfAHead => _ = peer.send("HTTP/1.1 200"),
            };
        }
        serve(&mut peer);
    })
}

fn serve(peer: &mut Peer) {
    while peer.request().is_some() {
        peer.send(OK);
    }
}

fn safe_retries(proxy: &Proxy) -> [u64; 5] {
    let stats = proxy.admin.stats();
    ["", "_success", "_denied.method", "_denied.body", "_denied.limit"]
        .map(|name| stats.get(&format!("cluster.origin.upstream_rq_safe_retry{name}")))
}

fn logged(config: Config, folder: &tempfile::TempDir) -> Config {
    let format = text_format("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    config.access_log(&folder.path().join("access.log"), format)
}

fn log_line(folder: &tempfile::TempDir, number: usize) -> String {
    await_lines(&folder.path().join("access.log"), number + 1).remove(number)
}

fn methods(requests: &[Request]) -> Vec<(usize, String)> {
    let method = |request: &Request| request.line().split(' ').next().unwrap_or_default().to_owned();
    requests.iter().map(|request| (request.connection, method(request))).collect()
}

#[test]
fn an_idempotent_request_on_a_dying_connection_is_sent_again() {
    for ending in [Ending::Fin, Ending::Rst] {
        for request in [GET, PUT] {
            let origin = closing_on_reuse(1, ending);
            let proxy = Proxy::start(&Config::new(origin.address()));
            let mut client = proxy.connect();
            assert_eq!(client.ask(GET).status, 200);
            assert_eq!(client.ask(request).status, 200, "{ending:?} {request}");
            assert_eq!(safe_retries(&proxy), [1, 1, 0, 0, 0], "{ending:?} {request}");
            let requests = origin.requests();
            assert_eq!(requests.iter().map(|request| request.connection).collect::<Vec<_>>(), [0, 0, 1]);
            assert_eq!(requests[1].body, requests[2].body);
            assert_eq!(proxy.stat("cluster.origin.upstream_rq_retry"), 0);
            assert_eq!(proxy.stat("cluster.origin.upstream_rq_total"), 3);
        }
    }
}

#[test]
fn a_post_on_a_dying_connection_is_one_503_and_arrives_once() {
    for ending in [Ending::Fin, Ending::Rst] {
        for request in [EMPTY_POST, POST] {
            let origin = closing_on_reuse(1, ending);
            let folder = tempfile::tempdir().unwrap();
            let proxy = Proxy::start(&logged(Config::new(origin.address()), &folder));
            let mut client = proxy.connect();
            assert_eq!(client.ask(GET).status, 200);
            let response = client.ask(request);
            assert_eq!(response.status, 503);
            assert!(response.text().ends_with("before headers. reset reason: connection termination"));
            let details = "503 UC upstream_reset_before_response_started{stale_connection}";
            assert_eq!(log_line(&folder, 1), details);
            assert_eq!(safe_retries(&proxy), [0, 0, 1, 0, 0]);
            assert_eq!(client.ask(request).status, 200);
            let posts = methods(&origin.requests()).into_iter().filter(|(_, method)| method == "POST");
            assert_eq!(posts.map(|(connection, _)| connection).collect::<Vec<_>>(), [0, 1]);
        }
    }
}

#[test]
fn a_new_connections_failure_is_no_safe_retry() {
    let origin = Origin::script(|mut peer| {
        peer.request();
    });
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&logged(Config::new(origin.address()), &folder));
    assert_eq!(proxy.connect().ask(GET).status, 503);
    assert_eq!(log_line(&folder, 0), "503 UC upstream_reset_before_response_started{connection_termination}");
    assert_eq!((safe_retries(&proxy), origin.requests().len()), ([0; 5], 1));
}

#[test]
fn part_of_an_answer_forbids_a_safe_retry() {
    let origin = closing_on_reuse(1, Ending::HalfAHead);
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).status, 200);
    assert_eq!(client.ask(GET).status, 502);
    assert_eq!((safe_retries(&proxy), origin.requests().len()), ([0; 5], 2));
}

#[test]
fn the_retry_circuit_breaker_denies_safe_retries() {
    let origin = closing_on_reuse(1, Ending::Fin);
    let folder = tempfile::tempdir().unwrap();
    let limits = json!({"circuit_breakers": {"thresholds": [{"max_retries": 0}]}});
    let proxy = Proxy::start(&logged(Config::new(origin.address()).cluster(limits), &folder));
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).status, 200);
    assert_eq!(client.ask(GET).status, 503);
    assert_eq!(log_line(&folder, 1), "503 UC upstream_reset_before_response_started{stale_connection}");
    assert_eq!(safe_retries(&proxy), [0, 0, 0, 0, 1]);
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_retry_overflow"), 0);
}

#[test]
fn a_body_too_large_to_keep_denies_a_safe_retry() {
    let origin = closing_on_reuse(1, Ending::Fin);
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).status, 200);
    let size = 1024 * 1024;
    let head = format!("PUT / HTTP/1.1\r\nhost: a.test\r\ncontent-length: {size}\r\n\r\n");
    client.send(head).send("x".repeat(size));
    assert_eq!(client.response().status, 503);
    assert_eq!(safe_retries(&proxy), [0, 0, 0, 1, 0]);
}

#[test]
fn a_policy_may_still_retry_what_the_proof_does_not_cover() {
    let origin = closing_on_reuse(1, Ending::Fin);
    let policy = json!({"route": {"retry_policy": {"retry_on": "reset"}}});
    let proxy = Proxy::start(&Config::new(origin.address()).route(policy));
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).status, 200);
    assert_eq!(client.ask(POST).status, 200);
    assert_eq!(safe_retries(&proxy), [0, 0, 1, 0, 0]);
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_retry"), 1);
}
