//! The pool against hosts that choose a protocol, in memory and in virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use tidegate_codec::h1::ClientConn;
use tidegate_codec::h2::client::connect;
use tidegate_testkit::io::{MemIo, pair};
use tokio::task::LocalSet;

use super::*;
use crate::error::PoolError;
use crate::h1::ConnFacts;
use crate::h2::{CodecStats, Counting};
use crate::host::HostCounters;
use crate::limits::{Limits, Maxima};
use crate::machine::Carries;
use crate::stats::UpstreamStats;

/// What attempts get, 10 ms after they began: the last one of the list first, then always HTTP/1.1.
#[derive(Default)]
struct Host {
    chooses: RefCell<Vec<Version>>,
    far_ends: RefCell<Vec<MemIo>>,
}

impl Connect<Opened> for Rc<Host> {
    fn connect(&self) -> Pin<Box<dyn Future<Output = Result<Opened, PoolError>>>> {
        let host = self.clone();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let (near, far) = pair();
            host.far_ends.borrow_mut().push(far);
            let protocol = host.chooses.borrow_mut().pop().unwrap_or(Version::HTTP_11);
            let id = host.far_ends.borrow().len() as u64;
            let facts = ConnFacts { id, local_address: None, remote_address: None, protocol, tls: None };
            if protocol == Version::HTTP_11 {
                return Ok(Opened::H1(Box::new(ClientConn::new(Box::new(near), Rc::default())), facts));
            }
            let observer = Rc::new(Counting(CodecStats::detached()));
            let (conn, driver) = connect(Box::new(near), Rc::default(), observer).unwrap();
            Ok(Opened::H2(h2::Opened { conn, driver, facts }))
        })
    }
}

struct Alone;

impl Neighbours for Alone {
    fn reclaim(&self) {}
}

fn pool(chooses: &[Version]) -> (Rc<Pool>, Rc<Host>, UpstreamStats) {
    let settings = Settings {
        connect_timeout: Duration::from_millis(500),
        idle_timeout: None,
        max_connection_duration: None,
        max_streams: None,
        concurrency: 100,
        preconnect_ratio: 1.0,
        carries: Carries::Requests,
        timeout_text: None,
    };
    let shared = Shared {
        limits: Arc::new(Limits::detached(&Maxima::default())),
        host_connections: None,
        stats: UpstreamStats::detached(),
        host: HostCounters::detached(),
        idle_limit: None,
        tally: None,
    };
    let stats = shared.stats.clone();
    let host = Rc::new(Host { chooses: RefCell::new(chooses.to_vec()), ..Host::default() });
    let nobody: Weak<dyn Neighbours> = Weak::<Alone>::new();
    (Pool::new(Rc::new(settings), shared, Rc::new(host.clone()), nobody), host, stats)
}

fn version(lease: &Lease) -> Version {
    match lease {
        Lease::H1(lease) => lease.facts().protocol,
        Lease::H2(lease) => lease.facts().protocol,
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_shares_one_connection_if_the_peer_chooses_http2() {
    LocalSet::new()
        .run_until(async {
            let (pool, host, stats) = pool(&[Version::HTTP_2]);
            let waiting = [pool.acquire(), pool.acquire(), pool.acquire()];
            let mut leases = Vec::new();
            for acquire in waiting {
                leases.push(acquire.await.unwrap());
            }
            assert!(leases.iter().all(|lease| version(lease) == Version::HTTP_2));
            assert_eq!((host.far_ends.borrow().len(), stats.upstream_cx_total().value()), (1, 1));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_chooses_http1_gets_a_connection_for_each() {
    LocalSet::new()
        .run_until(async {
            let (pool, host, stats) = pool(&[]);
            let waiting = [pool.acquire(), pool.acquire(), pool.acquire()];
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(stats.upstream_cx_total().value(), 1, "HTTP/2 would do with one");
            let mut leases = Vec::new();
            for acquire in waiting {
                leases.push(acquire.await.unwrap());
            }
            assert!(leases.iter().all(|lease| version(lease) == Version::HTTP_11));
            assert_eq!(host.far_ends.borrow().len(), 3);
            // It is expected to choose so again: each of a burst gets a connection at once.
            let waiting = [pool.acquire(), pool.acquire()];
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(stats.upstream_cx_total().value(), 5);
            drop(waiting);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_may_choose_otherwise_each_time() {
    LocalSet::new()
        .run_until(async {
            let (pool, _host, stats) = pool(&[Version::HTTP_2]);
            let first = pool.acquire().await.unwrap();
            assert_eq!(version(&first), Version::HTTP_2);
            // The connection goes, and the next one is another.
            pool.drain(tidegate_types::CloseReason::HostUnhealthy);
            let second = pool.acquire();
            drop(first);
            assert_eq!(version(&second.await.unwrap()), Version::HTTP_11);
            assert_eq!(stats.upstream_cx_total().value(), 2);
        })
        .await;
}
