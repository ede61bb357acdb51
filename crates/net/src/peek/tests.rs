#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::io::{Io, StreamIo};

async fn pair() -> (TcpStream, StreamIo<TcpStream>) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    (client, StreamIo::tcp(listener.accept().await.unwrap().0))
}

async fn look(io: &mut StreamIo<TcpStream>, buf: &mut BytesMut, seen: usize) -> io::Result<Peeked> {
    poll_fn(|cx| io.poll_peek(cx, buf, seen, 64)).await
}

/// Whether a look at nothing new waits. Polled a few times with the driver in between: a look that spins would
/// never come to an end of itself.
async fn waits(io: &mut StreamIo<TcpStream>, buf: &mut BytesMut, seen: usize) -> bool {
    tokio::time::timeout(Duration::from_millis(20), look(io, buf, seen)).await.is_err()
}

#[tokio::test]
async fn bytes_are_seen_once_more_have_come_and_stay() {
    let (mut client, mut io) = pair().await;
    let mut buf = BytesMut::new();
    assert!(waits(&mut io, &mut buf, 0).await);
    assert_eq!(buf.capacity(), 0, "a silent connection holds no buffer");
    client.write_all(b"abc").await.unwrap();
    assert_eq!(look(&mut io, &mut buf, 0).await.unwrap(), Peeked::More);
    assert_eq!(buf, "abc");
    assert!(waits(&mut io, &mut buf, 3).await);
    client.write_all(b"de").await.unwrap();
    assert_eq!(look(&mut io, &mut buf, 3).await.unwrap(), Peeked::More);
    assert_eq!(buf, "abcde");
    io.discard(2).unwrap();
    let mut read = BytesMut::with_capacity(64);
    poll_fn(|cx| io.poll_read(cx, &mut read)).await.unwrap();
    assert_eq!(read, "cde");
}

#[tokio::test]
async fn the_end_is_seen_behind_bytes_that_were_seen() {
    let (mut client, mut io) = pair().await;
    let mut buf = BytesMut::new();
    client.write_all(b"abc").await.unwrap();
    look(&mut io, &mut buf, 0).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(look(&mut io, &mut buf, 3).await.unwrap(), Peeked::End);
}

#[tokio::test]
async fn a_reset_is_an_error() {
    let (client, mut io) = pair().await;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    look(&mut io, &mut BytesMut::new(), 0).await.unwrap_err();
}

#[tokio::test]
async fn after_giving_up_the_bytes_can_be_read() {
    let (mut client, mut io) = pair().await;
    let mut buf = BytesMut::new();
    client.write_all(b"abc").await.unwrap();
    look(&mut io, &mut buf, 0).await.unwrap();
    assert!(waits(&mut io, &mut buf, 3).await);
    io.give_up().unwrap();
    let mut read = BytesMut::with_capacity(64);
    let reading = poll_fn(|cx| io.poll_read(cx, &mut read));
    tokio::time::timeout(Duration::from_secs(5), reading).await.unwrap().unwrap();
    assert_eq!(read, "abc");
}
