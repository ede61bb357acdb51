//! What a connection and its exchanges have in common: [`Core`], one cell for all of them.
//!
//! The connection's task calls [`Core::poll_drive`], which writes what the exchanges had to say (`output`), drives the
//! transport, and looks at what came as far as heads (`input`, `heads`) and the control streams (`control`) go; an
//! exchange that wants a body takes it from the transport itself.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use tidegate_quic::{CloseCode, ConnectionError, Dir, EarlyData, Event, Loss, StreamId, VarInt};
use tidegate_types::{Address, CloseReason};
use tokio::time::Instant;

use super::codes::{self, EXCESSIVE_LOAD, Fault, Handled, SERVER_BIDI};
use super::control::{Control, PeerStreams};
use super::options::{ClientOptions, Options, ServerOptions};
use super::sections::Sections;
use super::settings::PeerSettings;
use super::streams::{Failure, Key, Owner, Streams};
use super::transport::Transport;
use crate::multiplex::{AltSvc, ConnError, Event as Counted, Flood, Observer, PrematureResets};
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
    pub(crate) quic: Box<dyn Transport>,
    pub(crate) side: Side,
    pub(crate) observer: Rc<dyn Observer>,
    task: Task,
    pub(crate) streams: Streams,
    pub(crate) rx: Inbound,
    pub(crate) tx: Outbound,
    pub(crate) control: Control,
    pub(crate) sections: Sections,
    pub(crate) peer: PeerSettings,
    pub(crate) facts: Facts,
    /// Exchanges, whatever has become of their streams.
    pub(crate) live: u32,
    /// Nothing is read any more, and exchanges have failed.
    ended: Option<Ended>,
    is_over: bool,
}

/// The task that drives the connection.
#[derive(Default)]
struct Task {
    waker: Option<Waker>,
    /// Once is enough for whatever is sent between two polls.
    woken: bool,
}

/// What comes.
#[derive(Default)]
pub(crate) struct Inbound {
    /// Streams that nobody has seen yet.
    pub(crate) accept: VecDeque<Key>,
    pub(crate) uni: PeerStreams,
    pub(crate) resets: PrematureResets,
    /// What follows the last request stream that the peer opened.
    pub(crate) next_request: u64,
}

/// What goes.
#[derive(Default)]
pub(crate) struct Outbound {
    /// Streams that have something to send.
    pub(crate) line: VecDeque<Key>,
    /// Where heads are written.
    pub(crate) text: BytesMut,
    /// A client's opened streams that nobody uses yet, and its exchanges that wait for one.
    pub(crate) stock: VecDeque<StreamId>,
    pub(crate) waiting: VecDeque<Key>,
    /// Streams that were ended, and whose bytes the peer has not acknowledged all.
    pub(crate) undelivered: usize,
    /// Streams from this one on are refused.
    pub(crate) first_refused: Option<u64>,
}

/// What the connection's owner is told.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The peer's last GOAWAY.
    pub(crate) goaway: Option<u64>,
    /// GOAWAY came since somebody looked.
    pub(crate) goaway_came: bool,
    /// ALTSVC frames of a server that nobody has looked at.
    pub(crate) alt_svc: Vec<AltSvc>,
    /// The capacity that somebody was told.
    pub(crate) told_capacity: Option<u32>,
    pub(crate) close_announced: bool,
    /// GOAWAY that only announces went.
    announced: bool,
    /// What happened before the connection was ours was looked at.
    begun: bool,
    /// The handshake is over.
    pub(crate) connected: bool,
    /// The peer closed.
    pub(crate) closed_by_peer: bool,
    /// The transport is no more.
    pub(crate) lost: bool,
    /// A close was begun.
    closing: bool,
    /// How the transport ended, by Envoy's name, whose code, and in words.
    pub(crate) why: Option<Box<str>>,
    /// Why the owner closes.
    pub(crate) reason: Option<CloseReason>,
    /// The same, as the peer is told.
    pub(crate) words: Option<Box<str>>,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// By the peer.
    ByPeer,
    /// The peer said goodbye, and nothing is left to do.
    GoneAway,
    /// The peer broke a rule.
    Fault(Fault),
    Flood(Flood),
    Broken(ConnError),
    /// By its owner.
    Closed,
}

