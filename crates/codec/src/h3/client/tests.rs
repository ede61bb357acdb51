//! The client's end, against a script.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use http::{Method, StatusCode};
use tidegate_quic::{EarlyData, Event, Side as QuicSide};
use tidegate_types::{EndStream, RequestHead};

use super::*;
use crate::h3::testing::*;
use crate::multiplex::{ClientExchange as _, ConnError};
use crate::stream::{BodyFrame, ClientStream, ResponseFrame, StreamError};

/// A client whose handshake is over, with so many streams.
fn connected(streams: u64) -> (Script, ClientConn, ClientDriver) {
    let (script, conn, mut driver) = Script::client(ClientOptions::default());
    script.allow(streams);
    script.push(Event::Connected);
    let told = events(&mut driver);
    assert!(
        matches!(told[..], [ClientEvent::Capacity(capacity)] if u64::from(capacity) == streams),
        "{told:?}"
    );
    (script, conn, driver)
}

fn asked(conn: &ClientConn) -> ClientExchange {
    let mut exchange = conn.open();
    exchange.send_head(&get(), EndStream::Yes);
    exchange
}

fn code_of(error: StreamError) -> ResetCode {
    match error {
        StreamError::Reset { code, .. } => code,
        error => panic!("{error}"),
    }
}

#[test]
fn a_request_and_its_response() {
    let (script, conn, mut driver) = connected(100);
    let mut exchange = conn.open();
    let mut head = get();
    head.method = Method::POST;
    exchange.send_head(&head, EndStream::No);
    exchange.send_data(Bytes::from_static(b"body"), EndStream::Yes);
    assert!(exchange.is_unwritten() && !exchange.is_request_complete());
    assert_eq!((conn.streams(), exchange.id()), (1, Some(0)));
    assert!(events(&mut driver).is_empty());
    assert!(!exchange.is_unwritten() && exchange.is_request_complete());
    assert!(now(|cx| exchange.poll_flush(cx)).unwrap().is_ok());
    let (said, finished) = script.said(request_id(0));
    let frames = frames_of(&said);
    assert!(finished && frames.len() == 2 && frames[1] == (0, b"body".to_vec()));
    // As Envoy for a client of another version.
    assert_eq!(frames[0].1, b"\x00\x00\x50\x04host\xc1\xd4\xd7");
    let body = frame(0, b"hello");
    let answer = [&response(103)[..], &response(200), &body, &headers(&[(b"x", b"y")])].concat();
    script.send_all(request_id(0), answer);
    assert!(events(&mut driver).is_empty());
    let Some(Ok(ResponseFrame::Informational(head))) = now(|cx| exchange.poll_head(cx)) else { panic!() };
    assert_eq!(head.status.as_u16(), 103);
    let Some(Ok(ResponseFrame::Head(head, EndStream::No))) = now(|cx| exchange.poll_head(cx)) else {
        panic!()
    };
    assert_eq!((head.status, head.version), (StatusCode::OK, http::Version::HTTP_3));
    assert_eq!(&data(now(|cx| exchange.poll_body(cx)).unwrap().unwrap()).0[..], b"hello");
    assert!(!exchange.is_response_complete());
    let Some(Ok(BodyFrame::Trailers(trailers))) = now(|cx| exchange.poll_body(cx)) else { panic!() };
    assert_eq!(trailers["x"], "y");
    assert!(exchange.is_response_complete());
    drop(exchange);
    assert_eq!((conn.streams(), script.given_up(request_id(0))), (0, (None, None)));
    let (control, _) = script.said(uni_id(QuicSide::Client, 0));
    assert_eq!(&control[..], b"\x00\x04\x0d\x01\x80\x01\x00\x00\x06\x80\x00\xf0\x00\x07\x40\x64");
}

#[test]
fn capacity_is_exact() {
    let (script, conn, mut driver) = connected(2);
    let (first, second, third) = (asked(&conn), asked(&conn), asked(&conn));
    assert!(events(&mut driver).is_empty());
    assert_eq!((conn.capacity(), conn.streams()), (2, 3));
    assert!(third.is_unwritten() && third.id().is_none());
    script.send_all(request_id(0), response(200));
    let _ = events(&mut driver);
    drop(first);
    // What ended does not come back by itself.
    let told = events(&mut driver);
    assert!(matches!(told[..], [ClientEvent::Capacity(1)]), "{told:?}");
    script.allow(4);
    let told = events(&mut driver);
    assert!(matches!(told[..], [ClientEvent::Capacity(3)]), "{told:?}");
    assert_eq!((third.id(), third.is_unwritten()), (Some(8), false));
    drop(second);
    assert_eq!(script.given_up(request_id(1)), (Some(0x10c), None));
    // One that waits and goes leaves no trace.
    let waits: Vec<_> = (0..3).map(|_| asked(&conn)).collect();
    drop(waits);
    script.allow(6);
    let _ = events(&mut driver);
    assert_eq!(asked(&conn).id(), Some(16));
}

