//! Response code counters: `upstream_rq_200`, `upstream_rq_2xx`, `upstream_rq_completed`, plain and under
//! `external.`, `internal.`, `retry.` and `canary.`.
//!
//! They are absent from the output until first used (Envoy's code statistics are dynamic). A recorded status
//! costs a table look-up and three cells; only statuses that no registry knows go through a [`DynScope`],
//! once per status.

use std::sync::{Arc, OnceLock};

use crate::block::{Block, Kind, Listed};
use crate::dynamic::DynScope;
use crate::handle::OwnedCounter;
use crate::scope::Scope;
use crate::store::Store;

/// For whom a response code is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodePrefix {
    /// Every response: no prefix.
    All,
    /// `external.`: the request came from outside.
    External,
    /// `internal.`: the request carried a trusted `x-envoy-internal`.
    Internal,
    /// `retry.`: an upstream answer that was replaced by a retry.
    Retry,
    /// `canary.`: the host was marked a canary.
    Canary,
}

/// The response code counters of one scope (a cluster, a virtual cluster). Clones share the counters.
#[derive(Clone, Debug)]
pub struct CodeCounters {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    scope: Scope,
    groups: [OnceLock<Box<Group>>; PREFIXES.len()],
}

/// The counters under one prefix, made at the first response.
#[derive(Debug)]
struct Group {
    codes: Arc<Block>,
    rare: OnceLock<Box<Rare>>,
}

/// Counters of unregistered statuses, by `status - 100`.
#[derive(Debug)]
struct Rare {
    scope: DynScope,
    counters: [OnceLock<OwnedCounter>; 500],
    unknown: OnceLock<OwnedCounter>,
}

impl CodeCounters {
    /// The counters of `scope`; those that live in `store` under the same scope go on.
    pub fn new(store: &Store, scope: Scope) -> Self {
        let groups = [const { OnceLock::new() }; PREFIXES.len()];
        // There is nothing to look for while none of many clusters has served.
        let living = store.has_late().then_some(&groups);
        for (prefix, slot) in PREFIXES.iter().zip(living.into_iter().flatten()) {
            let scope = prefixed(&scope, prefix);
            let Some(codes) = store.find(&CODES, &scope) else { continue };
            let group = Group { codes, rare: OnceLock::new() };
            if DynScope::lives(store, &scope) {
                let _ = group.rare.set(Rare::new(store, scope));
            }
            let _ = slot.set(Box::new(group));
        }
        Self { inner: Arc::new(Inner { store: store.clone(), scope, groups }) }
    }

    /// Counters that no store prints, for tests.
    pub fn detached() -> Self {
        Self::new(&Store::new(1), Scope::root())
    }

    /// Counts a final response status under no prefix: its code, its class and `completed`.
    #[inline]
    pub fn record(&self, status: u16) {
        self.record_as(CodePrefix::All, status);
    }

    /// Counts a final response status under a prefix. A status outside 100..=599 counts as `unknown`.
    #[inline]
    pub fn record_as(&self, prefix: CodePrefix, status: u16) {
        let Some(group) = self.inner.group(prefix) else { return };
        group.codes.add(COMPLETED, 1);
        let Some(offset) = status.checked_sub(100).map(usize::from).filter(|o| *o < 500) else {
            return group.rare(&self.inner, prefix).unknown();
        };
        group.codes.add(CLASSES + offset / 100, 1);
        match CELL_OF[offset] {
            NO_CELL => group.rare(&self.inner, prefix).count(offset),
            cell => group.codes.add(cell as usize, 1),
        }
    }

    /// How often a status was recorded under a prefix since the last reset, summed over workers.
    pub fn value(&self, prefix: CodePrefix, status: u16) -> u64 {
        let Some(group) = self.inner.groups[prefix as usize].get() else { return 0 };
        let Some(offset) = status.checked_sub(100).map(usize::from).filter(|o| *o < 500) else { return 0 };
        match CELL_OF[offset] {
            NO_CELL => {
                let rare = group.rare.get().and_then(|r| r.counters[offset].get());
                rare.map_or(0, OwnedCounter::value)
            }
            cell => group.codes.counter(cell as usize),
        }
    }
}

impl Inner {
    #[inline]
    fn group(&self, prefix: CodePrefix) -> Option<&Group> {
        let slot = self.groups.get(prefix as usize)?;
        Some(slot.get_or_init(|| {
            let codes = self.store.block(&CODES, prefixed(&self.scope, PREFIXES[prefix as usize]));
            Box::new(Group { codes, rare: OnceLock::new() })
        }))
    }
}

