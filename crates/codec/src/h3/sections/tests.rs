//! Sections that use a dynamic table, against a script.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use http::header::USER_AGENT;
use tidegate_quic::Side;
use tidegate_types::EndStream;

use crate::h3::server::ServerConn;
use crate::h3::testing::*;
use crate::h3::{ServerExchange, ServerOptions};
use crate::multiplex::ServerConnection;
use crate::stream::{BodyFrame, HeadError, ServerStream};

/// A capacity, and an entry `user-agent: a` (the static table's 95th name).
const INSERT: &[u8] = b"\x02\x3f\xe1\x1f\xff\x20\x01a";

/// A GET of `/` on `host` whose `user-agent` is the first entry.
fn asking() -> Vec<u8> {
    frame(1, b"\x02\x00\xd1\xd7\xc1\x50\x04host\x80")
}

fn server() -> (Script, ServerConn) {
    let (script, conn, _) = Script::server(ServerOptions::default());
    (script, conn)
}

fn encoder(script: &Script, bytes: &[u8]) {
    script.send(uni_id(Side::Client, 0), bytes);
}

/// What our decoder stream said, if there is one: our second unidirectional stream.
fn told(script: &Script) -> Vec<u8> {
    script.said(uni_id(Side::Server, 1)).0.to_vec()
}

#[track_caller]
fn agent(exchange: &mut ServerExchange) -> (String, EndStream) {
    let (head, end) = now(|cx| exchange.poll_head(cx)).unwrap().unwrap();
    (head.headers[USER_AGENT].to_str().unwrap().to_owned(), end)
}

#[test]
fn entries_that_came_are_used_and_acknowledged() {
    let (script, mut conn) = server();
    encoder(&script, INSERT);
    script.send_all(request_id(0), asking());
    script.send_all(request_id(1), asking());
    let (mut exchanges, _) = accept_all(&mut conn);
    for exchange in &mut exchanges {
        assert_eq!(agent(exchange), ("a".to_owned(), EndStream::Yes));
    }
    let _ = accept_all(&mut conn);
    assert_eq!(told(&script), b"\x03\x80\x84", "a section of each stream");
    assert_eq!(script.closed(), None);
}

#[test]
fn sections_wait_for_their_entries() {
    let (script, mut conn) = server();
    let body = frame(0, b"body");
    script.send_all(request_id(0), [&asking()[..], &body].concat());
    let (mut exchanges, _) = accept_all(&mut conn);
    let exchange = &mut exchanges[0];
    assert!(now(|cx| exchange.poll_head(cx)).is_none());
    // In pieces.
    for byte in INSERT {
        encoder(&script, &[*byte]);
        let _ = accept_all(&mut conn);
    }
    assert_eq!(agent(exchange), ("a".to_owned(), EndStream::No));
    let (bytes, end) = data(now(|cx| exchange.poll_body(cx)).unwrap().unwrap());
    assert_eq!((bytes, end), (Bytes::from_static(b"body"), EndStream::Yes));
    let _ = accept_all(&mut conn);
    assert_eq!(told(&script), b"\x03\x80");
}

#[test]
fn trailers_wait_too() {
    let (script, mut conn) = server();
    script.send_all(request_id(0), [request(&get()), frame(0, b"x"), frame(1, b"\x02\x00\x80")].concat());
    let (mut exchanges, _) = accept_all(&mut conn);
    let exchange = &mut exchanges[0];
    let _ = now(|cx| exchange.poll_head(cx)).unwrap().unwrap();
    assert_eq!(data(now(|cx| exchange.poll_body(cx)).unwrap().unwrap()).1, EndStream::No);
    assert!(now(|cx| exchange.poll_body(cx)).is_none());
    encoder(&script, INSERT);
    let _ = accept_all(&mut conn);
    match now(|cx| exchange.poll_body(cx)).unwrap().unwrap() {
        BodyFrame::Trailers(trailers) => assert_eq!(trailers[USER_AGENT], "a"),
        other => panic!("{other:?}"),
    }
    let _ = accept_all(&mut conn);
    assert_eq!(told(&script), b"\x03\x80");
}

#[test]
fn streams_that_are_given_up_let_their_entries_go() {
    let (script, mut conn) = server();
    script.send(request_id(0), asking());
    let (mut exchanges, _) = accept_all(&mut conn);
    assert!(now(|cx| exchanges[0].poll_head(cx)).is_none());
    script.reset(request_id(0), 0x10c);
    let _ = accept_all(&mut conn);
    let ended = now(|cx| exchanges[0].poll_head(cx)).unwrap();
    assert!(matches!(ended, Err(HeadError::Gone { partial: true })), "{ended:?}");
    drop(exchanges);
    encoder(&script, INSERT);
    let _ = accept_all(&mut conn);
    assert_eq!(told(&script), b"\x03\x40", "cancelled, and nothing is acknowledged");
    assert_eq!((conn.streams(), script.closed()), (0, None));
}

#[test]
fn as_many_streams_wait_as_was_announced() {
    let (script, mut conn) = server();
    for index in 0..100 {
        script.send(request_id(index), asking());
    }
    let (exchanges, _) = accept_all(&mut conn);
    assert_eq!((exchanges.len(), script.closed()), (100, None));
    script.send(request_id(100), asking());
    let _ = accept_all(&mut conn);
    assert_eq!(script.closed().unwrap().0, Some(0x200));
}
