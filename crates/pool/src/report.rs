//! What a pool looks like at one moment: the admin page `/pools`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tidegate_types::CloseReason;

/// One pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolReport {
    /// The host's first address, as it prints.
    pub address: String,
    /// `http1`, `http2`, `http3`, `auto` or `tcp`.
    pub protocol: &'static str,
    /// Connections being established.
    pub connecting: usize,
    /// Those that take streams.
    pub ready: usize,
    /// Those with as many streams as they take.
    pub busy: usize,
    /// Those that take no more streams: they close with their last one, or are kept to see when the host does.
    pub draining: usize,
    /// Streams on connections.
    pub streams: usize,
    /// Streams that wait.
    pub pending: usize,
    /// For how long those without a stream have had none.
    pub idle_age: Option<IdleAge>,
    /// How long the host lets connections idle, as far as was learned, in ms.
    pub learned_idle_ms: Option<u64>,
    /// Until when HTTP/3 is not tried, in ms since 1970, because it failed where TCP did not; of pools that know TCP
    /// as well.
    pub h3_broken_until_ms: Option<u64>,
    /// Why the last connections closed, the latest first.
    pub last_close_reasons: Vec<&'static str>,
}

/// Idle ages, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleAge {
    /// Half have idled no longer.
    pub p50: u64,
    /// Nine of ten have idled no longer.
    pub p90: u64,
    /// None has idled longer.
    pub max: u64,
}

impl IdleAge {
    /// Of these ages; `None` without any.
    pub fn of(mut ages: Vec<u64>) -> Option<Self> {
        ages.sort_unstable();
        // The nearest rank.
        let rank = |percent: usize| ages.get((ages.len() * percent).div_ceil(100).max(1) - 1).copied();
        Some(Self { p50: rank(50)?, p90: rank(90)?, max: rank(100)? })
    }
}

/// Why the last eight connections closed: of a pool, or of a host's pools on all workers. A byte each, the latest
/// lowest, one more than the reason's place in [`CloseReason::ALL`].
#[derive(Debug, Default)]
pub struct LastCloses(AtomicU64);

impl LastCloses {
    /// A connection closed.
    pub(crate) fn add(&self, reason: CloseReason) {
        let add = |all: u64| Some(all << 8 | (reason as u64 + 1));
        let _ = self.0.fetch_update(Relaxed, Relaxed, add);
    }

    /// The latest first, as statistics name them.
    pub fn names(&self) -> Vec<&'static str> {
        let all = self.0.load(Relaxed).to_le_bytes();
        let reasons = all.iter().filter_map(|byte| CloseReason::ALL.get(usize::from(*byte).checked_sub(1)?));
        reasons.map(|reason| reason.name()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_eight_closes_are_remembered_the_latest_first() {
        let closes = LastCloses::default();
        assert_eq!(closes.names(), [""; 0]);
        closes.add(CloseReason::IdleTimeout);
        closes.add(CloseReason::KeepaliveTimeout);
        assert_eq!(closes.names(), ["keepalive_timeout", "idle_timeout"]);
        (0..7).for_each(|_| closes.add(CloseReason::PeerFin));
        assert_eq!((closes.names().len(), closes.names()[7]), (8, "keepalive_timeout"));
    }

    #[test]
    fn percentiles_are_ages_that_there_are() {
        let of = |ages: &[u64]| IdleAge::of(ages.to_vec()).map(|age| (age.p50, age.p90, age.max));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[7]), Some((7, 7, 7)));
        assert_eq!(of(&[3, 1]), Some((1, 3, 3)));
        assert_eq!(of(&[10, 1, 2, 3, 4, 5, 6, 7, 8, 9]), Some((5, 9, 10)));
    }
}
