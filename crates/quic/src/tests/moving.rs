//! Clients whose address changes, and datagrams that land at the wrong worker.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::LocalSet;

use super::*;
use crate::testing::{client_address, pair, server_address, server_config};
use crate::{EndpointOptions, Worker};

#[tokio::test(start_paused = true)]
async fn a_client_behind_a_nat_that_forgets_goes_on() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let (mut client, server) = pair(&network, &["h3"]).await;
            assert_eq!(server.remote_address(), client_address(1));
            let outside = ([203, 0, 113, 9], 9_999).into();
            let server = Rc::new(RefCell::new(server));
            let echoing = server.clone();
            tokio::task::spawn_local(poll_fn(move |cx| {
                let mut conn = echoing.borrow_mut();
                while let std::task::Poll::Ready(event) = conn.poll_event(cx) {
                    match event {
                        Event::Opened(dir) => {
                            while let Some(id) = conn.accept(dir) {
                                echo_stream(&mut conn, id);
                            }
                        }
                        Event::Readable(id) => echo_stream(&mut conn, id),
                        Event::Lost(_) => return std::task::Poll::Ready(()),
                        _ => {}
                    }
                }
                std::task::Poll::Pending
            }));
            exchange(&mut client, b"before").await;
            network.rebind(client_address(1), outside);
            exchange(&mut client, b"after").await;
            exchange(&mut client, b"much later").await;
            assert_eq!(server.borrow().remote_address(), outside);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_datagram_at_the_wrong_worker_is_handed_over() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let worker = |index| {
                let server = Some(Arc::new(server_config(&["h3"])));
                let worker = Worker { index, count: 2 };
                let address = ([192, 0, 2, 1], 443 + u16::try_from(index).unwrap()).into();
                network.endpoint(address, EndpointOptions { server, worker, ..EndpointOptions::default() })
            };
            let (zero, one) = (worker(0), worker(1));
            serve_echo(&zero);
            let mut client = testing::client(&network, 1, &["h3"]);
            connected(&mut client).await;
            exchange(&mut client, b"at home").await;

            let home = zero.clone();
            one.on_foreign(move |worker, remote, datagram| {
                assert_eq!(worker, 0);
                home.receive(remote, datagram);
            });
            // The kernel takes the other socket all of a sudden.
            network.rebind(server_address(), ([192, 0, 2, 1], 1).into());
            network.rebind(one.local_address(), server_address());
            let handed = one.stats().handed_over;
            client.ping();
            let before = zero.stats().datagrams_received;
            pass(std::time::Duration::from_millis(100), &mut [&mut client]).await;
            assert!(one.stats().handed_over > handed);
            assert!(zero.stats().datagrams_received > before);
        })
        .await;
}
