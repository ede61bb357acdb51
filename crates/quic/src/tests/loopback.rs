//! Both ends of a connection over the loopback interface.

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use quinn_proto::{ConnectionError, Dir, StreamId, VarInt};
use tidegate_net::udp::{self, UdpOptions};
use tokio::task::{LocalSet, spawn_local};

use super::{accept, connected, echo, event, exchange, lost, progress, read_to_end, serve_echo, write_all};
use crate::testing::{SERVER_NAME, client_config, server_config};
use crate::{CloseCode, Conn, Endpoint, EndpointOptions, Event, Loss, ReadError, Worker, WriteError};

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
            // Without waiting for the time to send its first flight, a ClientHello of two datagrams at most, again.
            assert!(client.stats().tx_datagrams <= 2);
        })
        .await;
}

#[tokio::test]
async fn a_large_body_leaves_in_batches() {
    const SIZE: usize = 8 << 20;
    let test = async {
        let endpoint = server(EndpointOptions::default());
        let mut client = client(endpoint.local_address());
        let accepting = endpoint.clone();
        spawn_local(async move {
            let mut conn = accept(&accepting).await;
            connected(&mut conn).await;
            let id = conn.open(Dir::Uni).unwrap();
            write_all(&mut conn, id, Bytes::from(vec![7; SIZE])).await;
            lost(&mut conn).await;
        });
        connected(&mut client).await;
        let id = loop {
            match client.accept(Dir::Uni) {
                Some(id) => break id,
                None => progress(&mut client).await,
            }
        };
        assert_eq!(read_to_end(&mut client, id).await.len(), SIZE);
        let stats = endpoint.stats();
        assert!(stats.datagrams_sent > 4 * stats.sends, "{stats:?}");
        assert!(stats.bytes_sent < 2 * SIZE as u64, "{stats:?}");
    };
    LocalSet::new().run_until(test).await;
}

/// A NAT between a client and `server`: what is sent to `inside` leaves from `outside`, which [`Nat::rebind`] replaces.
#[derive(Clone)]
struct Nat {
    inside: Rc<tokio::net::UdpSocket>,
    outside: Rc<RefCell<Rc<tokio::net::UdpSocket>>>,
    client: Rc<Cell<Option<SocketAddr>>>,
    server: SocketAddr,
}

impl Nat {
    async fn new(server: SocketAddr) -> Self {
        let inside = Rc::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let outside = Rc::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let nat = Self { inside, outside: Rc::new(RefCell::new(outside)), client: Rc::default(), server };
        nat.carry_back();
        let carrier = nat.clone();
        spawn_local(async move {
            let mut buffer = [0; 2000];
            while let Ok((length, client)) = carrier.inside.recv_from(&mut buffer).await {
                carrier.client.set(Some(client));
                let outside = carrier.outside.borrow().clone();
                let _ = outside.send_to(&buffer[..length], carrier.server).await;
            }
        });
        nat
    }

    fn address(&self) -> SocketAddr {
        self.inside.local_addr().unwrap()
    }

    /// Carries from the present outside to the client.
    fn carry_back(&self) {
        let (nat, outside) = (self.clone(), self.outside.borrow().clone());
        spawn_local(async move {
            let mut buffer = [0; 2000];
            while let Ok(length) = outside.recv(&mut buffer).await {
                if let Some(client) = nat.client.get() {
                    let _ = nat.inside.send_to(&buffer[..length], client).await;
                }
            }
        });
    }

    async fn rebind(&self) {
        let outside = Rc::new(tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
        *self.outside.borrow_mut() = outside;
        self.carry_back();
    }
}

/// The kernel, not a hook, takes a client whose port has changed to the worker that knows it.
#[tokio::test]
async fn a_rebound_client_stays_with_its_worker() {
    const WORKERS: u32 = 3;
    let test = async {
        let options =
            UdpOptions { sockets: WORKERS as usize, reuse_port: true, socket_options: Default::default() };
        let bound = udp::bind(([127, 0, 0, 1], 0).into(), &options).unwrap();
        let config = Arc::new(server_config(&["h3"]));
        let endpoint = |(index, socket)| {
            let worker = Worker { index, count: WORKERS };
            let options =
                EndpointOptions { server: Some(config.clone()), worker, ..EndpointOptions::default() };
            let endpoint = Endpoint::new(socket, options).unwrap();
            endpoint.on_foreign(|worker, remote, _| panic!("{remote} belongs to {worker}"));
            serve_echo(&endpoint);
            endpoint
        };
        let endpoints: Vec<_> = (0..).zip(bound.sockets).map(endpoint).collect();
        for _ in 0..8 {
            let nat = Nat::new(bound.address).await;
            let mut client = client(nat.address());
            connected(&mut client).await;
            exchange(&mut client, b"before").await;
            for _ in 0..3 {
                nat.rebind().await;
                exchange(&mut client, b"after").await;
            }
        }
        let accepted: Vec<_> = endpoints.iter().map(|endpoint| endpoint.stats().accepted).collect();
        assert_eq!(accepted.iter().sum::<u64>(), 8, "{accepted:?}");
    };
    LocalSet::new().run_until(test).await;
}
