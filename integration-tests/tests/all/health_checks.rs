//! Active health checks over real sockets: upstreams that flap, hang, answer 500, close and are not there; what
//! becomes of connections to them, on every worker; events and counters.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use integration_tests::config::cluster;
use integration_tests::h2::{H2Origin, Manners};
use integration_tests::origin::OK;
use integration_tests::proxy::{Options, await_lines};
use integration_tests::tls_origin::{Answer, TlsOrigin};
use integration_tests::{Config, End, Nobody, Origin, Proxy, Wire, wait};
use serde_json::{Value, json};

const ERROR: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
const HC: &str = "cluster.origin.health_check.";

/// An upstream whose answer to checks the test changes; other requests get 200.
struct Flapping {
    origin: Origin,
    answer: Arc<Mutex<&'static str>>,
}

impl Flapping {
    fn new() -> Self {
        let answer = Arc::new(Mutex::new(OK));
        let says = answer.clone();
        let origin = Origin::script(move |mut peer| {
            while let Some(request) = peer.request() {
                let checked = request.path() == "/healthz";
                let answer = if checked { *says.lock().unwrap() } else { OK };
                match answer {
                    "close" => return,
                    // Until the proxy closes.
                    "hang" => {
                        let _ = peer.request();
                        return;
                    }
                    answer => peer.send(answer),
                };
            }
        });
        Self { origin, answer }
    }

    fn address(&self) -> SocketAddr {
        self.origin.address()
    }

    fn say(&self, answer: &'static str) {
        *self.answer.lock().unwrap() = answer;
    }

    /// The connections of the requests that were no checks.
    fn used(&self) -> Vec<usize> {
        let requests = self.origin.requests();
        requests
            .iter()
            .filter(|request| request.path() != "/healthz")
            .map(|request| request.connection)
            .collect()
    }
}

/// A check every 50 ms.
fn check(checker: Value, more: Value) -> Value {
    let mut check = json!({
        "timeout": "0.3s", "interval": "0.05s", "no_traffic_interval": "0.05s",
        "unhealthy_threshold": 2, "healthy_threshold": 2,
    });
    integration_tests::config::merge(&mut check, checker);
    integration_tests::config::merge(&mut check, more);
    json!({"health_checks": [check], "common_lb_config": {"healthy_panic_threshold": {"value": 0}}})
}

fn http() -> Value {
    json!({"http_health_check": {"path": "/healthz"}})
}

fn checked(hosts: &[SocketAddr], checker: Value, more: Value) -> Config {
    Config::with_clusters(&[cluster("origin", hosts)]).cluster(check(checker, more))
}

fn flags(proxy: &Proxy, host: SocketAddr) -> String {
    let text = proxy.admin.get("/clusters").text();
    let start = format!("origin::{host}::health_flags::");
    text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{text}")).to_owned()
}

fn await_healthy(proxy: &Proxy, hosts: u64) {
    proxy.admin.await_stat("cluster.origin.membership_healthy", hosts);
}

#[test]
fn a_failing_host_loses_its_connections_on_every_worker_and_returns_with_new_ones() {
    let (flapping, steady) = (Flapping::new(), Flapping::new());
    let config = checked(&[flapping.address(), steady.address()], http(), json!({}));
    let proxy = Options { concurrency: 2, ..Options::default() }.start(&config);
    await_healthy(&proxy, 2);
    let mut clients: Vec<Wire> = (0..16).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        for _ in 0..2 {
            assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
        }
    }
    let before = flapping.used();
    // One of checks, and at least one of each worker that a client came to.
    assert!(flapping.origin.open_connections() >= 2, "{}", flapping.origin.open_connections());

    flapping.say(ERROR);
    await_healthy(&proxy, 1);
    assert_eq!(flags(&proxy, flapping.address()), "/failed_active_hc");
    wait::until("all pools to close their connections", || flapping.origin.open_connections() == 1);
    for client in &mut clients {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
    }
    assert_eq!(flapping.used(), before, "a host that fails gets nothing");

    flapping.say(OK);
    await_healthy(&proxy, 2);
    assert_eq!(flags(&proxy, flapping.address()), "healthy");
    for client in &mut clients {
        for _ in 0..2 {
            assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
        }
    }
    let after = &flapping.used()[before.len()..];
    assert!(!after.is_empty());
    assert!(after.iter().all(|connection| !before.contains(connection)), "{before:?} {after:?}");
}

