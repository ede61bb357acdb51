//! `/stats/prometheus`: text exposition format, version 0.0.4.
//!
//! Envoy's conventions: `envoy_` before every name, label values taken out of the name, counters without a
//! `_total` suffix of our own, counters before gauges before histograms, histograms without any value
//! as zeros.

use std::collections::HashMap;
use std::fmt::{Display, Write};

use super::labels::{labels, push_metric};
use super::sample::{Sample, Views, counters, gauges, histograms};
use super::{BOUNDS, Buckets, Filter, QUANTILES, extra};
use crate::histogram::Summary;
use crate::store::Store;
use crate::tags::TagRules;

/// All statistics as metrics, each with a `# TYPE` line.
pub fn prometheus(store: &Store, filter: &Filter<'_>) -> String {
    let blocks = store.listed();
    let rules = store.tags();
    let mut out = String::new();
    for (kind, samples) in [("counter", counters(&blocks, filter)), ("gauge", gauges(&blocks, filter))] {
        push_family(kind, &samples, rules, &mut out, |metric, sample, out| {
            push_line(metric, "", None, sample.value, out);
        });
    }
    let recorded = histograms(&blocks, filter);
    match filter.buckets {
        Buckets::Summary => push_family("summary", &recorded, rules, &mut out, push_summary),
        _ => push_family("histogram", &recorded, rules, &mut out, push_histogram),
    }
    extra::push_exposed(filter, &mut out);
    out
}

fn push_exposed(dotted: &str, out: &mut String) {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' };
    out.push_str("envoy_");
    out.extend(dotted.chars().map(legal));
}

/// Prints the samples grouped by metric; within a metric they stay sorted by their full name.
fn push_family<V>(
    kind: &str,
    samples: &[Sample<'_, V>],
    rules: Option<&TagRules>,
    out: &mut String,
    print: impl Fn(&Exposed<'_>, &Sample<'_, V>, &mut String),
) {
    // Many clusters share few metrics: group by a reused name instead of sorting a million strings.
    let mut metrics: HashMap<String, Group<'_, '_, V>> = HashMap::new();
    let (mut dotted, mut name) = (String::new(), String::new());
    for sample in samples {
        dotted.clear();
        push_metric(sample, rules, &mut dotted);
        name.clear();
        push_exposed(&dotted, &mut name);
        match metrics.get_mut(&name) {
            Some(group) => group.samples.push(sample),
            None => {
                metrics.insert(name.clone(), Group { dotted: dotted.clone(), samples: vec![sample] });
            }
        }
    }
    let mut metrics: Vec<_> = metrics.into_iter().collect();
    metrics.sort_by(|a, b| a.1.dotted.cmp(&b.1.dotted));
    for (name, group) in metrics {
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for sample in group.samples {
            print(&Exposed { name: &name, labels: &labels(sample, rules) }, sample, out);
        }
    }
}

/// The samples of one metric.
struct Group<'s, 'a, V> {
    /// For the order: the name before dots became underscores.
    dotted: String,
    samples: Vec<&'s Sample<'a, V>>,
}

struct Exposed<'a> {
    name: &'a str,
    labels: &'a str,
}

fn push_histogram(metric: &Exposed<'_>, sample: &Sample<'_, Views>, out: &mut String) {
    let none = Summary::default();
    let all = sample.value.as_ref().map_or(&none, |views| &views.cumulative);
    for bound in BOUNDS {
        push_line(metric, "_bucket", Some(("le", &bound)), all.count_at_most(bound), out);
    }
    push_line(metric, "_bucket", Some(("le", &"+Inf")), all.count(), out);
    push_totals(metric, all, out);
}

/// Of the last interval only, counts too, as Envoy's.
fn push_summary(metric: &Exposed<'_>, sample: &Sample<'_, Views>, out: &mut String) {
    let none = Summary::default();
    let interval = sample.value.as_ref().map_or(&none, |views| &views.interval);
    // Rounded, as 99.9 / 100 is not 0.999.
    for quantile in QUANTILES.map(|percent| (percent * 10.0).round() / 1000.0) {
        let value = interval.quantile(quantile).map_or_else(|| "nan".to_owned(), |v| v.to_string());
        push_line(metric, "", Some(("quantile", &quantile)), value, out);
    }
    push_totals(metric, interval, out);
}

fn push_totals(metric: &Exposed<'_>, all: &Summary, out: &mut String) {
    push_line(metric, "_sum", None, all.sum() as f64, out);
    push_line(metric, "_count", None, all.count(), out);
}

fn push_line(
    metric: &Exposed<'_>,
    suffix: &str,
    label: Option<(&str, &dyn Display)>,
    value: impl Display,
    out: &mut String,
) {
    let Exposed { name, labels } = metric;
    let _ = match label {
        Some((key, value_of)) => {
            let comma = if labels.is_empty() { "" } else { "," };
            writeln!(out, "{name}{suffix}{{{labels}{comma}{key}=\"{value_of}\"}} {value}")
        }
        None => writeln!(out, "{name}{suffix}{{{labels}}} {value}"),
    };
}
