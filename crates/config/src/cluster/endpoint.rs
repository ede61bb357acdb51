//! `envoy.config.endpoint.v3.ClusterLoadAssignment`: the hosts of a cluster.

use std::time::Duration;

use tidegate_types::Address;
use tidegate_types::json::Node;

use super::health_check::EndpointHealthCheck;
use crate::address::{Endpoint, NOWHERE, Place};
use crate::bootstrap::Locality;
use crate::reader::{Message, Reader};
use crate::values::{FractionalPercent, metadata};

/// `LocalityLbEndpoints`.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityEndpoints {
    /// `locality`.
    pub locality: Locality,
    /// `priority`, 0 to 128: 0 is the first to be used.
    pub priority: u32,
    /// `load_balancing_weight`, at least 1; used only by locality-weighted balancing.
    pub weight: Option<u32>,
    /// `metadata.filter_metadata`, as written.
    pub metadata: Option<Node>,
    /// `lb_endpoints`.
    pub endpoints: Vec<EndpointConfig>,
}

/// `LbEndpoint` with its `endpoint`.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointConfig {
    /// `endpoint.address`.
    pub address: Address,
    /// `endpoint.additional_addresses`: other ways to the same host, raced with the first.
    pub additional_addresses: Vec<Address>,
    /// The name of `endpoint.address` where the cluster looks names up: `address` holds only its port then.
    pub name: Option<String>,
    /// `endpoint.hostname`; empty when unset.
    pub hostname: String,
    /// `load_balancing_weight`, 1 when unset, at least 1.
    pub weight: u32,
    /// `health_status`.
    pub health_status: HealthStatus,
    /// `endpoint.health_check_config`.
    pub health_check: EndpointHealthCheck,
    /// `metadata.filter_metadata`, as written.
    pub metadata: Option<Node>,
}

/// `envoy.config.core.v3.HealthStatus`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HealthStatus {
    /// `UNKNOWN`: treated as healthy.
    #[default]
    Unknown,
    /// `HEALTHY`.
    Healthy,
    /// `UNHEALTHY`.
    Unhealthy,
    /// `DRAINING`: treated as unhealthy.
    Draining,
    /// `TIMEOUT`: treated as unhealthy.
    Timeout,
    /// `DEGRADED`.
    Degraded,
}

impl HealthStatus {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Unknown, Self::Healthy, Self::Unhealthy, Self::Draining, Self::Timeout, Self::Degraded];

    pub(super) const NAMES: &[(&str, u32, Self)] = &[
        ("UNKNOWN", 0, Self::Unknown),
        ("HEALTHY", 1, Self::Healthy),
        ("UNHEALTHY", 2, Self::Unhealthy),
        ("DRAINING", 3, Self::Draining),
        ("TIMEOUT", 4, Self::Timeout),
        ("DEGRADED", 5, Self::Degraded),
    ];
}

/// `ClusterLoadAssignment`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadAssignment {
    /// `cluster_name`; of meaning in EDS.
    pub cluster_name: String,
    /// `endpoints`.
    pub endpoints: Vec<LocalityEndpoints>,
    /// `policy`.
    pub policy: AssignmentPolicy,
}

impl Message for LoadAssignment {
    const NAME: &'static str = "envoy.config.endpoint.v3.ClusterLoadAssignment";

    fn read(r: &Reader<'_>) -> Self {
        // As in Envoy they are read, and nothing can name them: hosts of a list are given whole.
        r.map("named_endpoints", |_, node, path| drop(Reader::open::<Host>(r.cx, node, path)));
        Self {
            cluster_name: r.string("cluster_name").required_non_empty(),
            endpoints: r.repeated("endpoints").or_default(),
            policy: r.message_or_defaults("policy"),
        }
    }
}

/// `ClusterLoadAssignment.Policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignmentPolicy {
    /// `overprovisioning_factor`, per cent, 140 when unset.
    pub overprovisioning_factor: u32,
    /// `weighted_priority_health`.
    pub weighted_priority_health: bool,
    /// `drop_overloads`, of which there is at most one.
    pub drop_overload: Option<Box<DropOverload>>,
    /// `endpoint_stale_after`: hosts that `EDS` does not name again within this time leave.
    pub stale_after: Option<Duration>,
}

/// `ClusterLoadAssignment.Policy.DropOverload`: so many requests are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropOverload {
    /// `category`, never empty.
    pub category: String,
    /// `drop_percentage`, of a million requests.
    pub per_million: u32,
}