#[test]
fn the_configured_number_of_streams_is_a_limit_too() {
    let (script, conn, mut driver) =
        Script::client(ClientOptions { max_concurrent_streams: 2, ..ClientOptions::default() });
    script.push(Event::Connected);
    let told = events(&mut driver);
    assert!(matches!(told[..], [ClientEvent::Capacity(2)]), "{told:?}");
    for _ in 0..10 {
        drop(asked(&conn));
    }
    assert!(events(&mut driver).is_empty());
    assert_eq!(conn.capacity(), 2);
}

#[test]
fn goaway_refuses_what_was_not_processed() {
    let (script, conn, mut driver) = connected(100);
    let (mut first, mut second) = (asked(&conn), asked(&conn));
    let mut unsent = conn.open();
    let _ = events(&mut driver);
    script.send(uni_id(QuicSide::Server, 0), b"\x00\x04\x00\x07\x01\x04");
    let told = events(&mut driver);
    assert!(matches!(told[..], [ClientEvent::GoAway { last_stream: 4, .. }, ..]), "{told:?}");
    assert!(conn.is_going_away());
    unsent.send_head(&get(), EndStream::Yes);
    assert!(unsent.is_unwritten());
    for exchange in [&mut second, &mut unsent] {
        assert_eq!(code_of(now(|cx| exchange.poll_head(cx)).unwrap().unwrap_err()), ResetCode::Refused);
    }
    assert!(now(|cx| first.poll_head(cx)).is_none());
    script.send_all(request_id(0), response(200));
    assert!(!events(&mut driver).iter().any(|event| matches!(event, ClientEvent::Closed(_))));
    assert!(matches!(now(|cx| first.poll_head(cx)), Some(Ok(ResponseFrame::Head(_, EndStream::Yes)))));
    drop((first, second, unsent));
    assert!(matches!(events(&mut driver).last(), Some(ClientEvent::Closed(Ok(())))));
}

