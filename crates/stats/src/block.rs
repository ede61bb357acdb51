//! A block: all statistics of one scope, with one lazily allocated shard per worker.
//!
//! Blocks know names by position only: [`Kind`] is the static list shared by all blocks of a kind. A block
//! may also own *children*, blocks of a single statistic whose name came at run time (see `dynamic`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crate::cells::{Shard, Writers};
use crate::histogram::{Dense, Merged};
use crate::policy::{Accepts, Rejected};
use crate::scope::Scope;
use crate::store::StoreInner;
use crate::worker::worker_index;

/// The names of one kind of scope, in the order of their cells.
#[derive(Debug)]
pub struct Kind {
    /// Counter names, relative to the scope.
    pub counters: &'static [&'static str],
    /// Gauge names.
    pub gauges: &'static [&'static str],
    /// Histogram names.
    pub histograms: &'static [&'static str],
    /// Whether statistics that were never written are listed.
    pub listed: Listed,
}

impl Kind {
    /// Counters and gauges.
    fn cells(&self) -> usize {
        self.counters.len() + self.gauges.len()
    }
}

/// When a statistic of a kind appears in the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listed {
    /// From the start, with value 0.
    Always,
    /// From its first write on (response codes).
    OnceUsed,
}

/// The statistics of one scope. Made by a [`crate::Store`], which finds it again for the same scope and kind.
#[derive(Debug)]
pub struct Block {
    kind: &'static Kind,
    scope: Scope,
    /// Name of a child's only statistic; empty otherwise.
    name: Box<str>,
    /// Made at the first write: most of many clusters are never asked.
    shards: OnceLock<Box<[OnceLock<Shard>]>>,
    threads: u32,
    rare: OnceLock<Box<Rare>>,
    rejected: Rejected,
    store: Weak<StoreInner>,
}

/// What most blocks never have: there are many.
#[derive(Debug, Default)]
struct Rare {
    /// What a reset subtracts from each counter. The workers' cells are never written by others.
    base: OnceLock<Box<[AtomicU64]>>,
    merged: Mutex<Vec<Merged>>,
    children: Mutex<Vec<Arc<Block>>>,
}

impl Block {
    /// A block outside any store with shards for up to `shards` threads: it counts, but is never printed.
    pub fn detached(kind: &'static Kind, shards: usize) -> Arc<Self> {
        Arc::new(Self::build(kind, Scope::root(), "", shards, Weak::new(), None))
    }

    pub(crate) fn build(
        kind: &'static Kind,
        scope: Scope,
        name: &str,
        shards: usize,
        store: Weak<StoreInner>,
        accepts: Option<&Accepts>,
    ) -> Self {
        Self {
            rejected: Rejected::of(kind, &scope, name, accepts),
            kind,
            scope,
            name: name.into(),
            shards: OnceLock::new(),
            threads: u32::try_from(shards.max(1)).unwrap_or(u32::MAX),
            rare: OnceLock::new(),
            store,
        }
    }

    /// Called and not inlined, as the two below: an exchange counts in fifty places, whose copies of this would take
    /// the room of a tenth of its instructions. What is rare lies behind a call, so that they need to save no
    /// registers: a third of what they cost.
    #[inline(never)]
    pub(crate) fn add(&self, counter: usize, n: u64) {
        match self.workers_shard() {
            Some(shard) => shard.add(counter, n, Writers::One),
            None => self.add_slowly(counter, n),
        }
    }

    #[inline(never)]
    pub(crate) fn add_gauge(&self, gauge: usize, n: i64) {
        match self.workers_shard() {
            Some(shard) => shard.add_gauge(self.kind.counters.len() + gauge, n, Writers::One),
            None => self.add_gauge_slowly(gauge, n),
        }
    }

    #[inline]
    pub(crate) fn set_gauge(&self, gauge: usize, value: i64) {
        let (shard, _) = self.own_shard();
        shard.set_gauge(self.kind.counters.len() + gauge, value);
    }

    #[inline(never)]
    pub(crate) fn record(&self, histogram: usize, value: u64) {
        if self.rejected.has(self.kind.cells() + histogram) {
            return;
        }
        match self.workers_shard() {
            Some(shard) => shard.record(histogram, value, Writers::One),
            None => self.record_slowly(histogram, value),
        }
    }

    #[cold]
    #[inline(never)]
    fn add_slowly(&self, counter: usize, n: u64) {
        let (shard, writers) = self.own_shard();
        shard.add(counter, n, writers);
    }

    #[cold]
    #[inline(never)]
    fn add_gauge_slowly(&self, gauge: usize, n: i64) {
        let (shard, writers) = self.own_shard();
        shard.add_gauge(self.kind.counters.len() + gauge, n, writers);
    }

    #[cold]
    #[inline(never)]
    fn record_slowly(&self, histogram: usize, value: u64) {
        let (shard, writers) = self.own_shard();
        shard.record(histogram, value, writers);
    }

    /// Sum over the shards since the last reset.
    pub(crate) fn counter(&self, counter: usize) -> u64 {
        let base = self.rare.get().and_then(|rare| rare.base.get()?.get(counter));
        let base = base.map_or(0, |base| base.load(Relaxed));
        self.raw_counter(counter).wrapping_sub(base)
    }

    /// Sum over the shards since the start. Not zero means "used": Envoy's `usedonly` survives a reset.
    pub(crate) fn raw_counter(&self, counter: usize) -> u64 {
        self.written_shards().fold(0, |sum, s| sum.wrapping_add(s.counter(counter)))
    }

