//! One end of a connection, whose peer is a script.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use tidegate_quic::{
    CloseCode, ConnectionError, Dir, EarlyData, Event, Loss, ReadError, Side, StreamId, VarInt, WriteError,
};
use tidegate_types::{EndStream, RequestHead, ResponseHead};
use tokio::task::LocalSet;

use super::frames::FrameHead;
use super::server::ServerConn;
use super::transport::Transport;
use super::{ClientConn, ClientDriver, ClientOptions, ServerExchange, ServerOptions};
use crate::fields::{Asked, write_request, write_response};
use crate::multiplex::{
    ClientDrive, ClientEvent, ConnError, Event as Counted, Observer, ServerConnection, Traffic,
};
use crate::qpack::Encoder;
use crate::stream::BodyFrame;

/// Runs a test that spawns.
pub(crate) async fn local<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

/// Remembers events.
#[derive(Debug, Default)]
pub(crate) struct Seer(RefCell<Vec<Counted>>);

impl Seer {
    pub(crate) fn count(&self, event: Counted) -> usize {
        self.0.borrow().iter().filter(|seen| **seen == event).count()
    }
}

impl Observer for Seer {
    fn on_event(&self, event: Counted) {
        self.0.borrow_mut().push(event);
    }
}

/// A connection whose peer is a script.
#[derive(Clone)]
pub(crate) struct Script(Rc<RefCell<Wire>>);

struct Wire {
    /// Ours.
    side: Side,
    events: VecDeque<Event>,
    streams: BTreeMap<u64, Half>,
    accept: VecDeque<StreamId>,
    opened: [u64; 2],
    /// Streams that the peer allows.
    allowed: [u64; 2],
    /// Bytes that each stream takes.
    window: usize,
    closed: Option<(CloseCode, Bytes)>,
    early: Option<EarlyData>,
    handshaking: bool,
    waker: Option<Waker>,
    is_lost: bool,
}

#[derive(Default)]
struct Half {
    input: VecDeque<Bytes>,
    fin: bool,
    reset: Option<u64>,
    over: bool,
    /// What our end said.
    output: BytesMut,
    finished: bool,
    reset_sent: Option<u64>,
    stop_sent: Option<u64>,
    blocked: bool,
}

/// Request stream number `index` of a client.
pub(crate) fn request_id(index: u64) -> StreamId {
    StreamId::new(Side::Client, Dir::Bi, index)
}

/// Unidirectional stream number `index` of the peer of a server, or of a client.
pub(crate) fn uni_id(side: Side, index: u64) -> StreamId {
    StreamId::new(side, Dir::Uni, index)
}

impl Script {
    fn new(side: Side) -> Self {
        Self(Rc::new(RefCell::new(Wire {
            side,
            events: VecDeque::new(),
            streams: BTreeMap::new(),
            accept: VecDeque::new(),
            opened: [0; 2],
            allowed: [100, 3],
            window: usize::MAX,
            closed: None,
            early: None,
            handshaking: true,
            waker: None,
            is_lost: false,
        })))
    }

    /// A server whose client is the script.
    pub(crate) fn server(options: ServerOptions) -> (Self, ServerConn, Rc<Seer>) {
        let script = Self::new(Side::Server);
        let seer = Rc::new(Seer::default());
        let conn = ServerConn::over(Box::new(script.clone()), Rc::new(options), seer.clone());
        script.push(Event::Connected);
        (script, conn, seer)
    }

    /// A client whose server is the script.
    pub(crate) fn client(options: ClientOptions) -> (Self, ClientConn, ClientDriver) {
        let script = Self::new(Side::Client);
        let (conn, driver) =
            super::client::connect_over(Box::new(script.clone()), Rc::new(options), Rc::new(Seer::default()));
        (script, conn, driver)
    }

    pub(crate) fn push(&self, event: Event) {
        let wire = &mut *self.0.borrow_mut();
        wire.events.push_back(event);
        if let Some(waker) = wire.waker.take() {
            waker.wake();
        }
    }

    /// The peer allows so many streams.
    pub(crate) fn allow(&self, streams: u64) {
        self.0.borrow_mut().allowed[Dir::Bi as usize] = streams;
        self.push(Event::Available(Dir::Bi));
    }

    pub(crate) fn set_window(&self, window: usize) {
        self.0.borrow_mut().window = window;
    }

    /// The handshake was over before our end began.
    pub(crate) fn set_connected(&self) {
        self.0.borrow_mut().handshaking = false;
    }

    /// Somebody else has seen what happened so far.
    pub(crate) fn forget_events(&self) {
        self.0.borrow_mut().events.clear();
    }

    pub(crate) fn set_early(&self, early: EarlyData) {
        self.0.borrow_mut().early = Some(early);
    }

    /// The streams' windows open again.
    pub(crate) fn unblock(&self, window: usize) {
        self.set_window(window);
        let ids: Vec<u64> =
            self.0.borrow().streams.iter().filter(|(_, s)| s.blocked).map(|(id, _)| *id).collect();
        for id in ids {
            self.push(Event::Writable(stream_id(id)));
        }
    }

