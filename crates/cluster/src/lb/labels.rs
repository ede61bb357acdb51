//! Labels as they are compared: keys with values, each hashed once.

use std::hash::{DefaultHasher, Hash, Hasher};

use tidegate_types::json::{Kind, Node};

/// The labels that a request wants its host to have (`metadata_match`): those of its route, made once.
#[derive(Debug, Clone, Default)]
pub struct LabelMatch {
    labels: Box<[Label]>,
    /// Of a label [`FALLBACK_LIST`]: what is asked for in its place, in order.
    fallbacks: Option<Box<[LabelMatch]>>,
}

/// The label that holds other labels to try (Envoy docs, `LbSubsetMetadataFallbackPolicy`).
const FALLBACK_LIST: &str = "fallback_list";

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Label {
    pub(crate) key: Box<str>,
    /// In a form in which equal values are equal.
    value: Box<str>,
    hash: u64,
}

/// Some of a request's labels.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    labels: &'a [Label],
    /// `None`: all of them.
    only: Option<&'a [String]>,
}

impl LabelMatch {
    /// Of several labels with one key the last holds.
    pub fn new<'n>(labels: impl IntoIterator<Item = (&'n str, &'n Node)>) -> Self {
        let labels: Vec<_> = labels.into_iter().collect();
        let list = labels.iter().rev().find(|(key, _)| *key == FALLBACK_LIST);
        let fallbacks = list.map(|(_, list)| match &list.kind {
            Kind::Array(entries) => fallbacks(&labels, entries),
            _ => fallbacks(&labels, &[]),
        });
        Self { labels: sorted(labels), fallbacks }
    }

    /// What is asked for in turn where lists are looked at; `None`: there is no list.
    pub(crate) fn fallbacks(&self) -> Option<&[LabelMatch]> {
        self.fallbacks.as_deref()
    }

    pub(super) fn asked(&self) -> Asked<'_> {
        Asked { labels: &self.labels, only: None }
    }
}

/// The labels beside the list, and over them those of each of its entries. An empty list, or what is no list, is left out, as in Envoy.
fn fallbacks<'n>(labels: &[(&'n str, &'n Node)], entries: &'n [Node]) -> Box<[LabelMatch]> {
    let beside = || labels.iter().filter(|(key, _)| *key != FALLBACK_LIST).copied();
    let alone = |labels: Vec<(&'n str, &'n Node)>| LabelMatch { labels: sorted(labels), fallbacks: None };
    if entries.is_empty() {
        return [alone(beside().collect())].into();
    }
    let with = |entry: &'n Node| {
        let own = entry.members().iter().map(|member| (&*member.key, &member.value));
        alone(beside().chain(own).collect())
    };
    entries.iter().map(with).collect()
}

/// Of several labels with one key the last holds.
fn sorted(labels: Vec<(&str, &Node)>) -> Box<[Label]> {
    let mut sorted: Vec<Label> = Vec::new();
    for (key, value) in labels {
        let label = Label::new(key, value);
        match sorted.binary_search_by(|other| (*other.key).cmp(key)) {
            Ok(place) => sorted[place] = label,
            Err(place) => sorted.insert(place, label),
        }
    }
    sorted.into()
}

impl Label {
    pub(crate) fn new(key: &str, value: &Node) -> Self {
        let mut text = String::new();
        write_canonical(&value.kind, &mut text);
        let mut hasher = DefaultHasher::new();
        (key, &text).hash(&mut hasher);
        Self { key: key.into(), value: text.into(), hash: hasher.finish() }
    }
}

impl<'a> Asked<'a> {
    /// These keys only.
    pub(super) fn only(self, keys: &'a [String]) -> Self {
        Self { only: Some(keys), ..self }
    }

    pub(super) fn labels(self) -> impl Iterator<Item = &'a Label> + Clone {
        let Self { labels, only } = self;
        labels.iter().filter(move |label| only.is_none_or(|keys| keys.iter().any(|key| **key == *label.key)))
    }

    /// Whether these are its keys, sorted as they are.
    pub(super) fn has_keys(self, keys: &[String]) -> bool {
        self.labels().map(|label| &*label.key).eq(keys.iter().map(String::as_str))
    }

    /// Whether these are among its keys.
    pub(super) fn contains(self, keys: &[String]) -> bool {
        keys.iter().all(|key| self.labels().any(|label| *label.key == **key))
    }
}

/// The hash of labels in their order.
pub(super) fn hash<'a>(labels: impl Iterator<Item = &'a Label>) -> u64 {
    // Any odd number with bits all over does: this one is of the golden ratio.
    labels.fold(0, |sum, label| (sum ^ label.hash).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23))
}

/// Numbers are doubles, and the order of an object's members does not matter, as in protobuf.
fn write_canonical(kind: &Kind, out: &mut String) {
    match kind {
        Kind::Null => out.push('n'),
        Kind::Bool(true) => out.push('t'),
        Kind::Bool(false) => out.push('f'),
        Kind::Number(text) => {
            // -0 is 0.
            let bits = text.parse::<f64>().map(|number| (number + 0.0).to_bits());
            out.push_str(&format!("d{:x};", bits.unwrap_or_default()));
        }
        Kind::String(text) => write_text('s', text, out),
        Kind::Array(items) => {
            out.push('[');
            items.iter().for_each(|item| write_canonical(&item.kind, out));
            out.push(']');
        }
        Kind::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|a, b| a.key.cmp(&b.key));
            out.push('{');
            for member in sorted {
                write_text('k', &member.key, out);
                write_canonical(&member.value.kind, out);
            }
            out.push('}');
        }
    }
}

/// Its length first: no text can end another's.
fn write_text(kind: char, text: &str, out: &mut String) {
    out.push_str(&format!("{kind}{}:{text}", text.len()));
}
