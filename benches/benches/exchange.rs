//! Whole exchanges on one kept-alive connection, `GET` with 8 fields, answered with 12 bytes.
//!
//! `direct` is the connection manager alone. `relay` is the codec and nothing else: both roles and two
//! connections in memory, which is the floor of any proxy on it. `proxied` is all of it with a real upstream:
//! a TCP connection to an origin on the same thread, whose system calls (two of the proxy's, two of the
//! origin's, and the waits) are most of the time.
#![allow(clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::rc::Rc;

use bytes::BytesMut;
use criterion::Criterion;
use tidegate_benches::document::{DIRECT, Document, FORWARD};
use tidegate_benches::downstream::Downstream;
use tidegate_benches::memory::{MemoryIo, pair};
use tidegate_benches::messages::{ANSWER, MEDIUM};
use tidegate_codec::h1::{ClientConn, Next, Readable, ServerConn};
use tidegate_codec::{BodyFrame, ClientStream, ResponseFrame, ServerStream};
use tidegate_filter::Registry;
use tidegate_net::Io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn main() {
    tidegate_benches::run(&[direct, relay, proxied]);
}

fn direct(criterion: &mut Criterion) {
    measure(criterion, "exchange/direct", async || {
        Downstream::open(&Document::with_action(DIRECT).load(), &Registry::default())
    });
}

fn relay(criterion: &mut Criterion) {
    measure(criterion, "exchange/relay", async || {
        let ((client, down), (up, origin)) = (pair(), pair());
        tokio::task::spawn_local(memory_origin(origin));
        let server = ServerConn::new(Box::new(down), Rc::default());
        let upstream = ClientConn::new(Box::new(up), Rc::default());
        tokio::task::spawn_local(relay_all(server, upstream));
        Downstream::on(client)
    });
}

fn proxied(criterion: &mut Criterion) {
    measure(criterion, "exchange/proxied", async || {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = listener.local_addr().expect("a bound socket").port();
        tokio::task::spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::task::spawn_local(tcp_origin(socket));
            }
        });
        let document = Document { origin_port: Some(port), ..Document::with_action(FORWARD) };
        Downstream::open(&document.load(), &Registry::default())
    });
}

fn measure(criterion: &mut Criterion, name: &str, open: impl AsyncFn() -> Downstream) {
    let runtime = tidegate_benches::runtime();
    let mut client = runtime.block_on(open());
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|count| runtime.block_on(client.timed(MEDIUM, count)));
    });
}

/// Copies messages from one connection to the other until the client closes.
async fn relay_all(mut server: ServerConn, mut upstream: ClientConn) {
    while let Readable::Bytes = poll_fn(|cx| server.poll_readable(cx)).await {
        let (head, end) = poll_fn(|cx| server.poll_head(cx)).await.expect("a request");
        upstream.send_head(&head, end);
        poll_fn(|cx| upstream.poll_flush(cx)).await.expect("a flush");
        let ResponseFrame::Head(head, mut end) = poll_fn(|cx| upstream.poll_head(cx)).await.expect("a head")
        else {
            panic!("the origin sends no 1xx");
        };
        server.send_head(&head, end);
        while !end.is_end() {
            let frame = poll_fn(|cx| upstream.poll_body(cx)).await.expect("a body");
            let BodyFrame::Data(data, last) = frame else { panic!("the origin sends no trailers") };
            server.send_data(data, last);
            end = last;
        }
        poll_fn(|cx| server.poll_flush(cx)).await.expect("a flush");
        assert_eq!(server.finish_exchange(), Next::KeepAlive);
    }
}

/// Answers every request without reading more of it than its end.
async fn memory_origin(mut io: MemoryIo) {
    let mut buf = BytesMut::with_capacity(16 * 1024);
    while poll_fn(|cx| io.poll_read(cx, &mut buf)).await.is_ok_and(|read| read > 0) {
        if buf.ends_with(b"\r\n\r\n") {
            buf.clear();
            io.send(ANSWER.as_bytes());
        }
    }
}

async fn tcp_origin(mut socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    let mut buf = BytesMut::with_capacity(16 * 1024);
    while socket.read_buf(&mut buf).await.is_ok_and(|read| read > 0) {
        if buf.ends_with(b"\r\n\r\n") {
            buf.clear();
            if socket.write_all(ANSWER.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
