//! What an operator sees of connections: `stats_config`, close reasons, idle gauges and ages, debug lines.

use std::collections::BTreeSet;

use integration_tests::process::run;
use integration_tests::proxy::Options;
use integration_tests::{Config, End, Origin, Proxy, Wire, binary, examples, wait};
use serde_json::json;

#[test]
fn a_matcher_hides_statistics_in_every_format_and_warns_of_idle_counters() {
    let origin = Origin::ok();
    let patterns = json!([{"suffix": "_idle_timeout"}, {"prefix": "server."}, {"contains": "LENGTH_ms", "ignore_case": true}]);
    let config = Config::new(origin.address()).bootstrap(json!({
        "stats_config": {"stats_matcher": {"exclusion_list": {"patterns": patterns}}},
        "stats_flush_interval": "0.05s",
    }));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").status, 200);
    proxy.admin.await_stat("http.ingress.downstream_cx_destroy", 1);
    for page in ["/stats", "/stats?format=json", "/stats/prometheus"] {
        let text = proxy.admin.get(page).text();
        assert!(text.contains("upstream_cx_total"), "{page}: {text}");
        for hidden in ["cx_idle_timeout", "rq_idle_timeout", "length_ms", "\"server.", "envoy_server"] {
            assert!(!text.contains(hidden), "{page} shows {hidden}");
        }
    }
    let warning = "stats_config.stats_matcher.exclusion_list.patterns[0] hides \
                   `cluster.origin.upstream_cx_idle_timeout`, `http.ingress.downstream_cx_idle_timeout`";
    wait::until(warning, || proxy.log().contains(warning));
    let said = run(std::process::Command::new(binary::tidegate()).arg("validate").arg(proxy.config_file()));
    assert_eq!(said.code, Some(0));
    assert!(said.stderr.contains(&format!("warning: {warning}")), "{}", said.stderr);
    // The bootstrap is static.
    let mut changed = config.0.clone();
    changed["stats_config"] = json!({});
    std::fs::write(proxy.config_file(), changed.to_string()).unwrap();
    assert_eq!(proxy.admin.post("/reload").status, 200);
    wait::until("the warning", || {
        proxy.log().contains("a change of `stats_config` takes effect at the next start")
    });
    assert!(!proxy.admin.get("/stats").text().contains("cx_idle_timeout"));
}

#[test]
fn tags_become_labels() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).bootstrap(json!({"stats_config": {"stats_tags": [
        {"tag_name": "my.dc", "fixed_value": "ams"},
        {"tag_name": "side", "regex": "((up|down)stream)_cx_total$"},
    ]}}));
    let proxy = Proxy::start(&config);
    let text = proxy.admin.get("/stats/prometheus").text();
    for line in [
        "envoy_cluster__cx_total{my_dc=\"ams\",side=\"up\",envoy_cluster_name=\"origin\"} 0",
        "envoy_http__cx_total{my_dc=\"ams\",side=\"down\",envoy_http_conn_manager_prefix=\"ingress\"} 0",
        "envoy_server_live{my_dc=\"ams\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in {text}");
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const DOWN: &str = "http.ingress.downstream_cx";
const UP: &str = "cluster.origin.upstream_cx";

/// `count` connections closed for `reason`, no other one did, and all of them are accounted for.
#[track_caller]
fn closed(proxy: &Proxy, side: &str, reason: &str, count: u64) {
    proxy.admin.await_stat(&format!("{side}_destroy"), count);
    let stats = proxy.admin.stats();
    let family = format!("{side}_close_reason.");
    let reasons = stats.0.iter().filter(|(name, value)| name.starts_with(&family) && **value > 0);
    let found: Vec<_> = reasons.map(|(name, value)| (&name[family.len()..], *value)).collect();
    assert_eq!(found, [(reason, count)], "{side}");
    let (local, remote) =
        (stats.get(&format!("{side}_destroy_local")), stats.get(&format!("{side}_destroy_remote")));
    assert_eq!(local + remote, count, "{side}");
    assert_eq!(stats.get(&format!("{side}_idle")), stats.get(&format!("{side}_active")), "{side}");
}

