//! What each way to end a request leaves in the statistics: every counter and gauge that is not 0, of the
//! cluster, of the connection manager and of the host. Names are without `upstream_` and `downstream_`; the
//! router's own among the manager's have `router.` before them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use integration_tests::config::cluster;
use integration_tests::{Config, End, Gate, Nobody, Origin, Proxy, Response, wait};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const BODY: &str = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 9\r\n\r\nabc";

type Counts = BTreeMap<String, u64>;

/// Words for what always comes together.
fn meaning(word: &str) -> &[&str] {
    match word {
        "base" => &["cx_total", "cx_http1_total", "rq_pending_total", "rq_total"],
        "local" => &["cx_destroy", "cx_destroy_local"],
        "remote" => &["cx_destroy", "cx_destroy_remote"],
        "local+rq" => &["local", "cx_destroy_with_active_rq", "cx_destroy_local_with_active_rq"],
        "remote+rq" => &["remote", "cx_destroy_with_active_rq", "cx_destroy_remote_with_active_rq"],
        "200" => &[
            "rq_200",
            "rq_2xx",
            "rq_completed",
            "external.rq_200",
            "external.rq_2xx",
            "external.rq_completed",
        ],
        "502" => &[
            "rq_502",
            "rq_5xx",
            "rq_completed",
            "external.rq_502",
            "external.rq_5xx",
            "external.rq_completed",
        ],
        "503" => &[
            "rq_503",
            "rq_5xx",
            "rq_completed",
            "external.rq_503",
            "external.rq_5xx",
            "external.rq_completed",
        ],
        "504" => &[
            "rq_504",
            "rq_5xx",
            "rq_completed",
            "external.rq_504",
            "external.rq_5xx",
            "external.rq_completed",
        ],
        "retried-503" => &["retry.rq_503", "retry.rq_5xx", "retry.rq_completed"],
        "client" => &["cx_total", "cx_http1_total"],
        "open" => &["cx_active", "cx_http1_active"],
        "rq" => &["rq_total", "rq_http1_total"],
        "routed" => &["rq", "router.rq_total"],
        "2xx" => &["routed", "rq_completed", "rq_2xx"],
        "4xx" => &["routed", "rq_completed", "rq_4xx"],
        "5xx" => &["routed", "rq_completed", "rq_5xx"],
        "lingered" => &["local", "cx_delayed_close_timeout"],
        "cut" => &["rq_rx_reset", "rq_tx_reset"],
        "gone" => &["rq_rx_reset", "remote", "cx_destroy_active_rq", "cx_destroy_remote_active_rq"],
        _ => &[],
    }
}

fn add(word: &str, times: u64, counts: &mut Counts) {
    let parts = meaning(word);
    if parts.is_empty() {
        *counts.entry(word.to_owned()).or_default() += times;
    }
    parts.iter().for_each(|part| add(part, times, counts));
}

/// `"base*2 rq_timeout"` in full.
fn counts(words: &str) -> Counts {
    let mut counts = Counts::new();
    for word in words.split_whitespace() {
        let (word, times) = word.split_once('*').unwrap_or((word, "1"));
        add(word, times.parse().unwrap(), &mut counts);
    }
    counts
}

/// What a row is not about: bytes, members, what is left under a limit, reuse of connections; close reasons, see
/// [`adds_up`].
fn is_noise(name: &str) -> bool {
    name == "cx_idle"
        || name.starts_with("cx_reuse_")
        || ["_bytes_", "membership_", "total_match_count", "remaining_", "max_host_weight", "close_reason"]
            .iter()
            .any(|part| name.contains(part))
}

/// Whether every closed connection has exactly one reason, on both sides.
fn adds_up(stats: &Counts) -> bool {
    let side = |prefix: &str| {
        let family = format!("{prefix}_close_reason.");
        let reasons = stats.iter().filter(|(name, _)| name.starts_with(&family)).map(|(_, value)| *value);
        let of = |name: &str| stats.get(&format!("{prefix}_{name}")).copied().unwrap_or(0);
        reasons.sum::<u64>() == of("destroy") && of("idle") <= of("active")
    };
    side("cluster.origin.upstream_cx") && side("http.ingress.downstream_cx")
}

