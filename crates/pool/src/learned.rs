//! When a host closes connections that idle, as far as it told or was seen to: [`IdleLimit`].
//!
//! A request that is sent just as the host closes is lost, so pools stop reusing a connection, and close it, a
//! round trip and some jitter before the host would. The host's limit is the smaller one of:
//!
//! - what it announced last (`Keep-Alive: timeout=N`),
//! - the idle age at which it closed a connection, or at which a request met a closed one. One close is enough. It
//!   does not count if a connection that had idled twice as long was still open, or ended in the same second: then
//!   the host restarts, or sheds load.
//!
//! A host may change its mind, and a close may have had another reason. So a connection that reaches the limit is
//! now and then kept as a *probe*: no request gets it, and its end is awaited. An end at the limit confirms it, and
//! the next probe comes twice as late. A probe that lives twice as long as the limit doubles it, and again, until
//! the host closes it or the configured timeout ends it, with which nothing is left of what was learned.
//!
//! One per host, shared by workers and outliving pools. No I/O, no clock: the machine tells the time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub struct IdleLimit {
    /// The limit less its margin, in µs; [`NONE`]: nothing is known. Read for each stream.
    usable: AtomicU64,
    /// The announced limit in µs, so that hearing it again costs a look; [`NONE`]: none.
    announced: AtomicU64,
    /// The shortest exchange in µs: a round trip is not longer.
    exchange: AtomicU64,
    evidence: Mutex<Evidence>,
}

#[derive(Debug)]
struct Evidence {
    /// As the host closed.
    seen: Option<Duration>,
    /// The last closes of idle connections: when, and the highest age among them.
    last_close: Option<(Instant, Duration)>,
    /// Time to connect, smoothed: a round trip, or more with a handshake.
    connect: Option<Duration>,
    probing: bool,
    /// When the next probe may begin.
    next_probe: Option<Instant>,
    pause: Duration,
}

/// No number of µs.
const NONE: u64 = u64::MAX;

/// Between probes, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Closes that belong together.
const BURST: Duration = Duration::from_secs(1);

/// Below this, timers and schedulers decide.
const LEAST_MARGIN: Duration = Duration::from_millis(1);

impl Default for IdleLimit {
    fn default() -> Self {
        Self {
            usable: AtomicU64::new(NONE),
            announced: AtomicU64::new(NONE),
            exchange: AtomicU64::new(NONE),
            evidence: Mutex::new(Evidence {
                seen: None,
                last_close: None,
                connect: None,
                probing: false,
                next_probe: None,
                pause: FIRST_PAUSE,
            }),
        }
    }
}

