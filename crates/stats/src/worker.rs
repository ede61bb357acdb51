//! Which shard the current thread writes.
//!
//! Shard 0 belongs to the main thread and to every thread that was never numbered (resolver threads, tests);
//! since it may have several writers its cells are updated with atomic read-modify-writes. Worker `n` takes
//! shard `n + 1` and is its only writer.

use std::cell::Cell;

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Binds the calling thread to shard `index`: 0 is the main thread, `n + 1` is worker `n`.
///
/// To be called once at the start of each worker thread. Two live threads must not share an index above 0:
/// their increments would overwrite each other. An index beyond the store's shards falls back to shard 0.
pub fn set_worker(index: usize) {
    WORKER.with(|w| w.set(index));
}

/// Shard index of the calling thread; 0 unless [`set_worker`] was called.
#[inline]
pub fn worker_index() -> usize {
    WORKER.with(Cell::get)
}
