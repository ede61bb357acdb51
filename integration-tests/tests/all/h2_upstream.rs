//! Pools of HTTP/2 connections: how many there are, what each carries, how they end.

use integration_tests::config::text_format;
use integration_tests::h2::{H2Origin, H2Stream, Manners, code, setting};
use integration_tests::proxy::await_lines;
use integration_tests::{Config, End, Gate, Proxy, Wire};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\n\r\nbody";

/// A cluster that speaks HTTP/2 with these options.
fn config(origin: &H2Origin, options: Value) -> Config {
    Config::new(origin.address()).cluster_http(
        json!({"explicit_http_config": {"http_protocol_options": null, "http2_protocol_options": options}}),
    )
}

fn start(origin: &H2Origin) -> Proxy {
    Proxy::start(&config(origin, json!({})))
}

fn thresholds(limits: Value) -> Value {
    json!({"circuit_breakers": {"thresholds": [limits]}})
}

/// Sends that many requests, each once the one before has arrived.
fn send(proxy: &Proxy, origin: &H2Origin, count: usize, request: &str) -> Vec<Wire> {
    let before = origin.streams().len();
    (1..=count)
        .map(|number| {
            let mut client = proxy.connect();
            client.send(request);
            origin.await_streams(before + number);
            client
        })
        .collect()
}

#[track_caller]
fn counts(proxy: &Proxy, expected: &[(&str, u64)]) {
    let stats = proxy.admin.stats();
    for (name, value) in expected {
        assert_eq!(stats.get(&format!("cluster.origin.{name}")), *value, "{name}");
    }
}

/// How many streams came on each connection.
fn spread(streams: &[H2Stream]) -> Vec<usize> {
    let most = streams.iter().map(|stream| stream.connection).max().map_or(0, |most| most + 1);
    (0..most).map(|number| streams.iter().filter(|stream| stream.connection == number).count()).collect()
}

#[test]
fn one_connection_carries_all_while_it_can() {
    let gate = Gate::default();
    let origin = H2Origin::gated(Manners::default(), &gate);
    let proxy = start(&origin);
    let mut clients = send(&proxy, &origin, 20, GET);
    assert_eq!((origin.connections(), origin.open_streams()), (1, 20));
    gate.open(20);
    assert!(clients.iter_mut().all(|client| client.response().text() == "ok"));
    proxy.admin.await_stat("cluster.origin.upstream_rq_active", 0);
    counts(
        &proxy,
        &[
            ("upstream_cx_total", 1),
            ("upstream_cx_http2_total", 1),
            ("upstream_cx_active", 1),
            ("upstream_rq_total", 20),
            ("upstream_rq_pending_total", 1),
        ],
    );
}

#[test]
fn a_configured_stream_limit_opens_as_many_connections_as_it_takes() {
    let gate = Gate::default();
    let origin = H2Origin::gated(Manners::default(), &gate);
    let proxy = Proxy::start(&config(&origin, json!({"max_concurrent_streams": 2})));
    let mut clients = send(&proxy, &origin, 5, GET);
    assert_eq!(spread(&origin.streams()), [2, 2, 1]);
    gate.open(5);
    assert!(clients.iter_mut().all(|client| client.response().status == 200));
    assert!((0..3).all(|number| origin.connection(number).most_streams() <= 2));
}

#[test]
fn the_peers_stream_limit_counts_once_it_is_known() {
    let gate = Gate::default();
    let manners = Manners::settings(&[(setting::MAX_CONCURRENT_STREAMS, 2)]);
    let origin = H2Origin::gated(manners, &gate);
    let proxy = start(&origin);
    gate.open(1);
    assert_eq!(proxy.get("/").status, 200);
    let mut clients = send(&proxy, &origin, 5, GET);
    assert_eq!(spread(&origin.streams()), [3, 2, 1]);
    gate.open(5);
    assert!(clients.iter_mut().all(|client| client.response().status == 200));
    assert!((0..3).all(|number| origin.connection(number).most_streams() <= 2));
}

