//! Tunnels: extended CONNECT and CONNECT over HTTP/2, half-closed, broken, and ended here (`connect_config`).

use std::path::Path;

use integration_tests::config::text_format;
use integration_tests::h2::{H2Client, H2Origin, Manners};
use integration_tests::proxy::await_lines;
use integration_tests::{Config, End, Nobody, Origin, Proxy};
use serde_json::{Value, json};
use tidegate_testkit::h2::{code, kind};

const ACCEPTED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nx-up: 1\r\n\r\n";
const LINE: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_PROTOCOL% \
                    %BYTES_RECEIVED% %BYTES_SENT%\n";
const WEBSOCKET: [(&str, &str); 5] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":path", "/chat"),
    (":authority", "a.test"),
];
const CONNECT: [(&str, &str); 2] = [(":method", "CONNECT"), (":authority", "t.test:443")];

fn upgrades(config: Config, kind: &str) -> Config {
    config.hcm(json!({
        "codec_type": "AUTO",
        "http2_protocol_options": {"allow_connect": true},
        "upgrade_configs": [{"upgrade_type": kind}],
    }))
}

fn connect(config: Config, connect_config: Value) -> Config {
    upgrades(config, "CONNECT").routes(json!([{
        "match": {"connect_matcher": {}},
        "route": {
            "cluster": "origin",
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": connect_config}],
        },
    }]))
}

fn logging(config: Config, folder: &Path) -> Config {
    config.access_log(&folder.join("access.log"), text_format(LINE))
}

fn line(folder: &Path) -> String {
    await_lines(&folder.join("access.log"), 1).remove(0)
}

fn over_http2(config: Config) -> Config {
    config.cluster_http(json!({"explicit_http_config": {
        "http_protocol_options": null,
        "http2_protocol_options": {"allow_connect": true},
    }}))
}

#[test]
fn each_direction_ends_by_itself_between_http2_ends() {
    let origin = H2Origin::with(Manners::settings(&[(8, 1)]), |stream| {
        stream.head(200, &[], false);
        let got = stream.conn.await_message("the client's half", stream.id, |message| message.ended);
        stream.body(format!("late {}", got.text()), true);
    });
    let folder = tempfile::tempdir().unwrap();
    let config = over_http2(upgrades(Config::new(origin.address()), "websocket"));
    let proxy = Proxy::start(&logging(config, folder.path()));
    let client = H2Client::connect(proxy.address);
    let stream = client.request(&WEBSOCKET, false);
    assert_eq!(client.await_head(stream).status(), 200);
    client.body(stream, b"ping", true);
    let answer = client.message(stream);
    assert_eq!((answer.text(), answer.ended, answer.reset), ("late ping".to_owned(), true, None));
    assert_eq!(line(folder.path()), "101 - via_upstream HTTP/2 4 9");
    assert_eq!(proxy.stat("http.ingress.downstream_cx_upgrades_active"), 0);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_rx_reset"), 0);
}

#[test]
fn an_upgraded_connection_outlives_its_clients_half() {
    let origin = Origin::script(|mut peer| {
        let _ = peer.request();
        peer.send(ACCEPTED);
        let _ = peer.wire.exactly(4);
        // The client's half has ended: there is no FIN, and an answer is still passed on.
        peer.send("late");
        let _ = peer.wire.exactly(1);
    });
    let proxy = Proxy::start(&upgrades(Config::new(origin.address()), "websocket"));
    let client = H2Client::connect(proxy.address);
    let stream = client.request(&WEBSOCKET, false);
    assert_eq!(client.await_head(stream).status(), 200);
    client.body(stream, b"ping", true);
    client.await_message("the late answer", stream, |message| message.text() == "late");
    assert_eq!(client.so_far(stream).reset, None);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_upgrades_active"), 1);
    client.send(&tidegate_testkit::h2::Frame::reset(stream, code::CANCEL));
    proxy.admin.await_stat("http.ingress.downstream_cx_upgrades_active", 0);
    proxy.admin.await_stat("cluster.origin.upstream_cx_active", 0);
}

#[test]
fn the_end_of_an_upgraded_connection_is_a_connect_error() {
    let origin = Origin::script(|mut peer| {
        let _ = peer.request();
        peer.send(ACCEPTED).send("last");
    });
    let folder = tempfile::tempdir().unwrap();
    let config = upgrades(Config::new(origin.address()), "websocket");
    let proxy = Proxy::start(&logging(config, folder.path()));
    let client = H2Client::connect(proxy.address);
    let answer = client.message(client.request(&WEBSOCKET, false));
    assert_eq!((answer.text(), answer.ended), ("last".to_owned(), false));
    assert_eq!(answer.reset, Some(code::CONNECT_ERROR));
    let told = "101 UC upstream_reset_after_response_started{connection_termination} HTTP/1.1 0 4";
    assert_eq!(line(folder.path()), told);
}

