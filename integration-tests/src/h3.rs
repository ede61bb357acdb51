//! A client of HTTP/3: our own codec over real sockets, and QUIC by hand for what it hides.
//!
//! Everything runs on one runtime of the test's thread ([`run`]); the proxy is another process.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tidegate_codec::h3::{ClientConn, ClientExchange, ClientOptions};
use tidegate_codec::multiplex::{ClientConnection, ClientDrive, ClientEvent, MessageOptions};
use tidegate_codec::{BodyFrame, ClientStream, ResponseFrame, StreamError, h3};
use tidegate_quic::testing::{SERVER_NAME, client_config};
use tidegate_quic::{ClientConfig, Conn, ConnectionError, Dir, Event, Loss, ReadError, connect};
use tidegate_types::{EndStream, RequestHead};
use tokio::task::JoinHandle;

use crate::Config;
use crate::tls_origin::certificate;
use crate::wait::PATIENCE;

const QUIC: &str = "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport";

impl Config {
    /// Makes the listener one of HTTP/3, with the tests' certificate.
    pub fn http3(mut self) -> Self {
        let listener = &mut self.0["static_resources"]["listeners"][0];
        listener["address"]["socket_address"]["protocol"] = json!("UDP");
        listener["udp_listener_config"] = json!({"quic_options": {}});
        listener["filter_chains"][0]["transport_socket"] = quic_transport("server");
        self.hcm(json!({"codec_type": "HTTP3"}))
    }
}

/// A chain's transport with this certificate of the tests.
pub fn quic_transport(name: &str) -> Value {
    quic_transport_of(&certificate(&format!("{name}.pem")), &certificate(&format!("{name}.key")))
}

/// A chain's transport with the certificate and the key in these files.
pub fn quic_transport_of(chain: &Path, key: &Path) -> Value {
    let file = |path: &Path| json!({"filename": path});
    json!({"name": "quic", "typed_config": {
        "@type": QUIC,
        "downstream_tls_context": {"common_tls_context": {
            "tls_certificates": [{"certificate_chain": file(chain), "private_key": file(key)}],
            "alpn_protocols": ["h3"],
        }},
    }})
}

/// Runs a test on a runtime of its own, for at most [`PATIENCE`].
///
/// # Panics
/// When it takes longer.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.unwrap() })
}

/// Trusts the tests' authority and speaks HTTP/3; clones share sessions, and so early data.
pub fn trusting() -> ClientConfig {
    client_config(&["h3"])
}

/// A QUIC connection from a port of its own; nothing was sent yet.
pub fn dial(address: SocketAddr, config: ClientConfig) -> Conn {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    socket.connect(address).unwrap();
    connect(socket, address, config, SERVER_NAME).unwrap()
}

