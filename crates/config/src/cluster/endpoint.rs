//! `envoy.config.endpoint.v3.ClusterLoadAssignment`: the hosts of a cluster.

use tidegate_types::Address;
use tidegate_types::json::Node;

use crate::address::Endpoint;
use crate::bootstrap::Locality;
use crate::reader::{Message, Reader};
use crate::values::metadata;

/// `LocalityLbEndpoints`.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityEndpoints {
    /// `locality`.
    pub locality: Locality,
    /// `priority`: 0 in this build.
    pub priority: u32,
    /// `load_balancing_weight`, at least 1; used only by locality-weighted balancing.
    pub weight: Option<u32>,
    /// `lb_endpoints`.
    pub endpoints: Vec<EndpointConfig>,
}

/// `LbEndpoint` with its `endpoint`.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointConfig {
    /// `endpoint.address`.
    pub address: Address,
    /// `endpoint.hostname`; empty when unset.
    pub hostname: String,
    /// `load_balancing_weight`, 1 when unset, at least 1.
    pub weight: u32,
    /// `health_status`.
    pub health_status: HealthStatus,
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

/// `ClusterLoadAssignment`.
pub(super) struct LoadAssignment(pub(super) Vec<LocalityEndpoints>);

impl Message for LoadAssignment {
    const NAME: &'static str = "envoy.config.endpoint.v3.ClusterLoadAssignment";

    fn read(r: &Reader<'_>) -> Self {
        r.string("cluster_name").required_non_empty();
        Self(r.repeated("endpoints").or_default())
    }
}

impl Message for LocalityEndpoints {
    const NAME: &'static str = "envoy.config.endpoint.v3.LocalityLbEndpoints";

    fn read(r: &Reader<'_>) -> Self {
        let priority = r.u32("priority").check(|priority| match priority {
            0 => Ok(()),
            1..=128 => Err("priorities other than 0 are not supported by this build".to_owned()),
            _ => Err(format!("{priority} is out of range")),
        });
        Self {
            locality: r.message_or_defaults("locality"),
            priority: priority.or_default(),
            weight: r.u32("load_balancing_weight").positive().optional(),
            endpoints: r
                .repeated::<Option<EndpointConfig>>("lb_endpoints")
                .or_default()
                .into_iter()
                .flatten()
                .collect(),
        }
    }
}

impl Message for Option<EndpointConfig> {
    const NAME: &'static str = "envoy.config.endpoint.v3.LbEndpoint";

    fn read(r: &Reader<'_>) -> Self {
        const STATES: &[(&str, u32, HealthStatus)] = &[
            ("UNKNOWN", 0, HealthStatus::Unknown),
            ("HEALTHY", 1, HealthStatus::Healthy),
            ("UNHEALTHY", 2, HealthStatus::Unhealthy),
            ("DRAINING", 3, HealthStatus::Draining),
            ("TIMEOUT", 4, HealthStatus::Timeout),
            ("DEGRADED", 5, HealthStatus::Degraded),
        ];
        let host = r.message::<Host>("endpoint").optional();
        r.exactly_one(&["endpoint"]);
        let weight = r.u32("load_balancing_weight").positive().or(1);
        let health_status = r.enumeration("health_status", STATES, &[]).or_default();
        let metadata = metadata(r);
        let Host { address, hostname } = host?;
        Some(EndpointConfig { address, hostname, weight, health_status, metadata })
    }
}

/// `Endpoint`.
struct Host {
    address: Address,
    hostname: String,
}

impl Message for Host {
    const NAME: &'static str = "envoy.config.endpoint.v3.Endpoint";

    fn read(r: &Reader<'_>) -> Self {
        let address = r.required_message::<Endpoint>("address").address;
        if address.port() == Some(0) {
            r.problem("a host needs a port other than 0");
        }
        Self { address, hostname: r.string("hostname").or_default() }
    }
}
