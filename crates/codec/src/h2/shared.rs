//! What a connection and its exchanges have in common: the wire, the connection's task, the streams' count,
//! the clock of its PINGs.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use h2::Reason;
use tokio::time::{Instant, Sleep};

use super::codes::MESSAGING_RULE;
use super::events::{ConnError, Event, Observer};
use super::frames;
use super::keepalive::{Due, Keepalive};
use super::options::{KeepaliveOptions, Options};
use super::wire::{Fault, Role, Wire};
use crate::stream::{ResetCode, StreamError};

/// The common part, held by the connection and by each exchange.
pub(crate) struct Shared {
    pub(crate) wire: Rc<RefCell<Wire>>,
    observer: Rc<dyn Observer>,
    task: RefCell<Option<Waker>>,
    streams: Cell<u32>,
    close_announced: Cell<bool>,
    over: Cell<bool>,
    pinger: RefCell<Option<Box<Pinger>>>,
}

impl Shared {
    pub(crate) fn new(
        wire: Wire,
        observer: Rc<dyn Observer>,
        keepalive: Option<KeepaliveOptions>,
    ) -> Rc<Self> {
        Rc::new(Self {
            wire: Rc::new(RefCell::new(wire)),
            observer,
            task: RefCell::new(None),
            streams: Cell::new(0),
            close_announced: Cell::new(false),
            over: Cell::new(false),
            pinger: RefCell::new(keepalive.map(Pinger::new)),
        })
    }

    pub(crate) fn count(&self, event: Event) {
        self.observer.on_event(event);
    }

    /// Remembers whom to wake for what does not come from the wire.
    pub(crate) fn set_task(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(task) = self.task.borrow().as_ref() {
            task.wake_by_ref();
        }
    }

    pub(crate) fn streams(&self) -> u32 {
        self.streams.get()
    }

    pub(crate) fn announce_close(&self) {
        if !self.close_announced.replace(true) {
            self.wake();
        }
    }

    pub(crate) fn is_close_announced(&self) -> bool {
        self.close_announced.get()
    }

    /// The connection ended: what its streams hear is not their peer's word on them.
    pub(crate) fn set_over(&self) {
        self.over.set(true);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// A message was refused.
    pub(crate) fn note_invalid_message(&self) {
        self.wire.borrow_mut().facts.messaging_error = true;
        self.count(Event::MessagingError);
    }

    /// The library has handed on all that it had: what it reset without doing so was invalid.
    pub(crate) fn settle_suspects(&self) {
        let suspects = std::mem::take(&mut self.wire.borrow_mut().facts.suspects);
        for _ in suspects {
            self.note_invalid_message();
        }
    }

    /// Sends a frame of our own.
    pub(crate) fn inject(&self, frame: &[u8]) {
        self.wire.borrow_mut().inject(frame);
        self.wake();
    }

    /// Writes what the library and we have to say, then looks at the clock. Ready when the connection is over.
    pub(crate) fn poll_settle(&self, cx: &mut Context<'_>) -> Poll<ConnError> {
        loop {
            if let Poll::Ready(Err(error)) = self.wire.borrow_mut().poll_flush(cx) {
                return Poll::Ready(error.into());
            }
            let due = match self.pinger.borrow_mut().as_mut() {
                None => return Poll::Pending,
                Some(pinger) => pinger.poll(cx, &mut self.wire.borrow_mut()),
            };
            match due {
                Due::Nothing => return Poll::Pending,
                Due::Ping => self.wire.borrow_mut().inject(&frames::ping(PING)),
                Due::GiveUp => {
                    self.count(Event::KeepaliveTimeout);
                    return Poll::Ready(ConnError::KeepaliveTimeout);
                }
            }
        }
    }

    /// Sends GOAWAY after the last stream that the peer opened.
    pub(crate) fn goaway(&self, reason: Reason) {
        let last = self.wire.borrow().facts.last_received;
        self.inject(&frames::goaway(last, reason.into()));
    }

    /// Tells the peer why the connection ends, unless the library has or nothing is to be said.
    pub(crate) fn tell(&self, error: &ConnError, options: &Options) {
        match error {
            ConnError::Flood(_) => self.goaway(Reason::ENHANCE_YOUR_CALM),
            ConnError::Violation(code)
                if self.wire.borrow().facts.fault.is_some() || self.has_intolerable_message(options) =>
            {
                self.goaway((*code).into());
            }
            _ => {}
        }
    }

    /// An invalid message came, and that shall cost the connection.
    pub(crate) fn has_intolerable_message(&self, options: &Options) -> bool {
        !options.override_stream_error_on_invalid_http_message && self.wire.borrow().facts.messaging_error
    }

    /// A stream is about to be opened by us.
    pub(crate) fn before_stream(&self) {
        let due = match self.pinger.borrow_mut().as_mut() {
            None => return,
            Some(pinger) => pinger.clock.handle_stream(Instant::now()),
        };
        if due == Due::Ping {
            self.inject(&frames::ping(PING));
        }
    }

    /// Why the library ended the connection.
    pub(crate) fn conn_error(&self, error: &h2::Error) -> ConnError {
        match self.wire.borrow().facts.fault {
            Some(Fault::Flood(flood)) => return ConnError::Flood(flood),
            Some(Fault::Frame(reason)) => return ConnError::Violation(reason.into()),
            None => {}
        }
        let renamed = self.wire.borrow().facts.renamed;
        let code = renamed.or(error.reason()).unwrap_or(Reason::INTERNAL_ERROR).into();
        match error.get_io() {
            Some(error) => ConnError::Io(error.kind().into()),
            None if error.is_remote() => ConnError::PeerError(code),
            None => ConnError::Violation(code),
        }
    }
}

/// One stream: counts it while it lives.
pub(crate) struct StreamLink {
    pub(crate) shared: Rc<Shared>,
    pub(crate) id: u32,
}

impl StreamLink {
    pub(crate) fn new(shared: Rc<Shared>, id: u32) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        shared.count(Event::StreamOpened);
        Self { shared, id }
    }

