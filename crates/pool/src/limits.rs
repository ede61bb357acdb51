//! Circuit breakers: limits of one cluster and priority, shared by all workers and never exceeded.
//!
//! A unit is reserved before it is used (compare-and-swap on a counter), so no race between workers can
//! exceed a limit by one. Envoy checks and counts in two steps, and lets every pool without a connection
//! open one (`"tidegate.compat.connection_per_host"` restores that exception). `max_connections: 0` is
//! exact as well: nothing ever connects, requests wait until they time out.
//!
//! [`Limits`] is the set for one priority, [`Limit`] one of them, [`Waiter`] a pool's place in the queue
//! for a unit that another pool, perhaps on another worker, gives back.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_stats::{OwnedGauge, Scope, Store};
use tokio::time::Instant;

use crate::stats::{BreakerStats, RemainingStats};

mod departures;
mod started;
mod waiting;

pub use departures::Departures;
use started::Started;
use waiting::Waiting;
pub use waiting::{Claim, Waiter};

/// The maxima of one priority (`circuit_breakers.thresholds`), after runtime overrides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Maxima {
    /// Connections in any state. Protects the upstream.
    pub connections: u64,
    /// Streams that wait for a connection. Protects this process's memory, and latency.
    pub pending: u64,
    /// Streams attached to a connection. Protects the upstream.
    pub requests: u64,
    /// Retries in flight. Stops a retry storm.
    pub retries: u64,
    /// `retry_budget`; replaces `retries`.
    pub retry_budget: Option<RetryBudget>,
    /// Pools with a connection or a waiting stream.
    pub pools: u64,
    /// Connections being established at once (`tidegate.connection_reuse.max_connecting`). Protects an upstream
    /// that comes back from everybody who waits for it.
    pub connecting: u64,
    /// `tidegate.compat.connection_per_host`: a pool without connections may open one beyond the limit.
    pub connection_per_host: bool,
    /// `track_remaining`.
    pub track_remaining: bool,
}

impl Default for Maxima {
    /// Envoy's defaults (`CircuitBreakers.Thresholds`).
    fn default() -> Self {
        Self {
            connections: 1024,
            pending: 1024,
            requests: 1024,
            retries: 3,
            retry_budget: None,
            pools: u64::MAX,
            connecting: u64::MAX,
            connection_per_host: false,
            track_remaining: false,
        }
    }
}

/// Retries as a share of the requests attached and waiting now, or of those that began lately.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Percent of those requests.
    pub percent: f64,
    /// So many retries are always allowed.
    pub min_concurrency: u64,
    /// `budget_interval`: the share is of the requests that began within it; `None`: of those now.
    pub interval: Option<Duration>,
}

/// The limits of one cluster and priority.
#[derive(Debug)]
pub struct Limits {
    /// `max_connections`.
    pub connections: Limit,
    /// `max_pending_requests`.
    pub pending: Limit,
    /// `max_requests`.
    pub requests: Limit,
    /// `max_retries`.
    pub retries: Limit,
    /// `max_connection_pools`.
    pub pools: Limit,
    /// `max_connecting`.
    pub connecting: Limit,
    /// Of connections.
    pub departures: Departures,
    connection_per_host: AtomicBool,
    retry_budget: Mutex<Option<RetryBudget>>,
    /// `budget_interval` in milliseconds, 0 for none: every request looks at it.
    budget_interval: AtomicU64,
    started: Started,
}

impl Limits {
    /// Limits whose gauges live under `scope` (`cluster.<name>.circuit_breakers.<priority>.`).
    pub fn new(store: &Store, scope: Scope, maxima: &Maxima) -> Self {
        let open = BreakerStats::new(store, scope.clone());
        let left = maxima.track_remaining.then(|| RemainingStats::new(store, scope));
        Self::counted_in(maxima, &open, left.as_ref())
    }

    /// Limits that no store prints, for tests.
    pub fn detached(maxima: &Maxima) -> Self {
        let left = maxima.track_remaining.then(RemainingStats::detached);
        Self::counted_in(maxima, &BreakerStats::detached(), left.as_ref())
    }

