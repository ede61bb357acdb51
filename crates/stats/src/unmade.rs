//! Statistics that are listed with 0 and not made yet: most of many clusters are never asked for anything.
//!
//! Whoever makes them at their first use implements [`Unmade`] and tells the store of itself
//! ([`crate::Store::list_unmade`]).

use std::collections::HashSet;
use std::fmt;
use std::sync::Weak;

use crate::block::Kind;
use crate::scope::Scope;
use crate::store::{Key, key};

/// Somebody who makes statistics at their first use.
pub trait Unmade: Send + Sync {
    /// Adds what is not made yet, with the `outline` functions of its types. It makes and drops no statistics, since the
    /// store is locked meanwhile.
    fn outline(&self, outline: &mut Outline<'_>);
}

/// Collects what there is by name only.
pub struct Outline<'a> {
    /// Whether it was made by somebody else.
    pub(crate) is_made: &'a dyn Fn(&Key) -> bool,
    pub(crate) seen: HashSet<Key>,
    pub(crate) all: Vec<(&'static Kind, Scope)>,
}

impl Outline<'_> {
    /// Adds the statistics of `kind` in `scope`, unless they are there or were added. Called by what
    /// [`crate::stat_block!`] expands to.
    pub fn add(&mut self, kind: &'static Kind, scope: &Scope) {
        let key = key(kind, scope);
        if !(self.is_made)(&key) && self.seen.insert(key) {
            self.all.push((kind, scope.clone()));
        }
    }
}

impl fmt::Debug for Outline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outline").field("all", &self.all).finish_non_exhaustive()
    }
}

/// Those of a store. Whoever is gone is forgotten when there is no more room.
#[derive(Default)]
pub(crate) struct Makers(pub(crate) Vec<Weak<dyn Unmade>>);

impl Makers {
    pub(crate) fn push(&mut self, maker: Weak<dyn Unmade>) {
        if self.0.len() == self.0.capacity() {
            self.0.retain(|maker| maker.strong_count() > 0);
        }
        self.0.push(maker);
    }
}

impl fmt::Debug for Makers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Makers").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use super::*;
    use crate::Store;
    use crate::render::{Filter, text};

    crate::stat_block! {
        struct Lazy { counters { asked } gauges { busy } }
    }

    struct Maker {
        store: Store,
        scope: Scope,
        made: OnceLock<Lazy>,
    }

    impl Maker {
        fn new(store: &Store, name: &str) -> Arc<Self> {
            let maker =
                Arc::new(Self { store: store.clone(), scope: Scope::cluster(name), made: OnceLock::new() });
            let weak = Arc::downgrade(&maker);
            store.list_unmade(weak);
            maker
        }

        fn stats(&self) -> &Lazy {
            self.made.get_or_init(|| Lazy::new(&self.store, self.scope.clone()))
        }
    }

    impl Unmade for Maker {
        fn outline(&self, outline: &mut Outline<'_>) {
            if self.made.get().is_none() {
                Lazy::outline(&self.scope, outline);
            }
        }
    }

    #[test]
    fn what_is_not_made_is_listed_once_and_makes_nothing() {
        let store = Store::new(1);
        let (old, new) = (Maker::new(&store, "a"), Maker::new(&store, "a"));
        let listed = || text(&store, &Filter::default());
        assert_eq!(listed(), "cluster.a.asked: 0\ncluster.a.busy: 0\n");
        assert_eq!(store.scopes(), 0);
        assert!(!Lazy::lives(&store, &old.scope));
        old.stats().asked().inc();
        assert!(Lazy::lives(&store, &old.scope));
        assert_eq!(listed(), "cluster.a.asked: 1\ncluster.a.busy: 0\n");
        assert_eq!(new.stats().asked().value(), 1);
        drop((old, new));
        assert_eq!(listed(), "");
    }

    #[test]
    fn makers_that_are_gone_take_no_room() {
        let store = Store::new(1);
        for _ in 0..1000 {
            Maker::new(&store, "a");
        }
        assert!(store.makers() < 10);
    }
}