/// A proxy that logs everything.
#[track_caller]
fn start(config: &Config) -> Proxy {
    let arguments = vec!["-l".to_owned(), "debug".to_owned()];
    Options { arguments, ..Options::default() }.start(config)
}

/// The lines of closes, which are `count`. What the process wrote is read by another thread.
#[track_caller]
fn close_lines(proxy: &Proxy, what: &str, count: usize) -> Vec<String> {
    let lines = || -> Vec<String> {
        proxy.log().lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
    };
    wait::until(what, || lines().len() >= count);
    assert_eq!(lines().len(), count, "{:?}", lines());
    lines()
}

fn hcm_options(options: serde_json::Value) -> serde_json::Value {
    json!({"drain_timeout": "0s", "common_http_protocol_options": options})
}

#[test]
fn all_reasons_exist_from_the_start_and_are_one_metric() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let text = proxy.admin.get("/stats/prometheus").text();
    for line in [
        "# TYPE envoy_cluster_upstream_cx_close_reason counter",
        "envoy_cluster_upstream_cx_close_reason{reason=\"idle_timeout\",envoy_cluster_name=\"origin\"} 0",
        "envoy_http_downstream_cx_close_reason{reason=\"peer_rst\",envoy_http_conn_manager_prefix=\"ingress\"} 0",
        "envoy_http_downstream_cx_close_reason{reason=\"peer_rst\",envoy_http_conn_manager_prefix=\"admin\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line}");
    }
}

#[test]
fn a_client_that_goes_is_told_by_how_it_went() {
    let origin = Origin::ok();
    let proxy = start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.ask(GET);
    drop(client);
    closed(&proxy, DOWN, "peer_fin", 1);
    let lines = close_lines(&proxy, "closing a downstream connection", 1);
    for part in [
        "closed by the peer",
        "kind=\"downstream h1\"",
        "peer=127.0.0.1:",
        "stat_prefix=\"ingress\"",
        "reason=\"peer_fin\"",
        "idle_ms=",
    ] {
        assert!(lines[0].contains(part) && lines[0].contains("[debug][http]"), "no {part} in {lines:?}");
    }

    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.ask(GET);
    client.reset();
    closed(&proxy, DOWN, "peer_rst", 1);
}

#[test]
fn a_client_that_goes_with_its_request_resets_the_upstream() {
    let origin = Origin::script(|mut peer| {
        peer.request();
        peer.wire.end();
    });
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    client.send(GET);
    origin.await_requests(1);
    drop(client);
    closed(&proxy, DOWN, "peer_fin", 1);
    closed(&proxy, UP, "request_reset", 1);
    let mut client = proxy.connect();
    client.send(GET);
    origin.await_requests(2);
    client.reset();
    proxy.admin.await_stat("http.ingress.downstream_cx_close_reason.peer_rst", 1);
    closed(&proxy, UP, "request_reset", 2);
}

#[test]
fn idle_clients_close_for_their_idle_timeout_with_and_without_a_request() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).hcm(hcm_options(json!({"idle_timeout": "0.15s"})));
    let proxy = start(&config);
    let mut client = proxy.connect();
    proxy.admin.await_stat("http.ingress.downstream_cx_idle", 1);
    assert_eq!(client.end(), End::Fin);
    drop(client);
    let mut client = proxy.connect();
    client.ask(GET);
    assert_eq!(client.end(), End::Fin);
    drop(client);
    closed(&proxy, DOWN, "idle_timeout", 2);
    let lines = close_lines(&proxy, "closing a downstream connection: idle timeout", 2);
    for line in lines {
        let idle = line.split("idle_ms=").nth(1).unwrap().split([' ', '\u{1b}']).next().unwrap();
        assert!(idle.parse::<u64>().unwrap() >= 150, "{line}");
    }
    // The drain window belongs to the idle timeout that began it.
    let config = config.hcm(json!({"drain_timeout": "0.1s"}));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    client.ask(GET);
    assert_eq!(client.end(), End::Fin);
    drop(client);
    closed(&proxy, DOWN, "idle_timeout", 1);
    // A request in the window ends the connection for the same reason.
    let proxy = Proxy::start(&config.hcm(json!({"drain_timeout": "5s"})));
    let mut client = proxy.connect();
    client.ask(GET);
    proxy.admin.await_stat("http.ingress.downstream_cx_idle_timeout", 1);
    assert!(client.ask(GET).closes());
    drop(client);
    closed(&proxy, DOWN, "idle_timeout", 1);
}

