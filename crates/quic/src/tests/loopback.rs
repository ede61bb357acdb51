//! Both ends of a connection over the loopback interface.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use bytes::Bytes;
use quinn_proto::{ConnectionError, Dir, StreamId, VarInt};
use tokio::task::{LocalSet, spawn_local};

use super::{accept, connected, echo, event, read_to_end};
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
