//! `envoy.config.cluster.v3.Cluster`.

use std::net::IpAddr;
use std::time::Duration;

use crate::listener::TransportSocket;
use crate::protocol::{CommonHttpOptions, Http1Options};
use crate::values::TcpKeepalive;

mod circuit_breakers;
mod endpoint;

pub use circuit_breakers::{CircuitBreakers, RetryBudget, Thresholds};
pub use endpoint::{EndpointConfig, HealthStatus, LocalityEndpoints};

/// A validated cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    /// `name`, unique, never empty.
    pub name: String,
    /// `alt_stat_name`, used in statistics instead of `name`.
    pub alt_stat_name: Option<String>,
    /// `type`.
    pub discovery: Discovery,
    /// `lb_policy`.
    pub lb_policy: LbPolicy,
    /// `common_lb_config.healthy_panic_threshold` in percent, 50 when unset, 0 is off.
    pub healthy_panic_threshold: f64,
    /// `load_assignment.endpoints`.
    pub endpoints: Vec<LocalityEndpoints>,
    /// `connect_timeout`, 5 s when unset, never 0.
    pub connect_timeout: Duration,
    /// `per_connection_buffer_limit_bytes`, 1 MiB when unset.
    pub per_connection_buffer_limit_bytes: u32,
    /// `circuit_breakers`.
    pub circuit_breakers: CircuitBreakers,
    /// Which protocol the upstream speaks.
    pub protocol: UpstreamProtocol,
    /// `common_http_protocol_options` of `HttpProtocolOptions`, or the deprecated cluster field.
    pub common_http: CommonHttpOptions,
    /// `upstream_connection_options.tcp_keepalive`; `None` leaves the sockets alone.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `upstream_bind_config.source_address`; port 0 when none is fixed.
    pub source_address: Option<(IpAddr, u16)>,
    /// `track_cluster_stats`.
    pub track_stats: TrackStats,
    /// `transport_socket`.
    pub transport_socket: TransportSocket,
    /// `wait_for_warm_on_init`, true when unset.
    pub wait_for_warm_on_init: bool,
}

impl ClusterConfig {
    /// The name that statistics carry.
    pub fn stat_name(&self) -> &str {
        self.alt_stat_name.as_deref().unwrap_or(&self.name)
    }
}

/// `type`: where hosts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// `STATIC`: the addresses in `load_assignment`.
    Static,
}

/// `lb_policy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LbPolicy {
    /// `ROUND_ROBIN`, weighted.
    #[default]
    RoundRobin,
    /// `RANDOM`, weighted.
    Random,
}

/// The upstream's protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// `explicit_http_config.http_protocol_options`, and the default.
    Http1(Http1Options),
}

/// `track_cluster_stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrackStats {
    /// `timeout_budgets`: `upstream_rq_timeout_budget_*` histograms.
    pub timeout_budgets: bool,
    /// `request_response_sizes`: header and body size histograms.
    pub request_response_sizes: bool,
    /// `per_endpoint_stats`.
    pub per_endpoint_stats: bool,
}
