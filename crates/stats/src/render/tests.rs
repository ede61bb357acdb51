use regex::Regex;

use super::{Buckets, Filter, Types, UsedOnly, json, prometheus, text};
use crate::{CodeCounters, DynScope, Policy, Scope, Store, TagRules, stat_block, stat_family};

stat_block! {
    struct ClusterStats {
        counters { upstream_cx_total, upstream_rq_total }
        gauges { upstream_cx_active, cx_open = "circuit_breakers.default.cx_open" }
        histograms { upstream_rq_time, upstream_cx_length_ms }
    }
}

stat_block! {
    struct HttpStats { counters { downstream_rq_2xx, downstream_rq_5xx } }
}

stat_block! {
    struct ServerStats { gauges { live } histograms { initialization_time_ms } }
}

struct Fixture {
    store: Store,
    cluster: ClusterStats,
    _kept: (HttpStats, ServerStats, CodeCounters),
}

fn fixture() -> Fixture {
    let store = Store::new(1);
    let cluster = ClusterStats::new(&store, Scope::cluster("h1"));
    let http = HttpStats::new(&store, Scope::listener_http("127.0.0.1:80", "P"));
    let server = ServerStats::new(&store, Scope::new("server", &[]));
    let codes = CodeCounters::new(&store, Scope::cluster("h1"));
    cluster.upstream_cx_total().add(3);
    cluster.upstream_cx_active().inc();
    cluster.upstream_cx_active().dec();
    cluster.upstream_rq_time().record(1);
    store.flush();
    codes.record(200);
    http.downstream_rq_2xx().inc();
    server.live().set(1);
    Fixture { store, cluster, _kept: (http, server, codes) }
}

#[test]
fn text_is_sorted_with_histograms_last() {
    let f = fixture();
    let expected = "\
cluster.h1.circuit_breakers.default.cx_open: 0
cluster.h1.upstream_cx_active: 0
cluster.h1.upstream_cx_total: 3
cluster.h1.upstream_rq_200: 1
cluster.h1.upstream_rq_2xx: 1
cluster.h1.upstream_rq_completed: 1
cluster.h1.upstream_rq_total: 0
listener.127.0.0.1_80.http.P.downstream_rq_2xx: 1
listener.127.0.0.1_80.http.P.downstream_rq_5xx: 0
server.live: 1
cluster.h1.upstream_cx_length_ms: No recorded values
cluster.h1.upstream_rq_time: P0(1,1) P25(1,1) P50(1,1) P75(1,1) P90(1,1) P95(1,1) P99(1,1) P99.5(1,1) P99.9(1,1) P100(1,1)
server.initialization_time_ms: No recorded values
";
    assert_eq!(text(&f.store, &Filter::default()), expected);
}

stat_block! {
    struct Highest {
        gauges { cx_left = "remaining_cx", days = "days", version }
    }
}

/// "No limit" is printed as Envoy's 2^64-1, and other numbers as they are.
#[test]
fn what_remains_of_no_limit_is_no_number() {
    let store = Store::new(1);
    let highest = Highest::new(&store, Scope::new("h", &[]));
    highest.cx_left().set(i64::MAX - 1);
    highest.days().set(i64::MAX);
    highest.version().set(-1);
    assert_eq!(
        text(&store, &Filter::default()),
        "h.days: 9223372036854775807\nh.remaining_cx: 18446744073709551614\nh.version: 18446744073709551615\n"
    );
}

#[test]
fn an_idle_interval_is_nan() {
    let f = fixture();
    f.store.flush();
    let only = |name: &str| name == "cluster.h1.upstream_rq_time";
    let filter = Filter { name: Some(&only), ..Filter::default() };
    assert!(text(&f.store, &filter).starts_with("cluster.h1.upstream_rq_time: P0(nan,1) P25(nan,1)"));
    assert!(json(&f.store, &filter).contains("[{\"cumulative\":1,\"interval\":null},"));
}

#[test]
fn filters() {
    let f = fixture();
    let starts = |name: &str| name.starts_with("cluster.");
    let filter =
        Filter { name: Some(&starts), used_only: UsedOnly::Yes, types: Types::Gauges, ..Filter::default() };
    // A gauge that returned to 0 is used, one that was never written is not.
    assert_eq!(text(&f.store, &filter), "cluster.h1.upstream_cx_active: 0\n");
    let filter = Filter { types: Types::Counters, ..filter };
    let counters = "cluster.h1.upstream_cx_total: 3\ncluster.h1.upstream_rq_200: 1\n\
        cluster.h1.upstream_rq_2xx: 1\ncluster.h1.upstream_rq_completed: 1\n";
    assert_eq!(text(&f.store, &filter), counters);
    let filter = Filter { types: Types::Histograms, ..filter };
    assert_eq!(text(&f.store, &filter).lines().count(), 1);

    f.store.reset_counters();
    let total = |name: &str| name.ends_with("cx_total");
    let filter =
        Filter { name: Some(&total), used_only: UsedOnly::Yes, types: Types::All, ..Filter::default() };
    assert_eq!(text(&f.store, &filter), "cluster.h1.upstream_cx_total: 0\n");
}

