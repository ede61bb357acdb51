//! The driver with real sockets on port 0, and with connections that only pretend in virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, Version};
use tidegate_codec::h1::ClientConn;
use tidegate_codec::{BodyFrame, ResponseFrame};
use tidegate_net::Io;
use tidegate_types::{Address, EndStream, RequestHead};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::*;
use crate::dialer::Dialer;
use crate::error::PoolError;
use crate::host::HostCounters;
use crate::limits::{Limits, Maxima};
use crate::machine::Carries;
use crate::stats::UpstreamStats;

fn settings() -> Settings {
    Settings {
        connect_timeout: Duration::from_millis(500),
        idle_timeout: Some(Duration::from_secs(10)),
        max_connection_duration: None,
        max_streams: None,
        concurrency: 1,
        preconnect_ratio: 1.0,
        carries: Carries::Requests,
        timeout_text: None,
    }
}

fn shared(maxima: &Maxima) -> Shared {
    Shared {
        limits: Arc::new(Limits::detached(maxima)),
        host_connections: None,
        stats: UpstreamStats::detached(),
        host: HostCounters::detached(),
        idle_limit: None,
        tally: None,
    }
}

struct Alone;

impl Neighbours for Alone {
    fn reclaim(&self) {}
}

fn pool(connector: impl Connect<Opened> + 'static, shared: &Shared) -> Rc<Pool> {
    let nobody: Weak<dyn Neighbours> = Weak::<Alone>::new();
    Pool::new(Rc::new(settings()), shared.clone(), Rc::new(connector), nobody)
}

async fn listen() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address.into())
}

fn sockets(address: Address, shared: &Shared) -> SocketConnector {
    let dialer = Dialer {
        addresses: Arc::new(crate::host::Addresses::new(Arc::from([address]))),
        eyeballs: None,
        dial: Rc::default(),
        transport: None,
        stats: shared.stats.clone(),
    };
    SocketConnector { dialer: Rc::new(dialer), options: Rc::default(), codec: Rc::default() }
}

/// Answers one request on `socket`.
async fn answer(socket: &mut TcpStream, response: &str) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(socket.read(&mut byte).await.unwrap(), 1, "the client closed");
        seen.push(byte[0]);
    }
    socket.write_all(response.as_bytes()).await.unwrap();
}

/// Sends a request over the lease and reads its response's body.
async fn exchange(lease: &mut Lease) -> Vec<u8> {
    let stream = lease.stream();
    stream.send_head(&RequestHead::new(Method::GET, "a.test", "/"), EndStream::Yes);
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    let ResponseFrame::Head(_, mut end) = poll_fn(|cx| stream.poll_head(cx)).await.unwrap() else { panic!() };
    let mut body = Vec::new();
    while !end.is_end() {
        let BodyFrame::Data(data, last) = poll_fn(|cx| stream.poll_body(cx)).await.unwrap() else { panic!() };
        body.extend_from_slice(&data);
        end = last;
    }
    body
}

/// Lets other tasks and the sockets run until `done`.
async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

