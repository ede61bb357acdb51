//! `envoy.config.route.v3.RouteConfiguration` and virtual hosts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_types::json::{Node, TypedConfig};

use crate::reader::{Any, Message, Reader, Space};
use crate::values::metadata;

mod action;
mod cluster_specifier;
mod hash_policy;
mod headers;
mod hedge;
mod internal_redirect;
mod matcher;
mod mirror;
mod redirect;
mod retry;
mod router;
mod virtual_cluster;

pub(crate) use headers::header_name;
use headers::header_names;
pub(crate) use headers::removable_names;

pub use action::{HostRewrite, PathRewrite, Priority, RouteAction};
pub use cluster_specifier::{ClusterSpecifier, ClusterWeight, WeightedClusters, WeightedTarget};
pub use hash_policy::{HashBy, HashCookie, HashPolicy};
pub use headers::{AppendAction, HeaderMutations, HeaderToAdd};
pub use hedge::HedgePolicy;
pub use internal_redirect::{InternalRedirectPolicy, RedirectPredicate};
pub use matcher::{HeaderMatch, HeaderMatcher, PathMatch, QueryMatcher, RouteMatch};
pub(crate) use mirror::mirror_policies;
pub use mirror::{HeaderMutation, MirrorPolicy, MirrorTarget};
pub use redirect::{DirectResponse, Redirect, RedirectPath, SchemeRedirect};
pub use retry::{
    BackOff, HostPredicate, PreviousPriorities, RateLimitedBackOff, ResetHeader, ResetHeaderFormat,
    RetryPolicy,
};
pub use router::RouterPerRoute;
pub use virtual_cluster::VirtualCluster;

/// A validated route table.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfig {
    /// `name`.
    pub name: String,
    /// `virtual_hosts`; no domain is in two of them.
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
    /// `validate_clusters`, when unset true for an inline table and false for one of `rds`.
    pub validate_clusters: bool,
    /// `request_mirror_policies` for virtual hosts and routes that have none.
    pub mirrors: Vec<MirrorPolicy>,
    /// `typed_per_filter_config`.
    pub per_filter: PerFilterConfigs,
    /// The router's part of it.
    pub router: RouterPerRoute,
    /// `metadata.filter_metadata`, as written: for who reads the configuration.
    pub metadata: Option<Node>,
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
    /// `virtual_clusters`: a request belongs to the first that matches.
    pub virtual_clusters: Vec<VirtualCluster>,
    /// `require_tls`.
    pub require_tls: RequireTls,
    /// Header mutations of this host.
    pub headers: HeaderMutations,
    /// `retry_policy` for routes that have none.
    pub retry_policy: Option<RetryPolicy>,
    /// `hedge_policy` for routes that have none.
    pub hedge_policy: Option<HedgePolicy>,
    /// `request_mirror_policies` for routes that have none.
    pub mirrors: Vec<MirrorPolicy>,
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
    /// The router's part of it.
    pub router: RouterPerRoute,
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
    /// `stat_prefix`: counted under `vhost.VHOST.route.STAT_PREFIX.`; may be empty: not counted by itself.
    pub stat_prefix: String,
    /// `match`.
    pub matcher: RouteMatch,
    /// What to do.
    pub action: Action,
    /// Header mutations of this route.
    pub headers: HeaderMutations,
    /// As [`VirtualHost::request_body_buffer_limit`].
    pub request_body_buffer_limit: Option<u64>,
    /// `typed_per_filter_config`.
    pub per_filter: PerFilterConfigs,
    /// The router's part of it.
    pub router: RouterPerRoute,
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

impl Message for RouteConfig {
    const NAME: &'static str = "envoy.config.route.v3.RouteConfiguration";

    fn read(r: &Reader<'_>) -> Self {
        r.cx.forget(Space::Domain);
        let (per_filter, router) = per_filter(r);
        let body_limit = r.u32("max_direct_response_body_size_bytes").or(4096);
        r.cx.direct_response_limit.set(body_limit);
        let first_reference = r.cx.reference_count();
        let virtual_hosts = r.repeated("virtual_hosts").or_default();
        let mirrors = mirror_policies(r);
        let validate_clusters = r.bool("validate_clusters").or(!r.cx.references_may_dangle.get());
        if !validate_clusters {
            r.cx.drop_references(first_reference);
        }
        Self {
            name: r.string("name").or_default(),
            virtual_hosts,
            headers: HeaderMutations::read(r),
            internal_only_headers: header_names(r, "internal_only_headers"),
            most_specific_header_mutations_wins: r.bool("most_specific_header_mutations_wins").or_default(),
            ignore_port_in_host_matching: r.bool("ignore_port_in_host_matching").or_default(),
            max_direct_response_body_size_bytes: body_limit,
            validate_clusters,
            mirrors,
            per_filter,
            router,
            metadata: metadata(r),
        }
    }
}

impl Message for VirtualHost {
    const NAME: &'static str = "envoy.config.route.v3.VirtualHost";

    fn read(r: &Reader<'_>) -> Self {
        const TLS: &[(&str, u32, RequireTls)] = &[
            ("NONE", 0, RequireTls::None),
            ("EXTERNAL_ONLY", 1, RequireTls::ExternalOnly),
            ("ALL", 2, RequireTls::All),
        ];
        let (per_filter, router) = per_filter(r);
        Self {
            name: r.string("name").required_non_empty(),
            domains: domains(r),
            routes: r.repeated::<Route>("routes").or_default().into_iter().map(Arc::new).collect(),
            virtual_clusters: r.repeated("virtual_clusters").or_default(),
            require_tls: r.enumeration("require_tls", TLS, &[]).or_default(),
            headers: HeaderMutations::read(r),
            retry_policy: r.message("retry_policy").optional(),
            hedge_policy: r.message("hedge_policy").optional(),
            mirrors: mirror_policies(r),
            include_request_attempt_count: r.bool("include_request_attempt_count").or_default(),
            include_attempt_count_in_response: r.bool("include_attempt_count_in_response").or_default(),
            include_is_timeout_retry_header: r.bool("include_is_timeout_retry_header").or_default(),
            request_body_buffer_limit: body_buffer_limit(r),
            per_filter,
            router,
            metadata: metadata(r),
        }
    }
}

