//! Connections opened ahead of demand: `preconnect_policy` (Envoy docs, `Cluster.PreconnectPolicy`).
//!
//! The arithmetic is Envoy's (`ConnPoolImplBase::shouldConnect`), floats of 32 bits included. What is ours: a
//! connection made ahead of demand takes a unit of a limit only if nobody waits for one, and gives it up, connected
//! or not, to a pool that has none. One that failed is not tried again before the next stream comes.

use std::cell::Cell;

use tokio::time::Instant;

use super::opening::MAX_OPENS;
use super::{ConnKey, Machine, State};

/// What pools carry, and could carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Streams that wait.
    pub pending: u64,
    /// Streams attached to a connection.
    pub active: u64,
    /// Streams that connections, ready and under way, can take beside those.
    pub capacity: u64,
}

/// The sum of several pools' [`Load`], kept by the machines.
#[derive(Debug, Default)]
pub struct Tally(Cell<Load>);

/// Whether `load`, and `anticipated` streams more, ask for another connection at this ratio.
pub fn wants_connection(load: Load, ratio: f32, anticipated: u64) -> bool {
    let streams = load.pending + load.active + anticipated;
    streams as f32 * ratio > (load.capacity + load.active) as f32
}

impl Tally {
    /// The sum now.
    pub fn load(&self) -> Load {
        self.0.get()
    }

    fn replace(&self, old: Load, new: Load) {
        let sum = self.0.get();
        self.0.set(Load {
            pending: sum.pending + new.pending - old.pending,
            active: sum.active + new.active - old.active,
            capacity: sum.capacity + new.capacity - old.capacity,
        });
    }
}

impl Machine {
    /// What this pool carries.
    #[inline]
    pub fn load(&self) -> Load {
        Load {
            pending: self.pending.len() as u64,
            active: self.active as u64,
            capacity: self.connecting_capacity + self.ready.capacity(),
        }
    }

    /// A stream is expected that the load balancer will send here, though it has not come
    /// (`predictive_preconnect_ratio`). Whether a connection was opened for it.
    pub fn handle_anticipated(&mut self, now: Instant, ratio: f32) -> bool {
        let wanted = self.draining.is_none() && wants_connection(self.load(), ratio, 1);
        let opens = wanted && self.hold_pool_permit() && self.open_spare(now);
        self.settle(now);
        opens
    }

    /// A stream came, and `opened` connections were opened for those that wait: opens what the ratio asks for
    /// beside them.
    #[inline]
    pub(super) fn preconnect(&mut self, now: Instant, opened: usize) {
        let ratio = self.settings.preconnect_ratio;
        if ratio > 1.0 && self.draining.is_none() {
            for _ in opened..MAX_OPENS {
                if !wants_connection(self.load(), ratio, 0) || !self.open_spare(now) {
                    break;
                }
            }
        }
    }

    /// Opens a connection for nobody, unless a limit is reached or somebody waits for its units.
    fn open_spare(&mut self, now: Instant) -> bool {
        // Those who wait here were refused just now: a spare one would be in their way.
        if self.pending.len() as u64 > self.connecting_capacity {
            return false;
        }
        let limits = &self.shared.limits;
        let host = self.shared.host_connections.as_ref();
        let reserved = host.is_none_or(|host| host.try_reserve());
        if reserved && limits.connections.try_reserve() {
            if limits.connecting.try_reserve() {
                self.open(now);
                return true;
            }
            limits.connections.release();
            if let Some(host) = host {
                host.release();
            }
            self.shared.stats.upstream_cx_connecting_overflow().inc();
            return false;
        }
        if reserved && let Some(host) = host {
            host.release();
        }
        self.shared.stats.upstream_cx_overflow().inc();
        false
    }

    /// The latest attempt that the waiting streams could do without.
    pub(super) fn spare_attempt(&self) -> Option<(ConnKey, Instant)> {
        let left =
            self.connecting_capacity.checked_sub(self.pending.len() as u64).filter(|left| *left > 0)?;
        let connecting = self.conns.iter().filter(|(_, conn)| {
            matches!(conn.state, State::Connecting { .. }) && conn.expected_capacity() <= left
        });
        let (latest, conn) = connecting.max_by_key(|(_, conn)| conn.created)?;
        Some((ConnKey(latest), conn.created))
    }

    /// Brings this pool's part of the cluster's tally up to date.
    #[inline]
    pub(super) fn tally(&mut self) {
        if let Some(tally) = &self.shared.tally {
            let load = self.load();
            tally.replace(self.tallied, load);
            self.tallied = load;
        }
    }

    /// The pool's end.
    pub(super) fn leave_tally(&mut self) {
        if let Some(tally) = &self.shared.tally {
            tally.replace(std::mem::take(&mut self.tallied), Load::default());
        }
    }
}