    fn touch(&self, id: StreamId, change: impl FnOnce(&mut Half)) {
        let ours = self.0.borrow().streams.contains_key(&u64::from(id));
        {
            let wire = &mut *self.0.borrow_mut();
            change(wire.streams.entry(u64::from(id)).or_default());
            if !ours {
                wire.accept.push_back(id);
            }
        }
        self.push(if ours { Event::Readable(id) } else { Event::Opened(id.dir()) });
    }

    /// The peer sends.
    pub(crate) fn send(&self, id: StreamId, bytes: impl AsRef<[u8]>) {
        self.touch(id, |half| half.input.push_back(Bytes::copy_from_slice(bytes.as_ref())));
    }

    /// The peer sends, and ends the stream.
    pub(crate) fn send_all(&self, id: StreamId, bytes: impl AsRef<[u8]>) {
        self.touch(id, |half| {
            if !bytes.as_ref().is_empty() {
                half.input.push_back(Bytes::copy_from_slice(bytes.as_ref()));
            }
            half.fin = true;
        });
    }

    /// The peer resets its direction.
    pub(crate) fn reset(&self, id: StreamId, code: u64) {
        self.touch(id, |half| {
            half.input.clear();
            half.reset = Some(code);
        });
    }

    /// The same, behind what our end has not read yet.
    pub(crate) fn reset_behind(&self, id: StreamId, code: u64) {
        self.touch(id, |half| half.reset = Some(code));
    }

    /// The peer wants no more.
    pub(crate) fn stop(&self, id: StreamId, code: u64) {
        self.push(Event::Stopped(id, VarInt::from_u64(code).unwrap()));
    }

    /// What our end has said in a stream, and whether it ended it; once.
    pub(crate) fn said(&self, id: StreamId) -> (BytesMut, bool) {
        let wire = &mut *self.0.borrow_mut();
        let half = wire.streams.entry(u64::from(id)).or_default();
        (std::mem::take(&mut half.output), half.finished)
    }

    /// The codes of our STOP_SENDING and RESET_STREAM.
    pub(crate) fn given_up(&self, id: StreamId) -> (Option<u64>, Option<u64>) {
        let wire = self.0.borrow();
        let half = wire.streams.get(&u64::from(id));
        (half.and_then(|half| half.stop_sent), half.and_then(|half| half.reset_sent))
    }

    /// Bytes of a stream that nobody has read.
    pub(crate) fn unread(&self, id: StreamId) -> usize {
        self.0.borrow().streams.get(&u64::from(id)).map_or(0, |half| half.input.iter().map(Bytes::len).sum())
    }

    /// How our end closed the connection: the code of an application's close, and the reason.
    pub(crate) fn closed(&self) -> Option<(Option<u64>, String)> {
        let wire = self.0.borrow();
        wire.closed.as_ref().map(|(code, reason)| {
            let code = match code {
                CloseCode::Application(code) => Some(code.into_inner()),
                CloseCode::NoError => None,
            };
            (code, String::from_utf8_lossy(reason).into_owned())
        })
    }

    /// The peer closes, without a reason.
    pub(crate) fn close_by_peer(&self) {
        self.push(Event::Lost(Loss::Connection(ConnectionError::ApplicationClosed(
            tidegate_quic::proto::ApplicationClose {
                error_code: VarInt::from_u32(0x100),
                reason: Bytes::new(),
            },
        ))));
    }
}

fn stream_id(id: u64) -> StreamId {
    let side = if id & 1 == 0 { Side::Client } else { Side::Server };
    let dir = if id & 2 == 0 { Dir::Bi } else { Dir::Uni };
    StreamId::new(side, dir, id >> 2)
}

impl Transport for Script {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let wire = &mut *self.0.borrow_mut();
        match wire.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None if wire.closed.is_some() && !std::mem::replace(&mut wire.is_lost, true) => {
                Poll::Ready(Event::Lost(Loss::Connection(ConnectionError::LocallyClosed)))
            }
            None => {
                wire.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn open(&mut self, dir: Dir) -> Option<StreamId> {
        let wire = &mut *self.0.borrow_mut();
        let at = dir as usize;
        (wire.opened[at] < wire.allowed[at]).then(|| {
            wire.opened[at] += 1;
            let id = StreamId::new(wire.side, dir, wire.opened[at] - 1);
            wire.streams.entry(u64::from(id)).or_default();
            id
        })
    }

    fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        let wire = &mut *self.0.borrow_mut();
        let at = wire.accept.iter().position(|id| id.dir() == dir)?;
        wire.accept.remove(at)
    }

    fn read(&mut self, id: StreamId, max: usize) -> Result<Option<Bytes>, ReadError> {
        let wire = &mut *self.0.borrow_mut();
        let half = wire.streams.get_mut(&u64::from(id)).filter(|half| !half.over && half.stop_sent.is_none());
        let half = half.ok_or(ReadError::Closed)?;
        if let Some(code) = half.reset.filter(|_| half.input.is_empty()) {
            half.over = true;
            return Err(ReadError::Reset(VarInt::from_u64(code).unwrap()));
        }
        match half.input.front_mut() {
            Some(front) if max < front.len() => Ok(Some(front.split_to(max))),
            Some(_) => Ok(half.input.pop_front()),
            None if half.fin => {
                half.over = true;
                Ok(None)
            }
            None => Err(ReadError::Blocked),
        }
    }

