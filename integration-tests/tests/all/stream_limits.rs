//! What bounds the streams of an HTTP/2 client: what it holds back, resets, begins too many of; and overload.

use std::path::Path;
use std::time::Duration;

use integration_tests::config::text_format;
use integration_tests::h2::{H2Client, H2Origin, Manners, request_fields};
use integration_tests::proxy::await_lines;
use integration_tests::{Config, End, Nobody, Origin, Proxy, wait};
use serde_json::{Value, json};
use tidegate_testkit::h2::{Frame, code, hpack, setting};

const LINE: &str =
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %GRPC_STATUS% %GRPC_STATUS_NUMBER%\n";

fn config(origin: &Origin, hcm: Value) -> Config {
    Config::new(origin.address()).hcm(json!({"codec_type": "AUTO"})).hcm(hcm)
}

fn logging(config: Config, folder: &Path) -> Config {
    config.access_log(&folder.join("access.log"), text_format(LINE))
}

fn line(folder: &Path) -> String {
    await_lines(&folder.join("access.log"), 1).remove(0)
}

fn over_http2(origin: &H2Origin) -> Config {
    Config::new(origin.address()).hcm(json!({"codec_type": "AUTO"})).cluster_http(
        json!({"explicit_http_config": {"http_protocol_options": null, "http2_protocol_options": {}}}),
    )
}

/// A client whose windows for responses are closed.
fn closed(proxy: &Proxy) -> H2Client {
    let settings = Manners::settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    H2Client::with(proxy.address, Manners { replenish: false, ..settings })
}

#[test]
fn a_client_may_not_hold_a_complete_response_back_for_ever() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let proxy =
        Proxy::start(&logging(config(&origin, json!({"stream_flush_timeout": "0.1s"})), folder.path()));
    let client = closed(&proxy);
    let answer = client.message(client.get("/"));
    assert_eq!(
        (answer.status(), answer.text(), answer.reset),
        (200, String::new(), Some(code::INTERNAL_ERROR))
    );
    // For everybody else the response was complete.
    assert_eq!(line(folder.path()), "200 - via_upstream - -");
    assert_eq!(proxy.stat("http2.tx_flush_timeout"), 1);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_tx_reset"), 0);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_idle_timeout"), 0);
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_active"), 0);
}

#[test]
fn a_route_has_a_flush_timeout_of_its_own() {
    let origin = Origin::ok();
    let config = config(&origin, json!({"stream_flush_timeout": "1000s", "stream_idle_timeout": "1000s"}));
    let proxy = Proxy::start(&config.route(json!({"route": {"flush_timeout": "0.1s"}})));
    let client = closed(&proxy);
    assert_eq!(client.message(client.get("/")).reset, Some(code::INTERNAL_ERROR));
    assert_eq!(proxy.stat("http2.tx_flush_timeout"), 1);
}

#[test]
fn what_a_client_takes_slowly_is_not_held_back() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow");
    let proxy = Proxy::start(&config(&origin, json!({"stream_flush_timeout": "1s"})));
    let client = closed(&proxy);
    let stream = client.get("/");
    client.await_head(stream);
    for taken in 1..=4 {
        client.send(&Frame::window_update(stream, 1));
        client.await_message("another octet", stream, |message| message.body.len() == taken);
    }
    let answer = client.message(stream);
    assert_eq!((answer.text(), answer.reset), ("slow".to_owned(), None));
}

#[test]
fn the_flush_timeout_is_for_the_whole_rest_as_in_envoy() {
    let origin =
        Origin::answering(|_| format!("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{}", "x".repeat(999)));
    let proxy = Proxy::start(&config(&origin, json!({"stream_flush_timeout": "0.3s"})));
    let client = closed(&proxy);
    let stream = client.get("/");
    client.await_head(stream);
    while client.so_far(stream).reset.is_none() {
        // Some of it moves all the time.
        client.send(&Frame::window_update(stream, 1));
        std::thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(client.so_far(stream).reset, Some(code::INTERNAL_ERROR));
    assert_eq!(proxy.stat("http2.tx_flush_timeout"), 1);
}

#[test]
fn a_client_that_only_resets_is_disconnected() {
    let origin = H2Origin::manual(Manners::default());
    let proxy = Proxy::start(&over_http2(&origin));
    let client = H2Client::connect(proxy.address);
    for _ in 0..5 {
        let streams: Vec<u32> = (0..50).map(|_| client.get("/")).collect();
        client.sync();
        streams.into_iter().for_each(|stream| client.send(&Frame::reset(stream, code::CANCEL)));
    }
    assert_ne!(client.end(), End::Open);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_too_many_premature_resets"), 1);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_total"), 250);
    proxy.admin.await_stat("http.ingress.downstream_rq_active", 0);
}

#[test]
fn requests_from_the_last_one_on_are_counted() {
    let origin = Origin::ok();
    let limit = json!({"common_http_protocol_options": {"max_requests_per_connection": 2}});
    let proxy = Proxy::start(&config(&origin, limit));
    let client = H2Client::connect(proxy.address);
    for _ in 0..4 {
        assert_eq!(client.ask("/").status(), 200);
    }
    assert_eq!(client.await_goaway(), (0x7fff_ffff, code::NO_ERROR));
    assert_eq!(proxy.stat("http.ingress.downstream_cx_max_requests_reached"), 3);
}

