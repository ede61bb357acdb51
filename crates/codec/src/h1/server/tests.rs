//! [`ServerConn`] against a scripted client in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use tidegate_testkit::io::{Link, MemIo, pair, pair_over};

use super::*;

fn serve(options: ServerOptions) -> (ServerConn, MemIo) {
    serve_over(Link::default(), options)
}

fn serve_over(link: Link, options: ServerOptions) -> (ServerConn, MemIo) {
    let (near, far) = pair_over(link);
    (ServerConn::new(Box::new(near), Rc::new(options)), far)
}

async fn head(conn: &mut ServerConn) -> (Box<RequestHead>, EndStream) {
    poll_fn(|cx| conn.poll_head(cx)).await.unwrap()
}

async fn refusal(conn: &mut ServerConn) -> (StatusCode, String) {
    match poll_fn(|cx| conn.poll_head(cx)).await {
        Err(HeadError::Refused { status, details, .. }) => (status, details.into_owned()),
        other => panic!("not refused: {other:?}"),
    }
}

/// The whole body as text and the trailers.
async fn body(conn: &mut ServerConn) -> Result<(String, HeaderMap), StreamError> {
    let mut text = Vec::new();
    loop {
        match poll_fn(|cx| conn.poll_body(cx)).await? {
            BodyFrame::Data(data, end) => {
                text.extend_from_slice(&data);
                if end.is_end() {
                    return Ok((String::from_utf8(text).unwrap(), HeaderMap::new()));
                }
            }
            BodyFrame::Trailers(trailers) => return Ok((String::from_utf8(text).unwrap(), trailers)),
        }
    }
}

async fn flush(conn: &mut ServerConn) {
    poll_fn(|cx| conn.poll_flush(cx)).await.unwrap();
}

async fn answer(conn: &mut ServerConn, text: &'static str) -> Next {
    let mut head = ResponseHead::new(StatusCode::OK);
    head.headers.insert("content-length", text.len().into());
    conn.send_head(&head, EndStream::No);
    conn.send_data(text.into(), EndStream::Yes);
    flush(conn).await;
    conn.finish_exchange()
}

