//! How long a connection may idle: the configured timeout, or less where its host was learned to close sooner
//! ([`crate::learned`]). And which streams mind.

use std::time::Duration;

use tidegate_types::CloseReason;
use tokio::time::Instant;

use super::{Care, ConnKey, Machine, Shared, State};

/// The shortest time after which a probe is looked at: twice nothing would be nothing.
const PROBE_STEP: Duration = Duration::from_millis(1);

impl Machine {
    /// The ready connection that [`Machine::try_attach`] would use.
    #[inline]
    pub fn first_ready(&self, now: Instant, care: Care) -> Option<ConnKey> {
        // It lost its last stream later than the others: if it is too old, they are.
        self.ready.first().filter(|key| self.suits(now, *key, care))
    }

    #[inline]
    fn suits(&self, now: Instant, key: ConnKey, care: Care) -> bool {
        let Some(conn) = self.conns.get(key.0) else { return false };
        let limit = self.may_idle(key).filter(|_| conn.active == 0);
        let idled = now.saturating_duration_since(conn.idle_since);
        if limit.is_some_and(|limit| idled >= limit) {
            return false;
        }
        match care {
            Care::Any => true,
            Care::Fresh => limit.is_none_or(|limit| idled < limit / 2) || !self.has_room(),
            Care::New => conn.carried == 0 || !self.has_room(),
        }
    }

    /// Whether a stream that waits for a connection of its own would soon have one.
    fn has_room(&self) -> bool {
        let Shared { limits, host_connections, .. } = &self.shared;
        self.draining.is_none()
            && limits.pending.has_room()
            && limits.connections.has_room()
            && limits.connecting.has_room()
            && host_connections.as_ref().is_none_or(|host| host.has_room())
    }

    /// How long the connection may idle and still be used.
    #[inline]
    pub(super) fn may_idle(&self, key: ConnKey) -> Option<Duration> {
        let configured = self.settings.idle_timeout;
        let Some(learned) = self.shared.idle_limit.as_ref().and_then(|learned| learned.usable()) else {
            return configured;
        };
        let salt = self.conns.get(key.0).map_or(0, |conn| conn.salt);
        // Up to a sixteenth less, lest all close at once.
        let learned = learned - learned / 16 * u32::from(salt) / 256;
        Some(configured.map_or(learned, |configured| configured.min(learned)))
    }

    /// Streams that wanted a connection of their own, and will not get one, take what is ready.
    pub(super) fn make_do(&mut self, now: Instant) {
        while self.pending.len() as u64 > self.connecting_capacity
            && let Some(key) = self.ready.first()
        {
            if !self.suits(now, key, Care::Any) {
                self.close_idle(now, key);
                self.open_connections(now);
            } else if let Some(token) = self.pending.pop() {
                self.give(now, key, token);
            }
        }
    }

    /// Closes those that have idled too long, though the timer has not come yet.
    pub(super) fn close_spent(&mut self, now: Instant) {
        while let Some(key) = self.ready.last()
            && !self.suits(now, key, Care::Any)
        {
            self.expire_idle(now, key);
        }
    }

