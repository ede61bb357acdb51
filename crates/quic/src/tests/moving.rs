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
async fn datagrams_at_the_wrong_worker_are_handed_over() {
    let network = Network::new(1);
    LocalSet::new()
        .run_until(async {
            let worker = |index, port| {
                let server = Some(Arc::new(server_config(&["h3"])));
                let worker = Worker { index, count: 2 };
                let options = EndpointOptions { server, worker, ..EndpointOptions::default() };
                network.endpoint(([192, 0, 2, 1], port).into(), options)
            };
            // The first gets everything that clients send, whosever it is.
            let (first, second) = (worker(0, 443), worker(1, 444));
            let home = second.clone();
            first.on_foreign(move |worker, remote, datagram| {
                assert_eq!(worker, 1);
                home.receive(remote, datagram);
            });
            // What the second sends seems to come from the shared address.
            network.disguise(second.local_address(), server_address());
            serve_echo(&first);
            serve_echo(&second);
            for number in 1..=8 {
                let mut client = testing::client(&network, number, &["h3"]);
                connected(&mut client).await;
                exchange(&mut client, b"hello").await;
            }
            let (at_first, at_second) = (first.stats(), second.stats());
            assert_eq!(at_first.accepted + at_second.accepted, 8, "{at_first:?} {at_second:?}");
            assert!(at_second.accepted > 0, "one chance in 256");
            assert!(at_first.handed_over > 0);
        })
        .await;
}
