//! What an idle connection costs, counted by the allocator: in a binary of its own, since everything in it is counted.
#![allow(unsafe_code, reason = "an allocator cannot do without")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::poll_fn;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tidegate_quic::testing::{SERVER_NAME, client_config, server_config};
use tidegate_quic::{Conn, Dir, Endpoint, EndpointOptions, Event, StreamId};
use tokio::task::LocalSet;

/// Counts what the calling thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends has nothing more to count.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: every call goes to the system's allocator as it is; counting touches a cell of the thread and allocates
// nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const CONNECTIONS: usize = 100;
/// The room for QUIC in the 24 KB that an idle connection may take altogether.
const ALLOWED: isize = 20 * 1024;

/// Echoes what comes on every stream.
fn turn(conn: &mut Conn, cx: &mut std::task::Context<'_>) -> Poll<()> {
    while let Poll::Ready(event) = conn.poll_event(cx) {
        match event {
            Event::Opened(dir) => {
                while let Some(id) = conn.accept(dir) {
                    echo(conn, id);
                }
            }
            Event::Readable(id) => echo(conn, id),
            Event::Lost(_) => return Poll::Ready(()),
            _ => {}
        }
    }
    Poll::Pending
}

fn echo(conn: &mut Conn, id: StreamId) {
    while let Ok(read) = conn.read(id, usize::MAX) {
        let Some(bytes) = read else { return conn.finish(id) };
        let _ = conn.write(id, &mut [bytes]);
    }
}

/// The server: says its address, and what it holds each time that it is asked.
fn serve(addresses: &mpsc::Sender<SocketAddr>, asked: &mpsc::Receiver<()>, held: &mpsc::Sender<isize>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let options =
            EndpointOptions { server: Some(Arc::new(server_config(&["h3"]))), ..EndpointOptions::default() };
        let endpoint = Endpoint::new(socket, options).unwrap();
        addresses.send(endpoint.local_address()).unwrap();
        let accepting = endpoint.clone();
        tokio::task::spawn_local(async move {
            while let Some(attempt) = poll_fn(|cx| accepting.poll_incoming(cx)).await {
                let mut conn = attempt.accept().unwrap();
                tokio::task::spawn_local(poll_fn(move |cx| turn(&mut conn, cx)));
            }
        });
        loop {
            match asked.try_recv() {
                Ok(()) => held.send(HELD.get()).unwrap(),
                Err(mpsc::TryRecvError::Disconnected) => return,
                Err(mpsc::TryRecvError::Empty) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
}

async fn exchange(conn: &mut Conn) {
    let id = conn.open(Dir::Bi).unwrap();
    conn.write(id, &mut [Bytes::from_static(&[7; 3000])]).unwrap();
    conn.finish(id);
    poll_fn(|cx| {
        while let Poll::Ready(event) = conn.poll_event(cx) {
            assert!(!matches!(event, Event::Lost(_)), "{event:?}");
        }
        while let Ok(read) = conn.read(id, usize::MAX) {
            if read.is_none() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
}

async fn settle(conns: &mut [Conn], time: Duration) {
    let end = tokio::time::sleep(time);
    tokio::pin!(end);
    poll_fn(|cx| {
        for conn in conns.iter_mut() {
            while conn.poll_event(cx).is_ready() {}
        }
        end.as_mut().poll(cx)
    })
    .await;
}

#[test]
fn an_idle_connection_is_small() {
    let ((addresses, address), (ask, asked), (held, answer)) =
        (mpsc::channel(), mpsc::channel(), mpsc::channel());
    let server = std::thread::spawn(move || serve(&addresses, &asked, &held));
    let address = address.recv().unwrap();
    let measure = || {
        ask.send(()).unwrap();
        answer.recv().unwrap()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let config = client_config(&["h3"]);
        let mut conns = Vec::with_capacity(CONNECTIONS + 1);
        let mut before = (0, 0);
        // The first one pays for what all share.
        for number in 0..=CONNECTIONS {
            if number == 1 {
                settle(&mut conns, Duration::from_millis(100)).await;
                before = (measure(), HELD.get());
            }
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(address).unwrap();
            let mut conn = tidegate_quic::connect(socket, address, config.clone(), SERVER_NAME).unwrap();
            tidegate_quic::testing::connected(&mut conn).await.unwrap();
            for _ in 0..3 {
                exchange(&mut conn).await;
            }
            conns.push(conn);
        }
        settle(&mut conns, Duration::from_millis(500)).await;
        let count = CONNECTIONS as isize;
        let server = (measure() - before.0) / count;
        let client = (HELD.get() - before.1) / count;
        println!("an idle connection: {server} bytes on a server, {client} on a client");
        assert!(server < ALLOWED, "{server}");
        // It waits for tickets, so that its TLS session stays.
        assert!(client < ALLOWED + 10 * 1024, "{client}");
    });
    drop(ask);
    server.join().unwrap();
}
