//! What an idle connection costs, counted by the allocator: in a binary of its own, since everything in it is counted.
#![allow(unsafe_code, reason = "an allocator cannot do without")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tidegate_quic::testing::{Network, Path, SERVER_NAME, client_config, connected, serve, server_address};
use tidegate_quic::{ClientConfig, Conn, Dir, Event, StreamId};
use tokio::task::{JoinHandle, LocalSet};

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
/// The room for QUIC in the 24 KB that an idle connection may take altogether, with what the allocator rounds up and
/// what HTTP needs: 17.9 KB were measured.
const ALLOWED: isize = 18_500;

/// Echoes what comes on every stream.
fn turn(conn: &mut Conn, cx: &mut Context<'_>) -> Poll<()> {
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

/// Lets time pass; what is held then.
async fn held_after(time: Duration) -> isize {
    tokio::time::sleep(time).await;
    HELD.get()
}

async fn connect(network: &Network, number: usize, config: &ClientConfig) -> JoinHandle<()> {
    let local = SocketAddr::from(([198, 51, 100, 1], 10_000 + u16::try_from(number).unwrap()));
    let mut conn = network.connect(local, server_address(), config.clone(), SERVER_NAME).unwrap();
    connected(&mut conn).await.unwrap();
    for _ in 0..3 {
        exchange(&mut conn).await;
    }
    tokio::task::spawn_local(poll_fn(move |cx| turn(&mut conn, cx)))
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_small() {
    let network = Network::new(1);
    let measure = async {
        let endpoint = serve(&network, &["h3"]);
        tokio::task::spawn_local(async move {
            while let Some(attempt) = poll_fn(|cx| endpoint.poll_incoming(cx)).await {
                let mut conn = attempt.accept().unwrap();
                tokio::task::spawn_local(poll_fn(move |cx| turn(&mut conn, cx)));
            }
        });
        let config = client_config(&["h3"]);
        let mut conns = Vec::with_capacity(CONNECTIONS + 1);
        // The first one pays for what all share.
        conns.push(connect(&network, 0, &config).await);
        let before = held_after(Duration::from_secs(1)).await;
        for number in 1..=CONNECTIONS {
            conns.push(connect(&network, number, &config).await);
        }
        let both = held_after(Duration::from_secs(1)).await - before;
        // The clients go, and the server does not hear of it yet.
        network.set_path_to(server_address(), Some(Path::black_hole()));
        conns.drain(1..).for_each(|conn| conn.abort());
        let server = held_after(Duration::from_secs(5)).await - before;
        let count = isize::try_from(CONNECTIONS).unwrap();
        let (server, client) = (server / count, (both - server) / count);
        println!("an idle connection: {server} bytes on a server, {client} on a client");
        assert!(server < ALLOWED, "{server}");
        // It waits for tickets, so that its TLS session stays.
        assert!(client < ALLOWED + 4 * 1024, "{client}");
    };
    LocalSet::new().run_until(measure).await;
}
