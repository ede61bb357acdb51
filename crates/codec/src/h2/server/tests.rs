//! The server's end, against the library's client and against frames by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use tidegate_net::Io;
use tidegate_testkit::io::{Link, MemIo, pair, pair_over};
use tidegate_types::{EndStream, ResponseHead};
use tokio::task::spawn_local;

use super::*;
use crate::h2::frames::kind;
use crate::h2::options::KeepaliveOptions;
use crate::h2::testing::*;
use crate::multiplex::{Event, Flood};
use crate::stream::{BodyFrame, ServerStream, StreamError};

type Requests = h2::client::SendRequest<Bytes>;

async fn library(io: MemIo) -> Requests {
    let (requests, connection) = h2::client::handshake(Plain(io)).await.unwrap();
    spawn_local(connection);
    requests.ready().await.unwrap()
}

/// What a connection answered to `bytes`, without SETTINGS, WINDOW_UPDATE and acknowledgements.
async fn answers(far: &mut MemIo, bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    far.write_all(bytes).await;
    settle().await;
    let mut frames = frames_of(&far.read_available());
    frames.retain(|(kind, ..)| !matches!(*kind, kind::SETTINGS | kind::WINDOW_UPDATE));
    frames
}

fn reset_code(frame: &(u8, u8, u32, Vec<u8>)) -> (u32, u8) {
    assert_eq!(frame.0, kind::RST_STREAM, "{frame:?}");
    (frame.2, frame.3[3])
}

