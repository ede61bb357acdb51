//! `envoy.config.route.v3.RouteAction`: how a request goes upstream.

use std::time::Duration;

use crate::hcm::UpgradeConfig;
use crate::route::{ClusterSpecifier, RetryPolicy};
use crate::values::{RegexRewrite, TimeoutOverride};

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
    /// `flush_timeout`, overrides the manager's `stream_flush_timeout`.
    pub flush_timeout: TimeoutOverride,
    /// `max_stream_duration.max_stream_duration`, overrides the manager's.
    pub max_stream_duration: TimeoutOverride,
    /// `max_stream_duration.grpc_timeout_header_max`: `Inherit` ignores the header, `Off` takes it whole.
    pub grpc_timeout_header_max: TimeoutOverride,
    /// `max_stream_duration.grpc_timeout_header_offset`.
    pub grpc_timeout_header_offset: Option<Duration>,
    /// `retry_policy`; `None`: the virtual host's.
    pub retry_policy: Option<RetryPolicy>,
    /// `priority`.
    pub priority: Priority,
    /// `upgrade_configs`, overriding the manager's by type.
    pub upgrades: Vec<UpgradeConfig>,
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
