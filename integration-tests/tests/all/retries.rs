//! Requests that are sent again, or twice: the bounds of safe retries (`reuse` has the rest), retry policies,
//! hedging, mirroring. Scripted upstreams, exact counts.

use std::time::Duration;

use integration_tests::config::{cluster, text_format};
use integration_tests::h2::{Manners, code};
use integration_tests::origin::{OK, Peer};
use integration_tests::proxy::await_lines;
use integration_tests::{Config, H2Origin, Origin, Proxy};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const PUT: &str = "PUT / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\n\r\nbody";
const POST: &str = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\n\r\nbody";

/// How an upstream ends a connection on which it has read a second request.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Fin,
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

/// Answers its first requests after these delays, in milliseconds, with these statuses; later ones as the last.
fn timed(script: &'static [(u64, u16)]) -> Origin {
    let count = std::sync::atomic::AtomicUsize::new(0);
    Origin::script(move |mut peer| {
        while peer.request().is_some() {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let (delay, status) = script[number.min(script.len() - 1)];
            std::thread::sleep(Duration::from_millis(delay));
            peer.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 1\r\n\r\n{number}"));
        }
    })
}

fn hedging(origin: &Origin, policy: Value) -> Config {
    let mut retry = json!({"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.3s"});
    integration_tests::config::merge(&mut retry, policy);
    Config::new(origin.address()).route(json!({"route": {
        "timeout": "1.5s",
        "retry_policy": retry,
        "hedge_policy": {"hedge_on_per_try_timeout": true},
    }}))
}

/// `upstream_rq_<name>` of the cluster, of those that are not 0.
fn counts(proxy: &Proxy, names: &[&str]) -> Vec<u64> {
    let stats = proxy.admin.stats();
    names.iter().map(|name| stats.get(&format!("cluster.origin.upstream_rq_{name}"))).collect()
}

const HEDGED: [&str; 6] =
    ["total", "retry", "retry_success", "retry_limit_exceeded", "per_try_timeout", "timeout"];

/// Asks once: the response, its log line and [`HEDGED`] counters.
fn hedged(script: &'static [(u64, u16)], policy: Value) -> (u16, String, String, Vec<u64>) {
    let origin = timed(script);
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&logged(hedging(&origin, policy), &folder));
    let response = proxy.get("/");
    let log = log_line(&folder, 0);
    (response.status, response.text(), log, counts(&proxy, &HEDGED))
}

/// Each row was measured at Envoy 1.40.
#[test]
fn the_first_good_response_of_hedged_attempts_wins() {
    let ok = "200 - via_upstream".to_owned();
    // The second attempt is faster than the first.
    let second = hedged(&[(1200, 200), (0, 200)], json!({}));
    assert_eq!(second, (200, "1".to_owned(), ok.clone(), vec![2, 1, 1, 0, 0, 0]));
    // The first one answers while the second is under way, and before that one is late too.
    let first = hedged(&[(450, 200), (1200, 200)], json!({}));
    assert_eq!(first, (200, "0".to_owned(), ok.clone(), vec![2, 1, 0, 0, 0, 0]));
    // The second one's answer is bad, and no retry is left: the first one is waited for.
    let bad = hedged(&[(900, 200), (0, 503)], json!({}));
    assert_eq!(bad, (200, "0".to_owned(), "200 URX via_upstream".to_owned(), vec![2, 1, 0, 1, 0, 0]));
    // Whatever `retry_on` says.
    let any = hedged(&[(1200, 200), (0, 200)], json!({"retry_on": "connect-failure"}));
    assert_eq!(any, (200, "1".to_owned(), ok.clone(), vec![2, 1, 1, 0, 0, 0]));
    // Without a policy the attempt goes on alone.
    let alone = hedged(&[(600, 200)], json!({"retry_on": null}));
    assert_eq!(alone, (200, "0".to_owned(), ok, vec![1, 0, 0, 0, 0, 0]));
}

