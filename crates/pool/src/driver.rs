//! What the pools of all protocols have in common: a [`Machine`] with connections, wakers and a timer.
//!
//! A protocol is a [`Kind`]: how a connection is made and how one is lent; its [`Slot`] is what the pool holds of one
//! connection. The rest is [`Pool`], the same for all: streams that wait ([`Acquire`]), the machine's
//! events, connections that stir while the pool holds them, and one task a pool ([`task`]) for attempts' results,
//! grants of limits and the one timer. With a ready connection at hand a stream gets it without an allocation.

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tidegate_codec::multiplex::AltSvc;
use tidegate_types::{Address, CloseReason};
use tokio::time::Instant;

use crate::error::PoolError;
use crate::limits::Limits;
use crate::machine::{Attached, Care, ConnKey, Event, Machine, Queued, Settings, Shared, StreamEnd};
use crate::report::PoolReport;
use crate::stats::UpstreamStats;

mod acquire;
pub(crate) mod bell;
mod slot;
mod task;

pub(crate) use acquire::Acquire;
pub(crate) use bell::Bell;
pub(crate) use slot::{Holds, Slot, Stirred, log_end};

use acquire::Wait;

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

    /// The pool as it is now.
    fn report(&self) -> PoolReport;
}

/// Connections to one host, with one priority, on one worker.
pub struct Pool<K: Kind> {
    pub(crate) kind: K,
    inner: RefCell<Inner<K::Slot>>,
    neighbours: Weak<dyn Neighbours>,
    limits: Arc<Limits>,
    bell: Arc<Bell>,
    /// What the task's timer is set to.
    armed: Cell<Option<Instant>>,
    on_empty: OnceCell<Box<dyn Fn()>>,
}

/// Makes connections to a pool's host.
pub trait Connect<O> {
    /// Connects, handshakes included. Dropping the future gives the attempt up.
    fn connect(&self) -> Pin<Box<dyn Future<Output = Result<O, PoolError>>>>;

    /// Where it connects to first, for the log.
    fn address(&self) -> Option<Arc<Address>> {
        None
    }
}

/// What a pool's connections speak: how they are made and lent.
pub trait Kind: Sized + 'static {
    /// The pool's side of a connection.
    type Slot: Slot;
    /// What a stream gets.
    type Lent: Unpin;

    /// What its connections speak, as the admin page `/pools` says it.
    const PROTOCOL: &'static str;

    /// Starts an attempt, handshakes included.
    fn connect(&self) -> Attempt<<Self::Slot as Slot>::Opened>;

    /// Where it connects to first, for the log.
    fn address(&self) -> Option<Arc<Address>>;

    /// An attempt to connect ended, this way. Nothing is borrowed.
    fn attempted(&self, _outcome: Result<(), CloseReason>) {}

    /// A peer says where else its origins are served. Nothing is borrowed.
    fn advertised(&self, _said: &AltSvc) {}

    /// Adds what it knows beside the machine.
    fn describe(&self, _report: &mut PoolReport) {}

    /// Hands the connection of an attached stream out.
    fn lend(pool: &Rc<Pool<Self>>, inner: &mut Inner<Self::Slot>, grant: Grant) -> Option<Self::Lent>;
}

/// What changes.
pub struct Inner<S> {
    pub(crate) machine: Machine,
    /// By [`ConnKey`].
    pub(crate) slots: Vec<S>,
    /// By the machine's tokens.
    waits: Slab<Wait>,
}

/// A connection for a stream.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// Which one.
    pub(crate) key: ConnKey,
    /// Since when the stream waited for it, if it did.
    pub(crate) since: Option<Instant>,
}

/// An attempt under way; dropping it gives the attempt up.
pub(crate) type Attempt<O> = Pin<Box<dyn Future<Output = Result<O, PoolError>>>>;

impl<K: Kind> Drop for Pool<K> {
    fn drop(&mut self) {
        // The task sees that there is nothing left to drive.
        self.bell.ring();
    }
}

impl<S: Slot> Inner<S> {
    fn has_fired(&self, key: ConnKey) -> bool {
        self.slots.get(key.index()).is_some_and(S::has_fired)
    }

