//! HTTP/2 clients: streams, ends, limits, and the crossings to and from HTTP/1.1.

use integration_tests::h2::{
    Frame, H2Client, H2Origin, Manners, code, flag, hpack, kind, request_fields, setting,
};
use integration_tests::proxy::Options;
use integration_tests::{Config, End, Gate, Origin, Proxy, wait};
use serde_json::{Value, json};

const OPTIONS: &str = "http2_protocol_options";

/// Clients speak HTTP/2 with prior knowledge; the upstream speaks HTTP/1.1.
fn config(origin: &Origin) -> Config {
    Config::new(origin.address()).hcm(json!({"codec_type": "HTTP2"}))
}

/// Clients and the upstream speak HTTP/2.
fn both(origin: &H2Origin) -> Config {
    let options = json!({"explicit_http_config": {"http_protocol_options": null, OPTIONS: {}}});
    Config::new(origin.address()).hcm(json!({"codec_type": "HTTP2"})).cluster_http(options)
}

fn hcm(origin: &Origin, change: Value) -> Proxy {
    Proxy::start(&config(origin).hcm(change))
}

#[test]
fn requests_cross_to_http_1() {
    let origin = Origin::answering(|request| {
        format!(
            "HTTP/1.1 200 OK\r\nx-len: {}\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
            request.body.len()
        )
    });
    let proxy = Proxy::start(&config(&origin));
    let client = H2Client::connect(proxy.address);
    let response = client.ask("/path?query");
    assert_eq!((response.status(), response.text().as_str()), (200, "ok"));
    assert_eq!(response.header("connection"), None);
    let request = origin.request();
    assert_eq!(request.line(), "GET /path?query HTTP/1.1");
    assert_eq!(request.header("host"), Some("a.test"));
    let response = client.message(client.post("/", &vec![b'x'; 200_000]));
    assert_eq!(response.header("x-len"), Some("200000"));
    assert_eq!(origin.connections(), 1);
}

#[test]
fn the_version_is_seen_in_the_first_bytes() {
    let origin = Origin::ok();
    let proxy = hcm(&origin, json!({"codec_type": "AUTO"}));
    assert_eq!(H2Client::connect(proxy.address).ask("/").status(), 200);
    assert_eq!(proxy.get("/").status, 200);
    let stats = proxy.admin.stats();
    assert_eq!(stats.get("http.ingress.downstream_cx_http2_total"), 1);
    assert_eq!(stats.get("http.ingress.downstream_cx_http1_total"), 1);
}

#[test]
fn streams_answer_in_any_order() {
    let origin = H2Origin::manual(Manners::default());
    let proxy = Proxy::start(&both(&origin));
    let client = H2Client::connect(proxy.address);
    let asked: Vec<u32> = (0..10).map(|number| client.get(&format!("/{number}"))).collect();
    origin.await_streams(10);
    for stream in origin.streams().iter().rev() {
        let path = stream.request().header(":path").unwrap().to_owned();
        stream.answer(200, &path);
    }
    for (number, stream) in asked.into_iter().enumerate() {
        assert_eq!(client.message(stream).text(), format!("/{number}"));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn bodies_trailers_and_interim_responses_cross_whole() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        let request = stream.request();
        let trailer = request.trailer("x-sum").unwrap_or("none").to_owned();
        stream.head(103, &[("link", "</a>")], false);
        stream.head(200, &[], false);
        stream.body(request.body, false);
        stream.trailers(&[("x-got", &trailer)]);
    });
    let proxy = Proxy::start(&both(&origin).hcm(json!({"proxy_100_continue": true})));
    let client = H2Client::connect(proxy.address);
    let body = vec![b'y'; 1 << 20];
    let stream = client.begin("POST", "/", &[("te", "trailers")], false);
    client.body(stream, &body, false);
    client.head(stream, &[("x-sum", "12")], true);
    let response = client.message(stream);
    assert_eq!((response.status(), response.interim.len()), (200, 1));
    assert!(response.body == body, "{} bytes", response.body.len());
    assert_eq!(response.trailer("x-got"), Some("12"));
}

