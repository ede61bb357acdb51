//! Connections opened ahead of demand: their use, their peer's words and close, their idle timeout.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;

use super::*;

/// What the peer of one connection does.
#[derive(Default)]
struct Peer {
    said: VecDeque<u8>,
    closed: bool,
    reader: Option<Waker>,
}

type Peers = Rc<RefCell<Vec<Rc<RefCell<Peer>>>>>;

/// A connection to a [`Peer`].
struct Wire(Rc<RefCell<Peer>>);

impl Io for Wire {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<std::io::Result<usize>> {
        let mut peer = self.0.borrow_mut();
        if peer.said.is_empty() && !peer.closed {
            peer.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let said = std::mem::take(&mut peer.said);
        buf.extend(said.iter());
        Poll::Ready(Ok(said.len()))
    }
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut peer = self.0.borrow_mut();
        if peer.said.is_empty() && !peer.closed {
            peer.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
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

/// Connects to a new peer after 1 ms.
struct ToPeers(Peers);

impl Connect for ToPeers {
    fn connect(&self, _: Rc<TransportOptions>) -> Opening {
        let peers = self.0.clone();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let peer = Rc::new(RefCell::new(Peer::default()));
            peers.borrow_mut().push(peer.clone());
            let id = peers.borrow().len() as u64 - 1;
            Ok(Opened { io: Box::new(Wire(peer)), id, local_address: None, remote_address: None })
        })
    }
}

fn does(peer: &Rc<RefCell<Peer>>, what: impl FnOnce(&mut Peer)) {
    let mut peer = peer.borrow_mut();
    what(&mut peer);
    if let Some(reader) = peer.reader.take() {
        reader.wake();
    }
}

fn twice(idle: Duration) -> Settings {
    Settings { preconnect_ratio: 2.0, idle_timeout: Some(idle), ..settings() }
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_uses_is_closed_after_the_pools_idle_timeout() {
    let shared = shared(&Maxima::default());
    let test = async {
        let peers = Peers::default();
        let pool = pool_with(ToPeers(peers), &shared, twice(Duration::from_secs(1)));
        let session = pool.acquire().await.unwrap();
        pause(999).await;
        let stats = &shared.stats;
        assert_eq!((pool.connections(), stats.upstream_cx_idle().value()), (2, 1));
        pause(5).await;
        assert_eq!((pool.connections(), stats.upstream_cx_idle().value()), (1, 0));
        assert_eq!(stats.upstream_cx_idle_timeout().value(), 1);
        assert_eq!(stats.upstream_cx_close_reason().of(CloseReason::IdleTimeout).value(), 1);
        assert_eq!(stats.upstream_cx_destroy_local().value(), 1);
        // The session's own connection has no such timeout.
        pause(5000).await;
        assert_eq!(pool.connections(), 1);
        session.lease.end(CloseReason::PeerFin, Duration::ZERO);
        assert!(pool.is_empty());
        let off = pool_with(
            ToPeers(Peers::default()),
            &shared,
            Settings { idle_timeout: None, ..twice(Duration::ZERO) },
        );
        let _session = off.acquire().await.unwrap();
        pause(36_000_000).await;
        assert_eq!(off.connections(), 2);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_session_has_it_at_once_and_whatever_its_peer_has_said() {
    let shared = shared(&Maxima::default());
    let test = async {
        let peers = Peers::default();
        let pool = pool_with(ToPeers(peers.clone()), &shared, twice(Duration::from_secs(60)));
        let _first = pool.acquire().await.unwrap();
        pause(5).await;
        does(&peers.borrow()[1], |peer| peer.said.extend(b"220 hello"));
        pause(5).await;
        does(&peers.borrow()[1], |peer| peer.said.extend(b", go on"));
        pause(5).await;
        assert_eq!(pool.connections(), 2, "what it said is no reason to close it");
        let mut second = pool.acquire().await.unwrap();
        assert_eq!(second.lease.facts().id, 1);
        let mut said = BytesMut::with_capacity(4);
        while said.len() < 16 {
            poll_fn(|cx| second.io.poll_read_ready(cx)).await.unwrap();
            poll_fn(|cx| second.io.poll_read(cx, &mut said)).await.unwrap();
        }
        assert_eq!(&said[..], b"220 hello, go on");
        pause(5).await;
        assert_eq!((pool.connections(), shared.stats.upstream_cx_total().value()), (4, 4));
        assert_eq!(shared.stats.upstream_rq_pending_total().value(), 1);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_its_peer_closes_is_gone_before_a_session_comes() {
    let shared = shared(&Maxima::default());
    let test = async {
        let peers = Peers::default();
        let pool = pool_with(ToPeers(peers.clone()), &shared, twice(Duration::from_secs(60)));
        let _first = pool.acquire().await.unwrap();
        pause(5).await;
        does(&peers.borrow()[1], |peer| peer.closed = true);
        // Seen on the way, or by the pool's task: either way no session gets it.
        let second = pool.acquire().await.unwrap();
        assert_eq!(second.lease.facts().id, 2);
        pause(5).await;
        does(&peers.borrow()[3], |peer| peer.closed = true);
        pause(5).await;
        let reasons = shared.stats.upstream_cx_close_reason();
        assert_eq!(reasons.of(CloseReason::PeerFin).value(), 2);
        assert_eq!(shared.stats.upstream_cx_destroy_remote().value(), 2);
    };
    LocalSet::new().run_until(test).await;
}
