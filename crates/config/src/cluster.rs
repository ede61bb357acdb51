//! `envoy.config.cluster.v3.Cluster`.

use std::time::Duration;

use tidegate_types::Address;
use tidegate_types::json::{Node, Problem};

use crate::discovery::Eds;
use crate::protocol::{CommonHttpOptions, Http1Options, Http2Options, Http3Options};
use crate::reader::{Message, Reader, Space};
use crate::route::{MirrorPolicy, RetryPolicy};
use crate::tls::TlsVersion;
use crate::transport::{BELOW_1_3, UpstreamTransport};
use crate::values::{Percent, TcpKeepalive, metadata};

mod alternate_protocols;
mod bind;
mod circuit_breakers;
mod discovery;
mod dns;
mod dns_resolver;
mod endpoint;
mod happy_eyeballs;
mod health_check;
mod http3_selection;
mod http_options;
mod load_balancing;
mod original_dst;
mod outlier_detection;
mod preconnect;
mod reuse;
mod transport_match;

use http_options::HttpOptions;

pub use alternate_protocols::{AlternateProtocols, KeyValueFile};
pub use bind::{BindConfig, Source};
pub use circuit_breakers::{CircuitBreakers, RetryBudget, Thresholds};
pub use discovery::Discovery;
pub use dns::{DnsConfig, FailureRefresh, LookupFamily};
pub(crate) use dns_resolver::of_bootstrap as resolver_of_bootstrap;
pub use dns_resolver::{DnsResolverConfig, ResolverConfig, SystemResolverConfig};
pub use endpoint::{
    AssignmentPolicy, DropOverload, EndpointConfig, HealthStatus, LoadAssignment, LocalityEndpoints,
};
pub use happy_eyeballs::{FirstFamily, HappyEyeballsConfig};
pub use health_check::{
    CheckEvents, CheckIntervals, CheckProtocol, Checker, EndpointHealthCheck, GrpcCheck, HealthCheckConfig,
    HttpCheck, StatusRanges, TcpCheck,
};
pub use http_options::AutoSni;
pub use http3_selection::Http3Selection;
pub use load_balancing::{
    ForceLocalZone, HashFunction, HashedName, LbPolicy, LeastRequestConfig, LocalityBasis, LocalityLb,
    MaglevConfig, RingHashConfig, SelectionMethod, SelectorFallback, SlowStart, SubsetConfig, SubsetFallback,
    SubsetSelector, ZoneAware,
};
pub use original_dst::OriginalDstConfig;
pub use outlier_detection::{
    EnforcingConfig, FailurePercentageConfig, OutlierDetectionConfig, SuccessRateConfig,
};
pub use preconnect::PreconnectPolicy;
pub use reuse::ConnectionReuse;
pub use transport_match::{TRANSPORT_LABELS, TransportMatch};

use load_balancing::{Balancing, LegacyCommon};

/// A validated cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    /// `name`, unique, never empty.
    pub name: String,
    /// `alt_stat_name`, used in statistics instead of `name`.
    pub alt_stat_name: Option<String>,
    /// `type`.
    pub discovery: Discovery,
    /// `eds_cluster_config` of an `EDS` cluster.
    pub eds: Option<Box<Eds>>,
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
    /// `transport_socket`: of hosts that none of `transport_matches` is for.
    pub transport_socket: UpstreamTransport,
    /// `transport_socket_matches`: the first whose labels a host has is what it speaks.
    pub transport_matches: Vec<TransportMatch>,
    /// `wait_for_warm_on_init`, true when unset.
    pub wait_for_warm_on_init: bool,
    /// `track_cluster_stats`, and the deprecated `track_timeout_budgets`.
    pub track_stats: TrackStats,
    /// `metadata.filter_metadata`, as written: for who reads the configuration.
    pub metadata: Option<Box<Node>>,
}

impl ClusterConfig {
    /// Whether nothing but the content of files differs that its TLS context names: those are taken over without a
    /// new cluster.
    pub fn same_but_content(&self, other: &Self) -> bool {
        let outer = |cluster: &Self| Self {
            transport_socket: UpstreamTransport::Raw,
            transport_matches: Vec::new(),
            ..cluster.clone()
        };
        let matches = self.transport_matches.iter().zip(&other.transport_matches);
        self == other
            || (self.transport_socket.same_but_content(&other.transport_socket)
                && self.transport_matches.len() == other.transport_matches.len()
                && matches.into_iter().all(|(one, other)| one.same_but_content(other))
                && outer(self) == outer(other))
    }

    /// Everything that its hosts may speak: `transport_socket`, then those of `transport_socket_matches`.
    pub fn transports(&self) -> impl Iterator<Item = &UpstreamTransport> {
        std::iter::once(&self.transport_socket).chain(self.transport_matches.iter().map(|one| &one.socket))
    }

