//! The pool's decisions, without I/O: which connection carries a stream, when one is opened, who waits,
//! who fails, what is closed and when, what is opened ahead of demand. One machine for every protocol: HTTP/1.1 is a concurrency of 1.
//!
//! Call order: inputs are [`Machine::try_attach`] (the fast path), [`Machine::enqueue`] and `handle_*`, each
//! with the time; afterwards [`Machine::poll_event`] until it is empty, and a timer for
//! [`Machine::poll_timeout`]. A grant of a limit ([`Machine::waiters`]) is announced by its waker; the driver
//! then calls [`Machine::handle_grant`].
//!
//! The rules are Envoy's (`ConnPoolImplBase`): a stream takes the ready connection used last, else it
//! waits (FIFO) and up to 3 connections are opened for those that wait. Two are ours: limits are exact
//! (see [`crate::limits`]), and a failed attempt fails only streams that have no connection left to wait for.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tidegate_types::CloseReason;
use tokio::time::Instant;

use crate::error::PoolError;
use crate::host::{HostCounters, HostStat};
use crate::learned::IdleLimit;
use crate::limits::{Limit, Limits};
use crate::report::LastCloses;
use crate::stats::UpstreamStats;

mod closing;
mod conn;
mod idle;
mod invariants;
mod opening;
mod preconnect;
mod queue;
mod report;
mod session;
mod timers;

pub use closing::{Closed, StreamEnd};
pub use conn::ConnKey;
pub use opening::Waiters;
pub use preconnect::{Load, Tally, wants_connection};
pub use queue::StreamKey;

use conn::{Conn, ReadyList, State};
use queue::Pending;

/// What one pool is told by its cluster's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// From the attempt to the end of the last handshake.
    pub connect_timeout: Duration,
    /// How long a connection without a stream is kept; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long a connection may take new streams; `None`: for ever.
    pub max_connection_duration: Option<Duration>,
    /// Streams in a connection's life; `None`: no limit.
    pub max_streams: Option<u32>,
    /// Streams at the same time on a new connection, at least 1; what the last one took is expected of the next.
    pub concurrency: u32,
    /// `per_upstream_preconnect_ratio`, 1 to 3: places provided for each stream attached or waiting. 1: none ahead.
    pub preconnect_ratio: f32,
    /// What a stream is.
    pub carries: Carries,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%` of an attempt that took too long, if the transport has one.
    pub timeout_text: Option<&'static str>,
}

/// What the streams of a pool are, which decides a few rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carries {
    /// Requests: connections outlive them.
    #[default]
    Requests,
    /// TCP sessions: one to a connection, ever. A session that finds `max_connections` reached is refused
    /// instead of queued, `max_requests` does not limit it, and one that gives up takes the attempt made
    /// for it along (Envoy's cancel policy `CloseExcess`).
    Sessions,
}

/// How much a stream minds that its peer may be closing the connection just as it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Care {
    /// It takes any connection: if that turns out to be stale, the stream is repeated on another one.
    #[default]
    Any,
    /// It cannot be repeated: rather a connection that idled for less than half of what connections may, or one
    /// that is opened for it. Without room for that, any.
    Fresh,
    /// It was lost with a connection already: rather one that has carried nothing yet, or one that becomes free or
    /// is opened while it waits. Without room for another connection, any.
    New,
}

/// What the machine shares with others: limits and statistics.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The cluster's circuit breakers.
    pub limits: Arc<Limits>,
    /// `per_host_thresholds.max_connections` of this host.
    pub host_connections: Option<Arc<Limit>>,
    /// The cluster's statistics.
    pub stats: UpstreamStats,
    /// The host's.
    pub host: HostCounters,
    /// What was learned of how long the host lets connections idle; `None`: it does not matter.
    pub idle_limit: Option<Arc<IdleLimit>>,
    /// Where pools of the cluster on this worker add up what they carry, for `predictive_preconnect_ratio`.
    pub tally: Option<Rc<Tally>>,
}

/// What a driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Open a connection and report [`Machine::handle_connected`] or [`Machine::handle_connect_failed`].
    Open(ConnKey),
    /// The waiting stream `token` has `conn` now.
    Attach {
        /// The driver's name for the stream.
        token: usize,
        /// The connection that carries it.
        conn: ConnKey,
    },
    /// The waiting stream `token` gets no connection.
    Fail {
        /// The driver's name for the stream.
        token: usize,
        /// Why.
        error: PoolError,
    },
    /// The connection is gone for the machine: drop it, or abandon the attempt.
    Close(ConnKey, Closed),
    /// This pool has streams waiting and no connection, and idle connections of others may hold the limit.
    Reclaim,
}

/// The answer of [`Machine::try_attach`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The stream has this connection.
    To(ConnKey),
    /// `max_requests` refused it.
    Overflow,
}

/// The answer of [`Machine::enqueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// The stream waits; an event will name its token.
    Waiting(StreamKey),
    /// `max_pending_requests` refused it.
    Overflow,
    /// `max_connection_pools` refused the pool.
    PoolOverflow,
    /// `max_connections` refused the session.
    ConnectionOverflow,
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    settings: Rc<Settings>,
    shared: Shared,
    /// Streams that the next connection is expected to take at a time.
    expected: u32,
    conns: Slab<Conn>,
    ready: ReadyList,
    pending: Pending,
    /// Streams that connections under way will be able to carry.
    connecting_capacity: u64,
    connecting: usize,
    active: usize,
    waiters: Waiters,
    holds_pool_permit: bool,
    /// Units of `max_connections` that waiting sessions brought along.
    session_units: u64,
    /// This pool's part of the tally.
    tallied: Load,
    /// Why no new streams will come.
    draining: Option<CloseReason>,
    deadline: Option<Instant>,
    /// The connection kept as a probe of the host's idle limit.
    probe: Option<ConnKey>,
    /// Source of jitter.
    opened: u64,
    last_closes: LastCloses,
    events: VecDeque<Event>,
    /// Whether the driver carries out a `Close`.
    departing: u64,
}

