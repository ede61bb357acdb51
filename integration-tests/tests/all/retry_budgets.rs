//! `retry_budget`, exactly, and what becomes of the answer that a retry replaces. As by Envoy 1.40.

use std::sync::atomic::{AtomicUsize, Ordering};

use integration_tests::config::text_format;
use integration_tests::h2::{H2Client, H2Origin, H2Stream, Manners, code};
use integration_tests::proxy::await_lines;
use integration_tests::{Config, Gate, Nobody, Origin, Proxy};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const FAILED: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

fn budget(percent: u32, least: u32) -> Value {
    let budget = json!({"budget_percent": {"value": percent}, "min_retry_concurrency": least});
    json!({"circuit_breakers": {"thresholds": [{"track_remaining": true, "retry_budget": budget}]}})
}

fn retrying(config: Config) -> Config {
    let back_off = json!({"base_interval": "0.001s"});
    let policy = json!({"retry_on": "5xx", "num_retries": 1, "retry_back_off": back_off});
    config.hcm(json!({"codec_type": "AUTO"})).route(json!({"route": {"retry_policy": policy}}))
}

/// Retries made, and those that the budget denied.
fn retries(proxy: &Proxy) -> (u64, u64) {
    let stats = proxy.admin.stats();
    let count = |name: &str| stats.get(&format!("cluster.origin.{name}"));
    (count("upstream_rq_retry"), count("upstream_rq_retry_overflow"))
}

/// The first of two requests is refused by its upstream, the others are served.
fn failing_once() -> Origin {
    let count = AtomicUsize::new(0);
    Origin::answering(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => FAILED.to_owned(),
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(),
    })
}

/// An HTTP/1.1 request counts until its connection is given back: a share of 100 % is one retry.
#[test]
fn a_request_is_its_own_budget_over_http1() {
    for (percent, least, status, expected) in
        [(100, 0, 200, (1, 0)), (0, 0, 503, (0, 1)), (0, 1, 200, (1, 0)), (99, 0, 503, (0, 1))]
    {
        let origin = failing_once();
        let proxy = Proxy::start(&retrying(Config::new(origin.address()).cluster(budget(percent, least))));
        assert_eq!(proxy.get("/").status, status, "{percent} % and at least {least}");
        assert_eq!(retries(&proxy), expected, "{percent} % and at least {least}");
    }
}

/// A stream that has ended counts no more when the budget is asked.
#[test]
fn a_stream_that_has_ended_is_no_part_of_the_load() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let origin = H2Origin::with(Manners::default(), |stream| {
        stream.request();
        stream.head(503, &[], true);
    });
    let config = Config::new(origin.address()).http2_upstream(json!({})).cluster(budget(100, 0));
    let config = config.access_log(&log, text_format("%RESPONSE_CODE% %RESPONSE_FLAGS%\n"));
    let proxy = Proxy::start(&retrying(config));
    assert_eq!(H2Client::connect(proxy.address).ask("/").status(), 503);
    assert_eq!((retries(&proxy), origin.streams().len()), ((0, 1), 1));
    assert_eq!(await_lines(&log, 1), ["503 UO"]);
}

/// Half of what is under way may be retries: one needs two requests besides its own that has ended.
#[test]
fn the_load_of_others_is_the_budget() {
    for (others, expected) in [(1, (0, 1)), (2, (1, 0))] {
        let gate = Gate::default();
        let held = gate.clone();
        let origin =
            H2Origin::with(Manners::default(), move |stream| match stream.request().header(":path") {
                Some("/held") => {
                    held.pass();
                    stream.answer(200, "ok");
                }
                _ => stream.head(503, &[], true),
            });
        let config = Config::new(origin.address()).http2_upstream(json!({})).cluster(budget(50, 0));
        let proxy = Proxy::start(&retrying(config));
        let client = H2Client::connect(proxy.address);
        let waiting: Vec<u32> = (0..others).map(|_| client.get("/held")).collect();
        origin.await_streams(others);
        assert_eq!(client.ask("/").status(), 503);
        assert_eq!(retries(&proxy), expected, "{others} others");
        gate.open(others);
        assert!(waiting.into_iter().all(|stream| client.message(stream).status() == 200));
    }
}

fn second_answers(stream: &H2Stream) -> bool {
    let second = stream.id > 1;
    if second {
        stream.answer(200, "ok");
    }
    second
}