    /// Whether a host that discovery does not name any more stays while active health checks find it well (Envoy
    /// docs, "Service discovery": on eventually consistent service discovery).
    pub fn keeps_checked_hosts(&self) -> bool {
        // Without checks nobody would find out.
        self.is_checked() && !self.ignore_health_on_host_removal
    }

    /// Whether there are active health checks.
    #[inline]
    pub fn is_checked(&self) -> bool {
        !self.health_checks.is_empty()
    }

    /// Whether `policy`, of hosts that come from elsewhere, is what holds, as far as it makes another cluster.
    pub fn has_policy(&self, policy: &AssignmentPolicy) -> bool {
        (self.overprovisioning_factor, self.weighted_priority_health)
            == (policy.overprovisioning_factor, policy.weighted_priority_health)
    }

    /// The same cluster under another `policy`.
    pub fn with_policy(&self, policy: &AssignmentPolicy) -> Self {
        Self {
            overprovisioning_factor: policy.overprovisioning_factor,
            weighted_priority_health: policy.weighted_priority_health,
            ..self.clone()
        }
    }

    /// The same cluster with `bind`, if it says nothing of where connections come from.
    pub fn with_bind(&self, bind: &BindConfig) -> Option<Self> {
        self.bind.is_none().then(|| Self { bind: Some(Box::new(bind.clone())), ..self.clone() })
    }

    /// The same cluster with `resolver`, if it looks names up and has chosen none.
    pub fn with_resolver(&self, resolver: &ResolverConfig) -> Option<Self> {
        let with = |dns: &DnsConfig| {
            dns.resolver
                .is_none()
                .then(|| Box::new(DnsConfig { resolver: Some(resolver.clone()), ..dns.clone() }))
        };
        let discovery = match &self.discovery {
            Discovery::StrictDns(dns) => Discovery::StrictDns(with(dns)?),
            Discovery::LogicalDns(dns) => Discovery::LogicalDns(with(dns)?),
            _ => return None,
        };
        Some(Self { discovery, ..self.clone() })
    }

    /// The name that statistics carry.
    pub fn stat_name(&self) -> &str {
        self.alt_stat_name.as_deref().unwrap_or(&self.name)
    }
}

/// The upstream's protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum UpstreamProtocol {
    /// `explicit_http_config.http_protocol_options`, and the default.
    Http1(Http1Options),
    /// `explicit_http_config.http2_protocol_options`, or the cluster's deprecated `http2_protocol_options`: HTTP/2
    /// with prior knowledge, over plain TCP as over TLS.
    Http2(Http2Options),
    /// `explicit_http_config.http3_protocol_options`: HTTP/3 with prior knowledge. Only over QUIC.
    Http3(Box<Http3Options>),
    /// `use_downstream_protocol_config`: HTTP/3 (if there are options of it) for requests that came over it, HTTP/2
    /// for those and for requests that came over HTTP/2, HTTP/1.1 for others. Boxed, since it is rare.
    AsDownstream(Box<ProtocolOptions>),
    /// `auto_config`: HTTP/3 if there are options of it and the host offers it, else what ALPN chooses, HTTP/2 or
    /// HTTP/1.1. Only over TLS.
    Auto(Box<ProtocolOptions>),
}

/// Options of protocols that are not settled yet. An unset message of HTTP/1.1 or HTTP/2 means defaults: Envoy follows
/// the downstream protocol then too.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProtocolOptions {
    /// `http_protocol_options`.
    pub http1: Http1Options,
    /// `http2_protocol_options`.
    pub http2: Http2Options,
    /// `http3_protocol_options`; `None`: no HTTP/3.
    pub http3: Option<Http3Options>,
    /// `alternate_protocols_cache_options` of `auto_config`. Without one HTTP/3 is tried with every host.
    pub alternate_protocols: Option<Box<AlternateProtocols>>,
}

impl UpstreamProtocol {
    /// The options of HTTP/1.1 connections; `None`: there are none.
    pub fn http1(&self) -> Option<&Http1Options> {
        match self {
            Self::Http1(http1) => Some(http1),
            Self::Http2(_) | Self::Http3(_) => None,
            Self::AsDownstream(options) | Self::Auto(options) => Some(&options.http1),
        }
    }

    /// The options of HTTP/2 connections; `None`: there are none.
    pub fn http2(&self) -> Option<&Http2Options> {
        match self {
            Self::Http1(_) | Self::Http3(_) => None,
            Self::Http2(http2) => Some(http2),
            Self::AsDownstream(options) | Self::Auto(options) => Some(&options.http2),
        }
    }

    /// The options of HTTP/3 connections; `None`: there are none.
    pub fn http3(&self) -> Option<&Http3Options> {
        match self {
            Self::Http1(_) | Self::Http2(_) => None,
            Self::Http3(http3) => Some(http3),
            Self::AsDownstream(options) | Self::Auto(options) => options.http3.as_ref(),
        }
    }
}

