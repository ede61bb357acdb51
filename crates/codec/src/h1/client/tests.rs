//! [`ClientConn`] against a scripted upstream in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;

use http::{HeaderValue, Method};
use tidegate_testkit::io::{MemIo, pair};
use tidegate_types::ResponseHead;

use super::*;

fn connect() -> (ClientConn, MemIo) {
    let (near, far) = pair();
    (ClientConn::new(Box::new(near), Rc::default()), far)
}

fn get() -> RequestHead {
    RequestHead::new(Method::GET, "up.test", "/x")
}

async fn ask(conn: &mut ClientConn, head: &RequestHead) {
    conn.send_head(head, EndStream::Yes);
    poll_fn(|cx| conn.poll_flush(cx)).await.unwrap();
}

async fn head(conn: &mut ClientConn) -> Result<(ResponseHead, EndStream), StreamError> {
    match poll_fn(|cx| conn.poll_head(cx)).await? {
        ResponseFrame::Head(head, end) => Ok((head, end)),
        ResponseFrame::Informational(head) => panic!("informational {}", head.status),
    }
}

async fn body(conn: &mut ClientConn) -> Result<String, StreamError> {
    let mut text = Vec::new();
    loop {
        match poll_fn(|cx| conn.poll_body(cx)).await? {
            BodyFrame::Data(data, end) => {
                text.extend_from_slice(&data);
                if end.is_end() {
                    return Ok(String::from_utf8(text).unwrap());
                }
            }
            BodyFrame::Trailers(_) => return Ok(String::from_utf8(text).unwrap()),
        }
    }
}

/// Asks GET, gives `response`, and tells what came of it.
async fn outcome(response: &str, fin: bool) -> (Result<String, String>, bool) {
    let (mut conn, mut upstream) = connect();
    upstream.write_all(response.as_bytes()).await;
    if fin {
        upstream.shutdown().await;
    }
    ask(&mut conn, &get()).await;
    let text = match head(&mut conn).await {
        Ok((_, EndStream::Yes)) => Ok(String::new()),
        Ok(_) => body(&mut conn).await,
        Err(error) => Err(error),
    };
    (text.map_err(|error| error.to_string()), conn.is_reusable())
}

