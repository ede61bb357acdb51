//! Encrypted bytes that were received and not yet understood.

use bytes::BytesMut;

use crate::blocks;

/// Behind `start` lies what is still to be processed; rustls works on it in place. Without bytes there is
/// no block.
#[derive(Debug, Default)]
pub(crate) struct Received {
    block: BytesMut,
    start: usize,
    /// Whether what was discarded can still be had back by [`Received::rewind`].
    rewindable: bool,
}

impl Received {
    /// Keeps what is discarded until [`Received::forget`].
    pub(crate) fn rewindable() -> Self {
        Self { rewindable: true, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.block.len()
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.block.get_mut(self.start..).unwrap_or_default()
    }

    pub(crate) fn discard(&mut self, count: usize) {
        self.start += count.min(self.block.len() - self.start);
        if self.is_empty() && !self.rewindable {
            self.release();
        }
    }

    /// Undoes all discarding.
    pub(crate) fn rewind(&mut self) {
        self.start = 0;
    }

    /// Gives up what was discarded.
    pub(crate) fn forget(&mut self) {
        self.rewindable = false;
        self.discard(0);
    }

    /// The block, with room for one more read behind what it holds; `None` if a message is too large for it.
    pub(crate) fn room(&mut self) -> Option<&mut BytesMut> {
        if self.block.capacity() == 0 {
            self.block = blocks::take_received();
            self.start = 0;
        }
        if self.block.capacity() - self.block.len() < ENOUGH {
            if self.start > 0 && !self.rewindable {
                let length = self.block.len() - self.start;
                self.block.copy_within(self.start.., 0);
                self.block.truncate(length);
                self.start = 0;
            }
            if self.block.len() > MAX_HELD {
                return None;
            }
            let spare = self.block.capacity() - self.block.len();
            if spare < ENOUGH {
                self.block.reserve(blocks::INCOMING);
            }
        }
        Some(&mut self.block)
    }

    /// Nothing comes for now: a connection that waits holds no more than it must.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() && !self.rewindable {
            return self.release();
        }
        let held = self.block.len();
        if held < SMALL && self.block.capacity() > 2 * SMALL {
            let own = BytesMut::from(&self.block[..]);
            blocks::give_received(std::mem::replace(&mut self.block, own));
        }
    }

    pub(crate) fn release(&mut self) {
        self.start = 0;
        blocks::give_received(std::mem::take(&mut self.block));
    }
}

/// A read with less room than this is not worth its system call.
const ENOUGH: usize = 4 * 1024;

/// A part of a record that is worth copying, so that a peer which stalls inside it does not pin a block.
const SMALL: usize = 4 * 1024;

/// The largest handshake message that rustls takes (64 KiB) in records of any size. Protects from a peer
/// that never ends its message.
const MAX_HELD: usize = 96 * 1024;