    /// Limits with these gauges; `left` where `track_remaining` asks for them.
    pub fn counted_in(maxima: &Maxima, open: &BreakerStats, left: Option<&RemainingStats>) -> Self {
        let limit = |max, open, left| Limit::new(max, Some(open), left);
        let limits = Self {
            connections: limit(
                maxima.connections,
                open.cx_open().owned(),
                left.map(|l| l.remaining_cx().owned()),
            ),
            pending: limit(
                maxima.pending,
                open.rq_pending_open().owned(),
                left.map(|l| l.remaining_pending().owned()),
            ),
            requests: limit(maxima.requests, open.rq_open().owned(), left.map(|l| l.remaining_rq().owned())),
            retries: limit(
                maxima.retries,
                open.rq_retry_open().owned(),
                left.map(|l| l.remaining_retries().owned()),
            ),
            pools: limit(
                maxima.pools,
                open.cx_pool_open().owned(),
                left.map(|l| l.remaining_cx_pools().owned()),
            ),
            connecting: Limit::new(maxima.connecting, None, None),
            departures: Departures::default(),
            connection_per_host: AtomicBool::new(maxima.connection_per_host),
            retry_budget: Mutex::new(maxima.retry_budget),
            budget_interval: AtomicU64::new(interval_ms(maxima)),
            started: Started::default(),
        };
        limits.note_budget(maxima);
        limits
    }

    /// Changes the maxima (reload, runtime). What is in use stays in use; a raised limit serves its queue.
    pub fn set_maxima(&self, maxima: &Maxima) {
        self.connections.set_max(maxima.connections);
        self.pending.set_max(maxima.pending);
        self.requests.set_max(maxima.requests);
        self.retries.set_max(maxima.retries);
        self.pools.set_max(maxima.pools);
        self.connecting.set_max(maxima.connecting);
        self.connection_per_host.store(maxima.connection_per_host, SeqCst);
        self.budget_interval.store(interval_ms(maxima), SeqCst);
        *self.budget() = maxima.retry_budget;
        self.note_budget(maxima);
    }

    /// With a budget the limit on retries moves with the requests: Envoy says 0 of what is left of it.
    fn note_budget(&self, maxima: &Maxima) {
        if maxima.retry_budget.is_some() {
            self.retries.count_remaining_of(0);
        }
    }

    /// Lets a retry start; `None` is `upstream_rq_retry_overflow`. To be held until the retry ends.
    pub fn reserve_retry(self: &Arc<Self>, now: Instant) -> Option<RetryPermit> {
        let budget = *self.budget();
        let taken = match budget {
            None => self.retries.try_reserve(),
            Some(budget) => {
                let requests = match budget.interval {
                    Some(interval) => self.started.count(now, interval),
                    None => self.requests.used() + self.pending.used(),
                };
                let share = (requests as f64 * budget.percent / 100.0) as u64;
                self.retries.try_reserve_below(share.max(budget.min_concurrency))
            }
        };
        taken.then(|| RetryPermit { limits: self.clone() })
    }

    /// A request, or another attempt at it, got a connection: it counts for `budget_interval`, if there is one.
    #[inline]
    pub fn note_request(&self, now: Instant) {
        let interval = self.budget_interval.load(Relaxed);
        if interval > 0 {
            self.started.note(now, Duration::from_millis(interval));
        }
    }

    fn budget(&self) -> MutexGuard<'_, Option<RetryBudget>> {
        // A copy is valid after any panic.
        self.retry_budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a pool without connections may exceed `connections` by one, as in Envoy.
    pub fn connection_per_host(&self) -> bool {
        self.connection_per_host.load(SeqCst)
    }
}

/// `budget_interval`, at least a millisecond if there is one.
fn interval_ms(maxima: &Maxima) -> u64 {
    let interval = maxima.retry_budget.and_then(|budget| budget.interval);
    interval.map_or(0, |interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1))
}

/// One limit: a counter that never passes its maximum.
#[derive(Debug)]
pub struct Limit {
    used: AtomicU64,
    max: AtomicU64,
    is_open: AtomicBool,
    open: Option<OwnedGauge>,
    /// Boxed, since it is rare: a cluster has twelve limits.
    remaining: Option<Box<Remaining>>,
    waiting: Waiting,
}

/// The gauge of what is left of a limit.
#[derive(Debug)]
struct Remaining {
    gauge: OwnedGauge,
    /// Of so many; the gauge is this less what is used, and printed as 0 below.
    of: AtomicU64,
}

impl Limit {
    /// A limit of `max` units with its gauges.
    pub fn new(max: u64, open: Option<OwnedGauge>, remaining: Option<OwnedGauge>) -> Self {
        if let Some(remaining) = &remaining {
            remaining.add(gauge_value(max));
        }
        let remaining = remaining.map(|gauge| Remaining { gauge, of: AtomicU64::new(max) });
        Self {
            used: AtomicU64::new(0),
            max: AtomicU64::new(max),
            is_open: AtomicBool::new(false),
            open,
            remaining: remaining.map(Box::new),
            waiting: Waiting::default(),
        }
    }

