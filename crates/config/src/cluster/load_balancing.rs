//! How a cluster's host is chosen: `lb_policy` with what configures it, or `load_balancing_policy`.
//!
//! Both forms end in the same [`LbPolicy`] and [`LocalityLb`]; start from there.

use crate::reader::Reader;

mod extension;
mod hashing;
mod least_request;
mod locality;
mod slow_start;
mod subsets;

pub use hashing::{HashFunction, HashedName, MaglevConfig, RingHashConfig};
pub use least_request::{LeastRequestConfig, SelectionMethod};
pub use locality::{ForceLocalZone, LocalityBasis, LocalityLb, ZoneAware};
pub use slow_start::SlowStart;
pub use subsets::{SelectorFallback, SubsetConfig, SubsetFallback, SubsetSelector};

use extension::LoadBalancingPolicy;
use hashing::{ConsistentHashing, LegacyConsistentHashing};
use least_request::LegacyLeastRequest;
use slow_start::LegacyRoundRobin;
use subsets::LegacySubsets;

/// `lb_policy`.
#[derive(Debug, Clone, PartialEq)]
pub enum LbPolicy {
    /// `ROUND_ROBIN`, weighted.
    RoundRobin {
        /// `slow_start_config`.
        slow_start: Option<SlowStart>,
    },
    /// `LEAST_REQUEST`, weighted.
    LeastRequest(LeastRequestConfig),
    /// `RANDOM`, which ignores weights.
    Random,
    /// `RING_HASH`.
    RingHash(RingHashConfig),
    /// `MAGLEV`.
    Maglev(MaglevConfig),
    /// `CLUSTER_PROVIDED`: the cluster's type makes the choice.
    ClusterProvided,
}

impl Default for LbPolicy {
    fn default() -> Self {
        Self::RoundRobin { slow_start: None }
    }
}

impl LbPolicy {
    /// Whether it looks at what a `hash_policy` finds.
    pub fn hashes(&self) -> bool {
        matches!(self, Self::RingHash(_) | Self::Maglev(_))
    }

    /// Whether it goes by the requests that hosts have in hand.
    pub fn counts_requests(&self) -> bool {
        match self {
            Self::LeastRequest(_) => true,
            Self::RingHash(ring) => ring.balance_factor.is_some(),
            Self::Maglev(maglev) => maglev.balance_factor.is_some(),
            Self::RoundRobin { .. } | Self::Random | Self::ClusterProvided => false,
        }
    }

    /// `slow_start_config`, where its window is not 0.
    pub fn slow_start(&self) -> Option<&SlowStart> {
        match self {
            Self::RoundRobin { slow_start } => slow_start.as_ref(),
            Self::LeastRequest(least) => least.slow_start.as_ref(),
            Self::Random | Self::RingHash(_) | Self::Maglev(_) | Self::ClusterProvided => None,
        }
    }
}

/// The policies without their configuration.
#[derive(Clone, Copy)]
enum Kind {
    RoundRobin,
    LeastRequest,
    Random,
    RingHash,
    Maglev,
    ClusterProvided,
    Extension,
}

/// The choice of hosts, whichever way it was configured.
#[derive(Default)]
pub(super) struct Balancing {
    pub(super) policy: LbPolicy,
    pub(super) locality: LocalityLb,
    pub(super) subsets: Option<Box<SubsetConfig>>,
}

