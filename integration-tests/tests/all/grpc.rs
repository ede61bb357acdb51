//! gRPC by raw frames: calls of each kind, deadlines, and errors as `grpc-status`.

use integration_tests::h2::{H2Client, H2Origin, Manners, Message, code};
use integration_tests::{Config, Nobody, Proxy, wait};
use serde_json::{Value, json};

const CALL: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];
const REPLY: [(&str, &str); 1] = [("content-type", "application/grpc")];

fn over_http_2(config: Config) -> Config {
    let options =
        json!({"explicit_http_config": {"http_protocol_options": null, "http2_protocol_options": {}}});
    config.hcm(json!({"codec_type": "HTTP2"})).cluster_http(options)
}

fn config(origin: &H2Origin) -> Config {
    over_http_2(Config::new(origin.address()))
}

/// One message with its five bytes of prefix.
fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

fn call(client: &H2Client, more: &[(&str, &str)]) -> u32 {
    client.begin("POST", "/test.Echo/Call", &[&CALL[..], more].concat(), false)
}

/// A unary call to its end.
fn unary(client: &H2Client, more: &[(&str, &str)]) -> Message {
    let stream = call(client, more);
    client.body(stream, &framed(b"ping"), true);
    client.message(stream)
}

/// A response that is all head: the status in the only header block.
#[track_caller]
fn trailers_only(response: &Message, status: &str) {
    assert_eq!((response.status(), response.header("grpc-status")), (200, Some(status)), "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/grpc"));
    assert!(response.body.is_empty() && response.trailers.is_none() && response.ended, "{response:?}");
}

#[test]
fn a_unary_call_keeps_its_trailers() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        let request = stream.request();
        assert_eq!((request.header("te"), request.body.clone()), (Some("trailers"), framed(b"ping")));
        stream.head(200, &REPLY, false);
        stream.body(framed(b"pong"), false);
        stream.trailers(&[("grpc-status", "0"), ("grpc-message", "fine")]);
    });
    let proxy = Proxy::start(&config(&origin));
    let response = unary(&H2Client::connect(proxy.address), &[]);
    assert_eq!((response.status(), response.body.clone()), (200, framed(b"pong")));
    assert_eq!(
        (response.trailer("grpc-status"), response.trailer("grpc-message")),
        (Some("0"), Some("fine"))
    );
}

#[test]
fn both_directions_stream_at_once() {
    let origin = H2Origin::manual(Manners::default());
    let proxy = Proxy::start(&config(&origin));
    let client = H2Client::connect(proxy.address);
    let stream = call(&client, &[]);
    let upstream = origin.await_streams(1).remove(0);
    upstream.head(200, &REPLY, false);
    assert_eq!(client.await_head(stream).status(), 200);
    for turn in 1..=20_usize {
        client.body(stream, &framed(b"ping"), false);
        upstream.conn.await_message("a ping", upstream.id, |message| message.body.len() == 9 * turn);
        upstream.body(framed(b"pong"), false);
        client.await_message("a pong", stream, |message| message.body.len() == 9 * turn);
    }
    client.body(stream, &[], true);
    assert!(upstream.request().ended);
    upstream.trailers(&[("grpc-status", "0")]);
    assert_eq!(client.message(stream).trailer("grpc-status"), Some("0"));
}

#[test]
fn trailers_only_responses_stay_so() {
    let origin = H2Origin::with(Manners::default(), |stream| {
        stream.request();
        stream.head(200, &[REPLY[0], ("grpc-status", "5"), ("grpc-message", "no such thing")], true);
    });
    let proxy = Proxy::start(&config(&origin));
    let response = unary(&H2Client::connect(proxy.address), &[]);
    trailers_only(&response, "5");
    assert_eq!(response.header("grpc-message"), Some("no such thing"));
}

#[test]
fn a_call_that_is_cancelled_is_cancelled_upstream() {
    let origin = H2Origin::manual(Manners::default());
    let proxy = Proxy::start(&config(&origin));
    let client = H2Client::connect(proxy.address);
    let stream = call(&client, &[]);
    let upstream = origin.await_streams(1).remove(0);
    client.send(&integration_tests::h2::Frame::reset(stream, code::CANCEL));
    assert_eq!(upstream.conn.await_reset(upstream.id), code::CANCEL);
}

/// The client's deadline, within the route's bound, ends a call upstream and answers it.
#[test]
fn the_deadline_of_the_client_is_kept() {
    for route in [
        json!({"max_grpc_timeout": "10s"}),
        json!({"max_stream_duration": {"grpc_timeout_header_max": "10s"}}),
    ] {
        let origin = H2Origin::manual(Manners::default());
        let proxy = Proxy::start(&config(&origin).route(json!({"route": route})));
        let client = H2Client::connect(proxy.address);
        let response = unary(&client, &[("grpc-timeout", "300m")]);
        let status = response.header("grpc-status").or(response.trailer("grpc-status")).map(str::to_owned);
        assert!(matches!(status.as_deref(), Some("4" | "14")), "{response:?}");
        let upstream = origin.await_streams(1).remove(0);
        assert_eq!(upstream.conn.await_reset(upstream.id), code::CANCEL);
    }
}

