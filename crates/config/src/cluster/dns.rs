//! How names of a cluster are looked up: `DnsCluster`, or the fields of `Cluster` that it replaces.

use std::time::Duration;

use super::dns_resolver::{LegacyResolver, ResolverConfig, TypedResolver};
use crate::reader::{Message, Reader};

/// When and how names are looked up.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsConfig {
    /// `dns_refresh_rate`, 5 s when unset, above 1 ms.
    pub refresh_rate: Duration,
    /// `dns_failure_refresh_rate`: after failures, instead of `refresh_rate`; `None`: as that.
    pub failure_refresh_rate: Option<FailureRefresh>,
    /// `respect_dns_ttl`: an answer's time to live replaces `refresh_rate`.
    pub respect_ttl: bool,
    /// `dns_min_refresh_rate`: a time to live counts as no less; 0 when unset.
    pub min_refresh_rate: Duration,
    /// `dns_jitter`: a random time below it is added to each wait.
    pub jitter: Duration,
    /// `dns_lookup_family`.
    pub family: LookupFamily,
    /// `typed_dns_resolver_config` and its deprecated forms; `None`: the bootstrap's, or the system's.
    pub resolver: Option<ResolverConfig>,
}

/// `dns_failure_refresh_rate`: exponential back-off with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureRefresh {
    /// `base_interval`.
    pub base: Duration,
    /// `max_interval`, 10 x `base` when unset.
    pub max: Duration,
}

/// `dns_lookup_family`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LookupFamily {
    /// `AUTO`: IPv6, and if there is none IPv4.
    #[default]
    Auto,
    /// `V4_ONLY`.
    V4Only,
    /// `V6_ONLY`.
    V6Only,
    /// `V4_PREFERRED`: IPv4, and if there is none IPv6.
    V4Preferred,
    /// `ALL`: both.
    All,
}

impl LookupFamily {
    const ALL: &'static [(&'static str, u32, Self)] = &[
        ("AUTO", 0, Self::Auto),
        ("V4_ONLY", 1, Self::V4Only),
        ("V6_ONLY", 2, Self::V6Only),
        ("V4_PREFERRED", 3, Self::V4Preferred),
        ("ALL", 4, Self::All),
    ];
}

/// What becomes of a name's addresses.
#[derive(Clone, Copy)]
pub(super) enum ManyHosts {
    HostEach,
    OneHost,
}

/// `envoy.extensions.clusters.dns.v3.DnsCluster`.
pub(super) struct DnsCluster {
    pub(super) config: Box<DnsConfig>,
    pub(super) hosts: ManyHosts,
}

impl Message for DnsCluster {
    const NAME: &'static str = "envoy.extensions.clusters.dns.v3.DnsCluster";

    fn read(r: &Reader<'_>) -> Self {
        const FAMILIES: &[(&str, u32, LookupFamily)] = &[
            // As in Envoy.
            ("UNSPECIFIED", 0, LookupFamily::Auto),
            ("AUTO", 1, LookupFamily::Auto),
            ("V4_ONLY", 2, LookupFamily::V4Only),
            ("V6_ONLY", 3, LookupFamily::V6Only),
            ("V4_PREFERRED", 4, LookupFamily::V4Preferred),
            ("ALL", 5, LookupFamily::All),
        ];
        let single = r.bool("all_addresses_in_single_endpoint").or_default();
        let config = DnsConfig {
            refresh_rate: refresh_rate(r),
            failure_refresh_rate: r
                .message::<DnsClusterRefresh>("dns_failure_refresh_rate")
                .optional()
                .map(|refresh| refresh.0),
            respect_ttl: r.bool("respect_dns_ttl").or_default(),
            min_refresh_rate: r
                .duration("dns_min_refresh_rate")
                .at_least(Duration::from_secs(1))
                .or_default(),
            jitter: r.duration("dns_jitter").or_default(),
            family: r.enumeration("dns_lookup_family", FAMILIES, &[]).or_default(),
            resolver: r.message::<TypedResolver>("typed_dns_resolver_config").optional().map(|typed| typed.0),
        };
        let hosts = if single { ManyHosts::OneHost } else { ManyHosts::HostEach };
        Self { config: Box::new(config), hosts }
    }
}

/// The same as fields of `Cluster`. Other types of clusters may have them set, as in Envoy.
pub(super) struct LegacyDns {
    config: DnsConfig,
    resolver: LegacyResolver,
}

impl LegacyDns {
    pub(super) fn read(r: &Reader<'_>) -> Self {
        let resolver = LegacyResolver::read(r);
        let config = DnsConfig {
            refresh_rate: refresh_rate(r),
            failure_refresh_rate: r
                .message::<LegacyRefresh>("dns_failure_refresh_rate")
                .optional()
                .map(|refresh| refresh.0),
            respect_ttl: r.bool("respect_dns_ttl").or_default(),
            min_refresh_rate: Duration::ZERO,
            jitter: r.duration("dns_jitter").or_default(),
            family: r.enumeration("dns_lookup_family", LookupFamily::ALL, &[]).or_default(),
            resolver: None,
        };
        Self { config, resolver }
    }

    pub(super) fn config(self) -> DnsConfig {
        DnsConfig { resolver: self.resolver.config(), ..self.config }
    }
}

fn refresh_rate(r: &Reader<'_>) -> Duration {
    more_than_one_ms(r, "dns_refresh_rate").unwrap_or(Duration::from_secs(5))
}

fn more_than_one_ms(r: &Reader<'_>, name: &'static str) -> Option<Duration> {
    let check = |duration: &Duration| match *duration > Duration::from_millis(1) {
        true => Ok(()),
        false => Err("must be more than 1 ms".to_owned()),
    };
    r.duration(name).check(check).optional()
}

/// `DnsCluster.RefreshRate`.
struct DnsClusterRefresh(FailureRefresh);

impl Message for DnsClusterRefresh {
    const NAME: &'static str = "envoy.extensions.clusters.dns.v3.DnsCluster.RefreshRate";

    fn read(r: &Reader<'_>) -> Self {
        Self(failure_refresh(r))
    }
}

/// `Cluster.RefreshRate`.
struct LegacyRefresh(FailureRefresh);

impl Message for LegacyRefresh {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.RefreshRate";

    fn read(r: &Reader<'_>) -> Self {
        Self(failure_refresh(r))
    }
}

fn failure_refresh(r: &Reader<'_>) -> FailureRefresh {
    let base = more_than_one_ms(r, "base_interval");
    r.exactly_one(&["base_interval"]);
    let base = base.unwrap_or(Duration::from_secs(5));
    let max = more_than_one_ms(r, "max_interval").unwrap_or(base * 10);
    if max < base {
        r.problem("`max_interval` must be greater than or equal to `base_interval`");
    }
    FailureRefresh { base, max }
}