impl IdleLimit {
    /// How long a connection may idle and still be used, jitter aside; `None`: nothing was learned.
    #[inline]
    pub fn usable(&self) -> Option<Duration> {
        match self.usable.load(Relaxed) {
            NONE => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// The host's own limit, as far as known.
    pub fn learned(&self) -> Option<Duration> {
        self.limit(&self.evidence())
    }

    /// The host announced that it closes connections that idle so long. Zero says nothing.
    #[inline]
    pub fn announced(&self, limit: Duration) {
        let us = micros(limit);
        if us > 0 && self.announced.load(Relaxed) != us {
            self.announced.store(us, Relaxed);
            self.publish(&self.evidence());
        }
    }

    /// A connection was made in that time, handshakes included.
    pub fn connected(&self, took: Duration) {
        let mut evidence = self.evidence();
        evidence.connect = Some(evidence.connect.map_or(took, |before| (before * 7 + took) / 8));
        self.publish(&evidence);
    }

    /// An exchange that had its connection for itself took so long.
    #[inline]
    pub fn exchanged(&self, took: Duration) {
        let us = micros(took);
        if us < self.exchange.load(Relaxed) {
            self.exchange.store(us, Relaxed);
            self.publish(&self.evidence());
        }
    }

    /// The host closed a connection that had idled for `age`, or a stream that came then met a closed one.
    /// `eldest` is the age of the connection that idles longest beside it.
    pub fn closed(&self, now: Instant, age: Duration, eldest: Option<Duration>) {
        let mut evidence = self.evidence();
        let burst = evidence.last_close.filter(|(at, _)| now.saturating_duration_since(*at) < BURST);
        let highest = burst.map_or(age, |(_, highest)| highest.max(age));
        evidence.last_close = Some((now, highest));
        if eldest.is_some_and(|eldest| eldest >= age * 2) || highest > age * 2 {
            return;
        }
        match evidence.seen {
            Some(seen) if age >= seen => return,
            // So surprising that it is looked into at once.
            Some(seen) if age < seen / 2 => evidence.next_probe = Some(now),
            // A limit that was raised too far.
            Some(_) => {
                evidence.pause = (evidence.pause * 2).min(LONGEST_PAUSE);
                evidence.next_probe = Some(now + evidence.pause);
            }
            None => evidence.next_probe = Some(now),
        }
        evidence.seen = Some(age);
        self.publish(&evidence);
    }

    /// Whether a stream that took a connection of that idle age met a closed one: it ended so soon that the
    /// host cannot have looked at it.
    pub fn is_stale(&self, took: Duration) -> bool {
        let round_trip = self.round_trip(&self.evidence());
        took <= round_trip + round_trip / 2 + LEAST_MARGIN
    }

    /// Whether a connection that reached the limit shall be kept as a probe, which ends with one of
    /// [`IdleLimit::probe_closed`], [`IdleLimit::probe_lost`].
    pub fn begin_probe(&self, now: Instant) -> bool {
        let mut evidence = self.evidence();
        // Nothing was seen: the limit is the host's own word, and doubted rarely.
        if evidence.next_probe.is_none() && self.announced.load(Relaxed) != NONE {
            evidence.next_probe = Some(now + LONGEST_PAUSE);
        }
        let due = evidence.next_probe.is_none_or(|due| due <= now);
        let begins = due && !evidence.probing;
        evidence.probing |= begins;
        begins
    }

    /// The host closed the probe at this age.
    pub fn probe_closed(&self, now: Instant, age: Duration) {
        let mut evidence = self.evidence();
        evidence.probing = false;
        evidence.last_close = Some((now, age));
        let confirmed = self.limit(&evidence).is_none_or(|limit| age <= limit + limit / 4);
        if !confirmed {
            self.announced.store(NONE, Relaxed);
        }
        evidence.pause = (evidence.pause * 2).min(LONGEST_PAUSE);
        if !confirmed || evidence.seen.is_none_or(|seen| age < seen) {
            evidence.seen = Some(age);
        }
        evidence.next_probe = Some(now + evidence.pause);
        self.publish(&evidence);
    }

    /// The probe lives at this age: twice the limit or more doubles it.
    pub fn probe_lives(&self, age: Duration) {
        let mut evidence = self.evidence();
        if self.limit(&evidence).is_some_and(|limit| age >= limit * 2) {
            self.announced.store(NONE, Relaxed);
            evidence.seen = Some(age);
            self.publish(&evidence);
        }
    }

    /// The probe reached the configured timeout: the host has no limit that would matter.
    pub fn probe_outlived(&self) {
        let mut evidence = self.evidence();
        self.announced.store(NONE, Relaxed);
        (evidence.seen, evidence.probing, evidence.next_probe) = (None, false, None);
        evidence.pause = FIRST_PAUSE;
        self.publish(&evidence);
    }

    /// The probe ended for another reason: somebody needed its place.
    pub fn probe_lost(&self, now: Instant) {
        let mut evidence = self.evidence();
        evidence.probing = false;
        evidence.next_probe = Some(now + evidence.pause);
    }

    fn limit(&self, evidence: &Evidence) -> Option<Duration> {
        let announced = Some(self.announced.load(Relaxed)).filter(|us| *us != NONE);
        let announced = announced.map(Duration::from_micros);
        [announced, evidence.seen].into_iter().flatten().min()
    }

    /// A good guess, rather too long.
    fn round_trip(&self, evidence: &Evidence) -> Duration {
        let exchange = Some(self.exchange.load(Relaxed)).filter(|us| *us != NONE);
        exchange.map(Duration::from_micros).max(evidence.connect).unwrap_or_default()
    }

    fn publish(&self, evidence: &Evidence) {
        let usable = self.limit(evidence).map(|limit| {
            // A slow service must not look like a far one.
            let margin = self.round_trip(evidence).min(limit / 4).max(LEAST_MARGIN);
            micros(limit.saturating_sub(margin))
        });
        self.usable.store(usable.unwrap_or(NONE), Relaxed);
    }

    /// Ignores poison: what is inside is valid after any panic. Never taken on the way of a stream that finds a
    /// connection.
    fn evidence(&self) -> MutexGuard<'_, Evidence> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(NONE - 1).min(NONE - 1)
}

#[cfg(test)]
mod tests;