#[test]
fn a_limit_raised_later_lets_those_through_who_wait() {
    let gate = Gate::default();
    let manners = Manners::settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)]);
    let origin = H2Origin::gated(manners, &gate);
    let proxy = Proxy::start(&config(&origin, json!({})).cluster(thresholds(json!({"max_connections": 1}))));
    gate.open(1);
    assert_eq!(proxy.get("/").status, 200);
    let mut first = send(&proxy, &origin, 1, GET).remove(0);
    let mut second = proxy.connect();
    second.send(GET);
    proxy.admin.await_stat("cluster.origin.upstream_rq_pending_active", 1);
    assert_eq!(origin.open_streams(), 1);
    origin.connection(0).change_settings(&[(setting::MAX_CONCURRENT_STREAMS, 2)]);
    origin.await_streams(3);
    assert_eq!((origin.open_streams(), origin.connections()), (2, 1));
    gate.open(2);
    assert_eq!((first.response().status, second.response().status), (200, 200));
}

/// GOAWAY with the last stream below, at and above those in flight: what it leaves out is asked again elsewhere,
/// whatever the method; the others finish where they are; the connection is closed after them.
#[test]
fn goaway_costs_no_request() {
    for (last, again) in [(0, 3), (1, 2), (3, 1), (5, 0), (0x7fff_ffff, 0)] {
        for request in [GET, POST] {
            let origin = H2Origin::manual(Manners::default());
            let proxy = start(&origin);
            let mut clients = send(&proxy, &origin, 3, request);
            let conn = origin.connection(0);
            conn.goaway_after(last);
            let streams = origin.await_streams(3 + again);
            // A new request goes elsewhere too.
            clients.extend(send(&proxy, &origin, 1, request));
            for stream in origin.streams() {
                if stream.connection == 1 || stream.id <= last {
                    stream.request();
                    stream.answer(200, "ok");
                }
            }
            let statuses: Vec<u16> = clients.iter_mut().map(|client| client.response().status).collect();
            assert_eq!(statuses, [200; 4], "{last}");
            assert_eq!(conn.end(), End::Fin);
            assert_eq!(streams.len(), 3 + again);
            assert_eq!(spread(&origin.streams()), [3, again + 1]);
            counts(
                &proxy,
                &[
                    ("upstream_rq_safe_retry", again as u64),
                    ("upstream_rq_safe_retry_success", again as u64),
                    ("upstream_cx_close_notify", 1),
                    ("upstream_cx_total", 2),
                ],
            );
        }
    }
}

#[test]
fn a_refused_stream_is_asked_again_whatever_the_method() {
    for request in [GET, POST] {
        let origin = H2Origin::with(Manners::default(), |stream| {
            if stream.id == 1 && stream.connection == 0 {
                return stream.reset(code::REFUSED_STREAM);
            }
            stream.request();
            stream.answer(200, "ok");
        });
        let proxy = start(&origin);
        assert_eq!(proxy.connect().ask(request).status, 200);
        assert_eq!(origin.streams().len(), 2);
        counts(
            &proxy,
            &[("upstream_rq_safe_retry", 1), ("upstream_rq_safe_retry_success", 1), ("upstream_rq_retry", 0)],
        );
    }
}

/// One safe retry a request: an upstream that refuses everything is no loop.
#[test]
fn a_stream_refused_twice_is_a_failure() {
    let origin = H2Origin::with(Manners::default(), |stream| stream.reset(code::REFUSED_STREAM));
    let proxy = start(&origin);
    let response = proxy.get("/");
    assert_eq!(response.status, 503);
    assert!(response.text().contains("remote refused stream reset"), "{}", response.text());
    assert_eq!(origin.streams().len(), 2);
}

