//! The server's end, against a script.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tidegate_quic::{EarlyData, Event as QuicEvent, Side as QuicSide};
use tidegate_types::{EndStream, RequestHead, ResponseHead};

use super::*;
use crate::fields::MessageOptions;
use crate::h3::options::Options;
use crate::h3::testing::*;
use crate::stream::{BodyFrame, ClientEnd, ServerStream, StreamError};

fn ok() -> ResponseHead {
    ResponseHead::new(StatusCode::OK)
}

/// A server with one request under way, whose head was taken.
fn asked(head: &RequestHead, ends: bool) -> (Script, ServerConn, std::rc::Rc<Seer>, ServerExchange) {
    let (script, mut conn, seer) = Script::server(ServerOptions::default());
    if ends {
        script.send_all(request_id(0), request(head))
    } else {
        script.send(request_id(0), request(head))
    }
    let (mut exchanges, ended) = accept_all(&mut conn);
    assert!(ended.is_none());
    let mut exchange = exchanges.pop().unwrap();
    let (_, end) = now(|cx| exchange.poll_head(cx)).unwrap().unwrap();
    assert_eq!(end.is_end(), ends);
    (script, conn, seer, exchange)
}

#[test]
fn a_head_in_pieces_and_a_response_in_one_write() {
    let (script, mut conn, seer) = Script::server(ServerOptions::default());
    let mut exchanges = Vec::new();
    for byte in request(&get()) {
        script.send(request_id(0), [byte]);
        let (more, _) = accept_all(&mut conn);
        exchanges.extend(more);
    }
    assert_eq!((exchanges.len(), conn.streams()), (1, 1));
    let mut exchange = exchanges.pop().unwrap();
    let (head, end) = now(|cx| exchange.poll_head(cx)).unwrap().unwrap();
    assert_eq!((&head.path[..], &head.authority[..], end), (&b"/"[..], &b"host"[..], EndStream::No));
    script.send_all(request_id(0), b"");
    let _ = accept_all(&mut conn);
    let (rest, end) = data(now(|cx| exchange.poll_body(cx)).unwrap().unwrap());
    assert!(rest.is_empty() && end.is_end() && exchange.is_request_complete());
    exchange.send_head(&ok(), EndStream::No);
    exchange.send_data(Bytes::from_static(b"hello"), EndStream::Yes);
    assert_eq!(exchange.buffered(), 5 + 8);
    assert!(now(|cx| exchange.poll_flush(cx)).is_none());
    assert!(script.said(request_id(0)).0.is_empty());
    let _ = accept_all(&mut conn);
    assert!(now(|cx| exchange.poll_flush(cx)).unwrap().is_ok());
    let (said, finished) = script.said(request_id(0));
    assert!(finished);
    assert_eq!(frames_of(&said), [(1, vec![0, 0, 0xd9]), (0, b"hello".to_vec())]);
    drop(exchange);
    assert_eq!((conn.streams(), script.given_up(request_id(0))), (0, (None, None)));
    assert_eq!((seer.count(Event::StreamOpened), seer.count(Event::StreamClosed)), (1, 1));
    // Our settings went.
    let (control, _) = script.said(uni_id(QuicSide::Server, 0));
    assert_eq!(&control[..], b"\x00\x04\x0d\x01\x80\x01\x00\x00\x06\x80\x00\xf0\x00\x07\x40\x64");
}

#[test]
fn a_body_is_read_as_it_is_taken() {
    let (script, mut conn, _, mut exchange) = asked(&get(), false);
    script.send(request_id(0), frame(0, vec![1; 100_000]));
    script.send_all(request_id(0), frame(0, vec![2; 50]));
    let _ = accept_all(&mut conn);
    assert_eq!(script.unread(request_id(0)), 100_000 + 5 + 50 + 2, "nothing is read before it is asked for");
    let (first, end) = data(now(|cx| exchange.poll_body(cx)).unwrap().unwrap());
    assert!(first.len() > 60_000 && !end.is_end());
    assert!(script.unread(request_id(0)) > 30_000);
    let mut all = first.len();
    loop {
        let (part, end) = data(now(|cx| exchange.poll_body(cx)).unwrap().unwrap());
        all += part.len();
        if end.is_end() {
            assert_eq!(part[0], 2, "the end comes with the last part");
            break;
        }
    }
    assert_eq!(all, 100_050);
}

