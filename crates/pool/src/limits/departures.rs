//! Connections whose places are free already and whose FINs may not have been sent yet.
//!
//! A place given back on one worker may be taken on another before the first one's socket is closed. The newcomer
//! waits for that, so that the upstream never sees one connection too many, not even for an instant.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Counts of one limit's connections that went.
#[derive(Debug, Default)]
pub struct Departures {
    begun: AtomicU64,
    done: AtomicU64,
}

impl Departures {
    /// A connection is going: to be called before its place is given back.
    #[inline]
    pub fn begin(&self) {
        self.begun.fetch_add(1, SeqCst);
    }

    /// That many sockets of those that began to go are closed.
    #[inline]
    pub fn finish(&self, count: u64) {
        if count > 0 {
            self.done.fetch_add(count, SeqCst);
        }
    }

    /// What a connection with a place of its own waits for: see [`Departures::are_done`].
    #[inline]
    pub fn begun(&self) -> u64 {
        self.begun.load(SeqCst)
    }

    /// Whether as many have gone as had begun to when `begun` was read. Later ones may be among them: who takes
    /// a place while places are given back all the time waits no longer for that.
    #[inline]
    pub fn are_done(&self, begun: u64) -> bool {
        self.done.load(SeqCst) >= begun
    }
}
