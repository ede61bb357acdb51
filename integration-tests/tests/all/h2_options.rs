//! Fields of `http2_protocol_options` that a peer sees in frames: settings of the user's own, resets by the second,
//! long fields. As by Envoy 1.40.

use integration_tests::h2::{H2Client, H2Origin, request_fields};
use integration_tests::{Config, Proxy};
use serde_json::{Value, json};
use tidegate_testkit::h2::{Frame, code, flag, hpack, kind};

fn start(downstream: Value, upstream: Value) -> (H2Origin, Proxy) {
    let origin = H2Origin::ok();
    let hcm =
        json!({"codec_type": "HTTP2", "http2_protocol_options": downstream, "max_request_headers_kb": 300});
    let proxy = Proxy::start(&Config::new(origin.address()).hcm(hcm).http2_upstream(upstream));
    (origin, proxy)
}

/// The identifiers and values of a SETTINGS frame.
fn settings(frames: &[Frame]) -> Vec<(u16, u32)> {
    let entries = frames[0].payload.as_chunks::<6>().0.iter();
    entries
        .map(|[a, b, c, d, e, f]| (u16::from_be_bytes([*a, *b]), u32::from_be_bytes([*c, *d, *e, *f])))
        .collect()
}

#[test]
fn custom_settings_are_sent_ahead_of_the_named_ones() {
    let own = json!({"custom_settings_parameters": [
        {"identifier": 65535, "value": 4_294_967_295_u32}, {"identifier": 2, "value": 0},
        {"identifier": 3, "value": 1}, {"identifier": 65535, "value": 4_294_967_295_u32},
    ]});
    let (origin, proxy) = start(own.clone(), own);
    let client = H2Client::connect(proxy.address);
    assert_eq!(client.ask("/").status(), 200);
    let named = [(1, 4096), (8, 0), (3, 1024), (4, 16 << 20)];
    let downstream = [&[(0xffff, u32::MAX), (2, 0), (3, 1)][..], &named].concat();
    assert_eq!(settings(&client.frames_of(kind::SETTINGS)), downstream);
    let upstream = [&[(2, 0), (0xffff, u32::MAX), (3, 1)][..], &named].concat();
    assert_eq!(settings(&origin.connection(0).frames_of(kind::SETTINGS)), upstream);
}

#[test]
fn resets_over_the_burst_end_the_connection() {
    let (_origin, proxy) = start(json!({"stream_reset_burst": 5, "stream_reset_rate": 0}), json!({}));
    for (resets, last) in [(5, None), (6, Some((11, code::INTERNAL_ERROR)))] {
        let client = H2Client::connect(proxy.address);
        let before = proxy.stat("http.ingress.downstream_rq_rx_reset");
        for _ in 0..resets {
            let stream = client.begin("POST", "/", &[], false);
            client.send(&Frame::reset(stream, code::CANCEL));
        }
        if let Some(last) = last {
            assert_eq!(client.await_goaway(), last);
        } else {
            assert_eq!(client.ask("/").status(), 200);
        }
        proxy.admin.await_stat("http.ingress.downstream_rq_rx_reset", before + resets);
    }
    assert_eq!(proxy.stat("http.ingress.downstream_cx_protocol_error"), 1);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_destroy_local_active_rq"), 0);
}

#[test]
fn a_field_over_64_kb_needs_to_be_allowed() {
    let long = "y".repeat(70_000);
    for (options, taken) in [(json!({}), false), (json!({"max_header_field_size_kb": 128}), true)] {
        let (_origin, proxy) = start(options, json!({}));
        let client = H2Client::connect(proxy.address);
        let stream = client.next_stream();
        let block = hpack::encode(&request_fields("GET", "/", &[("x-long", &long)]));
        let mut parts = block.chunks(16_384).peekable();
        let mut frames = vec![Frame::new(kind::HEADERS, flag::END_STREAM, stream, parts.next().unwrap())];
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { flag::END_HEADERS } else { 0 };
            frames.push(Frame::new(kind::CONTINUATION, flags, stream, part));
        }
        client.send_all(&frames);
        if taken {
            assert_eq!(client.message(stream).status(), 200);
        } else {
            assert_eq!(client.await_goaway().1, code::COMPRESSION_ERROR);
        }
    }
}

#[test]
fn bytes_above_ascii_are_refused_where_envoys_newer_codec_would() {
    for (newer, taken) in [(false, true), (true, false)] {
        let options = json!({"disallow_obs_text": true, "use_oghttp2_codec": newer,
            "override_stream_error_on_invalid_http_message": true});
        let (_origin, proxy) = start(options, json!({}));
        let client = H2Client::connect(proxy.address);
        let stream = client.request(&request_fields("GET", "/", &[("x-a", "café")]), true);
        let answer = client.message(stream);
        let expected = if taken { (200, None) } else { (0, Some(code::PROTOCOL_ERROR)) };
        assert_eq!((answer.status(), answer.reset), expected);
    }
}