#[test]
fn what_does_not_fit_is_written_later() {
    let (script, mut conn, _, mut exchange) = asked(&get(), true);
    script.set_window(1000);
    exchange.send_head(&ok(), EndStream::No);
    exchange.send_data(Bytes::from(vec![9; 5000]), EndStream::No);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    exchange.send_trailers(&trailers);
    let mut said = Vec::new();
    for _ in 0..10 {
        let _ = accept_all(&mut conn);
        said.extend_from_slice(&script.said(request_id(0)).0);
        if now(|cx| exchange.poll_flush(cx)).is_some() {
            break;
        }
        assert!(!script.said(request_id(0)).1);
        script.unblock(1000);
    }
    assert!(script.said(request_id(0)).1 && exchange.buffered() == 0);
    let frames = frames_of(&said);
    assert_eq!((frames.len(), frames[1].1.len(), frames[2].0), (3, 5000, 1));
}

#[test]
fn a_complete_response_goes_out_without_its_exchange() {
    let (script, mut conn, _, mut exchange) = asked(&get(), false);
    script.set_window(10);
    exchange.send_head(&ok(), EndStream::No);
    exchange.send_data(Bytes::from(vec![9; 20]), EndStream::Yes);
    exchange.reset();
    drop(exchange);
    assert_eq!(conn.streams(), 0);
    for _ in 0..5 {
        let _ = accept_all(&mut conn);
        script.unblock(10);
    }
    let (said, finished) = script.said(request_id(0));
    assert!(finished && frames_of(&said).len() == 2);
    // The rest of the request is not needed.
    assert_eq!(script.given_up(request_id(0)), (Some(0x100), None));
}

#[test]
fn a_cut_response_is_visible() {
    for (begun, code) in [(false, 0x102), (true, 0x10b)] {
        let (script, mut conn, seer, mut exchange) = asked(&get(), true);
        if begun {
            exchange.send_head(&ok(), EndStream::No);
            let _ = accept_all(&mut conn);
        }
        exchange.reset();
        assert_eq!(script.given_up(request_id(0)), (None, Some(code)));
        assert_eq!(seer.count(Event::TxReset), 1);
    }
    let (script, _conn, _, mut exchange) = asked(&get(), false);
    exchange.reset_with(ResetCode::Connect);
    assert_eq!(script.given_up(request_id(0)), (Some(0x10f), Some(0x10f)));
    let (script, _conn, _, exchange) = asked(&get(), false);
    drop(exchange);
    assert_eq!(script.given_up(request_id(0)), (Some(0x102), Some(0x102)));
}

#[test]
fn a_client_that_gives_up_is_noticed_without_reading() {
    for stop in [false, true] {
        for (code, end) in [
            (0x10c, ClientEnd::Reset(ResetCode::NoError)),
            (0x102, ClientEnd::Malformed { details: "-", is_violation: true }),
            (0x1234, ClientEnd::Reset(ResetCode::NoError)),
        ] {
            let (script, mut conn, _, mut exchange) = asked(&get(), false);
            assert!(now(|cx| exchange.poll_gone(cx)).is_none());
            if stop {
                script.stop(request_id(0), code)
            } else {
                script.reset(request_id(0), code)
            }
            let _ = accept_all(&mut conn);
            assert!(now(|cx| exchange.poll_gone(cx)).is_some());
            assert_eq!(exchange.ended_by_client(), Some(end));
            exchange.send_head(&ok(), EndStream::Yes);
            assert!(now(|cx| exchange.poll_body(cx)).unwrap().is_err());
            drop(exchange);
            let _ = accept_all(&mut conn);
            assert!(script.said(request_id(0)).0.is_empty());
        }
    }
    // Also when head and reset come at once.
    let (script, mut conn, _) = Script::server(ServerOptions::default());
    script.send(request_id(0), request(&get()));
    script.reset_behind(request_id(0), 0x10c);
    let (mut exchanges, _) = accept_all(&mut conn);
    assert!(now(|cx| exchanges[0].poll_gone(cx)).is_some());
    // Who has its response may stop listening.
    let (script, mut conn, seer, mut exchange) = asked(&get(), true);
    exchange.send_head(&ok(), EndStream::Yes);
    let _ = accept_all(&mut conn);
    script.stop(request_id(0), 0x10c);
    let _ = accept_all(&mut conn);
    assert!(now(|cx| exchange.poll_gone(cx)).is_none());
    assert_eq!(seer.count(Event::RxReset), 0);
    // A head that never came to its end is no request.
    let (script, mut conn, _) = Script::server(ServerOptions::default());
    script.send(request_id(0), &request(&get())[..5]);
    let (mut exchanges, _) = accept_all(&mut conn);
    assert!(now(|cx| exchanges[0].poll_head(cx)).is_none());
    script.reset(request_id(0), 0x10c);
    let _ = accept_all(&mut conn);
    assert!(matches!(
        now(|cx| exchanges[0].poll_head(cx)),
        Some(Err(crate::HeadError::Gone { partial: true }))
    ));
}

