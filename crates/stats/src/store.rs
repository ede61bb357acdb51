//! The store: every scope of the process, found again by name and kind.
//!
//! The store holds its blocks weakly. The last handle of a removed cluster takes its statistics along; a
//! cluster that a reload rebuilds while the old one lives gets the same block, so that counters go on and
//! never appear twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use crate::block::{Block, Kind, Listed, lock};
use crate::histogram::Dense;
use crate::policy::{Accepts, Policy};
use crate::scope::Scope;
use crate::tags::TagRules;

/// All statistics of the process. A cheap handle: clones share the same store.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<StoreInner>,
}

#[derive(Debug)]
pub(crate) struct StoreInner {
    shards: usize,
    blocks: Mutex<HashMap<Key, Weak<Block>>>,
    /// Some block was made of a kind that is listed once used.
    has_late: AtomicBool,
    /// Envoy's text readouts, by full name.
    texts: Mutex<BTreeMap<String, Box<str>>>,
    policy: OnceLock<Policy>,
}

/// A scope's prefix and the address of its kind (kinds are statics).
type Key = (Arc<str>, usize);

impl Store {
    /// A store for `shards` writing threads: the number of workers, plus 1 for the main thread.
    pub fn new(shards: usize) -> Self {
        let inner = StoreInner {
            shards: shards.max(1),
            blocks: Mutex::default(),
            has_late: AtomicBool::new(false),
            texts: Mutex::default(),
            policy: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Sets the user's rules. Scopes that were made before do not know them, so this comes first; the first
    /// policy stays, and false is the answer to a second one.
    pub fn set_policy(&self, policy: Policy) -> bool {
        self.inner.policy.set(policy).is_ok()
    }

    pub(crate) fn tags(&self) -> Option<&TagRules> {
        self.inner.policy.get().map(|policy| &policy.tags).filter(|tags| !tags.is_empty())
    }

    /// The block of `scope` and `kind`: the living one, or a new one. Called by what [`crate::stat_block!`]
    /// expands to.
    pub fn block(&self, kind: &'static Kind, scope: Scope) -> Arc<Block> {
        let mut blocks = lock(&self.inner.blocks);
        let key = key(kind, &scope);
        if let Some(block) = blocks.get(&key).and_then(Weak::upgrade) {
            return block;
        }
        let store = Arc::downgrade(&self.inner);
        let accepts = self.inner.accepts();
        let block = Arc::new(Block::build(kind, scope, "", self.inner.shards, store, accepts));
        blocks.insert(key, Arc::downgrade(&block));
        if kind.listed == Listed::OnceUsed {
            self.inner.has_late.store(true, SeqCst);
        }
        block
    }

    /// Whether there ever was a block of a kind that is listed once used.
    pub(crate) fn has_late(&self) -> bool {
        self.inner.has_late.load(SeqCst)
    }

    /// The living block of `scope` and `kind`, if there is one.
    pub(crate) fn find(&self, kind: &'static Kind, scope: &Scope) -> Option<Arc<Block>> {
        lock(&self.inner.blocks).get(&key(kind, scope)).and_then(Weak::upgrade)
    }

    /// Closes the histograms' interval and adds it to the cumulative view. To be called by the main thread
    /// every `stats_flush_interval` (5 s by default); the printed histograms are those of the last call.
    pub fn flush(&self) {
        let mut scratch = Dense::new();
        for block in self.living() {
            block.flush(&mut scratch);
        }
    }

    /// Makes every counter read 0 from now on (`POST /reset_counters`). As in Envoy, histograms and gauges
    /// keep their values, and a counter once used stays listed under `usedonly`.
    pub fn reset_counters(&self) {
        for block in self.living() {
            block.reset_counters();
        }
    }

    /// Sets a text (Envoy's text readouts: `cluster_manager.cds.version_text`). Not for the data path.
    pub fn set_text(&self, name: &str, value: &str) {
        if self.inner.accepts().is_none_or(|accepts| accepts(name)) {
            lock(&self.inner.texts).insert(name.to_owned(), value.into());
        }
    }

    /// Whoever set the text is gone.
    pub fn forget_text(&self, name: &str) {
        lock(&self.inner.texts).remove(name);
    }

    /// All texts, sorted by name.
    pub(crate) fn texts(&self) -> Vec<(String, Box<str>)> {
        lock(&self.inner.texts).iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Number of living scopes, for tests and the admin's memory view.
    pub fn scopes(&self) -> usize {
        lock(&self.inner.blocks).len()
    }

    /// All living blocks and their children.
    pub(crate) fn living(&self) -> Vec<Arc<Block>> {
        // Upgraded under the lock, dropped by the caller without it: dropping the last handle locks again.
        let mut all: Vec<_> = lock(&self.inner.blocks).values().filter_map(Weak::upgrade).collect();
        let children: Vec<_> = all.iter().flat_map(|b| b.children()).collect();
        all.extend(children);
        all
    }
}

impl StoreInner {
    pub(crate) fn accepts(&self) -> Option<&Accepts> {
        self.policy.get()?.accepts.as_deref()
    }

    /// Called by a dying block. A successor of the same name may already have taken its place.
    pub(crate) fn forget(&self, kind: &'static Kind, scope: &Scope) {
        let key = key(kind, scope);
        let mut blocks = lock(&self.blocks);
        if blocks.get(&key).is_some_and(|b| b.strong_count() == 0) {
            blocks.remove(&key);
        }
    }
}

fn key(kind: &'static Kind, scope: &Scope) -> Key {
    (scope.shared_prefix().clone(), std::ptr::from_ref(kind).addr())
}
