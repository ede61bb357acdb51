//! Both ends under bad conditions: stalled sockets, bytes at random, everything dropped at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tidegate_net::Io;
use tidegate_testkit::io::{Link, MemIo, pair, pair_over};
use tidegate_types::EndStream;
use tokio::task::spawn_local;

use super::frames::{self, FrameHead, kind};
use super::options::{Options, ServerOptions};
use super::testing::*;
use super::{ClientExchange, ServerExchange};
use crate::multiplex::{ClientConnection, ConnError, Event, Flood, ServerConnection};
use crate::stream::{BodyFrame, ClientStream, ServerStream};

/// What the output takes of bodies.
const FULL: usize = 128 * 1024;

/// Sends without end, flushing after each part; `taken` says how much was.
async fn pour(mut exchange: ServerExchange, taken: Rc<Cell<usize>>) {
    exchange.send_head(&ok(), EndStream::No);
    loop {
        exchange.send_data(Bytes::from(vec![b'x'; 10_000]), EndStream::No);
        if flush_server(&mut exchange).await.is_err() {
            return;
        }
        taken.set(taken.get() + 10_000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_socket_bounds_what_a_stream_holds() {
    local(async {
        let link = Link { window: 50_000, ..Link::default() };
        let (near, mut far) = pair_over(link);
        let taken = Rc::new(Cell::new(0));
        let counted = Rc::clone(&taken);
        let served =
            serve(near, ServerOptions::default(), move |exchange| pour(exchange, Rc::clone(&counted)));
        // Windows of 1 GiB for streams and connection.
        let mut bytes = hello(&[0, 4, 0x40, 0, 0, 0]);
        bytes.extend(frame(kind::WINDOW_UPDATE, 0, 0, &[0x3f, 0, 0, 0]));
        bytes.extend(frame(kind::HEADERS, WHOLE, 1, GET));
        far.write_all(&bytes).await;
        settle().await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let stalled_at = taken.get();
        assert!(stalled_at > 0 && stalled_at <= 2 * FULL + 50_000, "{stalled_at}");
        // The client takes a little: as much more is poured.
        far.read_exact(40_000).await;
        settle().await;
        assert!(taken.get() > stalled_at && taken.get() <= stalled_at + 60_000);
        drop(far);
        settle().await;
        assert_eq!(served.conn.borrow().streams(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_answers_is_given_up() {
    local(async {
        for (link, one, flood) in [
            // The socket is stalled.
            (
                Link { window: 5_000, ..Link::default() },
                frame(kind::PING, 0, 0, &[7; 8]),
                Flood::OutboundControl,
            ),
            // More in one read than may wait.
            (Link::default(), frame(kind::SETTINGS, 0, 0, &[]), Flood::OutboundControl),
        ] {
            let (near, mut far) = pair_over(link);
            let served = serve(near, ServerOptions::default(), echo);
            far.write_all(&hello(&[])).await;
            settle().await;
            far.read_available();
            let all = one.repeat(2500);
            let mut rest = &all[..];
            while !rest.is_empty() && !served.task.is_finished() {
                let sent = poll_fn(|cx| Poll::Ready(far.poll_write(cx, &[IoSlice::new(rest)]))).await;
                if let Poll::Ready(sent) = sent {
                    let Ok(sent) = sent else { break };
                    rest = &rest[sent..];
                }
                settle().await;
            }
            let error = served.task.await.unwrap();
            assert!(matches!(error, Some(ConnError::Flood(found)) if found == flood), "{error:?}");
            assert_eq!(served.seer.count(Event::Flood(flood)), 1);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_taken_are_no_flood() {
    local(async {
        let (near, mut far) = pair();
        let served = serve(near, ServerOptions::default(), echo);
        far.write_all(&hello(&[])).await;
        settle().await;
        far.read_available();
        for _ in 0..20 {
            far.write_all(&frame(kind::PING, 0, 0, &[7; 8]).repeat(900)).await;
            settle().await;
            assert_eq!(frames_of(&far.read_available()).len(), 900);
        }
        assert!(!served.task.is_finished());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn frames_are_whole_however_the_socket_stalls() {
    local(async {
        for max_write in [1_000, 7_777, usize::MAX] {
            let link = Link { window: 50_000, max_write, ..Link::default() };
            let (near, mut far) = pair_over(link);
            let served =
                serve(near, ServerOptions::default(), |exchange| pour(exchange, Rc::new(Cell::new(0))));
            let mut bytes = hello(&[0, 4, 0x40, 0, 0, 0]);
            bytes.extend(frame(kind::WINDOW_UPDATE, 0, 0, &[0x3f, 0, 0, 0]));
            bytes.extend(frame(kind::HEADERS, WHOLE, 1, GET));
            far.write_all(&bytes).await;
            settle().await;
            // The socket is stalled in the middle of a DATA frame.
            served.conn.borrow_mut().announce_goaway();
            let sent = far.read_exact(500_000).await;
            let (mut goaways, mut rest) = (0, &sent[..]);
            while let Some(head) = FrameHead::parse(rest) {
                let known = [kind::DATA, kind::HEADERS, kind::SETTINGS, kind::GOAWAY, kind::WINDOW_UPDATE];
                assert!(known.contains(&head.kind) && head.len <= 16_384, "{head:?}");
                if head.kind == kind::GOAWAY {
                    assert_eq!(rest[..17], frames::goaway(frames::ANNOUNCE, 0));
                    goaways += 1;
                }
                rest = rest.get(9 + head.len..).unwrap_or_default();
            }
            assert_eq!(goaways, 1);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_connection_ends_its_exchanges() {
    local(async {
        let (near, far) = pair();
        let served = serve(far, ServerOptions::default(), echo);
        let called = call(near, Options::default());
        let mut exchange = called.conn.open();
        exchange.send_head(&post("/"), EndStream::No);
        settle().await;
        assert_eq!(served.conn.borrow().streams(), 1);
        served.task.abort();
        served.conn.borrow_mut().close_now(Some(crate::ResetCode::NoError));
        settle().await;
        assert_eq!(served.conn.borrow().streams(), 0);
        poll_fn(|cx| served.conn.borrow_mut().poll_shutdown(cx)).await.unwrap();
        final_head(&mut exchange).await.unwrap();
        assert!(body_of(&mut exchange).await.is_err());
        assert_eq!(served.seer.count(Event::GoawaySent), 1);
    })
    .await;
}

/// One echo, given up by the client after `patience` polls.
async fn impatient(mut exchange: ClientExchange, size: usize, patience: usize) -> usize {
    exchange.send_head(&post("/"), EndStream::No);
    exchange.send_data(Bytes::from(vec![b'x'; size]), EndStream::Yes);
    let mut polls = 0;
    let mut got = 0;
    let mut headed = false;
    poll_fn(|cx| {
        polls += 1;
        if polls > patience {
            return Poll::Ready(());
        }
        let _ = exchange.poll_flush(cx);
        while !headed {
            match exchange.poll_head(cx) {
                Poll::Ready(Ok(_)) => headed = true,
                Poll::Ready(Err(error)) => panic!("{error:?}"),
                Poll::Pending => return Poll::Pending,
            }
        }
        loop {
            match exchange.poll_body(cx) {
                Poll::Ready(Ok(BodyFrame::Data(data, end))) => {
                    got += data.len();
                    if end.is_end() {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(other) => panic!("{other:?}"),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    got
}

#[tokio::test(start_paused = true)]
async fn cancelled_streams_leak_neither_windows_nor_streams() {
    for seed in 0..8 {
        local(async {
            let mut random = fastrand::Rng::with_seed(seed);
            let small = Options {
                initial_stream_window_size: 65_535,
                initial_connection_window_size: 65_535,
                max_concurrent_streams: 10,
                ..Options::default()
            };
            let link = Link {
                latency: Duration::from_millis(random.u64(0..3)),
                window: random.usize(5_000..100_000),
                max_read: random.usize(100..40_000),
                ..Link::default()
            };
            let (near, far) = pair_over(link);
            let served =
                serve(far, ServerOptions { common: small.clone(), ..ServerOptions::default() }, echo);
            let called = call(near, small);
            tokio::time::sleep(Duration::from_millis(20)).await;
            for _ in 0..15 {
                let tasks: Vec<_> = (0..10)
                    .map(|_| {
                        let exchange = called.conn.open();
                        spawn_local(impatient(exchange, random.usize(0..100_000), random.usize(1..30)))
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
            }
            let whole = impatient(called.conn.open(), 700_000, usize::MAX);
            let whole = tokio::time::timeout(Duration::from_secs(600), whole).await;
            assert_eq!(whole.ok(), Some(700_000), "seed {seed}");
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!((called.conn.streams(), served.conn.borrow().streams()), (0, 0), "seed {seed}");
            let cancelled = called.seer.count(Event::TxReset);
            assert!(cancelled > 5, "seed {seed}: {cancelled} cancelled");
        })
        .await;
    }
}

/// Frames that make sense, to be spoilt.
fn plausible(server: bool) -> Vec<u8> {
    let mut bytes = if server { hello(&[0, 4, 0, 1, 0, 0]) } else { frame(kind::SETTINGS, 0, 0, &[]) };
    let head = if server { POST } else { STATUS_200 };
    for id in [1, 3, 5] {
        bytes.extend(frame(kind::HEADERS, OPEN, id, head));
        bytes.extend(frame(kind::DATA, 0, id, b"some data"));
    }
    bytes.extend(frame(kind::PING, 0, 0, &[7; 8]));
    bytes.extend(frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]));
    bytes.extend(frame(kind::DATA, 1, 1, b"end"));
    bytes.extend(frame(kind::HEADERS, WHOLE, 3, &[0, 1, b't', 1, b'v']));
    bytes.extend(frame(kind::RST_STREAM, 0, 5, &[0, 0, 0, 8]));
    bytes.extend(frames::goaway(5, 0));
    bytes
}

/// Writes in parts of random size, to a peer that may have given up.
async fn feed(far: &mut MemIo, bytes: &[u8], random: &mut fastrand::Rng) {
    let size = random.usize(1..200);
    for part in bytes.chunks(size) {
        let mut rest = part;
        while !rest.is_empty() {
            let slices = [IoSlice::new(rest)];
            match poll_fn(|cx| far.poll_write(cx, &slices)).await {
                Ok(written) => rest = rest.split_at(written).1,
                Err(_) => return,
            }
        }
        tokio::task::yield_now().await;
    }
    settle().await;
    far.read_available();
}

#[tokio::test(start_paused = true)]
async fn spoilt_frames_cost_at_most_the_connection() {
    let mut random = fastrand::Rng::with_seed(4);
    for round in 0..400 {
        let server = round % 2 == 0;
        let mut bytes = plausible(server);
        for _ in 0..random.usize(0..4) {
            let at = random.usize(if server { 24 } else { 0 }..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(bytes.len() / 2..=bytes.len()));
        local(async {
            let (near, mut far) = pair();
            if server {
                let served = serve(near, ServerOptions::default(), echo);
                feed(&mut far, &bytes, &mut random).await;
                drop(far);
                settle().await;
                assert!(served.task.is_finished());
                assert_eq!(served.conn.borrow().streams(), 0);
            } else {
                let called = call(near, Options::default());
                for _ in 0..3 {
                    let mut exchange = called.conn.open();
                    exchange.send_head(&get("/"), EndStream::Yes);
                    spawn_local(async move {
                        if final_head(&mut exchange).await.is_ok() {
                            let _ = body_of(&mut exchange).await;
                        }
                    });
                }
                settle().await;
                feed(&mut far, &bytes, &mut random).await;
                drop(far);
                settle().await;
                assert!(called.task.is_finished());
                assert_eq!(called.conn.streams(), 0);
            }
        })
        .await;
    }
}
