//! `/stats`: a line per statistic, counters and gauges first, then histograms.

use std::fmt::Write;

use super::buckets::{push_cells, push_counted};
use super::extra::extras;
use super::sample::{histograms, numbers, push_quantile};
use super::{Buckets, Filter, QUANTILES, texts};
use crate::histogram::Merged;
use crate::store::Store;

/// `name: "text"` lines sorted by name, `name: value` lines likewise, then histograms as
/// `name: P0(interval,cumulative) P25(..) ..` or as [`Buckets`] asks.
pub fn text(store: &Store, filter: &Filter<'_>) -> String {
    let blocks = store.listed();
    let mut out = String::new();
    for (name, value) in texts(store, filter) {
        let _ = writeln!(out, "{name}: \"{value}\"");
    }
    for sample in numbers(&blocks, filter) {
        sample.push_name(&mut out);
        let _ = writeln!(out, ": {}", sample.value);
    }
    for extra in extras(filter) {
        let _ = writeln!(out, "{}: {}", extra.name, extra.value);
    }
    for sample in histograms(&blocks, filter) {
        sample.push_name(&mut out);
        out.push(':');
        match &sample.value {
            Some(views) => push_histogram(views, filter.buckets, &mut out),
            None => out.push_str(" No recorded values"),
        }
        out.push('\n');
    }
    out
}

fn push_histogram(views: &Merged, form: Buckets, out: &mut String) {
    match form {
        Buckets::Usual | Buckets::Summary => push_quantiles(views, out),
        Buckets::Cumulative | Buckets::Disjoint => push_counted(views, form, out),
        Buckets::Detailed => {
            out.push_str("\n  totals=");
            push_cells(&views.cumulative, out);
            out.push_str("\n  intervals=");
            push_cells(&views.interval, out);
            out.push_str("\n  summary=");
            let start = out.len();
            push_quantiles(views, out);
            out.remove(start);
        }
    }
}

/// ` P0(interval,cumulative) P25(..) ..`; an interval without records prints `nan`, as Envoy does.
fn push_quantiles(views: &Merged, out: &mut String) {
    for q in QUANTILES {
        let _ = write!(out, " P{q}(");
        push_quantile(&views.interval, q, "nan", out);
        out.push(',');
        push_quantile(&views.cumulative, q, "nan", out);
        out.push(')');
    }
}
