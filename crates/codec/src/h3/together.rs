//! Our client against our server, over QUIC in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tidegate_quic::Conn;
use tidegate_quic::testing::{Network, Path, pair};
use tidegate_types::{EndStream, RequestHead, ResponseHead, Scheme};
use tokio::task::{JoinHandle, spawn_local};

use super::testing::local;
use super::{
    ClientConn, ClientDriver, ClientOptions, Options, ServerConn, ServerExchange, ServerOptions, connect,
};
use crate::multiplex::{
    ClientConnection, ClientDrive, ClientEvent, ClientExchange as _, MessageOptions, ServerConnection,
};
use crate::stream::{BodyFrame, ClientStream, ResponseFrame, ServerStream};

fn get(path: &'static str) -> RequestHead {
    let mut head = RequestHead::new(Method::GET, "host", path);
    head.scheme = Scheme::Https;
    head
}

/// Answers each request with its own body and trailers.
async fn echo(mut exchange: ServerExchange) {
    let (head, mut end) = poll_fn(|cx| exchange.poll_head(cx)).await.unwrap();
    assert_eq!(head.version, http::Version::HTTP_3);
    let mut response = ResponseHead::new(StatusCode::OK);
    response.headers.insert("path", HeaderValue::from_bytes(&head.path).unwrap());
    exchange.send_head(&response, EndStream::No);
    let mut trailers = None;
    while !end.is_end() {
        match poll_fn(|cx| exchange.poll_body(cx)).await.unwrap() {
            BodyFrame::Data(data, last) => {
                exchange.send_data(data, EndStream::No);
                end = last;
            }
            BodyFrame::Trailers(fields) => {
                trailers = Some(fields);
                end = EndStream::Yes;
            }
        }
        poll_fn(|cx| exchange.poll_flush(cx)).await.unwrap();
    }
    match trailers {
        Some(trailers) => exchange.send_trailers(&trailers),
        None => exchange.send_data(Bytes::new(), EndStream::Yes),
    }
    poll_fn(|cx| exchange.poll_flush(cx)).await.unwrap();
    assert!(exchange.is_request_complete());
}

async fn serve(conn: Rc<RefCell<ServerConn>>) {
    // Whoever shuts it down drives it from then on.
    while let Some(Ok(exchange)) = poll_fn(|cx| conn.borrow_mut().poll_accept(cx)).await {
        spawn_local(echo(exchange));
    }
}

async fn ask(
    conn: &ClientConn,
    head: &RequestHead,
    body: Option<Bytes>,
) -> (ResponseHead, Vec<u8>, Option<HeaderMap>) {
    let mut exchange = conn.open();
    assert!(exchange.is_unwritten());
    exchange.send_head(head, EndStream::from_last(body.is_none()));
    let mut fields = HeaderMap::new();
    if let Some(body) = &body {
        fields.insert("length", HeaderValue::from(body.len()));
        exchange.send_data(body.clone(), EndStream::No);
        exchange.send_trailers(&fields);
    }
    let ResponseFrame::Head(response, mut end) = poll_fn(|cx| exchange.poll_head(cx)).await.unwrap() else {
        panic!("not final")
    };
    let (mut received, mut trailers) = (Vec::new(), None);
    while !end.is_end() {
        match poll_fn(|cx| exchange.poll_body(cx)).await.unwrap() {
            BodyFrame::Data(data, last) => {
                received.extend_from_slice(&data);
                end = last;
            }
            BodyFrame::Trailers(fields) => {
                trailers = Some(fields);
                end = EndStream::Yes;
            }
        }
    }
    assert!(exchange.is_request_complete() && exchange.is_response_complete() && !exchange.is_unwritten());
    (response, received, trailers)
}

/// The client's events, while it is driven.
type Seen = Rc<RefCell<Vec<ClientEvent>>>;

fn drive(mut driver: ClientDriver) -> (Seen, JoinHandle<ClientDriver>) {
    let events = Seen::default();
    let seen = events.clone();
    let driving = spawn_local(async move {
        loop {
            let event = poll_fn(|cx| driver.poll_event(cx)).await;
            let over = matches!(event, ClientEvent::Closed(_));
            seen.borrow_mut().push(event);
            if over {
                return driver;
            }
        }
    });
    (events, driving)
}

