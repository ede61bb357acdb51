//! How connections end.

use std::time::Duration;

use bytes::Bytes;
use quinn_proto::{ConnectionError, IdleTimeout, TransportConfig, TransportErrorCode, VarInt};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::*;
use crate::CloseCode;
use crate::testing::{Path, client_address, pair, serve, server_address};

#[tokio::test(start_paused = true)]
async fn a_plain_close_is_the_transport_s() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let (mut client, mut server) = pair(&network, &["h3"]).await;
            server.close(CloseCode::NoError, Bytes::from_static(b"nothing is wrong"));
            let ours = lost(&mut server).await;
            assert_eq!(ours, Loss::Connection(ConnectionError::LocallyClosed));
            let Loss::Connection(ConnectionError::ConnectionClosed(close)) = lost(&mut client).await else {
                panic!("not the transport's");
            };
            assert_eq!(close.error_code, TransportErrorCode::NO_ERROR);
            assert_eq!(close.frame_type, None);
            assert_eq!(&close.reason[..], b"nothing is wrong");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn dropping_is_a_plain_close() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let (mut client, server) = pair(&network, &["h3"]).await;
            drop(server);
            let loss = lost(&mut client).await;
            assert!(matches!(loss, Loss::Connection(ConnectionError::ConnectionClosed(_))), "{loss:?}");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_close_is_repeated_for_who_goes_on_talking() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let (mut client, mut server) = pair(&network, &["h3"]).await;
            network.set_path_from(server_address(), Some(Path::black_hole()));
            server.close(CloseCode::Application(VarInt::from_u32(9)), Bytes::new());
            lost(&mut server).await;
            drop(server);
            pass(Duration::from_millis(20), &mut [&mut client]).await;
            assert!(!client.is_closed());
            network.set_path_from(server_address(), None);
            client.ping();
            let Loss::Connection(ConnectionError::ApplicationClosed(close)) = lost(&mut client).await else {
                panic!("not closed by the server");
            };
            assert_eq!(close.error_code, VarInt::from_u32(9));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_lingers_goes_away() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let endpoint = serve(&network, &["h3"]);
            serve_echo(&endpoint);
            for number in 1..=20 {
                let mut client = testing::client(&network, number, &["h3"]);
                connected(&mut client).await;
                exchange(&mut client, b"hello").await;
            }
            assert!(endpoint.stats().connections > 0);
            tokio::time::sleep(Duration::from_secs(5)).await;
            let stats = endpoint.stats();
            assert_eq!((stats.connections, stats.half_open, stats.accepted), (0, 0, 20));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_in_silence() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let mut transport = TransportConfig::default();
            transport.max_idle_timeout(Some(IdleTimeout::try_from(Duration::from_secs(2)).unwrap()));
            let mut config = testing::server_config(&["h3"]);
            config.transport_config(std::sync::Arc::new(transport));
            let endpoint = serve(&network, &["h3"]);
            endpoint.set_server_config(Some(std::sync::Arc::new(config)));
            let mut client = testing::client(&network, 1, &["h3"]);
            serve_echo(&endpoint);
            connected(&mut client).await;
            exchange(&mut client, b"hello").await;
            let begin = Instant::now();
            network.watch();
            let loss = lost(&mut client).await;
            assert_eq!(loss, Loss::Connection(ConnectionError::TimedOut));
            assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
            drop(client);
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(endpoint.stats().connections, 0);
            let late = network.watch().into_iter().filter(|seen| seen.at > begin + Duration::from_secs(1));
            assert_eq!(late.count(), 0, "nobody says a word");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_refused_knows_at_once() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let mut client = testing::client(&network, 1, &["h3"]);
            assert_eq!(lost(&mut client).await, Loss::Socket { errno: 111 });
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_takes_as_long_as_the_idle_timeout() {
    let network = Network::new(1);
    network.set_path_to(server_address(), Some(Path::black_hole()));
    LocalSet::new()
        .run_until(async {
            let mut client = testing::client(&network, 1, &["h3"]);
            let begin = Instant::now();
            assert_eq!(lost(&mut client).await, Loss::Connection(ConnectionError::TimedOut));
            assert_eq!(begin.elapsed().as_secs(), 30, "quinn-proto's default");
            assert_eq!(client.local_address(), client_address(1));
        })
        .await;
}
