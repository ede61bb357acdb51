//! HTTP/2 messages that are none: what their clients, counters and access logs are told, as by Envoy 1.40 but for the
//! GOAWAY.

use std::path::Path;

use integration_tests::config::text_format;
use integration_tests::h2::H2Client;
use integration_tests::proxy::await_lines;
use integration_tests::{Config, Origin, Proxy};
use serde_json::{Value, json};
use tidegate_testkit::h2::{Frame, code, flag, hpack, kind};

const LINE: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";
const HEAD: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")];

fn start(origin: &Origin, folder: &Path, hcm: Value) -> Proxy {
    let config = Config::new(origin.address()).hcm(json!({"codec_type": "AUTO"})).hcm(hcm);
    Proxy::start(&config.access_log(&folder.join("access.log"), text_format(LINE)))
}

fn lines(folder: &Path, count: usize) -> Vec<String> {
    await_lines(&folder.join("access.log"), count)
}

/// A request with a body and these trailers, in one write.
fn with_trailers(client: &H2Client, trailers: &[(&str, &str)]) -> u32 {
    let stream = client.next_stream();
    client.send_all(&[
        Frame::headers(stream, hpack::encode(&HEAD), false),
        Frame::data(stream, "body", false),
        Frame::headers(stream, hpack::encode(trailers), true),
    ]);
    stream
}

#[test]
fn bad_trailers_end_the_connection_and_their_request_is_accounted_for() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(&origin, folder.path(), json!({"delayed_close_timeout": "0.2s"}));
    let client = H2Client::connect(proxy.address);
    with_trailers(&client, &[("connection", "close")]);
    assert_eq!(client.await_goaway().1, code::PROTOCOL_ERROR);
    client.end();
    assert_eq!(lines(folder.path(), 1), ["0 DPE http2.invalid.header.field"]);
    proxy.admin.await_stat("http.ingress.downstream_cx_destroy", 1);
    for name in [
        "http.ingress.downstream_rq_total",
        "http.ingress.downstream_rq_rx_reset",
        "http.ingress.downstream_cx_protocol_error",
        "http.ingress.downstream_cx_destroy_local_active_rq",
        "http.ingress.downstream_cx_destroy_active_rq",
        "http2.trailers",
        "http2.rx_messaging_error",
        "cluster.origin.upstream_rq_cancelled",
    ] {
        assert_eq!(proxy.stat(name), 1, "{name}");
    }
}

#[test]
fn a_body_in_front_of_bad_trailers_was_received() {
    let origin = Origin::ok();
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("access.log");
    let config = Config::new(origin.address()).hcm(json!({"codec_type": "HTTP2"}));
    let format = text_format("%BYTES_RECEIVED% %RESPONSE_CODE_DETAILS%\n");
    let proxy = Proxy::start(&config.access_log(&log, format));
    with_trailers(&H2Client::connect(proxy.address), &[("connection", "close")]);
    assert_eq!(await_lines(&log, 1), ["4 http2.invalid.header.field"]);
}

#[test]
fn a_head_that_is_none_is_logged_and_counted() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(&origin, folder.path(), json!({"delayed_close_timeout": "0.2s"}));
    let client = H2Client::connect(proxy.address);
    client.request(&[(":method", "GET"), (":scheme", "http"), (":path", "/")], true);
    client.end();
    let client = H2Client::connect(proxy.address);
    // An index that no table has.
    client.send(&Frame::headers(client.next_stream(), vec![0xff, 0xff, 0xff, 0x0f], true));
    assert_eq!(client.await_goaway().1, code::COMPRESSION_ERROR);
    client.end();
    let expected =
        ["0 DPE http2.violation.of.messaging.rule", "0 DPE codec_error:The_user_callback_function_failed"];
    assert_eq!(lines(folder.path(), 2), expected);
    proxy.admin.await_stat("http.ingress.downstream_cx_destroy", 2);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_rx_reset"), 2);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_destroy_local_active_rq"), 2);
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_total"), 0);
}