    /// Takes a unit if one is left and nobody waits for it. Undone by [`Limit::release`].
    #[inline]
    pub fn try_reserve(&self) -> bool {
        // Barging would let a steady newcomer starve a pool that waits.
        !self.waiting.any() && self.take()
    }

    /// Whether [`Limit::try_reserve`] would succeed now.
    pub fn has_room(&self) -> bool {
        !self.waiting.any() && self.used() < self.max()
    }

    /// Takes a unit if fewer than `max` are in use, whatever the configured maximum.
    pub fn try_reserve_below(&self, max: u64) -> bool {
        self.take_below(|| max)
    }

    /// Takes a unit beyond the maximum.
    pub fn force(&self) {
        self.used.fetch_add(1, SeqCst);
        self.took();
    }

    /// Gives a unit back: to the pool that has waited longest, if any.
    #[inline]
    pub fn release(&self) {
        let before = self.used.fetch_sub(1, SeqCst);
        debug_assert!(before > 0, "released a unit that nobody had");
        if let Some(remaining) = &self.remaining {
            remaining.gauge.inc();
        }
        if self.is_open.load(SeqCst) {
            self.refresh();
        }
        if self.waiting.any() {
            self.hand_out();
        }
    }

    /// Units in use.
    pub fn used(&self) -> u64 {
        self.used.load(SeqCst)
    }

    /// The maximum.
    pub fn max(&self) -> u64 {
        self.max.load(SeqCst)
    }

    /// Changes the maximum.
    pub fn set_max(&self, max: u64) {
        self.max.store(max, SeqCst);
        self.count_remaining_of(max);
        self.refresh();
        self.hand_out();
    }

    /// Lets the gauge of what is left count down from `max`.
    fn count_remaining_of(&self, max: u64) {
        if let Some(remaining) = &self.remaining {
            let before = remaining.of.swap(max, SeqCst);
            remaining.gauge.add(gauge_value(max).wrapping_sub(gauge_value(before)));
        }
    }

    /// Queues `waiter` for a unit, or updates its claim if it is queued; its waker is called once
    /// [`Waiter::take`] has something. May be served at once.
    pub fn wait(&self, waiter: &Arc<Waiter>, claim: Claim) {
        self.waiting.enter(waiter, claim);
        // A unit may have come back between the caller's failed try and the queue's growth: whoever
        // released it did not see us, so we look again.
        self.hand_out();
    }

    /// Leaves the queue, and passes on a unit that was handed out and not taken.
    pub fn leave(&self, waiter: &Arc<Waiter>) {
        self.waiting.leave(waiter);
        if waiter.take() {
            self.release();
        }
        self.hand_out();
    }

    /// Whether a pool that has no connection at all has waited since before `since`.
    #[inline]
    pub fn starving_since_before(&self, since: Option<Instant>) -> bool {
        self.waiting.any_starving() && self.waiting.starving_since_before(since)
    }

    fn take(&self) -> bool {
        self.take_below(|| self.max.load(SeqCst))
    }

    #[inline]
    fn take_below(&self, max: impl Fn() -> u64) -> bool {
        let mut used = self.used.load(SeqCst);
        loop {
            if used >= max() {
                return false;
            }
            match self.used.compare_exchange_weak(used, used + 1, SeqCst, SeqCst) {
                Ok(_) => break,
                Err(now) => used = now,
            }
        }
        self.took();
        true
    }

    fn took(&self) {
        if let Some(remaining) = &self.remaining {
            remaining.gauge.dec();
        }
        if self.used() >= self.max() {
            self.refresh();
        }
    }

    /// Serves the queue while units are left.
    #[cold]
    fn hand_out(&self) {
        while let Some(waiter) = self.waiting.serve(|| self.take()) {
            waiter.wake();
        }
    }

    /// Makes the gauge tell whether the limit is reached, whoever else is changing it.
    #[cold]
    fn refresh(&self) {
        loop {
            let open = self.used() >= self.max() && self.used() > 0;
            if self.is_open.swap(open, SeqCst) != open
                && let Some(gauge) = &self.open
            {
                gauge.add(if open { 1 } else { -1 });
            }
            // The counter may have moved between the look and the swap.
            if (self.used() >= self.max() && self.used() > 0) == open {
                break;
            }
        }
    }
}

/// A maximum as a gauge shows it: "unlimited" does not fit.
fn gauge_value(max: u64) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

/// A retry in flight.
#[derive(Debug)]
#[must_use = "the unit is given back when this is dropped"]
pub struct RetryPermit {
    limits: Arc<Limits>,
}

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.limits.retries.release();
    }
}

#[cfg(test)]
mod tests;
