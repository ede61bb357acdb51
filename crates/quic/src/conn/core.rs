//! A connection's state, where its owner and the hub both reach it.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionEvent, ConnectionHandle, Dir, EndpointEvent, Side, StreamId, VarInt,
};
use tokio::time::Instant;

use crate::close::CloseCode;
use crate::crypto::keys;
use crate::hub::Hub;
use crate::link::Outgoing;

/// Calls that send in one turn, before other connections get theirs.
const BATCHES: usize = 4;
/// Datagrams in one of them: what fits into 64 KB at the usual size.
const SEGMENTS: usize = 40;

thread_local! {
    /// Where packets are built: one for all connections of a worker, empty between turns.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How sending went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Everything that may be sent now is.
    All,
    /// There is more, and others come first.
    More,
    /// The socket is full; the packet is kept.
    Blocked,
}

/// Packets that the socket did not take.
struct Kept {
    outgoing: Outgoing,
    data: Vec<u8>,
}

pub(crate) struct Core {
    handle: ConnectionHandle,
    state: RefCell<State>,
    waker: Cell<Option<Waker>>,
}

pub(crate) struct State {
    pub(crate) proto: Connection,
    kept: Option<Box<Kept>>,
    /// The handshake counts among those under way.
    half_open: bool,
    /// It was closed by us with [`CloseCode::NoError`].
    is_plain: bool,
    /// Its owner has gone.
    is_orphan: bool,
    /// Nobody is at this handle any more.
    vacated: bool,
    /// Streams of the client that came before the handshake was over, by direction, and how many of them were
    /// handed out.
    early: [u64; 2],
    early_accepted: [u64; 2],
    /// Bytes received and sent. quinn-proto counts them too and gives them away only with all its 500 bytes of counts,
    /// and they are asked for each turn.
    received: u64,
    sent: u64,
}

impl Core {
    pub(crate) fn new(handle: ConnectionHandle, proto: Connection) -> Self {
        let counted = proto.stats();
        let state = State {
            proto,
            kept: None,
            half_open: true,
            is_plain: false,
            is_orphan: false,
            vacated: false,
            early: [0; 2],
            early_accepted: [0; 2],
            received: counted.udp_rx.bytes,
            sent: counted.udp_tx.bytes,
        };
        Self { handle, state: RefCell::new(state), waker: Cell::default() }
    }

    pub(crate) fn traffic(&self) -> (u64, u64) {
        let state = self.state.borrow();
        (state.received, state.sent)
    }

    pub(crate) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Who is to be woken when something comes.
    pub(crate) fn watch(&self, cx: &Context<'_>) {
        let waker = match self.waker.take() {
            Some(waker) if waker.will_wake(cx.waker()) => waker,
            _ => cx.waker().clone(),
        };
        self.waker.set(Some(waker));
    }

    /// A datagram of `size` bytes. The owner is woken; for a connection without one it is answered at once.
    pub(crate) fn handle(&self, hub: &Hub, now: Instant, event: ConnectionEvent, size: usize) {
        let mut state = self.state.borrow_mut();
        state.received += size as u64;
        let was_handshaking = state.half_open;
        state.proto.handle_event(event);
        if was_handshaking {
            state.note_early();
            if !state.proto.is_handshaking() {
                state.settle(hub);
            }
        }
        let is_orphan = state.is_orphan;
        drop(state);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        } else if is_orphan {
            self.advance(hub, now);
        }
    }

    /// Timers, and what the connection has to say to its endpoint; then sends.
    pub(crate) fn advance(&self, hub: &Hub, now: Instant) -> Sent {
        let mut state = self.state.borrow_mut();
        state.expire(now);
        self.tell(&mut state, hub);
        let sent = state.transmit(hub, now);
        self.tell(&mut state, hub);
        sent
    }

    /// Gives the endpoint what the connection has for it.
    pub(crate) fn tell(&self, state: &mut State, hub: &Hub) {
        while let Some(event) = state.proto.poll_endpoint_events() {
            let is_drained = event.is_drained();
            if state.vacated {
                continue;
            }
            if is_drained {
                state.vacated = true;
                state.settle(hub);
                let _ = hub.proto.borrow_mut().handle_event(self.handle, event);
                hub.vacate(self.handle);
                continue;
            }
            let answer = hub.proto.borrow_mut().handle_event(self.handle, event);
            if let Some(answer) = answer {
                state.proto.handle_event(answer);
            }
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.state.borrow_mut().deadline()
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.state.borrow().vacated
    }

    /// The owner has gone: says so to the peer and stays until it is drained.
    pub(crate) fn part(self: &Rc<Self>, hub: &Hub, code: CloseCode) {
        self.waker.take();
        let now = Instant::now();
        {
            let mut state = self.state.borrow_mut();
            state.close(now, code, Bytes::new());
            state.is_orphan = true;
            state.settle(hub);
        }
        self.advance(hub, now);
        if self.is_drained() {
            hub.owned.set(false);
            hub.wake_driver();
        } else {
            hub.adopt(self.clone());
        }
    }

    /// Ends it without a word.
    pub(crate) fn forget(&self, hub: &Hub) {
        let mut state = self.state.borrow_mut();
        if std::mem::replace(&mut state.vacated, true) {
            return;
        }
        state.settle(hub);
        let _ = hub.proto.borrow_mut().handle_event(self.handle, EndpointEvent::drained());
        hub.vacate(self.handle);
    }
}

