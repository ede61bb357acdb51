//! How the places of hosts count: zone-aware routing, or weights of localities.

use crate::reader::{Message, Reader};
use crate::values::Percent;

/// `locality_lb_config`.
#[derive(Debug, Clone, PartialEq)]
pub enum LocalityLb {
    /// `zone_aware_lb_config`, and the default: without effect unless the bootstrap names a local cluster.
    ZoneAware(ZoneAware),
    /// `locality_weighted_lb_config`: localities get their `load_balancing_weight`.
    Weighted,
}

/// `zone_aware_lb_config`.
#[derive(Debug, Clone, PartialEq)]
pub struct ZoneAware {
    /// `routing_enabled`, per cent of requests, rounded; 100 when unset. The runtime key
    /// `upstream.zone_routing.enabled` overrides it.
    pub routing_enabled: u32,
    /// `min_cluster_size`, healthy hosts, 6 when unset. The runtime key `upstream.zone_routing.min_cluster_size`
    /// overrides it.
    pub min_cluster_size: u64,
    /// `fail_traffic_on_panic`: in panic no host is chosen at all.
    pub fail_traffic_on_panic: bool,
    /// `force_locality_direct_routing`, deprecated: all requests stay in the zone if there is a healthy host. The
    /// runtime key `upstream.zone_routing.force_locality_direct_routing` overrides it.
    pub force_locality_direct_routing: bool,
    /// `force_local_zone`.
    pub force_local_zone: Option<ForceLocalZone>,
    /// `locality_basis`.
    pub basis: LocalityBasis,
}

/// `force_local_zone`: all requests stay in the zone if it has enough hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForceLocalZone {
    /// `min_size`, 1 when unset. The runtime key `upstream.zone_routing.force_local_zone.min_size` overrides it.
    pub min_size: u32,
}

/// `locality_basis`: what a locality's share of the hosts is reckoned by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LocalityBasis {
    /// `HEALTHY_HOSTS_NUM`.
    #[default]
    Hosts,
    /// `HEALTHY_HOSTS_WEIGHT`.
    Weights,
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self {
            routing_enabled: 100,
            min_cluster_size: 6,
            fail_traffic_on_panic: false,
            force_locality_direct_routing: false,
            force_local_zone: None,
            basis: LocalityBasis::default(),
        }
    }
}

impl Default for LocalityLb {
    fn default() -> Self {
        Self::ZoneAware(ZoneAware::default())
    }
}

impl LocalityLb {
    /// The fields of `common_lb_config`.
    pub(super) fn legacy(r: &Reader<'_>) -> Self {
        let zones = r.message::<LegacyZoneAware>("zone_aware_lb_config").optional();
        let weighted = r.message::<LegacyWeighted>("locality_weighted_lb_config").optional();
        r.at_most_one(&["zone_aware_lb_config", "locality_weighted_lb_config"]);
        match (weighted, zones) {
            (Some(LegacyWeighted), _) => Self::Weighted,
            (None, zones) => Self::ZoneAware(zones.map(|zones| zones.0).unwrap_or_default()),
        }
    }

    /// The field `locality_weighted_lb_config` alone, as hashing policies have it.
    pub(super) fn weighted_if_set(r: &Reader<'_>) -> Self {
        match r.message::<Weighted>("locality_weighted_lb_config").optional() {
            Some(Weighted) => Self::Weighted,
            None => Self::default(),
        }
    }
}

impl Message for LocalityLb {
    const NAME: &'static str = "envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        let zones = r.message::<ZoneAware>("zone_aware_lb_config").optional();
        let weighted = r.message::<Weighted>("locality_weighted_lb_config").optional();
        r.exactly_one(&["zone_aware_lb_config", "locality_weighted_lb_config"]);
        match (weighted, zones) {
            (Some(Weighted), _) => Self::Weighted,
            (None, zones) => Self::ZoneAware(zones.unwrap_or_default()),
        }
    }
}

impl Message for ZoneAware {
    const NAME: &'static str =
        "envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.ZoneAwareLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        const BASES: &[(&str, u32, LocalityBasis)] = &[
            ("HEALTHY_HOSTS_NUM", 0, LocalityBasis::Hosts),
            ("HEALTHY_HOSTS_WEIGHT", 1, LocalityBasis::Weights),
        ];
        Self {
            force_locality_direct_routing: r.bool("force_locality_direct_routing").or_default(),
            force_local_zone: r.message("force_local_zone").optional(),
            basis: r.enumeration("locality_basis", BASES, &[]).or_default(),
            ..zone_aware(r)
        }
    }
}

impl Message for ForceLocalZone {
    const NAME: &'static str = "envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.ZoneAwareLbConfig.ForceLocalZone";

    fn read(r: &Reader<'_>) -> Self {
        Self { min_size: r.u32("min_size").or(1) }
    }
}

struct Weighted;

impl Message for Weighted {
    const NAME: &'static str =
        "envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig.LocalityWeightedLbConfig";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

struct LegacyZoneAware(ZoneAware);

impl Message for LegacyZoneAware {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.CommonLbConfig.ZoneAwareLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(zone_aware(r))
    }
}

struct LegacyWeighted;

impl Message for LegacyWeighted {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.CommonLbConfig.LocalityWeightedLbConfig";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

/// What both have.
fn zone_aware(r: &Reader<'_>) -> ZoneAware {
    let default = ZoneAware::default();
    let enabled = r.message::<Percent>("routing_enabled").optional();
    ZoneAware {
        routing_enabled: enabled.map_or(default.routing_enabled, |percent| percent.0.round() as u32),
        min_cluster_size: r.u64("min_cluster_size").or(default.min_cluster_size),
        fail_traffic_on_panic: r.bool("fail_traffic_on_panic").or_default(),
        ..default
    }
}
