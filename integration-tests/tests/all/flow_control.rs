//! Peers that take too little: nothing more is read on their behalf, and each such pause is counted, with its end.

use integration_tests::h2::{Frame, H2Client, H2Origin, Manners, code, setting};
use integration_tests::{Config, Gate, Origin, Proxy, Wire, wait};
use serde_json::json;

const BACKED_UP: &str = "cluster.origin.upstream_flow_control_backed_up_total";
const DRAINED: &str = "cluster.origin.upstream_flow_control_drained_total";
const REQUEST_PAUSED: &str = "http.ingress.downstream_flow_control_paused_reading_total";
const REQUEST_RESUMED: &str = "http.ingress.downstream_flow_control_resumed_reading_total";
const RESPONSE_PAUSED: &str = "cluster.origin.upstream_flow_control_paused_reading_total";
const RESPONSE_RESUMED: &str = "cluster.origin.upstream_flow_control_resumed_reading_total";

/// More than all buffers between two ends hold.
const MUCH: usize = 32 << 20;

/// More than is kept of a stream.
const SOME: usize = 200_000;

/// A peer that gives nothing back of its windows of ten bytes.
fn stingy() -> Manners {
    Manners { replenish: false, ..Manners::settings(&[(setting::INITIAL_WINDOW_SIZE, 10)]) }
}

fn counts<const N: usize>(proxy: &Proxy, names: [&str; N]) -> [u64; N] {
    let stats = proxy.admin.stats();
    names.map(|name| stats.get(name))
}

#[test]
fn a_request_waits_for_a_slow_upstream() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::script(move |mut peer| {
        peer.wire.head();
        held.pass();
        peer.wire.exactly(MUCH);
        peer.send(integration_tests::origin::OK);
    });
    let proxy = Proxy::start(&Config::new(origin.address()).route(json!({"route": {"timeout": "0s"}})));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut client = proxy.connect();
            client.send(format!("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: {MUCH}\r\n\r\n"));
            client.send(vec![b'x'; MUCH]);
            client.response().status
        });
        wait::until("a pause", || proxy.stat(REQUEST_PAUSED) > 0);
        let [paused, resumed, backed_up, drained] =
            counts(&proxy, [REQUEST_PAUSED, REQUEST_RESUMED, BACKED_UP, DRAINED]);
        assert_eq!((resumed + 1, drained + 1), (paused, backed_up), "it lasts");
        gate.open(1);
        assert_eq!(client.join().unwrap(), 200);
    });
    let [paused, resumed, backed_up, drained] =
        counts(&proxy, [REQUEST_PAUSED, REQUEST_RESUMED, BACKED_UP, DRAINED]);
    assert_eq!((resumed, drained), (paused, backed_up), "each has its end");
}

#[test]
fn a_response_waits_for_a_slow_client() {
    let origin = Origin::script(|mut peer| {
        peer.request();
        peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\n\r\n"));
        peer.send(vec![b'x'; MUCH]);
    });
    let proxy = Proxy::start(&Config::new(origin.address()).route(json!({"route": {"timeout": "0s"}})));
    let mut client = Wire::connect(proxy.address);
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    wait::until("a pause", || proxy.stat(RESPONSE_PAUSED) > 0);
    assert_eq!(client.response().body.len(), MUCH);
    proxy.admin.await_stat("http.ingress.downstream_rq_active", 0);
    let [paused, resumed] = counts(&proxy, [RESPONSE_PAUSED, RESPONSE_RESUMED]);
    assert_eq!(resumed, paused);
    assert_eq!(counts(&proxy, [REQUEST_PAUSED, BACKED_UP]), [0, 0]);
}

/// A stream among others waits for its own window, and leaves the others alone.
#[test]
fn a_request_waits_for_its_streams_window() {
    let origin = H2Origin::manual(stingy());
    let config = Config::new(origin.address()).hcm(json!({"codec_type": "AUTO"})).http2_upstream(json!({}));
    let proxy = Proxy::start(&config);
    let client = H2Client::connect(proxy.address);
    let first = client.get("/");
    origin.await_streams(1)[0].answer(200, "ok");
    assert_eq!(client.message(first).status(), 200);
    let stream = client.begin("POST", "/", &[], false);
    client.body(stream, &vec![b'x'; SOME], false);
    proxy.admin.await_stat(REQUEST_PAUSED, 1);
    assert_eq!(counts(&proxy, [REQUEST_RESUMED, BACKED_UP, DRAINED]), [0, 1, 0]);
    client.send(&Frame::reset(stream, code::CANCEL));
    proxy.admin.await_stat("http.ingress.downstream_rq_active", 0);
    assert_eq!(counts(&proxy, [REQUEST_PAUSED, REQUEST_RESUMED, BACKED_UP, DRAINED]), [1, 1, 1, 1]);
}

#[test]
fn a_response_waits_for_its_streams_window() {
    let body = "x".repeat(SOME);
    let origin =
        Origin::answering(move |_| format!("HTTP/1.1 200 OK\r\ncontent-length: {SOME}\r\n\r\n{body}"));
    let proxy = Proxy::start(&Config::new(origin.address()).hcm(json!({"codec_type": "AUTO"})));
    let client = H2Client::with(proxy.address, stingy());
    let stream = client.get("/");
    proxy.admin.await_stat(RESPONSE_PAUSED, 1);
    assert_eq!(counts(&proxy, [RESPONSE_RESUMED]), [0]);
    client.send_all(&[Frame::window_update(stream, 1 << 20), Frame::window_update(0, 1 << 20)]);
    assert_eq!(client.message(stream).body.len(), SOME);
    proxy.admin.await_stat("http.ingress.downstream_rq_active", 0);
    assert_eq!(counts(&proxy, [RESPONSE_PAUSED, RESPONSE_RESUMED]), [1, 1]);
}

/// What only waits for its turn on the connection is no pause.
#[test]
fn who_reads_is_not_counted() {
    let body = "x".repeat(SOME);
    let origin = H2Origin::with(Manners::default(), move |stream| {
        stream.request();
        stream.answer(200, &body);
    });
    let config = Config::new(origin.address()).hcm(json!({"codec_type": "AUTO"})).http2_upstream(json!({}));
    let proxy = Proxy::start(&config);
    let wide = Manners::settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 20)]);
    let client = H2Client::with(proxy.address, wide);
    client.send(&Frame::window_update(0, 1 << 20));
    client.sync();
    assert_eq!(client.ask("/").body.len(), SOME);
    assert_eq!(counts(&proxy, [RESPONSE_PAUSED, REQUEST_PAUSED, BACKED_UP]), [0, 0, 0]);
}