fn cluster_counts(stats: &Counts) -> Counts {
    let of_cluster = |(name, value): (&String, &u64)| {
        let name = name.strip_prefix("cluster.origin.")?;
        Some((name.replace("upstream_", ""), *value))
    };
    stats.iter().filter_map(of_cluster).filter(|(name, value)| *value > 0 && !is_noise(name)).collect()
}

fn manager_counts(stats: &Counts) -> Counts {
    let of_manager = |(name, value): (&String, &u64)| {
        let name = name.strip_prefix("http.ingress.")?;
        let short = match name.strip_prefix("downstream_") {
            Some(short) => short.to_owned(),
            None => format!("router.{name}"),
        };
        Some((short, *value))
    };
    stats.iter().filter_map(of_manager).filter(|(name, value)| *value > 0 && !is_noise(name)).collect()
}

/// The `/clusters` lines of all hosts, added up.
fn host_counts(proxy: &Proxy) -> Counts {
    let mut counts = Counts::new();
    for line in proxy.admin.get("/clusters").text().lines() {
        let parts: Vec<&str> = line.split("::").collect();
        if let [
            "origin",
            _,
            name @ ("cx_connect_fail" | "rq_error" | "rq_success" | "rq_timeout" | "rq_total"),
            value,
        ] = parts[..]
            && value != "0"
        {
            let short = name.trim_start_matches("rq_").trim_start_matches("cx_");
            *counts.entry(short.to_owned()).or_default() += value.parse::<u64>().unwrap();
        }
    }
    counts
}

/// Compares once the statistics stand still: workers count a moment after the client has its answer.
#[track_caller]
fn check(proxy: &Proxy, of_cluster: &str, of_manager: &str, of_host: &str) {
    let wanted = (counts(of_cluster), counts(of_manager), counts(of_host));
    let mut seen = (Counts::new(), Counts::new(), Counts::new());
    let deadline = Instant::now() + Duration::from_secs(2);
    wait::until("statistics", || {
        let stats = proxy.admin.stats().0;
        seen = (cluster_counts(&stats), manager_counts(&stats), host_counts(proxy));
        (seen == wanted && adds_up(&stats)) || Instant::now() > deadline
    });
    assert!(adds_up(&proxy.admin.stats().0), "a close without a reason");
    let differ = |seen: &Counts, wanted: &Counts| -> Vec<String> {
        let names: BTreeSet<&String> = seen.keys().chain(wanted.keys()).collect();
        let line =
            |name: &&String| format!("{name}: wanted {:?}, got {:?}", wanted.get(*name), seen.get(*name));
        names.iter().filter(|name| seen.get(**name) != wanted.get(**name)).map(line).collect()
    };
    let differences = (differ(&seen.0, &wanted.0), differ(&seen.1, &wanted.1), differ(&seen.2, &wanted.2));
    assert_eq!(
        seen, wanted,
        "\ncluster {:#?}\nmanager {:#?}\nhost {:#?}",
        differences.0, differences.1, differences.2
    );
}

fn silent() -> Origin {
    Origin::script(|mut peer| while peer.request().is_some() {})
}

fn closing(answer: &'static str) -> Origin {
    Origin::script(move |mut peer| {
        if peer.request().is_some() {
            peer.send(answer);
        }
    })
}

/// One request on a connection that stays open.
#[track_caller]
fn kept(config: &Config, status: u16, of_cluster: &str, of_manager: &str, of_host: &str) {
    let proxy = Proxy::start(config);
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).status, status);
    check(&proxy, of_cluster, &format!("client open {of_manager}"), of_host);
}

/// One request on a connection that the proxy ends.
#[track_caller]
fn ended(config: &Config, sent: &str, status: u16, of_cluster: &str, of_manager: &str, of_host: &str) {
    let proxy = Proxy::start(config);
    let mut client = proxy.connect();
    assert_eq!(client.ask(sent).status, status);
    assert_eq!(client.end(), End::Fin);
    check(&proxy, of_cluster, &format!("client {of_manager}"), of_host);
}