#[test]
fn cookie_crumbs_are_joined() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&config(&origin));
    let client = H2Client::connect(proxy.address);
    client.message(client.begin("GET", "/", &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")], true));
    assert_eq!(origin.request().header("cookie"), Some("a=1; b=2"));
    assert_eq!(origin.request().head.matches("ookie").count(), 1);
}

#[test]
fn authority_and_host_are_one() {
    let origin = Origin::ok();
    let proxy = Proxy::start(&config(&origin));
    let client = H2Client::connect(proxy.address);
    // Without :authority, host is it (RFC 9113 section 8.3.1).
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "b.test")];
    assert_eq!(client.message(client.request(&fields, true)).status(), 200);
    assert_eq!(origin.request().header("host"), Some("b.test"));
}

#[test]
fn a_client_that_resets_cancels_upstream_at_once() {
    let origin = H2Origin::manual(Manners::default());
    let proxy = Proxy::start(&both(&origin));
    let client = H2Client::connect(proxy.address);
    let (gone, stays) = (client.get("/gone"), client.get("/stays"));
    let streams = origin.await_streams(2);
    client.send(&Frame::reset(gone, code::CANCEL));
    assert_eq!(origin.connection(0).await_reset(1), code::CANCEL);
    streams[1].answer(200, "ok");
    assert_eq!(client.message(stays).text(), "ok");
    proxy.admin.await_stat("http.ingress.downstream_rq_rx_reset", 1);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_upstream_that_resets_midway_resets_the_one_stream() {
    let origin = H2Origin::manual(Manners::default());
    let proxy = Proxy::start(&both(&origin));
    let client = H2Client::connect(proxy.address);
    let (cut, whole) = (client.get("/cut"), client.get("/whole"));
    let streams = origin.await_streams(2);
    streams.iter().for_each(|stream| stream.head(200, &[], false));
    streams[0].body("half", false);
    client.await_message("half", cut, |message| message.body == b"half");
    streams[0].reset(code::INTERNAL_ERROR);
    assert!(client.message(cut).reset.is_some());
    streams[1].body("whole", true);
    assert_eq!(client.message(whole).text(), "whole");
    assert_eq!((client.end_so_far(), client.goaway()), (End::Open, None));
}

#[test]
fn a_withheld_window_holds_the_response_back() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n01234567890123456789");
    let proxy = Proxy::start(&config(&origin));
    let manners = Manners { replenish: false, ..Manners::settings(&[(setting::INITIAL_WINDOW_SIZE, 5)]) };
    let client = H2Client::with(proxy.address, manners);
    let stream = client.get("/");
    client.await_message("five bytes", stream, |message| message.body.len() == 5);
    client.sync();
    assert_eq!(client.so_far(stream).body.len(), 5);
    client.send(&Frame::window_update(stream, 100));
    assert_eq!(client.message(stream).body.len(), 20);
}

#[test]
fn max_requests_per_connection_says_goaway_and_finishes() {
    let origin = Origin::ok();
    let proxy = hcm(&origin, json!({"common_http_protocol_options": {"max_requests_per_connection": 2}}));
    let client = H2Client::connect(proxy.address);
    assert_eq!(client.ask("/").status(), 200);
    assert_eq!(client.ask("/").status(), 200);
    assert_eq!(client.await_goaway().1, code::NO_ERROR);
    assert_eq!(client.end(), End::Fin);
    assert_eq!(client.goaway(), Some((3, code::NO_ERROR)));
    proxy.admin.await_stat("http.ingress.downstream_cx_max_requests_reached", 1);
}