    /// A ready connection has idled for as long as it may. One may stay as a probe.
    pub(super) fn expire_idle(&mut self, now: Instant, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key.0) else { return };
        let idled = now.saturating_duration_since(conn.idle_since);
        let lasts = self.settings.idle_timeout.is_none_or(|timeout| idled < timeout);
        // Only what is not in anybody's way, and was in use: a server may have another limit before the first request.
        if lasts
            && conn.state == State::Ready
            && conn.carried > 0
            && self.pending.is_empty()
            && self.probe.is_none()
            && self.shared.idle_limit.as_ref().is_some_and(|learned| learned.begin_probe(now))
        {
            conn.state = State::Probing;
            self.ready.remove(&mut self.conns, key);
            self.probe = Some(key);
            if let Some(due) = self.probe_deadline() {
                self.arm(due);
            }
        } else {
            self.close_idle(now, key);
        }
    }

    fn close_idle(&mut self, now: Instant, key: ConnKey) {
        self.shared.stats.upstream_cx_idle_timeout().inc();
        self.close(now, key, CloseReason::IdleTimeout);
    }

    /// The probe has lived for a while: that changes the limit, or is its end.
    pub(super) fn expire_probe(&mut self, now: Instant, key: ConnKey) {
        let (Some(learned), Some(conn)) = (&self.shared.idle_limit, self.conns.get(key.0)) else { return };
        let idled = now.saturating_duration_since(conn.idle_since);
        if self.settings.idle_timeout.is_some_and(|timeout| idled >= timeout) {
            learned.probe_outlived();
            self.probe = None;
            self.close_idle(now, key);
        } else {
            learned.probe_lives(idled);
        }
    }

    /// When to look at the probe again.
    pub(super) fn probe_deadline(&self) -> Option<Instant> {
        let conn = self.conns.get(self.probe?.0)?;
        let doubled = self.shared.idle_limit.as_ref()?.learned().map(|limit| (limit * 2).max(PROBE_STEP));
        let at = [doubled, self.settings.idle_timeout].into_iter().flatten().min()?;
        Some(conn.idle_since + at)
    }

    /// A stream needs the probe's place. Whether there was one.
    pub(super) fn give_up_probe(&mut self, now: Instant) -> bool {
        let Some(key) = self.probe else { return false };
        self.close(now, key, CloseReason::Overflow);
        true
    }

    /// The connection is about to be closed: a probe among them says no more.
    pub(super) fn forget_probe(&mut self, now: Instant, key: ConnKey) {
        if self.probe == Some(key) {
            self.probe = None;
            if let Some(learned) = &self.shared.idle_limit {
                learned.probe_lost(now);
            }
        }
    }

    /// The peer closed a connection, or announced that: if it idled, that teaches.
    pub(super) fn learn_from_close(&mut self, now: Instant, key: ConnKey) {
        let (Some(learned), Some(conn)) = (&self.shared.idle_limit, self.conns.get(key.0)) else { return };
        if !conn.idle || conn.carried == 0 {
            return;
        }
        let age = now.saturating_duration_since(conn.idle_since);
        if self.probe == Some(key) {
            self.probe = None;
            learned.probe_closed(now, age);
        } else {
            learned.closed(now, age, self.eldest_but(now, key));
        }
        self.arm_idle();
    }

    /// The limit may have become lower than what the timer was set for. Pools on other workers see it when the next
    /// stream comes or leaves.
    pub(super) fn arm_idle(&mut self) {
        if let Some(due) = self.ready.last().and_then(|oldest| self.idle_deadline(oldest)) {
            self.arm(due);
        }
    }

    /// A stream found its connection closed: if that was so soon that it had been closed before, it teaches.
    pub(super) fn learn_from_stale(&mut self, now: Instant, key: ConnKey) {
        let (Some(learned), Some(conn)) = (&self.shared.idle_limit, self.conns.get(key.0)) else { return };
        let took = now.saturating_duration_since(conn.taken);
        if conn.carried > 1 && conn.active == 1 && !conn.idled.is_zero() && learned.is_stale(took) {
            learned.closed(now, conn.idled, self.eldest_but(now, key));
            self.arm_idle();
        }
    }

    /// An exchange ended whole: how long it took bounds the round trip.
    #[inline]
    pub(super) fn learn_from_exchange(&self, now: Instant, key: ConnKey) {
        if let (Some(learned), Some(conn)) = (&self.shared.idle_limit, self.conns.get(key.0))
            && conn.active == 1
        {
            learned.exchanged(now.saturating_duration_since(conn.taken));
        }
    }

    /// How long the host lets connections idle, as it announced in a response (`Keep-Alive: timeout=N`).
    #[inline]
    pub fn handle_idle_announced(&self, limit: Duration) {
        if let Some(learned) = &self.shared.idle_limit {
            learned.announced(limit);
        }
    }

    /// The age of the connection that idles longest, leaving one out.
    fn eldest_but(&self, now: Instant, key: ConnKey) -> Option<Duration> {
        let keys = self.probe.into_iter().chain(self.ready.oldest_first(&self.conns));
        let ages = keys.filter(|other| *other != key).filter_map(|other| {
            let conn = self.conns.get(other.0).filter(|conn| conn.idle)?;
            Some(now.saturating_duration_since(conn.idle_since))
        });
        // The list is in order but for connections that carry several streams, of which there are few.
        ages.take(8).max()
    }
}
