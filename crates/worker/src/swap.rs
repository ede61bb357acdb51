//! A value that is replaced as a whole while others read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

/// A published value: readers load it without a lock, one publisher replaces it.
#[derive(Debug)]
pub struct Swap<T> {
    value: ArcSwap<T>,
    generation: AtomicU64,
}

impl<T> Swap<T> {
    /// The first value, generation 1.
    pub fn new(value: T) -> Self {
        Self { value: ArcSwap::from_pointee(value), generation: AtomicU64::new(1) }
    }

    /// The value now. Costs a reference count: on a hot path use a [`Reader`].
    pub fn load(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// Replaces the value and returns its generation.
    pub fn publish(&self, value: Arc<T>) -> u64 {
        self.value.store(value);
        self.generation.fetch_add(1, Ordering::Release) + 1
    }

    /// How many values were published. A reader that sees generation `n` loads value `n` or a later one.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// One thread's view of a [`Swap`]: looking costs one atomic load while nothing changes.
#[derive(Debug)]
pub struct Reader<T> {
    swap: Arc<Swap<T>>,
    generation: u64,
    value: Arc<T>,
}

impl<T> Reader<T> {
    /// A view of `swap`.
    pub fn new(swap: Arc<Swap<T>>) -> Self {
        // The generation first: read after the value it could hide a newer one.
        let generation = swap.generation();
        let value = swap.load();
        Self { swap, generation, value }
    }

    /// The value now.
    pub fn load(&mut self) -> &Arc<T> {
        let generation = self.swap.generation();
        if generation != self.generation {
            self.generation = generation;
            self.value = self.swap.load();
        }
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_follows_what_is_published() {
        let swap = Arc::new(Swap::new(1));
        let mut reader = Reader::new(swap.clone());
        assert_eq!((**reader.load(), swap.generation()), (1, 1));
        assert_eq!(swap.publish(Arc::new(2)), 2);
        assert_eq!((**reader.load(), *swap.load()), (2, 2));
    }
}
