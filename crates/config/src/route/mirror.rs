//! `RouteAction.RequestMirrorPolicy`: copies of requests to other clusters.

use super::HeaderToAdd;
use super::headers::{check_header_name, header_name, protected};
use crate::reader::{Message, Reader};
use crate::route::cluster_specifier::cluster_name;
use crate::values::RuntimeFraction;

/// One copy of each request, whose response nobody waits for. Route tables, virtual hosts, routes and clusters
/// have lists of them; the innermost list that is not empty is the one that counts, and a cluster's own comes
/// before those of routes.
#[derive(Debug, Clone, PartialEq)]
pub struct MirrorPolicy {
    /// `cluster` or `cluster_header`.
    pub cluster: MirrorTarget,
    /// `runtime_fraction`: the share of requests that is copied; `None`: all.
    pub runtime_fraction: Option<RuntimeFraction>,
    /// `disable_shadow_host_suffix_append`: without it the copy's host gets `-shadow` at its end (before the port).
    pub disable_shadow_host_suffix_append: bool,
    /// `host_rewrite_literal`: the copy's host; no suffix is added to it.
    pub host_rewrite_literal: Option<String>,
    /// `request_headers_mutations` of the copy, in order.
    pub request_headers: Vec<HeaderMutation>,
}

/// The cluster of a [`MirrorPolicy`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorTarget {
    /// `cluster`, which exists unless the table says `validate_clusters: false` or the policy is a cluster's.
    Cluster(String),
    /// `cluster_header`, lower case: the request header that names it; no copy where it names none.
    Header(String),
}

/// `envoy.config.common.mutation_rules.v3.HeaderMutation`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderMutation {
    /// `remove`: a field name, lower case.
    Remove(String),
    /// `append`, whose `append_action` says whether that is what it does.
    Append(HeaderToAdd),
}

impl Message for MirrorPolicy {
    const NAME: &'static str = "envoy.config.route.v3.RouteAction.RequestMirrorPolicy";

    fn read(r: &Reader<'_>) -> Self {
        // Decides about traces, of which this build has none; nor has Envoy without a tracer.
        r.bool("trace_sampled").optional();
        let cluster = cluster_name(r, "cluster").map(MirrorTarget::Cluster);
        let header = header_name(r, "cluster_header").non_empty().map(MirrorTarget::Header);
        r.exactly_one(&["cluster", "cluster_header"]);
        Self {
            cluster: cluster.or(header).unwrap_or(MirrorTarget::Cluster(String::new())),
            runtime_fraction: r.message("runtime_fraction").optional(),
            disable_shadow_host_suffix_append: r.bool("disable_shadow_host_suffix_append").or_default(),
            host_rewrite_literal: r.string("host_rewrite_literal").non_empty(),
            request_headers: r.repeated("request_headers_mutations").or_default(),
        }
    }
}

impl Message for HeaderMutation {
    const NAME: &'static str = "envoy.config.common.mutation_rules.v3.HeaderMutation";

    fn read(r: &Reader<'_>) -> Self {
        let remove = r.string("remove").convert(|name| Ok(name.to_ascii_lowercase())).check(|name| {
            protected(name, "removed")?;
            check_header_name(name)
        });
        let remove = remove.optional().map(Self::Remove);
        let append = r.message("append").optional().map(Self::Append);
        r.exactly_one(&["remove", "append"]);
        remove.or(append).unwrap_or(Self::Remove(String::new()))
    }
}

/// The field `request_mirror_policies`.
pub(crate) fn mirror_policies(r: &Reader<'_>) -> Vec<MirrorPolicy> {
    r.repeated("request_mirror_policies").or_default()
}
