//! `/stats?format=json`.

use std::fmt::Write;

use super::buckets::{Counted, counted};
use super::extra::extras;
use super::sample::{Sample, Views, histograms, numbers, push_quantile};
use super::{Buckets, Filter, QUANTILES, texts};
use crate::histogram::{Merged, Summary};
use crate::store::Store;

/// `{"stats":[{"name":..,"value":..},..,{"histograms":{..}}]}`; the last element is missing without histograms.
pub fn json(store: &Store, filter: &Filter<'_>) -> String {
    let blocks = store.listed();
    let mut out = String::from("{\"stats\":[");
    for (name, value) in texts(store, filter) {
        out.push_str(if out.ends_with('[') { "{\"name\":" } else { ",{\"name\":" });
        push_string(name.chars(), &mut out);
        out.push_str(",\"value\":");
        push_string(value.chars(), &mut out);
        out.push('}');
    }
    for sample in &numbers(&blocks, filter) {
        out.push_str(if out.ends_with('[') { "{\"name\":" } else { ",{\"name\":" });
        push_name(sample, &mut out);
        let _ = write!(out, ",\"value\":{}}}", sample.value);
    }
    for extra in extras(filter) {
        out.push_str(if out.ends_with('[') { "{\"name\":" } else { ",{\"name\":" });
        push_string(extra.name.chars(), &mut out);
        let _ = write!(out, ",\"value\":{}}}", extra.value);
    }
    let histograms = histograms(&blocks, filter);
    if !histograms.is_empty() {
        if !out.ends_with('[') {
            out.push(',');
        }
        match filter.buckets {
            Buckets::Usual | Buckets::Summary => push_histograms(&histograms, &mut out),
            Buckets::Cumulative | Buckets::Disjoint => push_bounded(&histograms, filter.buckets, &mut out),
            Buckets::Detailed => push_detailed(&histograms, &mut out),
        }
    }
    out.push_str("]}");
    out
}

fn push_histograms(histograms: &[Sample<'_, Views>], out: &mut String) {
    let _ = write!(out, "{{\"histograms\":{{\"supported_quantiles\":[{}],", quantiles());
    out.push_str("\"computed_quantiles\":");
    push_each(histograms, out, |views, out| {
        out.push_str(",\"values\":");
        push_quantiles(views, out);
    });
    out.push_str("}}");
}

/// `{"histograms":[{"name":..,"buckets":[{"upper_bound":..,"interval":..,"cumulative":..},..]},..]}`
fn push_bounded(histograms: &[Sample<'_, Views>], form: Buckets, out: &mut String) {
    out.push_str("{\"histograms\":");
    push_each(histograms, out, |views, out| {
        out.push_str(",\"buckets\":[");
        for (i, Counted { bound, interval, cumulative }) in counted(views, form).enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(
                out,
                "{comma}{{\"upper_bound\":{bound},\"interval\":{interval},\"cumulative\":{cumulative}}}"
            );
        }
        out.push(']');
    });
    out.push('}');
}

fn push_detailed(histograms: &[Sample<'_, Views>], out: &mut String) {
    let _ = write!(out, "{{\"histograms\":{{\"supported_percentiles\":[{}],\"details\":", quantiles());
    push_each(histograms, out, |views, out| {
        out.push_str(",\"totals\":");
        push_cells(&views.cumulative, out);
        out.push_str(",\"intervals\":");
        push_cells(&views.interval, out);
        out.push_str(",\"percentiles\":");
        push_quantiles(views, out);
    });
    out.push_str("}}");
}

/// `[{"name":..` and what `print` adds `},..]`
fn push_each(histograms: &[Sample<'_, Views>], out: &mut String, print: impl Fn(&Merged, &mut String)) {
    let empty = Merged::default();
    out.push('[');
    for (i, sample) in histograms.iter().enumerate() {
        out.push_str(if i == 0 { "{\"name\":" } else { ",{\"name\":" });
        push_name(sample, out);
        print(sample.value.as_ref().unwrap_or(&empty), out);
        out.push('}');
    }
    out.push(']');
}

fn push_quantiles(views: &Merged, out: &mut String) {
    out.push('[');
    for (i, q) in QUANTILES.iter().enumerate() {
        out.push_str(if i == 0 { "{\"cumulative\":" } else { ",{\"cumulative\":" });
        push_quantile(&views.cumulative, *q, "null", out);
        out.push_str(",\"interval\":");
        push_quantile(&views.interval, *q, "null", out);
        out.push('}');
    }
    out.push(']');
}

fn push_cells(summary: &Summary, out: &mut String) {
    out.push('[');
    for (i, (low, width, count)) in summary.cells().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{{\"lower_bound\":{low},\"width\":{width},\"count\":{count}}}");
    }
    out.push(']');
}

fn quantiles() -> String {
    QUANTILES.iter().map(f64::to_string).collect::<Vec<_>>().join(",")
}

fn push_name<V>(sample: &Sample<'_, V>, out: &mut String) {
    push_string(sample.scope.prefix().chars().chain(sample.name.chars()), out);
}

fn push_string(text: impl Iterator<Item = char>, out: &mut String) {
    out.push('"');
    for c in text {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
