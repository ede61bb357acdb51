//! What a renderer prints, collected from the store: borrowed names and summed values, filtered and sorted.

use std::cmp::Ordering;
use std::fmt::Write;
use std::sync::Arc;

use super::{Filter, Types, UsedOnly};
use crate::block::{Block, Listed};
use crate::histogram::{Merged, Summary};
use crate::scope::Scope;

/// A statistic with its value at this moment.
pub(super) struct Sample<'a, V> {
    pub(super) scope: &'a Scope,
    pub(super) name: &'a str,
    pub(super) value: V,
}

/// The value of a histogram as of the last flush; `None` if it had none by then.
pub(super) type Views = Option<Merged>;

impl<V> Sample<'_, V> {
    /// Compares full names without building them: 10,000 clusters have over a million.
    fn cmp_name(&self, other: &Self) -> Ordering {
        let (a, b) = (self.scope.shared_prefix(), other.scope.shared_prefix());
        if Arc::ptr_eq(a, b) || a == b {
            return self.name.cmp(other.name);
        }
        // Different up to the shorter one's end, as nearly always: that decides, at the speed of memcmp.
        let common = a.len().min(b.len());
        match a.as_bytes()[..common].cmp(&b.as_bytes()[..common]) {
            Ordering::Equal => {}
            decided => return decided,
        }
        a.bytes().chain(self.name.bytes()).cmp(b.bytes().chain(other.name.bytes()))
    }

    pub(super) fn push_name(&self, out: &mut String) {
        out.push_str(self.scope.prefix());
        out.push_str(self.name);
    }
}

/// Prints the quantile `percent`, or `none` if nothing was recorded.
pub(super) fn push_quantile(summary: &Summary, percent: f64, none: &str, out: &mut String) {
    let _ = match summary.quantile(percent / 100.0) {
        Some(value) => write!(out, "{value}"),
        None => out.write_str(none),
    };
}

/// All counters that pass the filter, sorted by name.
pub(super) fn counters<'a>(blocks: &'a [Arc<Block>], filter: &Filter<'_>) -> Vec<Sample<'a, u64>> {
    if !matches!(filter.types, Types::All | Types::Counters) {
        return Vec::new();
    }
    let mut all = Collector::new(filter);
    for block in blocks {
        for (index, name) in
            block.kind().counters.iter().enumerate().filter(|(index, _)| block.has_counter(*index))
        {
            let used = block.raw_counter(index) != 0;
            all.offer(block, name, used, || block.counter(index));
        }
    }
    all.sorted(|into, from| *into = into.wrapping_add(from))
}

/// All gauges that pass the filter, sorted by name.
pub(super) fn gauges<'a>(blocks: &'a [Arc<Block>], filter: &Filter<'_>) -> Vec<Sample<'a, u64>> {
    if !matches!(filter.types, Types::All | Types::Gauges) {
        return Vec::new();
    }
    let mut all = Collector::new(filter);
    for block in blocks {
        for (index, name) in
            block.kind().gauges.iter().enumerate().filter(|(index, _)| block.has_gauge(*index))
        {
            let value = block.gauge(index);
            let print = match *name {
                // Of a configuration: Envoy's is a hash of 64 bits.
                "version" => i64::cast_unsigned,
                name if name.starts_with("remaining_") => remaining,
                _ => |value: i64| value.max(0) as u64,
            };
            all.offer(block, name, value.is_some(), || value.map_or(0, print));
        }
    }
    all.sorted(|into, from| *into = into.saturating_add(from))
}

/// What remains of a limit, in print. One of the highest values is something less than no limit at all, which is
/// Envoy's 2^64-1.
fn remaining(value: i64) -> u64 {
    const ENDLESS: i64 = i64::MAX - (1 << 32);
    if value > ENDLESS { u64::MAX - (i64::MAX - value) as u64 } else { value.max(0) as u64 }
}

/// All histograms that pass the filter, sorted by name.
pub(super) fn histograms<'a>(blocks: &'a [Arc<Block>], filter: &Filter<'_>) -> Vec<Sample<'a, Views>> {
    if !matches!(filter.types, Types::All | Types::Histograms) {
        return Vec::new();
    }
    let mut all = Collector::new(filter);
    for block in blocks {
        for (index, name) in
            block.kind().histograms.iter().enumerate().filter(|(index, _)| block.has_histogram(*index))
        {
            let views = block.merged(index);
            all.offer(block, name, views.is_some(), || views);
        }
    }
    all.sorted(|into, from| *into = into.take().or(from))
}

/// Counters and gauges in one list sorted by name, as text and JSON show them.
pub(super) fn numbers<'a>(blocks: &'a [Arc<Block>], filter: &Filter<'_>) -> Vec<Sample<'a, u64>> {
    let mut all = counters(blocks, filter);
    all.extend(gauges(blocks, filter));
    all.sort_by(Sample::cmp_name);
    all
}

struct Collector<'a, 'f, V> {
    filter: &'f Filter<'f>,
    samples: Vec<Sample<'a, V>>,
    full_name: String,
}

impl<'a, 'f, V> Collector<'a, 'f, V> {
    fn new(filter: &'f Filter<'_>) -> Self {
        Self { filter, samples: Vec::new(), full_name: String::new() }
    }

    fn offer(&mut self, block: &'a Block, name: &'static str, used: bool, value: impl FnOnce() -> V) {
        let hidden = self.filter.used_only == UsedOnly::Yes || block.kind().listed == Listed::OnceUsed;
        if hidden && !used {
            return;
        }
        let (scope, name) = (block.scope(), block.stat_name(name));
        if let Some(accepts) = self.filter.name {
            self.full_name.clear();
            self.full_name.push_str(scope.prefix());
            self.full_name.push_str(name);
            if !accepts(&self.full_name) {
                return;
            }
        }
        self.samples.push(Sample { scope, name, value: value() });
    }

    /// Sorts, and merges what two scopes call by the same name: a name is never printed twice.
    fn sorted(mut self, merge: impl Fn(&mut V, V)) -> Vec<Sample<'a, V>>
    where
        V: Default,
    {
        self.samples.sort_by(Sample::cmp_name);
        self.samples.dedup_by(|later, first| {
            let same = later.cmp_name(first).is_eq();
            if same {
                merge(&mut first.value, std::mem::take(&mut later.value));
            }
            same
        });
        self.samples
    }
}
