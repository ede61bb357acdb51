//! `envoy.config.route.v3.RouteAction`: how a request goes upstream.

use std::time::Duration;

use tidegate_types::json::Node;

use crate::hcm::{RouteUpgrade, UpgradeConfig, upgrades};
use crate::reader::{Message, Reader};
use crate::route::headers::header_name;
use crate::route::{
    ClusterSpecifier, HashPolicy, HedgePolicy, InternalRedirectPolicy, MirrorPolicy, RetryPolicy,
    mirror_policies,
};
use crate::values::{Metadata, RegexRewrite, TimeoutOverride};

/// `RouteAction`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteAction {
    /// Which cluster.
    pub cluster: ClusterSpecifier,
    /// `cluster_not_found_response_code`: 503 (default), 404 or 500.
    pub cluster_not_found_status: u16,
    /// What happens to the path.
    pub path_rewrite: Option<PathRewrite>,
    /// What happens to the host.
    pub host_rewrite: Option<HostRewrite>,
    /// `append_x_forwarded_host`: the old host, when rewritten.
    pub append_x_forwarded_host: bool,
    /// `timeout`, 15 s when unset; `None` is off (0).
    pub timeout: Option<Duration>,
    /// `idle_timeout`, overrides the manager's `stream_idle_timeout`.
    pub idle_timeout: TimeoutOverride,
    /// `flush_timeout`, overrides the manager's `stream_flush_timeout`, and acts where that one does.
    pub flush_timeout: TimeoutOverride,
    /// `max_stream_duration.max_stream_duration`, overrides the manager's.
    pub max_stream_duration: TimeoutOverride,
    /// `max_stream_duration.grpc_timeout_header_max`: `Inherit` ignores the header, `Off` takes it whole.
    pub grpc_timeout_header_max: TimeoutOverride,
    /// `max_stream_duration.grpc_timeout_header_offset`.
    pub grpc_timeout_header_offset: Option<Duration>,
    /// `max_grpc_timeout` (deprecated): for gRPC requests, takes the place of `timeout` unless `max_stream_duration`
    /// is there. `Inherit` ignores the request's `grpc-timeout`, `Off` takes it whole, else it is a cap.
    pub max_grpc_timeout: TimeoutOverride,
    /// `grpc_timeout_offset` (deprecated): taken off the request's `grpc-timeout` for `max_grpc_timeout`, if that
    /// leaves anything.
    pub grpc_timeout_offset: Option<Duration>,
    /// `retry_policy`; `None`: the virtual host's.
    pub retry_policy: Option<RetryPolicy>,
    /// `internal_redirect_policy`; `None`: redirects go to the client.
    pub internal_redirect: Option<InternalRedirectPolicy>,
    /// `hedge_policy`; `None`: the virtual host's.
    pub hedge_policy: Option<HedgePolicy>,
    /// `request_mirror_policies`; empty: the virtual host's, else the table's.
    pub mirrors: Vec<MirrorPolicy>,
    /// `priority`.
    pub priority: Priority,
    /// `upgrade_configs`, overriding the manager's by type.
    pub upgrades: Vec<UpgradeConfig>,
    /// `hash_policy`, in order.
    pub hash_policy: Vec<HashPolicy>,
    /// `metadata_match`, `envoy.lb`: the labels of the hosts that it goes to, where the cluster has subsets.
    pub metadata_match: Vec<(String, Node)>,
}

/// `envoy.config.core.v3.RoutingPriority`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// `DEFAULT`.
    #[default]
    Default,
    /// `HIGH`.
    High,
}

/// How the path changes; at most one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// `prefix_rewrite`: replaces what matched (the whole path of an exact or regex match).
    Prefix(String),
    /// `regex_rewrite` on the path without its query.
    Regex(RegexRewrite),
    /// `path_rewrite`: a format string for the whole path.
    Format(String),
}

/// How the host changes; at most one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRewrite {
    /// `host_rewrite_literal`.
    Literal(String),
    /// `auto_host_rewrite: true`: the upstream host's `hostname`.
    Auto,
    /// `host_rewrite_header`, lower case: the value of that request header.
    Header(String),
    /// `host_rewrite_path_regex`: the path put through a substitution.
    PathRegex(RegexRewrite),
    /// `host_rewrite`: a format string.
    Format(String),
}

