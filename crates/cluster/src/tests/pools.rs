//! Which pools there are, and when they go.

use http::Version;

use super::*;
use crate::Failing;

/// Says which protocol its clients speak, and answers 200 to all of them.
async fn either() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut seen = Vec::new();
                let mut multiplexed = false;
                while let Ok(1..) = socket.read_buf(&mut seen).await {
                    let mut answer = Vec::new();
                    if seen.starts_with(PREFACE) {
                        (multiplexed, answer) = (true, vec![0, 0, 0, 4, 0, 0, 0, 0, 0]);
                        seen.drain(..PREFACE.len());
                    }
                    if multiplexed {
                        answer_frames(&mut seen, &mut answer);
                    } else if seen.starts_with(b"GET") && seen.ends_with(b"\r\n\r\n") {
                        answer.extend(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                        seen.clear();
                    }
                    if socket.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address.into()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// 200 for each HEADERS.
fn answer_frames(seen: &mut Vec<u8>, answer: &mut Vec<u8>) {
    while let Some(head) = seen.first_chunk::<9>().copied() {
        let length = 9 + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if seen.len() < length {
            return;
        }
        if head[3] == 1 {
            answer.extend([0, 0, 1, 1, 5]);
            answer.extend(&head[5..]);
            answer.push(0x88);
        }
        seen.drain(..length);
    }
}

async fn exchange(cluster: &crate::Cluster, downstream: Version) -> crate::Lease {
    let host = cluster.choose_host().unwrap();
    let ask = Ask { downstream: Some(downstream), ..Ask::new(Priority::Default, Instant::now()) };
    let mut lease = cluster.acquire(&host, ask).await.unwrap();
    let stream = lease.stream();
    stream.send_head(&RequestHead::new(Method::GET, "a.test", "/"), tidegate_types::EndStream::Yes);
    std::future::poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    std::future::poll_fn(|cx| stream.poll_head(cx)).await.unwrap();
    lease
}

#[tokio::test]
async fn the_protocol_is_the_configured_one_or_the_downstreams() {
    let store = Store::new(3);
    let test = async {
        let address = either().await;
        let both = UpstreamProtocol::AsDownstream(Box::default());
        let h2 = UpstreamProtocol::Http2(Default::default());
        let h1 = UpstreamProtocol::Http1(Default::default());
        let cases = [
            ("h1", h1, Version::HTTP_2, Version::HTTP_11),
            ("h2", h2, Version::HTTP_11, Version::HTTP_2),
            ("both", both.clone(), Version::HTTP_11, Version::HTTP_11),
            ("both", both.clone(), Version::HTTP_2, Version::HTTP_2),
            ("both", both, Version::HTTP_10, Version::HTTP_11),
        ];
        for (name, protocol, downstream, upstream) in cases {
            let mut config = config(name, slice::from_ref(&address));
            config.protocol = protocol;
            let shared = build(config, &store, None);
            let directory = Directory::new(&Arc::new(Peers::default()));
            directory.apply(slice::from_ref(&shared));
            let cluster = directory.cluster(name).unwrap();
            let stats = &shared.stats().upstream;
            let before = stats.upstream_cx_http2_total().value();
            let lease = exchange(&cluster, downstream).await;
            assert_eq!(lease.facts().protocol, upstream, "{name}");
            let opened = stats.upstream_cx_http2_total().value() - before;
            assert_eq!(opened, u64::from(upstream == Version::HTTP_2));
            lease.finish();
            assert_eq!(stats.upstream_cx_active().value(), 1, "it idles");
            assert_eq!(shared.stats().http2.is_some(), name != "h1");
        }
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn protocols_and_priorities_have_pools_of_their_own_and_empty_ones_go() {
    let store = Store::new(3);
    let test = async {
        let address = either().await;
        let mut config = config("c", slice::from_ref(&address));
        config.protocol = UpstreamProtocol::AsDownstream(Box::default());
        config.common_http.max_requests_per_connection = Some(1);
        config.circuit_breakers.default =
            Thresholds { max_connection_pools: Some(2), ..config.circuit_breakers.default.clone() };
        let shared = build(config, &store, None);
        let directory = Directory::new(&Arc::new(Peers::default()));
        directory.apply(slice::from_ref(&shared));
        let cluster = directory.cluster("c").unwrap();
        let host = cluster.choose_host().unwrap();
        let pools = || shared.limits(Priority::Default).pools.used();
        let one = exchange(&cluster, Version::HTTP_11).await;
        assert_eq!((pools(), host.pools()), (1, 1));
        let two = exchange(&cluster, Version::HTTP_2).await;
        assert_eq!((pools(), host.pools()), (2, 2));
        let three = exchange(&cluster, Version::HTTP_2).await;
        assert_eq!((pools(), host.pools()), (2, 2), "another connection of the same pool");
        let high = Ask::new(Priority::High, Instant::now());
        cluster.acquire(&host, high).await.unwrap().finish();
        assert_eq!(
            (pools(), host.pools()),
            (2, 2),
            "the connection of its pool was never used, and is closed"
        );
        // Each connection carries one request.
        for (lease, left) in [(one, 1), (two, 1), (three, 0)] {
            lease.finish();
            assert_eq!((pools(), host.pools()), (left, left as usize));
        }
        exchange(&cluster, Version::HTTP_2).await.finish();
        assert_eq!((pools(), host.pools()), (0, 0));
        // One whose first request is refused does not stay either.
        shared.limits(Priority::Default).pending.set_max(0);
        let refused = cluster.acquire(&host, Ask::new(Priority::Default, Instant::now())).await;
        assert_eq!((refused.err(), host.pools()), (Some(crate::PoolError::Overflow), 0));
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_change_of_hosts_closes_what_it_concerns() {
    for all in [false, true] {
        let store = Store::new(3);
        let test = async move {
            let mut config = config("c", &[either().await, either().await]);
            config.close_connections_on_host_set_change = all;
            let shared = build(config, &store, None);
            let peers = Arc::new(Peers::default());
            let directory = Directory::new(&peers);
            directory.apply(slice::from_ref(&shared));
            let cluster = directory.cluster("c").unwrap();
            for _ in 0..2 {
                exchange(&cluster, Version::HTTP_11).await.finish();
            }
            let stats = &shared.stats().upstream;
            assert_eq!(stats.upstream_cx_idle().value(), 2);
            let kept = shared.hosts().hosts[0].clone();
            shared.set_hosts(crate::HostSet::new(vec![kept]));
            peers.tell_of_hosts(&shared);
            until("closed", || stats.upstream_cx_idle().value() == i64::from(!all)).await;
            assert_eq!(shared.stats().members.membership_total().value(), 1);
            exchange(&cluster, Version::HTTP_11).await.finish();
            assert_eq!(stats.upstream_cx_total().value(), 2 + u64::from(all));
        };
        LocalSet::new().run_until(test).await;
    }
}

#[tokio::test]
async fn a_host_that_fails_is_left_by_all_workers_at_once() {
    let store = Store::new(3);
    let test = async {
        let (a, b) = (either().await, either().await);
        let shared = build(config("c", &[a, b]), &store, None);
        let peers = Arc::new(Peers::default());
        let workers = [Directory::new(&peers), Directory::new(&peers)];
        let mut busy = Vec::new();
        for worker in &workers {
            worker.apply(slice::from_ref(&shared));
            let cluster = worker.cluster("c").unwrap();
            // To each host one that stays busy and one that idles.
            for _ in 0..4 {
                busy.push(exchange(&cluster, Version::HTTP_11).await);
            }
            busy.drain(busy.len() - 2..).for_each(crate::Lease::finish);
        }
        let stats = &shared.stats().upstream;
        let members = &shared.stats().members;
        assert_eq!((stats.upstream_cx_active().value(), stats.upstream_cx_idle().value()), (8, 4));
        let failed = shared.hosts().hosts[0].clone();
        assert!(failed.set_failing(Failing::Outlier, true) && !failed.set_failing(Failing::Outlier, true));
        assert_eq!(failed.health_flags(), "/failed_outlier_check");
        shared.health_changed();
        peers.tell_of_hosts(&shared);
        until("idle ones close", || stats.upstream_cx_idle().value() == 2).await;
        assert_eq!(stats.upstream_cx_active().value(), 6);
        assert_eq!(members.membership_healthy().value(), 1);
        assert_eq!(members.membership_change().value(), 1);
        // Its busy ones close with their requests, the other's stay.
        busy.into_iter().for_each(crate::Lease::finish);
        assert_eq!((stats.upstream_cx_active().value(), stats.upstream_cx_idle().value()), (4, 4));
        assert_eq!(stats.upstream_cx_destroy_with_active_rq().value(), 0);
        assert_eq!(stats.upstream_cx_close_reason().of(CloseReason::HostUnhealthy).value(), 4);

        failed.set_failing(Failing::Outlier, false);
        shared.health_changed();
        peers.tell_of_hosts(&shared);
        for worker in &workers {
            let cluster = worker.cluster("c").unwrap();
            let leases =
                [exchange(&cluster, Version::HTTP_11).await, exchange(&cluster, Version::HTTP_11).await];
            let fresh = leases.iter().filter(|lease| !lease.is_reused()).count();
            assert_eq!(fresh, 1, "to the one that came back");
        }
    };
    LocalSet::new().run_until(test).await;
}
