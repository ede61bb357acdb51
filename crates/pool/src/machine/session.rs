//! What is different when streams are TCP sessions: see [`Carries::Sessions`].
//!
//! A session brings its unit of `max_connections` along when it begins to wait, so that whether it is refused
//! is known at once, and the limit is never exceeded by those that wait.

use tidegate_types::CloseReason;
use tokio::time::Instant;

use super::{Carries, ConnKey, Machine, State};

impl Machine {
    /// Takes the unit for a session that is about to wait. True for requests, which wait without one.
    pub(super) fn reserve_for_session(&mut self) -> bool {
        if self.settings.carries == Carries::Requests {
            return true;
        }
        if !self.shared.limits.connections.try_reserve() {
            self.shared.stats.upstream_cx_overflow().inc();
            return false;
        }
        self.session_units += 1;
        true
    }

    /// Uses a unit that a session brought for the connection that is about to be opened.
    pub(super) fn take_session_unit(&mut self) -> bool {
        let any = self.session_units > 0;
        if any {
            self.session_units -= 1;
        }
        any
    }

    /// Gives units back that no waiting session will need.
    pub(super) fn return_units(&mut self) {
        let uncovered = (self.pending.len() as u64).saturating_sub(self.connecting_capacity);
        while self.session_units > uncovered {
            self.session_units -= 1;
            self.shared.limits.connections.release();
        }
    }

    /// A waiting session gave up: closes the attempts, the latest first, that none is left for.
    pub(super) fn close_excess(&mut self, now: Instant) {
        if self.settings.carries == Carries::Requests {
            return;
        }
        while self.connecting_capacity > self.pending.len() as u64 {
            let connecting =
                self.conns.iter().filter(|(_, conn)| matches!(conn.state, State::Connecting { .. }));
            let Some((latest, _)) = connecting.max_by_key(|(_, conn)| conn.created) else { return };
            self.close(now, ConnKey(latest), CloseReason::RequestReset);
        }
    }
}