#[test]
fn hosts_that_hang_or_close_or_are_not_there_fail_after_the_threshold() {
    let (host, nobody) = (Flapping::new(), Nobody::new());
    let config = checked(&[host.address(), nobody.address()], http(), json!({}));
    let proxy = Proxy::start(&config);
    await_healthy(&proxy, 1);
    assert_eq!(flags(&proxy, nobody.address()), "/failed_active_hc");
    for (answer, expected) in
        [("hang", "/failed_active_hc/active_hc_timeout"), ("close", "/failed_active_hc")]
    {
        host.say(answer);
        await_healthy(&proxy, 0);
        wait::until("its flags", || flags(&proxy, host.address()) == expected);
        // Panic is off.
        assert_eq!(proxy.get("/").status, 503);
        host.say(OK);
        await_healthy(&proxy, 1);
        assert_eq!(proxy.get("/").status, 200);
    }
    let stats = proxy.admin.stats();
    let of = |name: &str| stats.get(&format!("{HC}{name}"));
    assert!(of("network_failure") > 0 && of("network_failure") == of("failure"), "{stats:?}");
    assert!(of("attempt") >= of("success") + of("failure"));
    assert_eq!((of("healthy"), of("passive_failure")), (1, 0));
}

#[test]
fn the_request_is_envoys_and_says_what_it_is_told_to() {
    let origin = Origin::ok();
    let checker = json!({"http_health_check": {
        "path": "/h?a", "host": "backend.test", "method": "POST", "send": {"text": "6869"},
        "receive": [{"text": "6f"}, {"text": "6b"}],
        "request_headers_to_add": [
            {"header": {"key": "x-fixed", "value": "1"}},
            {"header": {"key": "x-formatted", "value": "%PROTOCOL% %UPSTREAM_HOST%"}},
            {"header": {"key": "x-nothing", "value": "%UPSTREAM_REMOTE_ADDRESS%"}},
        ],
        "request_headers_to_remove": ["x-other"],
    }});
    let proxy = Proxy::start(&checked(&[origin.address()], checker, json!({})));
    await_healthy(&proxy, 1);
    let head = format!(
        "POST /h?a HTTP/1.1\r\nhost: backend.test\r\nuser-agent: Envoy/HC\r\nx-fixed: 1\r\n\
         x-formatted: HTTP/1.1 {}\r\ncontent-length: 2\r\n\r\n",
        origin.address()
    );
    let request = &origin.requests()[0];
    assert_eq!((request.head.as_str(), request.body.as_slice()), (head.as_str(), &b"hi"[..]));
    origin.await_requests(3);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn events_are_envoys_lines() {
    let host = Flapping::new();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("events.json");
    let more = json!({"event_log_path": log, "always_log_health_check_success": false});
    let proxy = Proxy::start(&checked(&[host.address()], http(), more));
    await_healthy(&proxy, 1);
    host.say(ERROR);
    await_healthy(&proxy, 0);
    host.say("HTTP/1.1 200 OK\r\nx-envoy-degraded: 1\r\ncontent-length: 0\r\n\r\n");
    proxy.admin.await_stat("cluster.origin.membership_degraded", 1);
    assert_eq!(flags(&proxy, host.address()), "/degraded_active_hc");
    host.say(OK);
    await_healthy(&proxy, 1);
    let lines = await_lines(&log, 5);
    let event = |before: &str, after: &str, last: &str| {
        format!(
            "{{\"health_checker_type\":\"HTTP\",\"host\":{{\"socket_address\":{{\"protocol\":\"TCP\",\"address\":\
             \"127.0.0.1\",\"port_value\":{},\"resolver_name\":\"\",\"ipv4_compat\":false,\
             \"network_namespace_filepath\":\"\"}}}},\"cluster_name\":\"origin\"{before},\"timestamp\":T{after},\
             \"locality\":{{\"region\":\"\",\"zone\":\"\",\"sub_zone\":\"\"}}{last}}}",
            host.address().port()
        )
    };
    let expected = [
        event(",\"add_healthy_event\":{\"first_check\":true}", "", ""),
        event(",\"eject_unhealthy_event\":{\"failure_type\":\"ACTIVE\",\"http_status_code\":500}", "", ""),
        event("", ",\"degraded_healthy_host\":{}", ""),
        event(",\"add_healthy_event\":{\"first_check\":false}", "", ""),
        event("", ",\"no_longer_degraded_host\":{}", ""),
    ];
    let mut found: Vec<String> = lines.iter().take(5).map(|line| without_time(line)).collect();
    // A degraded answer counts as a success: both events are in the order of the thresholds.
    found.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(found, expected);
}

/// A line with `T` for its time, which has to look like one.
fn without_time(line: &str) -> String {
    let (before, rest) = line.split_once("\"timestamp\":\"").unwrap();
    let (time, after) = rest.split_once('"').unwrap();
    assert!(time.len() >= 20 && time.ends_with('Z') && time.contains('T'), "{time}");
    format!("{before}\"timestamp\":T{after}")
}

#[test]
fn a_response_that_says_its_host_fails_is_believed() {
    let origin = Origin::answering(|request| match request.path() {
        "/fail" => "HTTP/1.1 200 OK\r\nx-envoy-immediate-health-check-fail: 1\r\ncontent-length: 0\r\n\r\n",
        _ => OK,
    });
    let more = json!({"interval": "1s", "no_traffic_interval": "1s", "healthy_threshold": 1});
    let proxy = Proxy::start(&checked(&[origin.address()], http(), more));
    await_healthy(&proxy, 1);
    assert_eq!(proxy.get("/fail").status, 200);
    await_healthy(&proxy, 0);
    assert_eq!(proxy.admin.stat(&format!("{HC}passive_failure")), 1);
    assert_eq!(flags(&proxy, origin.address()), "/failed_active_hc/excluded_via_immediate_hc_fail");
    assert_eq!(proxy.admin.stat("cluster.origin.membership_excluded"), 1);
    await_healthy(&proxy, 1);
    assert_eq!(proxy.admin.stat("cluster.origin.membership_excluded"), 0);
}

#[test]
fn tcp_checks_send_and_expect_bytes() {
    let answer = Arc::new(Mutex::new("+PONG"));
    let says = answer.clone();
    let origin = Origin::script(move |mut peer| {
        while peer.wire.exactly(4).is_some_and(|bytes| bytes == b"PING") {
            let answer = *says.lock().unwrap();
            peer.send(answer);
        }
    });
    let ping = json!({"tcp_health_check": {"send": {"text": "50494e47"}, "receive": [{"text": "504f4e47"}]}});
    let proxy = Proxy::start(&checked(&[origin.address()], ping, json!({})));
    await_healthy(&proxy, 1);
    proxy.admin.get("/stats");
    wait::until("more checks", || proxy.admin.stat(&format!("{HC}success")) > 2);
    assert_eq!(origin.connections(), 1);
    *answer.lock().unwrap() = "+LOADING";
    await_healthy(&proxy, 0);
    assert_eq!(flags(&proxy, origin.address()), "/failed_active_hc/active_hc_timeout");
    *answer.lock().unwrap() = "+PONG";
    await_healthy(&proxy, 1);
}

#[test]
fn tcp_checks_may_only_connect() {
    let (origin, nobody) = (Origin::ok(), Nobody::new());
    let hosts = [origin.address(), nobody.address()];
    let proxy = Proxy::start(&checked(&hosts, json!({"tcp_health_check": {}}), json!({})));
    await_healthy(&proxy, 1);
    wait::until("a connection for each check", || origin.connections() > 2);
    assert!(origin.requests().is_empty());
    assert_eq!(flags(&proxy, nobody.address()), "/failed_active_hc");
}

#[test]
fn grpc_checks_ask_for_a_service() {
    let serving = Arc::new(Mutex::new(1_u8));
    let status = serving.clone();
    let origin = H2Origin::with(Manners::default(), move |stream| {
        let request = stream.request();
        assert_eq!(request.header(":path"), Some("/grpc.health.v1.Health/Check"));
        assert_eq!(
            (request.header("te"), request.header("content-type")),
            (Some("trailers"), Some("application/grpc"))
        );
        assert_eq!(
            (request.header("user-agent"), request.header("grpc-timeout")),
            (Some("Envoy/HC"), Some("300m"))
        );
        assert_eq!((request.header(":authority"), request.header("x-key")), (Some("grpc.test"), Some("v")));
        assert_eq!(request.body, b"\0\0\0\0\x04\x0a\x02sv");
        let status = *status.lock().unwrap();
        stream.head(200, &[("content-type", "application/grpc")], false);
        stream.body([0, 0, 0, 0, 2, 8, status], false);
        stream.trailers(&[("grpc-status", "0")]);
    });
    let checker = json!({"grpc_health_check": {
        "service_name": "sv", "authority": "grpc.test",
        "initial_metadata": [{"header": {"key": "x-key", "value": "v"}}],
    }});
    let config = checked(&[origin.address()], checker, json!({})).http2_upstream(json!({}));
    let proxy = Proxy::start(&config);
    await_healthy(&proxy, 1);
    *serving.lock().unwrap() = 2;
    await_healthy(&proxy, 0);
    assert_eq!(proxy.admin.stat(&format!("{HC}network_failure")), 0);
    *serving.lock().unwrap() = 1;
    await_healthy(&proxy, 1);
}

#[test]
fn http_2_checks_share_nothing_with_the_clusters_protocol() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        let request = stream.request();
        assert_eq!((request.header(":authority"), request.header(":scheme")), (Some("origin"), Some("http")));
        stream.head(200, &[("content-length", "0")], true);
    });
    let checker = json!({"http_health_check": {"path": "/healthz", "codec_client_type": "HTTP2"}});
    let proxy = Proxy::start(&checked(&[origin.address()], checker, json!({})));
    await_healthy(&proxy, 1);
    wait::until("more checks", || proxy.admin.stat(&format!("{HC}success")) > 2);
    assert_eq!(proxy.admin.stat(&format!("{HC}failure")), 0);
    assert_eq!(proxy.admin.stat("cluster.origin.upstream_cx_total"), 0);
}