fn route(action: Value) -> Value {
    json!({"route": action})
}

#[test]
fn two_responses_on_one_connection() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    for _ in 0..2 {
        assert_eq!(client.ask(GET).status, 200);
    }
    check(&proxy, "base rq_total 200*2 cx_active", "client open 2xx*2", "success*2 total*2");
}

#[test]
fn route_timeout() {
    let origin = silent();
    let config = Config::new(origin.address()).route(route(json!({"timeout": "0.2s"})));
    kept(&config, 504, "base rq_timeout 504 local+rq", "5xx", "error timeout total");
}

#[test]
fn route_timeout_within_the_response() {
    let origin = Origin::script(|mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
        peer.request();
    });
    let proxy = Proxy::start(&Config::new(origin.address()).route(route(json!({"timeout": "0.2s"}))));
    let mut client = proxy.connect();
    client.send(GET);
    assert_eq!(client.end(), End::Fin);
    check(&proxy, "base rq_timeout 200 local+rq", "client 2xx cut lingered", "success timeout total");
}

#[test]
fn per_try_timeouts() {
    let origin = silent();
    let policy = |policy: Value| Config::new(origin.address()).route(route(json!({"retry_policy": policy})));
    let once = policy(json!({"per_try_timeout": "0.2s"}));
    kept(&once, 504, "base rq_per_try_timeout 504 local+rq", "5xx", "error timeout total");
    let idle = policy(json!({"per_try_idle_timeout": "0.2s"}));
    kept(&idle, 504, "base rq_per_try_idle_timeout 504 local+rq", "5xx", "error timeout total");
    let thrice = policy(json!({"retry_on": "5xx", "num_retries": 2, "per_try_timeout": "0.2s"}));
    let of_cluster = "base*3 rq_per_try_timeout*3 rq_retry*2 rq_retry_backoff_exponential*2 \
        rq_retry_limit_exceeded 504 local+rq*3";
    kept(&thrice, 504, of_cluster, "5xx", "error*3 timeout*3 total*3");
}

#[test]
fn stream_idle_timeout() {
    let origin = silent();
    let config = Config::new(origin.address()).hcm(json!({"stream_idle_timeout": "0.2s"}));
    kept(&config, 504, "base local+rq", "5xx rq_idle_timeout", "total");
    let of_manager = "4xx rq_idle_timeout rq_response_before_rq_complete rq_rx_reset lingered";
    ended(&config, BODY, 408, "base local+rq", of_manager, "total");
}

#[test]
fn request_timeouts() {
    let origin = silent();
    let config = Config::new(origin.address()).hcm(json!({"request_timeout": "0.2s"}));
    let of_manager = "4xx rq_timeout rq_response_before_rq_complete rq_rx_reset lingered";
    ended(&config, BODY, 408, "base local+rq", of_manager, "total");
    let config = Config::new(origin.address()).hcm(json!({"request_headers_timeout": "0.2s"}));
    let of_manager =
        "rq rq_completed rq_4xx rq_header_timeout rq_response_before_rq_complete rq_rx_reset lingered";
    ended(&config, "GET / HT", 408, "", of_manager, "");
}

#[test]
fn max_stream_duration() {
    let origin = silent();
    let options = json!({"common_http_protocol_options": {"max_stream_duration": "0.2s"}});
    let config = Config::new(origin.address()).hcm(options.clone());
    kept(&config, 504, "base local+rq", "5xx rq_max_duration_reached", "total");
    let config = Config::new(origin.address()).cluster_http(options);
    kept(&config, 504, "base local+rq rq_max_duration_reached", "5xx", "total");
}

#[test]
fn the_client_closes_while_its_request_is_served() {
    let origin = silent();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send(GET);
    origin.await_requests(1);
    drop(client);
    check(&proxy, "base local+rq", "client routed gone", "total");
}

