//! When a connection is opened, what a failed attempt means, and waiting for a limit's unit.

use std::sync::Arc;
use std::task::Waker;

use tidegate_types::{CloseReason, ResetReason};
use tokio::time::Instant;

use super::conn::Conn;
use super::{ConnKey, Event, Machine, Shared, State};
use crate::error::PoolError;
use crate::host::HostStat;
use crate::limits::{Claim, Waiter};

/// Opens per input at most (Envoy: `tryCreateNewConnections`).
pub(super) const MAX_OPENS: usize = 3;

/// The pool's places in the queues of the limits that a connection needs a unit of.
#[derive(Debug, Default)]
pub struct Waiters {
    /// For a unit of the cluster's `max_connections`.
    pub cluster: Arc<Waiter>,
    /// For a unit of the host's `max_connections`.
    pub host: Arc<Waiter>,
    /// For a unit of `max_connecting`.
    pub connecting: Arc<Waiter>,
    cluster_queued: bool,
    host_queued: bool,
    connecting_queued: bool,
    /// A host unit in hand while the cluster's, or the one to connect, is awaited.
    host_held: bool,
    /// A unit of the cluster's in hand while the one to connect is awaited.
    cluster_held: bool,
    asked_to_reclaim: bool,
}

impl Waiters {
    /// Whom to wake when a limit hands over a unit: see [`Machine::handle_grant`].
    pub fn set_waker(&self, waker: &Waker) {
        self.cluster.set_waker(Some(waker.clone()));
        self.host.set_waker(Some(waker.clone()));
        self.connecting.set_waker(Some(waker.clone()));
    }

    /// Whether a unit was handed over and not used yet.
    #[inline]
    pub fn is_granted(&self) -> bool {
        self.cluster.is_granted() || self.host.is_granted() || self.connecting.is_granted()
    }

    #[inline]
    pub(super) fn any_queued(&self) -> bool {
        self.cluster_queued
            || self.host_queued
            || self.connecting_queued
            || self.host_held
            || self.cluster_held
    }
}

impl Machine {
    /// Where grants of limits arrive; the driver sets their wakers.
    pub fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// Whether streams wait that a limit denies a connection.
    pub fn is_refused(&self) -> bool {
        let queued = &self.waiters;
        (queued.cluster_queued || queued.host_queued || queued.connecting_queued) && !queued.is_granted()
    }

    /// Those who wait here have another pool, which lacks the places that connections under way here hold: gives these
    /// up, and who relied on them fails as if they had failed. Nothing happens once a connection was established.
    pub fn handle_give_way(&mut self, now: Instant) {
        if self.conns.len() > self.connecting {
            return;
        }
        let reason = ResetReason::LocalConnectionFailure;
        while let Some(token) = self.pending.pop_attempted() {
            self.gave_way(token, PoolError::Connect { reason, transport: None });
        }
        // For those a limit stood in the way here, too.
        while let Some(token) = self.pending.pop() {
            self.gave_way(token, PoolError::Overflow);
        }
        for key in self.keys() {
            self.close(now, key, CloseReason::Overflow);
        }
        self.settle(now);
    }

    fn gave_way(&mut self, token: usize, error: PoolError) {
        self.left_queue();
        self.shared.stats.upstream_rq_cancelled().inc();
        self.events.push_back(Event::Fail { token, error });
    }

    /// A limit handed over a unit.
    pub fn handle_grant(&mut self, now: Instant) {
        self.open_connections(now);
        self.settle(now);
    }

    /// An attempt failed before it was connected.
    pub fn handle_connect_failed(&mut self, now: Instant, key: ConnKey, error: PoolError) {
        self.attempt_failed(now, key, error);
        self.settle(now);
    }

    /// Connecting => closed
    pub(super) fn attempt_failed(&mut self, now: Instant, key: ConnKey, error: PoolError) {
        if !self.conns.get(key.0).is_some_and(|conn| matches!(conn.state, State::Connecting { .. })) {
            return;
        }
        self.shared.stats.upstream_cx_connect_fail().inc();
        self.shared.host.inc(HostStat::CxConnectFail);
        let reason = match error.reason() {
            ResetReason::ConnectionTimeout => {
                self.shared.stats.upstream_cx_connect_timeout().inc();
                CloseReason::ConnectTimeout
            }
            _ if error.is_tls() => CloseReason::TlsError,
            ResetReason::LocalConnectionFailure => CloseReason::ConnectFailedHere,
            _ => CloseReason::ConnectFailed,
        };
        self.close(now, key, reason);
        // Each attempt left carries so many of those that rely on one; the oldest have waited enough.
        while self.pending.attempted() as u64 > self.connecting_capacity
            && let Some(token) = self.pending.pop_attempted()
        {
            self.left_queue();
            self.shared.stats.upstream_rq_pending_failure_eject().inc();
            self.events.push_back(Event::Fail { token, error: error.clone() });
        }
        // Streams that waited for a limit's unit had no attempt yet: this one's unit is theirs.
        self.open_connections(now);
    }

