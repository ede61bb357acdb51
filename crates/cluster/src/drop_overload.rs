//! `drop_overloads`: the share of a cluster's requests that is refused before a host is looked for (Envoy docs,
//! `config.endpoint.v3.ClusterLoadAssignment.Policy.DropOverload`).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use tidegate_config::cluster::DropOverload;

/// What holds now. It comes with the configuration, or with the hosts.
#[derive(Debug, Default)]
pub(crate) struct DropOverloads {
    per_million: AtomicU32,
    category: Mutex<Option<Box<str>>>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// As one of a share.
    Some,
    /// As all are.
    All,
}

impl DropOverloads {
    pub(crate) fn new(configured: Option<&DropOverload>) -> Self {
        let new = Self::default();
        new.set(configured);
        new
    }

    pub(crate) fn set(&self, configured: Option<&DropOverload>) {
        let category = configured.map(|drop| drop.category.as_str().into());
        *self.category.lock().unwrap_or_else(PoisonError::into_inner) = category;
        self.per_million.store(configured.map_or(0, |drop| drop.per_million), Relaxed);
    }

    pub(crate) fn configured(&self) -> Option<DropOverload> {
        let category = self.category.lock().unwrap_or_else(PoisonError::into_inner).as_deref()?.to_owned();
        Some(DropOverload { category, per_million: self.per_million.load(Relaxed) })
    }

    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.per_million.load(Relaxed) > 0
    }

    /// Whether the request that drew `random` is refused, where at most `limit` percent may be.
    pub(crate) fn refuses(&self, limit: u64, random: u64) -> Option<Dropped> {
        let share = u64::from(self.per_million.load(Relaxed)).min(limit.saturating_mul(WHOLE / 100));
        match share {
            WHOLE.. => Some(Dropped::All),
            share => (random % WHOLE < share).then_some(Dropped::Some),
        }
    }
}

const WHOLE: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(per_million: u32) -> DropOverloads {
        DropOverloads::new(Some(&DropOverload { category: "throttle".into(), per_million }))
    }

    #[test]
    fn a_share_is_refused_and_no_more_than_the_limit() {
        let half = drops(500_000);
        assert_eq!(half.refuses(100, 499_999), Some(Dropped::Some));
        assert_eq!(half.refuses(100, 500_000), None);
        assert_eq!(half.refuses(10, 99_999), Some(Dropped::Some));
        assert_eq!(half.refuses(10, 100_000), None);
        assert_eq!(half.refuses(0, 0), None);
    }

    #[test]
    fn all_is_told_from_a_share() {
        let all = drops(1_000_000);
        assert_eq!(all.refuses(100, 7), Some(Dropped::All));
        assert_eq!(all.refuses(1000, 7), Some(Dropped::All));
        assert_eq!(all.refuses(99, 7), Some(Dropped::Some));
        all.set(None);
        assert!(!all.is_any());
        assert_eq!(all.configured(), None);
    }
}
