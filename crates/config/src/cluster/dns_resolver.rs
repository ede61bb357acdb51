//! Who is asked for the addresses of names, and how.

use std::net::SocketAddr;
use std::time::Duration;

use crate::address::Endpoint;
use crate::reader::{Message, Reader};

/// Who looks names up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ResolverConfig {
    /// This process asks DNS servers.
    Dns(DnsResolverConfig),
    /// The system is asked, however it finds out.
    System(SystemResolverConfig),
}

/// `envoy.network.dns_resolver.getaddrinfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct SystemResolverConfig {
    /// `num_retries`: how often the system is asked again that could not tell for now; `None`: until it can.
    pub retries: Option<u32>,
    /// `num_resolver_threads`: look-ups at a time, 1 when unset.
    pub at_once: Option<u32>,
}

/// `envoy.network.dns_resolver.cares`, and the deprecated forms that mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DnsResolverConfig {
    /// `resolvers`; empty: those of `/etc/resolv.conf`. Port 0 is 53.
    pub servers: Vec<SocketAddr>,
    /// `use_resolvers_as_fallback`: `servers` hold only where the system names none.
    pub servers_are_fallback: bool,
    /// `filter_unroutable_families`: no look-ups for a family that no interface has.
    pub filter_unroutable_families: bool,
    /// `dns_resolver_options.use_tcp_for_dns_lookups`.
    pub tcp: bool,
    /// `dns_resolver_options.no_default_search_domain`: names are taken as they are.
    pub no_search: bool,
    /// `query_timeout_seconds`: how long a server is waited for the first time; 5 s when unset.
    pub query_timeout: Duration,
    /// `query_tries`: how often each server is asked; 4 when unset.
    pub query_tries: u32,
    /// `rotate_nameservers`: look-ups begin with one server after the other.
    pub rotate: bool,
    /// `edns0_max_payload_size`, 512 to 4096, 1232 when unset.
    pub max_payload: u16,
}

impl Default for DnsResolverConfig {
    /// Envoy's.
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            servers_are_fallback: false,
            filter_unroutable_families: false,
            tcp: false,
            no_search: false,
            query_timeout: Duration::from_secs(5),
            query_tries: 4,
            rotate: false,
            max_payload: 1232,
        }
    }
}

/// `envoy.config.core.v3.DnsResolverOptions`.
#[derive(Default)]
struct Options {
    tcp: bool,
    no_search: bool,
}

impl Message for Options {
    const NAME: &'static str = "envoy.config.core.v3.DnsResolverOptions";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            tcp: r.bool("use_tcp_for_dns_lookups").or_default(),
            no_search: r.bool("no_default_search_domain").or_default(),
        }
    }
}

/// `typed_dns_resolver_config`.
pub(crate) struct TypedResolver(pub(crate) ResolverConfig);

impl Message for TypedResolver {
    const NAME: &'static str = "envoy.config.core.v3.TypedExtensionConfig";

    fn read(r: &Reader<'_>) -> Self {
        let default = || Self(ResolverConfig::Dns(DnsResolverConfig::default()));
        let extension = r.extension_any();
        r.may_be::<Cares>();
        r.may_be::<GetAddrInfo>();
        let Some(extension) = extension else { return default() };
        let any = extension.config;
        if any.is::<Cares>() {
            return Self(ResolverConfig::Dns(any.read::<Cares>(r).0));
        }
        if any.is::<GetAddrInfo>() {
            return Self(ResolverConfig::System(any.read::<GetAddrInfo>(r).0));
        }
        let name = any.type_url.rsplit('/').next().unwrap_or_default();
        r.problem(format!("DNS resolver `{name}` is not supported by this build"));
        default()
    }
}

/// `GetAddrInfoDnsResolverConfig`.
struct GetAddrInfo(SystemResolverConfig);

impl Message for GetAddrInfo {
    const NAME: &'static str =
        "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(SystemResolverConfig {
            retries: r.u32("num_retries").optional(),
            at_once: r.u32("num_resolver_threads").positive().optional(),
        })
    }
}

/// `CaresDnsResolverConfig`.
struct Cares(DnsResolverConfig);

impl Message for Cares {
    const NAME: &'static str = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";

