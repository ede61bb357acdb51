//! Relays and partings between ends in memory, in virtual time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tidegate_net::{BoxIo, Io};
use tidegate_testkit::io::{Link, MemIo, pair, pair_over};
use tidegate_types::{CloseReason, Drain, DrainPhase};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant;

use crate::end::{End, Parting, Side};
use crate::part::{Leaving, part};
use crate::relay::{Counts, Relay};

/// A relay on a task of its own, between a client and an origin that the test plays.
struct Scene {
    client: MemIo,
    origin: MemIo,
    over: JoinHandle<(End, Counts)>,
}

fn scene(downstream: (MemIo, MemIo), upstream: (MemIo, MemIo), limit: usize) -> Scene {
    let (client, mut inner) = downstream;
    let (mut outer, origin) = upstream;
    let over = tokio::task::spawn_local(async move {
        let mut relay = Relay::new(BytesMut::new(), limit);
        let end = poll_fn(|cx| match relay.poll(cx, &mut inner, &mut outer) {
            Some(end) => Poll::Ready(end),
            None => Poll::Pending,
        })
        .await;
        part_both(end, inner, outer);
        (end, relay.counts())
    });
    Scene { client, origin, over }
}

/// What a session does at its end, without the wait.
fn part_both(end: End, inner: MemIo, outer: MemIo) {
    for (side, io) in [(Side::Downstream, inner), (Side::Upstream, outer)] {
        drop(Leaving::new(Box::new(io), end.parting(side), end.reason(side)));
    }
}

