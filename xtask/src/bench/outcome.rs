//! What a run of requests brought. Whoever drives connections counts in an [`Outcome`]; it knows no sockets.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::load::Exchange;
use crate::failure::{Context, Failure};

/// What one run brought.
pub(super) struct Outcome {
    pub(super) good: u64,
    /// Answers that were not as expected, and requests whose connection broke.
    pub(super) bad: u64,
    /// Connections that had to be opened anew.
    pub(super) reconnects: u64,
    pub(super) elapsed: Duration,
    /// Latency in nanoseconds.
    pub(super) latency: Histogram<u64>,
}

impl Outcome {
    /// Of a run that has not begun.
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self { good: 0, bad: 0, reconnects: 0, elapsed: Duration::ZERO, latency: latency_histogram()? })
    }

    /// Counts a request that was answered at `now`, counted as its token is.
    pub(super) fn count(&mut self, exchange: Exchange, now: u64) {
        if exchange.is_good {
            self.good += 1;
            self.latency.saturating_record(now.saturating_sub(exchange.token));
        } else {
            self.bad += 1;
        }
    }

    /// The run is over. Fails when nothing was as expected, of which `complaint` says why.
    pub(super) fn end(mut self, elapsed: Duration, complaint: &str) -> Result<Self, Failure> {
        if self.good == 0 && self.bad > 0 {
            return Err(Failure(format!("all {} requests failed: {complaint}", self.bad)));
        }
        self.elapsed = elapsed;
        Ok(self)
    }

    /// Adds another run's requests and latencies to this one.
    pub(super) fn merge(&mut self, other: &Self) {
        self.good += other.good;
        self.bad += other.bad;
        self.reconnects += other.reconnects;
        self.elapsed += other.elapsed;
        merge(&mut self.latency, &other.latency);
    }
}

/// Adds `other`'s values to `histogram`. Both have the bounds of `latency_histogram`, so nothing can be out
/// of range; a value that were would be clamped.
pub(super) fn merge(histogram: &mut Histogram<u64>, other: &Histogram<u64>) {
    if histogram.add(other).is_err() {
        for value in other.iter_recorded() {
            histogram.saturating_record_n(value.value_iterated_to(), value.count_at_value());
        }
    }
}

/// A histogram for latencies from 1 us to 60 s in nanoseconds, three digits.
pub(super) fn latency_histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).context("making a histogram")
}