impl Message for ClusterConfig {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster";

    fn read(r: &Reader<'_>) -> Self {
        let common_lb = r.message_or_defaults::<CommonLb>("common_lb_config");
        let balancing = Balancing::read(r, common_lb.balancing);
        let http = HttpOptions::read(r);
        let mut track_stats = r.message_or_defaults::<TrackStats>("track_cluster_stats");
        track_stats.timeout_budgets |= r.bool("track_timeout_budgets").or_default();
        let connection = r.message_or_defaults::<ConnectionOptions>("upstream_connection_options");
        let transport_socket: UpstreamTransport = r.message_or_defaults("transport_socket");
        check_http3(r, &http.protocol, &transport_socket);
        if matches!(http.protocol, UpstreamProtocol::Auto(_)) && transport_socket.tls().is_none() {
            r.problem(
                "`auto_config` chooses by ALPN, and the `transport_socket` is not one that negotiates it",
            );
        }
        let transport_matches = transport_match::read(r, &http.protocol);
        let discovery = Discovery::read(r);
        r.cx.takes_names.set(discovery.takes_names());
        r.cx.takes_udp.set(http.protocol.http3().is_some());
        let assignment = r.message::<LoadAssignment>("load_assignment").optional().unwrap_or_default();
        r.cx.takes_names.set(false);
        r.cx.takes_udp.set(false);
        check_hosts(r, &http.protocol, &assignment.endpoints);
        check_discovery(r, &discovery, &assignment.endpoints);
        original_dst::check(r, &discovery, &balancing.policy, &assignment.endpoints);
        Self {
            name: r.string("name").unique(Space::Cluster).required_non_empty(),
            alt_stat_name: r.string("alt_stat_name").non_empty(),
            eds: eds(r, &discovery),
            discovery,
            lb_policy: balancing.policy,
            locality_lb: balancing.locality,
            subsets: balancing.subsets,
            healthy_panic_threshold: common_lb.healthy_panic_threshold,
            close_connections_on_host_set_change: common_lb.close_on_change,
            update_merge_window: common_lb.update_merge_window,
            ignore_new_hosts_until_first_hc: common_lb.ignore_new_hosts,
            health_checks: health_check::health_checks(r, http.protocol.http2().is_some()),
            ignore_health_on_host_removal: r.bool("ignore_health_on_host_removal").or_default(),
            close_connections_on_host_health_failure: r
                .bool("close_connections_on_host_health_failure")
                .or_default(),
            pool_per_downstream_connection: r.bool("connection_pool_per_downstream_connection").or_default(),
            endpoints: assignment.endpoints,
            overprovisioning_factor: assignment.policy.overprovisioning_factor,
            weighted_priority_health: assignment.policy.weighted_priority_health,
            drop_overload: assignment.policy.drop_overload,
            connect_timeout: r.duration("connect_timeout").greater_than_zero().or(Duration::from_secs(5)),
            per_connection_buffer_limit_bytes: r.u32("per_connection_buffer_limit_bytes").or(1 << 20),
            circuit_breakers: r.message_or_defaults("circuit_breakers"),
            protocol: http.protocol,
            common_http: http.common,
            tcp_idle_timeout: http.tcp_idle_timeout,
            outlier_detection: r.message("outlier_detection").optional(),
            preconnect: r.message_or_defaults("preconnect_policy"),
            auto_sni: http.auto_sni,
            reuse: http.reuse,
            http3_selection: http.http3_selection,
            retry_policy: http.retry_policy,
            mirrors: http.mirrors,
            tcp_keepalive: connection.tcp_keepalive,
            happy_eyeballs: connection.happy_eyeballs,
            bind: r.message("upstream_bind_config").optional().map(Box::new),
            transport_matches,
            transport_socket,
            wait_for_warm_on_init: r.bool("wait_for_warm_on_init").or(true),
            track_stats,
            metadata: metadata(r).map(Box::new),
        }
    }
}

/// What HTTP/3 demands of the transport.
fn check_http3(r: &Reader<'_>, protocol: &UpstreamProtocol, socket: &UpstreamTransport) {
    let Some(http3) = protocol.http3() else { return };
    if http3.quic.num_timeouts_to_trigger_port_migration.is_some_and(|timeouts| timeouts > 0) {
        r.problem(
            "`num_timeouts_to_trigger_port_migration`: connections to upstreams do not change their port in this \
             build: only 0 is supported",
        );
    }
    let UpstreamTransport::Quic(tls) = socket else {
        // Envoy's words.
        let name = r.string("name").or_default();
        return r.problem(format!("HTTP3 requires a QuicUpstreamTransport transport socket: {name}"));
    };
    if matches!(protocol, UpstreamProtocol::Http3(_)) && tls.common.params.maximum < TlsVersion::V1_3 {
        r.cx.report(tls.place.problem(BELOW_1_3));
    }
}

