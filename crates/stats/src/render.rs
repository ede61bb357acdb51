//! Prints a store in Envoy's three formats: text, JSON and Prometheus exposition.
//!
//! Only strings: the admin server owns HTTP. Formats and order are those that Envoy 1.40 prints on `/stats`,
//! `/stats?format=json` and `/stats/prometheus` (<https://www.envoyproxy.io/docs/envoy/latest/operations/admin>).
//! Start from [`Filter`] and [`text`], [`json`], [`prometheus`].

mod json;
mod labels;
mod prometheus;
mod sample;
mod text;

use std::fmt;

use crate::store::Store;

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

#[cfg(test)]
mod tests;