#[test]
fn alternatives_are_told() {
    let (script, _conn, mut driver) = connected(100);
    let long = [&b"\x0a\x80\x01\x00\x00"[..], &[b'x'; 0x1_0000]].concat();
    let said = [&b"\x00\x04\x00\x0a\x0d\0\x06https:"[..], b"clear\x0a\x00\x0a\x07\0\0clear", &long].concat();
    script.send(uni_id(QuicSide::Server, 0), &said);
    let told = events(&mut driver);
    let [ClientEvent::AltSvc(said)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((said.origin.as_deref(), &*said.value), (Some(&b"https:"[..]), &b"clear"[..]));
}

#[test]
fn resets_have_reasons() {
    for (code, told) in [
        (0x10b, ResetCode::Refused),
        (0x10c, ResetCode::Cancel),
        (0x101, ResetCode::Protocol),
        (0x107, ResetCode::EnhanceYourCalm),
        (0x110, ResetCode::Protocol),
        (0x10f, ResetCode::Connect),
        (0x100, ResetCode::NoError),
    ] {
        let (script, conn, mut driver) = connected(100);
        let mut exchange = asked(&conn);
        let _ = events(&mut driver);
        script.reset(request_id(0), code);
        let _ = events(&mut driver);
        assert_eq!(code_of(now(|cx| exchange.poll_head(cx)).unwrap().unwrap_err()), told);
        assert!(!exchange.is_response_complete());
        let details = exchange.failure_details().unwrap();
        assert_eq!(details, format!("{}|FROM_PEER", crate::h3::codes::reset_name(code)));
    }
    let (script, conn, mut driver) = connected(100);
    let mut exchange = asked(&conn);
    let _ = events(&mut driver);
    exchange.reset();
    assert_eq!(script.given_up(request_id(0)), (Some(0x10c), None));
    assert_eq!(code_of(now(|cx| exchange.poll_head(cx)).unwrap().unwrap_err()), ResetCode::Cancel);
}

#[test]
fn a_response_may_come_before_the_request_is_complete() {
    let (script, conn, mut driver) = connected(100);
    let mut exchange = conn.open();
    exchange.send_head(&get(), EndStream::No);
    let _ = events(&mut driver);
    script.send_all(request_id(0), [response(413), frame(0, b"no")].concat());
    script.stop(request_id(0), 0x100);
    let _ = events(&mut driver);
    exchange.send_data(Bytes::from_static(b"more"), EndStream::Yes);
    assert!(now(|cx| exchange.poll_flush(cx)).unwrap().is_ok());
    assert!(matches!(now(|cx| exchange.poll_head(cx)), Some(Ok(ResponseFrame::Head(_, EndStream::No)))));
    let (body, end) = data(now(|cx| exchange.poll_body(cx)).unwrap().unwrap());
    assert_eq!((&body[..], end), (&b"no"[..], EndStream::Yes));
    assert!(exchange.is_response_complete() && !exchange.is_request_complete());
    assert_eq!(script.given_up(request_id(0)), (None, Some(0x100)));
}

#[test]
fn early_data_that_was_for_nothing_is_refused() {
    let (script, conn, mut driver) = Script::client(ClientOptions::default());
    script.set_early(EarlyData::Offered);
    script.allow(5);
    let _ = events(&mut driver);
    let mut exchange = asked(&conn);
    let _ = events(&mut driver);
    assert!(!exchange.is_unwritten());
    script.set_early(EarlyData::Rejected);
    script.push(Event::Connected);
    let _ = events(&mut driver);
    assert_eq!(code_of(now(|cx| exchange.poll_head(cx)).unwrap().unwrap_err()), ResetCode::Refused);
}

#[test]
fn extended_connect_is_known_by_the_settings() {
    let (script, conn, mut driver) = connected(100);
    assert!(!conn.takes_extended_connect());
    script.send(uni_id(QuicSide::Server, 0), b"\x00\x04\x02\x08\x01");
    let _ = events(&mut driver);
    assert!(conn.takes_extended_connect());
    let mut exchange = conn.open();
    let mut head: RequestHead = get();
    head.upgrade = Some(Bytes::from_static(b"websocket"));
    exchange.send_head(&head, EndStream::No);
    script.send(request_id(0), response(200));
    let _ = events(&mut driver);
    let Some(Ok(ResponseFrame::Head(head, EndStream::No))) = now(|cx| exchange.poll_head(cx)) else {
        panic!()
    };
    assert_eq!(
        (head.status, head.headers["upgrade"].to_str().unwrap()),
        (StatusCode::SWITCHING_PROTOCOLS, "websocket")
    );
}

#[test]
fn the_end_of_the_connection_is_told() {
    let (script, conn, mut driver) = connected(100);
    let mut sent = asked(&conn);
    let _ = events(&mut driver);
    script.set_window(0);
    let mut unsent = asked(&conn);
    let _ = events(&mut driver);
    script.close_by_peer();
    assert!(matches!(events(&mut driver)[..], [ClientEvent::Closed(Ok(()))]));
    assert!(conn.is_closed_by_peer());
    assert!(matches!(now(|cx| sent.poll_head(cx)), Some(Err(StreamError::Closed))));
    // What was never handed on was not processed.
    assert_eq!(code_of(now(|cx| unsent.poll_head(cx)).unwrap().unwrap_err()), ResetCode::Refused);

    assert_eq!(sent.failure_details().unwrap(), "QUIC_IETF_GQUIC_ERROR_MISSING|FROM_PEER|");

    let (script, _conn, mut driver) = connected(100);
    script.push(Event::Lost(tidegate_quic::Loss::Socket { errno: 111 }));
    let told = events(&mut driver);
    let [ClientEvent::Closed(Err(ConnError::Io(error)))] = &told[..] else { panic!("{told:?}") };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);

    let (script, _conn, mut driver) = connected(100);
    driver.before_close(CloseReason::IdleTimeout);
    assert!(now(|cx| driver.poll_shutdown(cx)).unwrap().is_ok());
    let reason = "0:Closed by application with reason: on_idle_timeout";
    assert_eq!(script.closed(), Some((None, reason.to_owned())));
    assert!(matches!(now(|cx| driver.poll_discard(cx)), Some(Ok(0))));
}

#[test]
fn a_handshake_that_was_over_before_is_noticed() {
    let (script, conn, mut driver) = Script::client(ClientOptions::default());
    script.set_connected();
    script.send(uni_id(QuicSide::Server, 0), b"\x00\x04\x02\x08\x01");
    script.forget_events();
    let told = events(&mut driver);
    assert!(matches!(told[..], [ClientEvent::Capacity(100)]), "{told:?}");
    assert!(conn.takes_extended_connect());
}