/// A connection of our own codec, driven by a task.
pub struct Client {
    conn: ClientConn,
    events: Rc<RefCell<Vec<String>>>,
    drive: JoinHandle<()>,
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// Its body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// Connects to `address`.
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(dial(address, trusting()))
    }

    /// Speaks on `conn`; requests that are sent before its handshake is over go early if they can.
    pub fn over(conn: Conn) -> Self {
        let tunnels = MessageOptions { allow_connect: true, ..MessageOptions::default() };
        let (conn, mut driver) = h3::connect(conn, Rc::new(ClientOptions::from(tunnels)), Rc::new(()));
        let events: Rc<RefCell<Vec<String>>> = Rc::default();
        let noted = events.clone();
        let drive = tokio::task::spawn_local(async move {
            loop {
                let event = poll_fn(|cx| driver.poll_event(cx)).await;
                noted.borrow_mut().push(format!("{event:?}"));
                if let ClientEvent::Closed(_) = event {
                    return;
                }
            }
        });
        Self { conn, events, drive }
    }

    /// Asks for `path`.
    ///
    /// # Errors
    /// How the stream, or the connection, ended before the answer.
    pub async fn get(&self, path: &str) -> Result<Answer, StreamError> {
        self.ask(Method::GET, path, b"").await
    }

    /// A request with a body, if there is any.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn ask(&self, method: Method, path: &str, body: &'static [u8]) -> Result<Answer, StreamError> {
        let mut exchange = self.open(method, path, EndStream::from_last(body.is_empty()));
        if !body.is_empty() {
            exchange.send_data(Bytes::from_static(body), EndStream::Yes);
        }
        answer(&mut exchange).await
    }

    /// Begins a request.
    pub fn open(&self, method: Method, path: &str, end: EndStream) -> ClientExchange {
        self.begin(&head(method, path), end)
    }

    /// Begins a request with this head.
    pub fn begin(&self, head: &RequestHead, end: EndStream) -> ClientExchange {
        let mut exchange = self.conn.open();
        exchange.send_head(head, end);
        exchange
    }

    /// What the connection told of itself.
    pub fn events(&self) -> Vec<String> {
        self.events.borrow().clone()
    }

    /// Waits until it tells something that begins so.
    pub async fn await_event(&self, beginning: &str) {
        while !self.events.borrow().iter().any(|event| event.starts_with(beginning)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the connection's end.
    pub async fn closed(self) -> Vec<String> {
        self.drive.await.unwrap();
        self.events.take()
    }
}

/// The head of a request for `a.test`.
pub fn head(method: Method, path: &str) -> RequestHead {
    let mut head = RequestHead::new(method, "a.test", path.to_owned());
    head.scheme = tidegate_types::Scheme::Https;
    head
}

/// The next head of the response, be it an interim one.
///
/// # Errors
/// How the stream, or the connection, ended before it.
pub async fn next_head(exchange: &mut ClientExchange) -> Result<ResponseFrame, StreamError> {
    poll_fn(|cx| {
        let _ = exchange.poll_flush(cx);
        exchange.poll_head(cx)
    })
    .await
}

/// What comes next after the head.
///
/// # Errors
/// How the stream, or the connection, ended before it.
pub async fn next_frame(exchange: &mut ClientExchange) -> Result<BodyFrame, StreamError> {
    poll_fn(|cx| {
        let _ = exchange.poll_flush(cx);
        exchange.poll_body(cx)
    })
    .await
}

/// Waits for the answer.
///
/// # Errors
/// How the stream, or the connection, ended before it.
pub async fn answer(exchange: &mut ClientExchange) -> Result<Answer, StreamError> {
    let (head, end) = loop {
        match next_head(exchange).await? {
            ResponseFrame::Informational(_) => {}
            ResponseFrame::Head(head, end) => break (head, end),
        }
    };
    let mut answer = Answer { status: head.status, headers: head.headers, body: Vec::new(), trailers: None };
    let mut end = end;
    while !end.is_end() {
        match next_frame(exchange).await? {
            BodyFrame::Data(data, last) => {
                answer.body.extend(data);
                end = last;
            }
            BodyFrame::Trailers(trailers) => {
                answer.trailers = Some(trailers);
                end = EndStream::Yes;
            }
        }
    }
    Ok(answer)
}

/// QUIC by hand: what the proxy says on its control stream, and how it ends the connection.
pub struct Raw {
    conn: Conn,
    control: Vec<u8>,
}

impl Raw {
    /// A connection whose handshake is over.
    ///
    /// # Panics
    /// When it fails.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut conn = dial(address, trusting());
        loop {
            match poll_fn(|cx| conn.poll_event(cx)).await {
                Event::Connected => return Self { conn, control: Vec::new() },
                Event::Lost(loss) => panic!("{loss}"),
                _ => {}
            }
        }
    }

    /// The certificate that the proxy showed.
    pub fn certificate(&self) -> Vec<u8> {
        self.conn.peer_certificates()[0].to_vec()
    }

    /// Reads to the end: the ids of GOAWAY frames, and how the proxy closed, with its words.
    pub async fn end(mut self) -> (Vec<u64>, String) {
        loop {
            match poll_fn(|cx| self.conn.poll_event(cx)).await {
                Event::Opened(Dir::Uni) => {
                    while let Some(id) = self.conn.accept(Dir::Uni) {
                        self.read(id);
                    }
                }
                Event::Readable(id) => self.read(id),
                Event::Lost(Loss::Connection(ConnectionError::ApplicationClosed(close))) => {
                    return (goaways(&self.control), format!("application {close}"));
                }
                Event::Lost(Loss::Connection(ConnectionError::ConnectionClosed(close))) => {
                    return (goaways(&self.control), format!("transport {close}"));
                }
                Event::Lost(loss) => return (goaways(&self.control), loss.to_string()),
                _ => {}
            }
        }
    }

    fn read(&mut self, id: tidegate_quic::StreamId) {
        loop {
            match self.conn.read(id, usize::MAX) {
                // Only the control stream is written to.
                Ok(Some(bytes)) => self.control.extend(bytes),
                Ok(None) | Err(ReadError::Blocked | ReadError::Reset(_) | ReadError::Closed) => return,
            }
        }
    }
}

/// The ids in the GOAWAY frames (type 7) of a control stream, whose type comes first (RFC 9114 §6.2.1, §7.2.6).
fn goaways(control: &[u8]) -> Vec<u64> {
    let mut rest = control.get(1..).unwrap_or_default();
    let mut ids = Vec::new();
    while let (Some(kind), Some(length)) = (varint(&mut rest), varint(&mut rest)) {
        let Some((payload, next)) = rest.split_at_checked(length as usize) else { break };
        rest = next;
        if kind == 7 {
            ids.extend(varint(&mut &*payload));
        }
    }
    ids
}

/// RFC 9000 §16.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let (first, _) = bytes.split_first()?;
    let (number, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    *bytes = rest;
    let value = number.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    // The two highest bits say the length.
    Some(value & (u64::MAX >> (64 - 8 * number.len() + 2)))
}