    /// Sum over the shards; `None` if no shard was ever written.
    pub(crate) fn gauge(&self, gauge: usize) -> Option<i64> {
        let cell = self.kind.counters.len() + gauge;
        self.written_shards().filter_map(|s| s.gauge(cell)).reduce(i64::wrapping_add)
    }

    /// Records of a histogram, those after the last flush included.
    pub(crate) fn histogram_records(&self, histogram: usize) -> u64 {
        self.written_shards().filter_map(|s| s.histogram(histogram)).map(|h| h.records()).sum()
    }

    /// The histogram as of the last flush; `None` if it had no value by then.
    pub(crate) fn merged(&self, histogram: usize) -> Option<Merged> {
        let merged = lock(&self.rare.get()?.merged);
        merged.get(histogram).filter(|m| m.cumulative.count() > 0).cloned()
    }

    /// Folds what was recorded since the last flush into the two printed views.
    pub(crate) fn flush(&self, scratch: &mut Dense) {
        if self.kind.histograms.is_empty() || self.written_shards().next().is_none() {
            return;
        }
        let mut merged = lock(&self.rare().merged);
        for index in 0..self.kind.histograms.len() {
            let records = self.histogram_records(index);
            if records == 0 {
                continue;
            }
            if merged.is_empty() {
                merged.resize_with(self.kind.histograms.len(), Merged::default);
            }
            let Some(view) = merged.get_mut(index) else { continue };
            if records == view.cumulative.count() {
                view.interval = Default::default();
                continue;
            }
            scratch.clear();
            for cells in self.written_shards().filter_map(|s| s.histogram(index)) {
                cells.add_to(scratch);
            }
            let cumulative = scratch.summary();
            view.interval = cumulative.since(&view.cumulative);
            view.cumulative = cumulative;
        }
    }

    /// Makes every counter read 0 from now on. Safe while workers write: their cells are left alone.
    pub(crate) fn reset_counters(&self) {
        if self.kind.counters.is_empty() || self.written_shards().next().is_none() {
            return;
        }
        let base =
            self.rare().base.get_or_init(|| self.kind.counters.iter().map(|_| AtomicU64::new(0)).collect());
        for (index, cell) in base.iter().enumerate() {
            cell.store(self.raw_counter(index), Relaxed);
        }
    }

    /// Whether the counter exists.
    pub(crate) fn has_counter(&self, counter: usize) -> bool {
        !self.rejected.has(counter)
    }

    /// Whether the gauge exists.
    pub(crate) fn has_gauge(&self, gauge: usize) -> bool {
        !self.rejected.has(self.kind.counters.len() + gauge)
    }

    /// Whether the histogram exists.
    pub(crate) fn has_histogram(&self, histogram: usize) -> bool {
        !self.rejected.has(self.kind.cells() + histogram)
    }

    pub(crate) fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// The scope of these statistics.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// A statistic's name relative to the scope, given its name in the kind.
    pub(crate) fn stat_name<'a>(&'a self, in_kind: &'static str) -> &'a str {
        if self.name.is_empty() { in_kind } else { &self.name }
    }

    /// The child for `name`, made if this is its first use.
    pub(crate) fn child(&self, kind: &'static Kind, name: &str) -> Arc<Block> {
        let mut children = lock(&self.rare().children);
        if let Some(child) = children.iter().find(|c| std::ptr::eq(c.kind, kind) && &*c.name == name) {
            return child.clone();
        }
        let store = self.store.upgrade();
        let accepts = store.as_ref().and_then(|store| store.accepts());
        let child = Self::build(kind, self.scope.clone(), name, self.threads as usize, Weak::new(), accepts);
        // One that is rejected lives as long as whoever asked for it, and nobody lists it.
        let listed = !child.rejected.has(0);
        let child = Arc::new(child);
        if listed {
            children.push(child.clone());
        }
        child
    }

    pub(crate) fn children(&self) -> Vec<Arc<Block>> {
        self.rare.get().map(|rare| lock(&rare.children).clone()).unwrap_or_default()
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    fn written_shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.get().into_iter().flatten().filter_map(OnceLock::get)
    }

    /// The shard that this worker has and nobody else writes, once it has been written.
    #[inline]
    fn workers_shard(&self) -> Option<&Shard> {
        match worker_index() {
            0 => None,
            index => self.shards.get()?.get(index)?.get(),
        }
    }

    #[inline]
    fn own_shard(&self) -> (&Shard, Writers) {
        let index = worker_index();
        let shards = match self.shards.get() {
            Some(shards) => shards,
            None => self.make_slots(),
        };
        match shards.get(index) {
            Some(slot) if index != 0 => (self.shard_in(slot), Writers::One),
            _ => (self.shard_in(&shards[0]), Writers::Many),
        }
    }

    #[cold]
    fn make_slots(&self) -> &[OnceLock<Shard>] {
        self.shards.get_or_init(|| (0..self.threads).map(|_| OnceLock::new()).collect())
    }

    #[inline]
    fn shard_in<'a>(&self, slot: &'a OnceLock<Shard>) -> &'a Shard {
        match slot.get() {
            Some(shard) => shard,
            None => self.allocate(slot),
        }
    }

    #[cold]
    fn allocate<'a>(&self, slot: &'a OnceLock<Shard>) -> &'a Shard {
        // What lies behind the last accepted one has no cell: a write to it finds none and is over.
        let (cells, all) = (self.kind.cells(), self.kind.cells() + self.kind.histograms.len());
        slot.get_or_init(|| Shard::new(self.rejected.cells(0, cells), self.rejected.cells(cells, all)))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade() {
            store.forget(self.kind, &self.scope);
        }
    }
}

/// Locks, ignoring poison: the data behind these locks is valid after any panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
