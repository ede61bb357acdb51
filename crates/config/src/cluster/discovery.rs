//! `type`, or `cluster_type`: where a cluster's hosts come from.

use super::dns::{DnsCluster, DnsConfig, LegacyDns, ManyHosts};
use super::original_dst::{self, OriginalDstConfig};
use crate::reader::{Any, Message, Reader};

/// Where hosts come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// `STATIC`: the addresses in `load_assignment`.
    Static,
    /// `STRICT_DNS`: each address that the names in `load_assignment` have is a host.
    StrictDns(Box<DnsConfig>),
    /// `LOGICAL_DNS`: the one name in `load_assignment` is the host; new connections go to the addresses that it has
    /// at that time.
    LogicalDns(Box<DnsConfig>),
    /// `EDS`: those in a file that is watched ([`eds`](super::ClusterConfig::eds)).
    Eds,
    /// `ORIGINAL_DST`: wherever each request, or each connection, was going.
    OriginalDst(Box<OriginalDstConfig>),
}

#[derive(Clone, Copy)]
enum Kind {
    Static,
    StrictDns,
    LogicalDns,
    Eds,
    OriginalDst,
}

impl Discovery {
    /// Whether hosts are named, and not given by their addresses.
    pub(super) fn takes_names(&self) -> bool {
        matches!(self, Self::StrictDns(_) | Self::LogicalDns(_))
    }

    pub(super) fn read(r: &Reader<'_>) -> Self {
        const KINDS: &[(&str, u32, Kind)] = &[
            ("STATIC", 0, Kind::Static),
            ("STRICT_DNS", 1, Kind::StrictDns),
            ("LOGICAL_DNS", 2, Kind::LogicalDns),
            ("EDS", 3, Kind::Eds),
            ("ORIGINAL_DST", 4, Kind::OriginalDst),
        ];
        r.at_most_one(&["type", "cluster_type"]);
        let legacy = LegacyDns::read(r);
        let original = original_dst::read(r);
        let kind = r.enumeration("type", KINDS, &[]).or(Kind::Static);
        let custom = r.message::<CustomType>("cluster_type").optional();
        let kind = match custom {
            Some(CustomType(Custom::Dns(config, ManyHosts::OneHost))) => {
                return Self::LogicalDns(config);
            }
            Some(CustomType(Custom::Dns(config, ManyHosts::HostEach))) => return Self::StrictDns(config),
            Some(CustomType(Custom::Kind(kind))) => kind,
            None => kind,
        };
        match kind {
            Kind::Static => Self::Static,
            Kind::Eds => Self::Eds,
            Kind::OriginalDst => Self::OriginalDst(Box::new(original)),
            Kind::StrictDns => Self::StrictDns(Box::new(legacy.config())),
            Kind::LogicalDns => Self::LogicalDns(Box::new(legacy.config())),
        }
    }
}

/// `Cluster.CustomClusterType`.
struct CustomType(Custom);

enum Custom {
    Kind(Kind),
    Dns(Box<DnsConfig>, ManyHosts),
}

impl Message for CustomType {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.CustomClusterType";

    fn read(r: &Reader<'_>) -> Self {
        let name = r.string("name").required_non_empty();
        let typed = r.any_or_empty("typed_config").optional().flatten();
        r.may_be::<DnsCluster>();
        match typed {
            Some(any) => Self(typed_kind(r, &any)),
            None => Self(Custom::Kind(named_kind(r, &name))),
        }
    }
}

/// As in Envoy it is the type of the configuration that counts, whatever the name is.
fn typed_kind<'a>(r: &Reader<'a>, any: &Any<'a>) -> Custom {
    if any.is::<DnsCluster>() {
        let DnsCluster { config, hosts } = any.read(r);
        return Custom::Dns(config, hosts);
    }
    r.problem(format!("cluster type `{}` is not supported by this build", any.type_url));
    Custom::Kind(Kind::Static)
}

fn named_kind(r: &Reader<'_>, name: &str) -> Kind {
    match name {
        "envoy.cluster.static" => Kind::Static,
        "envoy.cluster.eds" => Kind::Eds,
        // Without `typed_config` addresses are hosts each.
        "envoy.cluster.strict_dns" | "envoy.cluster.dns" => Kind::StrictDns,
        "envoy.cluster.logical_dns" => Kind::LogicalDns,
        "envoy.cluster.original_dst" => Kind::OriginalDst,
        _ => {
            r.problem(format!("cluster type `{name}` is not supported by this build"));
            Kind::Static
        }
    }
}