fn server_over(conn: Conn) -> Rc<RefCell<ServerConn>> {
    let options = ServerOptions {
        common: Options::from(MessageOptions { allow_connect: true, ..MessageOptions::default() }),
        ..ServerOptions::default()
    };
    let server = Rc::new(RefCell::new(ServerConn::new(conn, Rc::new(options), Rc::new(()))));
    spawn_local(serve(server.clone()));
    server
}

fn post(path: &'static str) -> RequestHead {
    RequestHead { method: Method::POST, ..get(path) }
}

#[tokio::test(start_paused = true)]
async fn requests_and_responses_cross() {
    local(async {
        let network = Network::new(1);
        let (client, server) = pair(&network, &["h3"]).await;
        let server = server_over(server);
        let (conn, driver) = connect(client, Rc::new(ClientOptions::default()), Rc::new(()));
        let (events, driving) = drive(driver);
        let (response, body, trailers) = ask(&conn, &get("/one"), None).await;
        assert_eq!(
            (response.status, response.headers["path"].to_str().unwrap(), body.len()),
            (StatusCode::OK, "/one", 0)
        );
        assert!(trailers.is_none());
        assert!(conn.takes_extended_connect());
        let large = Bytes::from(vec![7; 3_000_000]);
        let (_, body, trailers) = ask(&conn, &post("/large"), Some(large.clone())).await;
        assert!(body == large);
        assert_eq!(trailers.unwrap()["length"], "3000000");
        // Many at once.
        let asked: Vec<_> = (0..300)
            .map(|index| {
                let conn = conn.clone();
                spawn_local(async move {
                    let body = Bytes::from(vec![index as u8; 1 + index * 10]);
                    let (_, echoed, _) = ask(&conn, &post("/"), Some(body.clone())).await;
                    assert_eq!(echoed, body);
                })
            })
            .collect();
        for asked in asked {
            asked.await.unwrap();
        }
        assert!(matches!(events.borrow()[0], ClientEvent::Capacity(100)), "{:?}", events.borrow()[0]);
        assert_eq!((conn.streams(), server.borrow().streams()), (0, 0));
        // A drain.
        server.borrow_mut().announce_goaway();
        let (response, ..) = ask(&conn, &get("/late"), None).await;
        assert_eq!(response.status, StatusCode::OK);
        server.borrow_mut().final_goaway();
        driving.await.unwrap();
        assert!(matches!(events.borrow().last(), Some(ClientEvent::Closed(Ok(())))));
        assert!(conn.is_going_away());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_network_changes_nothing_but_the_time() {
    local(async {
        for seed in 0..5 {
            let network = Network::new(seed);
            let path =
                Path { loss: 0.05, doubled: 0.05, jitter: Duration::from_millis(20), ..Path::default() };
            network.set_path(path);
            let endpoint = tidegate_quic::testing::serve(&network, &["h3"]);
            let client = tidegate_quic::testing::client(&network, 1, &["h3"]);
            // Nobody waits for the handshake.
            let (conn, driver) = connect(client, Rc::new(ClientOptions::default()), Rc::new(()));
            let (_, driving) = drive(driver);
            let server = poll_fn(|cx| endpoint.poll_incoming(cx)).await.unwrap().accept().unwrap();
            let server = server_over(server);
            let asked: Vec<_> = (0..150)
                .map(|index| {
                    let conn = conn.clone();
                    spawn_local(async move {
                        let body = Bytes::from(vec![index as u8; index * 100]);
                        let (_, echoed, _) = ask(&conn, &post("/"), Some(body.clone())).await;
                        assert!(echoed == body, "{index}");
                    })
                })
                .collect();
            for asked in asked {
                asked.await.unwrap();
            }
            // The server closes when all is delivered, and not before.
            let mut exchange = conn.open();
            exchange.send_head(&get("/last"), EndStream::Yes);
            let ResponseFrame::Head(_, end) = poll_fn(|cx| exchange.poll_head(cx)).await.unwrap() else {
                panic!("not final")
            };
            server.borrow_mut().final_goaway();
            poll_fn(|cx| server.borrow_mut().poll_shutdown(cx)).await.unwrap();
            if !end.is_end() {
                poll_fn(|cx| exchange.poll_body(cx)).await.unwrap();
            }
            assert!(exchange.is_response_complete());
            driving.await.unwrap();
        }
    })
    .await;
}