#[tokio::test]
async fn a_connection_is_reused_and_its_end_is_noticed() {
    let (listener, address) = listen().await;
    let shared = shared(&Maxima::default());
    let test = async {
        let pool = pool(sockets(address.clone(), &shared), &shared);
        let (lease, accepted) = tokio::join!(pool.acquire(), listener.accept());
        let (mut lease, mut server) = (lease.unwrap(), accepted.unwrap().0);
        assert!(!lease.is_reused());
        assert_eq!(lease.facts().remote_address.as_deref(), Some(&address));
        let id = lease.facts().id;
        let (body, ()) = tokio::join!(exchange(&mut lease), answer(&mut server, OK));
        assert_eq!(body, b"hi");
        lease.finish();

        // An idle connection is an answer at the first poll.
        let mut acquire = pool.acquire();
        let polled = Pin::new(&mut acquire).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Ok(mut lease)) = polled else { panic!("not at once") };
        assert!(lease.is_reused() && lease.facts().id == id);
        tokio::join!(exchange(&mut lease), answer(&mut server, OK));
        lease.finish();

        drop(server);
        until("the FIN is noticed", || pool.is_empty()).await;
        assert_eq!(shared.stats.upstream_cx_destroy_remote().value(), 1);
        assert_eq!(shared.stats.upstream_cx_destroy_with_active_rq().value(), 0);
        assert_eq!(shared.stats.upstream_cx_http1_total().value(), 1);
        assert_eq!(shared.stats.upstream_cx_rx_bytes_total().value(), 2 * OK.len() as u64);
        assert!(shared.stats.upstream_cx_tx_bytes_total().value() > 0);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn waiting_overflow_and_the_next_in_line() {
    let (listener, address) = listen().await;
    let shared = shared(&Maxima { connections: 1, pending: 1, ..Maxima::default() });
    let test = async {
        let pool = pool(sockets(address, &shared), &shared);
        let (lease, accepted) = tokio::join!(pool.acquire(), listener.accept());
        let (mut lease, mut server) = (lease.unwrap(), accepted.unwrap().0);
        let second = pool.acquire();
        let refused = pool.acquire().await.err().unwrap();
        assert_eq!(refused, PoolError::Overflow);
        tokio::join!(exchange(&mut lease), answer(&mut server, OK));
        lease.finish();
        let mut lease = second.await.unwrap();
        assert!(lease.is_reused());
        // The answer announces the end: the next request needs a new connection.
        let last = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        tokio::join!(exchange(&mut lease), answer(&mut server, last));
        lease.finish();
        assert_eq!(shared.stats.upstream_cx_close_notify().value(), 1);
        assert!(pool.is_empty());
        let (lease, _accepted) = tokio::join!(pool.acquire(), listener.accept());
        drop(lease.unwrap());
        assert_eq!(shared.stats.upstream_cx_destroy_local_with_active_rq().value(), 1);
        assert_eq!(shared.limits.connections.used(), 0);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_refusal_says_why() {
    let (listener, address) = listen().await;
    drop(listener);
    let shared = shared(&Maxima::default());
    let test = async {
        let error = pool(sockets(address, &shared), &shared).acquire().await.err().unwrap();
        assert_eq!(error.reason().as_str(), "remote connection failure");
        assert_eq!(error.transport_failure(), Some("delayed_connect_error:_Connection_refused"));
        assert_eq!(shared.stats.upstream_cx_connect_fail().value(), 1);
        assert_eq!(shared.stats.upstream_cx_destroy_remote().value(), 1);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_end_an_idle_connection() {
    let (listener, address) = listen().await;
    let shared = shared(&Maxima::default());
    let test = async {
        let pool = pool(sockets(address, &shared), &shared);
        let (lease, accepted) = tokio::join!(pool.acquire(), listener.accept());
        let (mut lease, mut server) = (lease.unwrap(), accepted.unwrap().0);
        tokio::join!(exchange(&mut lease), answer(&mut server, OK));
        lease.finish();
        server.write_all(OK.as_bytes()).await.unwrap();
        until("the bytes are noticed", || pool.is_empty()).await;
        assert_eq!(shared.stats.upstream_cx_destroy_local().value(), 1);
        assert_eq!(shared.stats.upstream_cx_protocol_error().value(), 0);
    };
    LocalSet::new().run_until(test).await;
}

/// A socket on which nothing ever happens.
struct Silent;

impl Io for Silent {
    fn poll_read(&mut self, _: &mut Context<'_>, _: &mut BytesMut) -> Poll<std::io::Result<usize>> {
        Poll::Pending
    }
    fn poll_read_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
    fn poll_write(&mut self, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }
    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn abort_on_drop(&mut self) {}
    fn local_address(&self) -> Option<Address> {
        None
    }
    fn peer_address(&self) -> Option<Address> {
        None
    }
}

/// Connects after a delay.
struct After(Duration);

impl Connect<Opened> for After {
    fn connect(&self) -> Pin<Box<dyn Future<Output = Connected>>> {
        let delay = self.0;
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            let conn: Box<dyn Conn> = Box::new(ClientConn::new(Box::new(Silent), Rc::default()));
            let protocol = Version::HTTP_11;
            Ok((conn, ConnFacts { id: 1, local_address: None, remote_address: None, protocol, tls: None }))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn connect_timeout_fails_the_request_in_time() {
    let shared = shared(&Maxima::default());
    let test = async {
        let pool = pool(After(Duration::from_secs(60)), &shared);
        let started = Instant::now();
        let error = pool.acquire().await.err().unwrap();
        assert_eq!(error.reason().as_str(), "connection timeout");
        assert_eq!(started.elapsed(), Duration::from_millis(500));
        assert_eq!(shared.stats.upstream_cx_connect_timeout().value(), 1);
        assert!(pool.is_empty());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn an_unused_connection_idles_out() {
    let shared = shared(&Maxima::default());
    let test = async {
        let pool = pool(After(Duration::from_millis(100)), &shared);
        let mut acquire = pool.acquire();
        assert!(Pin::new(&mut acquire).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(acquire);
        assert_eq!(shared.stats.upstream_rq_cancelled().value(), 1);
        tokio::time::sleep(Duration::from_millis(10_099)).await;
        assert_eq!(pool.connections(), 1);
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(pool.is_empty());
        assert_eq!(shared.stats.upstream_cx_idle_timeout().value(), 1);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_picked_up_goes_to_the_next() {
    let shared = shared(&Maxima { connections: 1, ..Maxima::default() });
    let test = async {
        let pool = pool(After(Duration::from_millis(100)), &shared);
        let (first, second) = (pool.acquire(), pool.acquire());
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(pool.streams(), 2);
        drop(first);
        second.await.unwrap().finish();
        assert_eq!(shared.stats.upstream_cx_total().value(), 1);
        assert_eq!(pool.connections(), 1);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_place_freed_by_another_pool_wakes_the_one_that_waits() {
    let shared = shared(&Maxima { connections: 1, ..Maxima::default() });
    let test = async {
        let a = pool(After(Duration::from_millis(1)), &shared);
        let b = pool(After(Duration::from_millis(1)), &shared);
        let lease = a.acquire().await.unwrap();
        let waiting = tokio::task::spawn_local(b.acquire());
        tokio::task::yield_now().await;
        // B has no connection and its request is the older one: A's does not stay.
        lease.finish();
        waiting.await.unwrap().unwrap().finish();
        assert_eq!((a.connections(), b.connections()), (0, 1));
    };
    LocalSet::new().run_until(test).await;
}
