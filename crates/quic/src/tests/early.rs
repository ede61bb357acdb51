//! Early data (0-RTT).

use quinn_proto::ClientConfig;
use tokio::task::LocalSet;

use super::*;
use crate::EarlyData;
use crate::testing::{SERVER_NAME, client_address, client_config, serve, server_address, server_config};

async fn with_ticket(network: &Network, endpoint: &Endpoint) -> ClientConfig {
    let config = client_config(&["h3"]);
    let mut client =
        network.connect(client_address(1), server_address(), config.clone(), SERVER_NAME).unwrap();
    let mut server = None;
    let mut done = 0;
    poll_fn(|cx| {
        if let std::task::Poll::Ready(attempt) = endpoint.poll_incoming(cx) {
            server = attempt.and_then(|attempt| attempt.accept().ok());
        }
        for conn in [Some(&mut client), server.as_mut()].into_iter().flatten() {
            while let std::task::Poll::Ready(event) = conn.poll_event(cx) {
                done += usize::from(matches!(event, Event::Connected));
            }
        }
        if done == 2 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    assert_eq!(client.early_data(), EarlyData::None);
    assert!(!client.handshake().is_resumed);
    pass(std::time::Duration::from_millis(50), &mut [&mut client, server.as_mut().unwrap()]).await;
    config
}

#[tokio::test(start_paused = true)]
async fn a_stream_comes_with_the_first_packet_and_says_so() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let endpoint = serve(&network, &["h3"]);
            let config = with_ticket(&network, &endpoint).await;
            let mut client =
                network.connect(client_address(2), server_address(), config, SERVER_NAME).unwrap();
            assert_eq!(client.early_data(), EarlyData::Offered);
            let early = client.open(Dir::Bi).unwrap();
            write_all(&mut client, early, Bytes::from_static(b"early")).await;
            let drive = async {
                connected(&mut client).await;
                let late = client.open(Dir::Bi).unwrap();
                write_all(&mut client, late, Bytes::from_static(b"late")).await;
                assert_eq!(read_to_end(&mut client, late).await, b"late");
                assert_eq!(read_to_end(&mut client, early).await, b"early");
            };
            let serve = async {
                let mut conn = accept(&endpoint).await;
                assert!(matches!(event(&mut conn).await, Event::HandshakeData));
                assert!(matches!(event(&mut conn).await, Event::Opened(Dir::Bi)));
                assert!(conn.is_handshaking());
                let id = conn.accept(Dir::Bi).unwrap();
                assert!(conn.is_early(id));
                assert_eq!(conn.accept(Dir::Bi), None);
                echo_stream(&mut conn, id);
                connected(&mut conn).await;
                assert!(conn.handshake().is_resumed);
                assert_eq!(conn.early_data(), EarlyData::Accepted);
                while !matches!(event(&mut conn).await, Event::Opened(Dir::Bi)) {}
                let id = conn.accept(Dir::Bi).unwrap();
                assert!(!conn.is_early(id));
                echo_stream(&mut conn, id);
                lost(&mut conn).await;
            };
            tokio::select! {
                () = drive => {}
                () = serve => panic!("lost"),
            }
            assert_eq!(client.early_data(), EarlyData::Accepted);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn rejected_early_data_is_to_be_sent_again() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let endpoint = serve(&network, &["h3"]);
            let config = with_ticket(&network, &endpoint).await;
            // It knows nothing of the tickets of its predecessor.
            endpoint.set_server_config(Some(std::sync::Arc::new(server_config(&["h3"]))));
            serve_echo(&endpoint);
            let mut client =
                network.connect(client_address(2), server_address(), config, SERVER_NAME).unwrap();
            let early = client.open(Dir::Bi).unwrap();
            write_all(&mut client, early, Bytes::from_static(b"early")).await;
            connected(&mut client).await;
            assert_eq!(client.early_data(), EarlyData::Rejected);
            assert_eq!(client.read(early, 1), Err(ReadError::Closed));
            exchange(&mut client, b"again").await;
        })
        .await;
}