/// Counters are Envoy's for the same: each attempt is late once, by whichever of its times.
#[test]
fn an_idle_attempt_is_hedged_too() {
    const NEVER: &[(u64, u16)] = &[(5000, 200), (5000, 200), (5000, 200)];
    for times in [
        json!({"per_try_timeout": null, "per_try_idle_timeout": "0.2s"}),
        json!({"per_try_timeout": "0.3s", "per_try_idle_timeout": "0.2s"}),
        json!({"per_try_timeout": "0.2s"}),
    ] {
        let mut policy = json!({"num_retries": 2});
        integration_tests::config::merge(&mut policy, times.clone());
        let (status, _, log, counts) = hedged(NEVER, policy);
        assert_eq!((status, log.as_str()), (504, "504 URX,UT response_timeout"), "{times}");
        assert_eq!(counts, [3, 2, 0, 1, 0, 3], "{times}");
    }
}

#[test]
fn hedged_attempts_that_all_fail_are_all_counted() {
    let bad = hedged(&[(900, 503), (0, 503)], json!({}));
    assert_eq!(bad, (503, "0".to_owned(), "503 URX via_upstream".to_owned(), vec![2, 1, 0, 1, 0, 0]));
    let (status, _, log, counts) = hedged(&[(3000, 200), (3000, 200)], json!({}));
    assert_eq!((status, log.as_str()), (504, "504 URX,UT response_timeout"));
    assert_eq!(counts, [2, 1, 0, 1, 0, 2]);
}

fn mirrored(origin: &Origin, mirror: &Origin, policy: Value) -> Config {
    let mut all = json!({"cluster": "mirror"});
    integration_tests::config::merge(&mut all, policy);
    let clusters = [cluster("origin", &[origin.address()]), cluster("mirror", &[mirror.address()])];
    Config::with_clusters(&clusters).route(json!({"route": {"request_mirror_policies": [all]}}))
}

#[test]
fn a_mirror_gets_copies_and_the_client_the_response() {
    let (origin, mirror) =
        (Origin::named("origin"), Origin::saying("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"));
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&logged(mirrored(&origin, &mirror, json!({})), &folder));
    let mut client = proxy.connect();
    assert_eq!(client.ask("GET /x HTTP/1.1\r\nhost: a.test:88\r\n\r\n").text(), "origin");
    assert_eq!(client.ask(POST).text(), "origin");
    let copies = mirror.await_requests(2);
    assert_eq!(copies[0].header("host"), Some("a.test-shadow:88"));
    assert_eq!((copies[0].line(), copies[0].header("x-envoy-internal")), ("GET /x HTTP/1.1", Some("true")));
    assert_eq!(copies[0].header("x-request-id"), origin.requests()[0].header("x-request-id"));
    assert!(copies[0].header("x-forwarded-for").is_some());
    assert_eq!((copies[1].header("host"), &copies[1].body[..]), (Some("a.test-shadow"), &b"body"[..]));
    proxy.admin.await_stat("cluster.mirror.upstream_rq_503", 2);
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("cluster.mirror.internal.upstream_rq_503"), 2);
    assert_eq!((stats.get("http.async-client.rq_total"), stats.get("http.ingress.rq_total")), (2, 2));
    assert_eq!(stats.get("cluster.origin.upstream_rq_200"), 2);
    assert_eq!(log_line(&folder, 1), "200 - via_upstream");
}

/// Their formats see the request as it goes up; what is overwritten moves to the end, as in Envoy.
#[test]
fn a_mirrors_own_fields_are_formatted_and_others_removed() {
    let (origin, mirror) = (Origin::ok(), Origin::ok());
    let add = |key: &str, value: &str, action: &str| json!({"append": {"header": {"key": key, "value": value}, "append_action": action}});
    let mutations = json!([
        add("x-path", "%REQ(:PATH)%", "APPEND_IF_EXISTS_OR_ADD"), {"remove": "x-a"},
        add("x-b", "new", "OVERWRITE_IF_EXISTS_OR_ADD"),
    ]);
    let proxy = Proxy::start(&mirrored(&origin, &mirror, json!({"request_headers_mutations": mutations})));
    let request = "GET /p HTTP/1.1\r\nhost: a.test\r\nx-b: old\r\nx-a: 1\r\n\r\n";
    assert_eq!(proxy.connect().ask(request).status, 200);
    let copy = mirror.await_requests(1).remove(0);
    let field = |name| copy.header(name);
    assert_eq!((field("x-path"), field("x-a"), field("x-b")), (Some("/p"), None, Some("new")));
}

