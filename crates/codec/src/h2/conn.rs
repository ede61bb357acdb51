//! What a connection and its exchanges have in common: [`Core`], one cell for all of them.
//!
//! The connection's task calls [`Core::poll_drive`], which reads, handles frames (`input`), and writes once what
//! all had to say (`output`); exchanges put their frames into the output and take what came from their streams. Nothing
//! here is held by an idle connection but this structure: read and write buffers are the worker's.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tidegate_net::BoxIo;

use super::codes::ENHANCE_YOUR_CALM;
use super::flood::FloodCount;
use super::flow::RecvWindow;
use super::frames::{self, DEFAULT_WINDOW, FrameHead};
use super::input::Block;
use super::keepalive::{Due, Pinger};
use super::options::{ClientOptions, Options, ServerOptions};
use super::settings::{self, PeerSettings};
use super::streams::{Failure, Key, Owner, SendPhase, Stream, Streams};
use crate::h1::wire::Wire;
use crate::hpack;
use crate::multiplex::{AltSvc, ConnError, Event, Flood, Observer, PrematureResets};
use crate::stream::ResetCode;

/// The common part, held by the connection and by each exchange. Nobody holds a borrow across a call of something
/// that is not here: wakers only mark tasks, and an [`Observer`] must not call back.
pub(crate) type Shared = Rc<RefCell<Core>>;

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

/// The role with its settings.
pub(crate) enum Side {
    Server(Rc<ServerOptions>),
    Client(Rc<ClientOptions>),
}

impl Side {
    pub(crate) fn common(&self) -> &Options {
        match self {
            Self::Server(options) => &options.common,
            Self::Client(options) => options,
        }
    }

    pub(crate) fn role(&self) -> Role {
        match self {
            Self::Server(_) => Role::Server,
            Self::Client(_) => Role::Client,
        }
    }
}

/// See the module.
pub(crate) struct Core {
    pub(crate) wire: Wire,
    pub(crate) side: Side,
    pub(crate) observer: Rc<dyn Observer>,
    task: Task,
    pub(crate) streams: Streams,
    pub(crate) rx: Inbound,
    pub(crate) tx: Outbound,
    pub(crate) peer: PeerSettings,
    pub(crate) facts: Facts,
    /// Exchanges, whatever has become of their streams.
    pub(crate) live: u32,
    /// Streams that count against the limit of their opener.
    pub(crate) open: u32,
    /// Nothing is read any more, and exchanges have failed.
    ended: Option<Ended>,
    is_over: bool,
    /// A short output may wait for more, by its owner's leave.
    pub(crate) may_wait: bool,
    /// It does: the last poll did not write.
    pub(crate) waits: bool,
    /// A server's streams had no whole response when that came.
    unanswered: bool,
    pinger: Option<Box<Pinger>>,
}

/// The task that drives the connection.
#[derive(Default)]
struct Task {
    waker: Option<Waker>,
    /// Once is enough for whatever is sent between two polls.
    woken: bool,
}

/// What comes.
pub(crate) struct Inbound {
    pub(crate) greeting: Greeting,
    pub(crate) decoder: hpack::Decoder,
    /// A head in many frames.
    pub(crate) block: Option<Box<Block>>,
    pub(crate) window: RecvWindow,
    /// The highest stream that the peer opened.
    pub(crate) last_stream: u32,
    /// Streams that nobody has seen yet.
    pub(crate) accept: VecDeque<Key>,
    pub(crate) floods: FloodCount,
    pub(crate) resets: PrematureResets,
    /// Streams that we reset, whose frames may still be under way (RFC 9113 §5.4.2).
    pub(crate) forgiven: VecDeque<u32>,
}

/// How far the peer's first bytes have come (RFC 9113 §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// The client's 24 bytes are awaited.
    Preface,
    /// The first of them came, and were answered by SETTINGS; the others are awaited.
    PartOfPreface,
    /// SETTINGS are to be the first frame.
    Settings,
    Done,
}

/// What goes.
pub(crate) struct Outbound {
    pub(crate) encoder: hpack::Encoder,
    pub(crate) window: i64,
    /// Streams that have something to send, in turn.
    pub(crate) line: VecDeque<Key>,
    /// A client's streams that wait for others to end.
    pub(crate) waiting: VecDeque<Key>,
    /// The number of a client's next stream.
    pub(crate) next_id: u32,
    /// Frames that the socket has not taken, and how many of them are answers to the peer's.
    pub(crate) frames: u32,
    pub(crate) control: u32,
    /// Bytes written, ever, when the last of them is.
    pub(crate) control_until: u64,
    /// GOAWAY that only announces went.
    pub(crate) announced: bool,
    /// Streams above this one are refused.
    pub(crate) last_served: Option<u32>,
}

