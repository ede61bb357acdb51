//! The HTTP/1.1 pool: a [`Machine`] with sockets, wakers and a timer.
//!
//! A stream asks with [`Pool::acquire`], uses the connection through its [`Lease`] and ends with
//! [`Lease::finish`]. With an idle connection at hand both are a few list operations: no allocation, no
//! task, no system call. One task per pool does the rest: it opens what the machine wants opened, notices
//! idle connections that the peer closed, and keeps the one timer.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;

use slab::Slab;
use tidegate_types::CloseReason;
use tokio::time::Instant;

use crate::error::PoolError;
use crate::machine::{Attached, Care, ConnKey, Event, Machine, Queued, Settings, Shared, StreamEnd};

mod acquire;
pub(crate) mod bell;
mod conn;
mod connector;
mod driver;
mod lease;
mod slot;

pub use acquire::Acquire;
pub use conn::{AfterExchange, Conn, ConnFacts, Connect, Connected, IdleEnd, Traffic};
pub use connector::SocketConnector;
pub use lease::{Failed, Lease};
pub use tidegate_codec::h1::{ClientOptions, NameCase};
pub use tidegate_net::{DialOptions, Keepalive, TransportOptions};

use acquire::Wait;
use bell::Bell;
use slot::Slot;

/// Connections to one host, with one priority, on one worker.
pub struct Pool {
    inner: RefCell<Inner>,
    connector: Rc<dyn Connect>,
    neighbours: Weak<dyn Neighbours>,
    bell: Arc<Bell>,
    /// What the task's timer is set to.
    armed: Cell<Option<Instant>>,
}

/// The other pools that share this one's connection limit, as one of them sees them.
pub trait Neighbours {
    /// A pool has a stream waiting and no connection, and the limit is reached: closes idle
    /// connections, those that idled longest first, here or on other workers, until nobody starves.
    fn reclaim(&self);

    /// A session will be refused because the limit is reached: closes one connection here that nobody uses.
    fn make_room(&self) {}
}

/// A pool, as those see it that share its connection limit.
pub trait Neighbour {
    /// Since when the connection that has idled longest has been idle; of an attempt that nobody waits for, since
    /// it began.
    fn oldest_idle(&self) -> Option<Instant>;

    /// Closes that connection. False if there is none.
    fn reclaim(self: Rc<Self>) -> bool;

    /// Whether a pool of the same host, on another worker, has no connection because of the host's limit.
    fn host_starves(&self) -> bool;
}

struct Inner {
    machine: Machine,
    /// By [`ConnKey`].
    slots: Vec<Slot>,
    /// By the machine's tokens.
    waits: Slab<Wait>,
}

impl Pool {
    /// A pool without connections. Must be called on a thread whose runtime takes local tasks.
    pub fn new(
        settings: Rc<Settings>,
        shared: Shared,
        connector: Rc<dyn Connect>,
        neighbours: Weak<dyn Neighbours>,
    ) -> Rc<Self> {
        crate::parting::prepare();
        let machine = Machine::new(settings, shared);
        let bell = Arc::new(Bell::default());
        machine.waiters().set_waker(&Waker::from(bell.clone()));
        let inner = RefCell::new(Inner { machine, slots: Vec::new(), waits: Slab::new() });
        let pool = Rc::new(Self { inner, connector, neighbours, bell: bell.clone(), armed: Cell::new(None) });
        tokio::task::spawn_local(driver::drive(Rc::downgrade(&pool), bell));
        pool
    }

    /// Asks for a connection: at once if one is idle, else when one is free or connected. Dropping the
    /// future gives the place in the queue up.
    #[inline]
    pub fn acquire(self: &Rc<Self>) -> Acquire {
        self.acquire_at(Instant::now(), Care::Any)
    }

    /// As [`Pool::acquire`], for a caller that knows the time, and how much its request minds a stale connection.
    #[inline]
    pub fn acquire_at(self: &Rc<Self>, now: Instant, care: Care) -> Acquire {
        if let Some(lease) = self.take_idle(now, care) {
            return Acquire::ready(lease);
        }
        self.enqueue()
    }

    /// Closes idle connections now and the others with their streams, for a reason: the host or the cluster
    /// is gone. Streams that already wait are served.
    pub fn drain(self: &Rc<Self>, reason: CloseReason) {
        self.inner.borrow_mut().machine.handle_drain(Instant::now(), reason);
        self.run_events();
    }

    /// A stream is expected here: see [`Machine::handle_anticipated`].
    pub fn anticipate(self: &Rc<Self>, ratio: f32) -> bool {
        let opens = self.inner.borrow_mut().machine.handle_anticipated(Instant::now(), ratio);
        self.run_events();
        self.ring_if_due();
        opens
    }

    /// No connection in any state, no waiting stream.
    pub fn is_empty(&self) -> bool {
        self.inner.borrow().machine.is_empty()
    }

    /// Connections in any state.
    pub fn connections(&self) -> usize {
        self.inner.borrow().machine.connections()
    }

    /// Attached and waiting streams.
    pub fn streams(&self) -> usize {
        self.inner.borrow().machine.streams()
    }

    /// The idle connection used last, if it suits. One that reports its end on the way is closed instead of lent.
    #[inline]
    fn take_idle(self: &Rc<Self>, now: Instant, care: Care) -> Option<Result<Lease, PoolError>> {
        loop {
            let mut inner = self.inner.borrow_mut();
            let key = inner.machine.first_ready(now, care)?;
            if inner.slot(key).is_some_and(Slot::has_fired) {
                drop(inner);
                self.look_at_idle(key);
                continue;
            }
            let lent = match inner.machine.try_attach(now, care)? {
                Attached::To(key) => inner.lend(self, key).map(Ok),
                Attached::Overflow => Some(Err(PoolError::Overflow)),
            };
            // Only where connections are opened ahead of demand.
            if inner.machine.has_events() {
                drop(inner);
                self.run_events();
                self.ring_if_due();
            }
            return lent;
        }
    }

