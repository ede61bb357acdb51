//! HTTP/2 clients, HTTP/1.1 upstreams: streams, resets, drains, upgrades.

use std::path::Path;
use std::time::Duration;

use integration_tests::binary::root;
use integration_tests::config::text_format;
use integration_tests::h2::{H2Client, Manners};
use integration_tests::proxy::await_lines;
use integration_tests::{Config, Origin, Proxy};
use serde_json::json;
use tidegate_testkit::h2::code;

const NO_GOAWAY_YET: u32 = 0x7fff_ffff;
const LINE: &str =
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %PROTOCOL% %BYTES_RECEIVED% %BYTES_SENT%\n";

fn config(origin: &Origin) -> Config {
    Config::new(origin.address()).hcm(json!({"codec_type": "AUTO"}))
}

fn logging(config: Config, folder: &Path) -> Config {
    config.access_log(&folder.join("access.log"), text_format(LINE))
}

fn line(folder: &Path) -> String {
    await_lines(&folder.join("access.log"), 1).remove(0)
}

#[test]
fn streams_share_a_connection_and_are_logged() {
    let origin = Origin::answering(|request| {
        let path = request.path().to_owned();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len())
    });
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&logging(config(&origin), folder.path()));
    let client = H2Client::connect(proxy.address);
    let streams: Vec<u32> = (0..20).map(|at| client.get(&format!("/{at}"))).collect();
    for (at, stream) in streams.into_iter().enumerate() {
        let answer = client.message(stream);
        assert_eq!((answer.status(), answer.text(), answer.ended), (200, format!("/{at}"), true));
        assert_eq!(answer.header("connection"), None);
    }
    let posted = client.message(client.post("/p", b"body"));
    assert_eq!(posted.status(), 200);
    let seen = origin.requests();
    let post = seen.iter().find(|request| request.path() == "/p").unwrap();
    assert_eq!((post.header("host"), post.header("transfer-encoding")), (Some("a.test"), Some("chunked")));
    assert_eq!(proxy.stat("http.ingress.downstream_cx_http2_total"), 1);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_http2_total"), 21);
    let lines = await_lines(&folder.path().join("access.log"), 21);
    assert_eq!(lines.iter().filter(|line| *line == "200 - via_upstream HTTP/2 4 2").count(), 1, "{lines:?}");
}

#[test]
fn alpn_decides_over_tls() {
    let origin = Origin::ok();
    let mut config = config(&origin);
    let file = |name: &str| json!({"filename": root().join("crates/testkit/certs").join(name)});
    config.0["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] = json!({
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{"certificate_chain": file("server.pem"), "private_key": file("server.key")}],
            }
        }
    });
    let proxy = Proxy::start(&config);
    let client = H2Client::tls(proxy.address, &["h2", "http/1.1"], Manners::default());
    assert_eq!(client.alpn().as_deref(), Some("h2"));
    assert_eq!(client.ask("/").status(), 200);
    assert_eq!(origin.request().header("x-forwarded-proto"), Some("https"));
    assert_eq!(proxy.stat("http.ingress.downstream_cx_http2_total"), 1);
}

#[test]
fn a_stream_that_the_client_resets_is_cancelled_upstream() {
    let origin = Origin::script(|mut peer| {
        let _ = peer.request();
        // The proxy's close, and nothing else, ends this.
        let _ = peer.wire.exactly(1);
    });
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&logging(config(&origin), folder.path()));
    let client = H2Client::connect(proxy.address);
    let stream = client.get("/");
    proxy.admin.await_stat("cluster.origin.upstream_rq_active", 1);
    client.send(&tidegate_testkit::h2::Frame::reset(stream, code::CANCEL));
    assert_eq!(line(folder.path()), "0 DR http2.remote_reset HTTP/2 0 0");
    proxy.admin.await_stat("cluster.origin.upstream_cx_active", 0);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_rx_reset"), 1);
    assert_eq!(proxy.stat("http2.rx_reset"), 1);
    assert_eq!(proxy.stat("http2.streams_active"), 0);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_active"), 1);
}

#[test]
fn a_cut_response_is_an_internal_error_behind_what_came_of_it() {
    let origin = Origin::script(|mut peer| {
        let _ = peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart");
    });
    let proxy = Proxy::start(&config(&origin));
    let client = H2Client::connect(proxy.address);
    let answer = client.ask("/");
    assert_eq!((answer.status(), answer.text()), (200, "part".to_owned()));
    assert_eq!(answer.reset, Some(code::INTERNAL_ERROR));
    assert_eq!(client.end_so_far(), integration_tests::End::Open);
}

#[test]
fn an_answer_before_the_requests_end_stops_the_request_alone() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&config(&origin).routes(json!([
        {"match": {"prefix": "/refuse"}, "direct_response": {"status": 403}},
        {"match": {"prefix": "/"}, "route": {"cluster": "origin"}}
    ])));
    let client = H2Client::connect(proxy.address);
    let stream = client.begin("POST", "/refuse", &[], false);
    assert_eq!(client.message(stream).status(), 403);
    assert_eq!(client.await_reset(stream), code::NO_ERROR);
    assert_eq!(client.ask("/").status(), 200);
}

