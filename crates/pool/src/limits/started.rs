//! How many requests began lately, over all workers: what `retry_budget.budget_interval` is a share of.
//!
//! A ring of buckets, each stamped with the slice of time that it counts, so that nobody has to empty them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::time::Instant;

/// Requests begun, by slices of the interval. Nothing is allocated before the first: few clusters have an interval.
#[derive(Debug, Default)]
pub(super) struct Started(OnceLock<Box<Ring>>);

#[derive(Debug)]
struct Ring {
    /// Slices count from the first request.
    origin: Instant,
    /// Slice in the upper half, count in the lower.
    buckets: [AtomicU64; BUCKETS],
}

impl Started {
    /// A request begins.
    pub(super) fn note(&self, now: Instant, interval: Duration) {
        let ring = self.ring(now);
        let slice = ring.slice(now, interval);
        let bucket = &ring.buckets[(slice % BUCKETS as u64) as usize];
        let stamp = slice << COUNT_BITS;
        // Whoever is first in a slice starts its bucket over.
        let count = |old: u64| Some(if old >> COUNT_BITS == slice { old + 1 } else { stamp | 1 });
        let _ = bucket.fetch_update(SeqCst, SeqCst, count);
    }

    /// Requests that began within the interval, to a tenth of it.
    pub(super) fn count(&self, now: Instant, interval: Duration) -> u64 {
        let ring = self.ring(now);
        let slice = ring.slice(now, interval);
        let recent = |bucket: &AtomicU64| {
            let value = bucket.load(SeqCst);
            let age = slice.checked_sub(value >> COUNT_BITS);
            age.filter(|age| *age < BUCKETS as u64).map_or(0, |_| value & COUNT_MASK)
        };
        ring.buckets.iter().map(recent).sum()
    }

    fn ring(&self, now: Instant) -> &Ring {
        self.0.get_or_init(|| Box::new(Ring { origin: now, buckets: Default::default() }))
    }
}

impl Ring {
    /// Never 0, so that an empty bucket belongs to none for as long as it matters.
    fn slice(&self, now: Instant, interval: Duration) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        let width = (interval / BUCKETS as u32).max(Duration::from_millis(1));
        // 32 bits of slices of a millisecond are 49 days; the ring then begins again.
        ((since.as_millis() / width.as_millis().max(1)) as u64 + BUCKETS as u64) & COUNT_MASK
    }
}

const BUCKETS: usize = 10;
const COUNT_BITS: u32 = 32;
const COUNT_MASK: u64 = u32::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_count_for_the_interval_and_no_longer() {
        let (started, start) = (Started::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(started.count(start, second), 0);
        for tenth in 0..10 {
            started.note(start + tenth * second / 10, second);
        }
        assert_eq!(started.count(start + second * 9 / 10, second), 10);
        assert_eq!(started.count(start + second * 14 / 10, second), 5);
        assert_eq!(started.count(start + second * 20 / 10, second), 0);
        started.note(start + 20 * second, second);
        assert_eq!(started.count(start + 20 * second, second), 1);
    }
}
