//! Numbers that are kept elsewhere than in the store: the admin server hands them to a page with its [`Filter`].

use std::fmt::Write;

use super::{Filter, Types};

/// A number that is no statistic of a store.
#[derive(Clone, Debug)]
pub struct Extra {
    /// The full dotted name.
    pub name: String,
    /// The name for Prometheus, with underscores and without `envoy_`.
    pub metric: &'static str,
    /// Labels for Prometheus, without braces: `a="1",b="2"`, values escaped.
    pub labels: String,
    /// Whether it may go down.
    pub kind: ExtraKind,
    /// What it is now.
    pub value: u64,
}

/// Of which type it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtraKind {
    /// A counter.
    Counter,
    /// A gauge.
    Gauge,
}

/// Those that `filter` takes, in their order. As in Envoy `usedonly` hides none of them.
pub(super) fn extras<'a>(filter: &Filter<'a>) -> impl Iterator<Item = &'a Extra> {
    let (name, types) = (filter.name, filter.types);
    filter.extras.iter().filter(move |extra| {
        let typed = match types {
            Types::All => true,
            Types::Counters => extra.kind == ExtraKind::Counter,
            Types::Gauges => extra.kind == ExtraKind::Gauge,
            Types::Histograms | Types::Texts => false,
        };
        typed && name.is_none_or(|accepts| accepts(&extra.name))
    })
}

/// For Prometheus: counters, then gauges, each metric's together.
pub(super) fn push_exposed(filter: &Filter<'_>, out: &mut String) {
    for (kind, word) in [(ExtraKind::Counter, "counter"), (ExtraKind::Gauge, "gauge")] {
        let mut all: Vec<_> = extras(filter).filter(|extra| extra.kind == kind).collect();
        all.sort_by_key(|extra| extra.metric);
        let mut before = "";
        for extra in all {
            let metric = extra.metric;
            if metric != before {
                let _ = writeln!(out, "# TYPE envoy_{metric} {word}");
                before = metric;
            }
            let _ = writeln!(out, "envoy_{metric}{{{}}} {}", extra.labels, extra.value);
        }
    }
}
