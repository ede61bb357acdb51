//! Which routes of a virtual host can match a path, without trying them all.
//!
//! Exact paths are in a hash map. Prefixes are sorted: the last one not behind a path, or the nearest of
//! those it begins with, is the longest prefix of that path; each carries the routes of all its own
//! prefixes. Regexes and case-insensitive paths are tried one by one. The three lists are ascending, so
//! that merging them keeps the configured order.

use std::collections::BTreeMap;
use tidegate_types::hash::ConfiguredMap;

use regex::Regex;

/// A path condition as the index files it.
#[derive(Debug)]
pub(super) enum IndexKey<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    /// Not to be indexed.
    Other,
}

/// A path condition that the index cannot answer.
#[derive(Debug)]
pub(super) enum SlowPath {
    /// Ignoring case.
    Exact(Box<str>),
    /// Ignoring case.
    Prefix(Box<str>),
    /// Ignoring case.
    SeparatedPrefix(Box<str>),
    Regex(Regex),
}

impl SlowPath {
    pub(super) fn matches(&self, path: &str) -> bool {
        let starts = |prefix: &str| {
            path.as_bytes()
                .get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        match self {
            Self::Exact(text) => path.eq_ignore_ascii_case(text),
            Self::Prefix(prefix) => starts(prefix),
            Self::SeparatedPrefix(prefix) => {
                starts(prefix) && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
            }
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

/// The index of one virtual host.
#[derive(Debug, Default)]
pub(super) struct RouteIndex {
    exact: ConfiguredMap<Box<[u8]>, Box<[u32]>>,
    prefixes: Vec<Prefix>,
    others: Box<[u32]>,
}

#[derive(Debug)]
struct Prefix {
    text: Box<str>,
    /// The longest other prefix that this one begins with.
    parent: Option<usize>,
    /// Routes of this prefix and of its parents, ascending.
    routes: Box<[u32]>,
}

impl RouteIndex {
    /// Files routes. The flag says that a route takes every request whose path fits: what stands behind
    /// it is never a candidate.
    pub(super) fn new<'a>(routes: impl IntoIterator<Item = (IndexKey<'a>, bool)>) -> Self {
        let mut exact: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        let mut prefixes: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        let mut others = Vec::new();
        let mut final_routes = Vec::new();
        for (index, (key, is_final)) in (0u32..).zip(routes) {
            final_routes.push(is_final);
            match key {
                IndexKey::Exact(path) => exact.entry(path).or_default().push(index),
                IndexKey::Prefix(prefix) => prefixes.entry(prefix).or_default().push(index),
                IndexKey::Other => others.push(index),
            }
        }
        let cut = |mut list: Vec<u32>| -> Box<[u32]> {
            let is_final = |route: &u32| final_routes.get(*route as usize).copied().unwrap_or_default();
            if let Some(last) = list.iter().position(is_final) {
                list.truncate(last + 1);
            }
            list.into()
        };
        Self {
            exact: exact.into_iter().map(|(path, list)| (path.as_bytes().into(), cut(list))).collect(),
            prefixes: link(prefixes, cut),
            others: others.into(),
        }
    }

    /// Numbers of routes whose path may fit, ascending.
    pub(super) fn candidates(&self, path: &str) -> Candidates<'_> {
        let exact = if self.exact.is_empty() { None } else { self.exact.get(path.as_bytes()) };
        Candidates { lists: [exact.map_or(&[], |list| list), self.longest_prefix(path), &self.others] }
    }

    fn longest_prefix(&self, path: &str) -> &[u32] {
        let behind = self.prefixes.partition_point(|prefix| &*prefix.text <= path);
        let mut next = behind.checked_sub(1);
        while let Some(prefix) = next.and_then(|index| self.prefixes.get(index)) {
            if path.starts_with(&*prefix.text) {
                return &prefix.routes;
            }
            next = prefix.parent;
        }
        &[]
    }
}

/// Sorted prefixes, each linked to the longest that it begins with.
fn link(sorted: BTreeMap<&str, Vec<u32>>, cut: impl Fn(Vec<u32>) -> Box<[u32]>) -> Vec<Prefix> {
    let mut prefixes: Vec<Prefix> = Vec::with_capacity(sorted.len());
    for (text, mut routes) in sorted {
        let mut parent = prefixes.len().checked_sub(1);
        while let Some(candidate) = parent.and_then(|index| prefixes.get(index)) {
            if text.starts_with(&*candidate.text) {
                routes.extend_from_slice(&candidate.routes);
                break;
            }
            parent = candidate.parent;
        }
        routes.sort_unstable();
        prefixes.push(Prefix { text: text.into(), parent, routes: cut(routes) });
    }
    prefixes
}

/// Ascending candidates of three ascending lists.
pub(super) struct Candidates<'a> {
    lists: [&'a [u32]; 3],
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let smallest = self.lists.iter_mut().filter(|list| !list.is_empty()).min_by_key(|list| list[0])?;
        let (first, rest) = smallest.split_first()?;
        *smallest = rest;
        Some(*first as usize)
    }
}