/// What the connection's owner is told.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The last GOAWAY.
    pub(crate) goaway: Option<GoAway>,
    /// GOAWAY came since somebody looked.
    pub(crate) goaway_came: bool,
    /// SETTINGS came since somebody looked.
    pub(crate) settings_came: bool,
    /// Bytes came since somebody looked.
    pub(crate) bytes_came: bool,
    /// A PING was answered since somebody looked.
    pub(crate) ping_answered: bool,
    pub(crate) close_announced: bool,
    /// ALTSVC frames of a server that nobody has looked at.
    pub(crate) alt_svc: Vec<AltSvc>,
}

/// A GOAWAY frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GoAway {
    pub(crate) last_stream: u32,
    pub(crate) code: u32,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// By the peer's FIN.
    ByPeer,
    /// The peer said goodbye, and nothing is left to do.
    GoneAway,
    Fault(ConnError),
    /// By its owner.
    Closed,
}

impl Core {
    pub(crate) fn new(io: BoxIo, seen: BytesMut, side: Side, observer: Rc<dyn Observer>) -> Shared {
        let options = side.common();
        let mut wire = Wire::new(io, options.buffer_limit);
        wire.rx = seen.len() as u64;
        wire.input = seen;
        let rx = Inbound {
            greeting: match side.role() {
                Role::Server => Greeting::Preface,
                Role::Client => Greeting::Settings,
            },
            decoder: hpack::Decoder::new(options.hpack_table_size as usize)
                .with_max_string(options.max_header_field_bytes as usize),
            block: None,
            window: RecvWindow::new(options.initial_connection_window_size.max(DEFAULT_WINDOW)),
            last_stream: 0,
            accept: VecDeque::new(),
            floods: FloodCount::new(options.floods),
            resets: PrematureResets::default(),
            forgiven: VecDeque::new(),
        };
        let tx = Outbound {
            encoder: hpack::Encoder::new(),
            window: i64::from(DEFAULT_WINDOW),
            line: VecDeque::new(),
            waiting: VecDeque::new(),
            next_id: 1,
            frames: 0,
            control: 0,
            control_until: 0,
            announced: false,
            last_served: None,
        };
        let pinger = options.keepalive.map(Pinger::new);
        let mut core = Self {
            wire,
            side,
            observer,
            task: Task::default(),
            streams: Streams::default(),
            rx,
            tx,
            peer: PeerSettings::default(),
            facts: Facts::default(),
            live: 0,
            open: 0,
            ended: None,
            is_over: false,
            may_wait: false,
            waits: false,
            unanswered: false,
            pinger,
        };
        if core.side.role() == Role::Client {
            core.greet();
        }
        Rc::new(RefCell::new(core))
    }

    /// Says who we are.
    pub(crate) fn greet(&mut self) {
        let role = self.side.role();
        settings::write_greeting(self.wire.output.text(GREETING), role, self.side.common());
    }

    pub(crate) fn count(&self, event: Event) {
        self.observer.on_event(event);
    }

    /// Wakes the connection's task for what an exchange did.
    #[inline]
    pub(crate) fn wake(&mut self) {
        if !self.task.woken
            && let Some(waker) = &self.task.waker
        {
            self.task.woken = true;
            waker.wake_by_ref();
        }
    }

    /// Whether the connection's end is known to its exchanges.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The fault that ended the connection, once.
    pub(crate) fn take_fault(&mut self) -> Option<ConnError> {
        match self.ended.take_if(|ended| matches!(ended, Ended::Fault(_))) {
            Some(Ended::Fault(error)) => Some(error),
            _ => None,
        }
    }

    /// How the connection ended, once.
    pub(crate) fn take_ended(&mut self) -> Option<Ended> {
        self.ended.take()
    }