    fn enqueue(self: &Rc<Self>) -> Acquire {
        let mut inner = self.inner.borrow_mut();
        let token = inner.waits.insert(Wait::default());
        match inner.machine.enqueue(Instant::now(), token) {
            Queued::Waiting(stream) => {
                if let Some(wait) = inner.waits.get_mut(token) {
                    wait.stream = Some(stream);
                }
                drop(inner);
                self.run_events();
                // The attempt's deadline may be nearer than what the task sleeps for.
                self.ring_if_due();
                Acquire::waiting(self.clone(), token)
            }
            refused => {
                inner.waits.remove(token);
                Acquire::ready(Err(refused.into()))
            }
        }
    }

    /// A stream left `key`; its connection comes back, or not.
    fn end_stream(self: &Rc<Self>, key: ConnKey, conn: Option<Box<dyn Conn>>, end: StreamEnd) {
        let mut inner = self.inner.borrow_mut();
        let Inner { machine, slots, .. } = &mut *inner;
        let Some(slot) = slots.get_mut(key.index()) else { return };
        if let Some(conn) = &conn {
            slot.count_traffic(conn.as_ref(), machine.stats());
        }
        slot.conn = conn;
        machine.handle_stream_end(Instant::now(), key, end);
        drop(inner);
        self.run_events();
        self.watch(key);
    }

    /// Lets an idle connection tell when its peer closes it.
    #[inline]
    fn watch(self: &Rc<Self>, key: ConnKey) {
        let inner = self.inner.borrow();
        if inner.machine.is_idle(key) {
            drop(inner);
            self.look_at_idle(key);
        } else {
            drop(inner);
        }
        self.ring_if_due();
    }

    /// Lets the task see a deadline that is nearer than its timer.
    #[inline]
    fn ring_if_due(&self) {
        let due = self.inner.borrow().machine.poll_timeout();
        if let Some(due) = due
            && self.armed.get().is_none_or(|armed| due < armed)
        {
            self.bell.ring();
        }
    }

    /// Polls an idle connection for its end, which leaves its waker registered.
    fn look_at_idle(self: &Rc<Self>, key: ConnKey) {
        let mut inner = self.inner.borrow_mut();
        if !inner.machine.is_idle(key) {
            return;
        }
        let Some(end) = inner.slots.get_mut(key.index()).and_then(|slot| slot.watch(&self.bell, key)) else {
            return;
        };
        match end {
            IdleEnd::Closed(how) => inner.machine.handle_closed(Instant::now(), key, how),
            IdleEnd::UnexpectedData => inner.machine.handle_unexpected_data(Instant::now(), key),
        }
        drop(inner);
        self.run_events();
    }

    /// Does what the machine asks for.
    #[inline]
    fn run_events(self: &Rc<Self>) {
        loop {
            let mut inner = self.inner.borrow_mut();
            let Some(event) = inner.machine.poll_event() else { break };
            match event {
                Event::Open(key) => inner.slot_mut(key).begin(driver::open(self, key)),
                Event::Attach { token, conn } => inner.resolve(token, Ok(conn)),
                Event::Fail { token, error } => inner.resolve(token, Err(error)),
                Event::Close(key, closed) => {
                    let Inner { machine, slots, .. } = &mut *inner;
                    if let Some(slot) = slots.get_mut(key.index()) {
                        slot.end(closed, self.connector.address(), machine.stats());
                    }
                }
                Event::Reclaim => {
                    drop(inner);
                    if let Some(neighbours) = self.neighbours.upgrade() {
                        neighbours.reclaim();
                    }
                }
            }
        }
    }
}

impl Inner {
    fn slot(&self, key: ConnKey) -> Option<&Slot> {
        self.slots.get(key.index())
    }

    fn slot_mut(&mut self, key: ConnKey) -> &mut Slot {
        while self.slots.len() <= key.index() {
            self.slots.push(Slot::default());
        }
        &mut self.slots[key.index()]
    }

    /// Hands the connection of an attached stream out.
    #[inline]
    fn lend(&mut self, pool: &Rc<Pool>, key: ConnKey) -> Option<Lease> {
        let reused = self.machine.carried(key) > 1;
        let (conn, facts) = self.slots.get_mut(key.index())?.lend()?;
        Some(Lease::new(pool.clone(), key, conn, facts, reused))
    }

    fn resolve(&mut self, token: usize, outcome: Result<ConnKey, PoolError>) {
        let Some(wait) = self.waits.get_mut(token) else { return };
        wait.outcome = Some(outcome);
        if let Some(waker) = wait.waker.take() {
            waker.wake();
        }
    }
}

impl Neighbour for Pool {
    fn oldest_idle(&self) -> Option<Instant> {
        self.inner.borrow().machine.oldest_idle().map(|(_, since)| since)
    }

    fn reclaim(self: Rc<Self>) -> bool {
        let closed = self.inner.borrow_mut().machine.handle_reclaim(Instant::now());
        self.run_events();
        closed
    }

    fn host_starves(&self) -> bool {
        self.inner.borrow().machine.host_starves()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The task sees that there is nothing left to drive.
        self.bell.ring();
    }
}

#[cfg(test)]
mod tests;
