//! The TCP pool: a [`Machine`] whose streams are sessions, one to a connection and never a second one.
//!
//! A session asks with [`Pool::acquire`], gets the connection's bytes as its own and a [`Lease`], and ends with
//! [`Lease::end`]. So the pool is a way to a connection under the cluster's limits, with the same statistics
//! as the other protocols. Connections without a session are those that were opened ahead of demand
//! (`preconnect_policy`): watched for their peer's close, and closed after the pool's idle timeout.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use slab::Slab;
use tidegate_net::{BoxIo, TransportOptions};
use tidegate_types::{Address, CloseReason};
use tokio::time::Instant;

use crate::dialer::{Dialer, Opened, Opening};
use crate::error::PoolError;
use crate::h1::bell::Bell;
use crate::h1::{Neighbour, Neighbours};
use crate::machine::{Attached, Care, Carries, ConnKey, Event, Machine, Queued, Settings, Shared, StreamEnd};

mod acquire;
mod driver;
mod lease;
mod slot;
mod spare;

pub use acquire::Acquire;
pub use lease::{Facts, Lease};

use acquire::Wait;
use slot::Slot;

/// Sessions to one host on one worker.
pub struct Pool {
    inner: RefCell<Inner>,
    connector: Rc<dyn Connect>,
    options: Rc<TransportOptions>,
    neighbours: Weak<dyn Neighbours>,
    bell: Arc<Bell>,
    /// What the task's timer is set to.
    armed: Cell<Option<Instant>>,
}

/// Opens connections to the pool's host.
pub trait Connect {
    /// Starts an attempt, handshakes included. Dropping the future gives it up.
    fn connect(&self, options: Rc<TransportOptions>) -> Opening;

    /// Where it connects to first, for the log.
    fn address(&self) -> Option<&Address> {
        None
    }
}

impl Connect for Dialer {
    fn connect(&self, options: Rc<TransportOptions>) -> Opening {
        self.open(options)
    }

    fn address(&self) -> Option<&Address> {
        self.addresses.first()
    }
}

/// A session's connection.
pub struct Connection {
    /// Its bytes.
    pub io: BoxIo,
    /// Its place under the limits.
    pub lease: Lease,
}

struct Inner {
    machine: Machine,
    /// By [`ConnKey`].
    slots: Vec<Slot>,
    /// By the machine's tokens.
    waits: Slab<Wait>,
}

impl Pool {
    /// A pool without connections, whose sessions all ask for `options`. Of `settings` the numbers of streams
    /// are a TCP pool's own. Must be called on a thread whose runtime takes local tasks.
    pub fn new(
        settings: &Settings,
        shared: Shared,
        connector: Rc<dyn Connect>,
        options: Rc<TransportOptions>,
        neighbours: Weak<dyn Neighbours>,
    ) -> Rc<Self> {
        let settings =
            Settings { max_streams: Some(1), concurrency: 1, carries: Carries::Sessions, ..settings.clone() };
        crate::parting::prepare();
        let machine = Machine::new(Rc::new(settings), shared);
        let bell = Arc::new(Bell::default());
        machine.waiters().set_waker(&Waker::from(bell.clone()));
        let inner = RefCell::new(Inner { machine, slots: Vec::new(), waits: Slab::new() });
        let armed = Cell::new(None);
        let pool = Rc::new(Self { inner, connector, options, neighbours, bell: bell.clone(), armed });
        tokio::task::spawn_local(driver::drive(Rc::downgrade(&pool), bell));
        pool
    }

    /// Asks for a connection. Dropping the future gives the attempt up.
    pub fn acquire(self: &Rc<Self>) -> Acquire {
        if let Some(result) = self.take_spare() {
            self.run_events();
            return Acquire::ready(result);
        }
        self.make_room();
        let mut inner = self.inner.borrow_mut();
        let token = inner.waits.insert(Wait::default());
        match inner.machine.enqueue(Instant::now(), token) {
            Queued::Waiting(stream) => {
                if let Some(wait) = inner.waits.get_mut(token) {
                    wait.stream = Some(stream);
                }
                drop(inner);
                self.run_events();
                Acquire::waiting(self.clone(), token)
            }
            refused => {
                inner.waits.remove(token);
                Acquire::refused(refused.into())
            }
        }
    }

    /// A session is expected here: see [`Machine::handle_anticipated`].
    pub fn anticipate(self: &Rc<Self>, ratio: f32) -> bool {
        let opens = self.inner.borrow_mut().machine.handle_anticipated(Instant::now(), ratio);
        self.run_events();
        opens
    }

    /// The host or the cluster is gone: sessions go on, and those that wait are served.
    pub fn drain(self: &Rc<Self>, reason: CloseReason) {
        self.inner.borrow_mut().machine.handle_drain(Instant::now(), reason);
        self.run_events();
    }

    /// No connection in any state, no waiting session.
    pub fn is_empty(&self) -> bool {
        self.inner.borrow().machine.is_empty()
    }

    /// Connections in any state.
    pub fn connections(&self) -> usize {
        self.inner.borrow().machine.connections()
    }

    /// A connection that was opened ahead of demand. One that reports its end on the way is closed instead.
    fn take_spare(self: &Rc<Self>) -> Option<Result<Connection, PoolError>> {
        let now = Instant::now();
        loop {
            let mut inner = self.inner.borrow_mut();
            let key = inner.machine.first_ready(now, Care::Any)?;
            if inner.slot_mut(key).has_fired() {
                drop(inner);
                self.look_at_spare(key);
                continue;
            }
            return Some(match inner.machine.try_attach(now, Care::Any)? {
                Attached::To(key) => inner.lend(self, key).ok_or_else(PoolError::lost),
                Attached::Overflow => Err(PoolError::Overflow),
            });
        }
    }

    /// What nobody uses must not stand in the way of a session that comes now.
    fn make_room(&self) {
        if self.inner.borrow().machine.wants_room()
            && let Some(neighbours) = self.neighbours.upgrade()
        {
            neighbours.make_room();
        }
    }

    fn end_session(self: &Rc<Self>, key: ConnKey, reason: CloseReason, idle: Duration) {
        let end = StreamEnd::Session(reason);
        let mut inner = self.inner.borrow_mut();
        inner.slot_mut(key).idle = idle;
        inner.machine.handle_stream_end(Instant::now(), key, end);
        drop(inner);
        self.run_events();
    }

    /// Does what the machine asks for.
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
        self.arm();
    }

    /// Lets the task see a deadline that is nearer than its timer.
    fn arm(&self) {
        let due = self.inner.borrow().machine.poll_timeout();
        if let Some(due) = due
            && self.armed.get().is_none_or(|armed| due < armed)
        {
            self.bell.ring();
        }
    }
}

impl Inner {
    fn slot_mut(&mut self, key: ConnKey) -> &mut Slot {
        while self.slots.len() <= key.index() {
            self.slots.push(Slot::default());
        }
        &mut self.slots[key.index()]
    }

    /// Hands the connection of an attached session out.
    fn lend(&mut self, pool: &Rc<Pool>, key: ConnKey) -> Option<Connection> {
        let Opened { io, id, local_address, remote_address } = self.slots.get_mut(key.index())?.take()?;
        let facts = Facts { id, local_address, remote_address, tls: io.tls().cloned() };
        let stats = self.machine.stats().clone();
        Some(Connection { io, lease: Lease::new(pool.clone(), key, facts, stats) })
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
