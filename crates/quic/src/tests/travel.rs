//! Bodies over paths that lose, delay, double, reorder and mark, and sockets that are full.

use std::time::Duration;

use quinn_proto::Side;
use tokio::task::LocalSet;

use super::*;
use crate::testing::{Path, client_address, pair, server_address};

/// The server sends `size` bytes; what came of them.
async fn download(network: &Network, size: usize) -> (Conn, Conn) {
    let (mut client, mut server) = pair(network, &["h3"]).await;
    let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let id = client.open(Dir::Bi).unwrap();
    write_all(&mut client, id, Bytes::from_static(b"all of it")).await;
    let sent = Bytes::from(body.clone());
    let sender = tokio::task::spawn_local(async move {
        while !matches!(event(&mut server).await, Event::Opened(Dir::Bi)) {}
        let id = server.accept(Dir::Bi).unwrap();
        assert_eq!(id, StreamId::new(Side::Client, Dir::Bi, 0));
        write_all(&mut server, id, sent).await;
        while !matches!(event(&mut server).await, Event::Finished(finished) if finished == id) {}
        assert!(server.is_delivered());
        server
    });
    let mut received = Vec::new();
    let mut server = None;
    loop {
        match client.read(id, usize::MAX) {
            Ok(Some(bytes)) => received.extend_from_slice(&bytes),
            Ok(None) => break,
            Err(ReadError::Blocked) => progress(&mut client).await,
            Err(error) => panic!("{error}"),
        }
    }
    let drive = poll_fn(|cx| {
        while client.poll_event(cx).is_ready() {}
        std::task::Poll::<()>::Pending
    });
    tokio::select! {
        () = drive => {}
        joined = sender => server = joined.ok(),
    }
    assert!(received == body, "{} of {} bytes", received.len(), body.len());
    (client, server.expect("the server"))
}

#[tokio::test(start_paused = true)]
async fn a_body_comes_through_everything() {
    let paths = [
        Path::default(),
        Path { delay: Duration::ZERO, ..Path::default() },
        Path { loss: 0.1, ..Path::default() },
        Path { jitter: Duration::from_millis(20), ..Path::default() },
        Path { doubled: 0.5, ..Path::default() },
        Path { loss: 0.05, doubled: 0.1, jitter: Duration::from_millis(3), mtu: 1_300, ..Path::default() },
    ];
    for (seed, path) in (1..).zip(paths) {
        let network = Network::new(seed);
        network.set_path(path);
        LocalSet::new().run_until(download(&network, 300_000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn marks_slow_down_and_lose_nothing() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            network.set_path(Path { marked: 0.02, ..Path::default() });
            let (_, server) = download(&network, 1_000_000).await;
            let stats = server.stats();
            assert_eq!(stats.lost_packets, 0);
            assert!(stats.congestion_events > 0, "{stats:?}");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn large_bodies_leave_in_large_batches() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let (_, server) = download(&network, 2_000_000).await;
            let sent = server.stats().tx_datagrams;
            assert!(sent > 1_300, "{sent}");
            let batch = network.datagrams() / network.calls();
            assert!(batch >= 3, "{} datagrams in {} calls", network.datagrams(), network.calls());
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_full_socket_keeps_the_packet() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let (mut client, mut server) = pair(&network, &["h3"]).await;
            pass(Duration::from_millis(200), &mut [&mut client, &mut server]).await;
            for address in [server_address(), client_address(1)] {
                network.set_full(address, true);
            }
            let sender = if client.traffic().0 > 0 { &mut client } else { &mut server };
            let id = sender.open(Dir::Uni).unwrap();
            sender.write(id, &mut [Bytes::from_static(b"waits")]).unwrap();
            sender.finish(id);
            let before = network.datagrams();
            pass(Duration::from_millis(5), &mut [&mut client, &mut server]).await;
            assert_eq!(network.datagrams(), before);
            for address in [server_address(), client_address(1)] {
                network.set_full(address, false);
            }
            pass(Duration::from_millis(50), &mut [&mut client, &mut server]).await;
            let id = server.accept(Dir::Uni).expect("it came");
            assert_eq!(read_to_end(&mut server, id).await, b"waits");
            assert_eq!(client.stats().lost_packets, 0);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_s_full_socket_keeps_the_packet() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let (mut client, mut server) = pair(&network, &["h3"]).await;
            pass(Duration::from_millis(200), &mut [&mut client, &mut server]).await;
            network.set_full(server_address(), true);
            let id = server.open(Dir::Uni).unwrap();
            server.write(id, &mut [Bytes::from_static(b"waits")]).unwrap();
            server.finish(id);
            pass(Duration::from_millis(5), &mut [&mut client, &mut server]).await;
            assert_eq!(client.accept(Dir::Uni), None);
            network.set_full(server_address(), false);
            pass(Duration::from_millis(20), &mut [&mut client, &mut server]).await;
            assert!(client.accept(Dir::Uni).is_some());
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn keys_can_be_changed_from_either_side() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let (mut client, mut server) = pair(&network, &["h3"]).await;
            for round in 0..6 {
                pass(Duration::from_secs(1), &mut [&mut client, &mut server]).await;
                let sender = if round % 2 == 0 { &mut client } else { &mut server };
                sender.update_keys();
                for conn in [&mut client, &mut server] {
                    let id = conn.open(Dir::Uni).unwrap();
                    conn.write(id, &mut [Bytes::from_static(b"changed")]).unwrap();
                    conn.finish(id);
                }
                pass(Duration::from_millis(50), &mut [&mut client, &mut server]).await;
                for conn in [&mut client, &mut server] {
                    let id = conn.accept(Dir::Uni).expect("it came");
                    assert_eq!(conn.read(id, 100), Ok(Some(Bytes::from_static(b"changed"))));
                    assert_eq!(conn.read(id, 100), Ok(None));
                    assert!(!conn.is_closed());
                }
            }
        })
        .await;
}