    /// Reads, handles, writes. Ready when there is something to look at: streams to accept, news, the end.
    pub(crate) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.note_task(cx);
        if self.is_over {
            return Poll::Ready(());
        }
        for fills in 0.. {
            if let Err(error) = self.handle_input() {
                self.end(Ended::Fault(error));
            }
            if self.has_news() {
                return Poll::Ready(());
            }
            if self.wire.output.len() > MAX_UNWRITTEN {
                // Nothing more is read until the answers to it go out.
                match self.poll_write(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return self.broken(error),
                    Poll::Pending if self.wire.output.len() > MAX_UNWRITTEN => return self.poll_clock(cx),
                    Poll::Pending => {}
                }
            }
            if fills == MAX_FILLS {
                // Others want their turn, and what was answered is to go out.
                cx.waker().wake_by_ref();
                break;
            }
            match self.wire.poll_fill(cx) {
                Poll::Ready(Ok(0)) => self.end(Ended::ByPeer),
                Poll::Ready(Ok(_)) => self.facts.bytes_came = true,
                Poll::Ready(Err(error)) => return self.broken(error),
                Poll::Pending => break,
            }
        }
        self.wire.release_input();
        self.waits = self.may_wait && (1..MAX_WAITING).contains(&self.wire.output.len());
        if self.waits {
            return self.poll_clock(cx);
        }
        let exceeds = self.side.role() == Role::Server && self.check_outbound().is_err();
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return self.broken(error);
        }
        if exceeds {
            self.end(Ended::Fault(ConnError::Flood(Flood::Outbound)));
            return Poll::Ready(());
        }
        if self.is_gone_away() {
            self.end(Ended::GoneAway);
            return Poll::Ready(());
        }
        self.poll_clock(cx)
    }

    fn has_news(&self) -> bool {
        let news = self.facts.goaway_came || self.facts.settings_came || !self.facts.alt_svc.is_empty();
        self.is_over || !self.rx.accept.is_empty() || news && self.side.role() == Role::Client
    }

    /// The peer takes no more streams, and none is left (RFC 9113 §6.8).
    fn is_gone_away(&self) -> bool {
        self.facts.goaway.is_some()
            && match self.side.role() {
                Role::Server => self.live == 0,
                Role::Client => self.open == 0 && self.tx.waiting.is_empty(),
            }
    }

    fn note_task(&mut self, cx: &Context<'_>) {
        self.task.woken = false;
        if !self.task.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.task.waker = Some(cx.waker().clone());
        }
    }

    fn broken(&mut self, error: io::Error) -> Poll<()> {
        self.end(Ended::Fault(error.into()));
        Poll::Ready(())
    }

    /// `connection_keepalive`.
    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pinger) = &mut self.pinger else { return Poll::Pending };
        let came = std::mem::take(&mut self.facts.bytes_came);
        let answered = std::mem::take(&mut self.facts.ping_answered);
        match pinger.poll(cx, came, answered) {
            Due::Nothing => Poll::Pending,
            Due::Ping => {
                self.send_ping();
                // Written by the poll that follows.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Due::GiveUp => {
                self.count(Event::KeepaliveTimeout);
                self.end(Ended::Fault(ConnError::KeepaliveTimeout));
                Poll::Ready(())
            }
        }
    }

    /// A stream is about to be opened by us: maybe behind a PING.
    pub(crate) fn before_stream(&mut self) {
        if self.pinger.as_mut().is_some_and(|pinger| pinger.handle_stream() == Due::Ping) {
            self.send_ping();
        }
    }

    fn send_ping(&mut self) {
        // The first frame is SETTINGS (RFC 9113 §3.4).
        if self.rx.greeting != Greeting::Preface {
            self.put(&frames::ping(PING));
        }
    }

    /// Open => over: the peer is told why, the exchanges fail; what they have not read yet remains.
    pub(crate) fn end(&mut self, ended: Ended) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.unanswered = self.has_unanswered();
        match &ended {
            // Who does not finish the preface does not speak HTTP/2, and is told no more.
            _ if self.rx.greeting == Greeting::PartOfPreface => {}
            Ended::Fault(ConnError::Violation(code)) => self.put_goaway(code.to_wire()),
            // It takes nothing, and is told nothing.
            Ended::Fault(ConnError::Flood(Flood::Outbound)) => {}
            Ended::Fault(ConnError::Flood(_)) => self.put_goaway(ENHANCE_YOUR_CALM),
            _ => {}
        }
        let failure = match &ended {
            Ended::ByPeer | Ended::GoneAway => Failure::Closed,
            Ended::Fault(ConnError::Violation(_) | ConnError::Flood(_)) => Failure::Violation,
            Ended::Fault(ConnError::Io(error)) if !self.wire.eof => Failure::Io(error.kind()),
            _ if self.wire.eof => Failure::Closed,
            _ => Failure::Io(io::ErrorKind::BrokenPipe),
        };
        for (_, stream) in self.streams.iter_mut() {
            if !stream.is_closed() {
                stream.failed = Some(failure);
                stream.tx.clear();
            }
            stream.is_open = false;
            stream.wake();
        }
        self.open = 0;
        self.rx.block = None;
        (self.tx.line, self.tx.waiting) = (VecDeque::new(), VecDeque::new());
        self.ended = Some(ended);
    }

    /// Whether streams wait for the rest of their responses, or did when the connection ended.
    pub(crate) fn is_unanswered(&self) -> bool {
        if self.is_over { self.unanswered } else { self.has_unanswered() }
    }

    fn has_unanswered(&self) -> bool {
        let waits = |stream: &Stream| {
            let failed = stream.failed.is_some_and(|failure| !matches!(failure, Failure::Protocol(_)));
            !failed && matches!(stream.tx.phase, SendPhase::Head | SendPhase::Body)
        };
        self.streams.iter().any(|stream| stream.id != 0 && waits(stream))
    }

    /// Sends GOAWAY after the last stream that the peer opened.
    pub(crate) fn put_goaway(&mut self, code: u32) {
        // Who has not sent a preface is told nothing: it may not speak HTTP/2.
        if self.rx.greeting != Greeting::Preface {
            self.put(&frames::goaway(self.rx.last_stream, code));
        }
    }

    /// Asks the client to open no more streams (RFC 9113 §6.8), once.
    pub(crate) fn announce_goaway(&mut self) {
        let can = self.rx.greeting != Greeting::Preface && !self.is_over;
        if can && !std::mem::replace(&mut self.tx.announced, true) {
            self.put(&frames::goaway(frames::ANNOUNCE, 0));
            self.wake();
        }
    }

    /// The drain's last word, or its owner's.
    pub(crate) fn say_goodbye(&mut self, code: ResetCode) {
        if self.rx.greeting == Greeting::Preface || self.is_over {
            return;
        }
        self.put_goaway(code.to_wire());
        self.count(Event::GoawaySent);
        self.wake();
    }

    /// Open => over, by its owner; streams that nobody has accepted are forgotten.
    pub(crate) fn close(&mut self) {
        self.end(Ended::Closed);
        while let Some(key) = self.rx.accept.pop_front() {
            self.release(key, ResetCode::Refused);
        }
    }

    /// Whether a part of a head's first frame came, and not its end: there is no stream yet that could wait.
    pub(crate) fn is_head_open(&self) -> bool {
        self.rx.block.is_none()
            && FrameHead::parse(&self.wire.input).is_some_and(|head| head.kind == frames::kind::HEADERS)
    }

    /// Reads and drops; for a connection whose end was sent. 0 at the end.
    pub(crate) fn poll_drop_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.wire.input.clear();
        let filled = self.wire.poll_fill(cx);
        self.wire.input.clear();
        self.wire.release_input();
        filled
    }

    /// A stream for an exchange.
    pub(crate) fn insert(&mut self) -> Key {
        let key =
            self.streams.insert(self.side.common().initial_stream_window_size, self.peer.initial_window);
        self.live += 1;
        self.count(Event::StreamOpened);
        key
    }

    /// Whoever held the stream goes: an unfinished one is reset with `code`; a server's response that is complete
    /// goes on to its end.
    pub(crate) fn release(&mut self, key: Key, code: ResetCode) {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.owner == Owner::Exchange) else {
            return;
        };
        let unread = stream.rx.clear();
        stream.owner = Owner::Connection;
        self.give_connection(unread);
        self.live = self.live.saturating_sub(1);
        self.count(Event::StreamClosed);
        self.leave(key, code);
        if self.live == 0 && self.side.role() == Role::Server {
            // The connection may be drained now, which nothing on the wire would tell. A client's pool knows.
            self.wake();
        }
    }

    /// Whether anything of the stream's head was handed to the socket.
    pub(crate) fn is_unwritten(&self, stream: &Stream) -> bool {
        stream.id == 0 || self.wire.tx <= stream.tx.head_at
    }
}

/// The payload of our PINGs. Only ours are ever answered.
pub(crate) const PING: u64 = 0x7469_6465_6761_7465;

/// Bytes of the first frames.
const GREETING: usize = 96;

/// A longer output waits for nothing.
const MAX_WAITING: usize = 16 * 1024;

/// Reads before what was answered goes out.
const MAX_FILLS: u32 = 8;

/// More than this unwritten, and nothing is read. Above what is taken of bodies, so that two ends that send bodies
/// to each other never wait for each other.
const MAX_UNWRITTEN: usize = 256 * 1024;
