//! Sharing what is mostly the same many times in a row: thousands of clusters, each made with settings of its own, are
//! settled with one copy.
//!
//! Meant for a `thread_local!`; what nobody else holds is not kept alive. Start from [`Recent`].

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Weak};

/// The last few different values.
#[derive(Debug)]
pub struct Recent<T> {
    values: RefCell<[Weak<T>; KINDS]>,
    oldest: Cell<usize>,
}

/// How many different values may alternate and are still found again.
const KINDS: usize = 4;

impl<T> Recent<T> {
    /// None yet.
    pub const fn new() -> Self {
        Self { values: RefCell::new([const { Weak::new() }; KINDS]), oldest: Cell::new(0) }
    }

    /// The value that somebody holds and that is `same` as `new`, or else `new`.
    pub fn share(&self, new: T, same: impl Fn(&T, &T) -> bool) -> Arc<T> {
        let known = self.values.borrow().iter().filter_map(Weak::upgrade).find(|known| same(known, &new));
        known.unwrap_or_else(|| {
            let new = Arc::new(new);
            let oldest = self.oldest.get();
            if let Some(slot) = self.values.borrow_mut().get_mut(oldest) {
                *slot = Arc::downgrade(&new);
            }
            self.oldest.set((oldest + 1) % KINDS);
            new
        })
    }
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_shared_while_somebody_holds_them() {
        let recent = Recent::new();
        let share = |value: u32| recent.share(value, |one, other| one == other);
        let (one, two) = (share(1), share(2));
        assert!(Arc::ptr_eq(&one, &share(1)) && Arc::ptr_eq(&two, &share(2)));
        let weak = Arc::downgrade(&one);
        drop(one);
        assert!(weak.upgrade().is_none());
        // More kinds than it knows: the oldest is forgotten.
        let others: Vec<_> = (10..14).map(share).collect();
        assert!(!Arc::ptr_eq(&two, &share(2)));
        assert!(Arc::ptr_eq(&others[3], &share(13)));
    }
}