#[test]
fn limits_of_a_clients_connection_are_reasons() {
    let origin = Origin::ok();
    for (options, reason) in [
        (json!({"max_connection_duration": "0.15s"}), "max_duration"),
        (json!({"max_requests_per_connection": 1}), "max_requests"),
    ] {
        let proxy = Proxy::start(&Config::new(origin.address()).hcm(hcm_options(options)));
        let mut client = proxy.connect();
        client.ask(GET);
        assert_eq!(client.end(), End::Fin);
        drop(client);
        closed(&proxy, DOWN, reason, 1);
    }
}

#[test]
fn what_a_client_sends_can_be_the_reason() {
    let origin = Origin::ok();
    let config = Config::new(origin.address()).hcm(json!({"request_headers_timeout": "0.1s"}));
    for (sent, reason) in [
        ("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n", "announced"),
        ("garbage\r\n\r\n", "protocol_error"),
        ("GET / HTTP/1.1\r\nhost: a.test\r\nhost: b.test\r\n\r\n", "protocol_error"),
        ("GET / HTTP/1.0\r\n\r\n", "protocol_error"),
        ("GET / HTTP/1.1\r\nho", "request_timeout"),
        (
            "POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
            "protocol_error",
        ),
    ] {
        let proxy = Proxy::start(&config);
        let mut client = proxy.connect();
        client.send(sent);
        assert_eq!(client.end(), End::Fin, "{sent}");
        drop(client);
        closed(&proxy, DOWN, reason, 1);
    }
}

#[test]
fn draining_is_a_reason_on_both_sides() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    assert_eq!(proxy.admin.post("/healthcheck/fail").status, 200);
    assert!(client.ask(GET).closes());
    drop(client);
    closed(&proxy, DOWN, "drained", 1);

    let mut changed = Config::new(origin.address()).cluster(json!({"connect_timeout": "4s"}));
    changed.0["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = json!(0);
    changed.0["static_resources"]["listeners"][0]["stat_prefix"] = json!("other");
    assert_eq!(proxy.admin.post("/healthcheck/ok").status, 200);
    let mut idle = proxy.connect();
    idle.ask(GET);
    std::fs::write(proxy.config_file(), changed.0.to_string()).unwrap();
    assert_eq!(proxy.admin.post("/reload").status, 200);
    assert_eq!(idle.end(), End::Fin);
    drop(idle);
    closed(&proxy, DOWN, "drained", 2);
    closed(&proxy, UP, "drained", 1);
}

#[test]
fn timeouts_of_requests_close_the_upstream() {
    let origin = Origin::script(|mut peer| {
        peer.request();
        peer.wire.end();
    });
    let config = Config::new(origin.address());
    for change in
        [json!({"route": {"timeout": "0.1s"}}), json!({"route": {"idle_timeout": "0.1s", "timeout": "0s"}})]
    {
        let proxy = Proxy::start(&config.clone().route(change));
        assert_eq!(proxy.get("/").status, 504);
        closed(&proxy, UP, "request_timeout", 1);
        closed(&proxy, DOWN, "peer_fin", 1);
    }
    // The response has begun: it is cut on both sides.
    let origin = Origin::script(|mut peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf");
        peer.wire.end();
    });
    let proxy = Proxy::start(&Config::new(origin.address()).route(json!({"route": {"timeout": "0.1s"}})));
    let mut client = proxy.connect();
    client.send(GET);
    assert_ne!(client.end(), End::Open);
    drop(client);
    closed(&proxy, UP, "request_timeout", 1);
    closed(&proxy, DOWN, "request_timeout", 1);
}