/// `domains`: no domain twice in the table (names have no case). A wildcard that is not at one end stands for
/// itself, as in Envoy; the log says so, since nobody means it.
fn domains(r: &Reader<'_>) -> Vec<String> {
    let domains = r.strings("domains");
    for domain in domains.peek().into_iter().flatten() {
        let inner = domain.strip_prefix('*').or(domain.strip_suffix('*')).unwrap_or(domain);
        if inner.contains('*') || domain.is_empty() {
            tracing::warn!(target: "config", "domains: `{domain}` matches no host that a client would send");
        }
        r.cx.define(Space::Domain, &domain.to_ascii_lowercase(), &domains.path(), domains.span);
    }
    domains.required_non_empty()
}

/// `request_body_buffer_limit` or the 32-bit field that it replaced.
fn body_buffer_limit(r: &Reader<'_>) -> Option<u64> {
    r.at_most_one(&["request_body_buffer_limit", "per_request_buffer_limit_bytes"]);
    let old = r.u32("per_request_buffer_limit_bytes").optional().map(u64::from);
    r.u64("request_body_buffer_limit").optional().or(old)
}

impl Message for Route {
    const NAME: &'static str = "envoy.config.route.v3.Route";

    fn read(r: &Reader<'_>) -> Self {
        let route = r.message::<RouteAction>("route").optional();
        let redirect = r.message("redirect").optional();
        let direct = r.message("direct_response").optional();
        let none = r.message::<NonForwarding>("non_forwarding_action").optional();
        r.exactly_one(&["route", "redirect", "direct_response", "non_forwarding_action"]);
        let action = route
            .map(|route| Action::Route(Box::new(route)))
            .or(redirect.map(Action::Redirect))
            .or(direct.map(Action::DirectResponse))
            .or(none.map(|_| Action::NonForwarding));
        let (per_filter, router) = per_filter(r);
        Self {
            name: r.string("name").or_default(),
            stat_prefix: r.string("stat_prefix").or_default(),
            matcher: r.required_message("match"),
            action: action.unwrap_or(Action::NonForwarding),
            headers: HeaderMutations::read(r),
            request_body_buffer_limit: body_buffer_limit(r),
            per_filter,
            router,
            metadata: metadata(r),
        }
    }
}

struct NonForwarding;

impl Message for NonForwarding {
    const NAME: &'static str = "envoy.config.route.v3.NonForwardingAction";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

/// The field `typed_per_filter_config`, and the router's part of it. That one is read here: it speaks of retries, as
/// the rest of a route does.
fn per_filter(r: &Reader<'_>) -> (PerFilterConfigs, RouterPerRoute) {
    r.may_be::<FilterConfig>();
    r.may_be::<RouterPerRoute>();
    let router = RefCell::new(RouterPerRoute::default());
    let all = r.map("typed_per_filter_config", |name, node, path| {
        let any = Any::open(r, node, path)?;
        if any.is::<RouterPerRoute>() {
            let read = any.read::<RouterPerRoute>(r);
            let own = read.own.map(|(_, place)| (name.to_owned(), place));
            *router.borrow_mut() = RouterPerRoute { own, ..read };
            return None;
        }
        if any.is::<FilterConfig>() {
            let FilterConfig { config, disabled, is_optional } = any.read(r);
            let config = config.map(|config| TypedConfig { name: name.to_owned(), ..config });
            return Some(PerFilterConfig { config, disabled, is_optional });
        }
        Some(PerFilterConfig { config: Some(any.keep(name.to_owned())), disabled: false, is_optional: false })
    });
    let filters = all.into_iter().filter_map(|(name, config)| Some((name, config?))).collect();
    (filters, router.into_inner())
}

impl RouteConfig {
    /// What was said to the router of single routes, at every level.
    pub fn router_overrides(&self) -> impl Iterator<Item = &RouterPerRoute> {
        let routes = self.virtual_hosts.iter().flat_map(|host| &host.routes);
        let weights = routes.clone().flat_map(|route| match &route.action {
            Action::Route(action) => match &action.cluster {
                ClusterSpecifier::Weighted(weighted) => weighted.clusters.as_slice(),
                _ => &[],
            },
            _ => &[],
        });
        let hosts = self.virtual_hosts.iter().map(|host| &host.router);
        let levels = [&self.router].into_iter().chain(hosts).chain(routes.map(|route| &route.router));
        levels.chain(weights.map(|weight| &weight.router)).filter(|router| router.own.is_some())
    }
}

/// `envoy.config.route.v3.FilterConfig`, around a filter's own message, which may be an empty object.
struct FilterConfig {
    config: Option<TypedConfig>,
    disabled: bool,
    is_optional: bool,
}

impl Message for FilterConfig {
    const NAME: &'static str = "envoy.config.route.v3.FilterConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            config: r.any_or_empty("config").optional().flatten().map(|any| any.keep(String::new())),
            disabled: r.bool("disabled").or_default(),
            is_optional: r.bool("is_optional").or_default(),
        }
    }
}