#[test]
fn the_client_closes_while_its_request_waits() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let limits = json!({"circuit_breakers": {"thresholds": [{"max_connections": 1}]}});
    let proxy = Proxy::start(&Config::new(origin.address()).cluster(limits));
    let mut first = proxy.connect();
    first.send(GET);
    origin.await_requests(1);
    let mut second = proxy.connect();
    second.send(GET);
    proxy.admin.await_stat("cluster.origin.upstream_rq_pending_active", 1);
    drop(second);
    let of_cluster = "base rq_active cx_active rq_pending_total cx_overflow rq_cancelled \
        circuit_breakers.default.cx_open";
    check(&proxy, of_cluster, "client*2 open rq_active routed*2 gone", "total");
    gate.open(1);
    assert_eq!(first.response().status, 200);
}

#[test]
fn refused() {
    let nobody = Nobody::new();
    let once = "cx_total cx_http1_total rq_pending_total cx_connect_fail remote rq_pending_failure_eject 503";
    kept(&Config::new(nobody.address()), 503, once, "5xx", "connect_fail error");
    let policy = json!({"retry_policy": {"retry_on": "connect-failure", "num_retries": 2}});
    let thrice = "cx_total*3 cx_http1_total*3 rq_pending_total*3 cx_connect_fail*3 remote*3 \
        rq_pending_failure_eject*3 503 rq_retry*2 rq_retry_backoff_exponential*2 rq_retry_limit_exceeded";
    let config = Config::new(nobody.address()).route(route(policy));
    kept(&config, 503, thrice, "5xx", "connect_fail*3 error*3");
}

#[test]
fn the_upstream_breaks_its_word() {
    let origin = closing("");
    kept(&Config::new(origin.address()), 503, "base remote+rq 503", "5xx", "error total");
    let origin = closing("hello\r\n\r\n");
    kept(&Config::new(origin.address()), 502, "base local+rq cx_protocol_error 502", "5xx", "error total");
    let origin = closing("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc");
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send(GET);
    assert_ne!(client.end(), End::Open);
    // Closed at once (deviations, row 14): no delayed close.
    check(&proxy, "base remote+rq cx_protocol_error 200", "client 2xx cut local", "success total");
}

#[test]
fn the_upstream_closes_after_each_response() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    for _ in 0..2 {
        assert_eq!(client.ask(GET).status, 200);
    }
    check(&proxy, "base*2 200*2 cx_close_notify*2 local*2", "client open 2xx*2", "success*2 total*2");
}

/// 503 twice, then 200.
fn third_time_lucky(refusal: &'static str) -> Origin {
    let seen = AtomicUsize::new(0);
    Origin::answering(move |_| match seen.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => refusal,
        _ => integration_tests::origin::OK,
    })
}

const REFUSAL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";
const EMPTY_REFUSAL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

fn retrying(origin: &Origin) -> Config {
    let policy = json!({"retry_policy": {"retry_on": "5xx", "num_retries": 2}});
    Config::new(origin.address()).route(route(policy))
}

#[test]
fn retries_until_success() {
    // With a body as well the connection is used again (deviations, row 16).
    for refusal in [REFUSAL, EMPTY_REFUSAL] {
        let origin = third_time_lucky(refusal);
        let of_cluster = "base rq_total*2 cx_active retried-503*2 rq_retry*2 rq_retry_backoff_exponential*2 \
            rq_retry_success 200";
        kept(&retrying(&origin), 200, of_cluster, "2xx", "error*2 success total*3");
    }
}

#[test]
fn retries_without_success() {
    let origin = Origin::saying(REFUSAL);
    let of_cluster = "base rq_total*2 cx_active retried-503*2 rq_retry*2 rq_retry_backoff_exponential*2 \
        rq_retry_limit_exceeded 503";
    kept(&retrying(&origin), 503, of_cluster, "5xx", "error*3 total*3");
}

#[test]
fn the_breaker_of_retries() {
    let origin = Origin::saying(EMPTY_REFUSAL);
    let limits = json!({"circuit_breakers": {"thresholds": [{"max_retries": 0}]}});
    let config = retrying(&origin).cluster(limits);
    let of_cluster = "base cx_active rq_retry_overflow 503";
    kept(&config, 503, of_cluster, "5xx", "error total");
}

