//! Blocks for reading and writing in batches. A connection holds one only while bytes are in it, so a worker's
//! connections take turns with a few.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes of a block: one `recv` or `send` of a connection under load.
pub(super) const BLOCK: usize = 32 * 1024;

/// Blocks kept by a worker (256 KB): bounds what a burst leaves behind.
const MAX_KEPT: usize = 8;

thread_local! {
    static KEPT: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty block.
pub(super) fn take() -> BytesMut {
    let mut block = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
    // Takes the block's consumed front back, too: nobody else holds a part of it.
    block.reserve(BLOCK);
    block
}

/// Gives a block back.
pub(super) fn give(mut block: BytesMut) {
    if block.capacity() == 0 {
        return;
    }
    block.clear();
    KEPT.with_borrow_mut(|kept| {
        if kept.len() < MAX_KEPT {
            kept.push(block);
        }
    });
}