#[test]
fn json_is_envoys() {
    let f = fixture();
    let some = |name: &str| name.ends_with("_cx_total") || name.ends_with("rq_time");
    let filter = Filter { name: Some(&some), ..Filter::default() };
    let values = ["{\"cumulative\":1,\"interval\":1}"; 10].join(",");
    let expected = format!(
        "{{\"stats\":[{{\"name\":\"cluster.h1.upstream_cx_total\",\"value\":3}},\
         {{\"histograms\":{{\"supported_quantiles\":[0,25,50,75,90,95,99,99.5,99.9,100],\
         \"computed_quantiles\":[{{\"name\":\"cluster.h1.upstream_rq_time\",\"values\":[{values}]}}]}}}}]}}"
    );
    assert_eq!(json(&f.store, &filter), expected);
    let none = |_: &str| false;
    let filter = Filter { name: Some(&none), ..Filter::default() };
    assert_eq!(json(&f.store, &filter), "{\"stats\":[]}");
}

#[test]
fn json_escapes_names() {
    let store = Store::new(1);
    let scope = DynScope::new(&store, Scope::cluster("a\"\\\n"));
    let _x = scope.counter("x");
    let expected = "{\"stats\":[{\"name\":\"cluster.a\\\"\\\\\\u000a.x\",\"value\":0}]}";
    assert_eq!(json(&store, &Filter::default()), expected);
}

