//! What of a statistic's full name is a label in Prometheus: the parts that its scope knows, those inside its
//! own name (response codes, TLS ciphers, close reasons), and those of the user's `stats_tags`.

use std::ops::Range;

use super::sample::Sample;
use crate::tags::{Found, TagRules};

/// Appends the metric's name: still dotted, since Envoy sorts by this form, and without label values.
pub(super) fn push_metric<V>(sample: &Sample<'_, V>, rules: Option<&TagRules>, out: &mut String) {
    if let Some(rules) = rules {
        return push_metric_by(rules, sample, out);
    }
    sample.scope.push_extracted(out);
    match label_in_name(sample) {
        None => out.push_str(sample.name),
        Some(label) if label.whole => _ = out.pop(),
        Some(label) => {
            out.push_str(sample.name.get(..label.cut.start).unwrap_or_default());
            out.push_str(sample.name.get(label.cut.end..).unwrap_or_default());
        }
    }
}

/// The labels, without braces: the one inside the statistic's name first, then those of its scope. Around
/// them those of the user, in Envoy's order.
pub(super) fn labels<V>(sample: &Sample<'_, V>, rules: Option<&TagRules>) -> String {
    let mut out = String::new();
    let inner = label_in_name(sample).map(|label| (label.key, label.value));
    let known = inner.into_iter().chain(sample.scope.labels());
    match rules {
        None => known.for_each(|(key, value)| push_label(key, value, &mut out)),
        Some(rules) => {
            let name = full_name(sample);
            resolve(rules, sample, &name).iter().for_each(|tag| push_label(tag.label, tag.value, &mut out));
        }
    }
    out
}

fn push_metric_by<V>(rules: &TagRules, sample: &Sample<'_, V>, out: &mut String) {
    let name = full_name(sample);
    let mut cuts: Vec<_> = resolve(rules, sample, &name).into_iter().map(|tag| tag.cut).collect();
    cuts.sort_by_key(|cut| cut.start);
    let mut from = 0;
    for cut in cuts {
        out.push_str(name.get(from..cut.start).unwrap_or_default());
        from = from.max(cut.end);
    }
    out.push_str(name.get(from..).unwrap_or_default());
}

/// All labels of a statistic in Envoy's order. A label that is there already is not looked for again, and so
/// cuts nothing out of the name.
fn resolve<'a, V>(rules: &'a TagRules, sample: &'a Sample<'_, V>, name: &'a str) -> Vec<Found<'a>> {
    let prefix = sample.scope.prefix().len();
    let fixed = rules.fixed_labels().map(|(label, value)| Found { label, value, cut: 0..0 });
    let inner = label_in_name(sample).map(|label| {
        let dot = usize::from(label.whole);
        let cut = prefix + label.cut.start - dot..prefix + label.cut.end;
        Found { label: label.key, value: label.value, cut }
    });
    let cuts = sample.scope.cuts().collect::<Vec<_>>().into_iter().rev().map(|(_, cut)| cut);
    let scoped = sample.scope.labels().zip(cuts).map(|((label, value), cut)| Found { label, value, cut });
    let all = fixed
        .chain(inner.filter(|found| rules.keeps(found.label)))
        .chain(rules.find(name, false))
        .chain(scoped.filter(|found| rules.keeps(found.label)))
        .chain(rules.find(name, true));
    let mut resolved: Vec<Found<'a>> = Vec::new();
    for found in all {
        if resolved.iter().all(|other| other.label != found.label) {
            resolved.push(found);
        }
    }
    resolved
}

fn full_name<V>(sample: &Sample<'_, V>) -> String {
    let mut name = String::new();
    sample.push_name(&mut name);
    name
}

/// A label inside a statistic's own name.
struct Inner<'a> {
    key: &'static str,
    value: &'a str,
    /// What of the name is no part of the metric's.
    cut: Range<usize>,
    /// All of the name is the value: the dot before it goes too.
    whole: bool,
}

fn label_in_name<'a, V>(sample: &Sample<'a, V>) -> Option<Inner<'a>> {
    let (prefix, name) = (sample.scope.prefix(), sample.name);
    response_code(name).or_else(|| close_reason(prefix, name)).or_else(|| tls_label(prefix, name))
}

/// The tail of `name` after `base` bytes, which are the metric's.
fn tail<'a>(key: &'static str, value: &'a str, name: &str, base: usize) -> Inner<'a> {
    Inner { key, value, cut: base..name.len(), whole: false }
}

/// `upstream_cx_close_reason.X`; the family's name may be the scope's last segment.
fn close_reason<'a>(prefix: &str, name: &'a str) -> Option<Inner<'a>> {
    if prefix.ends_with("_cx_close_reason.") {
        return Some(Inner { key: REASON, value: name, cut: 0..name.len(), whole: true });
    }
    let (base, value) = name.split_once("_cx_close_reason.")?;
    Some(tail(REASON, value, name, base.len() + "_cx_close_reason".len()))
}

/// `ssl.ciphers.X`, `ssl.versions.X` and the like of listeners and clusters; `ssl` may be the scope's last
/// segment.
fn tls_label<'a>(prefix: &str, name: &'a str) -> Option<Inner<'a>> {
    let rest = if prefix.ends_with(".ssl.") { name } else { name.strip_prefix("ssl.")? };
    let (what, value) = rest.split_once('.')?;
    let key = match what {
        "ciphers" if prefix.starts_with("cluster.") => "cipher_suite",
        "ciphers" => "envoy_ssl_cipher",
        "versions" => "envoy_ssl_version",
        "curves" => "envoy_ssl_curve",
        "sigalgs" => "envoy_ssl_sigalg",
        _ => return None,
    };
    Some(tail(key, value, name, name.len() - value.len() - 1))
}

/// Takes the code out of `upstream_rq_200`, and the class's digit out of `upstream_rq_2xx` (Envoy:
/// `_rq(_(\d{3}))$` and `_rq_((\d))xx$`).
fn response_code(name: &str) -> Option<Inner<'_>> {
    let at = name.len().checked_sub(3)?;
    let (base, code) = (name.get(..at)?, name.get(at..)?);
    if !base.ends_with("_rq_") {
        return None;
    }
    if code.bytes().all(|b| b.is_ascii_digit()) {
        return Some(tail(CODE, code, name, at - 1));
    }
    let class = code.strip_suffix("xx").filter(|c| c.bytes().all(|b| b.is_ascii_digit()))?;
    Some(Inner { key: CODE_CLASS, value: class, cut: at..at + 1, whole: false })
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
const REASON: &str = "reason";
