//! The pool against peers that speak HTTP/2 by hand, in memory and in virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Method, Version};
use tidegate_codec::h2::client::connect;
use tidegate_codec::stream::{BodyFrame, ResetCode, ResponseFrame, StreamError};
use tidegate_testkit::h2::{Frame, PREFACE, code, hpack, kind, setting};
use tidegate_testkit::io::{MemIo, pair};
use tidegate_types::{EndStream, RequestHead, ResetReason};
use tokio::task::LocalSet;

use super::*;
use crate::error::PoolError;
use crate::h1::ConnFacts;
use crate::host::HostCounters;
use crate::http::Failed;
use crate::limits::{Limits, Maxima};
use crate::machine::{Carries, Settings, Shared};
use crate::stats::UpstreamStats;

mod ends;

/// How a host answers attempts, and the far ends of those that succeeded.
#[derive(Default)]
struct Host {
    peers: RefCell<Vec<Peer>>,
    /// What attempts take, the first ones; the others nothing.
    delays: RefCell<Vec<Duration>>,
    refuses: Cell<bool>,
    codec: Rc<ClientOptions>,
    codec_stats: Rc<Counting>,
}

impl Default for Counting {
    fn default() -> Self {
        Self(CodecStats::detached())
    }
}

impl Connect<Opened> for Rc<Host> {
    fn connect(&self) -> Pin<Box<dyn Future<Output = Result<Opened, PoolError>>>> {
        let host = self.clone();
        let refused = self.refuses.get();
        let delay = host.delays.borrow_mut().pop().unwrap_or_default();
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            if refused {
                let reason = ResetReason::RemoteConnectionFailure;
                return Err(PoolError::Connect { reason, transport: None });
            }
            let (near, far) = pair();
            let mut peers = host.peers.borrow_mut();
            peers.push(Peer { io: Some(far), seen: Vec::new() });
            let id = peers.len() as u64;
            let protocol = Version::HTTP_2;
            let facts = ConnFacts { id, local_address: None, remote_address: None, protocol, tls: None };
            let (conn, driver) =
                connect(Box::new(near), host.codec.clone(), host.codec_stats.clone()).unwrap();
            Ok(Opened { conn, driver, facts })
        })
    }
}

/// The far end of a connection.
struct Peer {
    io: Option<MemIo>,
    seen: Vec<u8>,
}