#[test]
fn no_upstream_is_asked() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).virtual_host(json!({"routes": []}));
    kept(&config, 404, "", "4xx router.no_route", "");
    let direct = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]);
    kept(&Config::new(origin.address()).routes(direct), 200, "", "2xx router.rq_direct_response", "");
    let config = Config::with_clusters(&[cluster("origin", &[])]);
    kept(&config, 503, "cx_none_healthy lb_healthy_panic 503", "5xx", "");
    let layer = json!({"name": "s", "static_layer": {"upstream.maintenance_mode.origin": 100}});
    let config = Config::new(origin.address()).bootstrap(json!({"layered_runtime": {"layers": [layer]}}));
    kept(&config, 503, "rq_maintenance_mode 503", "5xx", "");
}

#[test]
fn one_of_three_overflows() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let limits = json!({"max_connections": 1, "max_pending_requests": 1});
    let config = Config::new(origin.address()).cluster(json!({"circuit_breakers": {"thresholds": [limits]}}));
    let proxy = Proxy::start(&config);
    let mut clients = [proxy.connect(), proxy.connect(), proxy.connect()];
    clients[0].send(GET);
    origin.await_requests(1);
    clients[1].send(GET);
    proxy.admin.await_stat("cluster.origin.upstream_rq_pending_active", 1);
    assert_eq!(clients[2].ask(GET).status, 503);
    gate.open(2);
    let statuses: Vec<u16> =
        clients[..2].iter_mut().map(|client| client.response()).map(|r: Response| r.status).collect();
    assert_eq!(statuses, [200, 200]);
    let of_cluster = "base cx_active rq_total rq_pending_total cx_overflow rq_pending_overflow 200*2 503 \
        circuit_breakers.default.cx_open";
    check(&proxy, of_cluster, "client*3 open*3 2xx*2 5xx", "success*2 total*2");
}

#[test]
fn limits_of_an_upstream_connection() {
    let origin = Origin::ok();
    let common = |options: Value| {
        Config::new(origin.address()).cluster_http(json!({"common_http_protocol_options": options}))
    };
    kept(
        &common(json!({"idle_timeout": "0.2s"})),
        200,
        "base 200 cx_idle_timeout local",
        "2xx",
        "success total",
    );
    let config = common(json!({"max_connection_duration": "0.2s"}));
    kept(&config, 200, "base 200 cx_max_duration_reached local", "2xx", "success total");
    let proxy = Proxy::start(&common(json!({"max_requests_per_connection": 1})));
    let mut client = proxy.connect();
    for _ in 0..2 {
        assert_eq!(client.ask(GET).status, 200);
    }
    check(&proxy, "base*2 200*2 cx_max_requests*2 local*2", "client open 2xx*2", "success*2 total*2");
}

#[test]
fn limits_of_a_clients_connection() {
    let origin = Origin::ok();
    let config = |options: Value| {
        Config::new(origin.address())
            .hcm(json!({"common_http_protocol_options": options, "drain_timeout": "0.2s"}))
    };
    let (of_cluster, of_host) = ("base cx_active 200", "success total");
    let once = config(json!({"max_requests_per_connection": 1}));
    ended(&once, GET, 200, of_cluster, "2xx cx_max_requests_reached local", of_host);
    // FIN at the end of the window, then late bytes are heard out (deviations, row 1).
    let idle = config(json!({"idle_timeout": "0.2s"}));
    ended(&idle, GET, 200, of_cluster, "2xx cx_idle_timeout lingered", of_host);
    let old = config(json!({"max_connection_duration": "0.2s"}));
    ended(&old, GET, 200, of_cluster, "2xx cx_max_duration_reached lingered", of_host);
    let proxy = Proxy::start(&idle);
    assert_eq!(proxy.connect().end(), End::Fin);
    check(&proxy, "", "cx_total cx_idle_timeout local", "");
}

#[test]
fn what_is_no_request() {
    let origin = Origin::ok();
    let config = Config::new(origin.address());
    let of_manager =
        "rq rq_completed rq_4xx cx_protocol_error rq_rx_reset rq_response_before_rq_complete lingered";
    ended(&config, "nonsense\r\n\r\n", 400, "", of_manager, "");
    ended(&config, "GET / HTTP/1.0\r\n\r\n", 426, "", of_manager, "");
}
