//! Sessions over connections that only pretend, in virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use tidegate_net::Io;
use tidegate_types::{Address, ResetReason};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::*;
use crate::error::PoolError;
use crate::host::HostCounters;
use crate::limits::{Limit, Limits, Maxima};
use crate::stats::UpstreamStats;

mod spare;

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

/// Connects, or is refused, after a delay.
struct After(Duration, Result<(), ()>);

impl Connect for After {
    fn connect(&self, _: Rc<TransportOptions>) -> Opening {
        let (delay, result) = (self.0, self.1);
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            match result {
                Ok(()) => {
                    Ok(Opened { io: Box::new(Silent), id: 1, local_address: None, remote_address: None })
                }
                Err(()) => {
                    let reason = ResetReason::RemoteConnectionFailure;
                    Err(PoolError::Connect { reason, transport: None })
                }
            }
        })
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

fn pool(connector: After, shared: &Shared) -> Rc<Pool> {
    pool_with(connector, shared, settings())
}

fn pool_with(connector: impl Connect + 'static, shared: &Shared, settings: Settings) -> Rc<Pool> {
    let nobody: Weak<dyn Neighbours> = Weak::<Alone>::new();
    Pool::new(&settings, shared.clone(), Rc::new(connector), Rc::default(), nobody)
}

fn settings() -> Settings {
    Settings {
        connect_timeout: Duration::from_millis(500),
        idle_timeout: Some(Duration::from_secs(600)),
        max_connection_duration: None,
        max_streams: None,
        concurrency: 1,
        preconnect_ratio: 1.0,
        carries: Carries::Sessions,
        timeout_text: None,
    }
}

fn quick() -> After {
    After(Duration::from_millis(1), Ok(()))
}

