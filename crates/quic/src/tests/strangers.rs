//! Attempts that are turned away, and packets that are no good.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::{ConnectionError, TransportErrorCode};
use tokio::task::LocalSet;

use super::*;
use crate::testing::{Path, client_address, pair, serve, server_address, server_config};
use crate::{EndpointOptions, Limits};

fn limited(network: &Network, limits: Limits) -> Endpoint {
    let server = Some(Arc::new(server_config(&["h3"])));
    network.endpoint(server_address(), EndpointOptions { server, limits, ..EndpointOptions::default() })
}

#[tokio::test(start_paused = true)]
async fn under_load_an_address_is_to_be_proved() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let endpoint = limited(&network, Limits { retry_above: 0, ..Limits::default() });
            serve_echo(&endpoint);
            let mut client = testing::client(&network, 1, &["h3"]);
            connected(&mut client).await;
            exchange(&mut client, b"hello").await;
            let stats = endpoint.stats();
            // One for each datagram that the ClientHello takes.
            assert!((1..=2).contains(&stats.retries), "{stats:?}");
            assert_eq!((stats.accepted, stats.half_open), (1, 0));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_half_open_connections_is_bounded() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let limits = Limits { max_half_open: 3, retry_above: 100, ..Limits::default() };
            let endpoint = limited(&network, limits);
            let mut held = Vec::new();
            for number in 1..=3 {
                let mut client = testing::client(&network, number, &["h3"]);
                pass(Duration::from_millis(20), &mut [&mut client]).await;
                held.push(client);
            }
            assert_eq!(endpoint.stats().half_open, 3);
            let mut late = testing::client(&network, 9, &["h3"]);
            let Loss::Connection(ConnectionError::ConnectionClosed(close)) = lost(&mut late).await else {
                panic!("not refused");
            };
            assert_eq!(close.error_code, TransportErrorCode::CONNECTION_REFUSED);
            assert!((1..=2).contains(&endpoint.stats().refused));
            // Those that wait are served all the same.
            serve_echo(&endpoint);
            connected(&mut held[0]).await;
            let mut late = testing::client(&network, 10, &["h3"]);
            connected(&mut late).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn handshakes_without_an_end_are_forgotten() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let endpoint = limited(&network, Limits::default());
            serve_echo(&endpoint);
            for number in 1..=200 {
                let mut client = testing::client(&network, number, &["h3"]);
                // One flight, and never again a word.
                poll_fn(|cx| {
                    let _ = client.poll_event(cx);
                    std::task::Poll::Ready(())
                })
                .await;
                network.rebind(client_address(number), ([10, 0, 0, 1], 1).into());
                std::mem::forget(client);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(endpoint.stats().half_open, 200);
            tokio::time::sleep(Duration::from_secs(40)).await;
            let stats = endpoint.stats();
            assert_eq!((stats.half_open, stats.connections), (0, 0));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_from_forged_addresses_keeps_nobody_out() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let limits = Limits { retry_above: 20, max_half_open: 30, ..Limits::default() };
            let endpoint = limited(&network, limits);
            serve_echo(&endpoint);
            for number in 1..=200 {
                // Nobody is where the answers go.
                let mut client = testing::client(&network, number, &["h3"]);
                network.set_path_to(client_address(number), Some(Path::black_hole()));
                pass(Duration::from_millis(1), &mut [&mut client]).await;
                network.set_path_from(client_address(number), Some(Path::black_hole()));
            }
            pass(Duration::from_millis(10), &mut []).await;
            let stats = endpoint.stats();
            assert_eq!(stats.half_open, 20, "{stats:?}");
            assert!(stats.retries >= 180, "{stats:?}");
            let mut client = testing::client(&network, 250, &["h3"]);
            connected(&mut client).await;
            exchange(&mut client, b"hello").await;
            let stats = endpoint.stats();
            assert_eq!((stats.refused, stats.dropped), (0, 0), "{stats:?}");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn another_version_is_told_ours() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let endpoint = serve(&network, &["h3"]);
            network.watch();
            let mut initial = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 4, 9, 9, 9, 9];
            initial.resize(1200, 0);
            network.inject(client_address(1), server_address(), &initial);
            network.inject(client_address(1), server_address(), &initial[..1199]);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let answers: Vec<_> =
                network.watch().into_iter().filter(|seen| seen.from == server_address()).collect();
            assert_eq!(answers.len(), 1, "short ones get none (RFC 9000 section 5.2.2)");
            let answer = &answers[0].data;
            assert_eq!(answer[1..5], [0; 4], "a Version Negotiation packet");
            assert_eq!(answer[5..11], [4, 9, 9, 9, 9, 8], "ids the other way round");
            assert!(answer[19..].chunks(4).any(|version| version == [0, 0, 0, 1]), "{answer:?}");
            assert_eq!(endpoint.stats().answers, 1);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_knows_is_reset() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let reset_key = Some([7; 32]);
            let options = || EndpointOptions {
                server: Some(Arc::new(server_config(&["h3"]))),
                reset_key,
                ..EndpointOptions::default()
            };
            let endpoint = network.endpoint(server_address(), options());
            serve_echo(&endpoint);
            let mut client = testing::client(&network, 1, &["h3"]);
            connected(&mut client).await;
            exchange(&mut client, b"hello").await;
            // A new process with the same key takes the address over.
            let successor = network.endpoint(server_address(), options());
            let id = client.open(Dir::Bi).unwrap();
            client.write(id, &mut [Bytes::from_static(&[0; 100])]).unwrap();
            assert_eq!(lost(&mut client).await, Loss::Connection(ConnectionError::Reset));
            assert_eq!(successor.stats().answers, 1);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn noise_changes_nothing() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let endpoint = serve(&network, &["h3"]);
            serve_echo(&endpoint);
            let mut client = testing::client(&network, 1, &["h3"]);
            connected(&mut client).await;
            network.watch();
            exchange(&mut client, b"hello").await;
            let real = network.watch();
            let mut random = fastrand::Rng::with_seed(7);
            for _ in 0..5_000 {
                let mut datagram = real[random.usize(..real.len())].clone();
                match random.u8(..4) {
                    0 => datagram.data.truncate(random.usize(..datagram.data.len())),
                    1 => datagram.data.iter_mut().for_each(|byte| *byte = random.u8(..)),
                    2 => datagram.data.resize(random.usize(1..1_500), random.u8(..)),
                    _ => {
                        let at = random.usize(..datagram.data.len());
                        datagram.data[at] ^= 1 << random.u8(..8);
                    }
                }
                network.inject(datagram.from, datagram.to, &datagram.data);
                if random.u8(..50) == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    exchange(&mut client, b"still here").await;
                }
            }
            exchange(&mut client, b"still here").await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn damaged_first_packets_make_no_connection() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let endpoint = serve(&network, &["h3"]);
            serve_echo(&endpoint);
            network.watch();
            let (client, server) = {
                let other = Network::new(2);
                other.watch();
                let pair = pair(&other, &["h3"]).await;
                let first = other.watch().swap_remove(0).data;
                for at in 0..first.len() {
                    let mut damaged = first.clone();
                    damaged[at] ^= 0x11;
                    network.inject(client_address(3), server_address(), &damaged);
                    network.inject(client_address(3), server_address(), &first[..at]);
                }
                pair
            };
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop((client, server));
            tokio::time::sleep(Duration::from_secs(60)).await;
            let stats = endpoint.stats();
            assert_eq!((stats.connections, stats.half_open), (0, 0));
            let mut client = testing::client(&network, 1, &["h3"]);
            connected(&mut client).await;
        })
        .await;
}
