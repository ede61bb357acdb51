//! What is different when streams are TCP sessions: see [`Carries::Sessions`].
//!
//! A session brings its unit of `max_connections` along when it begins to wait, so that whether it is refused
//! is known at once, and the limit is never exceeded by those that wait. One that an attempt made ahead of demand
//! will carry needs none: the attempt has its own.

use tidegate_types::CloseReason;
use tokio::time::Instant;

use super::{Carries, Load, Machine, wants_connection};

impl Machine {
    /// Takes the unit for a session that is about to wait. True for requests, which wait without one.
    pub(super) fn reserve_for_session(&mut self) -> bool {
        if self.settings.carries == Carries::Requests || self.has_spare_attempt() {
            return true;
        }
        if !self.shared.limits.connections.try_reserve() {
            self.shared.stats.upstream_cx_overflow().inc();
            return false;
        }
        self.session_units += 1;
        true
    }

    /// Whether a session that came now would be refused: every unit is taken, and nothing here is left for it.
    pub fn wants_room(&self) -> bool {
        let connections = &self.shared.limits.connections;
        self.settings.carries == Carries::Sessions
            && self.ready.first().is_none()
            && !self.has_spare_attempt()
            && connections.used() >= connections.max()
    }

    fn has_spare_attempt(&self) -> bool {
        self.connecting_capacity > self.pending.len() as u64
    }

    /// Whether a session brought a unit for the connection that is about to be opened.
    pub(super) fn has_session_unit(&self) -> bool {
        self.session_units > 0
    }

    /// Uses it.
    pub(super) fn take_session_unit(&mut self) {
        self.session_units = self.session_units.saturating_sub(1);
    }

    /// Gives units back that no waiting session will need.
    pub(super) fn return_units(&mut self) {
        let uncovered = (self.pending.len() as u64).saturating_sub(self.connecting_capacity);
        while self.session_units > uncovered {
            self.session_units -= 1;
            self.shared.limits.connections.release();
        }
    }

    /// A waiting session gave up: closes the latest attempt if neither a session nor the preconnect ratio needs
    /// it (Envoy: `connectingConnectionIsExcess`).
    pub(super) fn close_excess(&mut self, now: Instant) {
        if self.settings.carries == Carries::Requests {
            return;
        }
        let Some((key, _)) = self.spare_attempt() else { return };
        let capacity = self.connecting_capacity - self.conns[key.0].expected_capacity();
        let without = Load { capacity, ..self.load() };
        if !wants_connection(without, self.settings.preconnect_ratio, 0) {
            self.close(now, key, CloseReason::RequestReset);
        }
    }
}
