//! HTTP/2 clients of a connection manager, on connections in memory and in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod proxy;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use proxy::{Proxy, local};
use tokio::time::Instant;

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a{path}")).body(()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_preface_makes_it_http2_and_streams_share_the_connection() {
    local(async {
        let proxy = Proxy::new("{}");
        let client = proxy.connect_h2().await;
        let mut answers = Vec::new();
        for _ in 0..40 {
            let (answer, _) = client.clone().send_request(get("/"), true).unwrap();
            answers.push(answer);
        }
        for answer in answers {
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert!(!answer.headers().contains_key("connection"));
            assert_eq!(answer.headers()["server"], "envoy");
            let mut body = answer.into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "fine");
            assert!(body.is_end_stream());
        }
        assert_eq!(
            (proxy.stat("downstream_cx_http2_total"), proxy.stat("downstream_cx_http2_active")),
            (1, 1)
        );
        assert_eq!((proxy.stat("downstream_cx_http1_total"), proxy.stat("downstream_cx_idle")), (0, 1));
        assert_eq!((proxy.stat("downstream_rq_http2_total"), proxy.stat("downstream_rq_active")), (40, 0));
        drop(client);
        proxy::settle().await;
        assert_eq!((proxy.stat("downstream_cx_destroy_remote"), proxy.stat("downstream_cx_active")), (1, 0));
        assert_eq!(proxy.global("http2.streams_active"), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_first_byte_makes_it_http1_and_half_a_preface_waits() {
    local(async {
        let proxy = Proxy::new("{}");
        for first in ["GET", "P"] {
            let mut client = proxy.connect();
            client.write_all(first.as_bytes()).await;
            proxy::settle().await;
            let rest = if first == "P" {
                "OST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
            } else {
                " / HTTP/1.1\r\nhost: a\r\n\r\n"
            };
            client.write_all(rest.as_bytes()).await;
            let answer = client.read_some().await;
            assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{answer:?}");
        }
        let start = Instant::now();
        let mut client = proxy.connect();
        client.write_all(b"PRI * ").await;
        let answer = client.read_to_end().await;
        assert!(answer.starts_with(b"HTTP/1.1 408 "), "{answer:?}");
        // `request_headers_timeout` from the first byte, and `delayed_close_timeout`.
        assert_eq!(start.elapsed(), Duration::from_secs(16));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_its_stream_and_not_the_connection() {
    local(async {
        let proxy = Proxy::new("{}");
        let client = proxy.connect_h2().await;
        let (bystander, mut body) = client.clone().send_request(get("/buffer"), false).unwrap();
        for path in ["/request", "/later", "/response"] {
            let (answer, _) = client.clone().send_request(get(path), true).unwrap();
            assert_eq!(answer.await.unwrap().status(), 500, "{path}");
        }
        let (answer, _) = client.clone().send_request(get("/body"), true).unwrap();
        let mut answer = answer.await.unwrap().into_body();
        assert_eq!(answer.data().await.unwrap().unwrap_err().reason(), Some(h2::Reason::INTERNAL_ERROR));
        body.send_data(Bytes::from_static(b"x"), true).unwrap();
        assert_eq!(bystander.await.unwrap().status(), 200);
        assert_eq!(proxy.stat("downstream_rq_active"), 0);
        assert_eq!(proxy.stat("downstream_rq_tx_reset"), 1);
    })
    .await;
}

/// Waits for the end of the connection; since `start`.
async fn closed_after(mut client: tidegate_testkit::io::MemIo, start: Instant) -> (Duration, Vec<u8>) {
    let all = client.read_to_end().await.to_vec();
    (start.elapsed(), all)
}

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The GOAWAYs among frames: last stream and code.
fn goaways(mut bytes: &[u8]) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    while bytes.len() >= 9 {
        let len = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        let payload = &bytes[9..9 + len];
        if bytes[3] == 7 {
            let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            found.push((number(0), number(4)));
        }
        bytes = &bytes[9 + len..];
    }
    found
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_leaves_in_two_steps() {
    local(async {
        let proxy = Proxy::new(r#"{"common_http_protocol_options": {"idle_timeout": "1s"}}"#);
        let mut client = proxy.connect();
        let start = Instant::now();
        client.write_all(HELLO).await;
        let (after, bytes) = closed_after(client, start).await;
        assert_eq!(goaways(&bytes), [(0x7fff_ffff, 0), (0, 0)]);
        assert_eq!(after, Duration::from_secs(7));
        for (name, value) in [
            ("downstream_cx_idle_timeout", 1),
            ("downstream_cx_delayed_close_timeout", 1),
            ("downstream_cx_destroy_local", 1),
            ("downstream_cx_drain_close", 0),
            ("downstream_cx_close_reason.idle_timeout", 1),
        ] {
            assert_eq!(proxy.stat(name), value, "{name}");
        }
        assert_eq!(proxy.global("http2.goaway_sent"), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_began_together_need_not_end_together() {
    local(async {
        let proxy = Proxy::new(
            r#"{"common_http_protocol_options": {"max_connection_duration": "100s", "max_connection_duration_jitter": {"value": 50}},
                "drain_timeout": "20s", "drain_timeout_jitter": {"value": 100}}"#,
        );
        let start = Instant::now();
        let mut ends = Vec::new();
        let clients: Vec<_> = (0..20).map(|_| proxy.connect()).collect();
        for mut client in clients {
            client.write_all(HELLO).await;
            // Each is served whether its client reads or not.
            ends.push(tokio::task::spawn_local(closed_after(client, start)));
        }
        let mut after = Vec::new();
        for end in ends {
            after.push(end.await.unwrap().0);
        }
        let (first, last) = (after.iter().min().unwrap(), after.iter().max().unwrap());
        assert!(*first >= Duration::from_secs(121) && *last <= Duration::from_secs(191), "{after:?}");
        assert!(*last - *first > Duration::from_secs(10), "{after:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_of_no_kind_and_closes_at_once() {
    local(async {
        let proxy = Proxy::new(r#"{"common_http_protocol_options": {"idle_timeout": "1s"}}"#);
        let (after, bytes) = closed_after(proxy.connect(), Instant::now()).await;
        assert_eq!((after, bytes.len()), (Duration::from_secs(1), 0));
        assert_eq!(proxy.stat("downstream_cx_http1_total") + proxy.stat("downstream_cx_http2_total"), 0);
    })
    .await;
}
