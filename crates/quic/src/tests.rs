//! Both ends of a connection over the loopback interface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use bytes::Bytes;
use quinn_proto::{ConnectionError, Dir, StreamId, VarInt};
use tokio::task::{LocalSet, spawn_local};

use crate::testing::{SERVER_NAME, client_config, server_config};
use crate::{CloseCode, Conn, Endpoint, EndpointOptions, Event, Loss, ReadError, WriteError};

fn server(options: EndpointOptions) -> Endpoint {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = options.server.unwrap_or_else(|| Arc::new(server_config(&["h3"])));
    Endpoint::new(socket, EndpointOptions { server: Some(server), ..options }).unwrap()
}

fn client(remote: SocketAddr) -> Conn {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(remote).unwrap();
    crate::connect(socket, remote, client_config(&["h3"]), SERVER_NAME).unwrap()
}

async fn accept(endpoint: &Endpoint) -> Conn {
    poll_fn(|cx| endpoint.poll_incoming(cx)).await.expect("an attempt").accept().unwrap()
}

async fn event(conn: &mut Conn) -> Event {
    poll_fn(|cx| conn.poll_event(cx)).await
}

async fn connected(conn: &mut Conn) {
    loop {
        match event(conn).await {
            Event::Connected => return,
            Event::Lost(loss) => panic!("{loss}"),
            _ => {}
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
            Ok(Some(bytes)) => assert_eq!(conn.write(id, &mut [bytes.clone()]), Ok(bytes.len())),
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
            Err(ReadError::Blocked) => drop(event(conn).await),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_stream_comes_back() {
    LocalSet::new()
        .run_until(async {
            let endpoint = server(EndpointOptions::default());
            let mut client = client(endpoint.local_address());
            let server = spawn_local(async move {
                let mut conn = accept(&endpoint).await;
                connected(&mut conn).await;
                assert_eq!(conn.alpn().as_deref(), Some(&b"h3"[..]));
                assert_eq!(conn.server_name().as_deref(), Some(SERVER_NAME));
                let loss = echo(conn).await;
                while endpoint.stats().connections > 0 {
                    tokio::task::yield_now().await;
                }
                loss
            });
            connected(&mut client).await;
            assert_eq!(client.alpn().as_deref(), Some(&b"h3"[..]));
            assert_eq!(client.peer_certificates().len(), 1);
            let id = client.open(Dir::Bi).unwrap();
            assert_eq!(client.write(id, &mut [Bytes::from_static(b"hello")]), Ok(5));
            client.finish(id);
            assert_eq!(read_to_end(&mut client, id).await, b"hello");
            assert!(client.write(id, &mut [Bytes::from_static(b"more")]).is_err());
            let stranger = StreamId::new(quinn_proto::Side::Server, Dir::Uni, 7_000_000);
            assert_eq!(client.read(stranger, 1), Err(ReadError::Closed));
            assert_eq!(client.write(stranger, &mut []), Err(WriteError::Closed));

            client.close(CloseCode::Application(VarInt::from_u32(7)), Bytes::from_static(b"done"));
            let lost = event(&mut client).await;
            assert!(
                matches!(lost, Event::Lost(Loss::Connection(ConnectionError::LocallyClosed))),
                "{lost:?}"
            );
            drop(client);
            let Loss::Connection(ConnectionError::ApplicationClosed(close)) = server.await.unwrap() else {
                panic!("not closed by the client");
            };
            assert_eq!((close.error_code, &close.reason[..]), (VarInt::from_u32(7), &b"done"[..]));
        })
        .await;
}

#[tokio::test]
async fn a_closed_port_is_told_at_once() {
    LocalSet::new()
        .run_until(async {
            let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut client = client(gone);
            let Event::Lost(loss) = event(&mut client).await else { panic!("no loss") };
            assert_eq!(loss.to_string(), "Write failed with error: 111 (Connection refused)");
        })
        .await;
}
