//! Statistics whose names are known only at run time (`ssl.ciphers.X`, a filter's own counters).

use std::sync::Arc;

use crate::block::{Block, Kind, Listed};
use crate::handle::{OwnedCounter, OwnedGauge, OwnedHistogram};
use crate::scope::Scope;
use crate::store::Store;

/// A scope that grows by name. Each look-up takes a lock: done once, at config time or at the first use of
/// a name; the handle is kept. Statistics appear in the output once they were asked for.
#[derive(Clone, Debug)]
pub struct DynScope {
    block: Arc<Block>,
}

/// What a filter counts for itself, under a scope that its factory was given.
pub type FilterStats = DynScope;

impl DynScope {
    /// The dynamic statistics of `scope`: those already living in `store`, or none yet.
    pub fn new(store: &Store, scope: Scope) -> Self {
        Self { block: store.block(&DYNAMIC, scope) }
    }

    /// Whether someone holds the dynamic statistics of `scope`.
    pub fn lives(store: &Store, scope: &Scope) -> bool {
        store.find(&DYNAMIC, scope).is_some()
    }

    /// A scope that no store prints, for tests.
    pub fn detached() -> Self {
        Self { block: Block::detached(&DYNAMIC, 1) }
    }

    /// The counter `name` (may contain dots), made at its first use.
    pub fn counter(&self, name: &str) -> OwnedCounter {
        OwnedCounter::child(self.block.clone(), self.block.child(&ONE_COUNTER, name))
    }

    /// The gauge `name`, made at its first use.
    pub fn gauge(&self, name: &str) -> OwnedGauge {
        OwnedGauge::child(self.block.clone(), self.block.child(&ONE_GAUGE, name))
    }

    /// The histogram `name`, made at its first use.
    pub fn histogram(&self, name: &str) -> OwnedHistogram {
        OwnedHistogram::child(self.block.clone(), self.block.child(&ONE_HISTOGRAM, name))
    }

    /// The scope of these statistics.
    pub fn scope(&self) -> &Scope {
        self.block.scope()
    }
}

static DYNAMIC: Kind = Kind { counters: &[], gauges: &[], histograms: &[], listed: Listed::Always };
static ONE_COUNTER: Kind = Kind { counters: &[""], ..EMPTY };
static ONE_GAUGE: Kind = Kind { gauges: &[""], ..EMPTY };
static ONE_HISTOGRAM: Kind = Kind { histograms: &[""], ..EMPTY };

const EMPTY: Kind = Kind { counters: &[], gauges: &[], histograms: &[], listed: Listed::Always };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_statistic() {
        let store = Store::new(1);
        let scope = DynScope::new(&store, Scope::cluster("a"));
        scope.counter("ssl.ciphers.X").inc();
        scope.counter("ssl.ciphers.X").inc();
        assert_eq!(scope.counter("ssl.ciphers.X").value(), 2);
        assert_eq!(scope.counter("ssl.ciphers.Y").value(), 0);
        scope.gauge("g").set(3);
        assert_eq!(scope.gauge("g").value(), 3);
    }

    #[test]
    fn a_stored_counter_keeps_the_scope_listed() {
        let store = Store::new(1);
        let counter = DynScope::new(&store, Scope::cluster("a")).counter("x");
        counter.inc();
        assert_eq!(store.scopes(), 1);
        assert_eq!(DynScope::new(&store, Scope::cluster("a")).counter("x").value(), 1);
        drop(counter);
        assert_eq!(store.scopes(), 0);
    }
}
