//! What must hold after every public entry, checked in debug builds.

use super::Machine;
#[cfg(debug_assertions)]
use super::{Carries, State};

impl Machine {
    /// Panics, in debug builds, if the machine contradicts itself.
    #[inline]
    pub fn check_invariants(&self) {
        #[cfg(debug_assertions)]
        self.check();
    }

    #[cfg(debug_assertions)]
    fn check(&self) {
        let mut listed = 0;
        for key in self.ready.oldest_first(&self.conns) {
            assert_eq!(self.conns[key.0].state, State::Ready, "listed as ready");
            listed += 1;
            assert!(listed <= self.conns.len(), "the ready list has a loop");
        }
        let (mut ready, mut ready_capacity, mut connecting, mut capacity, mut active) = (0, 0, 0, 0, 0);
        for (_, conn) in &self.conns {
            active += conn.active as usize;
            assert!(!conn.idle || conn.active == 0, "an idle connection has a stream");
            match conn.state {
                State::Connecting { .. } => {
                    connecting += 1;
                    capacity += conn.expected_capacity();
                    assert_eq!(conn.active, 0, "a connection under way has streams");
                }
                State::Ready => {
                    ready += 1;
                    ready_capacity += u64::from(conn.capacity());
                    assert!(conn.capacity() > 0, "a ready connection takes no stream");
                }
                State::Busy => assert!(
                    conn.active > 0 || conn.concurrency == 0 || self.draining.is_some(),
                    "a busy connection has no stream"
                ),
                State::Probing => assert_eq!(conn.active, 0, "a probe has streams"),
                State::Draining => assert!(conn.active > 0, "a drained connection was not closed"),
            }
        }
        assert_eq!(ready, listed, "ready connections and their list");
        assert_eq!(ready_capacity, self.ready.capacity(), "capacity of ready connections");
        let probes = self.conns.iter().filter(|(_, conn)| conn.state == State::Probing).map(|(key, _)| key);
        assert_eq!(probes.collect::<Vec<_>>(), Vec::from_iter(self.probe.map(|key| key.0)), "the probe");
        assert!(
            self.probe.is_none() || self.pending.len() as u64 <= capacity,
            "streams wait for the place of a probe"
        );
        assert_eq!(connecting, self.connecting, "connections under way");
        assert_eq!(capacity, self.connecting_capacity, "capacity under way");
        assert_eq!(active, self.active, "attached streams");
        let carried = capacity.min(self.pending.len() as u64);
        assert!(self.pending.attempted() as u64 <= carried, "streams rely on attempts that there are not");
        if self.settings.carries == Carries::Sessions {
            let uncovered = (self.pending.len() as u64).saturating_sub(capacity);
            assert_eq!(self.session_units, uncovered, "units of sessions that no attempt will carry");
        }
        if self.shared.tally.is_some() {
            assert_eq!(self.tallied, self.load(), "this pool's part of the tally");
        }
        assert!(
            listed == 0 || self.pending.len() as u64 <= capacity,
            "streams wait beside a ready connection, and no other is under way"
        );
        assert!(
            self.pending.is_empty() || !self.conns.is_empty() || self.waiters.any_queued(),
            "streams wait for nothing"
        );
        let needs = self.settings.carries == Carries::Requests && !self.is_empty();
        assert!(self.holds_pool_permit || !needs, "a pool without a permit");
    }
}
