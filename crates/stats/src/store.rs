//! The store: every scope of the process, found again by name and kind.
//!
//! The store holds its blocks weakly. The last handle of a removed cluster takes its statistics along; a
//! cluster that a reload rebuilds while the old one lives gets the same block, so that counters go on and
//! never appear twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use crate::block::{Block, Kind, Listed, lock};
use crate::histogram::Dense;
use crate::policy::{Accepts, Policy};
use crate::scope::Scope;
use crate::tags::TagRules;
use crate::unmade::{Makers, Outline, Unmade};

/// All statistics of the process. A cheap handle: clones share the same store.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<StoreInner>,
}

#[derive(Debug)]
pub(crate) struct StoreInner {
    shards: usize,
    blocks: Mutex<HashMap<Key, Weak<Block>, BuildHasherDefault<NameHasher>>>,
    /// Those who have statistics that are not made yet.
    makers: Mutex<Makers>,
    /// Some block was made of a kind that is listed once used.
    has_late: AtomicBool,
    /// Envoy's text readouts, by full name.
    texts: Mutex<BTreeMap<String, Box<str>>>,
    policy: OnceLock<Policy>,
}

/// A scope's prefix and the address of its kind (kinds are statics).
pub(crate) type Key = (Arc<str>, usize);

impl Store {
    /// A store for `shards` writing threads: the number of workers, plus 1 for the main thread.
    pub fn new(shards: usize) -> Self {
        let inner = StoreInner {
            shards: shards.max(1),
            blocks: Mutex::default(),
            makers: Mutex::default(),
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

    /// Lists from now on what `maker` has not made yet, as long as it lives.
    pub fn list_unmade(&self, maker: Weak<dyn Unmade>) {
        lock(&self.inner.makers).push(maker);
    }

    /// Whether someone holds the block of `scope` and `kind`. Called by what [`crate::stat_block!`] expands to.
    pub fn lives(&self, kind: &'static Kind, scope: &Scope) -> bool {
        lock(&self.inner.blocks).get(&key(kind, scope)).is_some_and(|block| block.strong_count() > 0)
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

    /// Those who may have statistics that are not made yet, for tests.
    #[cfg(test)]
    pub(crate) fn makers(&self) -> usize {
        lock(&self.inner.makers).0.len()
    }

    /// What there is to print: all living blocks, and such as stand in for those that are not made yet.
    pub(crate) fn listed(&self) -> Vec<Arc<Block>> {
        // Dropped without the lock, since they may be the last handles of blocks.
        let makers: Vec<_> = lock(&self.inner.makers).0.iter().filter_map(Weak::upgrade).collect();
        let blocks = lock(&self.inner.blocks);
        let mut all: Vec<_> = blocks.values().filter_map(Weak::upgrade).collect();
        let is_made = |key: &Key| blocks.get(key).is_some_and(|block| block.strong_count() > 0);
        let mut outline = Outline { is_made: &is_made, seen: HashSet::new(), all: Vec::new() };
        makers.iter().for_each(|maker| maker.outline(&mut outline));
        let unmade = outline.all;
        drop(blocks);
        let accepts = self.inner.accepts();
        let children: Vec<_> = all.iter().flat_map(|block| block.children()).collect();
        all.extend(children);
        let stand_in = |(kind, scope)| Arc::new(Block::build(kind, scope, "", 1, Weak::new(), accepts));
        all.extend(unmade.into_iter().map(stand_in));
        all
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

pub(crate) fn key(kind: &'static Kind, scope: &Scope) -> Key {
    (scope.shared_prefix().clone(), std::ptr::from_ref(kind).addr())
}

/// Hashes names that the operator chose, of which there are tens of thousands at a start: nobody else can make them
/// collide, so that the standard library's costlier hash protects from nothing here.
#[derive(Debug, Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(ODD);
    }

    fn finish(&self) -> u64 {
        // The high bits are the best mixed ones, and tables begin with the low ones.
        self.0.rotate_left(26)
    }
}

/// A multiplier with as many ones as zeros, scattered.
const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, BuildHasherDefault};

    use super::NameHasher;

    #[test]
    fn names_that_differ_little_are_hashed_apart() {
        let hashes = BuildHasherDefault::<NameHasher>::default();
        let mut low = vec![0_u8; 1 << 16];
        for number in 0..10_000 {
            for kind in 0..6_usize {
                let hash =
                    hashes.hash_one((format!("cluster.cluster_{number:05}."), 0x5555_0000 + kind * 104));
                low[hash as usize & 0xffff] += 1;
            }
        }
        assert!(low.iter().all(|bucket| *bucket < 16), "{:?}", low.iter().max());
    }
}