#[test]
fn a_mirror_that_is_down_or_slow_costs_the_request_nothing() {
    let origin = Origin::ok();
    let gate = integration_tests::Gate::default();
    let mirror = Origin::gated(&gate);
    let mut config = mirrored(&origin, &mirror, json!({"disable_shadow_host_suffix_append": true}));
    config.0["static_resources"]["clusters"][1]["circuit_breakers"] =
        json!({"thresholds": [{"max_requests": 1}]});
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).status, 200);
    assert_eq!(mirror.await_requests(1)[0].header("host"), Some("a.test"));
    for _ in 0..3 {
        assert_eq!(client.ask(GET).status, 200);
    }
    proxy.admin.await_stat("cluster.mirror.upstream_rq_active_overflow", 3);
    assert_eq!(mirror.requests().len(), 1);
    gate.open(1);
    proxy.admin.await_stat("cluster.mirror.upstream_rq_200", 1);
}

#[test]
fn a_copy_whose_body_is_too_large_is_abandoned() {
    let (origin, mirror) = (Origin::ok(), Origin::ok());
    let config = mirrored(&origin, &mirror, json!({})).route(json!({"request_body_buffer_limit": 3}));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.connect().ask(POST).status, 200);
    assert_eq!(proxy.stat("cluster.origin.retry_or_shadow_abandoned"), 1);
    assert_eq!(mirror.connections(), 0);
}

#[test]
fn a_fraction_of_none_mirrors_nothing() {
    let (origin, mirror) = (Origin::ok(), Origin::ok());
    let none = json!({"runtime_fraction": {"default_value": {"numerator": 0}}});
    let proxy = Proxy::start(&mirrored(&origin, &mirror, none));
    let mut client = proxy.connect();
    for _ in 0..5 {
        assert_eq!(client.ask(GET).status, 200);
    }
    assert_eq!(mirror.connections(), 0);
}

fn predicate(name: &str, config: Value) -> Value {
    let message = format!("type.googleapis.com/envoy.extensions.retry.host.{name}");
    let mut typed = json!({"@type": message});
    integration_tests::config::merge(&mut typed, config);
    json!({"name": name, "typed_config": typed})
}

#[test]
fn retries_avoid_the_hosts_of_earlier_tries() {
    let bad = Origin::saying("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n");
    let good = Origin::ok();
    let policy = json!({"retry_on": "5xx", "num_retries": 1, "host_selection_retry_max_attempts": 10,
        "retry_host_predicate": [predicate("previous_hosts.v3.PreviousHostsPredicate", json!({}))]});
    let mut clusters = cluster("origin", &[bad.address(), good.address()]);
    clusters["lb_policy"] = json!("RANDOM");
    let config = Config::with_clusters(&[clusters]).route(json!({"route": {"retry_policy": policy}}));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    for _ in 0..20 {
        assert_eq!(client.ask(GET).status, 200);
    }
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("cluster.origin.upstream_rq_retry"), bad.requests().len() as u64);
    assert_eq!(good.requests().len(), 20);
}