#[test]
fn an_idle_connection_gets_goaway() {
    let origin = Origin::ok();
    let proxy = hcm(
        &origin,
        json!({"common_http_protocol_options": {"idle_timeout": "0.3s"}, "drain_timeout": "0.1s"}),
    );
    let client = H2Client::connect(proxy.address);
    assert_eq!(client.ask("/").status(), 200);
    assert_eq!(client.await_goaway().1, code::NO_ERROR);
    assert_eq!(client.end(), End::Fin);
    proxy.admin.await_stat("http.ingress.downstream_cx_idle_timeout", 1);
}

/// Two GOAWAYs: one that announces and takes what crosses it, one that says how far it got (RFC 9113 section 6.8).
#[test]
fn sigterm_drains_in_two_steps() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let options = Options { arguments: vec!["--drain-time-s".into(), "10".into()], ..Options::default() };
    let mut proxy = options.start(&config(&origin));
    let client = H2Client::connect(proxy.address);
    let first = client.get("/1");
    origin.await_requests(1);
    proxy.process.signal("TERM");
    assert_eq!(client.await_goaway(), (0x7fff_ffff, code::NO_ERROR));
    gate.open(1);
    assert_eq!(client.message(first).status(), 200);
    assert_eq!(client.end(), End::Fin);
    let said: Vec<u32> = client.frames_of(kind::GOAWAY).iter().map(|frame| frame.u32_at(0)).collect();
    assert_eq!(said, [0x7fff_ffff, 1]);
    assert_eq!(proxy.process.exit().code(), Some(0));
}

#[test]
fn a_client_that_says_goaway_gets_its_answers() {
    let gate = Gate::default();
    let origin = Origin::gated(&gate);
    let proxy = Proxy::start(&config(&origin));
    let client = H2Client::connect(proxy.address);
    let stream = client.get("/");
    origin.await_requests(1);
    client.goaway_after(0);
    client.sync();
    gate.open(1);
    assert_eq!(client.message(stream).status(), 200);
}

#[test]
fn header_limits_reset_the_stream() {
    let origin = Origin::ok();
    let proxy = hcm(&origin, json!({"max_request_headers_kb": 4}));
    let client = H2Client::connect(proxy.address);
    let long = "x".repeat(6_000);
    let response = client.message(client.begin("GET", "/", &[("x-long", &long)], true));
    assert_eq!(response.reset, Some(code::INTERNAL_ERROR), "{response:?}");
    assert_eq!(H2Client::connect(proxy.address).ask("/").status(), 200);
    let many: Vec<(String, String)> =
        (0..200).map(|number| (format!("x-{number}"), "y".to_owned())).collect();
    let more: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let client = H2Client::connect(proxy.address);
    let response = client.message(client.begin("GET", "/", &more, true));
    assert_eq!(response.reset, Some(code::INTERNAL_ERROR), "{response:?}");
    assert_eq!(origin.requests().len(), 1);
}

/// Each flood ends its connection with a GOAWAY, and nobody else's.
#[test]
fn floods_end_their_connection() {
    let origin = Origin::ok();
    let proxy = hcm(
        &origin,
        json!({"http2_protocol_options": {
            "max_outbound_control_frames": 100, "max_consecutive_inbound_frames_with_empty_payload": 1,
        }}),
    );
    let bystander = H2Client::connect(proxy.address);
    assert_eq!(bystander.ask("/").status(), 200);
    type Flood = fn(&H2Client);
    let floods: [(&str, Flood); 4] = [
        // CVE-2023-44487.
        ("rapid resets", |c| {
            let get = hpack::encode(&request_fields("GET", "/", &[]));
            let pair = |number: u32| {
                let stream = number * 2 + 1;
                [Frame::headers(stream, get.clone(), true), Frame::reset(stream, code::CANCEL)]
            };
            c.send_all(&(0..2_000).flat_map(pair).collect::<Vec<_>>());
        }),
        ("empty DATA", |c| {
            c.send(&Frame::headers(1, hpack::encode(&request_fields("POST", "/", &[])), false));
            (0..50).for_each(|_| c.send(&Frame::data(1, [], false)));
        }),
        ("endless CONTINUATION", |c| {
            c.send(&Frame::new(
                kind::HEADERS,
                flag::END_STREAM,
                1,
                hpack::encode(&request_fields("GET", "/", &[])),
            ));
            let block = hpack::encode(&[("x-more", "y".repeat(1_000))]);
            for _ in 0..1_000 {
                c.send(&Frame::continuation(1, block.clone(), false));
            }
        }),
        ("PRIORITY", |c| {
            for _ in 0..20_000 {
                c.send(&Frame::priority(1, 0, 1));
            }
        }),
    ];
    for (name, flood) in floods {
        let client = H2Client::connect(proxy.address);
        flood(&client);
        assert_ne!(client.end(), End::Open, "{name}");
    }
    assert_eq!(bystander.ask("/").status(), 200);
    assert_eq!(bystander.goaway(), None);
}

