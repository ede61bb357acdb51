//! `envoy.config.cluster.v3.Cluster`.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use tidegate_types::Address;
use tidegate_types::json::{Node, Problem};

use crate::discovery::Eds;
use crate::protocol::{Http1Options, Http2Options, Http3Options};
use crate::reader::{Message, Reader, Space};
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
mod settings;
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
pub use settings::{ClusterSettings, Settings};
pub use transport_match::{TRANSPORT_LABELS, TransportMatch};

use load_balancing::{Balancing, LegacyCommon};

/// A validated cluster: what is its own, and the rest, which it may share with others.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    /// `name`, unique, never empty.
    pub name: String,
    /// `alt_stat_name`, used in statistics instead of `name`.
    pub alt_stat_name: Option<String>,
    /// `eds_cluster_config` of an `EDS` cluster.
    pub eds: Option<Box<Eds>>,
    /// `load_assignment.endpoints`.
    pub endpoints: Vec<LocalityEndpoints>,
    /// `transport_socket`: of hosts that none of `transport_matches` is for.
    pub transport_socket: UpstreamTransport,
    /// `metadata.filter_metadata`, as written: for who reads the configuration.
    pub metadata: Option<Box<Node>>,
    /// Everything else; its fields are reached as if they were the cluster's.
    pub settings: Settings,
}

impl Deref for ClusterConfig {
    type Target = ClusterSettings;

    fn deref(&self) -> &ClusterSettings {
        &self.settings
    }
}

impl DerefMut for ClusterConfig {
    /// Parts from those with whom the settings were shared.
    fn deref_mut(&mut self) -> &mut ClusterSettings {
        &mut self.settings
    }
}

impl ClusterConfig {
    /// Whether nothing but the content of files differs that its TLS context names: those are taken over without a
    /// new cluster.
    pub fn same_but_content(&self, other: &Self) -> bool {
        let outer = |cluster: &Self| {
            let mut outer = Self { transport_socket: UpstreamTransport::Raw, ..cluster.clone() };
            outer.transport_matches = Vec::new();
            outer
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
        self.with(|settings| {
            settings.overprovisioning_factor = policy.overprovisioning_factor;
            settings.weighted_priority_health = policy.weighted_priority_health;
        })
    }

    /// The same cluster with other settings, which it shares with others if it can.
    fn with(&self, change: impl FnOnce(&mut ClusterSettings)) -> Self {
        let mut settings = ClusterSettings::clone(&self.settings);
        change(&mut settings);
        Self { settings: Settings::share(settings), ..self.clone() }
    }

    /// The same cluster with `bind`, if it says nothing of where connections come from.
    pub fn with_bind(&self, bind: &BindConfig) -> Option<Self> {
        self.bind.is_none().then(|| self.with(|settings| settings.bind = Some(Box::new(bind.clone()))))
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
        Some(self.with(|settings| settings.discovery = discovery))
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
        let eds = eds(r, &discovery);
        let settings = ClusterSettings {
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
            wait_for_warm_on_init: r.bool("wait_for_warm_on_init").or(true),
            track_stats,
        };
        Self {
            name: r.string("name").unique(Space::Cluster).required_non_empty(),
            alt_stat_name: r.string("alt_stat_name").non_empty(),
            eds,
            endpoints: assignment.endpoints,
            transport_socket,
            metadata: metadata(r).map(Box::new),
            settings: Settings::share(settings),
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

/// `track_cluster_stats`: what costs something for each request, or for each look at the statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrackStats {
    /// `timeout_budgets`: the shares of the route's and the try's time that requests took.
    pub timeout_budgets: bool,
    /// `request_response_sizes`: bytes and fields of heads, bytes of bodies.
    pub request_response_sizes: bool,
    /// `per_endpoint_stats`: hosts' numbers are among the statistics.
    pub per_endpoint: bool,
}

impl Message for TrackStats {
    const NAME: &'static str = "envoy.config.cluster.v3.TrackClusterStats";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            per_endpoint: r.bool("per_endpoint_stats").or_default(),
            timeout_budgets: r.bool("timeout_budgets").or_default(),
            request_response_sizes: r.bool("request_response_sizes").or_default(),
        }
    }
}