#[test]
fn prometheus_numbers() {
    let f = fixture();
    let any = |name: &str| !name.contains("time") && !name.ends_with("_ms");
    let expected = "\
# TYPE envoy_cluster_upstream_cx_total counter
envoy_cluster_upstream_cx_total{envoy_cluster_name=\"h1\"} 3
# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"h1\"} 1
# TYPE envoy_cluster_upstream_rq_completed counter
envoy_cluster_upstream_rq_completed{envoy_cluster_name=\"h1\"} 1
# TYPE envoy_cluster_upstream_rq_total counter
envoy_cluster_upstream_rq_total{envoy_cluster_name=\"h1\"} 0
# TYPE envoy_cluster_upstream_rq_xx counter
envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"h1\"} 1
# TYPE envoy_listener_http_downstream_rq_xx counter
envoy_listener_http_downstream_rq_xx{envoy_response_code_class=\"2\",envoy_http_conn_manager_prefix=\"P\",\
envoy_listener_address=\"127.0.0.1_80\"} 1
envoy_listener_http_downstream_rq_xx{envoy_response_code_class=\"5\",envoy_http_conn_manager_prefix=\"P\",\
envoy_listener_address=\"127.0.0.1_80\"} 0
# TYPE envoy_cluster_circuit_breakers_default_cx_open gauge
envoy_cluster_circuit_breakers_default_cx_open{envoy_cluster_name=\"h1\"} 0
# TYPE envoy_cluster_upstream_cx_active gauge
envoy_cluster_upstream_cx_active{envoy_cluster_name=\"h1\"} 0
# TYPE envoy_server_live gauge
envoy_server_live{} 1
";
    assert_eq!(prometheus(&f.store, &Filter { name: Some(&any), ..Filter::default() }), expected);
}

#[test]
fn prometheus_histograms() {
    let f = fixture();
    f.cluster.upstream_rq_time().record(7_000_000);
    f.store.flush();
    let name = |name: &str| name.contains("cluster");
    let mut out =
        prometheus(&f.store, &Filter { types: Types::Histograms, name: Some(&name), ..Filter::default() });
    let unused = "envoy_cluster_upstream_cx_length_ms_bucket{envoy_cluster_name=\"h1\",le=\"+Inf\"} 0";
    assert!(out.lines().any(|line| line == unused), "{out}");
    let out = out.split_off(out.find("# TYPE envoy_cluster_upstream_rq_time").unwrap());
    let lines: Vec<_> = out.lines().collect();
    let bucket =
        |le: &str| format!("envoy_cluster_upstream_rq_time_bucket{{envoy_cluster_name=\"h1\",le=\"{le}\"}}");
    assert_eq!(lines.len(), 1 + 19 + 3, "{out}");
    assert_eq!(lines[0], "# TYPE envoy_cluster_upstream_rq_time histogram");
    assert_eq!(lines[1], format!("{} 0", bucket("0.5")));
    assert_eq!(lines[2], format!("{} 1", bucket("1")));
    assert_eq!(lines[19], format!("{} 1", bucket("3600000")));
    assert_eq!(lines[20], format!("{} 2", bucket("+Inf")));
    assert_eq!(lines[21], "envoy_cluster_upstream_rq_time_sum{envoy_cluster_name=\"h1\"} 7000001");
    assert_eq!(lines[22], "envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"h1\"} 2");
}

/// What of `page` is about the two histograms of a cluster, of which one has recorded 1 and 130.
fn buckets(page: fn(&Store, &Filter<'_>) -> String, buckets: Buckets) -> String {
    let f = fixture();
    f.cluster.upstream_rq_time().record(130);
    f.store.flush();
    let name = |name: &str| name.contains("rq_time") || name.contains("length");
    page(&f.store, &Filter { name: Some(&name), buckets, ..Filter::default() })
}

#[test]
fn text_of_buckets() {
    let cumulative = buckets(text, Buckets::Cumulative);
    assert!(cumulative.starts_with("cluster.h1.upstream_cx_length_ms: No recorded values\n"), "{cumulative}");
    assert!(cumulative.contains("upstream_rq_time: B0.5(0,0) B1(0,1) B5(0,1) "), "{cumulative}");
    assert!(cumulative.ends_with(" B250(1,2) B500(1,2) B1000(1,2) B2500(1,2) B5000(1,2) B10000(1,2) B30000(1,2) B60000(1,2) B300000(1,2) B600000(1,2) B1.8e+06(1,2) B3.6e+06(1,2)\n"), "{cumulative}");
    let disjoint = buckets(text, Buckets::Disjoint);
    assert!(
        disjoint.contains(
            ": B0.5(0,0) B1(0,1) B5(0,0) B10(0,0) B25(0,0) B50(0,0) B100(0,0) B250(1,1) B500(0,0) "
        )
    );
    let detailed = buckets(text, Buckets::Detailed);
    let cells = "upstream_rq_time:\n  totals=1,1:1, 130,2:1\n  intervals=130,2:1\n  summary=P0(";
    assert!(detailed.contains(cells), "{detailed}");
}

#[test]
fn json_of_buckets() {
    let cumulative = buckets(json, Buckets::Cumulative);
    let start = r#"{"stats":[{"histograms":[{"name":"cluster.h1.upstream_cx_length_ms","buckets":[{"upper_bound":0.5,"interval":0,"cumulative":0},"#;
    assert!(cumulative.starts_with(start), "{cumulative}");
    let end = r#"{"upper_bound":3600000,"interval":1,"cumulative":2}]}]}]}"#;
    assert!(cumulative.ends_with(end), "{cumulative}");
    assert!(buckets(json, Buckets::Disjoint).ends_with(r#""interval":0,"cumulative":0}]}]}]}"#));
    let detailed = buckets(json, Buckets::Detailed);
    for part in [
        r#"{"stats":[{"histograms":{"supported_percentiles":[0,25,50,75,90,95,99,99.5,99.9,100],"details":[{"#,
        r#""totals":[],"intervals":[],"percentiles":[{"cumulative":null,"interval":null},"#,
        r#""intervals":[{"lower_bound":130,"width":2,"count":1}],"percentiles":[{"cumulative":1,"interval":131}"#,
    ] {
        assert!(detailed.contains(part), "{part} in {detailed}");
    }
}

#[test]
fn prometheus_summary() {
    let page = buckets(prometheus, Buckets::Summary);
    let labels = "envoy_cluster_name=\"h1\"";
    for line in [
        "# TYPE envoy_cluster_upstream_rq_time summary\n".to_owned(),
        format!("envoy_cluster_upstream_rq_time{{{labels},quantile=\"0.999\"}} 131\n"),
        format!("envoy_cluster_upstream_rq_time{{{labels},quantile=\"1\"}} 131\n"),
        format!("envoy_cluster_upstream_rq_time_count{{{labels}}} 1\n"),
        format!("envoy_cluster_upstream_cx_length_ms{{{labels},quantile=\"0\"}} nan\n"),
        format!("envoy_cluster_upstream_cx_length_ms_count{{{labels}}} 0\n"),
    ] {
        assert!(page.contains(&line), "{line} in {page}");
    }
}

#[test]
fn prometheus_tls_labels() {
    let store = Store::new(1);
    let listener = DynScope::new(&store, Scope::listener("127.0.0.1:80"));
    let cluster = DynScope::new(&store, Scope::cluster("h1").child("ssl"));
    let _kept = [listener.counter("ssl.versions.TLSv1.3"), listener.counter("ssl.ciphers.X")];
    let _kept = (cluster.counter("ciphers.X"), cluster.counter("handshake"), _kept);
    let expected = "\
# TYPE envoy_cluster_ssl_ciphers counter
envoy_cluster_ssl_ciphers{cipher_suite=\"X\",envoy_cluster_name=\"h1\"} 0
# TYPE envoy_cluster_ssl_handshake counter
envoy_cluster_ssl_handshake{envoy_cluster_name=\"h1\"} 0
# TYPE envoy_listener_ssl_ciphers counter
envoy_listener_ssl_ciphers{envoy_ssl_cipher=\"X\",envoy_listener_address=\"127.0.0.1_80\"} 0
# TYPE envoy_listener_ssl_versions counter
envoy_listener_ssl_versions{envoy_ssl_version=\"TLSv1.3\",envoy_listener_address=\"127.0.0.1_80\"} 0
";
    assert_eq!(prometheus(&store, &Filter::default()), expected);
}

#[derive(Clone, Copy)]
enum Reason {
    Idle,
    Fin,
}

impl Reason {
    const ALL: [Self; 2] = [Self::Idle, Self::Fin];

    const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle_timeout",
            Self::Fin => "peer_fin",
        }
    }
}

stat_family! {
    struct CloseReasons(Reason) = "upstream_cx_close_reason";
}

#[test]
fn close_reasons_are_one_metric() {
    let store = Store::new(1);
    let reasons = CloseReasons::new(&store, &Scope::cluster("h1"));
    let http = DynScope::new(&store, Scope::http("in"));
    let _kept = http.counter("downstream_cx_close_reason.drained");
    reasons.of(Reason::Idle).add(2);
    assert_eq!((reasons.total(), reasons.of(Reason::Fin).value()), (2, 0));
    let expected = "\
cluster.h1.upstream_cx_close_reason.idle_timeout: 2
cluster.h1.upstream_cx_close_reason.peer_fin: 0
http.in.downstream_cx_close_reason.drained: 0
";
    assert_eq!(text(&store, &Filter::default()), expected);
    let expected = "\
# TYPE envoy_cluster_upstream_cx_close_reason counter
envoy_cluster_upstream_cx_close_reason{reason=\"idle_timeout\",envoy_cluster_name=\"h1\"} 2
envoy_cluster_upstream_cx_close_reason{reason=\"peer_fin\",envoy_cluster_name=\"h1\"} 0
# TYPE envoy_http_downstream_cx_close_reason counter
envoy_http_downstream_cx_close_reason{reason=\"drained\",envoy_http_conn_manager_prefix=\"in\"} 0
";
    assert_eq!(prometheus(&store, &Filter::default()), expected);
}

fn rejecting(accepts: impl Fn(&str) -> bool + Send + Sync + 'static) -> Store {
    let store = Store::new(1);
    assert!(store.set_policy(Policy { accepts: Some(Box::new(accepts)), ..Policy::default() }));
    store
}

#[test]
fn what_is_rejected_is_in_no_format() {
    let store = rejecting(|name| !name.ends_with("_cx_total") && !name.contains("length") && name != "a.x");
    let stats = ClusterStats::new(&store, Scope::cluster("h1"));
    let dynamic = DynScope::new(&store, Scope::root().child("a"));
    let (hidden, shown) = (dynamic.counter("x"), dynamic.counter("y"));
    hidden.inc();
    shown.inc();
    stats.upstream_cx_total().inc();
    stats.upstream_rq_total().inc();
    stats.upstream_cx_length_ms().record(5);
    stats.upstream_rq_time().record(5);
    store.flush();
    let lines = text(&store, &Filter::default());
    let names: Vec<_> = lines.lines().filter_map(|line| line.split(':').next()).collect();
    let expected = [
        "a.y",
        "cluster.h1.circuit_breakers.default.cx_open",
        "cluster.h1.upstream_cx_active",
        "cluster.h1.upstream_rq_total",
        "cluster.h1.upstream_rq_time",
    ];
    assert_eq!(names, expected);
    assert_eq!(stats.upstream_cx_length_ms().count(), 0);
    for out in [json(&store, &Filter::default()), prometheus(&store, &Filter::default())] {
        assert!(!out.contains("cx_total") && !out.contains("length"), "{out}");
        assert!(out.contains("rq_time"), "{out}");
    }
}

#[test]
fn a_scope_that_is_rejected_whole_takes_writes_and_keeps_nothing() {
    let store = rejecting(|_| false);
    let stats = ClusterStats::new(&store, Scope::cluster("h1"));
    stats.upstream_cx_total().inc();
    stats.upstream_cx_active().inc();
    stats.upstream_rq_time().record(5);
    store.flush();
    assert_eq!((stats.upstream_cx_total().value(), stats.upstream_cx_active().value()), (0, 0));
    assert_eq!(text(&store, &Filter::default()), "");
    assert!(!store.set_policy(Policy::default()));
}

fn with_tags(set: impl Fn(&mut TagRules)) -> Store {
    let store = Store::new(1);
    let mut tags = TagRules::default();
    set(&mut tags);
    assert!(store.set_policy(Policy { accepts: None, tags }));
    store
}

/// The same rules on Envoy 1.40 give the same lines.
#[test]
fn tags_of_the_user() {
    let store = with_tags(|tags| {
        tags.fixed("my.dc", "ams");
        tags.regex("team", Regex::new(r"^cluster\.((\w+?)-)").unwrap());
        tags.regex("proto", Regex::new("_cx_(http[123])_").unwrap());
    });
    let cluster = DynScope::new(&store, Scope::cluster("blue-app"));
    let codes = CodeCounters::new(&store, Scope::cluster("blue-app"));
    codes.record(200);
    let server = DynScope::new(&store, Scope::root());
    let _kept = (cluster.counter("upstream_cx_http1_total"), cluster.counter("bind_errors"));
    let _kept = (server.counter("filesystem.write_failed"), _kept);
    let out = prometheus(&store, &Filter::default());
    let lines: Vec<_> = out.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = [
        "envoy_cluster_bind_errors{my_dc=\"ams\",envoy_cluster_name=\"blue-app\",team=\"blue\"} 0",
        "envoy_cluster_upstream_cx__total{my_dc=\"ams\",proto=\"http1\",envoy_cluster_name=\"blue-app\",team=\"blue\"} 0",
        "envoy_cluster_upstream_rq{my_dc=\"ams\",envoy_response_code=\"200\",envoy_cluster_name=\"blue-app\",team=\"blue\"} 1",
    ];
    assert_eq!(lines[..3], expected);
    assert_eq!(lines[lines.len() - 1], "envoy_filesystem_write_failed{my_dc=\"ams\"} 0");
}

#[test]
fn only_the_default_tags_that_are_named() {
    let store = with_tags(|tags| {
        tags.drop_known();
        tags.keep("envoy.cluster_name");
        tags.regex("x", Regex::new("(cx)").unwrap());
    });
    let cluster = DynScope::new(&store, Scope::cluster("blue-app"));
    let http = DynScope::new(&store, Scope::http("admin"));
    let reasons = CloseReasons::new(&store, &Scope::cluster("blue-app"));
    let _kept = (cluster.counter("upstream_cx_http1_total"), http.counter("downstream_cx_total"), reasons);
    let out = prometheus(&store, &Filter::default());
    let lines: Vec<_> = out.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = [
        "envoy_cluster_upstream__close_reason_idle_timeout{x=\"cx\",envoy_cluster_name=\"blue-app\"} 0",
        "envoy_cluster_upstream__close_reason_peer_fin{x=\"cx\",envoy_cluster_name=\"blue-app\"} 0",
        "envoy_cluster_upstream__http1_total{x=\"cx\",envoy_cluster_name=\"blue-app\"} 0",
        "envoy_http_admin_downstream__total{x=\"cx\"} 0",
    ];
    assert_eq!(lines, expected);
}

/// As Envoy 1.40: the first rule of a name wins, the others are as if they were not there.
#[test]
fn a_label_is_given_once() {
    let store = with_tags(|tags| {
        tags.fixed("k", "1");
        tags.fixed("k", "2");
        tags.regex("envoy.cluster_name", Regex::new(r"^cluster\.((b)lue)").unwrap());
        tags.regex("k", Regex::new("(bind)").unwrap());
    });
    let cluster = DynScope::new(&store, Scope::cluster("blue-app"));
    let _kept = cluster.counter("bind_errors");
    let line = "envoy_cluster_bind_errors{k=\"1\",envoy_cluster_name=\"blue-app\"} 0";
    let out = prometheus(&store, &Filter::default());
    assert_eq!(out.lines().nth(1), Some(line));
}
