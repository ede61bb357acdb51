//! What the user's `stats_config` says: which statistics exist at all, and which further labels they carry.
//!
//! Names are looked at once, when a scope is made, never while requests run. The policy of a store is set
//! before its first scope and stays, as in Envoy, whose bootstrap is static. What a pattern is, and where in
//! the file it stands, is the caller's business. Start from [`Policy`].

use std::fmt;

use crate::block::Kind;
use crate::scope::Scope;
use crate::tags::TagRules;

/// The rules of a store. The default accepts everything and adds no label.
#[derive(Default)]
pub struct Policy {
    /// Whether the statistic of this full dotted name exists; `None`: all do.
    pub accepts: Option<Box<Accepts>>,
    /// Labels in the Prometheus format.
    pub tags: TagRules,
}

/// A test of a full dotted name (`cluster.app.upstream_cx_total`).
pub type Accepts = dyn Fn(&str) -> bool + Send + Sync;

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accepts = self.accepts.as_ref().map(|_| "..");
        f.debug_struct("Policy").field("accepts", &accepts).field("tags", &self.tags).finish()
    }
}

/// The statistics of one scope that do not exist, by the position of their cells and then of the
/// histograms. Nearly always none: then a null pointer.
#[derive(Debug, Default)]
pub(crate) struct Rejected(Option<Box<[bool]>>);

impl Rejected {
    /// Asks `accepts` about every statistic of `kind` in `scope`; `name` is that of a child's only one.
    pub(crate) fn of(kind: &Kind, scope: &Scope, name: &str, accepts: Option<&Accepts>) -> Self {
        let Some(accepts) = accepts else { return Self(None) };
        let mut full = String::from(scope.prefix());
        let names = kind.counters.iter().chain(kind.gauges).chain(kind.histograms);
        let rejected: Box<[bool]> = names
            .map(|in_kind| {
                full.truncate(scope.prefix().len());
                full.push_str(if name.is_empty() { in_kind } else { name });
                !accepts(&full)
            })
            .collect();
        Self(rejected.contains(&true).then_some(rejected))
    }

    /// Whether the statistic at `position` does not exist.
    #[inline]
    pub(crate) fn has(&self, position: usize) -> bool {
        self.0.as_ref().is_some_and(|rejected| rejected.get(position).copied().unwrap_or(false))
    }

    /// How many of the positions `from..to` need a cell: all up to the last one that exists.
    pub(crate) fn cells(&self, from: usize, to: usize) -> usize {
        match &self.0 {
            None => to - from,
            Some(_) => (from..to).rev().find(|at| !self.has(*at)).map_or(0, |last| last + 1 - from),
        }
    }
}