const LIMIT: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn a_small_message_is_one_read_and_one_write() {
    let test = async {
        let (downstream, upstream) = (pair(), pair());
        let (inner, outer) = (downstream.1.calls(), upstream.0.calls());
        let mut scene = scene(downstream, upstream, LIMIT);
        for _ in 0..3 {
            scene.client.write_all(b"ping").await;
            assert_eq!(scene.origin.read_exact(4).await, "ping");
            scene.origin.write_all(b"pong").await;
            assert_eq!(scene.client.read_exact(4).await, "pong");
        }
        assert_eq!((inner.borrow().reads, inner.borrow().writes), (3, 3));
        assert_eq!((outer.borrow().reads, outer.borrow().writes), (3, 3));
        scene.client.shutdown().await;
        assert_eq!(scene.origin.read_to_end().await, "");
        scene.origin.shutdown().await;
        let (end, counts) = scene.over.await.unwrap();
        assert_eq!(end, End::Both { first: Side::Downstream });
        assert_eq!((counts.bytes.received, counts.bytes.sent), (12, 12));
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn each_direction_ends_by_itself() {
    let test = async {
        let mut scene = scene(pair(), pair(), LIMIT);
        scene.origin.write_all(b"bye").await;
        scene.origin.shutdown().await;
        assert_eq!(scene.client.read_to_end().await, "bye");
        // The other direction goes on.
        scene.client.write_all(b"more").await;
        assert_eq!(scene.origin.read_exact(4).await, "more");
        assert!(!scene.over.is_finished());
        scene.client.shutdown().await;
        assert_eq!(scene.over.await.unwrap().0, End::Both { first: Side::Upstream });
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_passes_in_either_direction() {
    let test = async {
        let mut one = scene(pair(), pair(), LIMIT);
        one.origin.write_all(b"last").await;
        assert_eq!(one.client.read_exact(4).await, "last");
        one.origin.reset();
        assert!(one.client.try_read().await.is_err(), "the client sees an RST");
        let expected = End::Broken { side: Side::Upstream, reason: CloseReason::PeerRst, finished: false };
        assert_eq!(one.over.await.unwrap().0, expected);

        let mut other = scene(pair(), pair(), LIMIT);
        other.client.reset();
        assert!(other.origin.try_read().await.is_err(), "the origin sees an RST");
        let expected = End::Broken { side: Side::Downstream, reason: CloseReason::PeerRst, finished: false };
        assert_eq!(other.over.await.unwrap().0, expected);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_that_cannot_be_written_on() {
    let test = async {
        let narrow = Link { window: 1000, ..Link::default() };
        let wide = Link { window: 1 << 20, ..Link::default() };
        let mut scene = scene(pair_over(wide), pair_over(narrow), 4096);
        let sent: Vec<u8> = (0..200_000_u32).map(|i| i as u8).collect();
        scene.client.write_all(&sent).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The origin reads nothing: its window and one buffer are all that left the client's side.
        let taken = scene.origin.read_available().len();
        assert!(taken <= 1000, "{taken}");
        scene.client.shutdown().await;
        let rest = scene.origin.read_to_end().await;
        assert_eq!(rest[..], sent[taken..]);
        scene.origin.shutdown().await;
        let (_, counts) = scene.over.await.unwrap();
        let stats = (crate::TcpStats::detached(), tidegate_pool::stats::UpstreamStats::detached());
        counts.add(&Counts::default(), &stats.0, &stats.1);
        let paused = stats.0.downstream_flow_control_paused_reading_total().value();
        assert!(paused > 0);
        assert_eq!(paused, stats.0.downstream_flow_control_resumed_reading_total().value());
        assert_eq!(stats.1.upstream_cx_tx_bytes_total().value(), sent.len() as u64);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn bytes_stay_in_order_however_they_are_cut() {
    let test = async {
        let link = Link { max_read: 3, max_write: 2, latency: Duration::from_millis(1), ..Link::default() };
        let mut scene = scene(pair_over(link), pair_over(link), LIMIT);
        let sent: Vec<u8> = (0..500_u32).map(|i| (i * 7) as u8).collect();
        scene.client.write_all(&sent).await;
        scene.client.shutdown().await;
        assert_eq!(scene.origin.read_to_end().await[..], sent[..]);
        scene.origin.write_all(&sent).await;
        scene.origin.shutdown().await;
        assert_eq!(scene.client.read_to_end().await[..], sent[..]);
        scene.over.await.unwrap();
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test(start_paused = true)]
async fn late_bytes_meet_a_fin_and_patience_ends() {
    let test = async {
        let drain = Drain::new();
        let begin = |io: MemIo| {
            let io: BoxIo = Box::new(io);
            Leaving::new(io, Parting::Fin, CloseReason::IdleTimeout)
        };
        // A peer that answers the FIN: over at once, and what it sent in between is taken.
        let (mut peer, inner) = pair();
        peer.write_all(b"crossing").await;
        let watch = drain.watch();
        let started = Instant::now();
        let parting = tokio::task::spawn_local(async move { part([begin(inner), None], &watch).await });
        assert_eq!(peer.read_to_end().await, "");
        peer.write_all(b"late").await;
        peer.shutdown().await;
        parting.await.unwrap();
        assert!(peer.try_read().await.is_ok(), "no RST");
        assert_eq!(started.elapsed(), Duration::ZERO);
        // One that does not is left after a second.
        let (_silent, inner) = pair();
        let watch = drain.watch();
        part([None, begin(inner)], &watch).await;
        assert_eq!(started.elapsed(), Duration::from_secs(1));
        // And nobody is waited for when the process goes.
        let (_silent, inner) = pair();
        drain.set(DrainPhase::CloseAll);
        part([begin(inner), None], &watch).await;
        assert_eq!(started.elapsed(), Duration::from_secs(1));
    };
    LocalSet::new().run_until(test).await;
}

/// An idle relay holds no buffer: what was taken is back when a message has passed.
#[tokio::test(start_paused = true)]
async fn an_idle_relay_holds_nothing() {
    let (mut client, mut inner) = pair();
    let (mut outer, mut origin) = pair();
    let mut relay = Relay::new(BytesMut::new(), LIMIT);
    client.write_all(b"ping").await;
    poll_fn(|cx| {
        assert!(relay.poll(cx, &mut inner as &mut dyn Io, &mut outer).is_none());
        Poll::Ready(())
    })
    .await;
    assert!(!relay.holds_bytes());
    assert_eq!(origin.read_exact(4).await, "ping");
}

mod choices {
    use std::sync::Arc;

    use tidegate_config::TcpProxyConfig;
    use tidegate_config::tcp_proxy::{BackOff, TcpClusterWeight, TcpClusters};
    use tidegate_stats::Store;

    use super::*;
    use crate::TcpProxy;

    fn proxy(change: impl FnOnce(&mut TcpProxyConfig)) -> Arc<TcpProxy> {
        let mut config = TcpProxyConfig {
            stat_prefix: "t".into(),
            clusters: TcpClusters::One("one".into()),
            metadata_match: Vec::new(),
            hash_policy: None,
            idle_timeout: None,
            max_duration: None,
            max_duration_jitter_percent: 0.0,
            max_connect_attempts: 1,
            backoff: None,
            access_log: Vec::new(),
            access_log_options: Default::default(),
            connect_mode: Default::default(),
            max_early_data: None,
        };
        change(&mut config);
        TcpProxy::new(Arc::new(config), Vec::new(), &Store::new(1))
    }

    #[test]
    fn clusters_by_weight() {
        let weight =
            |name: &str, weight| TcpClusterWeight { name: name.into(), weight, metadata_match: Vec::new() };
        let both = [weight("a", u32::MAX), weight("b", u32::MAX)];
        let proxy = proxy(|config| config.clusters = TcpClusters::Weighted(both.into()));
        let most = u64::from(u32::MAX);
        let of = |random: u64| proxy.choose_cluster(|| random).0.to_string();
        assert_eq!(
            [of(0), of(most - 1), of(most), of(2 * most - 1), of(2 * most)],
            ["a", "a", "b", "b", "a"]
        );
    }

    #[test]
    fn durations_and_waits() {
        let second = Duration::from_secs(1);
        let jittered = proxy(|config| {
            (config.max_duration, config.max_duration_jitter_percent) = (Some(second), 50.0);
        });
        assert_eq!(jittered.max_duration(|| 0.0), Some(second));
        assert_eq!(jittered.max_duration(|| 1.0), Some(second * 3 / 2));
        let waiting = proxy(|config| config.backoff = Some(BackOff { base: second, max: 3 * second }));
        let waits = [1, 2, 3, 40].map(|attempt| waiting.back_off(attempt, || 1.0).unwrap().as_secs());
        assert_eq!(waits, [1, 2, 3, 3]);
        assert_eq!(proxy(|_| {}).back_off(1, || 1.0), None);
    }
}