#[test]
fn checks_speak_the_clusters_tls_and_offer_only_what_they_are_told_to() {
    let origin = TlsOrigin::new("server", Answer::Keep);
    let more = json!({"tls_options": {"alpn_protocols": ["http/1.1"]}});
    // The cluster's own context offers HTTP/2.
    let config = checked(&[origin.address()], http(), more).tls_upstream();
    let proxy = Proxy::start(&config);
    await_healthy(&proxy, 1);
    let seen = origin.seen();
    let facts = (seen[0].server_name.as_deref(), seen[0].alpn.as_deref());
    assert_eq!((facts, seen.len()), ((Some("server.test"), Some("http/1.1")), 1));
}

#[test]
fn checks_go_where_the_endpoint_says() {
    let (origin, checks) = (Origin::ok(), Origin::ok());
    let mut config = checked(&[origin.address()], http(), json!({}));
    let place = "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint";
    config.0.pointer_mut(place).unwrap()["health_check_config"] =
        json!({"port_value": checks.address().port(), "hostname": "checked.test"});
    let proxy = Proxy::start(&config);
    await_healthy(&proxy, 1);
    assert!(checks.requests()[0].head.contains("host: checked.test\r\n"));
    assert_eq!(proxy.get("/").status, 200);
    assert!(origin.requests().iter().all(|request| request.path() == "/"));
}