#[test]
fn other_resets_are_failures_of_one_stream() {
    for reset in [code::INTERNAL_ERROR, code::CANCEL, code::ENHANCE_YOUR_CALM] {
        let origin = H2Origin::with(Manners::default(), move |stream| {
            if stream.request().header(":path") == Some("/reset") {
                return stream.reset(reset);
            }
            stream.answer(200, "ok");
        });
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        let format = text_format("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
        let proxy = Proxy::start(&config(&origin, json!({})).access_log(&log, format));
        let response = proxy.get("/reset");
        assert_eq!(response.status, 503);
        assert!(response.text().ends_with("reset reason: remote reset"), "{}", response.text());
        let details = "upstream_reset_before_response_started{remote_reset}";
        assert_eq!(await_lines(&log, 1), [format!("503 UR {details}")]);
        assert_eq!(proxy.get("/").status, 200);
        assert_eq!((origin.connections(), origin.streams().len()), (1, 2));
        counts(&proxy, &[("upstream_rq_rx_reset", 1), ("upstream_cx_destroy", 0)]);
    }
}

#[test]
fn a_lost_connection_fails_its_streams_and_no_other() {
    for reset in [false, true] {
        let origin = H2Origin::manual(Manners::default());
        let proxy = start(&origin);
        let mut clients = send(&proxy, &origin, 4, POST);
        let conn = origin.connection(0);
        if reset {
            conn.reset()
        } else {
            conn.close()
        }
        for client in &mut clients {
            assert_eq!(client.response().status, 503);
        }
        proxy.admin.await_stat("cluster.origin.upstream_cx_active", 0);
        let mut next = send(&proxy, &origin, 1, GET).remove(0);
        origin.streams()[4].answer(200, "ok");
        assert_eq!(next.response().status, 200);
        assert_eq!(origin.streams().len(), 5);
        counts(
            &proxy,
            &[
                ("upstream_cx_total", 2),
                ("upstream_cx_destroy_remote_with_active_rq", 1),
                ("upstream_rq_5xx", 4),
            ],
        );
    }
}

#[test]
fn a_client_that_leaves_cancels_its_stream_and_nothing_else() {
    let gate = Gate::default();
    let origin = H2Origin::gated(Manners::default(), &gate);
    let proxy = start(&origin);
    let mut clients = send(&proxy, &origin, 2, GET);
    clients.remove(0).reset();
    let conn = origin.connection(0);
    // Row 9 of "Coming from Envoy": Envoy says INTERNAL_ERROR.
    assert_eq!(conn.await_reset(1), code::CANCEL);
    gate.open(2);
    assert_eq!(clients[0].response().status, 200);
    gate.open(1);
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!((origin.connections(), conn.end_so_far()), (1, End::Open));
    counts(&proxy, &[("upstream_rq_tx_reset", 1), ("upstream_cx_destroy", 0)]);
}

#[test]
fn timeouts_cancel_the_stream_and_keep_the_connection() {
    for (route, details) in [
        (json!({"timeout": "0.2s"}), "504 UT response_timeout"),
        (
            json!({"timeout": "10s", "retry_policy": {"retry_on": "reset", "num_retries": 0, "per_try_timeout": "0.2s"}}),
            "504 URX,UT upstream_per_try_timeout",
        ),
    ] {
        let origin = H2Origin::manual(Manners::default());
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        let format = text_format("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
        let route = json!({"route": route});
        let proxy = Proxy::start(&config(&origin, json!({})).access_log(&log, format).route(route));
        assert_eq!(proxy.get("/").status, 504);
        assert_eq!(await_lines(&log, 1), [details]);
        let conn = origin.connection(0);
        assert_eq!(conn.await_reset(1), code::CANCEL);
        let mut next = send(&proxy, &origin, 1, GET).remove(0);
        origin.streams()[1].answer(200, "ok");
        assert_eq!((next.response().status, origin.connections()), (200, 1));
    }
}

#[test]
fn max_requests_per_connection_drains_it() {
    let origin = H2Origin::ok();
    let config = config(&origin, json!({})).cluster_http(
        json!({"explicit_http_config": {"http_protocol_options": null, "http2_protocol_options": {}},
            "common_http_protocol_options": {"max_requests_per_connection": 2}}),
    );
    let proxy = Proxy::start(&config);
    for _ in 0..6 {
        assert_eq!(proxy.get("/").status, 200);
    }
    assert_eq!(spread(&origin.streams()), [2, 2, 2]);
    assert_eq!(origin.connection(0).end(), End::Fin);
    counts(&proxy, &[("upstream_cx_max_requests", 3), ("upstream_rq_5xx", 0)]);
}

#[test]
fn an_idle_connection_ends_in_order() {
    let origin = H2Origin::ok();
    let config = config(&origin, json!({})).cluster_http(json!({
        "explicit_http_config": {"http_protocol_options": null, "http2_protocol_options": {}},
        "common_http_protocol_options": {"idle_timeout": "0.3s"},
    }));
    let proxy = Proxy::start(&config);
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(origin.connection(0).end(), End::Fin);
    proxy.admin.await_stat("cluster.origin.upstream_cx_idle_timeout", 1);
    counts(&proxy, &[("upstream_cx_destroy_local", 1), ("upstream_cx_active", 0)]);
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(origin.connections(), 2);
}

/// A peer that answers no PING is gone.
#[test]
fn keepalive_ends_a_silent_connection() {
    let origin = H2Origin::manual(Manners { ack_pings: false, ..Manners::default() });
    let keepalive = json!({"connection_keepalive": {"interval": "0.1s", "timeout": "0.2s"}});
    let proxy = Proxy::start(&config(&origin, keepalive));
    assert_eq!(proxy.get("/").status, 503);
    proxy.admin.await_stat("cluster.origin.http2.keepalive_timeout", 1);
    assert_ne!(origin.connection(0).end(), End::Open);
}

#[test]
fn a_withheld_window_holds_the_request_back() {
    let manners = Manners { replenish: false, ..Manners::settings(&[(setting::INITIAL_WINDOW_SIZE, 10)]) };
    let origin = H2Origin::manual(manners);
    let proxy = start(&origin);
    // So that the first SETTINGS are known.
    let mut warm = send(&proxy, &origin, 1, GET).remove(0);
    origin.streams()[0].answer(200, "ok");
    assert_eq!(warm.response().status, 200);
    let body = "x".repeat(50_000);
    let request = format!("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 50000\r\n\r\n{body}");
    let mut client = send(&proxy, &origin, 1, &request).remove(0);
    let stream = origin.streams().remove(1);
    let conn = stream.conn.clone();
    conn.await_message("the window's bytes", stream.id, |message| message.body.len() == 10);
    conn.sync();
    assert_eq!(conn.so_far(stream.id).body.len(), 10);
    conn.send(&integration_tests::h2::Frame::window_update(stream.id, 100_000));
    assert_eq!(stream.request().body.len(), 50_000);
    stream.answer(200, "ok");
    assert_eq!(client.response().status, 200);
}

#[test]
fn interim_responses_and_trailers_come_through() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        let request = stream.request();
        assert_eq!(request.header(":authority"), Some("a.test"));
        stream.head(103, &[("link", "</a.css>")], false);
        stream.head(200, &[("x", "y")], false);
        stream.body("body", false);
        stream.trailers(&[("x-trailer", "t")]);
    });
    let proxy = Proxy::start(&config(&origin, json!({})).hcm(json!({
        "proxy_100_continue": true,
        "http_protocol_options": {"enable_trailers": true},
    })));
    let mut client = proxy.connect();
    let interim = client.send("GET / HTTP/1.1\r\nhost: a.test\r\nte: trailers\r\n\r\n").response();
    assert_eq!((interim.status, interim.header("link")), (103, Some("</a.css>")));
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "body"));
    assert_eq!(response.trailers, "x-trailer: t\r\n");
}