#[test]
fn hash_policies_keep_clients_at_their_hosts() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let mut maglev = cluster("origin", &[a.address(), b.address()]);
    maglev["lb_policy"] = json!("MAGLEV");
    let policies = json!([
        {"header": {"header_name": "x-user"}, "terminal": true},
        {"cookie": {"name": "sid", "ttl": "60s", "path": "/"}},
    ]);
    let config = Config::with_clusters(&[maglev]).route(json!({"route": {"hash_policy": policies}}));
    let proxy = Proxy::start(&config);
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..20 {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx-user: u{user}\r\n\r\n");
        let first = proxy.connect().ask(&request);
        assert_eq!(first.header("set-cookie"), None);
        assert_eq!(proxy.connect().ask(&request).text(), first.text());
        seen.insert(first.text());
    }
    assert_eq!(seen.len(), 2, "users are spread");
    let first = proxy.get("/");
    let cookie = first.header("set-cookie").unwrap().to_owned();
    assert!(cookie.starts_with("sid=\"") && cookie.ends_with("\"; Max-Age=60; Path=/; HttpOnly"), "{cookie}");
    let value = cookie.split(';').next().unwrap();
    let again = proxy.connect().ask(&format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: {value}\r\n\r\n"));
    assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
}

fn over_h2(origin: &H2Origin) -> Config {
    Config::new(origin.address()).cluster_http(
        json!({"explicit_http_config": {"http_protocol_options": null, "http2_protocol_options": {}}}),
    )
}

/// The connection is well: a refusal costs no other one.
#[test]
fn a_refused_stream_is_sent_again_on_its_connection_whatever_its_method() {
    let origin = H2Origin::with(Manners::default(), |stream| match stream.id {
        1 | 5 | 9 => stream.reset(code::REFUSED_STREAM),
        _ => stream.answer(200, "ok"),
    });
    let proxy = Proxy::start(&over_h2(&origin));
    let mut client = proxy.connect();
    for request in [POST, GET, PUT] {
        assert_eq!(client.ask(request).status, 200);
    }
    assert_eq!(safe_retries(&proxy), [3, 3, 0, 0, 0]);
    assert_eq!((origin.connections(), origin.streams().len()), (1, 6));
    let stats = proxy.admin.stats();
    for name in ["upstream_rq_rx_reset", "upstream_rq_tx_reset", "upstream_rq_retry", "upstream_rq_503"] {
        assert_eq!(stats.get(&format!("cluster.origin.{name}")), 0, "{name}");
    }
}

#[test]
fn a_stream_that_is_refused_twice_is_503() {
    let origin = H2Origin::with(Manners::default(), |stream| stream.reset(code::REFUSED_STREAM));
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&logged(over_h2(&origin), &folder));
    assert_eq!(proxy.connect().ask(GET).status, 503);
    let details = "503 UR upstream_reset_before_response_started{remote_refused_stream_reset}";
    assert_eq!(log_line(&folder, 0), details);
    assert_eq!((safe_retries(&proxy), origin.streams().len()), ([1, 0, 0, 0, 0], 2));
}

#[test]
fn resets_of_streams_are_answered_by_their_codes() {
    for (number, status, line) in [
        (code::CANCEL, 503, "503 UR upstream_reset_before_response_started{remote_reset}"),
        (code::PROTOCOL_ERROR, 502, "502 UPE upstream_reset_before_response_started{protocol_error}"),
    ] {
        let origin = H2Origin::with(Manners::default(), move |stream| stream.reset(number));
        let folder = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(&logged(over_h2(&origin), &folder));
        assert_eq!(proxy.connect().ask(GET).status, status);
        assert_eq!(log_line(&folder, 0), line);
        assert_eq!((safe_retries(&proxy), origin.streams().len()), ([0; 5], 1));
    }
}

#[test]
fn upstreams_are_told_whether_a_retry_follows_a_timeout() {
    for (script, told) in [(&[(900, 200), (0, 200)], "true"), (&[(0, 503), (0, 200)], "false")]
        as [(&'static [(u64, u16)], &str); 2]
    {
        let origin = timed(script);
        let policy = json!({"retry_on": "5xx", "per_try_timeout": "0.3s"});
        let config = Config::new(origin.address())
            .route(json!({"route": {"retry_policy": policy}}))
            .virtual_host(json!({"include_is_timeout_retry_header": true}));
        let proxy = Proxy::start(&config);
        assert_eq!(proxy.connect().ask(GET).status, 200);
        let tries = origin.requests();
        let header = |number: usize| tries[number].header("x-envoy-is-timeout-retry");
        assert_eq!((header(0), header(1)), (None, Some(told)));
    }
}