impl Message for DropOverload {
    const NAME: &'static str = "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.DropOverload";

    fn read(r: &Reader<'_>) -> Self {
        let share = r.message::<FractionalPercent>("drop_percentage").check(|share| {
            match share.numerator <= share.denominator {
                true => Ok(()),
                false => Err(format!("{} of {} is more than all", share.numerator, share.denominator)),
            }
        });
        let share = share.optional();
        Self {
            category: r.string("category").required_non_empty(),
            per_million: share.map_or(0, |share| share.numerator.saturating_mul(WHOLE / share.denominator)),
        }
    }
}

/// All requests, as [`DropOverload::per_million`] counts them.
const WHOLE: u32 = 1_000_000;

impl Default for AssignmentPolicy {
    fn default() -> Self {
        Self {
            overprovisioning_factor: 140,
            weighted_priority_health: false,
            drop_overload: None,
            stale_after: None,
        }
    }
}

impl Message for AssignmentPolicy {
    const NAME: &'static str = "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy";

    fn read(r: &Reader<'_>) -> Self {
        let factor = r.u32("overprovisioning_factor").positive();
        let drops = r.repeated::<DropOverload>("drop_overloads").check(|drops| match drops.len() {
            0 | 1 => Ok(()),
            more => Err(format!("there are {more} categories, and only one is supported")),
        });
        Self {
            overprovisioning_factor: factor.or(Self::default().overprovisioning_factor),
            weighted_priority_health: r.bool("weighted_priority_health").or_default(),
            drop_overload: drops.or_default().pop().map(Box::new),
            stale_after: r.duration("endpoint_stale_after").greater_than_zero().optional(),
        }
    }
}

impl Message for LocalityEndpoints {
    const NAME: &'static str = "envoy.config.endpoint.v3.LocalityLbEndpoints";

    fn read(r: &Reader<'_>) -> Self {
        let given = r.repeated::<Option<EndpointConfig>>("lb_endpoints").or_default();
        // There are many lists of one: none has room for more than it holds.
        let mut endpoints = Vec::with_capacity(given.len());
        endpoints.extend(given.into_iter().flatten());
        Self {
            locality: r.message_or_defaults("locality"),
            priority: r.u32("priority").within(0..=128).or_default(),
            weight: r.u32("load_balancing_weight").positive().optional(),
            metadata: metadata(r),
            endpoints,
        }
    }
}

impl Message for Option<EndpointConfig> {
    const NAME: &'static str = "envoy.config.endpoint.v3.LbEndpoint";

    fn read(r: &Reader<'_>) -> Self {
        let host = r.message::<Host>("endpoint").optional();
        r.exactly_one(&["endpoint"]);
        let weight = r.u32("load_balancing_weight").positive().or(1);
        let health_status = r.enumeration("health_status", HealthStatus::NAMES, &[]).or_default();
        let metadata = metadata(r);
        let Host { address, name, additional_addresses, hostname, health_check } = host?;
        Some(EndpointConfig {
            address,
            name,
            additional_addresses,
            hostname,
            weight,
            health_status,
            health_check,
            metadata,
        })
    }
}

/// `Endpoint`.
struct Host {
    address: Address,
    name: Option<String>,
    additional_addresses: Vec<Address>,
    hostname: String,
    health_check: EndpointHealthCheck,
}

impl Message for Host {
    const NAME: &'static str = "envoy.config.endpoint.v3.Endpoint";

    fn read(r: &Reader<'_>) -> Self {
        let (address, name) = match r.required_message::<Place>("address") {
            Place::Address(address) => (address, None),
            Place::Named { name, port } => (Address::Ip((NOWHERE.ip(), port).into()), Some(name)),
        };
        let additional = r.repeated::<HostAddress>("additional_addresses").or_default();
        let health_check = r.message_or_defaults::<EndpointHealthCheck>("health_check_config");
        if health_check.port.is_some() && matches!(health_check.address(&address), Address::Unix(_)) {
            r.problem("`health_check_config.port_value` cannot be set for a pipe");
        }
        Self {
            address,
            name,
            additional_addresses: additional.into_iter().map(|address| address.0).collect(),
            hostname: r.string("hostname").or_default(),
            health_check,
        }
    }
}

/// `Endpoint.AdditionalAddress`.
struct HostAddress(Address);

impl Message for HostAddress {
    const NAME: &'static str = "envoy.config.endpoint.v3.Endpoint.AdditionalAddress";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.required_message::<Endpoint>("address").address)
    }
}
