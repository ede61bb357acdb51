//! Log-linear histograms: the cells that a worker writes and the summary that a reader prints.
//!
//! Values below 128 are kept exactly; above, each power of two is cut into 64 buckets, so that a bucket is at
//! most 1/64 of its value wide and an interpolated quantile errs by less than 1 %. One power of two is one
//! chunk of 512 bytes, allocated at its first value: latencies of a cluster usually stay within three or
//! four. Values above 2^38 (8.7 years in ms, 256 GiB) count as that.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cells::{Writers, add};

/// One worker's buckets. The bucket counters alone are the truth; `records` only tells a reader whether
/// anything happened since its last look.
#[derive(Debug)]
pub(crate) struct HistogramCells {
    chunks: [OnceLock<Box<Chunk>>; CHUNKS],
    records: AtomicU64,
    sum: AtomicU64,
}

type Chunk = [AtomicU64; SLOTS];

impl Default for HistogramCells {
    fn default() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
            records: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

impl HistogramCells {
    #[inline]
    pub(crate) fn record(&self, value: u64, writers: Writers) {
        let (chunk, slot) = bucket(value);
        if let Some(chunk) = self.chunks.get(chunk) {
            let slots = chunk.get_or_init(|| Box::new([const { AtomicU64::new(0) }; SLOTS]));
            if let Some(cell) = slots.get(slot) {
                add(cell, 1, writers);
            }
        }
        add(&self.sum, value, writers);
        add(&self.records, 1, writers);
    }

    pub(crate) fn records(&self) -> u64 {
        self.records.load(Relaxed)
    }

    pub(crate) fn add_to(&self, dense: &mut Dense) {
        dense.sum = dense.sum.wrapping_add(self.sum.load(Relaxed));
        for (base, chunk) in self.chunks.iter().enumerate() {
            let Some(chunk) = chunk.get() else { continue };
            let counts = dense.counts.iter_mut().skip(base * SLOTS);
            for (count, cell) in counts.zip(chunk.iter()) {
                *count += cell.load(Relaxed);
            }
        }
    }
}

/// Scratch space in which the shards of a histogram are summed.
pub(crate) struct Dense {
    counts: Box<[u64]>,
    sum: u64,
}

impl Dense {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; CHUNKS * SLOTS].into_boxed_slice(), sum: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.sum = 0;
    }

    pub(crate) fn summary(&self) -> Summary {
        let mut summary = Summary { sum: self.sum, ..Summary::default() };
        for (index, &count) in self.counts.iter().enumerate().filter(|(_, c)| **c != 0) {
            summary.buckets.push((index as u16, count));
            summary.count += count;
        }
        summary
    }
}

/// The distribution of the values recorded in a period: an interval between two flushes, or all time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Non-empty buckets in ascending order: index, count.
    buckets: Vec<(u16, u64)>,
    count: u64,
    sum: u64,
}

impl Summary {
    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Exact sum of the recorded values, in their unit (ms, bytes).
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// How many recorded values are at most `bound`; a value may be misplaced by its bucket's width (1.6 %).
    pub fn count_at_most(&self, bound: f64) -> u64 {
        self.buckets.iter().take_while(|(i, _)| low_end(*i) as f64 <= bound).map(|(_, c)| c).sum()
    }

    /// The cells that are not empty, in ascending order: low end, width, count. A cell of width 1 holds one value.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.buckets.iter().map(|&(index, count)| (low_end(index), width(index), count))
    }

    /// The value below which the share `q` (0..=1) of the records lies, in the values' unit; `None` if
    /// nothing was recorded. Exact below 128, within 1 % above.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let target = (q * self.count as f64).max(1.0);
        let mut below = 0;
        for &(index, count) in &self.buckets {
            let upto = below + count;
            if upto as f64 >= target {
                let share = (target - below as f64) / count as f64;
                return Some(low_end(index) as f64 + share * (width(index) - 1) as f64);
            }
            below = upto;
        }
        self.buckets.last().map(|&(i, _)| (low_end(i) + width(i) - 1) as f64)
    }

    /// What was recorded since `earlier`, an older summary of the same histogram.
    pub(crate) fn since(&self, earlier: &Summary) -> Summary {
        let mut interval = Summary { sum: self.sum.wrapping_sub(earlier.sum), ..Summary::default() };
        let mut old = earlier.buckets.iter().peekable();
        for &(index, count) in &self.buckets {
            while old.next_if(|(i, _)| *i < index).is_some() {}
            let before = old.next_if(|(i, _)| *i == index).map_or(0, |(_, c)| *c);
            let new = count.saturating_sub(before);
            if new > 0 {
                interval.buckets.push((index, new));
                interval.count += new;
            }
        }
        interval
    }
}

/// The two views of a histogram that the admin interface shows, as of the last flush.
#[derive(Clone, Debug, Default)]
pub(crate) struct Merged {
    pub(crate) interval: Summary,
    pub(crate) cumulative: Summary,
}

/// Chunk and slot of a value: chunk 0 is 0..64, chunk `c` is `2^(c+5)..2^(c+6)`.
#[inline]
fn bucket(value: u64) -> (usize, usize) {
    let value = value.min(MAX_VALUE);
    if value < SLOTS as u64 {
        return (0, value as usize);
    }
    let shift = value.ilog2() - SLOT_BITS;
    (shift as usize + 1, (value >> shift) as usize & (SLOTS - 1))
}

fn low_end(index: u16) -> u64 {
    let (chunk, slot) = (index as usize / SLOTS, (index as usize % SLOTS) as u64);
    if chunk == 0 { slot } else { (SLOTS as u64 + slot) << (chunk - 1) }
}

fn width(index: u16) -> u64 {
    1 << (index as usize / SLOTS).saturating_sub(1)
}

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const CHUNKS: usize = 33;
const MAX_VALUE: u64 = (1 << (CHUNKS + 5)) - 1;

#[cfg(test)]
mod tests;
