//! The client's end, against our server's end and against frames by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tidegate_testkit::io::{Link, MemIo, pair, pair_over};
use tidegate_types::{EndStream, ResponseHead};
use tokio::task::spawn_local;

use super::*;
use crate::h2::frames::{self, kind};
use crate::h2::options::{KeepaliveOptions, Options, ServerOptions};
use crate::h2::testing::*;
use crate::multiplex::{ALTSVC, ClientExchange as _, Event, ServerConnection};
use crate::stream::{ClientStream, ServerStream, StreamError};

/// The frames that a client sent, without its SETTINGS and WINDOW_UPDATEs.
fn sent(far: &mut MemIo) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let bytes = far.read_available();
    let bytes = bytes.strip_prefix(&crate::h2::preface::PREFACE[..]).unwrap_or(&bytes);
    let mut frames = frames_of(bytes);
    frames.retain(|(kind, ..)| !matches!(*kind, kind::SETTINGS | kind::WINDOW_UPDATE));
    frames
}

fn opened(conn: &ClientConn) -> ClientExchange {
    let mut exchange = conn.open();
    exchange.send_head(&get("/"), EndStream::Yes);
    exchange
}

fn is_refused(result: Result<(ResponseHead, EndStream), StreamError>) -> bool {
    matches!(result, Err(StreamError::Reset { code: ResetCode::Refused, .. }))
}

