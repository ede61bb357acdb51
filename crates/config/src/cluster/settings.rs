//! What many clusters have in common: all of a cluster's configuration but its name, hosts and keys.
//!
//! Thousands of clusters that are configured alike share one copy of it ([`Settings::share`]), which is what makes a
//! large configuration small. Start from [`Settings`].

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use tidegate_types::recent::Recent;

use super::{
    AutoSni, BindConfig, CircuitBreakers, ConnectionReuse, Discovery, DropOverload, HappyEyeballsConfig,
    HealthCheckConfig, Http3Selection, LbPolicy, LocalityLb, OutlierDetectionConfig, PreconnectPolicy,
    SubsetConfig, TrackStats, TransportMatch, UpstreamProtocol,
};
use crate::protocol::CommonHttpOptions;
use crate::route::{MirrorPolicy, RetryPolicy};
use crate::values::TcpKeepalive;
/// The settings of a cluster, which others may share. Equal ones are equal, whether or not they are shared.
#[derive(Debug, Clone)]
pub struct Settings(Arc<ClusterSettings>);

impl Settings {
    /// Those of one of the clusters that were made last on this thread, if they are the same.
    pub fn share(settings: ClusterSettings) -> Self {
        Self(RECENT.with(|recent| recent.share(settings, PartialEq::eq)))
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Deref for Settings {
    type Target = ClusterSettings;

    fn deref(&self) -> &ClusterSettings {
        &self.0
    }
}

impl DerefMut for Settings {
    fn deref_mut(&mut self) -> &mut ClusterSettings {
        Arc::make_mut(&mut self.0)
    }
}

thread_local! {
    static RECENT: Recent<ClusterSettings> = const { Recent::new() };
}

/// See [`super::ClusterConfig`].
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSettings {
    /// `type`.
    pub discovery: Discovery,
    /// `lb_policy`, or what `load_balancing_policy` says.
    pub lb_policy: LbPolicy,
    /// How the places of hosts count.
    pub locality_lb: LocalityLb,
    /// `lb_subset_config`; `None`: there are no subsets.
    pub subsets: Option<Box<SubsetConfig>>,
    /// `common_lb_config.healthy_panic_threshold` in percent, 50 when unset, 0 is off.
    pub healthy_panic_threshold: f64,
    /// `load_assignment.policy.overprovisioning_factor` in percent, 140 when unset: how much more than its share a
    /// priority's host can take before others get some.
    pub overprovisioning_factor: u32,
    /// `load_assignment.policy.weighted_priority_health`: what a priority can take is reckoned by the weights of its
    /// hosts, not by their number.
    pub weighted_priority_health: bool,
    /// `load_assignment.policy.drop_overloads`.
    pub drop_overload: Option<Box<DropOverload>>,
    /// `common_lb_config.close_connections_on_host_set_change`: any change of the hosts closes the connections to all
    /// of them.
    pub close_connections_on_host_set_change: bool,
    /// `common_lb_config.update_merge_window`: changes of hosts that stay which follow each other within this time reach
    /// load balancers together; `None`: each at once (0, and unlike Envoy unset).
    pub update_merge_window: Option<Duration>,
    /// `common_lb_config.ignore_new_hosts_until_first_hc`: hosts that were not checked yet do not count for the panic
    /// threshold and for what their priority can take.
    pub ignore_new_hosts_until_first_hc: bool,
    /// `health_checks`: a host works when all of them find that it does.
    pub health_checks: Vec<HealthCheckConfig>,
    /// `ignore_health_on_host_removal`: hosts that discovery names no more leave at once, and not only when their
    /// checks fail.
    pub ignore_health_on_host_removal: bool,
    /// `close_connections_on_host_health_failure`: TCP sessions to a host end when it begins to fail.
    pub close_connections_on_host_health_failure: bool,
    /// `connection_pool_per_downstream_connection`: HTTP connections are shared by requests of one downstream
    /// connection only.
    pub pool_per_downstream_connection: bool,
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
    /// `idle_timeout` of `TcpProtocolOptions`: how long a TCP connection that no session uses is kept; 10 min
    /// when unset, `None` is off (0).
    pub tcp_idle_timeout: Option<Duration>,
    /// `outlier_detection`; `None`: none.
    pub outlier_detection: Option<OutlierDetectionConfig>,
    /// `preconnect_policy`.
    pub preconnect: PreconnectPolicy,
    /// `upstream_http_protocol_options` of `HttpProtocolOptions`.
    pub auto_sni: AutoSni,
    /// `typed_extension_protocol_options["tidegate.connection_reuse"]`, all defaults when unset.
    pub reuse: ConnectionReuse,
    /// `typed_extension_protocol_options["tidegate.http3_selection"]`, all defaults when unset.
    pub http3_selection: Http3Selection,
    /// `retry_policy` of `HttpProtocolOptions`: replaces the route's, whole.
    pub retry_policy: Option<RetryPolicy>,
    /// `request_mirror_policies` of `HttpProtocolOptions`: replace the route's, whole, unless empty. Clusters that
    /// they name may be missing.
    pub mirrors: Vec<MirrorPolicy>,
    /// `upstream_connection_options.tcp_keepalive`; `None` leaves the sockets alone.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `upstream_connection_options.happy_eyeballs_config`: of hosts with several addresses.
    pub happy_eyeballs: HappyEyeballsConfig,
    /// `upstream_bind_config`; `None`: that of `cluster_manager`, if there is one.
    pub bind: Option<Box<BindConfig>>,
    /// `transport_socket_matches`: the first whose labels a host has is what it speaks.
    pub transport_matches: Vec<TransportMatch>,
    /// `wait_for_warm_on_init`, true when unset.
    pub wait_for_warm_on_init: bool,
    /// `track_cluster_stats`, and the deprecated `track_timeout_budgets`.
    pub track_stats: TrackStats,
}