impl Peer {
    fn send(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        let mut writing = Box::pin(self.io.as_mut().unwrap().write_all(&bytes));
        assert!(writing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    /// The frames that came since the last look, without SETTINGS and WINDOW_UPDATE.
    fn frames(&mut self) -> Vec<Frame> {
        self.seen.extend_from_slice(&self.io.as_mut().unwrap().read_available());
        if self.seen.starts_with(PREFACE) {
            self.seen.drain(..PREFACE.len());
        }
        let mut frames = Vec::new();
        while let Some((frame, length)) = Frame::parse(&self.seen) {
            self.seen.drain(..length);
            if !matches!(frame.kind, kind::SETTINGS | kind::WINDOW_UPDATE) {
                frames.push(frame);
            }
        }
        frames
    }
}

/// A pool and its host.
struct Lab {
    pool: Rc<Pool>,
    host: Rc<Host>,
    shared: Shared,
}

struct Alone;

impl Neighbours for Alone {
    fn reclaim(&self) {}
}

fn settings() -> Settings {
    Settings {
        connect_timeout: Duration::from_millis(500),
        idle_timeout: Some(Duration::from_secs(10)),
        max_connection_duration: None,
        max_streams: None,
        concurrency: 100,
        preconnect_ratio: 1.0,
        carries: Carries::Requests,
        timeout_text: None,
    }
}

impl Lab {
    fn new() -> Self {
        Self::with(settings(), ClientOptions::default(), &Maxima::default())
    }

    /// A pool with at most so many streams a connection.
    fn of_streams(streams: u32) -> Self {
        let codec = ClientOptions { max_concurrent_streams: streams, ..ClientOptions::default() };
        Self::with(Settings { concurrency: streams, ..settings() }, codec, &Maxima::default())
    }

    fn with(settings: Settings, codec: ClientOptions, maxima: &Maxima) -> Self {
        let shared = Shared {
            limits: Arc::new(Limits::detached(maxima)),
            host_connections: None,
            stats: UpstreamStats::detached(),
            host: HostCounters::detached(),
            idle_limit: None,
            tally: None,
        };
        let host = Rc::new(Host { codec: Rc::new(codec), ..Host::default() });
        let nobody: Weak<dyn Neighbours> = Weak::<Alone>::new();
        let pool = Pool::new(Rc::new(settings), shared.clone(), Rc::new(host.clone()), nobody);
        Self { pool, host, shared }
    }

    /// A request on its way.
    async fn ask(&self) -> Lease {
        let mut lease = self.pool.acquire().await.unwrap();
        send(&mut lease);
        lease
    }

    /// Requests that come at the same time.
    async fn ask_together(&self, requests: usize) -> Vec<Lease> {
        let acquires: Vec<_> = (0..requests).map(|_| self.pool.acquire()).collect();
        let mut leases = Vec::new();
        for acquire in acquires {
            leases.push(acquire.await.unwrap());
        }
        leases.iter_mut().for_each(send);
        settle().await;
        leases
    }

    fn peer<T>(&self, index: usize, act: impl FnOnce(&mut Peer) -> T) -> T {
        act(&mut self.host.peers.borrow_mut()[index])
    }

    fn stats(&self) -> &UpstreamStats {
        &self.shared.stats
    }
}

fn send(lease: &mut Lease) {
    lease.stream().send_head(&RequestHead::new(Method::GET, "a.test", "/"), EndStream::Yes);
}

fn ok(stream: u32, end: bool) -> Frame {
    Frame::headers(stream, hpack::encode(&[(":status", "200")]), end)
}

async fn head(lease: &mut Lease) -> Result<(), StreamError> {
    match poll_fn(|cx| lease.stream().poll_head(cx)).await? {
        ResponseFrame::Head(..) => Ok(()),
        ResponseFrame::Informational(head) => panic!("{head:?}"),
    }
}

fn is_refused(result: &Result<(), StreamError>) -> bool {
    matches!(result, Err(StreamError::Reset { code: ResetCode::Refused, .. }))
}

/// Lets everything happen that can.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn one_connection_carries_what_comes_and_is_used_again() {
    local(async {
        let lab = Lab::new();
        let leases = lab.ask_together(20).await;
        assert_eq!((lab.pool.connections(), lab.pool.streams()), (1, 20));
        let heads = lab.peer(0, Peer::frames);
        assert_eq!(heads.len(), 20);
        lab.peer(0, |peer| peer.send(&[Frame::settings(&[])]));
        for (index, mut lease) in leases.into_iter().enumerate() {
            lab.peer(0, |peer| peer.send(&[ok(2 * index as u32 + 1, true)]));
            head(&mut lease).await.unwrap();
            lease.finish();
        }
        assert_eq!((lab.pool.connections(), lab.pool.streams()), (1, 0));
        let lease = lab.ask().await;
        assert!(lease.is_reused());
        assert_eq!(lease.facts().protocol, Version::HTTP_2);
        let stats = lab.stats();
        assert_eq!((stats.upstream_cx_reuse_hit().value(), stats.upstream_cx_reuse_miss().value()), (1, 20));
        assert_eq!((stats.upstream_cx_total().value(), stats.upstream_rq_total().value()), (1, 21));
        assert_eq!(stats.upstream_rq_wait_for_cx_ms().count(), 21);
        assert_eq!(lab.host.codec_stats.0.streams_active().value(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn requests_do_not_wait_for_settings_and_leave_with_the_preface() {
    local(async {
        let lab = Lab::new();
        let _lease = lab.ask().await;
        settle().await;
        let bytes = lab.peer(0, |peer| peer.io.as_mut().unwrap().read_available());
        assert!(bytes.starts_with(PREFACE));
        assert_eq!(lab.stats().upstream_cx_connect_fail().value(), 0);
        assert_eq!(lab.pool.connections(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_full_connection_is_joined_by_another_up_to_the_breaker() {
    local(async {
        let maxima = Maxima { connections: 2, ..Maxima::default() };
        let codec = ClientOptions { max_concurrent_streams: 2, ..ClientOptions::default() };
        let lab = Lab::with(Settings { concurrency: 2, ..settings() }, codec, &maxima);
        let mut leases = lab.ask_together(4).await;
        assert_eq!(lab.pool.connections(), 2);
        let fifth = lab.pool.acquire();
        settle().await;
        assert_eq!((lab.pool.connections(), lab.stats().upstream_cx_overflow().value() > 0), (2, true));
        lab.peer(0, |peer| peer.send(&[Frame::settings(&[]), ok(1, true)]));
        head(&mut leases[0]).await.unwrap();
        leases.remove(0).finish();
        let fifth = fifth.await.unwrap();
        assert_eq!(fifth.facts().id, 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_peers_limit_holds_and_a_raise_wakes_the_queue() {
    local(async {
        let maxima = Maxima { connections: 1, ..Maxima::default() };
        let lab = Lab::with(settings(), ClientOptions::default(), &maxima);
        let _first = lab.ask().await;
        settle().await;
        lab.peer(0, |peer| peer.send(&[Frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)])]));
        settle().await;
        let mut second = Box::pin(lab.ask());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(second.as_mut().poll(&mut cx).is_pending(), "the peer takes one");
        lab.peer(0, |peer| peer.send(&[Frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, 2)])]));
        settle().await;
        let Poll::Ready(_second) = second.as_mut().poll(&mut cx) else { panic!("not woken") };
        let heads = lab.peer(0, |peer| {
            let frames = peer.frames();
            frames.iter().filter(|frame| frame.kind == kind::HEADERS).count()
        });
        settle().await;
        assert_eq!(heads + lab.peer(0, Peer::frames).len(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_configured_limit_bounds_the_peers() {
    local(async {
        let lab = Lab::of_streams(3);
        let _leases = lab.ask_together(3).await;
        lab.peer(0, |peer| peer.send(&[Frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, 1000)])]));
        settle().await;
        let _fourth = lab.ask().await;
        assert_eq!(lab.pool.connections(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_takes_is_remembered_for_its_next_connection() {
    local(async {
        let lab = Lab::new();
        let _first = lab.ask().await;
        settle().await;
        lab.peer(0, |peer| peer.send(&[Frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, 2)])]));
        settle().await;
        // One of five fits the first; the others are spread before any SETTINGS of theirs came.
        let _leases = lab.ask_together(5).await;
        assert_eq!(lab.pool.connections(), 3);
        let heads: Vec<_> = (0..3).map(|index| lab.peer(index, Peer::frames).len()).collect();
        assert_eq!(heads, [2, 2, 2]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_none_keeps_the_connection_for_later() {
    local(async {
        let lab = Lab::new();
        let lease = lab.ask().await;
        settle().await;
        lab.peer(0, |peer| peer.send(&[Frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, 0)])]));
        settle().await;
        drop(lease);
        settle().await;
        assert_eq!(lab.pool.connections(), 1);
        let second = lab.ask().await;
        assert_eq!((lab.pool.connections(), second.facts().id), (2, 2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn max_requests_waits_for_none() {
    local(async {
        let lab = Lab::with(
            Settings { max_streams: Some(2), ..settings() },
            ClientOptions::default(),
            &Maxima { requests: 3, ..Maxima::default() },
        );
        let leases = lab.ask_together(3).await;
        assert_eq!((lab.pool.connections(), lab.stats().upstream_cx_max_requests().value()), (2, 1));
        // `max_requests` counts streams, not connections.
        assert_eq!(lab.pool.acquire().await.err(), Some(PoolError::RequestOverflow));
        assert_eq!(lab.stats().upstream_rq_active_overflow().value(), 1);
        drop(leases);
        settle().await;
        assert_eq!((lab.pool.connections(), lab.shared.limits.requests.used()), (1, 0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_fails_only_streams_without_hope() {
    local(async {
        let lab = Lab::of_streams(1);
        // Popped from the end: the first attempt hangs.
        lab.host.delays.replace(vec![Duration::from_millis(100), Duration::from_secs(60)]);
        let first = lab.pool.acquire();
        tokio::time::sleep(Duration::from_millis(450)).await;
        let second = lab.pool.acquire();
        let (first, second) = tokio::join!(first, second);
        // One attempt timed out, the other serves one of them; Envoy fails both.
        assert_eq!([first.is_ok(), second.is_ok()].iter().filter(|ok| **ok).count(), 1);
        assert_eq!(lab.stats().upstream_cx_connect_timeout().value(), 1);
        assert_eq!(lab.stats().upstream_rq_pending_failure_eject().value(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_closes_in_time_and_in_order() {
    local(async {
        let lab = Lab::new();
        let mut lease = lab.ask().await;
        settle().await;
        lab.peer(0, |peer| peer.send(&[Frame::settings(&[]), ok(1, true)]));
        head(&mut lease).await.unwrap();
        lease.finish();
        tokio::time::sleep(Duration::from_millis(9_990)).await;
        assert_eq!(lab.pool.connections(), 1);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(lab.pool.is_empty());
        assert_eq!(lab.stats().upstream_cx_idle_timeout().value(), 1);
        assert_eq!(lab.stats().upstream_cx_destroy_local().value(), 1);
        // FIN without GOAWAY, as Envoy's.
        assert!(lab.peer(0, Peer::frames).iter().all(|frame| frame.kind == kind::HEADERS));
        assert_eq!(lab.host.codec_stats.0.goaway_sent().value(), 0);
        let mut io = lab.host.peers.borrow_mut()[0].io.take().unwrap();
        assert!(io.read_some().await.is_empty());
    })
    .await;
}
