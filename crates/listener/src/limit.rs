//! The process-wide limit of downstream connections: what keeps the proxy from running out of descriptors
//! and memory when clients, not requests, are too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A count shared by all workers and the limit on it. Reserved before use, so that it is never exceeded.
#[derive(Debug, Default)]
pub struct ConnectionLimit {
    active: AtomicU64,
    /// 0: no limit.
    max: AtomicU64,
}

impl ConnectionLimit {
    /// A limit of `max` connections; `None`: no limit.
    pub fn new(max: Option<u64>) -> Arc<Self> {
        let limit = Arc::new(Self::default());
        limit.set(max);
        limit
    }

    /// Changes the limit. Connections above a lower one stay.
    pub fn set(&self, max: Option<u64>) {
        self.max.store(max.unwrap_or(0), Ordering::Relaxed);
    }

    /// Connections now.
    pub fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    /// Takes one place; `None` when all are taken.
    pub fn reserve(self: &Arc<Self>) -> Option<Reservation> {
        let taken = self.active.fetch_add(1, Ordering::Relaxed);
        let reservation = Reservation(self.clone());
        let max = self.max.load(Ordering::Relaxed);
        (max == 0 || taken < max).then_some(reservation)
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
    }
}
