//! `/stats?format=json`.

use std::fmt::Write;

use super::sample::{Sample, Views, histograms, numbers, push_quantile};
use super::{Filter, QUANTILES, texts};
use crate::store::Store;

/// `{"stats":[{"name":..,"value":..},..,{"histograms":{..}}]}`; the last element is missing without histograms.
pub fn json(store: &Store, filter: &Filter<'_>) -> String {
    let blocks = store.living();
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
    let histograms = histograms(&blocks, filter);
    if !histograms.is_empty() {
        if !out.ends_with('[') {
            out.push(',');
        }
        push_histograms(&histograms, &mut out);
    }
    out.push_str("]}");
    out
}

fn push_histograms(histograms: &[Sample<'_, Views>], out: &mut String) {
    let quantiles: Vec<String> = QUANTILES.iter().map(f64::to_string).collect();
    let _ = write!(out, "{{\"histograms\":{{\"supported_quantiles\":[{}],", quantiles.join(","));
    out.push_str("\"computed_quantiles\":[");
    for (i, sample) in histograms.iter().enumerate() {
        out.push_str(if i == 0 { "{\"name\":" } else { ",{\"name\":" });
        push_name(sample, out);
        out.push_str(",\"values\":[");
        let empty = Default::default();
        let views = sample.value.as_ref().unwrap_or(&empty);
        for (i, q) in QUANTILES.iter().enumerate() {
            out.push_str(if i == 0 { "{\"cumulative\":" } else { ",{\"cumulative\":" });
            push_quantile(&views.cumulative, *q, "null", out);
            out.push_str(",\"interval\":");
            push_quantile(&views.interval, *q, "null", out);
            out.push('}');
        }
        out.push_str("]}");
    }
    out.push_str("]}}");
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
