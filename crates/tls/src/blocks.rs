//! Buffers for records: a worker's connections take turns with a few blocks, so that a connection under
//! load allocates none and an idle one holds none.

use std::cell::RefCell;

use bytes::BytesMut;

/// Room for two records of the largest size (RFC 8446 §5.2: 2^14 + 256, and 5 of header), read with one
/// `recv`.
pub(crate) const INCOMING: usize = 2 * (16 * 1024 + 256 + 5);

/// Blocks of each kind that a worker keeps: bounds what a burst leaves behind (some 2 MB).
const MAX_KEPT: usize = 32;

/// A larger block than this is given back to the allocator.
const MAX_BLOCK: usize = 40 * 1024;

thread_local! {
    static RECEIVED: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static SENT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty block to receive into, with room for [`INCOMING`] bytes.
pub(crate) fn take_received() -> BytesMut {
    RECEIVED.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(INCOMING))
}

/// Gives back a block; smaller ones (a connection's own) are freed.
pub(crate) fn give_received(mut block: BytesMut) {
    block.clear();
    if (INCOMING..=MAX_BLOCK).contains(&block.capacity()) {
        RECEIVED.with_borrow_mut(|kept| {
            if kept.len() < MAX_KEPT {
                kept.push(block);
            }
        });
    }
}

/// An empty block to encrypt into.
pub(crate) fn take_sent() -> Vec<u8> {
    SENT.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives back a block that was sent.
pub(crate) fn give_sent(mut block: Vec<u8>) {
    block.clear();
    if (1..=MAX_BLOCK).contains(&block.capacity()) {
        SENT.with_borrow_mut(|kept| {
            if kept.len() < MAX_KEPT {
                kept.push(block);
            }
        });
    }
}
