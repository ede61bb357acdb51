//! Handles through which statistics are written: transient views of a block, and owned ones to store.

use std::sync::Arc;

use crate::block::Block;
use crate::histogram::Summary;

macro_rules! handles {
    ($($(#[$doc:meta])* $view:ident $owned:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $view<'a> {
            block: &'a Arc<Block>,
            index: usize,
        }

        impl<'a> $view<'a> {
            #[doc(hidden)]
            #[inline]
            pub fn at(block: &'a Arc<Block>, index: usize) -> Self {
                Self { block, index }
            }

            /// A handle that can be stored.
            pub fn owned(self) -> $owned {
                $owned { block: self.block.clone(), index: self.index, parent: None }
            }
        }

        #[doc = concat!("A [`", stringify!($view), "`] to store: keeps its scope alive.")]
        #[derive(Clone, Debug)]
        pub struct $owned {
            block: Arc<Block>,
            index: usize,
            /// Of a dynamic statistic: the scope that lists it in the store.
            #[allow(dead_code)]
            parent: Option<Arc<Block>>,
        }

        impl $owned {
            pub(crate) fn child(parent: Arc<Block>, block: Arc<Block>) -> Self {
                Self { block, index: 0, parent: Some(parent) }
            }

            /// The same as a transient view.
            #[inline]
            pub fn view(&self) -> $view<'_> {
                $view { block: &self.block, index: self.index }
            }
        }
    )*};
}

handles! {
    /// A number that only grows.
    Counter OwnedCounter
    /// A number that goes up and down.
    Gauge OwnedGauge
    /// A distribution of values (ms, bytes, percent).
    Histogram OwnedHistogram
}

impl Counter<'_> {
    /// Adds 1.
    #[inline]
    pub fn inc(self) {
        self.add(1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(self, n: u64) {
        self.block.add(self.index, n);
    }

    /// Sum over all workers since the last reset.
    pub fn value(self) -> u64 {
        self.block.counter(self.index)
    }
}

impl OwnedCounter {
    /// Adds 1.
    #[inline]
    pub fn inc(&self) {
        self.view().inc();
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.view().add(n);
    }

    /// Sum over all workers since the last reset.
    pub fn value(&self) -> u64 {
        self.view().value()
    }
}

impl Gauge<'_> {
    /// Adds 1. May be undone on another worker.
    #[inline]
    pub fn inc(self) {
        self.add(1);
    }

    /// Subtracts 1.
    #[inline]
    pub fn dec(self) {
        self.add(-1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(self, n: i64) {
        self.block.add_gauge(self.index, n);
    }

    /// Subtracts `n`.
    #[inline]
    pub fn sub(self, n: i64) {
        self.add(n.wrapping_neg());
    }

    /// Sets the *caller's* part of the gauge, for values that one thread computes as a whole (mostly the main
    /// thread: `membership_total`). A gauge is either set, always by the same thread, or counted; set by two
    /// workers it shows the sum of both.
    #[inline]
    pub fn set(self, value: i64) {
        self.block.set_gauge(self.index, value);
    }

    /// Sum over all workers. May be negative for a moment, while one worker undoes what another counted;
    /// rendered as 0 then.
    pub fn value(self) -> i64 {
        self.block.gauge(self.index).unwrap_or(0)
    }

    /// Adds 1 until the guard is dropped.
    pub fn hold(self) -> GaugeHold {
        self.inc();
        GaugeHold { gauge: self.owned() }
    }
}

impl OwnedGauge {
    /// Adds 1. May be undone on another worker.
    #[inline]
    pub fn inc(&self) {
        self.view().inc();
    }

    /// Subtracts 1.
    #[inline]
    pub fn dec(&self) {
        self.view().dec();
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: i64) {
        self.view().add(n);
    }

    /// Subtracts `n`.
    #[inline]
    pub fn sub(&self, n: i64) {
        self.view().sub(n);
    }

    /// Sets the caller's part; see [`Gauge::set`].
    #[inline]
    pub fn set(&self, value: i64) {
        self.view().set(value);
    }

    /// Sum over all workers.
    pub fn value(&self) -> i64 {
        self.view().value()
    }

    /// Adds 1 until the guard is dropped.
    pub fn hold(&self) -> GaugeHold {
        self.inc();
        GaugeHold { gauge: self.clone() }
    }
}

/// Counts as 1 in a gauge while it lives. For connections, not for requests: it owns its scope.
#[derive(Debug)]
#[must_use = "the gauge falls back when this is dropped"]
pub struct GaugeHold {
    gauge: OwnedGauge,
}

impl Drop for GaugeHold {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Histogram<'_> {
    /// Records one value in the histogram's unit.
    #[inline]
    pub fn record(self, value: u64) {
        self.block.record(self.index, value);
    }

    /// Number of values recorded, those after the last flush included.
    pub fn count(self) -> u64 {
        self.block.histogram_records(self.index)
    }

    /// The distribution of all values up to the last [`crate::Store::flush`].
    pub fn cumulative(self) -> Summary {
        self.block.merged(self.index).map(|m| m.cumulative).unwrap_or_default()
    }

    /// The distribution of the values between the last two flushes.
    pub fn interval(self) -> Summary {
        self.block.merged(self.index).map(|m| m.interval).unwrap_or_default()
    }
}

impl OwnedHistogram {
    /// Records one value in the histogram's unit.
    #[inline]
    pub fn record(&self, value: u64) {
        self.view().record(value);
    }

    /// Number of values recorded, those after the last flush included.
    pub fn count(&self) -> u64 {
        self.view().count()
    }
}

#[cfg(test)]
mod tests;
