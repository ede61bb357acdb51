//! `auto_config` with HTTP/3, over paths on which UDP goes nowhere: who serves requests then, what is counted and
//! remembered. The host is another proxy that ends TLS.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use integration_tests::config::text_format;
use integration_tests::h2::{Frame, H2Origin, Manners};
use integration_tests::process::run;
use integration_tests::proxy::await_lines;
use integration_tests::race::{auto, broken_until, front, hint, selecting};
use integration_tests::{Config, Nobody, Origin, Proxy, binary, wait};
use serde_json::json;
use tidegate_testkit::dns::{DnsServer, Say};

/// A host for `server.test`, which says this in `alt-svc`; `PORT` is its own.
fn host(origin: &Origin, alt_svc: Option<&str>) -> Proxy {
    let add = alt_svc.map(|value| json!({"header": {"key": "alt-svc", "value": value}}));
    let added: Vec<_> = add.into_iter().collect();
    let config = Config::new(origin.address()).tls_listener();
    Proxy::start(&config.virtual_host(json!({"response_headers_to_add": added})))
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn counts(proxy: &Proxy, expected: &[(&str, u64)]) {
    let stats = proxy.admin.stats();
    for (name, value) in expected {
        assert_eq!(stats.get(&format!("cluster.origin.{name}")), *value, "{name}");
    }
}

#[test]
fn a_closed_port_costs_nothing_and_is_remembered() {
    let origin = Origin::ok();
    let host = host(&origin, None);
    let port = host.address.port();
    let proxy = Proxy::start(&front(at(port), hint(port)));
    assert_eq!(proxy.get("/").status, 200);
    counts(
        &proxy,
        &[
            ("upstream_cx_http3_total", 1),
            ("upstream_cx_http2_total", 1),
            ("upstream_cx_total", 2),
            ("upstream_cx_connect_fail", 1),
            ("upstream_cx_destroy_local", 1),
            ("upstream_http3_broken", 1),
            ("upstream_rq_pending_failure_eject", 1),
        ],
    );
    let name = "http3.upstream.tx.quic_connection_close_error_code_QUIC_PACKET_WRITE_ERROR";
    assert_eq!(proxy.stat(name), 1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let until = broken_until(&proxy).unwrap();
    assert!((until + 1000).abs_diff(now) < 3000, "{until} {now}");
    wait::until("it is tried again", || {
        assert_eq!(proxy.get("/").status, 200);
        proxy.stat("cluster.origin.upstream_http3_broken") == 2
    });
    counts(&proxy, &[("upstream_cx_http3_total", 2), ("upstream_cx_http2_total", 1)]);
}

#[test]
fn a_black_hole_costs_one_request_a_moment() {
    let origin = Origin::ok();
    let host = host(&origin, None);
    let port = host.address.port();
    let _hole = UdpSocket::bind(host.address).unwrap();
    let proxy = Proxy::start(&front(at(port), hint(port)).cluster(json!({"connect_timeout": "1s"})));
    let began = Instant::now();
    assert_eq!(proxy.get("/").status, 200);
    assert!(began.elapsed() >= Duration::from_millis(300));
    // A ready connection is used, whatever QUIC does.
    assert_eq!(proxy.get("/").status, 200);
    counts(&proxy, &[("upstream_rq_pending_total", 2), ("upstream_http3_broken", 0)]);
    proxy.admin.await_stat("cluster.origin.upstream_http3_broken", 1);
    counts(&proxy, &[("upstream_cx_http3_total", 1), ("upstream_cx_connect_timeout", 1)]);
    assert!(broken_until(&proxy).is_some());
}

#[test]
fn how_long_quic_has_for_itself_is_configured() {
    let origin = Origin::ok();
    let host = host(&origin, None);
    let port = host.address.port();
    let _hole = UdpSocket::bind(host.address).unwrap();
    let config = selecting(front(at(port), hint(port)), json!({"tcp_delay": "60s"}));
    let config = config.cluster(json!({"connect_timeout": "1s"}));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").status, 200);
    // TCP began when QUIC had failed, and not before.
    counts(&proxy, &[("upstream_cx_connect_timeout", 1), ("upstream_http3_broken", 1)]);
    let file = proxy.config_file();
    let said =
        run(Command::new(binary::tidegate()).args(["--mode", "validate", "--envoy-strict", "-c"]).arg(file));
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("`tidegate.http3_selection` is Tidegate's own"), "{}", said.stderr);
}

#[test]
fn quic_that_goes_nowhere_does_not_hold_the_last_connection() {
    let origin = Origin::ok();
    let host = host(&origin, None);
    let port = host.address.port();
    let _hole = UdpSocket::bind(host.address).unwrap();
    let breakers = json!({"thresholds": [{"max_connections": 1}]});
    let config =
        front(at(port), hint(port)).cluster(json!({"connect_timeout": "60s", "circuit_breakers": breakers}));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").status, 200);
    counts(
        &proxy,
        &[
            ("upstream_cx_http3_total", 1),
            ("upstream_cx_http2_total", 1),
            ("upstream_cx_active", 1),
            ("upstream_cx_connect_fail", 0),
            ("upstream_http3_broken", 1),
        ],
    );
}

#[test]
fn nobody_there_is_told_with_both_failures() {
    let nobody = Nobody::new();
    let port = nobody.address().port();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let format = text_format("%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n");
    let config = front(at(port), hint(port)).cluster(json!({"connect_timeout": "1s"}));
    let proxy = Proxy::start(&config.access_log(&log, format));
    let response = proxy.get("/");
    assert_eq!(response.status, 503);
    assert_eq!(await_lines(&log, 1), ["UF delayed_connect_error:_Connection_refused"]);
    let _hole = UdpSocket::bind(nobody.address()).unwrap();
    assert_eq!(proxy.get("/").status, 503);
    let both = "UF QUIC_NO_ERROR_with_details:_Closed_by_application_(with_earlier_attempt_failure_reason_2,\
                _TCP:_delayed_connect_error:_Connection_refused)";
    assert_eq!(await_lines(&log, 2)[1], both);
    counts(&proxy, &[("upstream_http3_broken", 0), ("upstream_cx_http3_total", 2)]);
}

#[test]
fn what_is_learned_is_filed_under_the_name_that_was_asked_for() {
    let origin = Origin::ok();
    let nobody = Nobody::new();
    let said = format!("h3=\":{}\"", nobody.address().port());
    let host = host(&origin, Some(&said));
    let port = host.address.port();
    let options = json!({
        "explicit_http_config": null, "auto_config": auto(json!({"name": "c"})),
        "upstream_http_protocol_options": {"auto_sni": true, "auto_san_validation": true},
    });
    let tls = json!({"upstream_tls_context": {"sni": "configured.test"}});
    let config = front(at(port), json!({"name": "c"}))
        .cluster_http(options)
        .cluster(json!({"transport_socket": {"typed_config": tls}}));
    let proxy = Proxy::start(&config);
    let mut wire = proxy.connect();
    wire.send(b"GET / HTTP/1.1\r\nhost: server.test\r\n\r\n");
    assert_eq!(wire.response().status, 200);
    proxy.admin.await_stat("cluster.origin.upstream_cx_http3_total", 1);
}

#[test]
fn dns_says_who_takes_http3() {
    let origin = Origin::ok();
    let host = host(&origin, None);
    let port = host.address.port();
    let server = DnsServer::start();
    server.has("backend.test", &["127.0.0.1"]);
    // Nobody is there: it is found broken.
    let records = vec![(1, "", vec![(1, b"\x02h3".to_vec())])];
    server.say(&format!("_{port}._https.backend.test"), Say::Services(records, 60));
    let resolvers =
        json!([{"socket_address": {"address": "127.0.0.1", "port_value": server.address().port()}}]);
    let resolver = json!({
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": resolvers, "dns_resolver_options": {"no_default_search_domain": true},
        },
    });
    let endpoint = json!({"address": {"socket_address": {"address": "backend.test", "port_value": port}}});
    let config = front(at(port), json!({"name": "c"})).cluster(json!({
        "type": "STRICT_DNS", "dns_refresh_rate": "0.05s", "dns_lookup_family": "V4_ONLY",
        "typed_dns_resolver_config": resolver,
        "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }));
    let proxy = Proxy::start(&config);
    wait::until("HTTP/3 is tried", || {
        assert_eq!(proxy.get("/").status, 200);
        proxy.stat("cluster.origin.upstream_cx_http3_total") > 0
    });
    let silent = selecting(config, json!({"https_records": false}));
    let before = server.questions().len();
    let proxy = Proxy::start(&silent);
    wait::until("addresses are asked for", || server.questions().len() > before + 3);
    assert_eq!(proxy.get("/").status, 200);
    counts(&proxy, &[("upstream_cx_http3_total", 0)]);
}

fn with_file(port: u16, file: &Path) -> Config {
    let store = json!({
        "@type": "type.googleapis.com/envoy.extensions.key_value.file_based.v3.FileBasedKeyValueStoreConfig",
        "filename": file, "flush_interval": "0.01s", "max_entries": 10,
    });
    let keyed = json!({
        "@type": "type.googleapis.com/envoy.config.common.key_value.v3.KeyValueStoreConfig",
        "config": {"name": "envoy.key_value.file_based", "typed_config": store},
    });
    let config = json!({"name": "envoy.common.key_value", "typed_config": keyed});
    front(at(port), json!({"name": "c", "key_value_store_config": config}))
}

#[test]
fn what_a_response_says_is_learned_and_survives() {
    let origin = Origin::ok();
    // Learned from another port than the host's own: it is honoured, and closed.
    let nobody = Nobody::new();
    let said = format!("h3=\":{}\"; ma=3600", nobody.address().port());
    let host = host(&origin, Some(&said));
    let port = host.address.port();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("alt-svc.kv");

    let proxy = Proxy::start(&with_file(port, &file));
    assert_eq!(proxy.get("/").status, 200);
    // Tried for the next ones.
    proxy.admin.await_stat("cluster.origin.upstream_cx_http3_total", 1);
    let kept = wait::until_some("the file", || std::fs::read_to_string(&file).ok());
    let key = format!("https://server.test:{port}");
    let value = format!("h3=\":{}\"; ma=", nobody.address().port());
    assert!(kept.starts_with(&format!("{}\n{key}", key.len())), "{kept}");
    assert!(kept.contains(&value) && kept.ends_with("|0|0"), "{kept}");
    drop(proxy);

    let proxy = Proxy::start(&with_file(port, &file));
    assert_eq!(proxy.get("/").status, 200);
    counts(&proxy, &[("upstream_cx_http3_total", 1), ("upstream_http3_broken", 1)]);
    drop(proxy);

    std::fs::write(&file, b"garbage\n\x00").unwrap();
    let proxy = Proxy::start(&with_file(port, &file));
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(proxy.log().matches("key value store").count(), 1);
}

/// A host that speaks HTTP/2 and says this in an ALTSVC frame before it answers; `origin` is of stream 0's.
fn framing(said: String, origin: Option<fn(u16) -> String>) -> H2Origin {
    H2Origin::tls(Manners::default(), move |stream| {
        let request = stream.request();
        let port = request.header(":authority").and_then(|host| host.rsplit(':').next()?.parse().ok());
        let named = origin.map(|origin| origin(port.unwrap())).unwrap_or_default();
        let payload = [&(named.len() as u16).to_be_bytes()[..], named.as_bytes(), said.as_bytes()].concat();
        let on = if named.is_empty() { stream.id } else { 0 };
        stream.conn.send(&Frame::new(ALTSVC, 0, on, payload));
        stream.answer(200, "ok");
    })
}

const ALTSVC: u8 = 0xa;

/// Asks for the host's own name and port.
fn ask(proxy: &Proxy, port: u16) {
    let mut wire = proxy.connect();
    wire.send(format!("GET / HTTP/1.1\r\nhost: server.test:{port}\r\n\r\n").as_bytes());
    assert_eq!(wire.response().status, 200);
}

#[test]
fn altsvc_frames_are_learned_from() {
    let nobody = Nobody::new();
    let said = format!("h3=\":{}\"", nobody.address().port());
    for origin in [None, Some((|port| format!("https://server.test:{port}")) as fn(u16) -> String)] {
        let host = framing(said.clone(), origin);
        let port = host.address().port();
        let proxy = Proxy::start(&front(at(port), json!({"name": "c"})));
        ask(&proxy, port);
        proxy.admin.await_stat("cluster.origin.upstream_cx_http3_total", 1);
        ask(&proxy, port);
        counts(&proxy, &[("upstream_cx_http2_total", 1), ("upstream_cx_protocol_error", 0)]);
    }
}

/// A connection speaks for the origin that it was made for, and takes back what it said.
#[test]
fn altsvc_frames_for_others_and_empty_ones_teach_nothing() {
    let nobody = Nobody::new();
    let said = format!("h3=\":{}\"", nobody.address().port());
    let other: fn(u16) -> String = |_| "https://other.test".to_owned();
    for (said, origin) in [(said, Some(other)), ("clear".to_owned(), None)] {
        let host = framing(said, origin);
        let port = host.address().port();
        let proxy = Proxy::start(&front(at(port), json!({"name": "c"})));
        (0..3).for_each(|_| ask(&proxy, port));
        counts(&proxy, &[("upstream_cx_http3_total", 0), ("upstream_cx_http2_total", 1)]);
    }
}

/// Two connections have room: QUIC goes on while TCP serves, and what it holds is given back when it fails.
#[test]
fn a_limit_with_room_for_both_lets_both_try() {
    let origin = Origin::ok();
    let host = host(&origin, None);
    let port = host.address.port();
    let _hole = UdpSocket::bind(host.address).unwrap();
    let breakers = json!({"thresholds": [{"max_connections": 2}]});
    let config =
        front(at(port), hint(port)).cluster(json!({"connect_timeout": "1s", "circuit_breakers": breakers}));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").status, 200);
    proxy.admin.await_stat("cluster.origin.upstream_http3_broken", 1);
    counts(
        &proxy,
        &[
            ("upstream_cx_http3_total", 1),
            ("upstream_cx_http2_total", 1),
            ("upstream_cx_connect_timeout", 1),
            ("upstream_cx_overflow", 0),
            ("upstream_cx_active", 1),
        ],
    );
}