impl Message for RouteAction {
    const NAME: &'static str = "envoy.config.route.v3.RouteAction";

    fn read(r: &Reader<'_>) -> Self {
        const NOT_FOUND: &[(&str, u32, u16)] =
            &[("SERVICE_UNAVAILABLE", 0, 503), ("NOT_FOUND", 1, 404), ("INTERNAL_SERVER_ERROR", 2, 500)];
        let durations = r.message_or_defaults::<MaxStreamDuration>("max_stream_duration");
        Self {
            cluster: ClusterSpecifier::read(r),
            cluster_not_found_status: r
                .enumeration("cluster_not_found_response_code", NOT_FOUND, &[])
                .or(503),
            path_rewrite: PathRewrite::read(r),
            host_rewrite: HostRewrite::read(r),
            append_x_forwarded_host: r.bool("append_x_forwarded_host").or_default(),
            timeout: r.duration("timeout").zero_is_off(Some(Duration::from_secs(15))),
            idle_timeout: r.duration("idle_timeout").overriding(),
            flush_timeout: r.duration("flush_timeout").overriding(),
            max_stream_duration: durations.whole,
            grpc_timeout_header_max: durations.grpc_max,
            grpc_timeout_header_offset: durations.grpc_offset,
            max_grpc_timeout: r.duration("max_grpc_timeout").overriding(),
            grpc_timeout_offset: r.duration("grpc_timeout_offset").optional(),
            retry_policy: r.message("retry_policy").optional(),
            internal_redirect: r.message("internal_redirect_policy").optional(),
            hedge_policy: r.message("hedge_policy").optional(),
            mirrors: mirror_policies(r),
            priority: r.enumeration("priority", Priority::NAMES, &[]).or_default(),
            upgrades: upgrades::<RouteUpgrade>(r),
            hash_policy: r.repeated("hash_policy").or_default(),
            metadata_match: Metadata::labels(r, "metadata_match"),
        }
    }
}

impl Priority {
    pub(crate) const NAMES: &'static [(&'static str, u32, Self)] =
        &[("DEFAULT", 0, Self::Default), ("HIGH", 1, Self::High)];
}

struct MaxStreamDuration {
    whole: TimeoutOverride,
    grpc_max: TimeoutOverride,
    grpc_offset: Option<Duration>,
}

impl Message for MaxStreamDuration {
    const NAME: &'static str = "envoy.config.route.v3.RouteAction.MaxStreamDuration";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            whole: r.duration("max_stream_duration").overriding(),
            grpc_max: r.duration("grpc_timeout_header_max").overriding(),
            grpc_offset: r.duration("grpc_timeout_header_offset").optional(),
        }
    }
}

impl PathRewrite {
    fn read(r: &Reader<'_>) -> Option<Self> {
        r.at_most_one(&["prefix_rewrite", "regex_rewrite", "path_rewrite"]);
        let prefix = r.string("prefix_rewrite").non_empty().map(Self::Prefix);
        let regex = r.message("regex_rewrite").optional().map(Self::Regex);
        let format = r.string("path_rewrite").non_empty().map(Self::Format);
        prefix.or(regex).or(format)
    }
}

impl HostRewrite {
    fn read(r: &Reader<'_>) -> Option<Self> {
        r.at_most_one(&[
            "host_rewrite_literal",
            "auto_host_rewrite",
            "host_rewrite_header",
            "host_rewrite_path_regex",
            "host_rewrite",
        ]);
        let literal = r.string("host_rewrite_literal").non_empty().map(Self::Literal);
        let auto = r.bool("auto_host_rewrite").or_default().then_some(Self::Auto);
        let header = header_name(r, "host_rewrite_header").non_empty().map(Self::Header);
        let regex = r.message("host_rewrite_path_regex").optional().map(Self::PathRegex);
        let format = r.string("host_rewrite").non_empty().map(Self::Format);
        literal.or(auto).or(header).or(regex).or(format)
    }
}