#[tokio::test(start_paused = true)]
async fn a_small_exchange_costs_one_write_and_one_read_and_leaves_no_buffer() {
    let (near, mut upstream) = pair();
    let calls = near.calls();
    let mut conn = ClientConn::new(Box::new(near), Rc::default());
    for _ in 0..3 {
        calls.replace(Default::default());
        assert!(conn.is_reusable());
        ask(&mut conn, &get()).await;
        assert!(!conn.is_reusable());
        assert_eq!(upstream.read_some().await, "GET /x HTTP/1.1\r\nhost: up.test\r\n\r\n");
        upstream.write_all(b"HTTP/1.1 200 Fine\r\nContent-Length: 3\r\nX-A: b\r\n\r\nabc").await;
        let (response, end) = head(&mut conn).await.unwrap();
        assert_eq!((response.status, end), (StatusCode::OK, EndStream::No));
        assert_eq!(response.headers["x-a"], "b");
        assert_eq!(body(&mut conn).await.unwrap(), "abc");
        assert!(conn.is_reusable() && conn.is_request_complete() && !conn.saw_close_notice());
        assert_eq!((calls.borrow().reads, calls.borrow().writes), (1, 1));
        assert_eq!(conn.wire.input.capacity(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_ends_of_responses_are_found_and_judged() {
    let truncated = "connection ended inside a message";
    let cut = "protocol error: http1.codec_error";
    let table: &[(&str, bool, Result<&str, &str>, bool)] = &[
        ("HTTP/1.1 204 No Content\r\n\r\n", false, Ok(""), true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, Ok(""), true),
        ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nab", false, Ok("ab"), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", false, Err(cut), false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", false, Ok("ab"), false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab", false, Ok("ab"), false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", false, Ok("ab"), false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\nab", false, Ok("ab"), true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", false, Ok("a"), true),
        ("HTTP/1.1 200 OK\r\n\r\nall", true, Ok("all"), false),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            false,
            Ok("a"),
            false,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", true, Err(truncated), false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", true, Err(truncated), false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab", false, Err(cut), false),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            false,
            Err("protocol error: http1.content_length_and_chunked_not_allowed"),
            false,
        ),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", false, Err(cut), false),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", false, Err(cut), false),
        ("HTTP/1.1 200 OK\nA: b\n\n", false, Err(cut), false),
        ("SSH-2.0-OpenSSH", false, Err(cut), false),
        ("HTTP/1.1 200 O", true, Err(truncated), false),
        ("", true, Err("connection closed by the peer"), false),
    ];
    for (response, fin, expected, reusable) in table {
        let (text, reuse) = outcome(response, *fin).await;
        assert_eq!(text.as_deref(), expected.map_err(String::from).as_ref().copied(), "{response:?}");
        assert_eq!(reuse, *reusable, "{response:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn informational_heads_come_before_the_final_one() {
    let (mut conn, mut upstream) = connect();
    ask(&mut conn, &get()).await;
    upstream
        .write_all(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .await;
    let ResponseFrame::Informational(hints) = poll_fn(|cx| conn.poll_head(cx)).await.unwrap() else {
        panic!("final")
    };
    assert_eq!(hints.status, 103);
    assert_eq!(head(&mut conn).await.unwrap().1, EndStream::Yes);
    assert!(conn.is_reusable());
}

#[tokio::test(start_paused = true)]
async fn a_head_response_has_no_body_whatever_it_says() {
    let (mut conn, mut upstream) = connect();
    ask(&mut conn, &RequestHead::new(Method::HEAD, "a", "/")).await;
    upstream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n").await;
    let (response, end) = head(&mut conn).await.unwrap();
    assert_eq!((end, response.headers["content-length"].to_str().unwrap()), (EndStream::Yes, "50"));
    assert!(conn.is_reusable());
}

#[tokio::test(start_paused = true)]
async fn requests_are_framed_as_their_method_needs() {
    let mut sized = RequestHead::new(Method::POST, "a", "/");
    sized.headers.insert("content-length", 3.into());
    let mut upgrade = get();
    upgrade.upgrade = Some("websocket".into());
    let mut in_place = upgrade.clone();
    for (name, value) in [("x-a", "1"), ("upgrade", "websocket"), ("connection", "upgrade"), ("x-b", "2")] {
        in_place.headers.insert(name, HeaderValue::from_static(value));
    }
    let mut refused = in_place.clone();
    refused.upgrade = None;
    let post = RequestHead::new(Method::POST, "a", "/");
    let table: &[(&RequestHead, Option<&'static str>, &str)] = &[
        (&post, None, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"),
        (&RequestHead::new(Method::DELETE, "a", "/"), None, "DELETE / HTTP/1.1\r\nhost: a\r\n\r\n"),
        (&sized, Some("abc"), "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"),
        (
            &post,
            Some("abc"),
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            &upgrade,
            None,
            "GET /x HTTP/1.1\r\nhost: up.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
        ),
        (
            &in_place,
            None,
            "GET /x HTTP/1.1\r\nhost: up.test\r\nx-a: 1\r\nupgrade: websocket\r\nconnection: upgrade\r\nx-b: 2\r\n\r\n",
        ),
        (&refused, None, "GET /x HTTP/1.1\r\nhost: up.test\r\nx-a: 1\r\nx-b: 2\r\n\r\n"),
        (&RequestHead::new(Method::CONNECT, "a:1", ""), None, "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n"),
        (
            &RequestHead::new(Method::GET, "a\r\nx: y", "/ \r\n"),
            None,
            "GET /%20%0D%0A HTTP/1.1\r\nhost: ax: y\r\n\r\n",
        ),
    ];
    for (request, text, expected) in table {
        let (mut conn, mut upstream) = connect();
        conn.send_head(request, EndStream::from_last(text.is_none()));
        if let Some(text) = text {
            conn.send_data((*text).into(), EndStream::Yes);
        }
        poll_fn(|cx| conn.poll_flush(cx)).await.unwrap();
        assert_eq!(upstream.read_available(), *expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_accepted_upgrade_is_a_tunnel_with_half_close() {
    let (mut conn, mut upstream) = connect();
    let mut request = get();
    request.upgrade = Some("websocket".into());
    conn.send_head(&request, EndStream::No);
    poll_fn(|cx| conn.poll_flush(cx)).await.unwrap();
    upstream.read_some().await;
    upstream
        .write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw",
        )
        .await;
    let (response, end) = head(&mut conn).await.unwrap();
    assert_eq!((response.headers["upgrade"].to_str().unwrap(), end), ("websocket", EndStream::No));
    conn.send_data("out".into(), EndStream::Yes);
    poll_fn(|cx| conn.poll_flush(cx)).await.unwrap();
    assert_eq!(upstream.read_to_end().await, "out");
    upstream.write_all(b"more").await;
    upstream.shutdown().await;
    assert_eq!(body(&mut conn).await.unwrap(), "rawmore");
    assert!(!conn.is_reusable());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_tells_what_happens_to_it() {
    let (mut conn, upstream) = connect();
    assert!(poll_fn(|cx| Poll::Ready(conn.poll_idle_closed(cx))).await.is_pending());
    drop(upstream);
    assert!(matches!(poll_fn(|cx| conn.poll_idle_closed(cx)).await, IdleEvent::Closed));
    assert!(!conn.is_reusable());
    let (mut conn, upstream) = connect();
    upstream.reset();
    assert!(matches!(poll_fn(|cx| conn.poll_idle_closed(cx)).await, IdleEvent::Broken(_)));
    let (mut conn, mut upstream) = connect();
    upstream.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await;
    assert!(matches!(poll_fn(|cx| conn.poll_idle_closed(cx)).await, IdleEvent::UnexpectedBytes));
    assert!(!conn.is_reusable());
}

#[tokio::test]
async fn a_request_is_unwritten_until_its_first_byte_leaves() {
    let (mut conn, mut upstream) = connect();
    for _ in 0..2 {
        conn.send_head(&get(), EndStream::Yes);
        assert!(conn.is_unwritten());
        poll_fn(|cx| conn.poll_flush(cx)).await.unwrap();
        assert!(!conn.is_unwritten());
        upstream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        head(&mut conn).await.unwrap();
        assert!(conn.is_reusable());
    }
}