#[test]
fn a_forwarded_connect_passes_the_clients_fin_on() {
    let origin = Origin::script(|mut peer| {
        let _ = peer.request();
        peer.send("HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(peer.wire.exactly(4).unwrap(), b"ping");
        assert_eq!(peer.wire.end(), End::Fin);
        peer.send("echo");
    });
    let config = upgrades(Config::new(origin.address()), "CONNECT");
    let route = json!([{"match": {"connect_matcher": {}}, "route": {"cluster": "origin"}}]);
    let proxy = Proxy::start(&config.routes(route));
    let client = H2Client::connect(proxy.address);
    let stream = client.request(&CONNECT, false);
    assert_eq!(client.await_head(stream).status(), 200);
    client.body(stream, b"ping", true);
    let answer = client.message(stream);
    assert_eq!((answer.text(), answer.reset), ("echo".to_owned(), Some(code::CONNECT_ERROR)));
}

#[test]
fn an_overlooked_upgrade_is_no_response_of_the_upstream() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&upgrades(Config::new(origin.address()), "websocket"));
    let client = H2Client::connect(proxy.address);
    let answer = client.message(client.request(&WEBSOCKET, false));
    assert_eq!((answer.status(), answer.text(), answer.ended), (200, String::new(), true));
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_200"), 0);
}

#[test]
fn a_refused_upgrade_is_preceded_by_goaway() {
    let origin = Origin::ok();
    let config = Config::new(origin.address())
        .hcm(json!({"codec_type": "AUTO", "http2_protocol_options": {"allow_connect": true}}));
    let proxy = Proxy::start(&config);
    let client = H2Client::connect(proxy.address);
    let stream = client.request(&WEBSOCKET, false);
    assert_eq!(client.message(stream).status(), 403);
    assert_eq!(client.await_goaway(), (0x7fff_ffff, code::NO_ERROR));
    let kinds: Vec<u8> = client.frames().iter().map(|frame| frame.kind).collect();
    let place = |wanted: u8| kinds.iter().position(|kind| *kind == wanted).unwrap();
    assert!(place(kind::GOAWAY) < place(kind::HEADERS), "{kinds:?}");
}

#[test]
fn a_tunnel_can_end_here() {
    let origin = Origin::script(|mut peer| {
        // No head: the tunnel's bytes alone.
        assert_eq!(peer.wire.exactly(4).unwrap(), b"ping");
        peer.send("echo");
        assert_eq!(peer.wire.end(), End::Fin);
    });
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&logging(connect(Config::new(origin.address()), json!({})), folder.path()));
    let client = H2Client::connect(proxy.address);
    let stream = client.request(&CONNECT, false);
    let head = client.await_head(stream);
    assert_eq!((head.status(), head.header("x-envoy-upstream-service-time")), (200, None));
    client.body(stream, b"ping", false);
    client.await_message("the echo", stream, |message| message.text() == "echo");
    client.body(stream, b"", true);
    let answer = client.message(stream);
    assert_eq!((answer.ended, answer.reset), (true, None));
    assert_eq!(line(folder.path()), "200 - via_upstream - 4 4");
    proxy.admin.await_stat("cluster.origin.upstream_cx_active", 0);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_upgrades_total"), 1);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_tx_bytes_total"), 4);
    assert_eq!(proxy.stat("cluster.origin.upstream_cx_rx_bytes_total"), 4);
}

#[test]
fn a_tunnel_of_an_http1_client_can_end_here() {
    let origin = Origin::script(|mut peer| {
        assert_eq!(peer.wire.exactly(4).unwrap(), b"ping");
        peer.send("echo");
    });
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&logging(connect(Config::new(origin.address()), json!({})), folder.path()));
    let mut client = proxy.connect();
    client.send("CONNECT t.test:443 HTTP/1.1\r\nhost: t.test:443\r\n\r\n");
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    client.send("ping");
    assert_eq!(client.exactly(4).unwrap(), b"echo");
    assert_eq!(client.end(), End::Fin);
    assert_eq!(line(folder.path()), "200 - via_upstream - 4 4");
    // The client has its time to close, and no more than that.
    proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
}

#[test]
fn a_broken_tunnel_is_a_connect_error() {
    let origin = Origin::script(|mut peer| {
        assert_eq!(peer.wire.exactly(4).unwrap(), b"ping");
        peer.wire.reset();
    });
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&logging(connect(Config::new(origin.address()), json!({})), folder.path()));
    let client = H2Client::connect(proxy.address);
    let stream = client.request(&CONNECT, false);
    assert_eq!(client.await_head(stream).status(), 200);
    client.body(stream, b"ping", false);
    assert_eq!(client.message(stream).reset, Some(code::CONNECT_ERROR));
    let told = "200 UC upstream_reset_after_response_started{connection_termination} - 4 0";
    assert_eq!(line(folder.path()), told);
}

#[test]
fn nothing_is_granted_before_the_upstream_is_connected() {
    let nobody = Nobody::new();
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&logging(connect(Config::new(nobody.address()), json!({})), folder.path()));
    let client = H2Client::connect(proxy.address);
    let answer = client.message(client.request(&CONNECT, false));
    assert_eq!(answer.status(), 503);
    let told = "503 UF upstream_reset_before_response_started{remote_connection_failure|\
                delayed_connect_error:_Connection_refused} - 0 98";
    assert_eq!(line(folder.path()), told);
}