impl Machine {
    /// A pool without connections.
    pub fn new(settings: Rc<Settings>, shared: Shared) -> Self {
        Self {
            expected: settings.concurrency,
            settings,
            shared,
            conns: Slab::new(),
            ready: ReadyList::default(),
            pending: Pending::default(),
            connecting_capacity: 0,
            connecting: 0,
            active: 0,
            waiters: Waiters::default(),
            holds_pool_permit: false,
            session_units: 0,
            tallied: Load::default(),
            draining: None,
            deadline: None,
            probe: None,
            opened: 0,
            last_closes: LastCloses::default(),
            events: VecDeque::new(),
            departing: 0,
        }
    }

    /// Puts a stream on the ready connection that was used last; `None` if there is none that suits it.
    #[inline]
    pub fn try_attach(&mut self, now: Instant, care: Care) -> Option<Attached> {
        let key = self.first_ready(now, care)?;
        Some(self.attach_to(now, key))
    }

    /// The same, on the connection that [`Machine::first_ready`] named just now.
    #[inline]
    pub fn attach_to(&mut self, now: Instant, key: ConnKey) -> Attached {
        if !self.attach(now, key) {
            return Attached::Overflow;
        }
        self.preconnect(now, 0);
        self.tally();
        self.check_invariants();
        Attached::To(key)
    }

    /// Lets a stream wait for a connection. To be called when `try_attach` found none.
    pub fn enqueue(&mut self, now: Instant, token: usize) -> Queued {
        if !self.reserve_for_session() {
            return Queued::ConnectionOverflow;
        }
        self.close_spent(now);
        let queued = self.queue_up(now, token);
        self.settle(now);
        queued
    }

    fn queue_up(&mut self, now: Instant, token: usize) -> Queued {
        if !self.shared.limits.pending.try_reserve() {
            self.shared.stats.upstream_rq_pending_overflow().inc();
            return Queued::Overflow;
        }
        if !self.hold_pool_permit() {
            self.shared.limits.pending.release();
            self.shared.stats.upstream_cx_pool_overflow().inc();
            return Queued::PoolOverflow;
        }
        let key = self.pending.push(now, token);
        self.shared.stats.upstream_rq_pending_total().inc();
        self.shared.stats.upstream_rq_pending_active().inc();
        self.shared.host.inc(HostStat::RqPendingActive);
        let opened = self.open_connections(now);
        self.preconnect(now, opened);
        Queued::Waiting(key)
    }

    /// The owner of a waiting stream gave it up. Attempts under way go on (Envoy's cancel policy `Default`),
    /// but those for sessions.
    pub fn handle_cancel(&mut self, now: Instant, key: StreamKey) {
        if self.pending.remove(key).is_some() {
            self.shared.stats.upstream_rq_cancelled().inc();
            self.left_queue();
            self.close_excess(now);
        }
        if let Some(reason) = self.draining {
            // An attempt that nobody waits for any more has no future.
            self.handle_drain(now, reason);
        }
        self.settle(now);
    }

