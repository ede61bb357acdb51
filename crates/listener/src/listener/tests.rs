#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::BytesMut;
use tidegate_net::listen::{ListenOptions, bind};
use tidegate_stats::Store;
use tidegate_types::Address;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};

use super::*;
use crate::{Chain, Connection, Serving, Terminal};

/// Serves each connection until the client ends it.
struct Hold;

impl Terminal for Hold {
    fn serve(&self, connection: Connection) -> Serving {
        Box::pin(async move {
            let Connection { mut io, presence: _presence, .. } = connection;
            let mut bytes = BytesMut::with_capacity(16);
            let read = poll_fn(|cx| io.poll_read(cx, &mut bytes)).await;
            assert!(&bytes[..] != b"panic", "a terminal's panic, expected");
            drop(read);
        })
    }
}

struct Running {
    listener: Rc<Listener>,
    address: SocketAddr,
    store: Store,
}

fn start(limit: Option<u64>) -> Running {
    start_limited(limit, None)
}

fn start_limited(limit: Option<u64>, own_limit: Option<u64>) -> Running {
    let options = ListenOptions {
        sockets: 1,
        reuse_port: true,
        backlog: None,
        unix_mode: None,
        keepalive: None,
        take_over: false,
        socket_options: Default::default(),
    };
    let mut bound = bind(&Address::Ip("127.0.0.1:0".parse().unwrap()), &options).unwrap();
    let Address::Ip(address) = bound.address else { panic!("no IP") };
    let store = Store::new(2);
    let options = ListenerOptions {
        buffer_limit: 1,
        accept_burst: 2,
        limit: Some(ConnectionLimit::new(limit)),
        own_limit: ConnectionLimit::new(own_limit),
        ..ListenerOptions::plain()
    };
    let stats = ListenerStats::new(&store, "l", 0);
    let socket = bound.sockets.pop().unwrap();
    let chains = Chains::only(Chain::plain(Rc::new(Hold)));
    let listener = Listener::start("l".into(), socket, options, stats, chains, Rc::default()).unwrap();
    Running { listener, address, store }
}

fn on_worker<T>(test: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap().block_on(test)
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}

fn text(store: &Store) -> String {
    tidegate_stats::render::text(store, &Default::default())
}

#[test]
fn connections_are_counted_from_accept_to_end_even_when_their_task_panics() {
    on_worker(async {
        let Running { listener, address, store } = start(None);
        let clients: Vec<_> =
            [TcpStream::connect(address).await, TcpStream::connect(address).await].map(Result::unwrap).into();
        until(|| listener.connections() == 2).await;
        assert!(text(&store).contains("listener.l.worker_0.downstream_cx_active: 2"));
        clients[0].writable().await.unwrap();
        clients[0].try_write(b"panic").unwrap();
        until(|| listener.connections() == 1).await;
        drop(clients);
        until(|| listener.connections() == 0).await;
        let text = text(&store);
        for line in ["cx_total: 2", "cx_destroy: 2", "cx_active: 0"] {
            assert!(text.contains(&format!("listener.l.downstream_{line}\n")), "{text}");
        }
    });
}

#[test]
fn over_the_global_limit_a_connection_is_closed_at_once() {
    on_worker(async {
        let Running { listener, address, store } = start(Some(1));
        let _first = TcpStream::connect(address).await.unwrap();
        until(|| listener.connections() == 1).await;
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
        assert!(text(&store).contains("listener.l.downstream_global_cx_overflow: 1"));
    });
}

#[test]
fn over_its_own_limit_a_connection_is_closed_and_holds_no_place() {
    on_worker(async {
        let Running { listener, address, store } = start_limited(Some(2), Some(1));
        let first = TcpStream::connect(address).await.unwrap();
        until(|| listener.connections() == 1).await;
        for _ in 0..2 {
            let mut refused = TcpStream::connect(address).await.unwrap();
            assert_eq!(refused.read(&mut [0]).await.unwrap(), 0);
        }
        drop(first);
        until(|| listener.connections() == 0).await;
        let _next = TcpStream::connect(address).await.unwrap();
        until(|| listener.connections() == 1).await;
        let text = text(&store);
        assert!(text.contains("listener.l.downstream_cx_overflow: 2\n"), "{text}");
        assert!(text.contains("listener.l.downstream_global_cx_overflow: 0\n"), "{text}");
    });
}

#[test]
fn stopping_takes_queued_connections_and_closes_the_socket() {
    on_worker(async {
        let Running { listener, address, .. } = start(None);
        let queued = std::net::TcpStream::connect(address).unwrap();
        listener.stop().await;
        until(|| listener.connections() == 1).await;
        TcpStream::connect(address).await.unwrap_err();
        drop(queued);
        until(|| listener.connections() == 0).await;
    });
}
