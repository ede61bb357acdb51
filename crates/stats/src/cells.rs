//! One worker's cells of one scope: how a counter or gauge is written and read.
//!
//! A gauge cell keeps zero for "never written"; a written one holds `value + BIAS`. That makes `usedonly`
//! right for gauges that returned to 0, without a second store on the request path.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::histogram::HistogramCells;

/// Who may write a shard at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writers {
    /// A worker's own shard: plain load and store.
    One,
    /// Shard 0: the main thread and threads without a number.
    Many,
}

/// The cells that one worker writes: counters first, then gauges, and lazily the histograms.
#[derive(Debug)]
pub(crate) struct Shard {
    cells: Box<[AtomicU64]>,
    histograms: Box<[OnceLock<Box<HistogramCells>>]>,
}

impl Shard {
    pub(crate) fn new(cells: usize, histograms: usize) -> Self {
        Self {
            cells: (0..cells).map(|_| AtomicU64::new(0)).collect(),
            histograms: (0..histograms).map(|_| OnceLock::new()).collect(),
        }
    }

    #[inline]
    pub(crate) fn add(&self, cell: usize, n: u64, writers: Writers) {
        let Some(cell) = self.cells.get(cell) else { return };
        add(cell, n, writers);
    }

    #[inline]
    pub(crate) fn add_gauge(&self, cell: usize, n: i64, writers: Writers) {
        let Some(cell) = self.cells.get(cell) else { return };
        match writers {
            Writers::One => cell.store(biased(cell.load(Relaxed)).wrapping_add_signed(n), Relaxed),
            Writers::Many => {
                let _ = cell.fetch_update(Relaxed, Relaxed, |v| Some(biased(v).wrapping_add_signed(n)));
            }
        }
    }

    #[inline]
    pub(crate) fn set_gauge(&self, cell: usize, value: i64) {
        let Some(cell) = self.cells.get(cell) else { return };
        cell.store(BIAS.wrapping_add_signed(value), Relaxed);
    }

    /// Raw total of a counter cell.
    pub(crate) fn counter(&self, cell: usize) -> u64 {
        self.cells.get(cell).map_or(0, |c| c.load(Relaxed))
    }

    /// Value of a gauge cell; `None` if it was never written.
    pub(crate) fn gauge(&self, cell: usize) -> Option<i64> {
        let raw = self.cells.get(cell)?.load(Relaxed);
        (raw != 0).then(|| raw.wrapping_sub(BIAS) as i64)
    }

    /// The histogram's cells, allocated now if this is the first record.
    #[inline]
    pub(crate) fn record(&self, histogram: usize, value: u64, writers: Writers) {
        let Some(slot) = self.histograms.get(histogram) else { return };
        slot.get_or_init(Default::default).record(value, writers);
    }

    pub(crate) fn histogram(&self, histogram: usize) -> Option<&HistogramCells> {
        self.histograms.get(histogram)?.get().map(|h| &**h)
    }
}

/// Adds to a cell in the way that its writers allow.
#[inline]
pub(crate) fn add(cell: &AtomicU64, n: u64, writers: Writers) {
    match writers {
        Writers::One => cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed),
        Writers::Many => {
            cell.fetch_add(n, Relaxed);
        }
    }
}

#[inline]
fn biased(raw: u64) -> u64 {
    if raw == 0 { BIAS } else { raw }
}

/// Zero of a written gauge cell. A gauge of exactly `i64::MIN` would read as "never written".
const BIAS: u64 = 1 << 63;