#[test]
fn streams_appear_with_their_first_byte() {
    let (script, mut conn, _) = Script::server(ServerOptions::default());
    script.send(request_id(0), b"");
    let (exchanges, _) = accept_all(&mut conn);
    assert_eq!((exchanges.len(), conn.streams()), (0, 0));
    script.reset(request_id(0), 0x10c);
    let (exchanges, ended) = accept_all(&mut conn);
    assert!(exchanges.is_empty() && ended.is_none());
}

#[test]
fn expect_continue_is_answered_and_informational_heads_pass() {
    let mut head = get();
    head.method = Method::POST;
    head.headers.insert("expect", HeaderValue::from_static("100-continue"));
    let (script, mut conn, _, mut exchange) = asked(&head, false);
    assert!(exchange.expects_continue());
    assert!(now(|cx| exchange.poll_body(cx)).is_none());
    assert!(!exchange.expects_continue());
    exchange.send_informational(&ResponseHead::new(StatusCode::from_u16(103).unwrap()));
    exchange.send_head(&ok(), EndStream::Yes);
    exchange.send_informational(&ResponseHead::new(StatusCode::CONTINUE));
    let _ = accept_all(&mut conn);
    let frames = frames_of(&script.said(request_id(0)).0);
    assert_eq!(frames, [(1, vec![0, 0, 0xff, 0]), (1, vec![0, 0, 0xd8]), (1, vec![0, 0, 0xd9])]);
}

#[test]
fn responses_without_a_body_have_none() {
    let mut head = get();
    head.method = Method::HEAD;
    let (script, mut conn, _, mut exchange) = asked(&head, true);
    exchange.send_head(&ok(), EndStream::No);
    exchange.send_data(Bytes::from_static(b"hello"), EndStream::Yes);
    let _ = accept_all(&mut conn);
    let (said, finished) = script.said(request_id(0));
    assert!(finished);
    assert_eq!(frames_of(&said).len(), 1);
}

#[test]
fn tunnels_are_asked_for_by_extended_connect() {
    let options = ServerOptions {
        common: Options::from(MessageOptions { allow_connect: true, ..MessageOptions::default() }),
        ..ServerOptions::default()
    };
    let (script, mut conn, _) = Script::server(options);
    let mut head = get();
    head.upgrade = Some(Bytes::from_static(b"websocket"));
    script.send(request_id(0), request(&head));
    let (mut exchanges, _) = accept_all(&mut conn);
    let exchange = &mut exchanges[0];
    let (head, end) = now(|cx| exchange.poll_head(cx)).unwrap().unwrap();
    assert_eq!(
        (head.method, head.upgrade.as_deref(), end),
        (Method::GET, Some(&b"websocket"[..]), EndStream::No)
    );
    exchange.send_head(&ResponseHead::new(StatusCode::SWITCHING_PROTOCOLS), EndStream::No);
    exchange.send_data(Bytes::from_static(b"down"), EndStream::No);
    script.send(request_id(0), frame(0, b"up"));
    let _ = accept_all(&mut conn);
    assert_eq!(frames_of(&script.said(request_id(0)).0), [(1, vec![0, 0, 0xd9]), (0, b"down".to_vec())]);
    assert_eq!(&data(now(|cx| exchange.poll_body(cx)).unwrap().unwrap()).0[..], b"up");
    let (control, _) = script.said(uni_id(QuicSide::Server, 0));
    assert!(control.ends_with(b"\x08\x01"));
}

#[test]
fn a_drain_is_announced_and_later_streams_are_refused() {
    let (script, mut conn, seer, mut exchange) = asked(&get(), true);
    let _ = script.said(uni_id(QuicSide::Server, 0));
    assert!(!conn.is_draining() && !conn.is_close_announced());
    exchange.announce_close();
    assert!(conn.is_close_announced());
    conn.announce_goaway();
    script.send_all(request_id(1), request(&get()));
    let (served, _) = accept_all(&mut conn);
    assert_eq!(served.len(), 1);
    let (control, _) = script.said(uni_id(QuicSide::Server, 0));
    assert_eq!(frames_of(&control), [(7, b"\xc0\0\0\0\xff\xff\xff\xfc".to_vec())]);
    conn.final_goaway();
    conn.final_goaway();
    script.send_all(request_id(2), request(&get()));
    let (refused, _) = accept_all(&mut conn);
    assert!(refused.is_empty());
    assert_eq!(frames_of(&script.said(uni_id(QuicSide::Server, 0)).0), [(7, vec![8])]);
    assert_eq!(script.given_up(request_id(2)), (Some(0x10b), Some(0x10b)));
    assert_eq!((seer.count(Event::GoawaySent), seer.count(Event::TxRefused)), (1, 1));
    exchange.send_head(&ok(), EndStream::Yes);
    drop((exchange, served));
    let _ = accept_all(&mut conn);
    // What was sent is delivered before the connection closes.
    conn.before_close(CloseReason::IdleTimeout);
    conn.explain_close("triggered_delayed_close_timeout");
    assert!(now(|cx| conn.poll_shutdown(cx)).is_none());
    script.push(QuicEvent::Finished(request_id(0)));
    assert!(now(|cx| conn.poll_shutdown(cx)).is_some());
    let reason = "0:Closed by application with reason: triggered_delayed_close_timeout";
    assert_eq!(script.closed(), Some((None, reason.to_owned())));
    assert!(now(|cx| conn.poll_discard(cx)).is_some());
}

