//! Random exchanges between a [`ClientConn`] and a [`ServerConn`] over random links: what one end sends,
//! the other receives, and the connection stays good for the next exchange.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tidegate_testkit::io::{Link, pair_over};
use tidegate_types::{EndStream, RequestHead, ResponseHead};

use super::{ClientConn, ClientOptions, Next, Readable, ServerConn, ServerOptions};
use crate::stream::{BodyFrame, ClientStream, ResponseFrame, ServerStream, StreamError};

/// A body as it is sent, and what must arrive.
#[derive(Clone, Debug)]
struct Body {
    chunks: Vec<Bytes>,
    sized: bool,
    trailers: Option<HeaderMap>,
}

impl Body {
    fn random(random: &mut Rng) -> Self {
        let chunks = (0..random.usize(0..5))
            .map(|_| {
                let len = match random.u8(0..3) {
                    0 => random.usize(1..20),
                    1 => random.usize(1..10_000),
                    _ => random.usize(1..150_000),
                };
                (0..len).map(|at| b'a' + (at % 26) as u8).collect::<Bytes>()
            })
            .collect::<Vec<_>>();
        let sized = random.bool();
        let trailers = (!sized && !chunks.is_empty() && random.bool())
            .then(|| HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from(random.u32(..)))]));
        Self { chunks, sized, trailers }
    }

    fn len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    fn end(&self) -> EndStream {
        EndStream::from_last(self.chunks.is_empty())
    }

    fn frame(&self, headers: &mut HeaderMap) {
        if self.sized && !self.chunks.is_empty() {
            headers.insert("content-length", self.len().into());
        }
    }
}

/// Both roles, as far as bodies go.
trait Peer {
    fn data(&mut self, data: Bytes, end: EndStream);
    fn trailers(&mut self, trailers: &HeaderMap);
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;
    fn body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyFrame, StreamError>>;
}

macro_rules! peer {
    ($conn:ty) => {
        impl Peer for $conn {
            fn data(&mut self, data: Bytes, end: EndStream) {
                self.send_data(data, end);
            }
            fn trailers(&mut self, trailers: &HeaderMap) {
                self.send_trailers(trailers);
            }
            fn flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
                self.poll_flush(cx)
            }
            fn body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyFrame, StreamError>> {
                self.poll_body(cx)
            }
        }
    };
}

peer!(ClientConn);
peer!(ServerConn);

async fn send(peer: &mut impl Peer, body: &Body) {
    for (index, chunk) in body.chunks.iter().enumerate() {
        let last = index + 1 == body.chunks.len() && body.trailers.is_none();
        peer.data(chunk.clone(), EndStream::from_last(last));
        poll_fn(|cx| peer.flush(cx)).await.unwrap();
    }
    if let Some(trailers) = &body.trailers {
        peer.trailers(trailers);
    }
    poll_fn(|cx| peer.flush(cx)).await.unwrap();
}

async fn receive(peer: &mut impl Peer, end: EndStream, expected: &Body) {
    let mut data = Vec::new();
    let mut trailers = None;
    let mut ended = end.is_end();
    while !ended {
        match poll_fn(|cx| peer.body(cx)).await.unwrap() {
            BodyFrame::Data(chunk, end) => {
                assert!(end.is_end() || !chunk.is_empty(), "an empty frame in the middle");
                data.extend_from_slice(&chunk);
                ended = end.is_end();
            }
            BodyFrame::Trailers(map) => {
                trailers = Some(map);
                ended = true;
            }
        }
    }
    assert_eq!(data, expected.chunks.concat());
    assert_eq!(trailers, expected.trailers);
}

async fn exchange(random: &mut Rng, client: &mut ClientConn, server: &mut ServerConn) {
    let (request_body, response_body) = (Body::random(random), Body::random(random));
    let mut request = RequestHead::new(Method::POST, "a.test", format!("/{}", random.u64(..)));
    request.headers.insert("x-value", HeaderValue::from(random.u64(..)));
    request_body.frame(&mut request.headers);
    let mut response = ResponseHead::new(StatusCode::from_u16(random.u16(200..204)).unwrap());
    response_body.frame(&mut response.headers);
    let hints = random.u8(0..3);

    let ask = async {
        assert!(client.is_reusable());
        client.send_head(&request, request_body.end());
        send(client, &request_body).await;
        let mut seen = 0;
        let (head, end) = loop {
            match poll_fn(|cx| client.poll_head(cx)).await.unwrap() {
                ResponseFrame::Informational(_) => seen += 1,
                ResponseFrame::Head(head, end) => break (head, end),
            }
        };
        assert_eq!((seen, head.status), (hints, response.status));
        receive(client, end, &response_body).await;
    };
    let serve = async {
        assert!(matches!(poll_fn(|cx| server.poll_readable(cx)).await, Readable::Bytes));
        let (head, end) = poll_fn(|cx| server.poll_head(cx)).await.unwrap();
        assert_eq!((&head.path, &head.headers["x-value"]), (&request.path, &request.headers["x-value"]));
        receive(server, end, &request_body).await;
        (0..hints).for_each(|_| server.send_informational(&ResponseHead::new(StatusCode::PROCESSING)));
        server.send_head(&response, response_body.end());
        send(server, &response_body).await;
        assert_eq!(server.finish_exchange(), Next::KeepAlive);
    };
    tokio::join!(ask, serve);
    assert_eq!((client.tx_bytes(), client.rx_bytes()), (server.rx_bytes(), server.tx_bytes()));
}

#[tokio::test(start_paused = true)]
async fn random_exchanges_arrive_whole_over_random_links() {
    let mut random = Rng::with_seed(42);
    for _ in 0..40 {
        let link = Link {
            latency: Duration::from_millis(random.u64(0..3)),
            window: random.usize(1000..300_000),
            max_read: if random.bool() { usize::MAX } else { random.usize(1..5000) },
            max_write: if random.bool() { usize::MAX } else { random.usize(1..5000) },
        };
        let (near, far) = pair_over(link);
        let client_options = ClientOptions { enable_trailers: true, ..Default::default() };
        let server_options = ServerOptions { enable_trailers: true, ..Default::default() };
        let mut client = ClientConn::new(Box::new(near), Rc::new(client_options));
        let mut server = ServerConn::new(Box::new(far), Rc::new(server_options));
        for _ in 0..5 {
            exchange(&mut random, &mut client, &mut server).await;
        }
    }
}