impl Core {
    pub(crate) fn new(quic: Box<dyn Transport>, side: Side, observer: Rc<dyn Observer>) -> Shared {
        let control = Control::new(side.role(), side.common());
        Rc::new(RefCell::new(Self {
            quic,
            side,
            observer,
            task: Task::default(),
            streams: Streams::default(),
            rx: Inbound::default(),
            tx: Outbound::default(),
            control,
            sections: Sections::default(),
            peer: PeerSettings::default(),
            facts: Facts::default(),
            live: 0,
            ended: None,
            is_over: false,
        }))
    }

    pub(crate) fn count(&self, event: Counted) {
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
        let is_fault =
            |ended: &mut Ended| matches!(ended, Ended::Fault(_) | Ended::Flood(_) | Ended::Broken(_));
        self.ended.take_if(is_fault).and_then(|ended| ended.into_result().err())
    }

    /// How the connection ended, once.
    pub(crate) fn take_ended(&mut self) -> Option<Ended> {
        self.ended.take()
    }

    /// Writes, reads, handles. Ready when there is something to look at: streams to accept, news, the end.
    pub(crate) fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.note_task(cx);
        self.begin();
        while !self.is_over {
            self.write();
            match self.quic.poll_event(cx) {
                Poll::Ready(event) => self.handle(event),
                Poll::Pending if self.has_news() => return Poll::Ready(()),
                Poll::Pending if self.is_gone_away() => self.end(Ended::GoneAway),
                Poll::Pending => return Poll::Pending,
            }
            if !self.rx.accept.is_empty() {
                return Poll::Ready(());
            }
        }
        Poll::Ready(())
    }

    /// Drives what is over until the transport is no more; what still comes is dropped.
    pub(crate) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.note_task(cx);
        while !self.facts.lost {
            self.write();
            if self.tx.undelivered == 0 && self.facts.reason.is_some() {
                self.close_quietly();
            }
            match self.quic.poll_event(cx) {
                Poll::Ready(Event::Lost(_)) => self.facts.lost = true,
                Poll::Ready(Event::Finished(_)) => self.delivered(),
                Poll::Ready(Event::Stopped(id, code)) => self.handle_stop(id, code.into_inner()),
                Poll::Ready(Event::Writable(id)) => self.enter_line_of(id),
                Poll::Ready(Event::Opened(dir)) => {
                    while let Some(id) = self.quic.accept(dir) {
                        self.turn_away(id);
                    }
                }
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// Looks at what happened before the connection was ours: who chose its owner has seen its events.
    pub(crate) fn begin(&mut self) {
        if self.facts.begun {
            return;
        }
        if self.quic.is_handshaking() {
            if self.quic.early_data() == EarlyData::Offered {
                // As many streams as the session of an earlier connection allows.
                self.restock();
            }
            return;
        }
        self.connected();
        if let Err(fault) = self.accept_uni().and_then(|()| self.accept_requests()) {
            self.end(Ended::Fault(fault));
        }
    }

    fn has_news(&self) -> bool {
        let news = self.facts.goaway_came || self.is_capacity_news() || !self.facts.alt_svc.is_empty();
        !self.rx.accept.is_empty() || news && self.side.role() == Role::Client
    }

    /// Whether the owner knows another capacity, or none although there is one.
    pub(crate) fn is_capacity_news(&self) -> bool {
        let counts = self.facts.connected && self.facts.goaway.is_none();
        counts && self.facts.told_capacity != Some(self.capacity())
    }

    /// The peer takes no more streams, and none is left (RFC 9114 §5.2).
    fn is_gone_away(&self) -> bool {
        let done = self.streams.named() == 0 && self.tx.waiting.is_empty();
        self.side.role() == Role::Client && self.facts.goaway.is_some() && done
    }

    fn note_task(&mut self, cx: &Context<'_>) {
        self.task.woken = false;
        if !self.task.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.task.waker = Some(cx.waker().clone());
        }
    }

    fn handle(&mut self, event: Event) {
        let handled = match event {
            Event::HandshakeData => Ok(()),
            Event::Connected => {
                self.connected();
                Ok(())
            }
            Event::Opened(Dir::Bi) => self.accept_requests(),
            Event::Opened(Dir::Uni) => self.accept_uni(),
            Event::Available(_) => {
                self.restock();
                Ok(())
            }
            Event::Readable(id) if id.dir() == Dir::Uni => self.read_uni(id),
            Event::Readable(id) => match self.streams.find(id) {
                Some(key) => self.handle_readable(key),
                None => Ok(()),
            },
            Event::Writable(id) => {
                self.enter_line_of(id);
                Ok(())
            }
            Event::Finished(_) => {
                self.delivered();
                Ok(())
            }
            Event::Stopped(id, code) => {
                if self.control.is_ours(id) || self.sections.is_ours(id) {
                    Err(Fault::critical("STOP_SENDING received for send control stream"))
                } else {
                    self.handle_stop(id, code.into_inner());
                    Ok(())
                }
            }
            Event::Lost(loss) => {
                self.lost(loss);
                Ok(())
            }
        };
        if let Err(fault) = handled {
            self.end(Ended::Fault(fault));
        }
    }

    fn delivered(&mut self) {
        self.tx.undelivered = self.tx.undelivered.saturating_sub(1);
    }

    fn connected(&mut self) {
        (self.facts.begun, self.facts.connected) = (true, true);
        if self.side.role() == Role::Client && self.quic.early_data() == EarlyData::Rejected {
            self.reject_early();
        }
        for (_, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.is_early) {
            // It may wait for just that.
            stream.reader.wake();
        }
        self.restock();
    }

    /// Early data was for nothing: no stream was opened, none was processed (RFC 9001 §4.6.2).
    fn reject_early(&mut self) {
        self.streams.forget_ids();
        self.tx.stock.clear();
        self.tx.line.clear();
        self.tx.undelivered = 0;
        self.control = Control::new(self.side.role(), self.side.common());
        for (_, stream) in self.streams.iter_mut() {
            if stream.failed.is_none() && stream.tx.is_written {
                stream.fail(Failure::Reset { code: ResetCode::Refused, by_peer: true });
            }
        }
    }

    /// The client's new streams.
    fn accept_requests(&mut self) -> Handled {
        let now = Instant::now();
        while let Some(id) = self.quic.accept(Dir::Bi) {
            if self.side.role() == Role::Client {
                return Err(SERVER_BIDI);
            }
            if self.tx.first_refused.is_some_and(|first| u64::from(id) >= first) {
                self.turn_away(id);
                continue;
            }
            self.rx.next_request = u64::from(id) + 4;
            let key = self.streams.insert();
            self.streams.name(key, id);
            if let Some(stream) = self.streams.get_mut(key) {
                stream.opened = Some(now);
                stream.is_early = self.quic.is_early(id);
            }
            self.handle_readable(key)?;
        }
        Ok(())
    }

    /// A stream that came too late: it was not processed (RFC 9114 §5.2).
    fn turn_away(&mut self, id: StreamId) {
        if id.dir() == Dir::Uni {
            return self.quic.stop(id, varint(codes::STREAM_CREATION_ERROR));
        }
        self.quic.stop(id, varint(codes::REQUEST_REJECTED));
        self.quic.reset(id, varint(codes::REQUEST_REJECTED));
        self.count(Counted::TxReset);
        self.count(Counted::TxRefused);
        self.count(Counted::TxResetNamed(codes::reset_name(codes::REQUEST_REJECTED)));
    }

    /// A stream gets an exchange.
    pub(crate) fn begin_exchange(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.owner = Owner::Exchange;
        }
        self.live += 1;
        self.count(Counted::StreamOpened);
    }

    fn lost(&mut self, loss: Loss) {
        self.facts.lost = true;
        let ended = match loss {
            Loss::Socket { errno } => Ended::Broken(io::Error::from_raw_os_error(errno).into()),
            Loss::Connection(error) => self.judge_loss(error),
        };
        self.end(ended);
    }

    fn judge_loss(&mut self, error: ConnectionError) -> Ended {
        let said = match &error {
            ConnectionError::ApplicationClosed(close) => &close.reason[..],
            ConnectionError::ConnectionClosed(close) => &close.reason[..],
            _ => b"",
        };
        let said = String::from_utf8_lossy(said).into_owned();
        let broken = |kind: io::ErrorKind| Ended::Broken(io::Error::from(kind).into());
        let (name, code) = match error {
            ConnectionError::ApplicationClosed(close) => {
                let code = close.error_code.into_inner();
                ("QUIC_IETF_GQUIC_ERROR_MISSING", (code != codes::NO_ERROR).then(|| codes::from_wire(code)))
            }
            ConnectionError::ConnectionClosed(close) => match u64::from(close.error_code) {
                0 => ("QUIC_NO_ERROR", None),
                code => {
                    let code = ResetCode::Other(u32::try_from(code).unwrap_or(u32::MAX));
                    ("QUIC_IETF_GQUIC_ERROR_MISSING", Some(code))
                }
            },
            ConnectionError::TimedOut => return broken(io::ErrorKind::TimedOut),
            ConnectionError::Reset => return broken(io::ErrorKind::ConnectionReset),
            ConnectionError::LocallyClosed => return Ended::Closed,
            ConnectionError::TransportError(error) => {
                if let Some(name) = codes::transport_name(u64::from(error.code)) {
                    self.count(Counted::TxCloseNamed(name));
                }
                return Ended::Broken(ConnError::Violation(ResetCode::Protocol));
            }
            other @ (ConnectionError::VersionMismatch | ConnectionError::CidsExhausted) => {
                return Ended::Broken(io::Error::other(other).into());
            }
        };
        self.count(Counted::RxCloseNamed(name));
        self.facts.closed_by_peer = true;
        self.facts.why = Some(format!("{name}|FROM_PEER|{said}").into());
        match code {
            // What a client says for a farewell means nothing.
            Some(code) if self.side.role() == Role::Client => Ended::Broken(ConnError::PeerError(code)),
            _ => Ended::ByPeer,
        }
    }

    /// Open => over: the peer is told why, the exchanges fail.
    pub(crate) fn end(&mut self, ended: Ended) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        match &ended {
            Ended::Fault(fault) => self.close_for(fault),
            Ended::Flood(_) => self.close_for(&codes::FLOOD),
            _ => {}
        }
        let failure = match &ended {
            Ended::ByPeer | Ended::GoneAway | Ended::Broken(ConnError::PeerError(_)) => Failure::Closed,
            // As in Envoy, the connection's fault is no stream's, but for one of a message.
            Ended::Fault(fault) if fault.is_message() => Failure::Violation,
            Ended::Fault(_) | Ended::Flood(_) => Failure::Closed,
            Ended::Broken(ConnError::Io(error)) => Failure::Io(error.kind()),
            Ended::Broken(_) => Failure::Closed,
            Ended::Closed => Failure::Io(io::ErrorKind::BrokenPipe),
        };
        for (_, stream) in self.streams.iter_mut() {
            // What is complete for us goes out yet.
            if !stream.is_closed() && stream.owner == Owner::Exchange {
                stream.fail(failure);
            }
        }
        self.tx.waiting = VecDeque::new();
        self.ended = Some(ended);
        self.wake();
    }

    /// Ends the transport for a fault, and says so.
    pub(crate) fn close_for(&mut self, fault: &Fault) {
        let reason = Bytes::from(fault.reason());
        self.facts.why = Some(format!("{}|FROM_SELF|{}", fault.name, fault.words()).into());
        if !std::mem::replace(&mut self.facts.closing, true) {
            self.quic.close(CloseCode::Application(varint(fault.code)), reason);
            self.count(Counted::TxCloseNamed(fault.name));
        }
    }

    /// Ends the transport with a code of the owner's.
    pub(crate) fn close_with(&mut self, code: ResetCode) {
        if !std::mem::replace(&mut self.facts.closing, true) {
            self.quic.close(CloseCode::Application(varint(codes::to_wire(code))), Bytes::new());
            self.count(Counted::TxCloseNamed("QUIC_NO_ERROR"));
        }
    }

    /// Ends the transport without anything being wrong, as Envoy does: the transport's own NO_ERROR.
    fn close_quietly(&mut self) {
        if !std::mem::replace(&mut self.facts.closing, true) {
            let words = self.facts.words.take().or_else(|| {
                let is_idle = self.facts.reason == Some(CloseReason::IdleTimeout);
                (is_idle && self.side.role() == Role::Client).then(|| "on_idle_timeout".into())
            });
            let reason = match words {
                Some(words) => Bytes::from(format!("{CLOSED} with reason: {words}")),
                None => Bytes::from_static(CLOSED.as_bytes()),
            };
            // A GOAWAY just before is not to be lost.
            self.quic.flush();
            self.quic.close(CloseCode::NoError, reason);
            self.count(Counted::TxCloseNamed("QUIC_NO_ERROR"));
        }
    }

    /// Open => over, by its owner; streams that nobody has accepted are forgotten.
    pub(crate) fn close(&mut self) {
        self.end(Ended::Closed);
        while let Some(key) = self.rx.accept.pop_front() {
            self.release(key, ResetCode::Refused);
        }
    }

    /// The owner is gone: what it closed for is said, with everything else lost.
    pub(crate) fn part(&mut self) {
        if !self.facts.lost {
            self.close_quietly();
        }
    }

    /// Asks the client to open no more streams (RFC 9114 §5.2), once.
    pub(crate) fn announce_goaway(&mut self) {
        if !self.is_over && !std::mem::replace(&mut self.facts.announced, true) {
            self.put_goaway(ANNOUNCE);
        }
    }

    /// Gives back the room for streams, in a connection that has none.
    pub(crate) fn release_room(&mut self) {
        self.streams.shrink(0);
        self.rx.accept.shrink_to_fit();
        self.rx.uni.shrink();
        self.tx.line.shrink_to_fit();
        self.tx.text = BytesMut::new();
        self.control.shrink();
        self.sections.shrink();
    }

    /// The owner wants to be rid of the connection: what is complete is delivered first. Ready when it is closed.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        self.facts.reason.get_or_insert(CloseReason::Drained);
        self.poll_lost(cx).map(Ok)
    }

    /// Whoever held the stream goes: an unfinished one is reset with `code`; a server's response that is complete
    /// goes on to its end.
    pub(crate) fn release(&mut self, key: Key, code: ResetCode) {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.owner == Owner::Exchange) else {
            return;
        };
        stream.owner = Owner::Connection;
        stream.rx.request = None;
        stream.rx.responses.clear();
        self.live = self.live.saturating_sub(1);
        self.count(Counted::StreamClosed);
        if self.side.role() == Role::Server {
            self.rx.resets.on_closed();
        }
        self.leave(key, code);
        if self.live == 0 {
            // Who waits for the last stream to end.
            self.wake();
        }
    }

    /// The client gives up a stream that had no response.
    pub(crate) fn note_premature(&mut self, key: Key) {
        use super::streams::SendPhase;
        let Some(stream) = self.streams.get(key) else { return };
        if stream.tx.phase != SendPhase::Head || self.side.role() == Role::Client {
            return;
        }
        let age = stream.opened.map(|opened| opened.elapsed()).unwrap_or_default();
        if let Err(flood) = self.rx.resets.on_reset(age) {
            self.count(Counted::Flood(flood));
            self.end(Ended::Flood(flood));
        }
    }

    pub(crate) fn local_address(&self) -> Address {
        Address::Ip(self.quic.local_address())
    }

    pub(crate) fn peer_address(&self) -> Address {
        Address::Ip(self.quic.remote_address())
    }
}

impl Ended {
    /// `Ok` if the peer closed in order, or we did.
    pub(crate) fn into_result(self) -> Result<(), ConnError> {
        match self {
            Self::ByPeer | Self::GoneAway | Self::Closed => Ok(()),
            Self::Fault(fault) if fault.code == EXCESSIVE_LOAD => Err(ConnError::Flood(Flood::EmptyFrames)),
            Self::Fault(fault) => Err(fault.to_error()),
            Self::Flood(flood) => Err(ConnError::Flood(flood)),
            Self::Broken(error) => Err(error),
        }
    }
}

/// A code for the transport.
pub(crate) fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

/// Envoy's words.
const CLOSED: &str = "0:Closed by application";

/// The stream that Envoy names in a GOAWAY that only announces.
const ANNOUNCE: u64 = (1 << 32) - 4;
