//! `ORIGINAL_DST`: hosts are wherever requests were going (Envoy docs, "Original destination").

use std::time::Duration;

use super::{Discovery, LbPolicy, LocalityEndpoints};
use crate::reader::{Message, Reader};
use crate::route::header_name;

/// How an `ORIGINAL_DST` cluster finds and forgets its hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct OriginalDstConfig {
    /// `cleanup_interval`, 5 s when unset, never 0: a host that nobody used for so long leaves.
    pub cleanup_interval: Duration,
    /// `http_header_name`, lower case, if `use_http_header` is set: the request header that says where to go instead
    /// of the connection. `x-envoy-original-dst-host` when unset.
    pub header: Option<String>,
    /// `upstream_port_override`: the port of all hosts, whatever the original one was.
    pub port: Option<u16>,
}

/// As in Envoy both fields may stand beside other types, where they have no effect.
pub(super) fn read(r: &Reader<'_>) -> OriginalDstConfig {
    let interval = r.duration("cleanup_interval").greater_than_zero();
    let original = r.message_or_defaults::<OriginalDstLb>("original_dst_lb_config");
    OriginalDstConfig {
        cleanup_interval: interval.or(Duration::from_secs(5)),
        header: original.header,
        port: original.port,
    }
}

/// What the type demands of the rest of the cluster, and its policy of the type.
pub(super) fn check(
    r: &Reader<'_>,
    discovery: &Discovery,
    policy: &LbPolicy,
    endpoints: &[LocalityEndpoints],
) {
    let original = matches!(discovery, Discovery::OriginalDst(_));
    let provided = *policy == LbPolicy::ClusterProvided;
    if original && !provided {
        r.problem("an `ORIGINAL_DST` cluster chooses its hosts itself: `lb_policy` must be CLUSTER_PROVIDED");
    }
    if provided && !original {
        r.problem("`lb_policy` CLUSTER_PROVIDED is only for clusters of type `ORIGINAL_DST`");
    }
    if original && (r.has("load_assignment") || !endpoints.is_empty()) {
        r.problem("an `ORIGINAL_DST` cluster makes its hosts on demand: it has no `load_assignment`");
    }
}

/// `original_dst_lb_config`.
struct OriginalDstLb {
    header: Option<String>,
    port: Option<u16>,
}

impl Message for OriginalDstLb {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.OriginalDstLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        let used = r.bool("use_http_header").or_default();
        let name = header_name(r, "http_header_name").non_empty();
        if name.is_some() && !used {
            r.problem("`http_header_name` needs `use_http_header`");
        }
        let header = name.unwrap_or_else(|| "x-envoy-original-dst-host".to_owned());
        let port = r.u32("upstream_port_override").within(0..=u32::from(u16::MAX)).optional();
        Self { header: used.then_some(header), port: port.and_then(|port| u16::try_from(port).ok()) }
    }
}