/// The reason of the upstream connection's end after `client` got an answer.
#[track_caller]
fn upstream_ends(origin: &Origin, options: serde_json::Value, reason: &str) -> Proxy {
    let proxy =
        start(&Config::new(origin.address()).cluster_http(json!({"common_http_protocol_options": options})));
    proxy.get("/");
    closed(&proxy, UP, reason, 1);
    let lines = close_lines(&proxy, "closing an upstream connection", 1);
    for part in [
        "kind=\"upstream h1\"",
        &format!("reason=\"{reason}\""),
        "cluster=\"origin\"",
        "peer=127.0.0.1:",
        "idle_ms=",
        "[debug][pool]",
    ] {
        assert!(lines[0].contains(part), "no {part} in {lines:?}");
    }
    proxy
}

#[test]
fn upstream_connections_end_for_their_limits() {
    let origin = Origin::ok();
    let proxy = upstream_ends(&origin, json!({"idle_timeout": "0.15s"}), "idle_timeout");
    close_lines(&proxy, "closing an upstream connection: idle timeout", 1);
    upstream_ends(&origin, json!({"max_connection_duration": "0.15s"}), "max_duration");
    upstream_ends(&origin, json!({"max_requests_per_connection": 1}), "max_requests");
}

#[test]
fn upstream_connections_end_by_the_upstream() {
    let none = || json!({});
    let say = |text: &'static str| {
        Origin::script(move |mut peer| {
            peer.request();
            peer.send(text);
        })
    };
    upstream_ends(&say(integration_tests::origin::OK), none(), "peer_fin");
    upstream_ends(&say("HTTP/1.1 200 OK\r\n\r\nuntil the end"), none(), "peer_fin");
    upstream_ends(
        &Origin::saying("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
        none(),
        "announced",
    );
    upstream_ends(&Origin::saying("nonsense\r\n\r\n"), none(), "protocol_error");
    upstream_ends(
        &Origin::saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nmore"),
        none(),
        "protocol_error",
    );
    let reset = Origin::script(|mut peer| {
        peer.request();
        peer.send(integration_tests::origin::OK);
        peer.wire.reset();
    });
    upstream_ends(&reset, none(), "peer_rst");
    let nobody = integration_tests::Nobody::new();
    let proxy = Proxy::start(&Config::new(nobody.address()));
    assert_eq!(proxy.get("/").status, 503);
    closed(&proxy, UP, "connect_failed", 1);
}

#[test]
fn a_place_that_is_given_up_is_an_overflow() {
    let (first, second) = (Origin::ok(), Origin::ok());
    let both = [integration_tests::config::cluster("origin", &[first.address(), second.address()])];
    let limit = json!({"circuit_breakers": {"thresholds": [{"max_connections": 1}]}});
    let proxy = Proxy::start(&Config::with_clusters(&both).cluster(limit));
    let mut client = proxy.connect();
    for _ in 0..2 {
        assert_eq!(client.ask(GET).status, 200);
    }
    closed(&proxy, UP, "overflow", 1);
}