#[tokio::test(start_paused = true)]
async fn the_first_flight_carries_the_request_as_envoys_does() {
    local(async {
        let (near, mut far) = pair();
        let calls = near.calls();
        let called = call(near, Options::default());
        let _exchange = opened(&called.conn);
        settle().await;
        assert_eq!(calls.borrow().writes, 1);
        let bytes = far.read_available();
        let frames = frames_of(bytes.strip_prefix(&crate::h2::preface::PREFACE[..]).unwrap());
        let kinds: Vec<_> = frames.iter().map(|frame| frame.0).collect();
        assert_eq!(kinds.len(), 3, "{frames:?}");
        assert_eq!((kinds[0], frames[0].1), (kind::SETTINGS, 0));
        assert!(kinds.contains(&kind::WINDOW_UPDATE) && kinds.contains(&kind::HEADERS));
        let window = frames.iter().find(|frame| frame.0 == kind::WINDOW_UPDATE).unwrap();
        assert_eq!(window.3, 25_100_289_u32.to_be_bytes());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn heads_bodies_and_trailers_pass_both_ways() {
    local(async {
        let (near, far) = pair();
        let served = serve(far, ServerOptions::default(), |mut exchange| async move {
            let mut hints = ResponseHead::new(http::StatusCode::EARLY_HINTS);
            hints.headers.insert("link", HeaderValue::from_static("x"));
            exchange.send_informational(&hints);
            echo(exchange).await;
        });
        let called = call(near, Options::default());
        let mut exchange = called.conn.open();
        exchange.send_head(&post("/x"), EndStream::No);
        exchange.send_data(Bytes::from_static(b"hello"), EndStream::No);
        let mut trailers = HeaderMap::new();
        trailers.insert("t", HeaderValue::from_static("1"));
        trailers.insert("te", HeaderValue::from_static("dropped"));
        exchange.send_trailers(&trailers);
        poll_fn(|cx| exchange.poll_flush(cx)).await.unwrap();
        let first = poll_fn(|cx| exchange.poll_head(cx)).await.unwrap();
        assert!(matches!(first, crate::ResponseFrame::Informational(head) if head.headers["link"] == "x"));
        let (head, end) = final_head(&mut exchange).await.unwrap();
        assert_eq!((head.status.as_u16(), end), (200, EndStream::No));
        let (body, trailers) = body_of(&mut exchange).await.unwrap();
        assert_eq!((&body[..], trailers.unwrap().len()), (&b"hello"[..], 1));
        assert!(exchange.is_request_complete() && exchange.is_response_complete());
        drop(exchange);
        settle().await;
        assert_eq!((called.conn.streams(), served.conn.borrow().streams()), (0, 0));
        assert_eq!((called.seer.count(Event::TxReset), served.seer.count(Event::TxReset)), (0, 0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn websocket_passes_as_extended_connect() {
    local(async {
        let (near, far) = pair();
        let mut options = ServerOptions::default();
        options.common.messages.allow_connect = true;
        let _served = serve(far, options, |mut exchange| async move {
            let (head, end) = head_of(&mut exchange).await;
            assert_eq!((head.upgrade.as_deref(), end), (Some(&b"websocket"[..]), EndStream::No));
            exchange.send_head(&ResponseHead::new(http::StatusCode::SWITCHING_PROTOCOLS), EndStream::No);
            exchange.send_data(Bytes::from_static(b"frame"), EndStream::Yes);
        });
        let called = call(near, Options::default());
        settle().await;
        assert!(called.conn.takes_extended_connect());
        let mut exchange = called.conn.open();
        let mut head = get("/chat");
        head.upgrade = Some(Bytes::from_static(b"websocket"));
        exchange.send_head(&head, EndStream::No);
        let (head, _) = final_head(&mut exchange).await.unwrap();
        assert_eq!((head.status.as_u16(), head.headers["upgrade"].as_bytes()), (101, &b"websocket"[..]));
        assert_eq!(body_of(&mut exchange).await.unwrap().0, "frame");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn many_streams_over_small_windows_all_finish() {
    const STREAMS: usize = 60;
    const BODY: usize = 100_000;
    local(async {
        let small = Options {
            initial_stream_window_size: 65_535,
            initial_connection_window_size: 65_535,
            ..Options::default()
        };
        let link =
            Link { latency: Duration::from_millis(1), window: 20_000, max_read: 3_000, max_write: 5_000 };
        let (near, far) = pair_over(link);
        let served = serve(far, ServerOptions { common: small.clone(), ..ServerOptions::default() }, echo);
        let called = call(near, small);
        let mut tasks = Vec::new();
        for index in 0..STREAMS {
            let mut exchange = called.conn.open();
            tasks.push(spawn_local(async move {
                let body = Bytes::from(vec![index as u8; BODY]);
                exchange.send_head(&post("/"), EndStream::No);
                exchange.send_data(body.clone(), EndStream::Yes);
                let mut flushed = false;
                let mut head = None;
                // Both directions in one task, as the proxy does it.
                poll_fn(|cx| {
                    if !flushed && exchange.poll_flush(cx)?.is_ready() {
                        flushed = true;
                    }
                    exchange.poll_head(cx).map_ok(|frame| head = Some(frame))
                })
                .await
                .unwrap();
                let mut got = Vec::new();
                loop {
                    let frame = poll_fn(|cx| {
                        if !flushed && exchange.poll_flush(cx)?.is_ready() {
                            flushed = true;
                        }
                        exchange.poll_body(cx)
                    });
                    let crate::BodyFrame::Data(data, end) = frame.await.unwrap() else { panic!("trailers") };
                    got.extend_from_slice(&data);
                    if end.is_end() {
                        break;
                    }
                }
                assert_eq!(got, body);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((called.conn.streams(), served.conn.borrow().streams()), (0, 0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn goaway_below_at_and_above_the_streams_in_flight() {
    // Streams 1, 3 and 5 are in flight.
    for (last, expect_refused) in
        [(0, [true; 3]), (3, [false, false, true]), (5, [false; 3]), (99, [false; 3])]
    {
        local(async {
            let (near, mut far) = pair();
            let called = call(near, Options::default());
            let mut exchanges = [opened(&called.conn), opened(&called.conn), opened(&called.conn)];
            settle().await;
            far.write_all(&frame(kind::SETTINGS, 0, 0, &[])).await;
            far.write_all(&frames::goaway(last, 0)).await;
            settle().await;
            assert!(called.conn.is_going_away());
            let told = called.events.borrow().iter().any(|event| {
                matches!(event, ClientEvent::GoAway { last_stream, code: ResetCode::NoError } if *last_stream == u64::from(last))
            });
            assert!(told);
            let mut late = opened(&called.conn);
            assert!(is_refused(final_head(&mut late).await));
            for id in [1, 3, 5_u32].into_iter().filter(|id| *id <= last) {
                far.write_all(&frame(kind::HEADERS, WHOLE, id, STATUS_200)).await;
            }
            for (exchange, refused) in exchanges.iter_mut().zip(expect_refused) {
                let head = final_head(exchange).await;
                assert_eq!(head.is_err(), refused, "{head:?}");
                assert_eq!(is_refused(head), refused);
            }
            drop((exchanges, late));
            settle().await;
            assert_eq!(called.conn.streams(), 0);
            let over = matches!(called.events.borrow().last(), Some(ClientEvent::Closed(Ok(()))));
            assert!(over, "{:?}", called.events.borrow());
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn alternatives_are_told() {
    local(async {
        let (near, mut far) = pair();
        let called = call(near, Options::default());
        let _exchange = opened(&called.conn);
        settle().await;
        far.write_all(&frame(kind::SETTINGS, 0, 0, &[])).await;
        // On the request's stream, without an origin, with one, and cut.
        let sent = [(1, &b"\0\0clear"[..]), (0, b"\0\x09https://aclear"), (0, b"\0\0clear"), (0, b"\0")];
        for (stream, payload) in sent {
            far.write_all(&frame(ALTSVC, 0, stream, payload)).await;
        }
        settle().await;
        let events = called.events.borrow();
        let told = events.iter().filter_map(|event| match event {
            ClientEvent::AltSvc(said) => Some((said.origin.as_deref(), &*said.value)),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [(None, &b"clear"[..]), (Some(&b"https://a"[..]), b"clear")]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_goaway_with_an_error_is_told_before_the_end_that_follows() {
    local(async {
        let (near, mut far) = pair();
        let called = call(near, Options::default());
        let mut bytes = frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 7]);
        bytes.extend(frames::goaway(0, 0xb));
        far.write_all(&bytes).await;
        drop(far);
        settle().await;
        let events = called.events.borrow();
        let [
            ClientEvent::Capacity(7),
            ClientEvent::GoAway { last_stream: 0, code },
            ClientEvent::Closed(ended),
        ] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(*code, ResetCode::EnhanceYourCalm);
        assert!(matches!(ended, Err(ConnError::PeerError(ResetCode::EnhanceYourCalm))), "{ended:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_peers_codes_are_told() {
    let cases = [
        (0, ResetCode::NoError),
        (1, ResetCode::Protocol),
        (2, ResetCode::Internal),
        (7, ResetCode::Refused),
        (8, ResetCode::Cancel),
        (0xb, ResetCode::EnhanceYourCalm),
        (0xd, ResetCode::Http11Required),
    ];
    for (wire, expected) in cases {
        local(async {
            let (near, mut far) = pair();
            let called = call(near, Options::default());
            let mut exchange = opened(&called.conn);
            settle().await;
            far.write_all(&frame(kind::SETTINGS, 0, 0, &[])).await;
            far.write_all(&frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, wire])).await;
            let error = final_head(&mut exchange).await.unwrap_err();
            let StreamError::Reset { code, by_peer: true } = error else { panic!("{error:?}") };
            assert_eq!(code, expected);
            assert_eq!(called.seer.count(Event::RxReset), 1);
            assert_eq!(called.seer.count(Event::RxRefused), usize::from(wire == 7));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_complete_response_outlives_the_no_error_that_stops_the_request() {
    local(async {
        let (near, mut far) = pair();
        let called = call(near, Options::default());
        let mut exchange = called.conn.open();
        exchange.send_head(&post("/"), EndStream::No);
        settle().await;
        far.write_all(&frame(kind::SETTINGS, 0, 0, &[])).await;
        far.write_all(&frame(kind::HEADERS, OPEN, 1, STATUS_200)).await;
        far.write_all(&frame(kind::DATA, 1, 1, b"done")).await;
        far.write_all(&frame(kind::RST_STREAM, 0, 1, &[0; 4])).await;
        settle().await;
        exchange.send_data(Bytes::from_static(b"x"), EndStream::No);
        poll_fn(|cx| exchange.poll_flush(cx)).await.unwrap();
        final_head(&mut exchange).await.unwrap();
        assert_eq!(body_of(&mut exchange).await.unwrap().0, "done");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_peers_stream_limit_is_told_and_held() {
    local(async {
        let (near, mut far) = pair();
        let called = call(near, Options { max_concurrent_streams: 100, ..Options::default() });
        assert_eq!(called.conn.capacity(), 100);
        far.write_all(&frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1])).await;
        settle().await;
        assert_eq!(called.conn.capacity(), 1);
        assert!(matches!(called.events.borrow()[..], [ClientEvent::Capacity(1)]));
        sent(&mut far);
        let first = opened(&called.conn);
        let mut second = opened(&called.conn);
        settle().await;
        let frames = sent(&mut far);
        assert_eq!((frames.len(), frames[0].2), (1, 1));
        assert!(second.is_unwritten() && !first.is_unwritten());
        // Room again.
        far.write_all(&frame(kind::HEADERS, WHOLE, 1, STATUS_200)).await;
        settle().await;
        assert_eq!(sent(&mut far)[0].2, 3);
        far.write_all(&frame(kind::HEADERS, WHOLE, 3, STATUS_200)).await;
        final_head(&mut second).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_never_written_is_refused_and_what_was_is_lost() {
    local(async {
        let (near, mut far) = pair();
        let called = call(near, Options::default());
        far.write_all(&frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1])).await;
        settle().await;
        let mut written = opened(&called.conn);
        let mut waiting = opened(&called.conn);
        settle().await;
        drop(far);
        let error = final_head(&mut written).await.unwrap_err();
        assert!(matches!(error, StreamError::Closed), "{error:?}");
        assert!(is_refused(final_head(&mut waiting).await));
        settle().await;
        assert!(matches!(called.events.borrow().last(), Some(ClientEvent::Closed(Ok(())))));
        assert!(called.task.is_finished());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn cancelling_anywhere_leaves_nothing() {
    // How far the exchange comes before it is dropped.
    for stage in 0..6 {
        local(async {
            let (near, far) = pair();
            let served = serve(far, ServerOptions::default(), echo);
            let called = call(near, Options::default());
            settle().await;
            let mut exchange = called.conn.open();
            let mut run = async || {
                exchange.send_head(&post("/"), EndStream::No);
                if stage == 1 {
                    return;
                }
                settle().await;
                exchange.send_data(Bytes::from(vec![b'x'; 300_000]), EndStream::No);
                if stage == 2 {
                    return;
                }
                poll_fn(|cx| exchange.poll_flush(cx)).await.unwrap();
                if stage == 3 {
                    return;
                }
                final_head(&mut exchange).await.unwrap();
                if stage == 4 {
                    return;
                }
                poll_fn(|cx| exchange.poll_body(cx)).await.unwrap();
            };
            if stage > 0 {
                run().await;
            }
            drop(exchange);
            settle().await;
            assert_eq!((called.conn.streams(), served.conn.borrow().streams()), (0, 0), "stage {stage}");
            assert_eq!(served.seer.count(Event::RxReset), usize::from(stage > 0), "stage {stage}");
            let mut next = opened(&called.conn);
            final_head(&mut next).await.unwrap();
            drop(next);
            settle().await;
            assert_eq!((called.conn.streams(), served.conn.borrow().streams()), (0, 0));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_stream_is_reset_with_cancel() {
    local(async {
        let (near, mut far) = pair();
        let called = call(near, Options::default());
        let exchange = opened(&called.conn);
        settle().await;
        sent(&mut far);
        drop(exchange);
        settle().await;
        let frames = sent(&mut far);
        assert_eq!((frames[0].0, frames[0].3[3]), (kind::RST_STREAM, 8));
        assert_eq!(called.seer.count(Event::TxReset), 1);

        let mut exchange = opened(&called.conn);
        settle().await;
        exchange.reset_with(ResetCode::Protocol);
        settle().await;
        assert_eq!(sent(&mut far)[1].3[3], 1);
        assert_eq!(called.seer.count(Event::MessagingError), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn after_a_long_silence_a_ping_goes_before_the_stream() {
    local(async {
        let (near, mut far) = pair();
        let mut keepalive = KeepaliveOptions::new(None, Duration::from_secs(1));
        keepalive.connection_idle_interval = Some(Duration::from_secs(5));
        let calls = near.calls();
        let called = call(near, Options { keepalive: Some(keepalive), ..Options::default() });
        far.write_all(&frame(kind::SETTINGS, 0, 0, &[])).await;
        settle().await;
        sent(&mut far);
        tokio::time::sleep(Duration::from_secs(6)).await;
        let before = calls.borrow().writes;
        let mut exchange = opened(&called.conn);
        settle().await;
        let kinds: Vec<_> = sent(&mut far).iter().map(|frame| frame.0).collect();
        assert_eq!((kinds, calls.borrow().writes), (vec![kind::PING, kind::HEADERS], before + 1));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(final_head(&mut exchange).await.is_err());
        let last = matches!(
            called.events.borrow().last(),
            Some(ClientEvent::Closed(Err(ConnError::KeepaliveTimeout)))
        );
        assert!(last, "{:?}", called.events.borrow());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_invalid_response_is_the_upstreams_fault() {
    local(async {
        let (near, mut far) = pair();
        let called = call(near, Options::default());
        let mut exchange = opened(&called.conn);
        settle().await;
        far.write_all(&frame(kind::SETTINGS, 0, 0, &[])).await;
        // No `:status`.
        far.write_all(&frame(kind::HEADERS, WHOLE, 1, &[0, 1, b'x', 1, b'y'])).await;
        let error = final_head(&mut exchange).await.unwrap_err();
        assert!(matches!(error, StreamError::Protocol { .. }), "{error:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_response_to_head_has_no_body() {
    local(async {
        let (near, far) = pair();
        let _served = serve(far, ServerOptions::default(), |mut exchange| async move {
            let mut head = ok();
            head.headers.insert("content-length", HeaderValue::from_static("5"));
            exchange.send_head(&head, EndStream::No);
            exchange.send_data(Bytes::from_static(b"hello"), EndStream::Yes);
            flush_server(&mut exchange).await.unwrap();
        });
        let called = call(near, Options::default());
        let mut exchange = called.conn.open();
        let mut head = get("/");
        head.method = http::Method::HEAD;
        exchange.send_head(&head, EndStream::Yes);
        let (head, end) = final_head(&mut exchange).await.unwrap();
        assert_eq!((&head.headers["content-length"], end), (&HeaderValue::from_static("5"), EndStream::Yes));
    })
    .await;
}