impl Balancing {
    /// As in Envoy a policy's configuration may stand beside another policy, where it has no effect.
    /// `legacy` is what `common_lb_config` holds.
    pub(super) fn read(r: &Reader<'_>, legacy: LegacyCommon) -> Self {
        const POLICIES: &[(&str, u32, Kind)] = &[
            ("ROUND_ROBIN", 0, Kind::RoundRobin),
            ("LEAST_REQUEST", 1, Kind::LeastRequest),
            ("RING_HASH", 2, Kind::RingHash),
            ("RANDOM", 3, Kind::Random),
            ("MAGLEV", 5, Kind::Maglev),
            ("CLUSTER_PROVIDED", 6, Kind::ClusterProvided),
            ("LOAD_BALANCING_POLICY_CONFIG", 7, Kind::Extension),
        ];
        r.at_most_one(&[
            "ring_hash_lb_config",
            "maglev_lb_config",
            "original_dst_lb_config",
            "least_request_lb_config",
            "round_robin_lb_config",
        ]);
        let ring = r.message_or_defaults::<RingHashConfig>("ring_hash_lb_config");
        let maglev = r.message_or_defaults::<MaglevConfig>("maglev_lb_config");
        let least = r.message_or_defaults::<LegacyLeastRequest>("least_request_lb_config").0;
        let round = r.message_or_defaults::<LegacyRoundRobin>("round_robin_lb_config");
        let extension = r.message::<LoadBalancingPolicy>("load_balancing_policy").optional();
        let subsets = LegacySubsets::read_in(r);
        let kind = r.enumeration("lb_policy", POLICIES, &[]).or(Kind::RoundRobin);
        if let Some(LoadBalancingPolicy(found)) = extension {
            legacy.refuse(r);
            return found.unwrap_or_default();
        }
        let ConsistentHashing { host_name, balance_factor } = legacy.hashing.0;
        let policy = match kind {
            Kind::RoundRobin => LbPolicy::RoundRobin { slow_start: round.slow_start },
            Kind::LeastRequest => LbPolicy::LeastRequest(least),
            Kind::Random => LbPolicy::Random,
            Kind::RingHash => LbPolicy::RingHash(RingHashConfig { host_name, balance_factor, ..ring }),
            Kind::Maglev => LbPolicy::Maglev(MaglevConfig { host_name, balance_factor, ..maglev }),
            Kind::ClusterProvided => LbPolicy::ClusterProvided,
            Kind::Extension => {
                r.problem(
                    "`lb_policy` is LOAD_BALANCING_POLICY_CONFIG, but `load_balancing_policy` is missing",
                );
                LbPolicy::default()
            }
        };
        if policy == LbPolicy::ClusterProvided && r.has("lb_subset_config") {
            r.problem("`lb_policy` CLUSTER_PROVIDED cannot be combined with `lb_subset_config`");
        }
        let weighs_places = legacy.set.contains(&"locality_weighted_lb_config");
        if !weighs_places && subsets.as_ref().is_some_and(|subsets| subsets.locality_weight_aware) {
            r.problem("`locality_weight_aware` needs `common_lb_config.locality_weighted_lb_config`");
        }
        Self { policy, locality: legacy.locality, subsets }
    }
}

/// What of `common_lb_config` configures the choice of a host.
pub(super) struct LegacyCommon {
    hashing: LegacyConsistentHashing,
    locality: LocalityLb,
    /// Which of the fields are set that `load_balancing_policy` has in its own messages.
    set: Vec<&'static str>,
}

impl LegacyCommon {
    /// Reads the fields from `CommonLbConfig`.
    pub(super) fn read(r: &Reader<'_>) -> Self {
        const FIELDS: [&str; 3] =
            ["zone_aware_lb_config", "locality_weighted_lb_config", "consistent_hashing_lb_config"];
        let hashing = r.message_or_defaults("consistent_hashing_lb_config");
        let set = FIELDS.into_iter().filter(|field| r.has(field)).collect();
        Self { hashing, locality: LocalityLb::legacy(r), set }
    }

    /// They have no effect beside `load_balancing_policy`: refused, as in Envoy.
    fn refuse(&self, r: &Reader<'_>) {
        if let Some(field) = self.set.first() {
            r.problem(format!(
                "`common_lb_config.{field}` cannot be set together with `load_balancing_policy`"
            ));
        }
        if r.has("lb_subset_config") {
            r.problem("`lb_subset_config` cannot be set together with `load_balancing_policy`");
        }
    }
}