    /// A connection is ready for its first streams: `concurrency` at a time.
    pub fn handle_connected(&mut self, now: Instant, key: ConnKey, concurrency: u32) {
        let Some(conn) = self.conns.get_mut(key.0) else { return };
        if !matches!(conn.state, State::Connecting { .. }) {
            return;
        }
        self.connecting_capacity -= conn.expected_capacity();
        self.connecting -= 1;
        self.shared.limits.connecting.release();
        let took = now.saturating_duration_since(conn.created);
        if let Some(learned) = &self.shared.idle_limit {
            learned.connected(took);
        }
        self.shared.stats.upstream_cx_connect_ms().record(took.as_millis() as u64);
        conn.concurrency = concurrency.max(1);
        // The next ones are expected to be like this one.
        self.expected = conn.concurrency.min(self.settings.concurrency);
        conn.idle_since = now;
        conn.state = State::Busy;
        if let Some(limit) = self.settings.max_connection_duration {
            conn.expires = Some(now + limit);
            self.arm(now + limit);
        }
        self.serve(now, key);
        // Opens are bounded per input: this one may owe some.
        if !self.pending.is_empty() {
            self.open_connections(now);
        }
        self.settle(now);
    }

    /// The peer changed how many streams a connection takes at a time (SETTINGS_MAX_CONCURRENT_STREAMS).
    pub fn handle_concurrency(&mut self, now: Instant, key: ConnKey, concurrency: u32) {
        let Some(conn) = self.conns.get_mut(key.0) else { return };
        conn.concurrency = concurrency;
        match conn.state {
            State::Ready if conn.capacity() == 0 => {
                conn.state = State::Busy;
                self.ready.remove(&mut self.conns, key);
            }
            State::Ready => self.ready.recount(&mut self.conns, key),
            State::Busy => self.serve(now, key),
            _ => {}
        }
        self.settle(now);
    }

