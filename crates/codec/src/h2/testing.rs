//! Both ends of a connection in memory, the library at the far one, or frames by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tidegate_net::Io;
use tidegate_testkit::io::MemIo;
use tidegate_types::{EndStream, RequestHead, ResponseHead};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::frames::{FrameHead, kind};
use super::options::{ClientOptions, ServerOptions};
use super::preface::PREFACE;
use super::{ClientConn, ServerConn, ServerExchange};
use crate::multiplex::{ClientDrive, ClientEvent, ConnError, Event, Observer, ServerConnection};
use crate::stream::{BodyFrame, ClientStream, ResponseFrame, ServerStream, StreamError};

/// Runs a test that spawns.
pub(crate) async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

/// Lets everything happen that can.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Remembers events.
#[derive(Debug, Default)]
pub(crate) struct Seer(RefCell<Vec<Event>>);

impl Seer {
    pub(crate) fn count(&self, event: Event) -> usize {
        self.0.borrow().iter().filter(|seen| **seen == event).count()
    }
}

impl Observer for Seer {
    fn on_event(&self, event: Event) {
        self.0.borrow_mut().push(event);
    }
}

/// [`MemIo`] for the library.
pub(crate) struct Plain(pub(crate) MemIo);

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = BytesMut::with_capacity(buf.remaining());
        std::task::ready!(self.0.poll_read(cx, &mut bytes))?;
        let (now, rest) = bytes.split_at(bytes.len().min(buf.remaining()));
        assert!(rest.is_empty());
        buf.put_slice(now);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown(cx)
    }
}

/// A server connection under test, driven by a task of its own.
pub(crate) struct Served {
    pub(crate) conn: Rc<RefCell<ServerConn>>,
    pub(crate) seer: Rc<Seer>,
    pub(crate) task: JoinHandle<Option<ConnError>>,
}

/// Serves `io`, each exchange by `handler` in a task.
pub(crate) fn serve<F>(
    io: MemIo,
    options: ServerOptions,
    handler: impl Fn(ServerExchange) -> F + 'static,
) -> Served
where
    F: Future<Output = ()> + 'static,
{
    let seer = Rc::new(Seer::default());
    let conn = ServerConn::new(Box::new(io), BytesMut::new(), Rc::new(options), seer.clone());
    let conn = Rc::new(RefCell::new(conn));
    let driven = Rc::clone(&conn);
    let task = spawn_local(async move {
        let mut fault = None;
        loop {
            match poll_fn(|cx| driven.borrow_mut().poll_accept(cx)).await {
                Some(Ok(exchange)) => drop(spawn_local(handler(exchange))),
                Some(Err(error)) => fault = Some(error),
                None => return fault,
            }
        }
    });
    Served { conn, seer, task }
}

/// A client connection under test, driven by a task that collects its events.
pub(crate) struct Called {
    pub(crate) conn: ClientConn,
    pub(crate) seer: Rc<Seer>,
    pub(crate) events: Rc<RefCell<Vec<ClientEvent>>>,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) fn call(io: MemIo, options: ClientOptions) -> Called {
    let seer = Rc::new(Seer::default());
    let (conn, mut driver) = super::client::connect(Box::new(io), Rc::new(options), seer.clone()).unwrap();
    let events = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&events);
    let task = spawn_local(async move {
        loop {
            let event = poll_fn(|cx| driver.poll_event(cx)).await;
            let over = matches!(event, ClientEvent::Closed(_));
            told.borrow_mut().push(event);
            if over {
                let _ = poll_fn(|cx| driver.poll_shutdown(cx)).await;
                return;
            }
        }
    });
    Called { conn, seer, events, task }
}

pub(crate) fn get(path: &str) -> RequestHead {
    RequestHead::new(http::Method::GET, "a", path.to_owned())
}

pub(crate) fn post(path: &str) -> RequestHead {
    RequestHead::new(http::Method::POST, "a", path.to_owned())
}

pub(crate) fn ok() -> ResponseHead {
    ResponseHead::new(http::StatusCode::OK)
}

pub(crate) async fn head_of(exchange: &mut ServerExchange) -> (Box<RequestHead>, EndStream) {
    poll_fn(|cx| exchange.poll_head(cx)).await.unwrap()
}

pub(crate) async fn flush_server(exchange: &mut ServerExchange) -> Result<(), StreamError> {
    poll_fn(|cx| exchange.poll_flush(cx)).await
}

/// Sends back what comes, with backpressure.
pub(crate) async fn echo(mut exchange: ServerExchange) {
    let Ok((_, end)) = poll_fn(|cx| exchange.poll_head(cx)).await else { return };
    exchange.send_head(&ok(), end);
    let mut ended = end.is_end();
    while !ended {
        match poll_fn(|cx| exchange.poll_body(cx)).await {
            Ok(BodyFrame::Data(data, end)) => {
                exchange.send_data(data, end);
                ended = end.is_end();
            }
            Ok(BodyFrame::Trailers(trailers)) => {
                exchange.send_trailers(&trailers);
                ended = true;
            }
            Err(_) => return,
        }
        if flush_server(&mut exchange).await.is_err() {
            return;
        }
    }
    let _ = flush_server(&mut exchange).await;
}

/// The final head of a response.
pub(crate) async fn final_head(
    exchange: &mut dyn ClientStream,
) -> Result<(ResponseHead, EndStream), StreamError> {
    loop {
        if let ResponseFrame::Head(head, end) = poll_fn(|cx| exchange.poll_head(cx)).await? {
            return Ok((head, end));
        }
    }
}

/// A response's body, and its trailers.
pub(crate) async fn body_of(
    exchange: &mut dyn ClientStream,
) -> Result<(Bytes, Option<http::HeaderMap>), StreamError> {
    let mut all = BytesMut::new();
    loop {
        match poll_fn(|cx| exchange.poll_body(cx)).await? {
            BodyFrame::Data(data, end) => {
                all.extend_from_slice(&data);
                if end.is_end() {
                    return Ok((all.freeze(), None));
                }
            }
            BodyFrame::Trailers(trailers) => return Ok((all.freeze(), Some(trailers))),
        }
    }
}

/// A frame by hand.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `GET http://a/` from the static table, `:authority` as a literal.
pub(crate) const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];
/// `POST http://a/`.
pub(crate) const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 1, b'a'];
/// `:status: 200`.
pub(crate) const STATUS_200: &[u8] = &[0x88];

/// END_STREAM and END_HEADERS.
pub(crate) const WHOLE: u8 = 0x5;
/// END_HEADERS.
pub(crate) const OPEN: u8 = 0x4;

/// A client's first bytes.
pub(crate) fn hello(settings: &[u8]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend_from_slice(&frame(kind::SETTINGS, 0, 0, settings));
    bytes
}

/// What came, frame by frame: kind, flags, stream, payload.
pub(crate) fn frames_of(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while bytes.len() >= 9 {
        let head = FrameHead::parse(bytes).unwrap();
        let (payload, rest) = bytes[9..].split_at(head.len);
        frames.push((head.kind, head.flags, head.stream, payload.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a frame");
    frames
}