impl Group {
    #[cold]
    fn rare(&self, inner: &Inner, prefix: CodePrefix) -> &Rare {
        let scope = || prefixed(&inner.scope, PREFIXES[prefix as usize]);
        self.rare.get_or_init(|| Rare::new(&inner.store, scope()))
    }
}

impl Rare {
    fn new(store: &Store, scope: Scope) -> Box<Self> {
        let counters = [const { OnceLock::new() }; 500];
        Box::new(Self { scope: DynScope::new(store, scope), counters, unknown: OnceLock::new() })
    }

    fn count(&self, offset: usize) {
        let Some(slot) = self.counters.get(offset) else { return };
        slot.get_or_init(|| self.scope.counter(&format!("upstream_rq_{}", offset + 100))).inc();
    }

    fn unknown(&self) {
        self.unknown.get_or_init(|| self.scope.counter("upstream_rq_unknown")).inc();
    }
}

fn prefixed(scope: &Scope, prefix: &str) -> Scope {
    if prefix.is_empty() { scope.clone() } else { scope.child(prefix) }
}

/// By `CodePrefix as usize`.
const PREFIXES: [&str; 5] = ["", "external", "internal", "retry", "canary"];

/// Statuses with a cell of their own: the IANA registry, and what common servers and CDNs add to it.
macro_rules! codes {
    ($($code:literal)*) => {
        static CODES: Kind = Kind {
            counters: &[
                "upstream_rq_completed",
                "upstream_rq_1xx", "upstream_rq_2xx", "upstream_rq_3xx", "upstream_rq_4xx", "upstream_rq_5xx",
                $(concat!("upstream_rq_", $code),)*
            ],
            gauges: &[],
            histograms: &[],
            listed: Listed::OnceUsed,
        };

        /// The cell of a status, by `status - 100`.
        static CELL_OF: [u8; 500] = {
            let codes: &[usize] = &[$($code),*];
            let mut cells = [NO_CELL; 500];
            let mut i = 0;
            while i < codes.len() {
                cells[codes[i] - 100] = (FIRST_CODE + i) as u8;
                i += 1;
            }
            cells
        };
    };
}

codes! {
    100 101 102 103
    200 201 202 203 204 205 206 207 208 226
    300 301 302 303 304 305 307 308
    400 401 402 403 404 405 406 407 408 409 410 411 412 413 414 415 416 417 418 421 422 423 424 425 426 428
    429 431 451 499
    500 501 502 503 504 505 506 507 508 510 511 520 521 522 523 524 525 526
}

const COMPLETED: usize = 0;
const CLASSES: usize = 1;
const FIRST_CODE: usize = 6;
const NO_CELL: u8 = u8::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{Filter, text};

    #[test]
    fn codes_appear_at_first_use_with_class_and_completed() {
        let store = Store::new(1);
        let codes = CodeCounters::new(&store, Scope::cluster("a"));
        assert_eq!(text(&store, &Filter::default()), "");
        codes.record(200);
        codes.record(204);
        codes.record_as(CodePrefix::Retry, 503);
        codes.record_as(CodePrefix::External, 299);
        codes.record(42);
        let expected = "cluster.a.external.upstream_rq_299: 1\n\
            cluster.a.external.upstream_rq_2xx: 1\n\
            cluster.a.external.upstream_rq_completed: 1\n\
            cluster.a.retry.upstream_rq_503: 1\n\
            cluster.a.retry.upstream_rq_5xx: 1\n\
            cluster.a.retry.upstream_rq_completed: 1\n\
            cluster.a.upstream_rq_200: 1\n\
            cluster.a.upstream_rq_204: 1\n\
            cluster.a.upstream_rq_2xx: 2\n\
            cluster.a.upstream_rq_completed: 3\n\
            cluster.a.upstream_rq_unknown: 1\n";
        assert_eq!(text(&store, &Filter::default()), expected);
        assert_eq!(codes.value(CodePrefix::External, 299), 1);
        assert_eq!(codes.value(CodePrefix::All, 204), 1);
    }

    #[test]
    fn counts_go_on_after_a_reload() {
        let store = Store::new(1);
        let old = CodeCounters::new(&store, Scope::cluster("a"));
        old.record(200);
        old.record(299);
        let new = CodeCounters::new(&store, Scope::cluster("a"));
        drop(old);
        new.record(200);
        assert_eq!(new.value(CodePrefix::All, 200), 2);
        assert!(text(&store, &Filter::default()).contains("cluster.a.upstream_rq_299: 1\n"));
        drop(new);
        assert_eq!(store.scopes(), 0);
    }
}
