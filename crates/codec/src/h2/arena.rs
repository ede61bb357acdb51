//! Small pieces of what was read, kept apart from the read buffer, which they would hold whole.
//!
//! A worker has one block for them, used again from its start when the pieces are gone: a request after the
//! other costs no allocation.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

/// Bytes of the block: what a piece holds at most.
const BLOCK: usize = 4096;

thread_local! {
    static KEPT: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// A copy of `piece`.
pub(crate) fn keep(piece: &[u8]) -> Bytes {
    if piece.is_empty() {
        return Bytes::new();
    }
    KEPT.with_borrow_mut(|kept| {
        if kept.capacity() < piece.len() {
            kept.reserve(piece.len().max(BLOCK));
        }
        kept.extend_from_slice(piece);
        kept.split().freeze()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stay_and_the_block_comes_back() {
        let first = keep(b"first");
        let second = keep(&[7; 3000]);
        assert_eq!((&first[..], second.len()), (&b"first"[..], 3000));
        let large = keep(&[8; 10_000]);
        assert_eq!(large.len(), 10_000);
        let start = keep(b"x").as_ptr();
        drop((first, second, large));
        for _ in 0..100 {
            let piece = keep(&[9; 1000]);
            assert!(piece.iter().all(|byte| *byte == 9));
        }
        assert!(!start.is_null());
    }
}
