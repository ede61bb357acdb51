//! Deadlines: one per machine, never late, sometimes early. Activity does not touch it; when it fires it
//! looks for what has really expired and finds the next.

use tidegate_types::{CloseReason, ResetReason};
use tokio::time::Instant;

use super::{ConnKey, Machine, State};
use crate::error::PoolError;

impl Machine {
    /// Fails attempts, closes idle connections and retires old ones whose time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.deadline = None;
        for key in self.keys() {
            self.expire(now, key);
        }
        for key in self.keys() {
            if let Some(deadline) = self.deadline_of(key) {
                self.arm(deadline);
            }
        }
        self.settle(now);
    }

    /// Makes sure that the driver comes back by `deadline`.
    #[inline]
    pub(super) fn arm(&mut self, deadline: Instant) {
        if self.deadline.is_none_or(|armed| deadline < armed) {
            self.deadline = Some(deadline);
        }
    }

    fn expire(&mut self, now: Instant, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key.0) else { return };
        if let State::Connecting { deadline } = conn.state {
            if deadline <= now {
                let reason = ResetReason::ConnectionTimeout;
                let transport = self.settings.timeout_text.map(Into::into);
                self.attempt_failed(now, key, PoolError::Connect { reason, transport });
            }
            return;
        }
        if conn.expires.is_some_and(|expires| expires <= now) {
            conn.expires = None;
            let idle = conn.active == 0;
            self.shared.stats.upstream_cx_max_duration_reached().inc();
            if idle {
                self.close(now, key, CloseReason::MaxDuration);
            } else {
                self.start_drain(key, CloseReason::MaxDuration);
                self.open_connections(now);
            }
            return;
        }
        if self.probe == Some(key) {
            if self.probe_deadline().is_some_and(|due| due <= now) {
                self.expire_probe(now, key);
            }
        } else if self.idle_deadline(key).is_some_and(|due| due <= now) {
            self.expire_idle(now, key);
        }
    }

    pub(super) fn idle_deadline(&self, key: ConnKey) -> Option<Instant> {
        let conn = self.conns.get(key.0).filter(|conn| conn.idle && conn.state != State::Probing)?;
        self.may_idle(key).map(|limit| conn.idle_since + limit)
    }

    fn deadline_of(&self, key: ConnKey) -> Option<Instant> {
        let conn = self.conns.get(key.0)?;
        if let State::Connecting { deadline } = conn.state {
            return Some(deadline);
        }
        let idle = if self.probe == Some(key) { self.probe_deadline() } else { self.idle_deadline(key) };
        [idle, conn.expires].into_iter().flatten().min()
    }
}
