//! Where a host is reached, and what is counted for it: the numbers of the admin page `/clusters`.
//!
//! Sharded by worker, like every statistic: a worker adds to its own cells only. 10,000 unused hosts cost a
//! pointer per worker each, and one for all.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tidegate_stats::worker_index;
use tidegate_types::{Address, CloseReason};

use crate::report::LastCloses;

/// Where a host is reached. New connections take the addresses of their time, existing ones stay.
#[derive(Debug)]
pub struct Addresses(ArcSwap<AddressList>);

#[derive(Debug)]
struct AddressList {
    primary: Arc<Address>,
    all: Arc<[Address]>,
}

impl Addresses {
    /// `all`, the primary one first.
    pub fn new(all: Arc<[Address]>) -> Self {
        Self(ArcSwap::from_pointee(AddressList::new(all)))
    }

    /// Replaces them; whether they differ.
    pub fn set(&self, all: Arc<[Address]>) -> bool {
        let differ = self.0.load().all != all;
        if differ {
            self.0.store(Arc::new(AddressList::new(all)));
        }
        differ
    }

    /// All, the primary one first.
    pub fn all(&self) -> Arc<[Address]> {
        self.0.load().all.clone()
    }

    /// The first.
    pub fn primary(&self) -> Arc<Address> {
        self.0.load().primary.clone()
    }
}

impl AddressList {
    fn new(all: Arc<[Address]>) -> Self {
        let nowhere = || Address::Unix(PathBuf::new());
        Self { primary: Arc::new(all.first().cloned().unwrap_or_else(nowhere)), all }
    }
}

/// A host's numbers, all workers together.
#[derive(Debug)]
pub struct HostStats {
    shards: Arc<[OnceLock<Arc<Cells>>]>,
    closes: Arc<LastCloses>,
    load: Option<Arc<HostLoad>>,
}

/// The requests that a host has in hand, of all workers, for load balancers that go by them at each choice: one
/// number instead of a cell for each worker.
#[derive(Debug, Default)]
pub struct HostLoad(AtomicU64);

impl HostLoad {
    /// How many.
    #[inline]
    pub fn active(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// `n` more have it in hand; for tests and benchmarks of load balancers.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
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
    /// Answers that outlier detection counted, and below those of them that were good.
    JudgedAnswers,
    /// See above.
    GoodAnswers,
    /// Connections and failures that outlier detection counted as its own side's, and below the good ones.
    JudgedLocal,
    /// See above.
    GoodLocal,
}

impl HostStat {
    const COUNT: usize = 13;
}

impl HostStats {
    /// Numbers for `workers` worker threads and the main thread.
    pub fn new(workers: usize) -> Self {
        Self { shards: (0..=workers).map(|_| OnceLock::new()).collect(), closes: Arc::default(), load: None }
    }

    /// The same numbers, with the load counted for all workers together, or not. Requests that began before are in
    /// no [`HostLoad`].
    pub fn counting_load(&self, wanted: bool) -> Self {
        let load = wanted.then(|| self.load.clone().unwrap_or_default());
        Self { shards: self.shards.clone(), closes: self.closes.clone(), load }
    }

    /// The load, where it is counted.
    pub fn load(&self) -> Option<&Arc<HostLoad>> {
        self.load.as_ref()
    }

    /// The calling worker's handle.
    pub fn writer(&self) -> HostCounters {
        let (index, closes, load) = (worker_index(), self.closes.clone(), self.load.clone());
        match self.shards.get(index) {
            Some(slot) if index > 0 => {
                HostCounters { cells: slot.get_or_init(Arc::default).clone(), closes, load, alone: true }
            }
            // Threads without a number share the first shard (tests, the main thread).
            _ => {
                let cells = self.shards.first().map(|slot| slot.get_or_init(Arc::default).clone());
                HostCounters { cells: cells.unwrap_or_default(), closes, load, alone: false }
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
    load: Option<Arc<HostLoad>>,
    alone: bool,
}

impl HostCounters {
    /// Numbers of no host, for tests.
    pub fn detached() -> Self {
        Self { cells: Arc::default(), closes: Arc::default(), load: None, alone: false }
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
        if stat == HostStat::RqActive
            && let Some(load) = &self.load
        {
            load.0.fetch_add(n, Relaxed);
        }
        let cell = &self.cells.0[stat as usize];
        if self.alone {
            cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
        } else {
            cell.fetch_add(n, Relaxed);
        }
    }
}
