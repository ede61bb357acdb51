//! `envoy.config.route.v3.RouteConfiguration` and virtual hosts.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_types::json::{Node, TypedConfig};

mod action;
mod cluster_specifier;
mod headers;
mod matcher;
mod redirect;
mod retry;

pub use action::{HostRewrite, PathRewrite, Priority, RouteAction};
pub use cluster_specifier::{ClusterSpecifier, ClusterWeight, WeightedClusters, WeightedTarget};
pub use headers::{AppendAction, HeaderMutations, HeaderToAdd};
pub use matcher::{HeaderMatch, HeaderMatcher, PathMatch, QueryMatcher, RouteMatch};
pub use redirect::{DirectResponse, Redirect, RedirectPath, SchemeRedirect};
pub use retry::{BackOff, RateLimitedBackOff, ResetHeader, ResetHeaderFormat, RetryPolicy};

/// A validated route table.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfig {
    /// `name`.
    pub name: String,
    /// `virtual_hosts`; names and domains are unique.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Header mutations of every route.
    pub headers: HeaderMutations,
    /// `internal_only_headers`, lower case: removed from external requests.
    pub internal_only_headers: Vec<String>,
    /// `most_specific_header_mutations_wins`: route last instead of first.
    pub most_specific_header_mutations_wins: bool,
    /// `ignore_port_in_host_matching`.
    pub ignore_port_in_host_matching: bool,
    /// `max_direct_response_body_size_bytes`, 4096 when unset.
    pub max_direct_response_body_size_bytes: u32,
    /// `validate_clusters`, true when unset for an inline table.
    pub validate_clusters: bool,
    /// `typed_per_filter_config`.
    pub per_filter: PerFilterConfigs,
}

/// `envoy.config.route.v3.VirtualHost`.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    /// `name`, never empty.
    pub name: String,
    /// `domains`: `example.com`, `*.example.com`, `example.*` or `*`; never empty.
    pub domains: Vec<String>,
    /// `routes`: the first match wins.
    pub routes: Vec<Arc<Route>>,
    /// `require_tls`.
    pub require_tls: RequireTls,
    /// Header mutations of this host.
    pub headers: HeaderMutations,
    /// `retry_policy` for routes that have none.
    pub retry_policy: Option<RetryPolicy>,
    /// `include_request_attempt_count`: `x-envoy-attempt-count` upstream.
    pub include_request_attempt_count: bool,
    /// `include_attempt_count_in_response`.
    pub include_attempt_count_in_response: bool,
    /// `include_is_timeout_retry_header`.
    pub include_is_timeout_retry_header: bool,
    /// `request_body_buffer_limit`, or the deprecated `per_request_buffer_limit_bytes`: bytes of a request
    /// body kept for a retry; `None`: the listener's buffer limit.
    pub request_body_buffer_limit: Option<u64>,
    /// `typed_per_filter_config`.
    pub per_filter: PerFilterConfigs,
    /// `metadata`, as written.
    pub metadata: Option<Node>,
}

/// `require_tls`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RequireTls {
    /// `NONE`.
    #[default]
    None,
    /// `EXTERNAL_ONLY`: external requests are redirected to https.
    ExternalOnly,
    /// `ALL`.
    All,
}

/// `envoy.config.route.v3.Route`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// `name`; may be empty.
    pub name: String,
    /// `match`.
    pub matcher: RouteMatch,
    /// What to do.
    pub action: Action,
    /// Header mutations of this route.
    pub headers: HeaderMutations,
    /// As [`VirtualHost::request_body_buffer_limit`].
    pub request_body_buffer_limit: Option<u64>,
    /// `stat_prefix`; empty adds no route statistics.
    pub stat_prefix: String,
    /// `typed_per_filter_config`.
    pub per_filter: PerFilterConfigs,
    /// `metadata`, as written.
    pub metadata: Option<Node>,
}

/// The action of a [`Route`].
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// `route`: send it upstream.
    Route(Box<RouteAction>),
    /// `redirect`.
    Redirect(Redirect),
    /// `direct_response`.
    DirectResponse(DirectResponse),
    /// `non_forwarding_action`: filters answer.
    NonForwarding,
}

/// `typed_per_filter_config`: by the name in `http_filters`.
pub type PerFilterConfigs = BTreeMap<String, PerFilterConfig>;

/// One value of `typed_per_filter_config`, `envoy.config.route.v3.FilterConfig` unwrapped.
#[derive(Debug, Clone, PartialEq)]
pub struct PerFilterConfig {
    /// The filter's per-route message; `None` when the wrapper only enables or disables.
    pub config: Option<TypedConfig>,
    /// `disabled`.
    pub disabled: bool,
    /// `is_optional`: an unknown filter or type is skipped.
    pub is_optional: bool,
}