#[tokio::test(start_paused = true)]
async fn one_session_to_a_connection_and_who_ended_it() {
    let shared = shared(&Maxima::default());
    let test = async {
        let pool = pool(quick(), &shared);
        let ends =
            [CloseReason::PeerFin, CloseReason::RequestReset, CloseReason::IdleTimeout, CloseReason::PeerRst];
        for end in ends {
            let connection = pool.acquire().await.unwrap();
            assert_eq!((pool.connections(), shared.limits.requests.used()), (1, 1));
            connection.lease.end(end, Duration::ZERO);
            assert!(pool.is_empty());
        }
        drop(pool.acquire().await.unwrap());
        let stats = &shared.stats;
        assert_eq!((stats.upstream_cx_total().value(), stats.upstream_rq_total().value()), (5, 5));
        assert_eq!(
            (stats.upstream_rq_pending_total().value(), stats.upstream_cx_max_requests().value()),
            (5, 0)
        );
        assert_eq!(stats.upstream_cx_destroy_remote_with_active_rq().value(), 2);
        assert_eq!(stats.upstream_cx_destroy_local_with_active_rq().value(), 3);
        assert_eq!(stats.upstream_cx_http1_total().value(), 0);
        assert_eq!((stats.upstream_cx_active().value(), stats.upstream_rq_active().value()), (0, 0));
        assert_eq!((shared.limits.connections.used(), shared.limits.requests.used()), (0, 0));
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_reached_limit_refuses_at_once_and_waits_for_nobody() {
    let shared = shared(&Maxima { connections: 1, requests: 0, ..Maxima::default() });
    let test = async {
        let pool = pool(quick(), &shared);
        let first = pool.acquire();
        // The first has no connection yet, and its unit is taken all the same.
        assert_eq!(pool.acquire().await.err(), Some(PoolError::ConnectionOverflow));
        let connection = first.await.unwrap();
        assert_eq!(pool.acquire().await.err(), Some(PoolError::ConnectionOverflow));
        assert_eq!(shared.stats.upstream_cx_overflow().value(), 2);
        assert_eq!(shared.stats.upstream_rq_pending_total().value(), 1);
        connection.lease.end(CloseReason::PeerFin, Duration::ZERO);
        pool.acquire().await.unwrap().lease.end(CloseReason::PeerFin, Duration::ZERO);
        assert_eq!(shared.limits.connections.used(), 0);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn no_pending_allowed_is_another_refusal() {
    let shared = shared(&Maxima { pending: 0, ..Maxima::default() });
    let test = async {
        assert_eq!(pool(quick(), &shared).acquire().await.err(), Some(PoolError::Overflow));
        assert_eq!(shared.stats.upstream_rq_pending_overflow().value(), 1);
        assert_eq!(shared.limits.connections.used(), 0);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_limit_queues() {
    let mut shared = shared(&Maxima::default());
    shared.host_connections = Some(Arc::new(Limit::new(1, None, None)));
    let test = async {
        let pool = pool(quick(), &shared);
        let first = pool.acquire().await.unwrap();
        let second = tokio::task::spawn_local(pool.acquire());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!second.is_finished());
        assert_eq!(shared.stats.upstream_rq_pending_active().value(), 1);
        first.lease.end(CloseReason::PeerFin, Duration::ZERO);
        second.await.unwrap().unwrap().lease.end(CloseReason::PeerFin, Duration::ZERO);
        let abandoned = pool.acquire().await.unwrap();
        let mut waiting = pool.acquire();
        assert!(Pin::new(&mut waiting).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(shared.limits.connections.used(), 2);
        drop(waiting);
        drop(abandoned);
        assert_eq!(shared.limits.connections.used(), 0);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn giving_up_closes_the_attempt() {
    let shared = shared(&Maxima::default());
    let test = async {
        let pool = pool(After(Duration::from_millis(100), Ok(())), &shared);
        let first = pool.acquire();
        let second = pool.acquire();
        assert_eq!(pool.connections(), 2);
        drop(first);
        assert_eq!(pool.connections(), 1);
        let stats = &shared.stats;
        assert_eq!(
            (stats.upstream_rq_cancelled().value(), stats.upstream_cx_destroy_local().value()),
            (1, 1)
        );
        assert_eq!(stats.upstream_cx_connect_fail().value(), 0);
        second.await.unwrap().lease.end(CloseReason::PeerFin, Duration::ZERO);
        // One that gives up between the connection and its first look takes the connection along.
        let late = pool.acquire();
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(late);
        assert!(pool.is_empty());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn refusals_and_timeouts_are_told_apart() {
    let shared = shared(&Maxima::default());
    let test = async {
        let refused = pool(After(Duration::from_millis(1), Err(())), &shared);
        let error = refused.acquire().await.err().unwrap();
        assert_eq!(error.reason(), ResetReason::RemoteConnectionFailure);
        let silent = pool(After(Duration::from_secs(9), Ok(())), &shared);
        let started = Instant::now();
        let error = silent.acquire().await.err().unwrap();
        assert_eq!(error.reason(), ResetReason::ConnectionTimeout);
        assert_eq!(started.elapsed(), Duration::from_millis(500));
        let stats = &shared.stats;
        assert_eq!(
            (stats.upstream_cx_connect_fail().value(), stats.upstream_cx_connect_timeout().value()),
            (2, 1)
        );
        assert_eq!(
            (stats.upstream_rq_total().value(), stats.upstream_rq_pending_failure_eject().value()),
            (0, 2)
        );
        assert_eq!(shared.limits.connections.used(), 0);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_pool_lets_sessions_go_on() {
    let shared = shared(&Maxima::default());
    let test = async {
        let pool = pool(quick(), &shared);
        let running = pool.acquire().await.unwrap();
        let waiting = pool.acquire();
        pool.drain(CloseReason::HostUnhealthy);
        assert_eq!(shared.stats.upstream_cx_active().value(), 2);
        waiting.await.unwrap().lease.end(CloseReason::PeerFin, Duration::ZERO);
        running.lease.end(CloseReason::PeerFin, Duration::ZERO);
        assert!(pool.is_empty());
    };
    LocalSet::new().run_until(test).await;
}