    fn write(&mut self, id: StreamId, chunks: &mut [Bytes]) -> Result<usize, WriteError> {
        let wire = &mut *self.0.borrow_mut();
        let half = wire.streams.entry(u64::from(id)).or_default();
        let mut written = 0;
        for chunk in chunks {
            let now = chunk.len().min(wire.window - written.min(wire.window));
            half.output.extend_from_slice(&chunk.split_to(now));
            written += now;
            half.blocked = !chunk.is_empty();
        }
        if written == 0 { Err(WriteError::Blocked) } else { Ok(written) }
    }

    fn finish(&mut self, id: StreamId) {
        self.0.borrow_mut().streams.entry(u64::from(id)).or_default().finished = true;
    }

    fn reset(&mut self, id: StreamId, code: VarInt) {
        let wire = &mut *self.0.borrow_mut();
        wire.streams.entry(u64::from(id)).or_default().reset_sent.get_or_insert(code.into_inner());
    }

    fn stop(&mut self, id: StreamId, code: VarInt) {
        let wire = &mut *self.0.borrow_mut();
        wire.streams.entry(u64::from(id)).or_default().stop_sent.get_or_insert(code.into_inner());
    }

    fn flush(&mut self) {}

    fn close(&mut self, code: CloseCode, reason: Bytes) {
        self.0.borrow_mut().closed.get_or_insert((code, reason));
    }

    fn is_handshaking(&self) -> bool {
        self.0.borrow().handshaking
    }

    fn is_early(&self, _id: StreamId) -> bool {
        self.0.borrow().early.is_some()
    }

    fn early_data(&self) -> EarlyData {
        self.0.borrow().early.unwrap_or(EarlyData::None)
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn local_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], 1).into()
    }

    fn remote_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], 2).into()
    }
}

/// What a poll gives now.
pub(crate) fn now<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Takes all exchanges that there are, and what ended the connection.
pub(crate) fn accept_all(conn: &mut ServerConn) -> (Vec<ServerExchange>, Option<Option<ConnError>>) {
    let (mut exchanges, mut ended) = (Vec::new(), None);
    while let Some(accepted) = now(|cx| conn.poll_accept(cx)) {
        match accepted {
            Some(Ok(exchange)) => exchanges.push(exchange),
            Some(Err(error)) => ended = Some(Some(error)),
            None => {
                ended.get_or_insert(None);
                break;
            }
        }
    }
    (exchanges, ended)
}

/// All events that there are.
pub(crate) fn events(driver: &mut ClientDriver) -> Vec<ClientEvent> {
    let mut events = Vec::new();
    while let Some(event) = now(|cx| driver.poll_event(cx)) {
        let over = matches!(event, ClientEvent::Closed(_));
        events.push(event);
        if over {
            break;
        }
    }
    events
}

/// A frame.
pub(crate) fn frame(kind: u64, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = BytesMut::new();
    FrameHead { kind, len: payload.as_ref().len() as u64 }.put(&mut out);
    out.extend_from_slice(payload.as_ref());
    out.to_vec()
}

/// HEADERS of literal fields, whatever they say.
pub(crate) fn headers(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = BytesMut::from(&[0_u8, 0][..]);
    for (name, value) in fields {
        crate::hpack::integer::encode(&mut out, 0x20, 3, name.len());
        out.extend_from_slice(name);
        crate::hpack::integer::encode(&mut out, 0, 7, value.len());
        out.extend_from_slice(value);
    }
    frame(1, out)
}

/// A whole request's head.
pub(crate) fn request(head: &RequestHead) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_request(&mut Encoder, &mut out, head).unwrap();
    frame(1, out)
}

/// A whole response's head.
pub(crate) fn response(status: u16) -> Vec<u8> {
    let mut out = BytesMut::new();
    let head = ResponseHead::new(http::StatusCode::from_u16(status).unwrap());
    write_response(&mut Encoder, &mut out, &head, &Asked::Ordinary);
    frame(1, out)
}

/// The frames of what was said.
pub(crate) fn frames_of(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, len)) = FrameHead::parse(bytes) {
        let end = len + head.len as usize;
        frames.push((head.kind, bytes[len..end].to_vec()));
        bytes = &bytes[end..];
    }
    assert!(bytes.is_empty());
    frames
}

/// A part of a body, and whether it is the last.
pub(crate) fn data(frame: BodyFrame) -> (Bytes, EndStream) {
    match frame {
        BodyFrame::Data(data, end) => (data, end),
        BodyFrame::Trailers(trailers) => panic!("{trailers:?}"),
    }
}

/// A small request.
pub(crate) fn get() -> RequestHead {
    let mut head = RequestHead::new(http::Method::GET, "host", "/");
    head.scheme = tidegate_types::Scheme::Https;
    head
}
