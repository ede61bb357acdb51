//! Load balancing: pure functions from hosts, cursors and chance to a pick.
//!
//! Follows Envoy 1.40: rotation starts anywhere; unequal weights are scheduled earliest deadline first; `RANDOM`
//! ignores weights; least requests are those of the best of two that chance draws. Which priority a request goes to,
//! and whether to its healthy, its degraded or (in panic) all hosts, [`Priorities`] decide. Hashing policies look a
//! key up in the [`HashTables`]. What does not change with a choice is in the [`Roster`], built once for all workers
//! on the main thread; start from [`Balancer`], which is one worker's.

mod balancer;
mod bound;
mod edf;
pub mod hash;
mod hashed;
mod labels;
mod least;
mod places;
mod priority;
mod roster;
mod subsets;
mod terms;
mod zone;

use std::borrow::Cow;
use std::sync::Arc;

pub use balancer::{Balancer, Moment};
pub use edf::Edf;
pub use hashed::{HashTables, Spread};
pub(crate) use labels::Label;
pub use labels::LabelMatch;
pub use priority::{Among, Level, Loads, Priorities};
pub use roster::{Roster, Scene};
pub use subsets::{Seats, Subsets, Way};
pub use terms::{Method, Places as PlaceTerms, Ramp, Terms, Zones};
use tidegate_config::bootstrap::Locality;
use tidegate_pool::host::HostLoad;
pub use zone::{Census, ZoneChoice, ZoneFault};

/// How a host may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Freely.
    Healthy,
    /// When healthy hosts do not suffice.
    Degraded,
    /// Only in panic.
    Unhealthy,
}

/// A choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Index of the host, if there is one.
    pub host: Option<usize>,
    /// Chosen in panic mode, that is among all hosts whatever their health (`lb_healthy_panic`).
    pub panic: bool,
    /// What routing by zones came to, where there is any.
    pub zone: Option<ZoneChoice>,
}

/// A host, as the main thread shows it to the load balancer.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// `load_balancing_weight`.
    pub weight: u32,
    /// How it may be used. Hashing methods give degraded hosts no keys, as in Envoy.
    pub health: Health,
    /// Whether it counts neither for what its priority can take nor for panic (Envoy docs, "Excluded endpoints").
    pub excluded: bool,
    /// 0 is the first to be used.
    pub priority: u32,
    /// What stands for it in tables of hashes: metadata `hash_key`, `hostname`, or its address. Other methods do not
    /// look at it.
    pub name: Cow<'a, str>,
    /// The requests that it has in hand; `None` counts as none.
    pub load: Option<&'a Arc<HostLoad>>,
    /// When it became eligible, in ms; 0: it does not start slowly.
    pub since_ms: u64,
    /// Where it is.
    pub place: &'a Locality,
    /// `load_balancing_weight` of its locality; 0 if that has none.
    pub place_weight: u32,
}

impl Member<'_> {
    /// One of weight 1 without a name.
    pub fn of(priority: u32, health: Health) -> Self {
        static NOWHERE: Locality =
            Locality { region: String::new(), zone: String::new(), sub_zone: String::new() };
        Self {
            weight: 1,
            health,
            excluded: false,
            priority,
            name: Cow::Borrowed(""),
            load: None,
            since_ms: 0,
            place: &NOWHERE,
            place_weight: 0,
        }
    }

    /// The same, with what this one owns borrowed.
    fn reborrow(&self) -> Member<'_> {
        Member { name: Cow::Borrowed(&*self.name), ..*self }
    }

    /// Whether it is new.
    fn is_ramping(&self, now_ms: u64, window_ms: u64) -> bool {
        let age = now_ms.saturating_sub(self.since_ms);
        self.since_ms > 0 && self.health == Health::Healthy && age <= window_ms
    }
}

/// What a request wants of its choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// What a `hash_policy` found; only hashing policies look at it.
    pub hash: Option<u64>,
    /// What each priority gets of requests like this, where that differs from the others.
    pub loads: Option<&'a Loads>,
    /// What labels its host is to have; only clusters with subsets look at them.
    pub labels: Option<&'a LabelMatch>,
}

#[cfg(test)]
mod tests;