    fn is_watched_while_busy(&self, key: ConnKey) -> bool {
        self.slots.get(key.index()).is_some_and(S::is_watched_while_busy)
    }

    /// Counts a request that gets its connection.
    #[inline]
    pub(crate) fn count_request(&self, grant: Grant, reused: bool) {
        let stats = self.machine.stats();
        if reused {
            stats.upstream_cx_reuse_hit().inc();
        } else {
            stats.upstream_cx_reuse_miss().inc();
        }
        let waited = grant.since.map_or(0, |since| since.elapsed().as_millis() as u64);
        stats.upstream_rq_wait_for_cx_ms().record(waited);
    }

    fn slot_mut(&mut self, key: ConnKey) -> &mut S {
        while self.slots.len() <= key.index() {
            self.slots.push(S::default());
        }
        &mut self.slots[key.index()]
    }

    fn resolve(&mut self, token: usize, outcome: Result<ConnKey, PoolError>) {
        let Some(wait) = self.waits.get_mut(token) else { return };
        wait.outcome = Some(outcome);
        if let Some(waker) = wait.waker.take() {
            waker.wake();
        }
    }

    /// Streams that were given `key` and have not come for it: it may be another connection's name soon.
    fn take_back(&mut self, key: ConnKey) {
        for (_, wait) in &mut self.waits {
            if matches!(wait.outcome, Some(Ok(given)) if given == key) {
                wait.outcome = Some(Err(PoolError::Lost));
            }
        }
    }

    /// What happened on a watched connection.
    fn handle(&mut self, key: ConnKey, stirred: Stirred) {
        let now = Instant::now();
        match stirred {
            Stirred::Closed(how) => self.machine.handle_closed(now, key, how),
            Stirred::Violated => self.machine.handle_violated(now, key),
            Stirred::Malformed => self.machine.handle_malformed(now, key),
            Stirred::UnexpectedData => self.machine.handle_unexpected_data(now, key),
            Stirred::Capacity(streams) => self.machine.handle_concurrency(now, key, streams),
            Stirred::GoingAway => self.machine.handle_announced(now, key),
            // The kind's matter.
            Stirred::Advertised(_) => {}
        }
    }
}

impl<K: Kind> Pool<K> {
    /// A pool without connections. Must be called on a thread whose runtime takes local tasks.
    pub(crate) fn start(
        kind: K,
        settings: Rc<Settings>,
        shared: Shared,
        neighbours: Weak<dyn Neighbours>,
    ) -> Rc<Self> {
        crate::parting::prepare();
        let limits = shared.limits.clone();
        let machine = Machine::new(settings, shared);
        let bell = Arc::new(Bell::default());
        machine.waiters().set_waker(&Waker::from(bell.clone()));
        let inner = RefCell::new(Inner { machine, slots: Vec::new(), waits: Slab::new() });
        let (armed, on_empty) = (Cell::new(None), OnceCell::new());
        let pool = Rc::new(Self { kind, inner, neighbours, limits, bell: bell.clone(), armed, on_empty });
        tokio::task::spawn_local(task::drive(Rc::downgrade(&pool), bell));
        pool
    }

    /// As [`Pool::acquire_at`], now, for a request that does not mind a stale connection.
    #[inline]
    pub fn acquire(self: &Rc<Self>) -> Acquire<K> {
        self.acquire_at(Instant::now(), Care::Any)
    }

    /// Asks for a connection: at once if one that suits is ready, else when one is free or connected. Dropping
    /// the future gives the place in the queue up.
    #[inline]
    pub fn acquire_at(self: &Rc<Self>, now: Instant, care: Care) -> Acquire<K> {
        if let Some(lent) = self.take_ready(now, care) {
            return Acquire::ready(lent);
        }
        self.enqueue()
    }

    /// As [`Pool::acquire_at`], if there is an answer at once.
    #[inline]
    pub fn acquire_ready(self: &Rc<Self>, now: Instant, care: Care) -> Option<Acquire<K>> {
        self.take_ready(now, care).map(Acquire::ready)
    }