/// Of an answer that a retry replaces, what has not come is refused: the retry waits for none of it, and the
/// connection carries on.
#[test]
fn the_rest_of_a_replaced_answer_is_refused_over_http2() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        stream.request();
        if !second_answers(&stream) {
            stream.head(503, &[], false);
            stream.body("part", false);
        }
    });
    let proxy = Proxy::start(&retrying(Config::new(origin.address()).http2_upstream(json!({}))));
    assert_eq!(proxy.connect().ask(GET).text(), "ok");
    assert_eq!(origin.connection(0).await_reset(1), code::CANCEL);
    assert_eq!(origin.connections(), 1);
    assert_eq!(retries(&proxy), (1, 0));
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_tx_reset"), 1);
}

/// One that has come whole has ended, and its stream with it (RFC 9113 §5.1).
#[test]
fn a_replaced_answer_that_is_whole_is_left_alone() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        stream.request();
        if !second_answers(&stream) {
            stream.head(503, &[], true);
        }
    });
    let proxy = Proxy::start(&retrying(Config::new(origin.address()).http2_upstream(json!({}))));
    assert_eq!(proxy.connect().ask(GET).text(), "ok");
    assert!(origin.connection(0).frames_of(tidegate_testkit::h2::kind::RST_STREAM).is_empty());
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_tx_reset"), 0);
}

/// With an interval the share is of what got a connection within it: retries count, what found nobody does not.
#[test]
fn attempts_within_the_interval_are_the_budget() {
    let of = |percent: f64| {
        let budget = json!({"budget_percent": {"value": percent}, "min_retry_concurrency": 0, "budget_interval": "60s"});
        json!({"circuit_breakers": {"thresholds": [{"retry_budget": budget}]}})
    };
    // 7 and 2 requests and one retry are 10: two retries at once.
    for (before, expected) in [(6, (1, 1)), (7, (2, 0))] {
        let gate = Gate::default();
        let held = gate.clone();
        let tried = AtomicUsize::new(0);
        let origin = Origin::answering(move |request| match request.path() {
            "/fails" if tried.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => FAILED.to_owned(),
            "/fails" => {
                held.pass();
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        });
        let proxy = Proxy::start(&retrying(Config::new(origin.address()).cluster(of(20.0))));
        for _ in 0..before {
            assert_eq!(proxy.get("/").status, 200);
        }
        let mut clients = [proxy.connect(), proxy.connect()];
        clients[0].send("GET /fails HTTP/1.1\r\nhost: a\r\n\r\n");
        proxy.admin.await_stat("cluster.origin.upstream_rq_retry", 1);
        proxy.admin.await_stat("cluster.origin.upstream_rq_total", before + 2);
        clients[1].send("GET /fails HTTP/1.1\r\nhost: a\r\n\r\n");
        let outcome = || retries(&proxy);
        integration_tests::wait::until("the second to be judged", || outcome().0 + outcome().1 == 2);
        assert_eq!(outcome(), expected, "{before} requests before");
        gate.open(2);
        clients.iter_mut().for_each(|client| drop(client.response()));
    }
    let nobody = Nobody::new();
    let config = Config::new(nobody.address()).cluster(of(100.0));
    let policy = json!({"route": {"retry_policy": {"retry_on": "connect-failure"}}});
    let proxy = Proxy::start(&config.route(policy));
    assert_eq!((proxy.get("/").status, retries(&proxy)), (503, (0, 1)));
}

/// A key of the runtime alone puts a budget in the place of `max_retries`.
#[test]
fn the_runtime_brings_a_budget_of_its_own() {
    let origin = Origin::answering(|_| FAILED.to_owned());
    let prefix = "circuit_breakers.origin.default.retry_budget.";
    let keys = [("budget_percent", 0), ("min_retry_concurrency", 0)];
    let keys: serde_json::Map<String, Value> =
        keys.iter().map(|(key, value)| (format!("{prefix}{key}"), json!(value))).collect();
    let layers = json!({"layered_runtime": {"layers": [{"name": "s", "static_layer": keys}]}});
    let proxy = Proxy::start(&retrying(Config::new(origin.address())).bootstrap(layers));
    assert_eq!((proxy.get("/").status, retries(&proxy)), (503, (0, 1)));
}
