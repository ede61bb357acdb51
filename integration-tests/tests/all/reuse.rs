//! A reused connection never costs a user a request: the upstream closes it just as the next request is on it.

use std::path::PathBuf;

use integration_tests::config::text_format;
use integration_tests::origin::OK;
use integration_tests::proxy::await_lines;
use integration_tests::{Config, End, Origin, Proxy, Wire};
use serde_json::json;

const REUSE: &str = "tidegate.connection_reuse";
const REUSE_TYPE: &str = "type.googleapis.com/tidegate.upstreams.v1.ConnectionReuse";
/// What it is without safe retries, as Envoy says it.
const LOST: &str = "503 UC upstream_reset_before_response_started{connection_termination}";
const STALE: &str = "503 UC upstream_reset_before_response_started{stale_connection}";

/// How the upstream ends the connection that the second request came on.
#[derive(Clone, Copy, Debug)]
enum Close {
    Fin,
    Rst,
}

const CLOSES: [Close; 2] = [Close::Fin, Close::Rst];

/// Answers the first request of its first connection and closes on the second one, whole in its hands; answers
/// everything on later connections.
fn closing_on_reuse(close: Close) -> Origin {
    Origin::script(move |mut peer| {
        let first = peer.number == 0;
        while peer.request().is_some() {
            if first && peer.served() == 2 {
                return match close {
                    Close::Fin => {}
                    Close::Rst => peer.wire.reset(),
                };
            }
            peer.send(OK);
        }
    })
}