/// Answers that nobody reads are kept up to a bound.
#[test]
fn a_client_that_does_not_read_is_not_served_for_ever() {
    let body = "x".repeat(100_000);
    let origin =
        Origin::answering(move |_| format!("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{body}"));
    let proxy = hcm(&origin, json!({"stream_idle_timeout": "0.5s"}));
    let manners = Manners { replenish: false, ..Manners::settings(&[(setting::INITIAL_WINDOW_SIZE, 10)]) };
    let client = H2Client::with(proxy.address, manners);
    let stream = client.get("/");
    assert!(client.message(stream).reset.is_some());
    wait::until("no request", || proxy.stat("http.ingress.downstream_rq_active") == 0);
}

#[test]
fn request_timeouts_answer_on_the_stream() {
    let origin = Origin::ok();
    let proxy = hcm(&origin, json!({"request_timeout": "0.3s"}));
    let client = H2Client::connect(proxy.address);
    let stream = client.begin("POST", "/", &[], false);
    let response = client.message(stream);
    assert_eq!(response.status(), 408);
    assert_eq!(client.ask("/").status(), 200);
}

/// HEADERS does not end the request, and nothing but its end follows: upstreams see the same.
#[test]
fn an_empty_body_stays_one() {
    let (http1, http2) = (Origin::ok(), H2Origin::ok());
    for address in [http1.address(), http2.address()] {
        let config = Config::new(address).hcm(json!({"codec_type": "HTTP2"}));
        let config = if address == http2.address() { config.http2_upstream(json!({})) } else { config };
        let proxy = Proxy::start(&config);
        let client = H2Client::connect(proxy.address);
        let stream = client.next_stream();
        let head = hpack::encode(&request_fields("POST", "/", &[]));
        client.send_all(&[Frame::headers(stream, head, false), Frame::data(stream, [], true)]);
        assert_eq!(client.message(stream).text(), "ok");
    }
    assert!(http1.request().head.contains("transfer-encoding: chunked\r\n"));
    let ends = |frame: Frame| (frame.kind, frame.flags & flag::END_STREAM, frame.payload.is_empty());
    let frames = http2.connection(0).frames().into_iter().filter(|frame| frame.stream == 1).map(ends);
    assert_eq!(frames.collect::<Vec<_>>(), [(kind::HEADERS, 0, false), (kind::DATA, flag::END_STREAM, true)]);
}

/// A whole response before the request's end: the rest of the request is not wanted.
#[test]
fn an_early_response_ends_the_request() {
    let origin = H2Origin::with(Manners::default(), |stream| stream.answer(200, "early"));
    let proxy = Proxy::start(&both(&origin));
    let client = H2Client::connect(proxy.address);
    let stream = client.begin("POST", "/", &[], false);
    assert_eq!(client.await_message("the response", stream, |message| message.ended).text(), "early");
    assert_eq!(client.await_reset(stream), code::NO_ERROR);
    assert_eq!(client.ask("/").text(), "early");
}

