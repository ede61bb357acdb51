//! Prints a store in Envoy's three formats: text, JSON and Prometheus exposition.
//!
//! Only strings: the admin server owns HTTP. Formats and order are those that Envoy 1.40 prints on `/stats`,
//! `/stats?format=json` and `/stats/prometheus` (<https://www.envoyproxy.io/docs/envoy/latest/operations/admin>).
//! Start from [`Filter`] and [`text`], [`json`], [`prometheus`].

mod buckets;
mod extra;
mod json;
mod labels;
mod prometheus;
mod sample;
mod text;

use std::fmt;

use crate::store::Store;

pub use extra::{Extra, ExtraKind};
pub use json::json;
pub use prometheus::prometheus;
pub use text::text;

/// Which statistics to print.
#[derive(Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Accepts a full dotted name (`?filter=REGEX`, compiled by the caller); `None` accepts all.
    pub name: Option<&'a dyn Fn(&str) -> bool>,
    /// Hides what was never written (`?usedonly`).
    pub used_only: UsedOnly,
    /// `?type=`
    pub types: Types,
    /// `?histogram_buckets=`
    pub buckets: Buckets,
    /// Numbers from elsewhere, printed after the store's.
    pub extras: &'a [Extra],
}

impl fmt::Debug for Filter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.map(|_| "..");
        f.debug_struct("Filter").field("name", &name).field("used_only", &self.used_only).finish()
    }
}

/// Whether statistics that were never written are printed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum UsedOnly {
    /// Print them.
    #[default]
    No,
    /// Hide them.
    Yes,
}

/// The types of statistics to print.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Types {
    /// All.
    #[default]
    All,
    /// `?type=Counters`
    Counters,
    /// `?type=Gauges`
    Gauges,
    /// `?type=Histograms`
    Histograms,
    /// `?type=TextReadouts`
    Texts,
}

/// How a histogram is shown.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Buckets {
    /// As the page does unless told otherwise: quantiles in text and JSON, cumulative buckets for Prometheus.
    #[default]
    Usual,
    /// Quantiles: `?histogram_buckets=summary`
    Summary,
    /// How many values are at most each of the bounds: `?histogram_buckets=cumulative`
    Cumulative,
    /// How many lie between a bound and the one before: `?histogram_buckets=disjoint`
    Disjoint,
    /// The cells in which values are really kept, and quantiles: `?histogram_buckets=detailed`
    Detailed,
}

/// The texts that `filter` takes, sorted by name.
fn texts(store: &Store, filter: &Filter<'_>) -> Vec<(String, Box<str>)> {
    if !matches!(filter.types, Types::All | Types::Texts) {
        return Vec::new();
    }
    let mut texts = store.texts();
    texts.retain(|(name, value)| {
        filter.name.is_none_or(|accepts| accepts(name))
            && (filter.used_only == UsedOnly::No || !value.is_empty())
    });
    texts
}

/// The quantiles that Envoy prints, in percent.
const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// Upper bounds of the exposed buckets (ms for durations): Envoy's defaults, `histogram_bucket_settings`.
const BOUNDS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0, 60000.0,
    300000.0, 600000.0, 1800000.0, 3600000.0,
];

#[cfg(test)]
mod tests;
