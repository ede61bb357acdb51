//! `/stats`: a line per statistic, counters and gauges first, then histograms.

use std::fmt::Write;

use super::sample::{Sample, Views, histograms, numbers, push_quantile};
use super::{Filter, QUANTILES, texts};
use crate::store::Store;

/// `name: "text"` lines sorted by name, `name: value` lines likewise, then histograms as `name: P0(interval,cumulative) P25(..) ..`.
pub fn text(store: &Store, filter: &Filter<'_>) -> String {
    let blocks = store.living();
    let mut out = String::new();
    for (name, value) in texts(store, filter) {
        let _ = writeln!(out, "{name}: \"{value}\"");
    }
    for sample in numbers(&blocks, filter) {
        sample.push_name(&mut out);
        let _ = writeln!(out, ": {}", sample.value);
    }
    for sample in histograms(&blocks, filter) {
        sample.push_name(&mut out);
        out.push(':');
        push_quantiles(&sample, &mut out);
        out.push('\n');
    }
    out
}

/// An interval without records prints `nan`, as Envoy does.
fn push_quantiles(sample: &Sample<'_, Views>, out: &mut String) {
    let Some(views) = &sample.value else {
        out.push_str(" No recorded values");
        return;
    };
    for q in QUANTILES {
        let _ = write!(out, " P{q}(");
        push_quantile(&views.interval, q, "nan", out);
        out.push(',');
        push_quantile(&views.cumulative, q, "nan", out);
        out.push(')');
    }
}
