//! What is counted for each host: the numbers of the admin page `/clusters`.
//!
//! Sharded by worker, like every statistic: a worker adds to its own cells only. 10,000 unused hosts cost a
//! pointer per worker each, and one for all.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use tidegate_stats::worker_index;
use tidegate_types::CloseReason;

use crate::report::LastCloses;

/// A host's numbers, all workers together.
#[derive(Debug)]
pub struct HostStats {
    shards: Box<[OnceLock<Arc<Cells>>]>,
    closes: Arc<LastCloses>,
}

/// One worker's cells, in cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cells([AtomicU64; HostStat::COUNT]);

/// A number of a host, under its name in `/clusters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostStat {
    /// `cx_total`.
    CxTotal,
    /// `cx_active`.
    CxActive,
    /// `cx_connect_fail`.
    CxConnectFail,
    /// `rq_total`: attempts attached to a connection.
    RqTotal,
    /// `rq_active`.
    RqActive,
    /// `rq_success`: responses other than 5xx.
    RqSuccess,
    /// `rq_error`: 5xx, resets, connect failures, timeouts of the router before the head.
    RqError,
    /// `rq_timeout`.
    RqTimeout,
    /// `rq_pending_active`.
    RqPendingActive,
}

impl HostStat {
    const COUNT: usize = 9;
}

impl HostStats {
    /// Numbers for `workers` worker threads and the main thread.
    pub fn new(workers: usize) -> Self {
        Self { shards: (0..=workers).map(|_| OnceLock::new()).collect(), closes: Arc::default() }
    }

    /// The calling worker's handle.
    pub fn writer(&self) -> HostCounters {
        let (index, closes) = (worker_index(), self.closes.clone());
        match self.shards.get(index) {
            Some(slot) if index > 0 => {
                HostCounters { cells: slot.get_or_init(Arc::default).clone(), closes, alone: true }
            }
            // Threads without a number share the first shard (tests, the main thread).
            _ => {
                let cells = self.shards.first().map(|slot| slot.get_or_init(Arc::default).clone());
                HostCounters { cells: cells.unwrap_or_default(), closes, alone: false }
            }
        }
    }

    /// Why the last connections to it closed, on whichever worker; outlives its pools.
    pub fn last_closes(&self) -> &LastCloses {
        &self.closes
    }

    /// Sum over all workers.
    pub fn value(&self, stat: HostStat) -> u64 {
        let cells = self.shards.iter().filter_map(OnceLock::get);
        // Active counts may fall on another worker than they rose on: wrapping makes the sum right.
        let sum = cells.fold(0_u64, |sum, cells| sum.wrapping_add(cells.0[stat as usize].load(Relaxed)));
        if (sum as i64) < 0 { 0 } else { sum }
    }
}

/// One worker's handle on a host's numbers.
#[derive(Clone, Debug)]
pub struct HostCounters {
    cells: Arc<Cells>,
    closes: Arc<LastCloses>,
    alone: bool,
}

impl HostCounters {
    /// Numbers of no host, for tests.
    pub fn detached() -> Self {
        Self { cells: Arc::default(), closes: Arc::default(), alone: false }
    }

    /// Adds 1.
    #[inline]
    pub fn inc(&self, stat: HostStat) {
        self.add(stat, 1);
    }

    /// Subtracts 1.
    #[inline]
    pub fn dec(&self, stat: HostStat) {
        self.add(stat, u64::MAX);
    }

    /// A connection closed.
    pub(crate) fn closed(&self, reason: CloseReason) {
        self.closes.add(reason);
    }

    /// This worker's part.
    pub fn value(&self, stat: HostStat) -> u64 {
        self.cells.0[stat as usize].load(Relaxed)
    }

    #[inline]
    fn add(&self, stat: HostStat, n: u64) {
        let cell = &self.cells.0[stat as usize];
        if self.alone {
            cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
        } else {
            cell.fetch_add(n, Relaxed);
        }
    }
}