    /// Opens a connection if none is ready or under way, for streams that may come, unless a limit stands in the way.
    pub fn warm(self: &Rc<Self>) {
        if self.limits.connections.has_room() && self.limits.connecting.has_room() {
            self.anticipate(1.0);
        }
    }

    /// The ready connection used last, if it suits. One that reports its end on the way is closed instead of lent.
    #[inline]
    fn take_ready(self: &Rc<Self>, now: Instant, care: Care) -> Option<Result<K::Lent, PoolError>> {
        loop {
            let mut inner = self.inner.borrow_mut();
            let key = inner.machine.first_ready(now, care)?;
            if inner.has_fired(key) && inner.machine.is_idle(key) {
                drop(inner);
                self.look(key);
                continue;
            }
            let lent = match inner.machine.attach_to(now, key) {
                Attached::To(key) => {
                    K::lend(self, &mut inner, Grant { key, since: None }).ok_or(PoolError::Lost)
                }
                Attached::Overflow => Err(PoolError::RequestOverflow),
            };
            // Only where connections are opened ahead of demand.
            let busy = inner.machine.has_events();
            drop(inner);
            if busy {
                self.run_events();
            }
            return Some(lent);
        }
    }

    /// Lets a stream wait.
    fn enqueue(self: &Rc<Self>) -> Acquire<K> {
        // What nobody uses must not stand in the way of a session that comes now.
        if self.machine(Machine::wants_room)
            && let Some(neighbours) = self.neighbours.upgrade()
        {
            neighbours.make_room();
        }
        let now = Instant::now();
        let mut inner = self.inner.borrow_mut();
        let token = inner.waits.insert(Wait::new(now));
        match inner.machine.enqueue(now, token) {
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
        opens
    }

    /// Whether streams wait here that a limit denies a connection.
    pub fn is_refused(&self) -> bool {
        self.machine(Machine::is_refused)
    }

    /// See [`Machine::handle_give_way`].
    pub fn give_way(self: &Rc<Self>) {
        self.inner.borrow_mut().machine.handle_give_way(Instant::now());
        self.run_events();
    }

    /// What is to be done when there is no connection left and nobody waits: the pool may be dropped then. The first
    /// one counts.
    pub fn on_empty(&self, act: Box<dyn Fn()>) {
        let _ = self.on_empty.set(act);
    }

    /// No connection in any state, no waiting stream.
    pub fn is_empty(&self) -> bool {
        self.machine(Machine::is_empty)
    }

    /// Connections in any state.
    pub fn connections(&self) -> usize {
        self.machine(Machine::connections)
    }

    /// Attached and waiting streams.
    pub fn streams(&self) -> usize {
        self.machine(Machine::streams)
    }

    pub(crate) fn machine<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.inner.borrow().machine)
    }

    /// A stream left `key`; `give_back` puts its connection back, if there is something to put.
    #[inline]
    pub(crate) fn end_stream(
        self: &Rc<Self>,
        key: ConnKey,
        end: StreamEnd,
        give_back: impl FnOnce(&mut K::Slot, &UpstreamStats),
    ) {
        let mut inner = self.inner.borrow_mut();
        let Inner { machine, slots, .. } = &mut *inner;
        let Some(slot) = slots.get_mut(key.index()) else { return };
        give_back(slot, machine.stats());
        machine.handle_stream_end(Instant::now(), key, end);
        let busy = machine.has_events();
        drop(inner);
        if busy {
            self.run_events();
        }
        self.watch(key);
    }

    /// Lets a connection tell what happens to it while it is idle, unless it is watched anyhow.
    #[inline]
    fn watch(self: &Rc<Self>, key: ConnKey) {
        if !self.inner.borrow().is_watched_while_busy(key) {
            self.look(key);
        }
        self.ring_if_due();
    }

    /// Looks what happened on a connection that the pool watches, which leaves its waker registered.
    fn look(self: &Rc<Self>, key: ConnKey) {
        loop {
            let mut inner = self.inner.borrow_mut();
            if !inner.is_watched_while_busy(key) && !inner.machine.is_idle(key) {
                return;
            }
            let Some(slot) = inner.slots.get_mut(key.index()) else { return };
            let Poll::Ready(stirred) = slot.poll_stirred(&self.bell, key) else { return };
            if let Stirred::Advertised(said) = stirred {
                drop(inner);
                self.kind.advertised(&said);
                continue;
            }
            inner.handle(key, stirred);
            let busy = inner.machine.has_events();
            drop(inner);
            if busy {
                self.run_events();
            }
        }
    }

    /// Does what the machine asks for.
    fn run_events(self: &Rc<Self>) {
        loop {
            let mut inner = self.inner.borrow_mut();
            let Some(event) = inner.machine.poll_event() else { break };
            match event {
                Event::Open(key) => inner.slot_mut(key).begin(task::open(self, key)),
                Event::Attach { token, conn } => inner.resolve(token, Ok(conn)),
                Event::Fail { token, error } => inner.resolve(token, Err(error)),
                Event::Close(key, closed) => {
                    inner.take_back(key);
                    let Inner { machine, slots, .. } = &mut *inner;
                    if let Some(slot) = slots.get_mut(key.index()) {
                        slot.end(closed, self.kind.address().as_deref(), machine.stats());
                    }
                    drop(inner);
                    if closed.attempt {
                        self.kind.attempted(Err(closed.reason));
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
        // An attempt's deadline may be nearer than what the task sleeps for.
        self.ring_if_due();
        if let Some(act) = self.on_empty.get()
            && self.machine(Machine::is_empty)
        {
            act();
        }
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

    /// The answer to a stream that waits.
    fn poll_wait(self: &Rc<Self>, token: usize, cx: &mut Context<'_>) -> Poll<Result<K::Lent, PoolError>> {
        let mut inner = self.inner.borrow_mut();
        let Some(wait) = inner.waits.get_mut(token) else { return Poll::Pending };
        let Some(outcome) = wait.outcome.take() else {
            wait.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let since = Some(wait.since);
        inner.waits.remove(token);
        // The connection has not closed since, or it would have been taken back.
        Poll::Ready(
            outcome.and_then(|key| K::lend(self, &mut inner, Grant { key, since }).ok_or(PoolError::Lost)),
        )
    }

    /// Whether a stream that waits would get its connection now; its failure, if there is one.
    fn poll_settled(&self, token: usize, cx: &mut Context<'_>) -> Poll<Result<(), PoolError>> {
        let mut inner = self.inner.borrow_mut();
        let Some(wait) = inner.waits.get_mut(token) else { return Poll::Pending };
        match &wait.outcome {
            Some(outcome) => Poll::Ready(outcome.clone().map(|_| ())),
            None => {
                wait.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// A stream that waited is not interested any more.
    fn give_up(self: &Rc<Self>, token: usize) {
        let mut inner = self.inner.borrow_mut();
        let Some(wait) = inner.waits.try_remove(token) else { return };
        match (wait.outcome, wait.stream) {
            (None, Some(stream)) => inner.machine.handle_cancel(Instant::now(), stream),
            (Some(Ok(key)), _) => {
                inner.machine.handle_stream_end(Instant::now(), key, StreamEnd::Unused);
                drop(inner);
                self.run_events();
                return self.watch(key);
            }
            _ => return,
        }
        drop(inner);
        self.run_events();
    }
}

impl<K: Kind> Neighbour for Pool<K> {
    fn oldest_idle(&self) -> Option<Instant> {
        self.machine(|machine| machine.oldest_idle().map(|(_, since)| since))
    }

    fn reclaim(self: Rc<Self>) -> bool {
        let closed = self.inner.borrow_mut().machine.handle_reclaim(Instant::now());
        self.run_events();
        closed
    }

    fn host_starves(&self) -> bool {
        self.machine(Machine::host_starves)
    }

    fn report(&self) -> PoolReport {
        let report = self.machine(|machine| machine.report(Instant::now()));
        let address = self.kind.address().map(|address| address.to_string()).unwrap_or_default();
        let mut report = PoolReport { address, protocol: K::PROTOCOL, ..report };
        self.kind.describe(&mut report);
        report
    }
}
