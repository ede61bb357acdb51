//! Whole connections: over the loopback interface, and over a network in memory and in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod close;
mod early;
mod loopback;
mod moving;
mod strangers;
mod travel;

use std::future::poll_fn;

use bytes::Bytes;
use quinn_proto::{Dir, StreamId};

use crate::testing::{self, Network};
use crate::{Conn, Endpoint, Event, Loss, ReadError, WriteError};

async fn accept(endpoint: &Endpoint) -> Conn {
    poll_fn(|cx| endpoint.poll_incoming(cx)).await.expect("an attempt").accept().unwrap()
}

async fn event(conn: &mut Conn) -> Event {
    poll_fn(|cx| conn.poll_event(cx)).await
}

/// Waits for anything but the end.
async fn progress(conn: &mut Conn) {
    if let Event::Lost(loss) = event(conn).await {
        panic!("{loss}");
    }
}

async fn connected(conn: &mut Conn) {
    testing::connected(conn).await.expect("a handshake");
}

/// Drives a connection for its own sake until it is lost.
async fn lost(conn: &mut Conn) -> Loss {
    loop {
        if let Event::Lost(loss) = event(conn).await {
            return loss;
        }
    }
}

/// Echoes every stream of the connection until it is lost.
async fn echo(mut conn: Conn) -> Loss {
    loop {
        match event(&mut conn).await {
            Event::Opened(dir) => {
                while let Some(id) = conn.accept(dir) {
                    echo_stream(&mut conn, id);
                }
            }
            Event::Readable(id) => echo_stream(&mut conn, id),
            Event::Lost(loss) => return loss,
            _ => {}
        }
    }
}

fn echo_stream(conn: &mut Conn, id: StreamId) {
    loop {
        match conn.read(id, usize::MAX) {
            Ok(Some(bytes)) => {
                let length = bytes.len();
                assert_eq!(conn.write(id, &mut [bytes]), Ok(length), "a test that needs no windows");
            }
            Ok(None) => return conn.finish(id),
            Err(_) => return,
        }
    }
}

async fn read_to_end(conn: &mut Conn, id: StreamId) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        match conn.read(id, usize::MAX) {
            Ok(Some(bytes)) => body.extend_from_slice(&bytes),
            Ok(None) => return body,
            Err(ReadError::Blocked) => progress(conn).await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Writes all of it and ends the stream, driving the connection meanwhile.
async fn write_all(conn: &mut Conn, id: StreamId, body: Bytes) {
    let mut chunks = [body];
    while !chunks[0].is_empty() {
        match conn.write(id, &mut chunks) {
            Ok(_) => {}
            Err(WriteError::Blocked) => progress(conn).await,
            Err(error) => panic!("{error}"),
        }
    }
    conn.finish(id);
}

/// One exchange with an echoing peer.
async fn exchange(conn: &mut Conn, body: &'static [u8]) {
    let id = conn.open(Dir::Bi).expect("a stream");
    write_all(conn, id, Bytes::from_static(body)).await;
    assert_eq!(read_to_end(conn, id).await, body);
}

/// Lets `time` pass, with `start_paused`, while the connections are driven.
async fn pass(time: std::time::Duration, conns: &mut [&mut Conn]) {
    let end = tokio::time::sleep(time);
    tokio::pin!(end);
    poll_fn(|cx| {
        for conn in conns.iter_mut() {
            while conn.poll_event(cx).is_ready() {}
        }
        end.as_mut().poll(cx)
    })
    .await;
}

/// Serves every connection with [`echo`].
fn serve_echo(endpoint: &Endpoint) {
    let endpoint = endpoint.clone();
    tokio::task::spawn_local(async move {
        while let Some(attempt) = poll_fn(|cx| endpoint.poll_incoming(cx)).await {
            if let Ok(conn) = attempt.accept() {
                tokio::task::spawn_local(echo(conn));
            }
        }
    });
}

#[tokio::test(start_paused = true)]
async fn streams_come_back() {
    let network = Network::new(1);
    let test = async {
        let endpoint = testing::serve(&network, &["h3"]);
        serve_echo(&endpoint);
        let mut client = testing::client(&network, 1, &["h3"]);
        connected(&mut client).await;
        for _ in 0..300 {
            exchange(&mut client, b"hello").await;
        }
        pass(std::time::Duration::from_secs(1), &mut [&mut client]).await;
        assert!(client.is_delivered());
    };
    tokio::task::LocalSet::new().run_until(test).await;
}