/// What HTTP/3 demands of the hosts.
fn check_hosts(r: &Reader<'_>, protocol: &UpstreamProtocol, places: &[LocalityEndpoints]) {
    let mut hosts = places.iter().flat_map(|place| &place.endpoints);
    let pipe = hosts.find_map(|host| match &host.address {
        Address::Unix(path) => Some(path),
        Address::Ip(_) => None,
    });
    if let (UpstreamProtocol::Http3(_), Some(path)) = (protocol, pipe) {
        r.problem(format!("HTTP/3 needs UDP, which the host `{}` does not have", path.display()));
    }
}

/// What a type of cluster demands of its endpoints.
fn check_discovery(r: &Reader<'_>, discovery: &Discovery, places: &[LocalityEndpoints]) {
    if let Discovery::LogicalDns(_) = discovery
        && !matches!(places, [place] if place.endpoints.len() == 1)
    {
        r.problem("a logical DNS cluster has exactly one locality, and in it exactly one endpoint");
    }
}

/// The source of an `EDS` cluster's hosts.
fn eds(r: &Reader<'_>, discovery: &Discovery) -> Option<Box<Eds>> {
    let eds = r.message::<Option<Eds>>("eds_cluster_config");
    match (discovery, eds.peek()) {
        (Discovery::Eds, None) if !r.has("eds_cluster_config") => {
            r.problem("an `EDS` cluster needs `eds_cluster_config`")
        }
        (other, Some(_)) if *other != Discovery::Eds => {
            eds.report("only a cluster of type `EDS` has it", None);
        }
        _ => {}
    }
    if *discovery == Discovery::Eds && r.has("load_assignment") {
        let place = r.place("load_assignment");
        let message = "an `EDS` cluster has its hosts from `eds_cluster_config`";
        r.cx.report(Problem::new(r.path.field("load_assignment"), place, message));
    }
    eds.optional().flatten().map(Box::new)
}

struct CommonLb {
    healthy_panic_threshold: f64,
    close_on_change: bool,
    update_merge_window: Option<Duration>,
    ignore_new_hosts: bool,
    balancing: LegacyCommon,
}

impl Message for CommonLb {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.CommonLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        let threshold = r.message::<Percent>("healthy_panic_threshold").optional();
        // It limits what filters may choose in the load balancer's place, and no filter of this build does.
        r.message::<HealthStatusSet>("override_host_status").optional();
        Self {
            healthy_panic_threshold: threshold.map_or(50.0, |percent| percent.0),
            close_on_change: r.bool("close_connections_on_host_set_change").or_default(),
            update_merge_window: r.duration("update_merge_window").zero_is_off(None),
            ignore_new_hosts: r.bool("ignore_new_hosts_until_first_hc").or_default(),
            balancing: LegacyCommon::read(r),
        }
    }
}

/// `override_host_status`.
struct HealthStatusSet;

impl Message for HealthStatusSet {
    const NAME: &'static str = "envoy.config.core.v3.HealthStatusSet";

    fn read(r: &Reader<'_>) -> Self {
        r.enumerations("statuses", HealthStatus::NAMES).or_default();
        Self
    }
}

/// `upstream_connection_options`.
struct ConnectionOptions {
    tcp_keepalive: Option<TcpKeepalive>,
    happy_eyeballs: HappyEyeballsConfig,
}

impl Message for ConnectionOptions {
    const NAME: &'static str = "envoy.config.cluster.v3.UpstreamConnectionOptions";

    fn read(r: &Reader<'_>) -> Self {
        // Which interface a connection leaves by is for filters of upstream connections, of which there are none.
        r.bool("set_local_interface_name_on_upstream_connections").optional();
        Self {
            tcp_keepalive: r.message("tcp_keepalive").optional(),
            happy_eyeballs: r.message_or_defaults("happy_eyeballs_config"),
        }
    }
}

/// `track_cluster_stats`: histograms that cost something for each request. Those of endpoints are not supported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrackStats {
    /// `timeout_budgets`: the shares of the route's and the try's time that requests took.
    pub timeout_budgets: bool,
    /// `request_response_sizes`: bytes and fields of heads, bytes of bodies.
    pub request_response_sizes: bool,
}

impl Message for TrackStats {
    const NAME: &'static str = "envoy.config.cluster.v3.TrackClusterStats";

    fn read(r: &Reader<'_>) -> Self {
        r.bool("per_endpoint_stats").only(false);
        Self {
            timeout_budgets: r.bool("timeout_budgets").or_default(),
            request_response_sizes: r.bool("request_response_sizes").or_default(),
        }
    }
}
