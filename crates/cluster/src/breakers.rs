//! The circuit breakers of a cluster, made when somebody first needs them: most of many clusters are never asked.
//!
//! Their gauges are listed from the start ([`crate::stats::InUse`]). What a limit is and does is in
//! [`tidegate_pool::limits`].

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tidegate_config::route::Priority;
use tidegate_pool::limits::{Limits, Maxima};
use tidegate_pool::stats::{BreakerStats, RemainingStats};
use tidegate_stats::{Scope, Store};

use crate::stats::BREAKERS;

/// See the module. A cluster shares them with the one that replaces it, whose connections drain under the same
/// limits: a limit is a limit.
#[derive(Debug)]
pub(crate) struct Breakers {
    /// By priority.
    maxima: ArcSwap<[Maxima; 2]>,
    breakers: [Breaker; 2],
    store: Store,
    /// Their cluster's.
    scope: Scope,
}

/// The breakers of one priority.
#[derive(Debug)]
struct Breaker {
    /// Where `track_remaining` asks for it.
    left: Option<RemainingStats>,
    limits: OnceLock<Arc<Limits>>,
}

impl Breakers {
    /// Those of the cluster that `scope` counts.
    pub(crate) fn new(store: &Store, scope: &Scope, maxima: Arc<[Maxima; 2]>) -> Self {
        let breaker = |priority: Priority| {
            let track = maxima[priority as usize].track_remaining;
            let scope = || scope.child(BREAKERS[priority as usize]);
            Breaker { left: track.then(|| RemainingStats::new(store, scope())), limits: OnceLock::new() }
        };
        let breakers = [Priority::Default, Priority::High].map(breaker);
        let (store, scope) = (store.clone(), scope.clone());
        let all = Self { maxima: ArcSwap::new(maxima), breakers, store, scope };
        for priority in [Priority::Default, Priority::High] {
            if all.breakers[priority as usize].left.is_some() {
                // What is left is shown from the start.
                all.limits(priority);
            }
        }
        all
    }

    /// The limits of a priority.
    pub(crate) fn limits(&self, priority: Priority) -> &Arc<Limits> {
        match self.limits_in_use(priority) {
            Some(limits) => limits,
            None => self.make(priority),
        }
    }

    /// The same, if anybody has needed them yet.
    pub(crate) fn limits_in_use(&self, priority: Priority) -> Option<&Arc<Limits>> {
        self.breakers[priority as usize].limits.get()
    }

    #[cold]
    fn make(&self, priority: Priority) -> &Arc<Limits> {
        let breaker = &self.breakers[priority as usize];
        let mut maxima = self.maxima.load_full();
        let limits = breaker.limits.get_or_init(|| {
            let open = BreakerStats::new(&self.store, self.scope.child(BREAKERS[priority as usize]));
            Arc::new(Limits::counted_in(&maxima[priority as usize], &open, breaker.left.as_ref()))
        });
        // Whoever changed the maxima in the meantime saw no limits to tell of it.
        loop {
            let now = self.maxima.load_full();
            if Arc::ptr_eq(&now, &maxima) {
                return limits;
            }
            limits.set_maxima(&now[priority as usize]);
            maxima = now;
        }
    }

    /// Changes the maxima. On the main thread.
    pub(crate) fn set_maxima(&self, maxima: Arc<[Maxima; 2]>) {
        self.maxima.store(maxima.clone());
        for (breaker, maxima) in self.breakers.iter().zip(&*maxima) {
            if let Some(limits) = breaker.limits.get() {
                limits.set_maxima(maxima);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn they_are_made_with_the_maxima_of_then_and_follow_changes() {
        let store = Store::new(1);
        let of = |connections| {
            let maxima = Maxima { connections, ..Maxima::default() };
            Arc::new([maxima, Maxima { track_remaining: true, ..maxima }])
        };
        let breakers = Breakers::new(&store, &Scope::cluster("a"), of(3));
        assert!(breakers.limits_in_use(Priority::Default).is_none());
        // Its gauges tell what is left.
        assert_eq!(breakers.limits_in_use(Priority::High).unwrap().connections.max(), 3);
        breakers.set_maxima(of(5));
        assert_eq!(breakers.limits(Priority::Default).connections.max(), 5);
        assert_eq!(breakers.limits(Priority::High).connections.max(), 5);
        breakers.set_maxima(of(7));
        assert_eq!(breakers.limits(Priority::Default).connections.max(), 7);
        let gauge = RemainingStats::new(&store, Scope::cluster("a").child("circuit_breakers.high"));
        assert_eq!(gauge.remaining_cx().value(), 7);
    }
}
