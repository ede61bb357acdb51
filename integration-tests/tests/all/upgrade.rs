//! Upgrades: WebSocket through the proxy, and refused ones.

use integration_tests::{Config, End, Origin, Proxy, Wire};
use serde_json::json;

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nhost: a.test\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Accepts and then sends back what it receives, until `bye`.
fn echo() -> Origin {
    Origin::script(|mut peer| {
        if peer.request().is_none() {
            return;
        }
        peer.send(ACCEPTED);
        while let Some(frame) = peer.wire.exactly(4) {
            peer.send(&frame);
            if frame == b"bye!" {
                return;
            }
        }
    })
}

fn websocket(origin: &Origin) -> Config {
    Config::new(origin.address()).hcm(json!({"upgrade_configs": [{"upgrade_type": "websocket"}]}))
}

fn open(proxy: &Proxy) -> Wire {
    let mut client = proxy.connect();
    client.send(HANDSHAKE);
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    client
}

#[test]
fn bytes_pass_both_ways_after_the_upgrade() {
    let origin = echo();
    let proxy = Proxy::start(&websocket(&origin));
    let mut client = open(&proxy);
    for frame in ["ab\0\n", "1234", "\r\n\r\n"] {
        client.send(frame);
        assert_eq!(client.exactly(4).unwrap(), frame.as_bytes());
    }
    let seen = origin.request();
    assert_eq!((seen.header("upgrade"), seen.header("connection")), (Some("websocket"), Some("Upgrade")));
    assert_eq!(proxy.stat("http.ingress.downstream_cx_upgrades_active"), 1);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_upgrades_total"), 1);
}

#[test]
fn bytes_sent_with_the_handshake_are_not_lost() {
    let origin = echo();
    let proxy = Proxy::start(&websocket(&origin));
    let mut client = proxy.connect();
    client.send(format!("{HANDSHAKE}earl"));
    client.head();
    assert_eq!(client.exactly(4).unwrap(), b"earl");
}

#[test]
fn the_upstreams_end_ends_the_client() {
    let origin = echo();
    let proxy = Proxy::start(&websocket(&origin));
    let mut client = open(&proxy);
    client.send("bye!");
    assert_eq!(client.exactly(4).unwrap(), b"bye!");
    assert_eq!(client.end(), End::Fin);
    proxy.admin.await_stat("http.ingress.downstream_cx_upgrades_active", 0);
}

#[test]
fn the_clients_end_ends_the_upstream() {
    let origin = echo();
    let proxy = Proxy::start(&websocket(&origin));
    let mut client = open(&proxy);
    client.finish();
    client.end();
    integration_tests::wait::until("the upstream's end", || origin.open_connections() == 0);
    proxy.admin.await_stat("cluster.origin.upstream_cx_active", 0);
}

#[test]
fn an_upgrade_that_is_not_configured_is_refused() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&Config::new(origin.address()));
    let mut client = proxy.connect();
    let response = client.ask(HANDSHAKE);
    assert_eq!((response.status, response.closes()), (403, true));
    assert_eq!(client.end(), End::Fin);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_route_can_switch_upgrades_on() {
    let origin = echo();
    let config = Config::new(origin.address())
        .route(json!({"route": {"upgrade_configs": [{"upgrade_type": "websocket"}]}}));
    let proxy = Proxy::start(&config);
    let mut client = open(&proxy);
    client.send("ping");
    assert_eq!(client.exactly(4).unwrap(), b"ping");
}

#[test]
fn an_upstream_may_decline() {
    let origin = Origin::saying("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
    let proxy = Proxy::start(&websocket(&origin));
    let response = proxy.connect().ask(HANDSHAKE);
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
}

#[test]
fn routes_match_what_is_upgraded_and_its_fields_keep_their_places() {
    let origin = echo();
    let routes = json!([
        {
            "match": {"prefix": "/", "headers": [{"name": "upgrade", "string_match": {"exact": "websocket"}}]},
            "route": {"cluster": "origin"},
        },
        {"match": {"prefix": "/"}, "direct_response": {"status": 204}},
    ]);
    let proxy = Proxy::start(&websocket(&origin).routes(routes));
    let mut client = proxy.connect();
    client.send(HANDSHAKE);
    let names = |head: &str| -> Vec<String> {
        let names = head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0.to_owned()));
        names.collect()
    };
    let head = client.head().unwrap();
    assert_eq!(names(&head)[..3], ["upgrade", "connection", "sec-websocket-accept"], "{head}");
    let seen = origin.request();
    assert_eq!(names(&seen.head)[..4], ["host", "upgrade", "connection", "sec-websocket-key"]);
    assert_eq!(proxy.get("/").status, 204);
    // Without the option in `Connection` it is no upgrade.
    let plain = "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n";
    assert_eq!(proxy.connect().ask(plain).status, 204);
}
