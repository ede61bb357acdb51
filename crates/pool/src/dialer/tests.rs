//! Hosts with several addresses, over real sockets of this machine; no time is asserted.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use tidegate_net::{Connecting, Order};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;

async fn listen() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address.into())
}

/// Where nobody listens.
async fn refusing() -> Address {
    listen().await.1
}

fn dialer(addresses: &[&Address], transport: Option<Rc<dyn Transport>>) -> (Dialer, EyeballsStats) {
    let addresses: Vec<Address> = addresses.iter().map(|&address| address.clone()).collect();
    let stats = EyeballsStats::detached();
    let dialer = Dialer {
        addresses: Arc::new(Addresses::new(addresses.into())),
        eyeballs: Some(Eyeballs::new(Order::default(), {
            let stats = stats.clone();
            move || stats.clone()
        })),
        dial: Rc::default(),
        transport,
        stats: UpstreamStats::detached(),
    };
    (dialer, stats)
}

/// A transport whose peer never answers at one address.
struct SilentAt(Address, Rc<Cell<u32>>);

impl Transport for SilentAt {
    fn connect(&self, io: BoxIo, _: Rc<TransportOptions>) -> Connecting {
        let silent = io.peer_address().is_some_and(|peer| peer == self.0);
        self.1.set(self.1.get() + 1);
        Box::pin(async move {
            if silent {
                std::future::pending::<()>().await;
            }
            Ok(io)
        })
    }
}

#[tokio::test]
async fn refused_addresses_are_passed_over() {
    let (_listener, open) = listen().await;
    let (one, two) = (refusing().await, refusing().await);
    let (dialer, stats) = dialer(&[&one, &two, &open], None);
    let opened = dialer.open(Rc::default()).await.unwrap();
    assert_eq!(opened.remote_address.as_deref(), Some(&open));
    assert_eq!((stats.attempts().value(), stats.won_ipv4().value(), stats.won_ipv6().value()), (3, 1, 0));
    assert_eq!(stats.delay_ms().count(), 1);
}

#[tokio::test]
async fn when_all_are_refused_the_last_failure_is_told() {
    let unix = Address::Unix("/nowhere/x".into());
    let refused = refusing().await;
    let (dialer, stats) = dialer(&[&refused, &unix], None);
    let error = dialer.open(Rc::default()).await.map(drop).unwrap_err();
    let words = "immediate_connect_error:_No_such_file_or_directory|remote_address:/nowhere/x";
    assert_eq!(error.transport_failure(), Some(words));
    assert_eq!((stats.attempts().value(), stats.won_ipv4().value(), stats.won_pipe().value()), (2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_accepts_and_says_nothing_loses_and_is_closed() {
    let ((silent_listener, silent), (_listener, open)) = (listen().await, listen().await);
    let handshakes = Rc::new(Cell::new(0));
    let transport = Rc::new(SilentAt(silent.clone(), handshakes.clone()));
    let (dialer, stats) = dialer(&[&silent, &open], Some(transport));
    let opened = dialer.open(Rc::default()).await.unwrap();
    assert_eq!(opened.remote_address.as_deref(), Some(&open));
    assert_eq!((handshakes.get(), stats.attempts().value()), (2, 2));
    // The loser's socket, while the winner's future is gone and its connection lives.
    let (mut loser, _) = silent_listener.accept().await.unwrap();
    assert_eq!(loser.read(&mut [0]).await.unwrap(), 0);
    drop(opened);
}

#[tokio::test(start_paused = true)]
async fn giving_up_closes_what_was_open() {
    let ((one_listener, one), (two_listener, two)) = (listen().await, listen().await);
    struct Silent;
    impl Transport for Silent {
        fn connect(&self, io: BoxIo, _: Rc<TransportOptions>) -> Connecting {
            Box::pin(async move {
                let _io = io;
                std::future::pending().await
            })
        }
    }
    let (dialer, stats) = dialer(&[&one, &two], Some(Rc::new(Silent)));
    let opening = dialer.open(Rc::default());
    // `connect_timeout`.
    assert!(tokio::time::timeout(Duration::from_secs(1), opening).await.is_err());
    assert_eq!(stats.attempts().value(), 2);
    for listener in [one_listener, two_listener] {
        let (mut loser, _) = listener.accept().await.unwrap();
        assert_eq!(loser.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn families_are_counted_apart() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
    let v6: SocketAddr = listener.local_addr().unwrap();
    let refused = refusing().await;
    let (dialer, stats) = dialer(&[&refused, &v6.into()], None);
    dialer.open(Rc::default()).await.unwrap();
    assert_eq!((stats.won_ipv4().value(), stats.won_ipv6().value()), (0, 1));
}
