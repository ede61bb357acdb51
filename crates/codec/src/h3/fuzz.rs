//! Bytes at random on every kind of stream, in random pieces: nothing panics, and what is kept stays bounded.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use fastrand::Rng;
use http::StatusCode;
use tidegate_quic::{Event, Side, StreamId};
use tidegate_types::{EndStream, ResponseHead};

use super::testing::*;
use super::{ClientExchange, ClientOptions, Options, ServerExchange, ServerOptions};
use crate::fields::MessageOptions;
use crate::multiplex::{ClientConnection, ServerConnection};
use crate::stream::{ClientStream, ResetCode, ServerStream};

fn noise(random: &mut Rng, len: usize) -> Vec<u8> {
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// Bytes that are nearly frames.
fn bytes(random: &mut Rng) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..random.usize(1..6) {
        let len = random.usize(0..40);
        match random.u8(..10) {
            0 => all.extend(noise(random, len)),
            1 | 2 => all.extend(request(&get())),
            3 => all.extend(response([100, 103, 200, 204][random.usize(..4)])),
            4 => all.extend(headers(&[(b"x", b"y")])),
            5 => all.extend(frame(0, noise(random, len))),
            6 => {
                let mut section = vec![0, 0];
                section.extend(noise(random, len));
                all.extend(frame(1, section));
            }
            7 => {
                // A length that is not kept.
                all.push(random.u8(..2));
                all.extend(0xbfff_ffff_u32.to_be_bytes());
            }
            _ => all.extend(frame(u64::from(random.u8(..16)), noise(random, len / 4))),
        }
    }
    all
}

/// Says it in pieces, and perhaps ends or gives up.
fn say(script: &Script, id: StreamId, bytes: &[u8], random: &mut Rng) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(random.usize(1..=rest.len()));
        script.send(id, now);
        rest = later;
    }
    match random.u8(..8) {
        0..=2 => script.send_all(id, b""),
        3 => script.reset(id, 0x100 + u64::from(random.u8(..20))),
        4 => script.stop(id, 0x100 + u64::from(random.u8(..20))),
        _ => {}
    }
}

fn uni(script: &Script, side: Side, index: u64, random: &mut Rng) {
    let mut all = vec![[0, 0, 0, 1, 2, 3, 0x21][random.usize(..7)]];
    if all[0] == 0 && random.u8(..8) > 0 {
        all.extend(b"\x04\x00");
    }
    all.extend(bytes(random));
    say(script, uni_id(side, index), &all, random);
}

fn use_server(exchange: &mut ServerExchange, random: &mut Rng) {
    match random.u8(..8) {
        0 => drop(now(|cx| exchange.poll_head(cx))),
        1 | 2 => drop(now(|cx| exchange.poll_body(cx))),
        3 => exchange.send_head(&ResponseHead::new(StatusCode::OK), EndStream::from_last(random.bool())),
        4 => exchange
            .send_data(Bytes::from(vec![1; random.usize(..5000)]), EndStream::from_last(random.bool())),
        5 => exchange.send_trailers(&http::HeaderMap::new()),
        6 => drop(now(|cx| exchange.poll_flush(cx))),
        _ if random.u8(..10) == 0 => exchange.reset_with(ResetCode::Cancel),
        _ => drop(now(|cx| exchange.poll_gone(cx))),
    }
}

fn use_client(exchange: &mut ClientExchange, random: &mut Rng) {
    match random.u8(..6) {
        0 => drop(now(|cx| exchange.poll_head(cx))),
        1 | 2 => drop(now(|cx| exchange.poll_body(cx))),
        3 => exchange
            .send_data(Bytes::from(vec![1; random.usize(..5000)]), EndStream::from_last(random.bool())),
        4 => drop(now(|cx| exchange.poll_flush(cx))),
        _ if random.u8(..10) == 0 => exchange.reset(),
        _ => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_survives_anything() {
    for seed in 0..3000 {
        let mut random = Rng::with_seed(seed);
        let common = Options::from(MessageOptions {
            allow_connect: random.bool(),
            override_stream_error_on_invalid_http_message: random.bool(),
            ..MessageOptions::default()
        });
        let (script, mut conn, _) = Script::server(ServerOptions { common, ..ServerOptions::default() });
        script.set_window(random.usize(1..3000));
        let mut exchanges = Vec::new();
        for round in 0..8 {
            if random.u8(..4) == 0 {
                uni(&script, Side::Client, round, &mut random);
            }
            let all = bytes(&mut random);
            say(&script, request_id(random.u64(..=round)), &all, &mut random);
            let (more, ended) = accept_all(&mut conn);
            exchanges.extend(more);
            for _ in 0..4 {
                if let Some(at) = exchanges.len().checked_sub(1) {
                    use_server(&mut exchanges[random.usize(..=at)], &mut random);
                }
            }
            match random.u8(..20) {
                0 => conn.final_goaway(),
                1 => conn.close_now(None),
                2 => exchanges.truncate(1),
                _ => script.unblock(random.usize(1..3000)),
            }
            if ended.is_some() {
                break;
            }
        }
        let _ = accept_all(&mut conn);
        let _ = now(|cx| conn.poll_shutdown(cx));
        let _ = now(|cx| conn.poll_discard(cx));
        exchanges.clear();
        assert_eq!(conn.streams(), 0, "{seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_survives_anything() {
    for seed in 0..3000 {
        let mut random = Rng::with_seed(seed);
        let (script, conn, mut driver) = Script::client(ClientOptions::default());
        script.allow(random.u64(1..6));
        script.push(Event::Connected);
        script.set_window(random.usize(1..3000));
        let mut exchanges = Vec::new();
        let mut over = false;
        for round in 0..8 {
            let mut exchange = conn.open();
            exchange.send_head(&get(), EndStream::from_last(random.bool()));
            exchanges.push(exchange);
            if random.u8(..4) == 0 {
                uni(&script, Side::Server, round, &mut random);
            }
            over = over
                || events(&mut driver)
                    .iter()
                    .any(|event| matches!(event, crate::multiplex::ClientEvent::Closed(_)));
            if over {
                break;
            }
            let named = exchanges.iter().filter_map(ClientExchange::id).next_back();
            if let Some(id) = named {
                let all = bytes(&mut random);
                say(&script, request_id(random.u64(..=id / 4)), &all, &mut random);
            }
            over = events(&mut driver)
                .iter()
                .any(|event| matches!(event, crate::multiplex::ClientEvent::Closed(_)));
            if over {
                break;
            }
            for _ in 0..4 {
                let at = random.usize(..exchanges.len());
                use_client(&mut exchanges[at], &mut random);
            }
            match random.u8(..10) {
                0 => exchanges.truncate(1),
                1 => script.allow(20),
                _ => script.unblock(random.usize(1..3000)),
            }
        }
        exchanges.clear();
        assert_eq!(conn.streams(), 0, "{seed}");
    }
}

#[test]
fn a_head_that_is_announced_and_does_not_come_holds_nothing() {
    let (script, mut conn, _) = Script::server(ServerOptions::default());
    for index in 0..100 {
        // 100 KB announced, 10 bytes sent.
        script.send(request_id(index), b"\x01\x80\x01\x86\xa0\x00\x00\x51\x0b/index");
    }
    let (exchanges, _) = accept_all(&mut conn);
    assert_eq!(exchanges.len(), 100);
    assert!(conn.held() < 100 * 64, "{}", conn.held());
    drop(exchanges);
    assert_eq!(conn.held(), 0);
}