#[test]
fn idle_ages_are_recorded() {
    let origin = Origin::ok();
    let config = Config::new(origin.address())
        .bootstrap(json!({"stats_flush_interval": "0.05s"}))
        .cluster_http(json!({"common_http_protocol_options": {"idle_timeout": "0.3s"}}));
    let proxy = Proxy::start(&config);
    let mut client = proxy.connect();
    client.ask(GET);
    proxy.admin.await_stat("cluster.origin.upstream_cx_idle", 1);
    proxy.admin.await_stat("http.ingress.downstream_cx_idle", 1);
    client.ask(GET);
    closed(&proxy, UP, "idle_timeout", 1);
    drop(client);
    closed(&proxy, DOWN, "peer_fin", 1);
    wait::until("the histograms", || {
        let text = proxy.admin.get("/stats/prometheus").text();
        let count = |name: &str, of: &str| text.contains(&format!("envoy_{name}_count{{{of}}} 1\n"));
        let cluster = "envoy_cluster_name=\"origin\"";
        let manager = "envoy_http_conn_manager_prefix=\"ingress\"";
        count("cluster_upstream_cx_idle_age_at_reuse_ms", cluster)
            && count("cluster_upstream_cx_idle_age_at_close_ms", cluster)
            && count("http_downstream_cx_idle_age_at_reuse_ms", manager)
            && count("http_downstream_cx_idle_age_at_close_ms", manager)
    });
}

const EXAMPLE: &str = "monitoring/tidegate.json";

fn monitoring_file(name: &str) -> std::path::PathBuf {
    binary::root().join("config-examples/monitoring").join(name)
}

/// Runs the example so that every kind of statistic has a value, and prints it.
fn printed_metrics() -> String {
    let faster = [("\"5s\"", "\"0.05s\""), ("\"50s\"", "\"0.1s\"")];
    let running = examples::start(EXAMPLE, &Options::default(), &faster);
    let proxy = &running.proxy;
    let mut client = proxy.connect();
    (0..2).for_each(|_| assert_eq!(client.ask(GET).status, 200));
    proxy.admin.await_stat("cluster.app.upstream_cx_idle_timeout", 1);
    drop(client);
    let mut session = Wire::connect(proxy.admin.listener("tcp"));
    assert_eq!(session.ask(GET).text(), "two");
    drop(session);
    proxy.admin.await_stat("tcp.redis.downstream_cx_destroy", 1);
    proxy.admin.await_stat("http.ingress.downstream_cx_destroy", 1);
    wait::until_some("the histograms", || {
        let text = proxy.admin.get("/stats/prometheus").text();
        let mut all = ["cluster_upstream", "http_downstream", "tcp_downstream"].into_iter();
        all.all(|side| text.contains(&format!("envoy_{side}_cx_idle_age_at_close_ms_sum"))).then_some(text)
    })
}

#[test]
fn rules_and_dashboard_name_only_what_the_binary_prints() {
    let text = printed_metrics();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let metrics: BTreeSet<&str> = lines.clone().filter_map(|line| line.split('{').next()).collect();
    let labels: BTreeSet<&str> = lines
        .filter_map(|line| line.split_once('{')?.1.rsplit_once('}'))
        .flat_map(|(labels, _)| labels.split(','))
        .filter_map(|label| label.split('=').next())
        .collect();
    assert!(labels.contains("site"), "{labels:?}");
    for file in ["prometheus/alerts.yaml", "grafana/dashboard.json"] {
        let text = std::fs::read_to_string(monitoring_file(file)).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: BTreeSet<&str> = words.filter(|word| word.starts_with("envoy_")).collect();
        assert!(names.len() > 10, "{file}: {names:?}");
        let unknown: Vec<_> =
            names.iter().filter(|n| !metrics.contains(*n) && !labels.contains(*n)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn promtool_accepts_the_rules() {
    let Some(promtool) = binary::peer("promtool", "PROMTOOL") else { return binary::skipped("promtool") };
    let rules = monitoring_file("prometheus/alerts.yaml");
    let said = run(std::process::Command::new(&promtool).args(["check", "rules", "--lint-fatal"]).arg(rules));
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    let scrape = monitoring_file("prometheus/scrape.yaml");
    let said = run(std::process::Command::new(&promtool).args(["check", "config"]).arg(scrape));
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    // What the binary prints is what Prometheus reads; Envoy's names do not follow its advice on units.
    let mut check = std::process::Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), printed_metrics().as_bytes()).unwrap();
    let said = check.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(!text.contains("error while linting"), "{text}");
}