/// An upstream is told of the longest time that the stream may take, where there is one; who names none is told none.
#[test]
fn upstreams_are_told_how_long_a_call_may_take() {
    for (route, asked, told) in [
        (json!({"grpc_timeout_header_max": "10s"}), Some("40S"), Some("10000m")),
        (json!({"grpc_timeout_header_max": "10s"}), Some("4S"), Some("4000m")),
        (json!({"grpc_timeout_header_max": "10s"}), None, None),
        (
            json!({"grpc_timeout_header_max": "0s", "grpc_timeout_header_offset": "1s"}),
            Some("4S"),
            Some("3000m"),
        ),
        (json!({"max_stream_duration": "20s"}), Some("4S"), Some("20000m")),
        (json!({}), Some("4S"), Some("4S")),
    ] {
        let origin = H2Origin::with(Manners::default(), |stream| {
            stream.request();
            stream.head(200, &[REPLY[0], ("grpc-status", "0")], true);
        });
        let proxy = Proxy::start(&config(&origin).route(json!({"route": {"max_stream_duration": route}})));
        let fields: Vec<(&str, &str)> = asked.map(|asked| ("grpc-timeout", asked)).into_iter().collect();
        assert_eq!(unary(&H2Client::connect(proxy.address), &fields).header("grpc-status"), Some("0"));
        let request = origin.await_streams(1).remove(0).request();
        assert_eq!(request.header("grpc-timeout"), told, "{route} {asked:?}");
    }
}

#[test]
fn local_replies_are_grpc_errors() {
    let nobody = Nobody::new();
    let proxy = Proxy::start(&over_http_2(Config::new(nobody.address())));
    let client = H2Client::connect(proxy.address);
    let response = unary(&client, &[]);
    trailers_only(&response, "14");
    let message = response.header("grpc-message").unwrap_or_default();
    assert!(message.starts_with("upstream connect error or disconnect/reset before headers"), "{message}");

    let direct = |status: u16| {
        let answer = json!([{"match": {"prefix": "/"}, "direct_response": {"status": status, "body": {"inline_string": "no"}}}]);
        Proxy::start(&over_http_2(Config::new(nobody.address()).routes(answer)))
    };
    for (status, grpc) in
        [(400, "13"), (401, "16"), (403, "7"), (404, "12"), (429, "14"), (503, "14"), (500, "2")]
    {
        let proxy = direct(status);
        trailers_only(&unary(&H2Client::connect(proxy.address), &[]), grpc);
    }
}

#[test]
fn no_route_is_unimplemented() {
    let nobody = Nobody::new();
    let proxy = Proxy::start(&over_http_2(Config::new(nobody.address()).routes(json!([]))));
    trailers_only(&unary(&H2Client::connect(proxy.address), &[]), "12");
}

#[test]
fn an_overflow_says_so() {
    let origin = H2Origin::manual(Manners::default());
    let limits = json!({"circuit_breakers": {"thresholds": [{"max_requests": 1}]}});
    let proxy = Proxy::start(&config(&origin).cluster(limits));
    let client = H2Client::connect(proxy.address);
    call(&client, &[]);
    origin.await_streams(1);
    let response = unary(&client, &[]);
    trailers_only(&response, "14");
    assert_eq!(response.header("x-envoy-overloaded"), Some("true"));
}

/// `retry_on` for gRPC looks at the status of trailers-only responses.
#[test]
fn a_grpc_status_can_be_retried() {
    let policy: Value = json!({"route": {"retry_policy": {"retry_on": "unavailable", "num_retries": 2}}});
    let origin = H2Origin::with(Manners::default(), |stream| {
        stream.request();
        if stream.id < 5 {
            return stream.head(200, &[REPLY[0], ("grpc-status", "14")], true);
        }
        stream.head(200, &REPLY, false);
        stream.body(framed(b"pong"), false);
        stream.trailers(&[("grpc-status", "0")]);
    });
    let proxy = Proxy::start(&config(&origin).route(policy));
    let response = unary(&H2Client::connect(proxy.address), &[]);
    assert_eq!(response.trailer("grpc-status"), Some("0"));
    wait::until("three streams", || origin.streams().len() == 3);
    assert_eq!(proxy.stat("cluster.origin.upstream_rq_retry"), 2);
    assert_eq!(origin.connections(), 1);
}