#[test]
fn the_end_of_the_connection_is_told() {
    let (script, mut conn, _, mut exchange) = asked(&get(), false);
    script.close_by_peer();
    let (_, ended) = accept_all(&mut conn);
    assert!(matches!(ended, Some(None)) && conn.is_closed_by_peer());
    assert!(matches!(now(|cx| exchange.poll_body(cx)), Some(Err(StreamError::Closed))));
    let (script, mut conn, _, mut exchange) = asked(&get(), false);
    conn.close_now(Some(ResetCode::EnhanceYourCalm));
    assert!(now(|cx| exchange.poll_gone(cx)).is_some());
    assert_eq!(script.closed().unwrap().0, Some(0x107));
    let (script, conn, _, exchange) = asked(&get(), false);
    drop(conn);
    drop(exchange);
    assert_eq!(script.closed(), Some((None, "0:Closed by application".to_owned())));
}

#[test]
fn early_requests_are_marked_until_the_handshake_is_over() {
    let (script, mut conn, _) = Script::server(ServerOptions::default());
    script.forget_events();
    script.set_early(EarlyData::Offered);
    script.send_all(request_id(0), request(&get()));
    let (mut exchanges, _) = accept_all(&mut conn);
    let exchange = &mut exchanges[0];
    assert!(conn.is_opening() && exchange.is_early());
    assert!(now(|cx| exchange.poll_confirmed(cx)).is_none());
    script.push(QuicEvent::Connected);
    let _ = accept_all(&mut conn);
    assert!(now(|cx| exchange.poll_confirmed(cx)).is_some());
    assert!(!conn.is_opening() && !exchange.is_early());
    let (_, _, _, exchange) = asked(&get(), true);
    assert!(!exchange.is_early());
}

#[tokio::test(start_paused = true)]
async fn rapid_resets_end_the_connection() {
    let (script, mut conn, seer) = Script::server(ServerOptions::default());
    for index in 0..250 {
        script.send(request_id(index), request(&get()));
        script.reset(request_id(index), 0x10c);
        let (_, ended) = accept_all(&mut conn);
        assert_eq!(ended.is_some(), index == 249, "{index}");
    }
    assert_eq!(seer.count(Event::Flood(crate::multiplex::Flood::PrematureResets)), 1);
    assert_eq!(script.closed().unwrap().0, Some(0x107));
}

#[test]
fn places_are_given_back() {
    let (script, mut conn, _) = Script::server(ServerOptions::default());
    for index in 0..50 {
        script.send_all(request_id(index), request(&get()));
    }
    let (mut exchanges, _) = accept_all(&mut conn);
    assert_eq!((exchanges.len(), conn.streams()), (50, 50));
    for exchange in &mut exchanges {
        exchange.send_head(&ok(), EndStream::Yes);
    }
    exchanges.clear();
    let _ = accept_all(&mut conn);
    assert_eq!(conn.streams(), 0);
    conn.release_places();
    script.send_all(request_id(50), request(&get()));
    let (mut exchanges, _) = accept_all(&mut conn);
    assert!(matches!(now(|cx| exchanges[0].poll_body(cx)), Some(Ok(BodyFrame::Data(_, EndStream::Yes)))));
    assert!(script.closed().is_none());
}

#[test]
fn cookies_go_one_by_one_and_come_back_together() {
    let mut head = get();
    head.headers.insert("cookie", HeaderValue::from_static("a=1; b=2; c=3"));
    head.headers.insert("x", HeaderValue::from_static("y"));
    let bytes = request(&head);
    assert!(
        bytes.windows(5).any(|window| window == b"\x03a=1\x55") && !bytes.windows(2).any(|two| two == b"; ")
    );
    let (script, mut conn, _) = Script::server(ServerOptions::default());
    script.send_all(request_id(0), bytes);
    let (mut exchanges, _) = accept_all(&mut conn);
    let (received, _) = now(|cx| exchanges[0].poll_head(cx)).unwrap().unwrap();
    let fields: Vec<_> =
        received.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(fields, [("cookie", &b"a=1; b=2; c=3"[..]), ("x", b"y")]);
}