/// Envoy's answers to `max_connections: 1` with `max_pending_requests: 1` (one host, one worker): HTTP/2 streams
/// share the connection; with a stream limit of 1, the peer's or our own, it is as over HTTP/1.1.
#[test]
fn one_connection_and_one_place_to_wait() {
    let limits = || thresholds(json!({"max_connections": 1, "max_pending_requests": 1}));
    let gate = Gate::default();
    let origin = H2Origin::gated(Manners::default(), &gate);
    let proxy = Proxy::start(&config(&origin, json!({})).cluster(limits()));
    let mut clients = send(&proxy, &origin, 3, GET);
    gate.open(3);
    assert!(clients.iter_mut().all(|client| client.response().status == 200));
    counts(
        &proxy,
        &[("upstream_rq_pending_total", 1), ("upstream_rq_pending_overflow", 0), ("upstream_cx_overflow", 0)],
    );

    let one_stream = [(setting::MAX_CONCURRENT_STREAMS, 1)];
    for (manners, options) in [
        (Manners::default(), json!({"max_concurrent_streams": 1})),
        (Manners::settings(&one_stream), json!({})),
    ] {
        let gate = Gate::default();
        let origin = H2Origin::gated(manners, &gate);
        let proxy = Proxy::start(&config(&origin, options).cluster(limits()));
        gate.open(1);
        assert_eq!(proxy.get("/").status, 200);
        let mut first = send(&proxy, &origin, 1, GET).remove(0);
        let mut second = proxy.connect();
        second.send(GET);
        proxy.admin.await_stat("cluster.origin.upstream_rq_pending_active", 1);
        let third = proxy.get("/");
        assert_eq!((third.status, third.header("x-envoy-overloaded")), (503, Some("true")));
        gate.open(2);
        assert_eq!((first.response().status, second.response().status), (200, 200));
        counts(
            &proxy,
            &[
                ("upstream_rq_pending_overflow", 1),
                ("upstream_cx_overflow", 1),
                ("upstream_rq_total", 3),
                ("upstream_rq_pending_total", 2),
            ],
        );
        assert_eq!((origin.connections(), origin.connection(0).most_streams()), (1, 1));
    }
}

