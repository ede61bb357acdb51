//! Limits of downstream connections, the process's and each listener's: what keeps the proxy from running
//! out of descriptors and memory when clients, not requests, are too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A count shared by all workers and the limit on it. Reserved before use, so that it is never exceeded.
#[derive(Debug)]
pub struct ConnectionLimit {
    active: AtomicU64,
    max: AtomicU64,
}

impl ConnectionLimit {
    /// A limit of `max` connections; `None`: no limit. 0 admits none, as in Envoy.
    pub fn new(max: Option<u64>) -> Arc<Self> {
        Arc::new(Self { active: AtomicU64::new(0), max: AtomicU64::new(max.unwrap_or(u64::MAX)) })
    }

    /// Changes the limit. Connections above a lower one stay.
    pub fn set(&self, max: Option<u64>) {
        self.max.store(max.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Connections now.
    pub fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    /// Takes one place; `None` when all are taken.
    pub fn reserve(self: &Arc<Self>) -> Option<Reservation> {
        let max = self.max.load(Ordering::Relaxed);
        // Not added first and taken back: the excess would refuse another worker's connection in between.
        let place = |active| (active < max).then(|| active + 1);
        let taken = self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, place);
        taken.is_ok().then(|| Reservation(self.clone()))
    }
}

/// One place under a [`ConnectionLimit`], given back when dropped.
#[derive(Debug)]
pub struct Reservation(Arc<ConnectionLimit>);

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_exceeded_and_given_back() {
        let limit = ConnectionLimit::new(Some(1));
        let first = limit.reserve();
        assert!(first.is_some());
        assert!(limit.reserve().is_none());
        assert_eq!(limit.active(), 1);
        drop(first);
        assert!(limit.reserve().is_some());
        limit.set(None);
        let many: Vec<_> = (0..3).filter_map(|_| limit.reserve()).collect();
        assert_eq!((many.len(), limit.active()), (3, 3));
        assert!(ConnectionLimit::new(Some(0)).reserve().is_none());
    }
}
