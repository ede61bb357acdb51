//! `stats_tags`: labels that the user asks for beside, or instead of, those that scopes carry by themselves.
//!
//! Every rule looks at the full dotted name; what the rules cut out of it is cut out together, as in Envoy
//! (`TagProducerImpl`). Only the Prometheus format has labels, so the rules run while it is printed.

use std::ops::Range;

use regex::Regex;

/// The user's rules. The default has none and leaves the known labels alone.
#[derive(Clone, Debug, Default)]
pub struct TagRules {
    fixed: Vec<(String, String)>,
    custom: Vec<Custom>,
    /// `None`: all known labels; else only these.
    known: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
struct Custom {
    label: String,
    regex: Regex,
    /// Envoy files rules that begin with a literal first segment under it, after its own.
    rooted: bool,
}

/// What a rule found: a label, its value, and what it cuts out of the name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found<'a> {
    pub(crate) label: &'a str,
    pub(crate) value: &'a str,
    pub(crate) cut: Range<usize>,
}

impl TagRules {
    /// Every statistic carries `tag` with this value. Dots of a tag become underscores in its label.
    pub fn fixed(&mut self, tag: &str, value: &str) {
        self.fixed.push((label(tag), value.to_owned()));
    }

    /// The first group of `regex` is cut out of the name; the second, or else the first, is the value.
    pub fn regex(&mut self, tag: &str, regex: Regex) {
        let text = regex.as_str();
        let rooted =
            text.strip_prefix('^').and_then(|text| text.split_once("\\.")).is_some_and(|(root, _)| {
                !root.is_empty() && root.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            });
        self.custom.push(Custom { label: label(tag), regex, rooted });
    }

    /// Of the labels that scopes carry by themselves only those named with [`TagRules::keep`] stay.
    pub fn drop_known(&mut self) {
        self.known.get_or_insert_default();
    }

    /// Keeps a known label by its tag's name (`envoy.cluster_name`).
    pub fn keep(&mut self, tag: &str) {
        if let Some(known) = &mut self.known {
            known.push(label(tag));
        }
    }

    /// Nothing to do beyond the known labels.
    pub(crate) fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.custom.is_empty() && self.known.is_none()
    }

    /// Whether a known label is cut out.
    pub(crate) fn keeps(&self, label: &str) -> bool {
        self.known.as_ref().is_none_or(|known| known.iter().any(|kept| kept == label))
    }

    pub(crate) fn fixed_labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fixed.iter().map(|(label, value)| (label.as_str(), value.as_str()))
    }

    /// What the rules find in `name`: those that Envoy tries before its own by scope, or those after.
    pub(crate) fn find<'a>(&'a self, name: &'a str, rooted: bool) -> impl Iterator<Item = Found<'a>> {
        self.custom.iter().filter(move |rule| rule.rooted == rooted).filter_map(move |rule| {
            let groups = rule.regex.captures(name)?;
            let cut = groups.get(1)?;
            let value = groups.get(2).unwrap_or(cut);
            Some(Found { label: &rule.label, value: value.as_str(), cut: cut.range() })
        })
    }
}

/// A label from a tag's name: letters, digits and underscores.
fn label(tag: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    let label: String = tag.chars().map(legal).collect();
    if label.starts_with(|c: char| c.is_ascii_digit()) { format!("_{label}") } else { label }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_group_is_cut_and_the_second_is_the_value() {
        let mut rules = TagRules::default();
        assert!(rules.is_empty());
        rules.regex("team.name", Regex::new(r"^cluster\.((\w+?)-)").unwrap());
        rules.regex("proto", Regex::new(r"_cx_(http[123])_").unwrap());
        rules.regex("none", Regex::new("cx").unwrap());
        let name = "cluster.blue-app.upstream_cx_http1_total";
        let rooted: Vec<_> = rules.find(name, true).collect();
        assert_eq!(rooted, [Found { label: "team_name", value: "blue", cut: 8..13 }]);
        let others: Vec<_> = rules.find(name, false).collect();
        assert_eq!(others, [Found { label: "proto", value: "http1", cut: 29..34 }]);
    }

    #[test]
    fn known_labels_stay_unless_told_otherwise() {
        let mut rules = TagRules::default();
        assert!(rules.keeps("envoy_cluster_name"));
        rules.drop_known();
        rules.keep("envoy.cluster_name");
        assert!(rules.keeps("envoy_cluster_name") && !rules.keeps("envoy_worker_id"));
        assert_eq!(label("1.a-b"), "_1_a_b");
    }
}