#[test]
fn overflow_is_told_in_grpc_fields() {
    let origin = Origin::ok();
    let config = config(&origin, json!({}))
        .cluster(json!({"circuit_breakers": {"thresholds": [{"max_pending_requests": 0}]}}));
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&logging(config, folder.path()));
    let client = H2Client::connect(proxy.address);
    let fields = [("content-type", "application/grpc")];
    let answer = client.message(client.begin("POST", "/a.B/C", &fields, true));
    let told = ["grpc-status", "x-envoy-overloaded"].map(|name| answer.header(name));
    assert_eq!((answer.status(), told), (200, [Some("14"), Some("true")]));
    let mut old = proxy.connect();
    let head =
        "POST /a.B/C HTTP/1.1\r\nhost: a.test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";
    let answer = old.ask(head);
    assert_eq!(
        (answer.header("grpc-status"), answer.header("x-envoy-overloaded")),
        (Some("14"), Some("true"))
    );
    let told = "200 UO upstream_reset_before_response_started{overflow} Unavailable 14";
    assert_eq!(await_lines(&folder.path().join("access.log"), 2), [told, told]);
}

#[test]
fn a_body_that_came_is_read_before_a_failed_connect_is_told() {
    let proxy = Proxy::start(&Config::new(Nobody::new().address()).hcm(json!({"codec_type": "AUTO"})));
    let mut old = proxy.connect();
    for _ in 0..2 {
        let answer = old.ask("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\n\r\nbody");
        assert_eq!((answer.status, answer.header("connection")), (503, None));
    }
    let client = H2Client::connect(proxy.address);
    let stream = client.next_stream();
    let head = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")];
    client.head(stream, &head, false);
    client.send(&Frame::data(stream, *b"body", true));
    assert_eq!(client.message(stream).status(), 503);
    wait::until("the streams' end", || proxy.stat("http.ingress.downstream_rq_active") == 0);
}

#[test]
fn access_logs_choose_by_grpc_status() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        let status = if stream.request().header(":path") == Some("/good") { "0" } else { "5" };
        stream.head(200, &[("content-type", "application/grpc")], false);
        stream.trailers(&[("grpc-status", status)]);
    });
    let folder = tempfile::tempdir().unwrap();
    let mut config = logging(over_http2(&origin), folder.path());
    let place = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/access_log/0/filter";
    let log = config.0.pointer_mut(place.trim_end_matches("/filter")).unwrap();
    log["filter"] = json!({"grpc_status_filter": {"statuses": ["OK", 1], "exclude": true}});
    let proxy = Proxy::start(&config);
    let client = H2Client::connect(proxy.address);
    for path in ["/good", "/bad"] {
        client.message(client.begin("POST", path, &[("content-type", "application/grpc")], true));
    }
    assert_eq!(line(folder.path()), "200 - via_upstream NotFound 5");
}

/// Frames that wait to be written count, whether or not the client would take them: what was answered goes out, then
/// the connection ends.
#[test]
fn more_frames_at_once_than_may_wait_end_the_connection() {
    let direct = json!([{"match": {"prefix": "/"}, "direct_response": {
        "status": 200, "body": {"inline_string": "hi"},
    }}]);
    let options = |frames: u32| json!({"http2_protocol_options": {"max_outbound_frames": frames}});
    for (frames, flooded) in [(5, true), (60, false)] {
        let origin = Origin::ok();
        let folder = tempfile::tempdir().unwrap();
        let proxy =
            Proxy::start(&logging(config(&origin, options(frames)).routes(direct.clone()), folder.path()));
        let client = H2Client::connect(proxy.address);
        client.sync();
        let get = hpack::encode(&request_fields("GET", "/", &[]));
        let streams: Vec<u32> = (0..20).map(|_| client.next_stream()).collect();
        let heads: Vec<Frame> = streams.iter().map(|id| Frame::headers(*id, get.clone(), true)).collect();
        client.send_all(&heads);
        for stream in streams {
            assert_eq!(client.message(stream).text(), "hi", "stream {stream} of {frames} frames");
        }
        if flooded {
            assert_ne!(client.end(), End::Open);
            proxy.admin.await_stat("http.ingress.downstream_cx_active", 0);
            // All were answered, as far as the manager is concerned; who does not read is told nothing more.
            assert_eq!(proxy.stat("http.ingress.downstream_cx_destroy_active_rq"), 0);
            assert_eq!(client.goaway(), None);
        } else {
            assert_eq!(client.ask("/").status(), 200);
        }
        assert_eq!(proxy.stat("http2.outbound_flood"), u64::from(flooded));
        let lines = await_lines(&folder.path().join("access.log"), 20);
        assert!(lines.iter().all(|line| line == "200 - direct_response - -"), "{lines:?}");
    }
}