#[test]
fn the_last_request_of_a_connection_and_idleness_end_it_in_two_steps() {
    let origin = Origin::ok();
    let times = json!({"drain_timeout": "0.3s", "delayed_close_timeout": "0.1s"});
    for common in [json!({"max_requests_per_connection": 1}), json!({"idle_timeout": "0.2s"})] {
        let config = config(&origin).hcm(times.clone());
        let proxy = Proxy::start(&config.hcm(json!({"common_http_protocol_options": common})));
        let client = H2Client::connect(proxy.address);
        assert_eq!(client.ask("/").status(), 200);
        assert_eq!(client.await_goaway(), (NO_GOAWAY_YET, code::NO_ERROR));
        assert_eq!(client.ask("/").status(), 200, "until the last word");
        assert_eq!(client.end(), integration_tests::End::Fin);
        assert_eq!(client.goaway(), Some((3, code::NO_ERROR)));
        assert_eq!(proxy.stat("http2.goaway_sent"), 1);
        assert_eq!(proxy.stat("http.ingress.downstream_cx_drain_close"), 0);
    }
}

#[test]
fn the_beginning_of_a_preface_does_not_outlive_the_idle_timeout() {
    const GREETING: usize = 9 + 4 * 6 + 13;
    let origin = Origin::ok();
    let times = json!({
        "drain_timeout": "0.2s", "delayed_close_timeout": "0.1s",
        "common_http_protocol_options": {"idle_timeout": "0.2s"},
    });
    for (codec, sent) in [("HTTP2", "P"), ("AUTO", "PRI * HTTP/2.0\r\n")] {
        let proxy = Proxy::start(&config(&origin).hcm(times.clone()).hcm(json!({"codec_type": codec})));
        let mut client = proxy.connect();
        client.send(sent);
        // As Envoy, which greets whoever sends a part of it.
        client.exactly(GREETING).unwrap();
        for last in [NO_GOAWAY_YET, 0] {
            let frame = client.exactly(17).unwrap();
            let told = (frame[3], &frame[9..13], &frame[13..]);
            assert_eq!(told, (7, &last.to_be_bytes()[..], &[0; 4][..]), "{codec}");
        }
        assert_eq!(client.end(), integration_tests::End::Fin);
        assert_eq!(proxy.stat("http.ingress.downstream_cx_idle_timeout"), 1);
        assert_eq!(proxy.stat("http.ingress.downstream_cx_http2_total"), 1);
        assert_eq!(proxy.stat("http.ingress.downstream_cx_close_reason.idle_timeout"), 1);
    }
}

#[test]
fn who_garbles_the_rest_of_a_preface_is_told_nothing_more() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&config(&origin).hcm(json!({"delayed_close_timeout": "0.1s"})));
    let mut client = proxy.connect();
    client.send("PRI * HTTP/2.0\r\nhost: a\r\n\r\n");
    assert_eq!(client.end(), integration_tests::End::Fin);
    assert_eq!(client.text(), "");
    assert_eq!(proxy.stat("http.ingress.downstream_cx_protocol_error"), 1);
}

#[test]
fn a_stream_under_way_outlives_the_drain_of_its_listener() {
    let origin = Origin::script(|mut peer| {
        let _ = peer.request();
        std::thread::sleep(Duration::from_millis(700));
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
    let proxy = Proxy::start(&config(&origin).hcm(json!({"drain_timeout": "0.2s"})));
    let (idle, busy) = (H2Client::connect(proxy.address), H2Client::connect(proxy.address));
    idle.sync();
    let stream = busy.get("/");
    proxy.admin.await_stat("cluster.origin.upstream_rq_active", 1);
    proxy.process.signal("TERM");
    assert_eq!(idle.await_goaway(), (0, code::NO_ERROR));
    assert_eq!(busy.await_goaway(), (NO_GOAWAY_YET, code::NO_ERROR));
    assert_eq!(busy.message(stream).text(), "ok");
    assert_eq!(busy.end(), integration_tests::End::Fin);
}

#[test]
fn an_extended_connect_becomes_an_upgrade_upstream() {
    let origin = Origin::script(|mut peer| {
        let _ = peer.request();
        peer.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n");
        while let Some(frame) = peer.wire.exactly(4) {
            peer.send(&frame);
            if frame == b"bye!" {
                return;
            }
        }
    });
    let proxy = Proxy::start(&config(&origin).hcm(json!({
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http2_protocol_options": {"allow_connect": true}
    })));
    let client = H2Client::connect(proxy.address);
    let stream = client.begin("CONNECT", "/chat", &[(":protocol", "websocket")], false);
    assert_eq!(client.await_head(stream).status(), 200);
    client.body(stream, b"ping", false);
    client.await_message("the echo", stream, |message| message.body == b"ping");
    client.body(stream, b"bye!", false);
    let all = client.message(stream);
    assert_eq!(all.text(), "pingbye!");
    // As Envoy: the end of the connection may be anything.
    assert_eq!((all.ended, all.reset), (false, Some(code::CONNECT_ERROR)));
    let seen = origin.request();
    assert!(seen.line().starts_with("GET /chat "), "{}", seen.line());
    assert_eq!(seen.header("upgrade"), Some("websocket"));
}
