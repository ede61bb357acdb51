//! `/stats/prometheus`: text exposition format, version 0.0.4.
//!
//! Envoy's conventions: `envoy_` before every name, label values taken out of the name, counters without a
//! `_total` suffix of our own, counters before gauges before histograms, histograms without any value left
//! out.

use std::collections::HashMap;
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
        push_family(kind, &samples, &mut out, |metric, sample, out| {
            push_line(metric, "", None, sample.value, out);
        });
    }
    let recorded = histograms(&blocks, filter);
    let recorded = recorded.into_iter().filter_map(|s| {
        let value = s.value?;
        Some(Sample { scope: s.scope, name: s.name, value })
    });
    push_family("histogram", &recorded.collect::<Vec<_>>(), &mut out, push_histogram);
    out
}

/// Appends the metric's name: still dotted, since Envoy sorts by this form, and without label values.
fn push_metric<V>(sample: &Sample<'_, V>, out: &mut String) {
    sample.scope.push_extracted(out);
    let (base, label) = label_in_name(sample);
    out.push_str(base);
    if matches!(label, Some((CODE_CLASS, _))) {
        out.push_str("xx");
    }
}

/// The labels, without braces: the one inside the statistic's name first, then those of its scope.
fn labels<V>(sample: &Sample<'_, V>) -> String {
    let mut out = String::new();
    let (_, label) = label_in_name(sample);
    for (key, value) in label.into_iter().chain(sample.scope.labels()) {
        push_label(key, value, &mut out);
    }
    out
}

fn push_exposed(dotted: &str, out: &mut String) {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' };
    out.push_str("envoy_");
    out.extend(dotted.chars().map(legal));
}

/// Splits a name that carries a label value into its base, and the label and its value.
fn label_in_name<'a, V>(sample: &Sample<'a, V>) -> Split<'a> {
    let name = sample.name;
    if let Some(split) = response_code(name) {
        return split;
    }
    tls_label(sample.scope.prefix(), name).unwrap_or((name, None))
}

/// The base name, and the label cut out of it with its value.
type Split<'a> = (&'a str, Option<(&'static str, &'a str)>);

/// `ssl.ciphers.X`, `ssl.versions.X` and the like of listeners and clusters; `ssl` may be the scope's last
/// segment.
fn tls_label<'a>(prefix: &str, name: &'a str) -> Option<Split<'a>> {
    let tail = if prefix.ends_with(".ssl.") { name } else { name.strip_prefix("ssl.")? };
    let (what, value) = tail.split_once('.')?;
    let label = match what {
        "ciphers" if prefix.starts_with("cluster.") => "cipher_suite",
        "ciphers" => "envoy_ssl_cipher",
        "versions" => "envoy_ssl_version",
        "curves" => "envoy_ssl_curve",
        "sigalgs" => "envoy_ssl_sigalg",
        _ => return None,
    };
    Some((name.get(..name.len() - value.len() - 1)?, Some((label, value))))
}

/// Splits `upstream_rq_200` into `upstream_rq` and the code, `upstream_rq_2xx` into `upstream_rq_` and the
/// class (Envoy: `_rq(_(\d{3}))$` and `_rq_(\d)xx$`).
fn response_code(name: &str) -> Option<Split<'_>> {
    let at = name.len().checked_sub(3)?;
    let (base, tail) = (name.get(..at)?, name.get(at..)?);
    if !base.ends_with("_rq_") {
        return None;
    }
    if tail.bytes().all(|b| b.is_ascii_digit()) {
        return Some((base.get(..base.len() - 1)?, Some((CODE, tail))));
    }
    let class = tail.strip_suffix("xx").filter(|c| c.bytes().all(|b| b.is_ascii_digit()))?;
    Some((base, Some((CODE_CLASS, class))))
}

/// Prints the samples grouped by metric; within a metric they stay sorted by their full name.
fn push_family<V>(
    kind: &str,
    samples: &[Sample<'_, V>],
    out: &mut String,
    print: impl Fn(&Exposed<'_>, &Sample<'_, V>, &mut String),
) {
    // Many clusters share few metrics: group by a reused name instead of sorting a million strings.
    let mut metrics: HashMap<String, Group<'_, '_, V>> = HashMap::new();
    let (mut dotted, mut name) = (String::new(), String::new());
    for sample in samples {
        dotted.clear();
        push_metric(sample, &mut dotted);
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
            print(&Exposed { name: &name, labels: &labels(sample) }, sample, out);
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

fn push_histogram(metric: &Exposed<'_>, sample: &Sample<'_, Merged>, out: &mut String) {
    let (all, scale) = (&sample.value.cumulative, sample.scale());
    for bound in BOUNDS {
        push_line(metric, "_bucket", Some(&bound), all.count_at_most(bound * scale), out);
    }
    push_line(metric, "_bucket", Some(&"+Inf"), all.count(), out);
    push_line(metric, "_sum", None, all.sum() as f64 / scale, out);
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

const CODE: &str = "envoy_response_code";
const CODE_CLASS: &str = "envoy_response_code_class";

/// Upper bounds of the exposed buckets (ms for durations): Envoy's defaults, `histogram_bucket_settings`.
const BOUNDS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0, 60000.0,
    300000.0, 600000.0, 1800000.0, 3600000.0,
];
