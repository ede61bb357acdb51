//! The pool's side of one connection, once its peer has chosen what is spoken on it.

use std::sync::Arc;
use std::task::Poll;

use tidegate_types::Address;
use tokio::task::JoinHandle;

use crate::driver::bell::Bell;
use crate::driver::{self, Holds, Stirred, log_end};
use crate::h1::{self, Conn, ConnFacts};
use crate::h2::{self, Dialed};
use crate::machine::{Closed, ConnKey};
use crate::stats::UpstreamStats;

/// See the module.
pub enum Slot {
    /// Nothing, or an attempt.
    Empty(Option<JoinHandle<()>>),
    /// An HTTP/1.1 connection.
    H1(h1::slot::Slot),
    /// An HTTP/2 connection.
    H2(h2::Slot),
}

/// A new connection.
pub enum Speaking {
    H1((Box<dyn Conn>, ConnFacts)),
    H2(Dialed),
}

impl Default for Slot {
    fn default() -> Self {
        Self::Empty(None)
    }
}

impl driver::Slot for Slot {
    type Opened = Speaking;

    fn is_watched_while_busy(&self) -> bool {
        match self {
            Self::Empty(_) => false,
            Self::H1(slot) => slot.is_watched_while_busy(),
            Self::H2(slot) => slot.is_watched_while_busy(),
        }
    }

    fn begin(&mut self, attempt: JoinHandle<()>) {
        *self = Self::Empty(Some(attempt));
    }

    fn connected(&mut self, opened: Speaking) -> u32 {
        match opened {
            Speaking::H1(opened) => {
                let mut slot = h1::slot::Slot::default();
                let concurrency = slot.connected(opened);
                *self = Self::H1(slot);
                concurrency
            }
            Speaking::H2(opened) => {
                let mut slot = h2::Slot::default();
                let concurrency = slot.connected(opened);
                *self = Self::H2(slot);
                concurrency
            }
        }
    }

    fn has_fired(&self) -> bool {
        match self {
            Self::Empty(_) => false,
            Self::H1(slot) => slot.has_fired(),
            Self::H2(slot) => slot.has_fired(),
        }
    }

    fn poll_stirred(&mut self, bell: &Arc<Bell>, key: ConnKey) -> Poll<Stirred> {
        match self {
            Self::Empty(_) => Poll::Pending,
            Self::H1(slot) => slot.poll_stirred(bell, key),
            Self::H2(slot) => slot.poll_stirred(bell, key),
        }
    }

    fn end(&mut self, closed: Closed, host: Option<&Address>, stats: &UpstreamStats) {
        match std::mem::take(self) {
            Self::Empty(attempt) => {
                log_end("upstream", None, host, closed, closed.reason.words(), stats);
                if let Some(attempt) = attempt {
                    attempt.abort();
                }
            }
            Self::H1(mut slot) => slot.end(closed, host, stats),
            Self::H2(mut slot) => slot.end(closed, host, stats),
        }
    }
}

impl Holds<h1::slot::Slot> for Slot {
    #[inline]
    fn held(&mut self) -> Option<&mut h1::slot::Slot> {
        match self {
            Self::H1(slot) => Some(slot),
            _ => None,
        }
    }
}

impl Holds<h2::Slot> for Slot {
    #[inline]
    fn held(&mut self) -> Option<&mut h2::Slot> {
        match self {
            Self::H2(slot) => Some(slot),
            _ => None,
        }
    }
}
