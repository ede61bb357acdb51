//! `/stats`: a line per statistic, counters and gauges first, then histograms.

use std::fmt::Write;

use super::sample::{Views, histograms, numbers};
use super::{Filter, QUANTILES};
use crate::histogram::Summary;
use crate::store::Store;

/// `name: value` lines sorted by name, then histograms as `name: P0(interval,cumulative) P25(..) ..`.
pub fn text(store: &Store, filter: &Filter<'_>) -> String {
    let blocks = store.living();
    let mut out = String::new();
    for sample in numbers(&blocks, filter) {
        sample.push_name(&mut out);
        let _ = writeln!(out, ": {}", sample.value);
    }
    for sample in histograms(&blocks, filter) {
        sample.push_name(&mut out);
        out.push(':');
        push_quantiles(&sample.value, &mut out);
        out.push('\n');
    }
    out
}

fn push_quantiles(views: &Views, out: &mut String) {
    let Some(views) = views else {
        out.push_str(" No recorded values");
        return;
    };
    for q in QUANTILES {
        let _ = write!(out, " P{q}(");
        push_quantile(&views.interval, q, out);
        out.push(',');
        push_quantile(&views.cumulative, q, out);
        out.push(')');
    }
}

/// An interval without records prints `nan`, as Envoy does.
fn push_quantile(summary: &Summary, q: f64, out: &mut String) {
    match summary.quantile(q / 100.0) {
        Some(value) => {
            let _ = write!(out, "{value}");
        }
        None => out.push_str("nan"),
    }
}