#[test]
fn traffic_moves_to_the_next_priority_and_back() {
    let (first, second) = (Flapping::new(), Flapping::new());
    let mut config = checked(&[first.address()], http(), json!({}));
    let endpoints = config.0.pointer_mut("/static_resources/clusters/0/load_assignment/endpoints").unwrap();
    let mut next = cluster("x", &[second.address()])["load_assignment"]["endpoints"][0].clone();
    next["priority"] = json!(1);
    endpoints.as_array_mut().unwrap().push(next);
    let proxy = Proxy::start(&config);
    await_healthy(&proxy, 2);
    assert_eq!((proxy.get("/").status, first.used().len()), (200, 1));
    first.say(ERROR);
    await_healthy(&proxy, 1);
    assert_eq!((proxy.get("/").status, second.used().len()), (200, 1));
    first.say(OK);
    await_healthy(&proxy, 2);
    assert_eq!((proxy.get("/").status, first.used().len()), (200, 2));
}

#[test]
fn tcp_sessions_end_with_their_host_where_that_is_asked_for() {
    for ends in [true, false] {
        let host = Flapping::new();
        let config = checked(&[host.address()], http(), json!({}));
        let config = config.cluster(json!({"close_connections_on_host_health_failure": ends}));
        let proxy = Proxy::start(&config.listener(json!({"filter_chains": [{"filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "t", "cluster": "origin",
            },
        }]}]})));
        await_healthy(&proxy, 1);
        let mut client = proxy.connect();
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
        host.say(ERROR);
        await_healthy(&proxy, 0);
        if ends {
            assert_eq!(client.end(), End::Fin);
            wait::until("its connection to close", || host.origin.open_connections() == 1);
            proxy.admin.await_stat("cluster.origin.upstream_cx_active", 0);
        } else {
            assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
        }
    }
}