impl State {
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        self.proto.poll_timeout().map(Instant::from_std)
    }

    /// Handles timers that are due; whether any was.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let is_due = self.deadline().is_some_and(|deadline| deadline <= now);
        if is_due {
            self.proto.handle_timeout(now.into_std());
        }
        is_due
    }

    /// Whether the handshake is under way.
    pub(crate) fn is_half_open(&self) -> bool {
        self.half_open
    }

    /// The handshake is over, one way or the other.
    pub(crate) fn settle(&mut self, hub: &Hub) {
        if std::mem::take(&mut self.half_open) {
            hub.stats.borrow_mut().half_open -= 1;
        }
    }

    pub(crate) fn close(&mut self, now: Instant, code: CloseCode, reason: Bytes) {
        let code = match code {
            CloseCode::Application(code) => code,
            CloseCode::NoError => {
                self.is_plain = !self.proto.is_closed();
                VarInt::from_u32(keys::PLAIN_CODE)
            }
        };
        self.proto.close(now.into_std(), code, reason);
    }

    /// Sends what the connection wants to send, some batches of it.
    pub(crate) fn transmit(&mut self, hub: &Hub, now: Instant) -> Sent {
        if let Some(kept) = self.kept.take()
            && hub.send(&kept.outgoing, &kept.data).is_err()
        {
            self.kept = Some(kept);
            return Sent::Blocked;
        }
        // A thread that ends has none left.
        let mut scratch = SCRATCH.try_with(RefCell::take).unwrap_or_default();
        let sent = self.transmit_with(hub, now, &mut scratch);
        if self.kept.is_none() {
            scratch.clear();
            let _ = SCRATCH.try_with(|place| place.replace(scratch));
        }
        sent
    }

    fn transmit_with(&mut self, hub: &Hub, now: Instant, scratch: &mut Vec<u8>) -> Sent {
        let segments = hub.segments().clamp(1, SEGMENTS);
        for _ in 0..BATCHES {
            scratch.clear();
            let proto = &mut self.proto;
            let transmit =
                keys::plainly(self.is_plain, || proto.poll_transmit(now.into_std(), segments, scratch));
            let Some(transmit) = transmit else { return Sent::All };
            let outgoing = Outgoing::new(&transmit);
            scratch.truncate(transmit.size);
            self.sent += transmit.size as u64;
            if hub.send(&outgoing, scratch).is_err() {
                self.kept = Some(Box::new(Kept { outgoing, data: std::mem::take(scratch) }));
                return Sent::Blocked;
            }
        }
        Sent::More
    }

    /// Counts streams that are there before the handshake is over: their first bytes came in 0-RTT packets, or with
    /// the last packet of the handshake at most.
    pub(crate) fn note_early(&mut self) {
        if self.proto.side() == Side::Client || !self.proto.is_handshaking() {
            return;
        }
        for dir in [Dir::Bi, Dir::Uni] {
            while self.proto.streams().accept(dir).is_some() {
                self.early[dir as usize] += 1;
            }
        }
    }

    pub(crate) fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        let accepted = &mut self.early_accepted[dir as usize];
        if *accepted < self.early[dir as usize] {
            let id = StreamId::new(Side::Client, dir, *accepted);
            *accepted += 1;
            return Some(id);
        }
        self.proto.streams().accept(dir)
    }

    pub(crate) fn is_early(&self, id: StreamId) -> bool {
        id.initiator() == Side::Client
            && self.proto.side() == Side::Server
            && id.index() < self.early[id.dir() as usize]
    }
}