#[test]
fn websockets_cross_from_http_2_to_http_1() {
    let origin = Origin::script(|mut peer| {
        let head = peer.wire.head().unwrap_or_default();
        assert!(head.to_lowercase().contains("upgrade: websocket"), "{head}");
        peer.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
        peer.wire.exactly(5);
        peer.send("world");
        peer.wire.end();
    });
    let proxy = hcm(
        &origin,
        json!({
            "http2_protocol_options": {"allow_connect": true},
            "upgrade_configs": [{"upgrade_type": "websocket"}],
        }),
    );
    let client = H2Client::connect(proxy.address);
    let settings =
        client.await_frame("SETTINGS", |frame| frame.kind == kind::SETTINGS && !frame.has(flag::ACK));
    assert!(settings.settings_values().contains(&(setting::ENABLE_CONNECT_PROTOCOL, 1)));
    let fields =
        request_fields("CONNECT", "/chat", &[(":protocol", "websocket"), ("sec-websocket-version", "13")]);
    let stream = client.request(&fields, false);
    assert_eq!(client.await_head(stream).status(), 200);
    client.send(&Frame::data(stream, *b"hello", false));
    let message = client.await_message("the echo", stream, |message| message.body == b"world");
    assert!(!message.ended);
    client.send(&Frame::reset(stream, code::CANCEL));
    proxy.admin.await_stat("http.ingress.downstream_rq_active", 0);
}

#[test]
fn tls_agrees_on_it_by_alpn() {
    let origin = Origin::ok();
    let certificates = integration_tests::tls_origin::certificate("server.pem");
    let key = integration_tests::tls_origin::certificate("server.key");
    let config = Config::new(origin.address()).hcm(json!({"codec_type": "AUTO"})).listener(json!({}));
    let mut config = config;
    config.0["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{"certificate_chain": {"filename": certificates}, "private_key": {"filename": key}}],
            },
        },
    });
    let proxy = Proxy::start(&config);
    let client = H2Client::tls(proxy.address, &["h2", "http/1.1"], Manners::default());
    assert_eq!(client.alpn().as_deref(), Some("h2"));
    assert_eq!(client.ask("/").status(), 200);
    assert!(client.end_so_far() == End::Open && proxy.stat("http.ingress.downstream_cx_http2_total") == 1);
}

#[test]
fn keepalive_ends_a_silent_client() {
    let origin = Origin::ok();
    let keepalive =
        json!({"http2_protocol_options": {"connection_keepalive": {"interval": "0.1s", "timeout": "0.2s"}}});
    let proxy = hcm(&origin, keepalive);
    let silent = H2Client::with(proxy.address, Manners { ack_pings: false, ..Manners::default() });
    let living = H2Client::connect(proxy.address);
    assert_ne!(silent.end(), End::Open);
    proxy.admin.await_stat("http2.keepalive_timeout", 1);
    living.await_frame("two PINGs", |frame| frame.kind == kind::PING);
    wait::until("two PINGs", || living.frames_of(kind::PING).len() > 1);
    assert_eq!(living.ask("/").status(), 200);
}

#[test]
fn keepalive_cuts_the_streams_of_a_silent_client() {
    let origin = Origin::script(|mut peer| while peer.request().is_some() {});
    let keepalive =
        json!({"http2_protocol_options": {"connection_keepalive": {"interval": "0.1s", "timeout": "0.2s"}}});
    let proxy = hcm(&origin, keepalive);
    let silent = H2Client::with(proxy.address, Manners { ack_pings: false, ..Manners::default() });
    silent.get("/");
    assert_ne!(silent.end(), End::Open);
    proxy.admin.await_stat("http2.keepalive_timeout", 1);
    // Envoy's accounts, odd as they are.
    for (name, count) in [
        ("destroy_local", 1),
        ("destroy_remote", 0),
        ("destroy_active_rq", 1),
        ("destroy_remote_active_rq", 1),
        ("destroy_local_active_rq", 0),
        ("close_reason.keepalive_timeout", 1),
    ] {
        proxy.admin.await_stat(&format!("http.ingress.downstream_cx_{name}"), count);
    }
}