#[tokio::test(start_paused = true)]
async fn a_request_with_trailers_is_served_with_trailers() {
    local(async {
        let (near, far) = pair();
        let served = serve(near, ServerOptions::default(), echo);
        let mut requests = library(far).await;
        let request = Request::post("https://example.com/x?y").body(()).unwrap();
        let (response, mut body) = requests.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(b"hello"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        body.send_trailers(trailers.clone()).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "hello");
        assert_eq!(body.trailers().await.unwrap(), Some(trailers));
        settle().await;
        assert_eq!(served.conn.borrow().streams(), 0);
        assert_eq!(served.seer.count(Event::Trailers), 1);
        assert_eq!(served.seer.count(Event::StreamOpened), served.seer.count(Event::StreamClosed));
        assert_eq!(served.seer.count(Event::TxReset), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_responses_of_many_streams_go_out_in_one_write() {
    local(async {
        let (near, mut far) = pair();
        let calls = near.calls();
        let _served = serve(near, ServerOptions::default(), |mut exchange| async move {
            exchange.send_head(&ok(), EndStream::No);
            exchange.send_data(Bytes::from(vec![b'x'; 600]), EndStream::Yes);
            flush_server(&mut exchange).await.unwrap();
        });
        answers(&mut far, &hello(&[])).await;
        let before = *calls.borrow();
        let requests: Vec<u8> = (0..20).flat_map(|n| frame(kind::HEADERS, WHOLE, 2 * n + 1, GET)).collect();
        let frames = answers(&mut far, &requests).await;
        assert_eq!(frames.len(), 40);
        assert_eq!(calls.borrow().writes - before.writes, 1);
        assert_eq!(calls.borrow().reads - before.reads, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_announces_itself_and_refuses_only_after_its_second_step() {
    local(async {
        let (near, mut far) = pair();
        let served = serve(near, ServerOptions::default(), |mut exchange| async move {
            if head_of(&mut exchange).await.1.is_end() {
                exchange.send_head(&ok(), EndStream::Yes);
            } else {
                let _ = body_end(&mut exchange).await;
                exchange.send_head(&ok(), EndStream::Yes);
            }
        });
        let mut bytes = hello(&[]);
        bytes.extend(frame(kind::HEADERS, OPEN, 1, POST));
        answers(&mut far, &bytes).await;

        served.conn.borrow_mut().announce_goaway();
        served.conn.borrow_mut().announce_goaway();
        let frames = answers(&mut far, &frame(kind::HEADERS, WHOLE, 3, GET)).await;
        assert_eq!(
            (frames[0].0, &frames[0].3[..]),
            (kind::GOAWAY, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0][..])
        );
        assert_eq!((frames[1].0, frames[1].2), (kind::HEADERS, 3));
        assert_eq!(served.seer.count(Event::GoawaySent), 0);

        served.conn.borrow_mut().final_goaway();
        let frames = answers(&mut far, &frame(kind::HEADERS, WHOLE, 5, GET)).await;
        assert_eq!((frames[0].0, &frames[0].3[..]), (kind::GOAWAY, &[0, 0, 0, 3, 0, 0, 0, 0][..]));
        assert_eq!(reset_code(&frames[1]), (5, 7));
        assert_eq!((served.seer.count(Event::GoawaySent), served.conn.borrow().streams()), (1, 1));

        // The stream under way finishes.
        let frames = answers(&mut far, &frame(kind::DATA, 1, 1, b"x")).await;
        assert_eq!((frames[0].0, frames[0].2), (kind::HEADERS, 1));
        assert_eq!(served.conn.borrow().streams(), 0);
        poll_fn(|cx| served.conn.borrow_mut().poll_shutdown(cx)).await.unwrap();
        assert_eq!(far.read_some().await, "");
    })
    .await;
}

async fn body_end(exchange: &mut ServerExchange) -> Result<(), StreamError> {
    loop {
        match poll_fn(|cx| exchange.poll_body(cx)).await? {
            BodyFrame::Data(_, EndStream::No) => {}
            _ => return Ok(()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn floods_end_the_connection() {
    let cases = [
        (frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), 102, Flood::Priority),
        (frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), 10, Flood::WindowUpdate),
        (frame(kind::DATA, 0, 1, &[]), 2, Flood::EmptyFrames),
    ];
    for (one, count, flood) in cases {
        local(async {
            let (near, mut far) = pair();
            let served = serve(near, ServerOptions::default(), echo);
            let mut bytes = hello(&[]);
            bytes.extend(frame(kind::HEADERS, OPEN, 1, POST));
            answers(&mut far, &bytes).await;
            let frames = answers(&mut far, &one.repeat(count * 2)).await;
            let last = frames.last().unwrap();
            assert_eq!((last.0, last.3[7]), (kind::GOAWAY, 0xb), "{flood:?}");
            assert_eq!(served.seer.count(Event::Flood(flood)), 1);
            let error = served.task.await.unwrap();
            assert!(matches!(error, Some(ConnError::Flood(found)) if found == flood), "{error:?}");
            settle().await;
            assert_eq!(served.conn.borrow().streams(), 0);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_browsers_cancelled_batch_is_served_on_and_rapid_resets_are_not() {
    for (resets, survives) in [(100, true), (3000, false)] {
        local(async {
            let (near, mut far) = pair();
            let served = serve(near, ServerOptions::default(), echo);
            let mut bytes = hello(&[]);
            for n in 0..resets {
                bytes.extend(frame(kind::HEADERS, WHOLE, 2 * n + 1, GET));
                bytes.extend(frame(kind::RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8]));
            }
            bytes.extend(frame(kind::HEADERS, WHOLE, 2 * resets + 1, GET));
            let frames = answers(&mut far, &bytes).await;
            let last = frames.last().unwrap();
            if survives {
                assert_eq!((last.0, last.2), (kind::HEADERS, 2 * resets + 1));
            } else {
                assert_eq!((last.0, last.3[7]), (kind::GOAWAY, 0xb));
            }
            settle().await;
            assert_eq!((served.conn.borrow().streams(), served.task.is_finished()), (0, !survives));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn streams_over_the_limit_are_refused() {
    local(async {
        let (near, mut far) = pair();
        let mut options = ServerOptions::default();
        options.common.max_concurrent_streams = 2;
        let served = serve(near, options, echo);
        let mut bytes = hello(&[]);
        for id in [1, 3, 5] {
            bytes.extend(frame(kind::HEADERS, OPEN, id, POST));
        }
        let frames = answers(&mut far, &bytes).await;
        let refused: Vec<_> = frames.iter().filter(|frame| frame.0 == kind::RST_STREAM).collect();
        assert_eq!(refused.len(), 1);
        assert_eq!(reset_code(refused[0]), (5, 7));
        assert_eq!(served.conn.borrow().streams(), 2);
        // Room again.
        answers(&mut far, &frame(kind::DATA, 1, 1, b"x")).await;
        let frames = answers(&mut far, &frame(kind::HEADERS, WHOLE, 7, GET)).await;
        assert_eq!((frames[0].0, frames[0].2), (kind::HEADERS, 7));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_response_is_an_internal_error_and_an_early_one_no_error() {
    local(async {
        let (near, mut far) = pair();
        let served = serve(near, ServerOptions::default(), |mut exchange| async move {
            let (head, _) = head_of(&mut exchange).await;
            let cut = head.path_str() == "/index.html";
            exchange.send_head(&ok(), EndStream::No);
            exchange.send_data(Bytes::from_static(b"part"), EndStream::from_last(!cut));
            flush_server(&mut exchange).await.unwrap();
            if cut {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let mut bytes = hello(&[]);
        bytes.extend(frame(kind::HEADERS, OPEN, 1, POST));
        let frames = answers(&mut far, &bytes).await;
        let kinds: Vec<_> = frames.iter().map(|frame| frame.0).collect();
        assert_eq!(kinds, [kind::HEADERS, kind::DATA, kind::RST_STREAM]);
        assert_eq!(reset_code(&frames[2]), (1, 0));
        // `/index.html`, END_STREAM.
        let mut cut = GET.to_vec();
        cut[2] = 0x85;
        answers(&mut far, &frame(kind::HEADERS, WHOLE, 3, &cut)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let frames = answers(&mut far, &[]).await;
        assert_eq!(reset_code(&frames[0]), (3, 2));
        assert_eq!(served.seer.count(Event::TxReset), 2);
        assert_eq!(served.seer.count(Event::MessagingError), 0);
        assert_eq!(served.conn.borrow().streams(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_clients_reset_is_told_at_once() {
    local(async {
        let (near, mut far) = pair();
        let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
        let served = serve(near, ServerOptions::default(), move |mut exchange| {
            let told = told.clone();
            async move {
                poll_fn(|cx| exchange.poll_gone(cx)).await;
                let read = poll_fn(|cx| exchange.poll_body(cx)).await;
                told.send(read.unwrap_err()).unwrap();
            }
        });
        let mut bytes = hello(&[]);
        bytes.extend(frame(kind::HEADERS, OPEN, 1, POST));
        answers(&mut far, &bytes).await;
        let frames = answers(&mut far, &frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8])).await;
        assert!(frames.is_empty(), "{frames:?}");
        let error = tells.try_recv().unwrap();
        assert!(matches!(error, StreamError::Reset { code: ResetCode::Cancel, by_peer: true }), "{error:?}");
        assert_eq!((served.seer.count(Event::RxReset), served.conn.borrow().streams()), (1, 0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_the_clients_window() {
    local(async {
        let (near, mut far) = pair();
        let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
        let _served = serve(near, ServerOptions::default(), move |mut exchange| {
            let told = told.clone();
            async move {
                exchange.send_head(&ok(), EndStream::No);
                exchange.send_data(Bytes::from(vec![b'x'; 30]), EndStream::Yes);
                told.send(exchange.buffered()).unwrap();
                flush_server(&mut exchange).await.unwrap();
                told.send(exchange.buffered()).unwrap();
            }
        });
        // A stream's window of 10 bytes.
        let mut bytes = hello(&[0, 4, 0, 0, 0, 10]);
        bytes.extend(frame(kind::HEADERS, WHOLE, 1, GET));
        let frames = answers(&mut far, &bytes).await;
        assert_eq!(frames.last().unwrap().3.len(), 10);
        assert_eq!(tells.try_recv(), Ok(20));
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(tells.try_recv().is_err());
        let frames = answers(&mut far, &frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 20])).await;
        assert_eq!((frames[0].1, frames[0].3.len()), (1, 20));
        assert_eq!(tells.try_recv(), Ok(0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_is_given_up_without_a_word() {
    local(async {
        let (near, mut far) = pair();
        let keepalive = KeepaliveOptions {
            interval_jitter: 0.0,
            ..KeepaliveOptions::new(Some(Duration::from_secs(1)), Duration::from_millis(500))
        };
        let mut options = ServerOptions::default();
        options.common.keepalive = Some(keepalive);
        let served = serve(near, options, echo);
        answers(&mut far, &hello(&[])).await;
        tokio::time::sleep(Duration::from_millis(1010)).await;
        let frames = answers(&mut far, &[]).await;
        assert_eq!((frames.len(), frames[0].0), (1, kind::PING));
        // Answered: the next one comes a second later.
        answers(&mut far, &frame(kind::PING, 1, 0, &frames[0].3)).await;
        tokio::time::sleep(Duration::from_millis(1010)).await;
        assert_eq!(answers(&mut far, &[]).await.len(), 1);
        let error = served.task.await.unwrap();
        assert!(matches!(error, Some(ConnError::KeepaliveTimeout)), "{error:?}");
        assert_eq!(served.seer.count(Event::KeepaliveTimeout), 1);
        assert!(answers(&mut far, &[]).await.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_invalid_message_costs_its_stream_or_the_connection() {
    // One that the library refuses, and one that we do.
    let library = [GET, b"\x00\x0aconnection\x01x"].concat();
    let ours = [&GET[..3], b"\x41\x03a^b"].concat();
    for (tolerant, head) in [(true, &library), (false, &library), (true, &ours), (false, &ours)] {
        local(async {
            let (near, mut far) = pair();
            let mut options = ServerOptions::default();
            options.common.messages.override_stream_error_on_invalid_http_message = tolerant;
            let served = serve(near, options, echo);
            answers(&mut far, &hello(&[])).await;
            let frames = answers(&mut far, &frame(kind::HEADERS, WHOLE, 1, head)).await;
            assert_eq!(reset_code(&frames[0]), (1, 1));
            assert_eq!(served.seer.count(Event::MessagingError), 1);
            assert_eq!(frames.get(1).map(|frame| frame.0), (!tolerant).then_some(kind::GOAWAY));
            assert_eq!(served.task.is_finished(), !tolerant);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn more_resets_than_may_come_end_the_connection_when_all_were_looked_at() {
    for (resets, exceeds) in [(3, false), (5, true)] {
        local(async {
            let (near, mut far) = pair();
            let mut options = ServerOptions::default();
            options.common.floods.stream_reset_burst = 3;
            let served = serve(near, options, echo);
            answers(&mut far, &hello(&[])).await;
            let streams = (0..resets).map(|n| 2 * n + 1);
            let bytes: Vec<u8> = streams
                .flat_map(|id| {
                    [frame(kind::HEADERS, OPEN, id, POST), frame(kind::RST_STREAM, 0, id, &[0, 0, 0, 8])]
                })
                .flatten()
                .collect();
            let frames = answers(&mut far, &bytes).await;
            let goaway = frames.iter().find(|frame| frame.0 == kind::GOAWAY);
            assert_eq!(goaway.map(|frame| frame.3[7]), exceeds.then_some(2));
            assert_eq!(served.seer.count(Event::RxReset), resets as usize);
            assert_eq!(served.task.is_finished(), exceeds);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_field_may_be_as_long_as_configured() {
    for (kb, len, taken) in [(64, 65_536, true), (64, 65_537, false), (66, 65_537, true)] {
        local(async {
            let (near, mut far) = pair();
            let mut options = ServerOptions::default();
            options.common.messages.max_head_bytes = 200 * 1024;
            options.common.max_header_field_bytes = kb * 1024;
            let _served = serve(near, options, echo);
            let mut bytes = hello(&[]);
            let mut block = [GET, &b"\x00\x01x"[..]].concat();
            let mut length = bytes::BytesMut::new();
            crate::hpack::integer::encode(&mut length, 0, 7, len);
            block.extend_from_slice(&length);
            block.extend(std::iter::repeat_n(b'y', len));
            let mut parts = block.chunks(16_384).peekable();
            bytes.extend(frame(kind::HEADERS, 1, 1, parts.next().unwrap()));
            while let Some(part) = parts.next() {
                let flags = if parts.peek().is_none() { 4 } else { 0 };
                bytes.extend(frame(kind::CONTINUATION, flags, 1, part));
            }
            let frames = answers(&mut far, &bytes).await;
            let expected = if taken { (kind::HEADERS, 1) } else { (kind::GOAWAY, 0) };
            assert_eq!((frames[0].0, frames[0].2), expected, "{kb} {len}");
            // COMPRESSION_ERROR.
            assert!(taken || frames[0].3[7] == 9);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn frames_may_be_as_long_as_a_custom_setting_says() {
    for (said, taken) in [(None, false), (Some(20_000), true)] {
        local(async {
            let (near, mut far) = pair();
            let mut options = ServerOptions::default();
            options.common.custom_settings = said.map(|bytes| (5, bytes)).into_iter().collect();
            let _served = serve(near, options, echo);
            let mut bytes = hello(&[]);
            bytes.extend(frame(kind::HEADERS, OPEN, 1, POST));
            bytes.extend(frame(kind::DATA, 1, 1, &[b'x'; 18_000]));
            let frames = answers(&mut far, &bytes).await;
            // FRAME_SIZE_ERROR.
            let refused = frames.iter().any(|frame| frame.0 == kind::GOAWAY && frame.3[7] == 6);
            assert_eq!(refused, !taken);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_over_a_limit_costs_its_stream_and_is_not_answered() {
    local(async {
        let (near, mut far) = pair();
        let served = serve(near, ServerOptions::default(), echo);
        let mut bytes = hello(&[]);
        let head = [GET, &b"\x00\x01x\x01y".repeat(101)].concat();
        bytes.extend(frame(kind::HEADERS, WHOLE, 1, &head));
        bytes.extend(frame(kind::HEADERS, WHOLE, 3, GET));
        let frames = answers(&mut far, &bytes).await;
        assert_eq!(reset_code(&frames[0]), (1, 2));
        assert_eq!((frames[1].0, frames[1].2), (kind::HEADERS, 3));
        assert_eq!((served.seer.count(Event::HeaderOverflow), served.conn.borrow().streams()), (1, 0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_costs_its_stream_alone() {
    local(async {
        let (near, mut far) = pair();
        let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
        let served = serve(near, ServerOptions::default(), move |mut exchange| {
            let told = told.clone();
            async move { told.send(body_end(&mut exchange).await).unwrap() }
        });
        let mut bytes = hello(&[]);
        let head = [POST, b"\x00\x0econtent-length\x015"].concat();
        bytes.extend(frame(kind::HEADERS, OPEN, 1, &head));
        bytes.extend(frame(kind::DATA, 1, 1, b"abc"));
        let frames = answers(&mut far, &bytes).await;
        assert_eq!((frames.len(), reset_code(&frames[0])), (1, (1, 1)));
        let told = tells.try_recv().unwrap();
        assert!(matches!(told, Err(StreamError::Protocol { .. })), "{told:?}");
        assert_eq!(served.seer.count(Event::MessagingError), 0);
        assert!(!served.task.is_finished());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn reading_the_body_says_100_and_informational_heads_pass() {
    local(async {
        let (near, far) = pair();
        let _served = serve(near, ServerOptions::default(), |mut exchange| async move {
            assert!(exchange.expects_continue());
            assert!(!head_of(&mut exchange).await.0.headers.contains_key("expect"));
            body_end(&mut exchange).await.unwrap();
            let mut hints = ResponseHead::new(http::StatusCode::EARLY_HINTS);
            hints.headers.insert("link", HeaderValue::from_static("x"));
            exchange.send_informational(&hints);
            exchange.send_head(&ok(), EndStream::Yes);
        });
        let mut requests = library(far).await;
        let request = Request::post("http://a/").header("expect", "100-continue").body(()).unwrap();
        let (mut response, mut body) = requests.send_request(request, false).unwrap();
        let first = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(first.status(), 100);
        body.send_data(Bytes::from_static(b"x"), true).unwrap();
        let second = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((second.status().as_u16(), second.headers()["link"].as_bytes()), (103, &b"x"[..]));
        assert_eq!(response.await.unwrap().status(), 200);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_announces_the_close_wakes_the_connection() {
    local(async {
        let (near, mut far) = pair();
        let served = serve(near, ServerOptions::default(), |mut exchange| async move {
            exchange.announce_close();
            exchange.send_head(&ok(), EndStream::Yes);
        });
        let mut bytes = hello(&[]);
        bytes.extend(frame(kind::HEADERS, WHOLE, 1, GET));
        let frames = answers(&mut far, &bytes).await;
        let kinds: Vec<_> = frames.iter().map(|frame| frame.0).collect();
        assert_eq!(kinds, [kind::GOAWAY, kind::HEADERS]);
        assert!(served.conn.borrow().is_close_announced());
        served.conn.borrow_mut().announce_goaway();
        assert!(answers(&mut far, &[]).await.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_connection_ends_its_exchanges() {
    for rst in [false, true] {
        local(async {
            let (near, mut far) = pair_over(Link { max_read: 7, ..Link::default() });
            let served = serve(near, ServerOptions::default(), |mut exchange| async move {
                let read = body_end(&mut exchange).await;
                assert!(matches!(read, Err(StreamError::Closed | StreamError::Io(_))), "{read:?}");
                assert!(exchange.poll_gone(&mut Context::from_waker(std::task::Waker::noop())).is_ready());
            });
            let mut bytes = hello(&[]);
            bytes.extend(frame(kind::HEADERS, OPEN, 1, POST));
            answers(&mut far, &bytes).await;
            if rst {
                far.abort_on_drop();
            }
            drop(far);
            let error = served.task.await.unwrap();
            assert_eq!(error.is_some(), rst, "{error:?}");
            settle().await;
            assert_eq!(served.conn.borrow().streams(), 0);
            assert_eq!(Rc::strong_count(&served.conn), 1);
        })
        .await;
    }
}

mod content;