/// Serves one request and gives its answer's bytes.
async fn exchange(
    request: &str,
    options: ServerOptions,
    status: u16,
    parts: &[&'static str],
) -> (String, Next) {
    let (mut conn, mut client) = serve(options);
    client.write_all(request.as_bytes()).await;
    head(&mut conn).await;
    conn.send_head(
        &ResponseHead::new(StatusCode::from_u16(status).unwrap()),
        EndStream::from_last(parts.is_empty()),
    );
    for (index, part) in parts.iter().enumerate() {
        conn.send_data((*part).into(), EndStream::from_last(index + 1 == parts.len()));
    }
    flush(&mut conn).await;
    let next = conn.finish_exchange();
    drop(conn);
    (String::from_utf8(client.read_to_end().await.to_vec()).unwrap(), next)
}

#[tokio::test(start_paused = true)]
async fn a_small_exchange_costs_one_read_and_one_write_and_leaves_no_buffer() {
    let (near, mut client) = pair();
    let calls = near.calls();
    let mut conn = ServerConn::new(Box::new(near), Rc::default());
    for _ in 0..3 {
        calls.replace(Default::default());
        client.write_all(b"POST /a?b HTTP/1.1\r\nHost: x.test\r\nContent-Length: 2\r\n\r\nhi").await;
        assert!(matches!(poll_fn(|cx| conn.poll_readable(cx)).await, Readable::Bytes));
        let (request, end) = head(&mut conn).await;
        assert_eq!((request.method.clone(), request.path_str(), end), (Method::POST, "/a?b", EndStream::No));
        assert_eq!(request.authority, "x.test");
        assert_eq!(body(&mut conn).await.unwrap().0, "hi");
        let gone = poll_fn(|cx| Poll::Ready(conn.poll_gone(cx).is_ready())).await;
        assert!(!gone);
        assert_eq!(answer(&mut conn, "hello").await, Next::KeepAlive);
        assert_eq!(client.read_available(), "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
        let calls = *calls.borrow();
        assert_eq!((calls.reads, calls.writes), (1, 1));
        assert_eq!((conn.wire.input.capacity(), conn.wire.output.len()), (0, 0));
    }
    assert_eq!((conn.rx_bytes(), conn.tx_bytes()), (3 * 57, 3 * 43));
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_served_in_order_and_waiting_for_one_answer_keeps_the_next() {
    let (mut conn, mut client) = serve(ServerOptions::default());
    client.write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(head(&mut conn).await.0.path, "/1");
    client.write_all(b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(poll_fn(|cx| Poll::Ready(conn.poll_gone(cx))).await.is_pending());
    for path in ["/2", "/3"] {
        assert_eq!(answer(&mut conn, "x").await, Next::KeepAlive);
        assert!(conn.has_buffered_input());
        assert_eq!(head(&mut conn).await.0.path, path);
    }
    drop(client);
    poll_fn(|cx| conn.poll_gone(cx)).await;
}

#[tokio::test(start_paused = true)]
async fn blank_lines_are_no_request_and_are_bounded() {
    let (mut conn, mut client) = serve(ServerOptions::default());
    client.write_all(b"\r\n\r\n\r").await;
    assert!(poll_fn(|cx| Poll::Ready(conn.poll_readable(cx))).await.is_pending());
    client.write_all(b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    head(&mut conn).await;
    assert_eq!(answer(&mut conn, "x").await, Next::KeepAlive);
    client.write_all("\r\n".repeat(1000).as_bytes()).await;
    assert!(matches!(poll_fn(|cx| conn.poll_readable(cx)).await, Readable::Bytes));
    assert_eq!(refusal(&mut conn).await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_connection_is_told_apart() {
    let (mut conn, client) = serve(ServerOptions::default());
    drop(client);
    assert!(matches!(poll_fn(|cx| conn.poll_readable(cx)).await, Readable::Closed));
    let (mut conn, client) = serve(ServerOptions::default());
    client.reset();
    assert!(matches!(poll_fn(|cx| conn.poll_readable(cx)).await, Readable::Broken(_)));
    let (mut conn, mut client) = serve(ServerOptions::default());
    client.write_all(b"GET / HT").await;
    client.shutdown().await;
    let gone = poll_fn(|cx| conn.poll_head(cx)).await;
    assert!(matches!(gone, Err(HeadError::Gone { partial: true })));
    let (mut conn, mut client) = serve(ServerOptions::default());
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab").await;
    client.shutdown().await;
    head(&mut conn).await;
    assert!(matches!(body(&mut conn).await, Err(StreamError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_can_be_answered_and_closes() {
    let (mut conn, mut client) = serve(ServerOptions::default());
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(refusal(&mut conn).await, (StatusCode::BAD_REQUEST, "http1.codec_error".to_owned()));
    conn.send_head(&ResponseHead::new(StatusCode::BAD_REQUEST), EndStream::Yes);
    flush(&mut conn).await;
    assert_eq!(conn.finish_exchange(), Next::Close);
    poll_fn(|cx| conn.poll_shutdown(cx)).await.unwrap();
    assert_eq!(
        client.read_to_end().await,
        "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    client.write_all(b"more").await;
    assert!(poll_fn(|cx| Poll::Ready(conn.poll_discard(cx))).await.is_pending());
    client.shutdown().await;
    poll_fn(|cx| conn.poll_discard(cx)).await;
}

#[tokio::test(start_paused = true)]
async fn continue_is_sent_when_the_body_is_wanted_and_not_otherwise() {
    let request = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    let (mut conn, mut client) = serve(ServerOptions::default());
    client.write_all(request).await;
    assert!(!head(&mut conn).await.0.headers.contains_key("expect"));
    assert!(poll_fn(|cx| Poll::Ready(conn.poll_body(cx))).await.is_pending());
    assert_eq!(client.read_available(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"ok").await;
    assert_eq!(body(&mut conn).await.unwrap().0, "ok");
    assert_eq!(answer(&mut conn, "").await, Next::KeepAlive);

    // Refused without reading: whether the body follows is unknown.
    let (mut conn, mut client) = serve(ServerOptions::default());
    client.write_all(request).await;
    head(&mut conn).await;
    assert_eq!(answer(&mut conn, "").await, Next::Close);
    assert_eq!(client.read_available(), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");

    let options = ServerOptions { proxy_100_continue: true, ..Default::default() };
    let (mut conn, mut client) = serve(options);
    client.write_all(request).await;
    assert!(head(&mut conn).await.0.headers.contains_key("expect"));
    assert!(poll_fn(|cx| Poll::Ready(conn.poll_body(cx))).await.is_pending());
    assert_eq!(client.read_available(), "");
    conn.send_informational(&ResponseHead::new(StatusCode::CONTINUE));
    flush(&mut conn).await;
    assert_eq!(client.read_available(), "HTTP/1.1 100 Continue\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn an_early_response_closes_unless_the_body_is_here_already() {
    let (mut conn, mut client) = serve(ServerOptions::default());
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
    head(&mut conn).await;
    assert_eq!(answer(&mut conn, "x").await, Next::KeepAlive);
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabc").await;
    head(&mut conn).await;
    assert_eq!(answer(&mut conn, "x").await, Next::Close);
}

#[tokio::test(start_paused = true)]
async fn responses_are_framed_as_their_kind_needs() {
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let table: &[(&str, u16, &[&str], &str)] = &[
        (get, 200, &[], "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        (get, 204, &[], "HTTP/1.1 204 No Content\r\n\r\n"),
        (get, 204, &["body"], "HTTP/1.1 204 No Content\r\n\r\n"),
        (get, 304, &[], "HTTP/1.1 304 Not Modified\r\n\r\n"),
        (get, 299, &[], "HTTP/1.1 299 Unknown\r\ncontent-length: 0\r\n\r\n"),
        (
            get,
            200,
            &["ab", "c"],
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        ),
        (
            "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            200,
            &["dropped"],
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            200,
            &[],
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        ),
    ];
    for (request, status, parts, expected) in table {
        let (answer, next) = exchange(request, ServerOptions::default(), *status, parts).await;
        assert_eq!(answer, *expected);
        assert_eq!(next, if answer.contains("connection: close") { Next::Close } else { Next::KeepAlive });
    }
}

#[tokio::test(start_paused = true)]
async fn http_10_closes_unless_asked_and_has_no_chunks() {
    let options = ServerOptions { accept_http_10: true, ..Default::default() };
    let plain = "GET / HTTP/1.0\r\nHost: a\r\n\r\n";
    let (answer, next) = exchange(plain, options.clone(), 200, &["ab", "c"]).await;
    assert_eq!((answer.as_str(), next), ("HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabc", Next::Close));
    let kept = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let (answer, next) = exchange(kept, options.clone(), 200, &[]).await;
    assert_eq!(answer, "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(next, Next::KeepAlive);
    let (_, next) = exchange(kept, options, 200, &["unknown length"]).await;
    assert_eq!(next, Next::Close);

    let (mut conn, mut client) = serve(ServerOptions::default());
    client.write_all(plain.as_bytes()).await;
    assert_eq!(refusal(&mut conn).await, (StatusCode::UPGRADE_REQUIRED, "low_version".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_than_announced_is_never_made_whole() {
    for text in ["abcd", "ab"] {
        let (mut conn, mut client) = serve(ServerOptions::default());
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        head(&mut conn).await;
        let mut head = ResponseHead::new(StatusCode::OK);
        head.headers.insert("content-length", HeaderValue::from_static("3"));
        conn.send_head(&head, EndStream::No);
        conn.send_data(text.into(), EndStream::Yes);
        flush(&mut conn).await;
        assert_eq!(conn.finish_exchange(), Next::Close);
        assert!(client.read_available().len() < "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc".len());
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_becomes_a_tunnel_with_half_close() {
    let (mut conn, mut client) = serve(ServerOptions::default());
    client
        .write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    let (request, end) = head(&mut conn).await;
    assert_eq!((request.upgrade.as_deref(), end), (Some(&b"websocket"[..]), EndStream::No));
    assert!(poll_fn(|cx| Poll::Ready(conn.poll_body(cx))).await.is_pending());
    let mut response = ResponseHead::new(StatusCode::SWITCHING_PROTOCOLS);
    for (name, value) in [("upgrade", "websocket"), ("connection", "upgrade"), ("x-a", "1")] {
        response.headers.insert(name, HeaderValue::from_static(value));
    }
    conn.send_head(&response, EndStream::No);
    conn.send_data("raw".into(), EndStream::No);
    flush(&mut conn).await;
    assert_eq!(
        client.read_available(),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nx-a: 1\r\n\r\nraw"
    );
    client.write_all(b"GET / HTTP/1.1\r\n").await;
    client.shutdown().await;
    assert_eq!(body(&mut conn).await.unwrap().0, "GET / HTTP/1.1\r\n");
    conn.send_data("late".into(), EndStream::Yes);
    flush(&mut conn).await;
    assert_eq!(client.read_to_end().await, "late");
    assert_eq!(conn.finish_exchange(), Next::Close);
}

#[tokio::test(start_paused = true)]
async fn a_refused_upgrade_is_answered_and_closes() {
    let (mut conn, mut client) = serve(ServerOptions::default());
    client
        .write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    head(&mut conn).await;
    assert!(poll_fn(|cx| Poll::Ready(conn.poll_body(cx))).await.is_pending());
    conn.send_head(&ResponseHead::new(StatusCode::FORBIDDEN), EndStream::Yes);
    assert_eq!(body(&mut conn).await.unwrap().0, "");
    flush(&mut conn).await;
    assert!(client.read_available().starts_with(b"HTTP/1.1 403"));
    assert_eq!(conn.finish_exchange(), Next::Close);
}

#[tokio::test(start_paused = true)]
async fn trailers_pass_both_ways_where_they_are_enabled() {
    for keep in [true, false] {
        let options = ServerOptions { enable_trailers: keep, ..Default::default() };
        let (mut conn, mut client) = serve(options);
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n")
            .await;
        head(&mut conn).await;
        let (text, trailers) = body(&mut conn).await.unwrap();
        assert_eq!((text.as_str(), trailers.contains_key("x-t")), ("abc", keep));
        conn.send_head(&ResponseHead::new(StatusCode::OK), EndStream::No);
        conn.send_data("d".into(), EndStream::No);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-u", HeaderValue::from_static("2"));
        conn.send_trailers(&trailers);
        flush(&mut conn).await;
        let answer = client.read_available();
        assert_eq!(answer.ends_with(b"1\r\nd\r\n0\r\nx-u: 2\r\n\r\n"), keep);
        assert_eq!(answer.ends_with(b"1\r\nd\r\n0\r\n\r\n"), !keep);
        assert_eq!(conn.finish_exchange(), Next::KeepAlive);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_depends_on_where_the_network_cuts() {
    let link = Link { max_read: 1, max_write: 1, latency: Duration::from_millis(1), ..Link::default() };
    let (mut conn, mut client) = serve_over(link, ServerOptions::default());
    for _ in 0..2 {
        client
            .write_all(b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n")
            .await;
        assert!(matches!(poll_fn(|cx| conn.poll_readable(cx)).await, Readable::Bytes));
        head(&mut conn).await;
        assert_eq!(body(&mut conn).await.unwrap().0, "abcde");
        assert_eq!(answer(&mut conn, "hello").await, Next::KeepAlive);
        assert_eq!(client.read_exact(43).await, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flowing_body_is_read_in_large_pieces_without_copies_and_a_trickle_pins_little() {
    let (near, mut client) = pair_over(Link { window: 4 << 20, ..Link::default() });
    let calls = near.calls();
    let mut conn = ServerConn::new(Box::new(near), Rc::default());
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n").await;
    client.write_all(&vec![b'x'; 1 << 20]).await;
    head(&mut conn).await;
    assert_eq!(body(&mut conn).await.unwrap().0.len(), 1 << 20);
    assert!(calls.borrow().reads <= 20, "{} reads for 1 MiB", calls.borrow().reads);
    assert_eq!(answer(&mut conn, "x").await, Next::KeepAlive);

    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n").await;
    head(&mut conn).await;
    let mut blocks = std::collections::HashSet::new();
    let mut held = Vec::new();
    for _ in 0..4000 {
        client.write_all(b"y").await;
        let BodyFrame::Data(data, _) = poll_fn(|cx| conn.poll_body(cx)).await.unwrap() else { panic!() };
        blocks.insert(data.as_ptr() as usize / 4096);
        held.push(data);
    }
    assert!(blocks.len() <= 4, "{} blocks for 4000 bytes", blocks.len());
}
