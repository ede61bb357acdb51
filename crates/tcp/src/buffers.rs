//! Buffers for bytes that are copied: a worker's few, lent for as long as something is in them.

use std::cell::RefCell;

use bytes::BytesMut;

/// As much as a small message and its answer need, and what one read of a busy socket gives (HAProxy's
/// `tune.bufsize` and Envoy's read size are the same).
pub(crate) const SIZE: usize = 16 * 1024;

/// Kept for later by a worker: a buffer is used for the length of one poll unless its receiver is slow.
const MAX_FREE: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer of `min(SIZE, limit)` bytes.
pub(crate) fn take(limit: usize) -> BytesMut {
    if limit < SIZE {
        return BytesMut::with_capacity(limit.max(1));
    }
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(SIZE))
}

/// Gives a buffer back.
pub(crate) fn give(mut buffer: BytesMut) {
    if buffer.capacity() < SIZE {
        return;
    }
    buffer.clear();
    // A thread that ends has no list any more.
    let _ = FREE.try_with(|free| {
        let mut free = free.borrow_mut();
        if free.len() < MAX_FREE {
            free.push(buffer);
        }
    });
}