#[test]
fn a_body_of_another_length_costs_its_stream_alone() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(&origin, folder.path(), json!({}));
    let client = H2Client::connect(proxy.address);
    for (length, body) in [("2", "four"), ("9", "four")] {
        let stream = client.next_stream();
        let head = [&HEAD[..], &[("content-length", length)]].concat();
        client.send_all(&[
            Frame::headers(stream, hpack::encode(&head), false),
            Frame::data(stream, body, true),
        ]);
        assert_eq!(client.await_reset(stream), code::PROTOCOL_ERROR);
    }
    assert_eq!(lines(folder.path(), 2), ["0 DPE http2.remote_reset"; 2]);
    assert_eq!(client.ask("/").status(), 200);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_rx_reset"), 2);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_active"), 1);
}

#[test]
fn underscores_in_heads_and_trailers_reset_their_streams() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let reject =
        json!({"common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"}});
    let proxy = start(&origin, folder.path(), reject);
    let client = H2Client::connect(proxy.address);
    let stream = client.begin("GET", "/", &[("x_a", "1")], true);
    assert_eq!(client.await_reset(stream), code::INTERNAL_ERROR);
    let stream = with_trailers(&client, &[("x_a", "1")]);
    assert_eq!(client.await_reset(stream), code::INTERNAL_ERROR);
    assert_eq!(lines(folder.path(), 2), ["0 DR http2.unexpected_underscore"; 2]);
    assert_eq!(proxy.stat("http2.requests_rejected_with_underscores_in_headers"), 2);
    assert_eq!(client.ask("/").status(), 200);
}

#[test]
fn underscored_fields_are_dropped_from_heads_and_trailers() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let drop = json!({"common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"}});
    let proxy = start(&origin, folder.path(), drop);
    let client = H2Client::connect(proxy.address);
    let stream = client.begin("GET", "/", &[("x_a", "1"), ("x-b", "2")], true);
    assert_eq!(client.message(stream).status(), 200);
    let request = origin.request();
    assert_eq!((request.header("x_a"), request.header("x-b")), (None, Some("2")));
    assert_eq!(client.message(with_trailers(&client, &[("x_c", "1")])).status(), 200);
    assert_eq!(proxy.stat("http2.dropped_headers_with_underscores"), 2);
}

#[test]
fn a_head_that_does_not_end_is_answered_in_time() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(&origin, folder.path(), json!({"request_headers_timeout": "0.3s"}));
    let client = H2Client::connect(proxy.address);
    // Nothing of its own comes between the head's frames any more.
    client.sync();
    let stream = client.next_stream();
    client.send(&Frame::new(kind::HEADERS, flag::END_STREAM, stream, hpack::encode(&HEAD)));
    let answer = client.message(stream);
    assert_eq!((answer.status(), answer.text()), (408, "request header timeout".to_owned()));
    assert_eq!(client.await_reset(stream), code::NO_ERROR);
    assert_eq!(lines(folder.path(), 1), ["408 - request_header_timeout"]);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_header_timeout"), 1);
}

/// A head in many pieces is judged by what it says, as one in a single frame is.
#[test]
fn a_head_of_many_pieces_with_too_many_fields_costs_its_stream_alone() {
    let origin = Origin::ok();
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(&origin, folder.path(), json!({}));
    let client = H2Client::connect(proxy.address);
    let stream = client.next_stream();
    client.send(&Frame::new(kind::HEADERS, flag::END_STREAM, stream, hpack::encode(&HEAD)));
    let piece = hpack::encode(&[("x-more", "y")]);
    let pieces: Vec<Frame> =
        (1..=200).map(|number| Frame::continuation(stream, piece.clone(), number == 200)).collect();
    client.send_all(&pieces);
    assert_eq!(client.message(stream).reset, Some(code::INTERNAL_ERROR));
    assert_eq!(lines(folder.path(), 1), ["0 DR http2.too_many_headers"]);
    assert_eq!(proxy.stat("http2.header_overflow"), 1);
    assert_eq!(client.ask("/").status(), 200);
}