/// A client whose first request has warmed up the one upstream connection.
struct Warm {
    origin: Origin,
    proxy: Proxy,
    client: Wire,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Warm {
    fn new(origin: Origin, edit: impl FnOnce(Config) -> Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        let format = text_format("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
        let proxy = Proxy::start(&edit(Config::new(origin.address()).access_log(&log, format)));
        let mut client = proxy.connect();
        assert_eq!(client.ask(&request("GET", "")).status, 200);
        Self { origin, proxy, client, log, _folder: folder }
    }

    /// The second request: its status, what was logged of it.
    #[track_caller]
    fn ask(&mut self, method: &str, body: &str) -> (u16, String) {
        let status = self.client.ask(&request(method, body)).status;
        (status, await_lines(&self.log, 2).remove(1))
    }

    /// The second request is sent again, on a second connection, and nobody notices.
    #[track_caller]
    fn is_answered(&mut self, method: &str, body: &str) {
        assert_eq!(self.ask(method, body), (200, "200 - via_upstream".to_owned()), "{method}");
        let requests = self.origin.requests();
        let seen: Vec<usize> = requests.iter().map(|request| request.connection).collect();
        assert_eq!(seen, [0, 0, 1], "{method}");
        assert!(requests[1..].iter().all(|request| request.body == body.as_bytes()));
        self.counts(&[
            ("upstream_rq_safe_retry", 1),
            ("upstream_rq_safe_retry_success", 1),
            ("upstream_rq_retry", 0),
            ("upstream_cx_total", 2),
        ]);
    }

    /// The second request is answered with one 503, and goes nowhere else.
    #[track_caller]
    fn is_refused(&mut self, method: &str, body: &str, denied: &str) {
        assert_eq!(self.ask(method, body), (503, STALE.to_owned()), "{method}");
        assert_eq!(self.origin.requests().len(), 2, "{method}");
        self.counts(&[
            ("upstream_rq_safe_retry", 0),
            (&format!("upstream_rq_safe_retry_denied.{denied}"), 1),
            ("upstream_cx_total", 1),
        ]);
        // The client's connection is as good as before.
        assert_eq!(self.client.ask(&request("GET", "")).status, 200);
    }

    #[track_caller]
    fn counts(&self, expected: &[(&str, u64)]) {
        let stats = self.proxy.admin.stats();
        for (name, value) in expected {
            assert_eq!(stats.get(&format!("cluster.origin.{name}")), *value, "{name}");
        }
    }
}

fn request(method: &str, body: &str) -> String {
    let length = if method == "GET" { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("{method} / HTTP/1.1\r\nhost: a.test\r\n{length}\r\n{body}")
}

fn reuse(config: Config, settings: serde_json::Value) -> Config {
    let mut options = json!({"@type": REUSE_TYPE});
    integration_tests::config::merge(&mut options, settings);
    config.cluster(json!({"typed_extension_protocol_options": {REUSE: options}}))
}

#[test]
fn a_get_is_sent_again() {
    for close in CLOSES {
        Warm::new(closing_on_reuse(close), |config| config).is_answered("GET", "");
    }
}

#[test]
fn so_is_every_idempotent_method_with_its_body() {
    for close in CLOSES {
        for (method, body) in [("PUT", "body"), ("DELETE", ""), ("OPTIONS", "")] {
            Warm::new(closing_on_reuse(close), |config| config).is_answered(method, body);
        }
    }
}

#[test]
fn a_post_is_never_sent_twice_and_gets_one_503() {
    for close in CLOSES {
        for body in ["", "body"] {
            Warm::new(closing_on_reuse(close), |config| config).is_refused("POST", body, "method");
        }
    }
}

#[test]
fn a_body_above_the_replay_buffer_is_not_sent_again() {
    let config = |config| reuse(config, json!({"replay_buffer_bytes": 3}));
    Warm::new(closing_on_reuse(Close::Fin), config).is_refused("PUT", "body", "body");
    Warm::new(closing_on_reuse(Close::Fin), config).is_answered("PUT", "abc");
}

#[test]
fn a_cluster_can_turn_it_off() {
    let config = |config| reuse(config, json!({"safe_retry": false}));
    let mut warm = Warm::new(closing_on_reuse(Close::Fin), config);
    assert_eq!(warm.ask("GET", ""), (503, LOST.to_owned()));
    assert_eq!(warm.origin.requests().len(), 2);
    warm.counts(&[("upstream_rq_safe_retry", 0), ("upstream_cx_total", 1)]);
}

#[test]
fn a_route_can_turn_it_off() {
    let router = json!({"typed_per_filter_config": {"envoy.filters.http.router": {
        "@type": "type.googleapis.com/tidegate.filters.http.router.v1.RouterPerRoute", "safe_retry": false,
    }}});
    let mut warm = Warm::new(closing_on_reuse(Close::Rst), |config| config.route(router));
    assert_eq!(warm.ask("GET", ""), (503, LOST.to_owned()));
    assert_eq!(warm.origin.requests().len(), 2);
}

#[test]
fn one_safe_retry_is_all_that_a_request_gets() {
    // Each connection answers one request and closes on the next: the retry meets a warm one as well.
    let gate = integration_tests::Gate::default();
    let passed = gate.clone();
    let origin = Origin::script(move |mut peer| {
        if peer.request().is_some() {
            passed.pass();
            peer.send(OK);
            peer.request();
        }
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut clients: Vec<Wire> = (0..3)
        .map(|number| {
            let mut client = proxy.connect();
            client.send(request("GET", ""));
            origin.await_requests(number + 1);
            client
        })
        .collect();
    gate.open(100);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    proxy.admin.await_stat("cluster.origin.upstream_rq_active", 0);
    let status = clients[0].ask(&request("GET", "")).status;
    let again = origin.requests().len() - 3;
    // The second attempt took a fresh connection, or a warm one.
    assert!([200, 503].contains(&status), "{status}");
    assert_eq!(again, 2);
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_safe_retry"), 1);
}

#[test]
fn a_fresh_connection_that_closes_is_a_failure_like_any_other() {
    for close in CLOSES {
        let origin = Origin::script(move |mut peer| {
            peer.request();
            if let Close::Rst = close {
                peer.wire.reset();
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        let format = text_format("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
        let proxy = Proxy::start(&Config::new(origin.address()).access_log(&log, format));
        assert_eq!(proxy.get("/").status, 503);
        let details = "upstream_reset_before_response_started{connection_termination}";
        assert_eq!(await_lines(&log, 1), [format!("503 UC {details}")]);
        assert_eq!(origin.requests().len(), 1);
        assert_eq!(proxy.stat("cluster.origin.upstream_rq_safe_retry"), 0);
    }
}

#[test]
fn a_response_that_has_begun_is_not_asked_for_again() {
    let origin = Origin::script(|mut peer| {
        while peer.request().is_some() {
            if peer.served() == 2 {
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
                return;
            }
            peer.send(OK);
        }
    });
    let mut warm = Warm::new(origin, |config| config);
    warm.client.send(request("GET", ""));
    assert_ne!(warm.client.end(), End::Open);
    assert!(warm.client.text().ends_with("half"), "{}", warm.client.text());
    assert_eq!(warm.origin.requests().len(), 2);
}
