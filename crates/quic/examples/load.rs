//! System calls and processor time of small exchanges over the loopback interface: a server's thread and a client's.
//!
//! `cargo run --release -p tidegate-quic --features testing --example load [CONNECTIONS [STREAMS [EXCHANGES]]]`; under
//! `strace -fc` the kernel's view of the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "an example"
)]

use std::future::poll_fn;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_quic::testing::{SERVER_NAME, client_config, connected, server_config};
use tidegate_quic::{Conn, Dir, Endpoint, EndpointOptions, EndpointStats, Event, StreamId};
use tokio::task::LocalSet;

static BODY: [u8; 100] = [b'x'; 100];

fn main() {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<usize>().expect("a number"));
    let connections = numbers.next().unwrap_or(8);
    let streams = numbers.next().unwrap_or(32);
    let exchanges = numbers.next().unwrap_or(100_000);
    let ((address, addresses), (stop, stopped), (stats, results)) =
        (mpsc::channel(), tokio::sync::oneshot::channel::<()>(), mpsc::channel());
    let server = std::thread::spawn(move || {
        run(async {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let server = Some(Arc::new(server_config(&["h3"])));
            let options = EndpointOptions { server, ..EndpointOptions::default() };
            let endpoint = Endpoint::new(socket, options).unwrap();
            address.send(endpoint.local_address()).unwrap();
            tokio::task::spawn_local(accept(endpoint.clone()));
            let _ = stopped.await;
            stats.send(endpoint.stats()).unwrap();
        });
    });
    let address = addresses.recv().unwrap();
    let begin = Instant::now();
    run(async {
        let share = exchanges / connections;
        let tasks: Vec<_> =
            (0..connections).map(|_| tokio::task::spawn_local(ask(address, streams, share))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    let time = begin.elapsed();
    stop.send(()).unwrap();
    report(&results.recv().unwrap(), exchanges, time);
    server.join().unwrap();
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, future);
}

fn report(stats: &EndpointStats, exchanges: usize, time: Duration) {
    let each = |count: u64| count as f64 / exchanges as f64;
    println!("{exchanges} exchanges in {time:?}; on the server, for each:");
    println!("  {:.3} receives, {:.3} sends", each(stats.receives), each(stats.sends));
    println!("  {:.3} datagrams in, {:.3} out", each(stats.datagrams_received), each(stats.datagrams_sent));
    println!("  {:.0} bytes in, {:.0} out", each(stats.bytes_received), each(stats.bytes_sent));
}

async fn accept(endpoint: Endpoint) {
    while let Some(attempt) = poll_fn(|cx| endpoint.poll_incoming(cx)).await {
        let mut conn = attempt.accept().unwrap();
        tokio::task::spawn_local(poll_fn(move |cx| answer(&mut conn, cx)));
    }
}

/// Answers each request, once it is whole, with a body.
fn answer(conn: &mut Conn, cx: &mut Context<'_>) -> Poll<()> {
    while let Poll::Ready(event) = conn.poll_event(cx) {
        match event {
            Event::Opened(dir) => {
                while let Some(id) = conn.accept(dir) {
                    answer_stream(conn, id);
                }
            }
            Event::Readable(id) => answer_stream(conn, id),
            Event::Lost(_) => return Poll::Ready(()),
            _ => {}
        }
    }
    Poll::Pending
}

fn answer_stream(conn: &mut Conn, id: StreamId) {
    while let Ok(read) = conn.read(id, usize::MAX) {
        if read.is_none() {
            conn.write(id, &mut [Bytes::from_static(&BODY)]).unwrap();
            return conn.finish(id);
        }
    }
}

/// Keeps `streams` requests under way until `exchanges` are done.
async fn ask(address: SocketAddr, streams: usize, exchanges: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    let mut conn = tidegate_quic::connect(socket, address, client_config(&["h3"]), SERVER_NAME).unwrap();
    connected(&mut conn).await.unwrap();
    let (mut begun, mut done) = (0, 0);
    poll_fn(|cx| {
        loop {
            while begun < exchanges && begun - done < streams {
                let Some(id) = conn.open(Dir::Bi) else { break };
                conn.write(id, &mut [Bytes::from_static(&BODY[..60])]).unwrap();
                conn.finish(id);
                begun += 1;
            }
            match conn.poll_event(cx) {
                Poll::Ready(Event::Readable(id)) => {
                    while let Ok(read) = conn.read(id, usize::MAX) {
                        if read.is_none() {
                            done += 1;
                            break;
                        }
                    }
                }
                Poll::Ready(Event::Lost(loss)) => panic!("{loss}"),
                Poll::Ready(_) => {}
                Poll::Pending => break,
            }
        }
        if done == exchanges { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
