//! Records that wait to be sent.

use crate::blocks;

/// Encrypted bytes; without bytes there is no block.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    block: Vec<u8>,
    sent: usize,
    /// Whether they should be sent at once. Session tickets wait for the first response, or for the
    /// farewell: that saves a system call a handshake (as in BoringSSL).
    pub(crate) urgent: bool,
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.block.len()
    }

    pub(crate) fn unsent(&self) -> &[u8] {
        self.block.get(self.sent..).unwrap_or_default()
    }

    /// Lets `write` fill up to `room` bytes behind what waits already; it answers how many it used, or how
    /// many it needs.
    pub(crate) fn append<E>(
        &mut self,
        mut room: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, Short<E>>,
    ) -> Result<(), E> {
        if self.block.capacity() == 0 {
            self.block = blocks::take_sent();
        }
        let start = self.block.len();
        loop {
            self.block.resize(start + room, 0);
            match write(self.block.get_mut(start..).unwrap_or_default()) {
                Ok(used) => {
                    self.block.truncate(start + used);
                    return Ok(());
                }
                Err(Short::Needs(more)) if more > room => room = more,
                // It named no more than it was given: nothing that rustls does.
                Err(Short::Needs(_)) => {
                    self.block.truncate(start);
                    return Ok(());
                }
                Err(Short::Failed(error)) => {
                    self.block.truncate(start);
                    return Err(error);
                }
            }
        }
    }

    /// Adds a record as it is.
    pub(crate) fn push(&mut self, record: &[u8]) {
        self.block.extend_from_slice(record);
    }

    /// `count` more bytes are sent.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.block.len() {
            self.clear();
        }
    }

    /// A connection that waits holds no more than it must.
    pub(crate) fn rest(&mut self) {
        if !self.block.is_empty() && self.block.capacity() > 2 * self.block.len() {
            let own = Vec::from(self.unsent());
            blocks::give_sent(std::mem::replace(&mut self.block, own));
            self.sent = 0;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.sent = 0;
        self.urgent = false;
        blocks::give_sent(std::mem::take(&mut self.block));
    }
}

/// Why nothing was written.
pub(crate) enum Short<E> {
    /// So many bytes of room are needed.
    Needs(usize),
    Failed(E),
}
