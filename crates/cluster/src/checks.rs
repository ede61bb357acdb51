//! What active health checks know of a host, beside whether it fails ([`crate::Failing::ActiveCheck`]).

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Marks that a host carries.
#[derive(Debug, Default)]
pub struct Checks(AtomicU8);

/// Something that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mark {
    /// It said that it is degraded (`x-envoy-degraded`).
    Degraded = 1,
    /// It is new, was not checked yet, and does not count until then (`ignore_new_hosts_until_first_hc`).
    Pending = 2,
    /// It said itself that it is not to be used (`x-envoy-immediate-health-check-fail`), and does not count.
    Excluded = 4,
    /// It fails, and its last check took too long.
    TimedOut = 8,
    /// It is known to its cluster: what a new host begins with was set.
    Met = 16,
    /// Its response to a request said that it fails; the checks have still to take note.
    Told = 32,
}

impl Checks {
    /// Whether it carries the mark.
    #[inline]
    pub fn has(&self, mark: Mark) -> bool {
        self.0.load(Relaxed) & mark as u8 != 0
    }

    /// Gives it the mark, or takes it away; whether it had it before.
    pub fn set(&self, mark: Mark, on: bool) -> bool {
        let old = match on {
            true => self.0.fetch_or(mark as u8, Relaxed),
            false => self.0.fetch_and(!(mark as u8), Relaxed),
        };
        old & mark as u8 != 0
    }

    /// Takes away what checks found.
    pub fn clear(&self) {
        self.0.store(Mark::Met as u8, Relaxed);
    }

    /// Whether the host does not count among those that its priority has: not for what the priority can take, and
    /// not for panic (`membership_excluded`).
    #[inline]
    pub fn is_excluded(&self) -> bool {
        self.0.load(Relaxed) & (Mark::Pending as u8 | Mark::Excluded as u8) != 0
    }
}