#[test]
fn max_requests_counts_streams() {
    let gate = Gate::default();
    let origin = H2Origin::gated(Manners::default(), &gate);
    let proxy = Proxy::start(&config(&origin, json!({})).cluster(thresholds(json!({"max_requests": 2}))));
    let mut clients = send(&proxy, &origin, 2, GET);
    assert_eq!(proxy.get("/").status, 503);
    counts(&proxy, &[("upstream_rq_active_overflow", 1), ("upstream_rq_pending_overflow", 0)]);
    gate.open(2);
    assert!(clients.iter_mut().all(|client| client.response().status == 200));
    assert_eq!(origin.most_streams(), 2);
}

/// Never one connection too many, and nobody starves: with a stream limit that makes connections scarce.
#[test]
fn max_connections_holds_under_load() {
    for limit in [1, 2] {
        let origin = H2Origin::with(Manners::default(), |stream| {
            stream.request();
            stream.answer(200, "ok");
            if stream.id == 21 {
                // Nothing is refused: what waits has to find another connection all the same.
                stream.conn.goaway_after(0x7fff_ffff);
            }
        });
        let config = config(&origin, json!({"max_concurrent_streams": 3}))
            .cluster(thresholds(json!({"max_connections": limit})));
        let proxy = Proxy::start(&config);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut client = proxy.connect();
                    for _ in 0..10 {
                        let response = client.ask(GET);
                        assert_eq!(response.status, 200, "{}", response.text());
                    }
                });
            }
        });
        assert!(origin.census().most() <= limit, "{} of {limit}", origin.census().most());
        let most = (0..origin.connections()).map(|number| origin.connection(number).most_streams()).max();
        assert!(most <= Some(3), "{most:?}");
    }
}

#[test]
fn tls_with_alpn_carries_it() {
    let origin = H2Origin::tls(Manners::default(), |stream| {
        stream.request();
        stream.answer(200, "ok");
    });
    let tls = json!({"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "server.test",
    }}});
    let proxy = Proxy::start(&config(&origin, json!({})).cluster(tls));
    for _ in 0..3 {
        assert_eq!(proxy.get("/").text(), "ok");
    }
    assert_eq!((origin.connections(), origin.connection(0).alpn().as_deref()), (1, Some("h2")));
}