    /// What to do next. To be asked for once the last event has been carried out.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shared.limits.departures.finish(std::mem::take(&mut self.departing));
        let event = self.events.pop_front();
        self.departing = u64::from(matches!(event, Some(Event::Close(..))));
        event
    }

    /// When to call [`Machine::handle_timeout`] at the latest; an earlier call does no harm.
    #[inline]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the connection has no stream, and its peer's close is to be noticed.
    #[inline]
    pub fn is_idle(&self, key: ConnKey) -> bool {
        self.conns
            .get(key.0)
            .is_some_and(|conn| matches!(conn.state, State::Ready | State::Probing) && conn.active == 0)
    }

    /// Streams that the connection has carried, the present ones included.
    #[inline]
    pub fn carried(&self, key: ConnKey) -> u32 {
        self.conns.get(key.0).map_or(0, |conn| conn.carried)
    }

    /// The cluster's statistics.
    pub fn stats(&self) -> &UpstreamStats {
        &self.shared.stats
    }

    /// No connection in any state, no waiting stream.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty() && self.pending.is_empty()
    }

    /// Connections in any state.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Attached and waiting streams.
    pub fn streams(&self) -> usize {
        self.active + self.pending.len()
    }

    /// Whether there is something to do.
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Since when the connection that has idled longest has had no stream; if none is idle, the attempt that
    /// no stream waits for.
    pub fn oldest_idle(&self) -> Option<(ConnKey, Instant)> {
        let mut keys = self.probe.into_iter().chain(self.ready.oldest_first(&self.conns));
        let idle = keys.find(|key| self.is_idle(*key)).map(|key| (key, self.conns[key.0].idle_since));
        // One whose peer takes no stream is not in the list.
        let useless = || {
            self.conns.iter().find(|(_, conn)| conn.idle).map(|(key, conn)| (ConnKey(key), conn.idle_since))
        };
        idle.or_else(useless).or_else(|| self.spare_attempt())
    }

    /// Carries as many waiting streams as the connection takes, then files it where it belongs.
    /// Busy => (Ready | Busy | Draining | closed)
    fn serve(&mut self, now: Instant, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key.0) else { return };
        let draining = self.draining.filter(|_| self.pending.is_empty());
        if conn.capacity() > 0 && draining.is_none() {
            conn.state = State::Ready;
            self.ready.push_front(&mut self.conns, key);
        } else if conn.remaining == 0 {
            (conn.state, conn.fate) = (State::Draining, CloseReason::MaxRequests);
        } else if let Some(reason) = draining {
            (conn.state, conn.fate) = (State::Draining, reason);
        }
        while self.conns.get(key.0).is_some_and(|conn| conn.state == State::Ready)
            && let Some(token) = self.pending.pop()
        {
            self.give(now, key, token);
        }
        self.rest(now, key);
    }

    /// The waiting stream `token` gets a ready connection.
    fn give(&mut self, now: Instant, key: ConnKey, token: usize) {
        self.left_queue();
        let event = if self.attach(now, key) {
            Event::Attach { token, conn: key }
        } else {
            Event::Fail { token, error: PoolError::RequestOverflow }
        };
        self.events.push_back(event);
    }

    /// A connection that may have lost its last stream: idle, or closed if it has no future.
    fn rest(&mut self, now: Instant, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key.0) else { return };
        if conn.active > 0 {
            return;
        }
        match (conn.state, self.draining) {
            (State::Draining, _) => {
                let fate = conn.fate;
                self.close(now, key, fate);
            }
            (State::Ready, Some(reason)) => self.close(now, key, reason),
            // Busy without a stream: the peer takes none for now.
            (State::Ready | State::Busy, _) => {
                if !std::mem::replace(&mut conn.idle, true) {
                    conn.idle_since = now;
                    self.shared.stats.upstream_cx_idle().inc();
                }
                // A pool without any connection waits for this one's place: being idle must not win over it.
                if self.must_yield(None) {
                    self.close(now, key, CloseReason::Overflow);
                } else if let Some(due) = self.idle_deadline(key) {
                    self.arm(due);
                }
            }
            (State::Connecting { .. } | State::Probing, _) => {}
        }
    }

    /// Ready => (Ready | Busy | Draining). False if `max_requests` refuses the stream.
    #[inline]
    fn attach(&mut self, now: Instant, key: ConnKey) -> bool {
        let stats = &self.shared.stats;
        match self.settings.carries {
            Carries::Requests if !self.shared.limits.requests.try_reserve() => {
                stats.upstream_rq_active_overflow().inc();
                return false;
            }
            Carries::Requests => self.shared.limits.note_request(now),
            // Counted, not limited, as in Envoy.
            Carries::Sessions => self.shared.limits.requests.force(),
        }
        let Some(conn) = self.conns.get_mut(key.0) else { return false };
        conn.taken = now;
        conn.idled = Duration::ZERO;
        if std::mem::replace(&mut conn.idle, false) {
            let idle = now.saturating_duration_since(conn.idle_since);
            conn.idled = idle;
            stats.upstream_cx_idle().dec();
            stats.upstream_cx_idle_age_at_reuse_ms().record(idle.as_millis() as u64);
        }
        conn.active += 1;
        conn.carried += 1;
        self.active += 1;
        stats.upstream_rq_total().inc();
        stats.upstream_rq_active().inc();
        self.shared.host.inc(HostStat::RqTotal);
        self.shared.host.inc(HostStat::RqActive);
        if conn.remaining != u32::MAX {
            conn.remaining -= 1;
        }
        if conn.remaining == 0 {
            if self.settings.carries == Carries::Requests {
                stats.upstream_cx_max_requests().inc();
            }
            (conn.state, conn.fate) = (State::Draining, CloseReason::MaxRequests);
            self.ready.remove(&mut self.conns, key);
        } else if conn.capacity() == 0 {
            conn.state = State::Busy;
            self.ready.remove(&mut self.conns, key);
        } else {
            self.ready.recount(&mut self.conns, key);
        }
        true
    }

    /// Bookkeeping of a stream that left the queue.
    fn left_queue(&mut self) {
        self.shared.limits.pending.release();
        self.shared.stats.upstream_rq_pending_active().dec();
        self.shared.host.dec(HostStat::RqPendingActive);
    }

    /// Ends every input but the fast path: the queue's claims match what waits, and an empty pool gives
    /// its permit back.
    #[inline]
    fn settle(&mut self, now: Instant) {
        if !self.pending.is_empty() || self.waiters.any_queued() {
            self.make_do(now);
            while self.pending.attempted() as u64 > self.connecting_capacity {
                self.pending.unmark_attempted();
            }
            self.update_claims(now);
        }
        if self.session_units > 0 {
            self.return_units();
        }
        if self.holds_pool_permit && self.is_empty() {
            self.holds_pool_permit = false;
            self.shared.limits.pools.release();
        }
        self.tally();
        self.check_invariants();
    }

    /// Envoy's limit is on pools of requests only.
    fn hold_pool_permit(&mut self) -> bool {
        if self.settings.carries == Carries::Sessions {
            return true;
        }
        if !self.holds_pool_permit {
            self.holds_pool_permit = self.shared.limits.pools.try_reserve();
        }
        self.holds_pool_permit
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