    /// Why the library ended the stream.
    pub(crate) fn error(&self, error: &h2::Error) -> StreamError {
        if let Some(io) = error.get_io() {
            return self.lost(io.kind());
        }
        let code = ResetCode::from(error.reason().unwrap_or(Reason::INTERNAL_ERROR));
        match (error.is_library(), error.is_go_away()) {
            (true, _) => StreamError::Protocol { details: MESSAGING_RULE },
            (false, true) => self.gone(code, error.is_remote()),
            (false, false) => StreamError::Reset { code, by_peer: error.is_remote() },
        }
    }

    /// RST_STREAM, or GOAWAY, for want of an error that says which.
    pub(crate) fn reset_by_peer(&self, reason: Reason) -> StreamError {
        self.gone(reason.into(), true)
    }

    fn gone(&self, code: ResetCode, by_peer: bool) -> StreamError {
        let goaway = self.shared.wire.borrow().facts.goaway;
        let code = match goaway {
            // Above the GOAWAY's last stream: not processed (RFC 9113 §6.8).
            Some(goaway) if by_peer && self.id > goaway.last_stream => ResetCode::Refused,
            _ => code,
        };
        StreamError::Reset { code, by_peer }
    }

    fn lost(&self, kind: io::ErrorKind) -> StreamError {
        let facts = &self.shared.wire.borrow().facts;
        if facts.fault.is_some() {
            StreamError::Protocol { details: MESSAGING_RULE }
        } else if facts.eof {
            StreamError::Closed
        } else {
            StreamError::Io(kind.into())
        }
    }

    /// Notes that the RST_STREAM to come is no finding of the library.
    pub(crate) fn before_reset(&self, code: ResetCode) {
        if code == ResetCode::Protocol {
            self.shared.wire.borrow_mut().facts.own_protocol_resets += 1;
        }
    }
}

impl Drop for StreamLink {
    fn drop(&mut self) {
        let left = self.shared.streams.get().saturating_sub(1);
        self.shared.streams.set(left);
        self.shared.count(Event::StreamClosed);
        if left == 0 && self.shared.wire.borrow().role() == Role::Server {
            // The connection may be drained now, which nothing on the wire would tell. A client's pool knows.
            self.shared.wake();
        }
    }
}

/// [`Keepalive`] with its timer.
struct Pinger {
    clock: Keepalive,
    sleep: Pin<Box<Sleep>>,
}

impl Pinger {
    fn new(options: KeepaliveOptions) -> Box<Self> {
        let now = Instant::now();
        let clock = Keepalive::new(options, now, fastrand::f64());
        let sleep = Box::pin(tokio::time::sleep_until(clock.deadline().unwrap_or(now)));
        Box::new(Self { clock, sleep })
    }

    fn poll(&mut self, cx: &mut Context<'_>, wire: &mut Wire) -> Due {
        if std::mem::take(&mut wire.facts.bytes_came) {
            self.clock.handle_bytes(Instant::now());
        }
        if std::mem::take(&mut wire.facts.ping_answered) {
            self.clock.handle_ack(Instant::now(), fastrand::f64());
        }
        loop {
            let Some(deadline) = self.clock.deadline() else { return Due::Nothing };
            if self.sleep.deadline() != deadline {
                self.sleep.as_mut().reset(deadline);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Due::Nothing;
            }
            let due = self.clock.handle_time(Instant::now());
            if due != Due::Nothing {
                return due;
            }
        }
    }
}

/// The payload of our PINGs. Only ours are ever answered.
const PING: u64 = 0x7469_6465_6761_7465;
