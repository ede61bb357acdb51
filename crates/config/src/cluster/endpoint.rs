//! `envoy.config.endpoint.v3.ClusterLoadAssignment`: the hosts of a cluster.

use tidegate_types::Address;
use tidegate_types::json::Node;

use crate::bootstrap::Locality;

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
