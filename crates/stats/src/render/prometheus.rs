//! `/stats/prometheus`: text exposition format, version 0.0.4.
//!
//! Envoy's conventions: `envoy_` before every name, label values taken out of the name, counters without a
//! `_total` suffix of our own, counters before gauges before histograms, histograms without any value left
//! out.

use std::fmt::{Display, Write};

use super::Filter;
use super::sample::{Sample, counters, gauges, histograms};
use crate::histogram::Merged;
use crate::store::Store;

/// All statistics as metrics, each with a `# TYPE` line.
pub fn prometheus(store: &Store, filter: &Filter<'_>) -> String {
    let blocks = store.living();
    let mut out = String::new();
    for (kind, samples) in [("counter", counters(&blocks, filter)), ("gauge", gauges(&blocks, filter))] {
        push_family(kind, samples, &mut out, |metric, value, out| {
            push_line(metric, "", None, value, out);
        });
    }
    let recorded = histograms(&blocks, filter);
    let recorded = recorded.into_iter().filter_map(|s| {
        let value = s.value?;
        Some(Sample { scope: s.scope, name: s.name, value })
    });
    push_family("histogram", recorded.collect(), &mut out, push_histogram);
    out
}

/// A statistic seen as a metric: the name without label values, and the labels.
struct Metric {
    /// Still dotted: Envoy sorts by this, before dots become underscores.
    name: String,
    /// `{..}` without the braces.
    labels: String,
}

impl Metric {
    fn of<V>(sample: &Sample<'_, V>) -> Self {
        let mut name = String::new();
        sample.scope.push_extracted(&mut name);
        let mut labels = String::new();
        let (base, code) = response_code(sample.name);
        name.push_str(base);
        match code {
            Some(Code::Exact(code)) => push_label("envoy_response_code", code, &mut labels),
            Some(Code::Class(class)) => {
                name.push_str("xx");
                push_label("envoy_response_code_class", class, &mut labels);
            }
            None => {}
        }
        for (key, value) in sample.scope.labels() {
            push_label(key, value, &mut labels);
        }
        Self { name, labels }
    }

    fn exposed_name(&self) -> String {
        let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' };
        "envoy_".chars().chain(self.name.chars().map(legal)).collect()
    }
}

enum Code<'a> {
    Exact(&'a str),
    Class(&'a str),
}

/// Splits `upstream_rq_200` into `upstream_rq` and the code, `upstream_rq_2xx` into `upstream_rq_` and the
/// class (Envoy: `_rq(_(\d{3}))$` and `_rq_(\d)xx$`).
fn response_code(name: &str) -> (&str, Option<Code<'_>>) {
    let split = || {
        let at = name.len().checked_sub(3)?;
        let (base, tail) = (name.get(..at)?, name.get(at..)?);
        if !base.ends_with("_rq_") {
            return None;
        }
        if tail.bytes().all(|b| b.is_ascii_digit()) {
            return Some((base.get(..base.len() - 1)?, Some(Code::Exact(tail))));
        }
        let class = tail.strip_suffix("xx").filter(|c| c.bytes().all(|b| b.is_ascii_digit()))?;
        Some((base, Some(Code::Class(class))))
    };
    split().unwrap_or((name, None))
}

/// Prints the samples grouped by metric; within a metric they stay sorted by their full name.
fn push_family<V>(
    kind: &str,
    samples: Vec<Sample<'_, V>>,
    out: &mut String,
    print: impl Fn(&Exposed<'_>, &V, &mut String),
) {
    let mut metrics: Vec<(Metric, V)> = samples.into_iter().map(|s| (Metric::of(&s), s.value)).collect();
    metrics.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    let mut last = String::new();
    for (metric, value) in &metrics {
        let name = metric.exposed_name();
        if name != last {
            let _ = writeln!(out, "# TYPE {name} {kind}");
            last.clone_from(&name);
        }
        print(&Exposed { name: &name, labels: &metric.labels }, value, out);
    }
}

struct Exposed<'a> {
    name: &'a str,
    labels: &'a str,
}

fn push_histogram(metric: &Exposed<'_>, views: &Merged, out: &mut String) {
    let all = &views.cumulative;
    for bound in BOUNDS {
        push_line(metric, "_bucket", Some(&bound), all.count_at_most(bound), out);
    }
    push_line(metric, "_bucket", Some(&"+Inf"), all.count(), out);
    push_line(metric, "_sum", None, all.sum(), out);
    push_line(metric, "_count", None, all.count(), out);
}

fn push_line(
    metric: &Exposed<'_>,
    suffix: &str,
    bound: Option<&dyn Display>,
    value: impl Display,
    out: &mut String,
) {
    let Exposed { name, labels } = metric;
    let _ = match bound {
        Some(bound) => {
            let comma = if labels.is_empty() { "" } else { "," };
            writeln!(out, "{name}{suffix}{{{labels}{comma}le=\"{bound}\"}} {value}")
        }
        None => writeln!(out, "{name}{suffix}{{{labels}}} {value}"),
    };
}

/// Escapes as the exposition format demands: backslash, double quote and line feed.
fn push_label(key: &str, value: &str, out: &mut String) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(key);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Upper bounds of the exposed buckets (ms for durations): Envoy's defaults, `histogram_bucket_settings`.
const BOUNDS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0, 60000.0,
    300000.0, 600000.0, 1800000.0, 3600000.0,
];