    fn read(r: &Reader<'_>) -> Self {
        let default = DnsResolverConfig::default();
        let options = r.message_or_defaults::<Options>("dns_resolver_options");
        // Each look-up has a socket and so a port of its own: there is no channel that could be used too long, or
        // by too many.
        let _ = r.u32("udp_max_queries").optional();
        let _ = r.duration("max_udp_channel_duration").optional();
        let _ = r.bool("reinit_channel_on_timeout").optional();
        r.u32("qcache_max_ttl").only(0);
        Self(DnsResolverConfig {
            servers: servers(r),
            servers_are_fallback: r.bool("use_resolvers_as_fallback").or_default(),
            filter_unroutable_families: r.bool("filter_unroutable_families").or_default(),
            tcp: options.tcp,
            no_search: options.no_search,
            query_timeout: r
                .u64("query_timeout_seconds")
                .within(1..=86_400)
                .optional()
                .map_or(default.query_timeout, Duration::from_secs),
            query_tries: r.u32("query_tries").within(1..=100).or(default.query_tries),
            rotate: r.bool("rotate_nameservers").or_default(),
            max_payload: r
                .u32("edns0_max_payload_size")
                .within(512..=4096)
                .optional()
                .and_then(|size| size.try_into().ok())
                .unwrap_or(default.max_payload),
        })
    }
}

/// `envoy.config.core.v3.DnsResolutionConfig`, deprecated.
struct Resolution(DnsResolverConfig);

impl Message for Resolution {
    const NAME: &'static str = "envoy.config.core.v3.DnsResolutionConfig";

    fn read(r: &Reader<'_>) -> Self {
        let options = r.message_or_defaults::<Options>("dns_resolver_options");
        let servers = servers(r);
        if servers.is_empty() {
            r.problem("`resolvers` must not be empty");
        }
        let Options { tcp, no_search } = options;
        Self(DnsResolverConfig { servers, tcp, no_search, ..DnsResolverConfig::default() })
    }
}

fn servers(r: &Reader<'_>) -> Vec<SocketAddr> {
    r.repeated::<Server>("resolvers").or_default().into_iter().filter_map(|server| server.0).collect()
}

/// A server's `Address`.
struct Server(Option<SocketAddr>);

impl Message for Server {
    const NAME: &'static str = Endpoint::NAME;

    fn read(r: &Reader<'_>) -> Self {
        match Endpoint::read(r).address {
            tidegate_types::Address::Ip(socket) => Self(Some(socket)),
            tidegate_types::Address::Unix(path) => {
                r.problem(format!("DNS resolver `{}` is not an IP address", path.display()));
                Self(None)
            }
        }
    }
}

/// The fields of `Cluster` that chose a resolver, the newer ones before the deprecated ones.
pub(super) struct LegacyResolver {
    typed: Option<TypedResolver>,
    resolution: Option<Resolution>,
    servers: Vec<Server>,
    tcp: bool,
}

impl LegacyResolver {
    pub(super) fn read(r: &Reader<'_>) -> Self {
        Self {
            typed: r.message("typed_dns_resolver_config").optional(),
            resolution: r.message("dns_resolution_config").optional(),
            servers: r.repeated("dns_resolvers").or_default(),
            tcp: r.bool("use_tcp_for_dns_lookups").or_default(),
        }
    }

    /// The same of the bootstrap, which names no servers by themselves.
    pub(super) fn of_bootstrap(r: &Reader<'_>) -> Self {
        Self {
            typed: r.message("typed_dns_resolver_config").optional(),
            resolution: r.message("dns_resolution_config").optional(),
            servers: Vec::new(),
            tcp: r.bool("use_tcp_for_dns_lookups").or_default(),
        }
    }

    /// As in Envoy the newest form that is set holds, whole.
    pub(super) fn config(self) -> Option<ResolverConfig> {
        if let Some(TypedResolver(config)) = self.typed {
            return Some(config);
        }
        if let Some(Resolution(config)) = self.resolution {
            return Some(ResolverConfig::Dns(config));
        }
        if self.servers.is_empty() && !self.tcp {
            return None;
        }
        let servers = self.servers.into_iter().filter_map(|server| server.0).collect();
        Some(ResolverConfig::Dns(DnsResolverConfig {
            servers,
            tcp: self.tcp,
            ..DnsResolverConfig::default()
        }))
    }
}

/// The fields of the bootstrap: what holds for clusters that choose no resolver.
pub(crate) fn of_bootstrap(r: &Reader<'_>) -> Option<ResolverConfig> {
    LegacyResolver::of_bootstrap(r).config()
}