    /// Opens connections while streams wait that nothing under way will carry: how many.
    pub(super) fn open_connections(&mut self, now: Instant) -> usize {
        let mut opened = 0;
        while opened < MAX_OPENS && self.pending.len() as u64 > self.connecting_capacity {
            if self.reserve(now) {
                self.open(now);
                opened += 1;
            } else if !self.give_up_probe(now) {
                break;
            }
        }
        // Whoever is carried by an attempt shares its fate.
        while (self.pending.attempted() as u64) < self.connecting_capacity.min(self.pending.len() as u64) {
            self.pending.mark_attempted();
        }
        opened
    }

    pub(super) fn open(&mut self, now: Instant) {
        let settings = &self.settings;
        let deadline = now + settings.connect_timeout;
        let conn = Conn::connecting(now, deadline, settings.max_streams, self.expected);
        self.connecting_capacity += conn.expected_capacity();
        self.connecting += 1;
        self.waiters.asked_to_reclaim = false;
        let key = ConnKey(self.conns.insert(conn));
        // Multiplied by the golden ratio: neighbours lie far apart.
        self.opened = self.opened.wrapping_add(1);
        self.conns[key.0].salt = (self.opened.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8;
        let stats = &self.shared.stats;
        stats.upstream_cx_total().inc();
        stats.upstream_cx_active().inc();
        self.shared.host.inc(HostStat::CxTotal);
        self.shared.host.inc(HostStat::CxActive);
        self.arm(deadline);
        self.events.push_back(Event::Open(key));
    }

    /// Takes a unit of each limit: the host's first, then the cluster's, then one to connect. Whoever has the last
    /// waits for nothing more, so that each wait ends.
    fn reserve(&mut self, now: Instant) -> bool {
        let limits = self.shared.limits.clone();
        if let Some(host) = self.shared.host_connections.clone()
            && !self.waiters.host_held
        {
            if !self.waiters.host.take() && !host.try_reserve() {
                self.refused(now, Refuser::Host);
                return false;
            }
            self.waiters.host_held = true;
            self.waiters.host_queued = false;
        }
        let exception = self.conns.is_empty() && limits.connection_per_host();
        if self.waiters.cluster_held || self.has_session_unit() {
        } else if self.waiters.cluster.take() || limits.connections.try_reserve() {
            (self.waiters.cluster_queued, self.waiters.cluster_held) = (false, true);
        } else if exception {
            self.shared.stats.upstream_cx_overflow().inc();
            limits.connections.force();
            self.waiters.cluster_held = true;
        } else {
            self.refused(now, Refuser::Cluster);
            return false;
        }
        if !self.waiters.connecting.take() && !limits.connecting.try_reserve() {
            self.refused(now, Refuser::Connecting);
            return false;
        }
        self.waiters.connecting_queued = false;
        if !std::mem::take(&mut self.waiters.cluster_held) {
            self.take_session_unit();
        }
        self.waiters.host_held = false;
        true
    }

    fn refused(&mut self, now: Instant, by: Refuser) {
        let stats = &self.shared.stats;
        match by {
            Refuser::Host => self.waiters.host_queued = true,
            Refuser::Cluster => self.waiters.cluster_queued = true,
            Refuser::Connecting => self.waiters.connecting_queued = true,
        }
        match by {
            Refuser::Host | Refuser::Cluster => stats.upstream_cx_overflow().inc(),
            Refuser::Connecting => stats.upstream_cx_connecting_overflow().inc(),
        }
        self.update_claims(now);
    }

    /// Keeps the places in the limits' queues true to what waits here.
    pub(super) fn update_claims(&mut self, now: Instant) {
        let uncovered = self.pending.len() as u64 > self.connecting_capacity;
        let claim = uncovered
            .then(|| self.pending.oldest())
            .flatten()
            .map(|since| Claim { since, starving: self.conns.is_empty() });
        let limits = self.shared.limits.clone();
        let host = self.shared.host_connections.clone();
        match claim {
            Some(claim) => {
                if self.waiters.cluster_queued && !self.waiters.cluster.is_granted() {
                    limits.connections.wait(&self.waiters.cluster, claim);
                }
                if let Some(host) = host
                    && self.waiters.host_queued
                    && !self.waiters.host.is_granted()
                {
                    host.wait(&self.waiters.host, claim);
                }
                if self.waiters.connecting_queued && !self.waiters.connecting.is_granted() {
                    // Nobody can give up what others are establishing.
                    let claim = Claim { starving: false, ..claim };
                    limits.connecting.wait(&self.waiters.connecting, claim);
                }
                let starving = claim.starving && (self.waiters.cluster_queued || self.waiters.host_queued);
                if starving && !self.waiters.asked_to_reclaim && !self.waiters.is_granted() {
                    self.waiters.asked_to_reclaim = true;
                    self.events.push_back(Event::Reclaim);
                }
            }
            None => self.leave_queues(),
        }
        if self.waiters.is_granted() {
            self.use_grant(now);
        }
    }

    /// A grant that came while we looked: used at once, so that none is held by a pool that sleeps.
    fn use_grant(&mut self, now: Instant) {
        if self.pending.len() as u64 > self.connecting_capacity {
            self.open_connections(now);
        }
    }

    fn leave_queues(&mut self) {
        self.waiters.asked_to_reclaim = false;
        if self.waiters.cluster_queued {
            self.waiters.cluster_queued = false;
            self.shared.limits.connections.leave(&self.waiters.cluster);
        }
        if self.waiters.connecting_queued {
            self.waiters.connecting_queued = false;
            self.shared.limits.connecting.leave(&self.waiters.connecting);
        }
        if std::mem::take(&mut self.waiters.cluster_held) {
            self.shared.limits.connections.release();
        }
        if let Some(host) = &self.shared.host_connections {
            if self.waiters.host_queued {
                self.waiters.host_queued = false;
                host.leave(&self.waiters.host);
            }
            if std::mem::take(&mut self.waiters.host_held) {
                host.release();
            }
        }
    }

    /// Whether a pool without any connection waits for a place that one of ours holds, and has waited
    /// since before `since`.
    #[inline]
    pub(super) fn must_yield(&self, since: Option<Instant>) -> bool {
        self.shared.limits.connections.starving_since_before(since)
            || self.shared.host_connections.as_ref().is_some_and(|host| host.starving_since_before(since))
    }

    /// Whether a pool of the same host, on another worker, has no connection because of the host's limit.
    pub fn host_starves(&self) -> bool {
        self.shared.host_connections.as_ref().is_some_and(|host| host.starving_since_before(None))
    }

    /// Gives places back; for the pool's end.
    pub(super) fn abandon(&mut self) {
        self.leave_queues();
        self.leave_tally();
        // Nobody will carry out what is left.
        while self.poll_event().is_some() {}
        if let (Some(_), Some(learned)) = (self.probe.take(), &self.shared.idle_limit) {
            learned.probe_lost(Instant::now());
        }
        let Shared { limits, host_connections, stats, host, .. } = &self.shared;
        for _ in 0..self.conns.len() {
            stats.upstream_cx_active().dec();
            stats.upstream_cx_destroy().inc();
            stats.upstream_cx_destroy_local().inc();
            stats.upstream_cx_close_reason().of(CloseReason::Drained).inc();
            host.dec(HostStat::CxActive);
            limits.connections.release();
            if let Some(limit) = host_connections {
                limit.release();
            }
        }
        stats.upstream_cx_idle().sub(self.conns.iter().filter(|(_, conn)| conn.idle).count() as i64);
        stats.upstream_rq_active().sub(self.active as i64);
        stats.upstream_rq_pending_active().sub(self.pending.len() as i64);
        (0..self.active).for_each(|_| host.dec(HostStat::RqActive));
        (0..self.pending.len()).for_each(|_| host.dec(HostStat::RqPendingActive));
        (0..self.active).for_each(|_| limits.requests.release());
        (0..self.pending.len()).for_each(|_| limits.pending.release());
        (0..self.connecting).for_each(|_| limits.connecting.release());
        (0..self.session_units).for_each(|_| limits.connections.release());
        if self.holds_pool_permit {
            limits.pools.release();
        }
    }
}

enum Refuser {
    Host,
    Cluster,
    Connecting,
}