/// A changed cluster is checked beside the one that it replaces, and takes over when its hosts had their first result.
#[test]
fn a_reload_waits_for_checks_and_fails_no_request() {
    let host = Flapping::new();
    let config = |interval: &str| checked(&[host.address()], http(), json!({"unhealthy_interval": interval}));
    let proxy = Proxy::start(&config("0.05s"));
    await_healthy(&proxy, 1);
    let mut client = proxy.connect();
    for (reloads, interval) in [(1, "0.06s"), (2, "0.07s"), (3, "0.08s")] {
        std::fs::write(proxy.config_file(), config(interval).0.to_string()).unwrap();
        wait::until("the reload", || {
            assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
            proxy.stat("config.reload_success") == reloads
        });
        for _ in 0..20 {
            assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
        }
    }
    // The checks of former clusters have ended.
    proxy.admin.await_stat(&format!("{HC}healthy"), 1);
    wait::until("the former checks' connections to close", || host.origin.open_connections() <= 2);
    assert_eq!(proxy.admin.stat(&format!("{HC}failure")), 0);
}

#[test]
fn what_checks_found_is_in_the_json_page() {
    let host = Flapping::new();
    host.say("hang");
    let proxy = Proxy::start(&checked(&[host.address()], http(), json!({})));
    let health = || -> Value {
        let page: Value = serde_json::from_str(&proxy.admin.get("/clusters?format=json").text()).unwrap();
        page["cluster_statuses"][0]["host_statuses"][0]["health_status"].clone()
    };
    let failed = json!({
        "failed_active_health_check": true, "active_hc_timeout": true, "eds_health_status": "HEALTHY",
    });
    wait::until("its flags", || health() == failed);
    host.say(OK);
    wait::until("its health", || health() == json!({"eds_health_status": "HEALTHY"}));
}

/// Several checks of a host: by an HTTP request of which 500 is a failure, and by one of which it is none.
#[test]
fn all_of_several_checks_must_find_a_host_well() {
    let (host, steady) = (Flapping::new(), Flapping::new());
    let expected = |statuses: &[u16]| {
        let range = |status: &u16| json!({"start": status, "end": status + 1});
        let ranges: Vec<_> = statuses.iter().map(range).collect();
        json!({"http_health_check": {"path": "/healthz", "expected_statuses": ranges}})
    };
    let mut both = check(expected(&[200]), json!({"name": "strict"}));
    let lenient = check(expected(&[200, 500]), json!({"name": "lenient"}))["health_checks"][0].take();
    both["health_checks"].as_array_mut().unwrap().push(lenient);
    let hosts = [host.address(), steady.address()];
    let proxy = Proxy::start(&Config::with_clusters(&[cluster("origin", &hosts)]).cluster(both));
    await_healthy(&proxy, 2);
    let gauge = |name: &str, value| proxy.admin.await_stat(&format!("{HC}{name}"), value);
    gauge("healthy", 2);

    host.say("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n");
    await_healthy(&proxy, 1);
    assert_eq!(flags(&proxy, host.address()), "/failed_active_hc");
    gauge("name.strict.healthy", 1);
    gauge("name.lenient.healthy", 2);
    gauge("healthy", 1);

    host.say("HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n");
    gauge("name.lenient.healthy", 1);
    host.say("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n");
    gauge("name.lenient.healthy", 2);
    assert_eq!(flags(&proxy, host.address()), "/failed_active_hc");

    host.say(OK);
    await_healthy(&proxy, 2);
    assert_eq!(flags(&proxy, host.address()), "healthy");
    assert_eq!(proxy.stat(&format!("{HC}name.lenient.network_failure")), 0);
    let page = proxy.admin.get("/stats/prometheus").text();
    let line = r#"envoy_cluster_health_check_healthy{envoy_health_check_name="strict",envoy_cluster_name="origin"} 2"#;
    assert!(page.lines().any(|listed| listed == line), "{page}");
}
