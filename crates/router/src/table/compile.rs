//! From the validated configuration to the table. Goes on after an error, so that one run reports all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::StatusCode;
use tidegate_cluster::lb::LabelMatch;
use tidegate_config::RouteConfig;
use tidegate_config::route::{self as config, Action, ClusterSpecifier, HeaderMutations, PathMatch};
use tidegate_config::values::TimeoutOverride;
use tidegate_filter::route::Slot;
use tidegate_filter::{PerFilterConfig, RouteView};
use tidegate_types::json::{JsonPath, Problem, Span};

use super::index::{IndexKey, RouteIndex, SlowPath};
use super::matcher::{HeaderMatcher, QueryMatcher, whole_regex};
use super::{Conditions, Entry, FilterSlots, HostIndex, PathCheck, RouteTable, Target, VirtualHost};
use crate::group::{RequestGroup, VirtualClusters};
use crate::internal_redirect::InternalRedirect;
use crate::retry::RetryPolicy;
use crate::route::hash::HashPolicy;
use crate::route::headers::Mutations;
use crate::route::rewrite::{HostRewrite, Matched, PathRewrite};
use crate::route::{AttemptHeaders, ClusterTarget, DirectResponse, Forward, Redirect, Route, RouteAction};
use crate::timeout::{Hedge, Timeouts};
use crate::weighted::Weighted;

pub(super) fn table(
    config: &RouteConfig,
    base: &JsonPath,
    filters: &dyn FilterSlots,
) -> Result<RouteTable, Vec<Problem>> {
    let mut compiler = Compiler { config, filters, base, problems: Vec::new(), strangers: BTreeSet::new() };
    let mut hosts = HostIndex::default();
    let mut virtual_hosts = Vec::with_capacity(config.virtual_hosts.len());
    for (number, host) in config.virtual_hosts.iter().enumerate() {
        for domain in &host.domains {
            hosts.insert(domain, number);
        }
        let path = base.field("virtual_hosts").index(number);
        virtual_hosts.push(compiler.virtual_host(host, &path));
    }
    let mut internal_only_headers = Vec::with_capacity(config.internal_only_headers.len());
    for (number, name) in config.internal_only_headers.iter().enumerate() {
        let parsed = name.parse().map_err(|_| format!("`{name}` is no header name"));
        internal_only_headers
            .extend(compiler.checked(&base.field("internal_only_headers").index(number), parsed));
    }
    for name in &compiler.strangers {
        // Envoy accepts it without a word.
        tracing::warn!(
            route_config = config.name,
            filter = name,
            "typed_per_filter_config names no filter of the chain"
        );
    }
    if !compiler.problems.is_empty() {
        return Err(compiler.problems);
    }
    let ignore_port = config.ignore_port_in_host_matching;
    Ok(RouteTable { hosts, virtual_hosts, ignore_port, internal_only_headers })
}

struct Compiler<'a> {
    config: &'a RouteConfig,
    filters: &'a dyn FilterSlots,
    base: &'a JsonPath,
    problems: Vec<Problem>,
    /// Names in `typed_per_filter_config` that no filter of the chain has.
    strangers: BTreeSet<String>,
}

/// What encloses a route.
struct Outer<'a> {
    host: &'a config::VirtualHost,
    host_name: Arc<str>,
    host_path: &'a JsonPath,
    virtual_clusters: Option<&'a Arc<VirtualClusters>>,
    route: &'a config::Route,
    route_path: JsonPath,
}

/// A level of header mutations or per-filter configurations, with its place.
type Level<'a, T> = (&'a T, JsonPath);

impl Compiler<'_> {
    fn virtual_host(&mut self, host: &config::VirtualHost, path: &JsonPath) -> VirtualHost {
        let host_name: Arc<str> = host.name.as_str().into();
        let clusters = VirtualClusters::compile(self.filters.store(), &host.name, &host.virtual_clusters);
        let clusters = clusters.unwrap_or_else(|(number, message)| {
            let at = path.field("virtual_clusters").index(number).field("headers");
            self.problems.push(Problem::new(at, Span::default(), message));
            None
        });
        let mut entries = Vec::with_capacity(host.routes.len());
        for (number, route) in host.routes.iter().enumerate() {
            let route_path = path.field("routes").index(number);
            let outer = Outer {
                host,
                host_name: host_name.clone(),
                host_path: path,
                virtual_clusters: clusters.as_ref(),
                route,
                route_path,
            };
            // An entry that is wrong is left out: the table is not used then.
            entries.extend(self.entry(&outer));
        }
        let index = if entries.len() == host.routes.len() {
            RouteIndex::new(host.routes.iter().zip(&entries).map(|(route, entry)| {
                let proved = matches!(entry.path, PathCheck::Proved);
                (index_key(&route.matcher), proved && entry.conditions.is_none())
            }))
        } else {
            RouteIndex::default()
        };
        let view = RouteView { name: None, virtual_host: Some(host_name), ..RouteView::default() };
        let tls_redirect = Arc::new(Route {
            view: Arc::new(view),
            action: RouteAction::Redirect(Box::new(Redirect::to_tls())),
            mutations: Mutations::default(),
            virtual_clusters: None,
            group: None,
        });
        VirtualHost { entries, index, require_tls: host.require_tls, tls_redirect }
    }

    fn entry(&mut self, outer: &Outer<'_>) -> Option<Entry> {
        let matcher = &outer.route.matcher;
        let at = outer.route_path.field("match");
        let path = self.checked(&at, path_check(matcher));
        let conditions = self.conditions(matcher, &at);
        let target = self.target(outer);
        Some(Entry { path: path?, conditions: conditions?, target: target? })
    }

    /// Takes the value, or notes what is wrong at `path`.
    fn checked<T>(&mut self, path: &JsonPath, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(message) => {
                self.problems.push(Problem::new(path.clone(), Span::default(), message));
                None
            }
        }
    }

    fn conditions(&mut self, matcher: &config::RouteMatch, at: &JsonPath) -> Option<Option<Box<Conditions>>> {
        let plain = matcher.runtime_fraction.is_none()
            && !matcher.grpc
            && matcher.headers.is_empty()
            && matcher.query_parameters.is_empty();
        if plain {
            return Some(None);
        }
        let (mut headers, mut query) = (Vec::new(), Vec::new());
        for (number, header) in matcher.headers.iter().enumerate() {
            headers.push(self.checked(&at.field("headers").index(number), HeaderMatcher::compile(header))?);
        }
        for (number, parameter) in matcher.query_parameters.iter().enumerate() {
            let path = at.field("query_parameters").index(number);
            query.push(self.checked(&path, QueryMatcher::compile(parameter))?);
        }
        let fraction = matcher.runtime_fraction.as_ref().map(|fraction| fraction.default);
        Some(Some(Box::new(Conditions { fraction, grpc: matcher.grpc, headers, query })))
    }

    fn target(&mut self, outer: &Outer<'_>) -> Option<Target> {
        let matched = matched(&outer.route.matcher.path);
        let action = match &outer.route.action {
            Action::Route(action) => return self.forwarding(outer, action),
            Action::Redirect(redirect) => {
                let path = outer.route_path.field("redirect");
                let redirect = self.checked(&path, Redirect::compile(redirect, matched))?;
                RouteAction::Redirect(Box::new(redirect))
            }
            Action::DirectResponse(direct) => {
                let path = outer.route_path.field("direct_response").field("status");
                RouteAction::Direct(DirectResponse {
                    status: self.status(&path, direct.status)?,
                    body: direct.body.clone().unwrap_or_default(),
                    body_format: direct.body_format.clone(),
                })
            }
            Action::NonForwarding => RouteAction::NonForwarding,
        };
        Some(Target::One(self.route(outer, None, action)))
    }

    fn status(&mut self, path: &JsonPath, status: u16) -> Option<StatusCode> {
        self.checked(path, StatusCode::from_u16(status).map_err(|_| format!("{status} is no status")))
    }

    fn forwarding(&mut self, outer: &Outer<'_>, action: &config::RouteAction) -> Option<Target> {
        let at = outer.route_path.field("route");
        match &action.cluster {
            ClusterSpecifier::Cluster(name) => {
                let forward = self.forward(outer, action, ClusterTarget::Name(name.as_str().into()), None)?;
                Some(Target::One(self.route(outer, None, RouteAction::Forward(Box::new(forward)))))
            }
            ClusterSpecifier::Header(name) => {
                let cluster = self.cluster_header(&at, name)?;
                let forward = self.forward(outer, action, cluster, None)?;
                Some(Target::One(self.route(outer, None, RouteAction::Forward(Box::new(forward)))))
            }
            ClusterSpecifier::Weighted(weighted) => {
                let at = at.field("weighted_clusters");
                let mut routes = Vec::with_capacity(weighted.clusters.len());
                for (number, weight) in weighted.clusters.iter().enumerate() {
                    let at = at.field("clusters").index(number);
                    let cluster = match &weight.cluster {
                        config::WeightedTarget::Name(name) => ClusterTarget::Name(name.as_str().into()),
                        config::WeightedTarget::Header(name) => self.cluster_header(&at, name)?,
                    };
                    let mut forward = self.forward(outer, action, cluster, Some(weight))?;
                    forward.cluster_host = weight.host_rewrite_literal.clone().map(Into::into);
                    let action = RouteAction::Forward(Box::new(forward));
                    routes.push(self.route(outer, Some((weight, at)), action));
                }
                let weights = Weighted::new(weighted.clusters.iter().map(|cluster| cluster.weight));
                let weights = weights.ok_or_else(|| "the weights add up to 0".to_owned());
                let weights = self.checked(&at, weights)?;
                let name = weighted.header_name.as_ref().map(|name| name.parse()).transpose();
                let header = name.map_err(|_| "not a header name".to_owned());
                let header = self.checked(&at.field("header_name"), header)?;
                Some(Target::Weighted { routes, weights, header })
            }
        }
    }

    fn cluster_header(&mut self, at: &JsonPath, name: &str) -> Option<ClusterTarget> {
        let parsed = name.parse().map_err(|_| format!("`{name}` is no header name"));
        self.checked(&at.field("cluster_header"), parsed).map(ClusterTarget::Header)
    }

    fn forward(
        &mut self,
        outer: &Outer<'_>,
        action: &config::RouteAction,
        cluster: ClusterTarget,
        weight: Option<&config::ClusterWeight>,
    ) -> Option<Forward> {
        let at = outer.route_path.field("route");
        let host = outer.host;
        let retry = match action.retry_policy.as_ref().or(host.retry_policy.as_ref()) {
            Some(policy) => RetryPolicy::compile(policy),
            None => Ok(RetryPolicy::default()),
        };
        let retry = self.checked(&at.field("retry_policy"), retry)?;
        let matched = matched(&outer.route.matcher.path);
        let path_rewrite = action.path_rewrite.as_ref().map(|rewrite| PathRewrite::compile(rewrite, matched));
        let path_rewrite = self.checked(&at, path_rewrite.transpose())?.flatten();
        let host_rewrite = action.host_rewrite.as_ref().map(HostRewrite::compile);
        let host_rewrite = self.checked(&at, host_rewrite.transpose())?.flatten();
        let hash_policy = self.checked(&at.field("hash_policy"), HashPolicy::compile(&action.hash_policy))?;
        let (mirrors, mirrors_at) =
            [(&action.mirrors, &at), (&host.mirrors, outer.host_path), (&self.config.mirrors, self.base)]
                .into_iter()
                .find(|(mirrors, _)| !mirrors.is_empty())
                .unwrap_or((&action.mirrors, &at));
        let mirrors = crate::mirror::compile(mirrors);
        let mirrors = self.checked(&mirrors_at.field("request_mirror_policies"), mirrors)?;
        let internal_redirect = action.internal_redirect.as_ref().map(InternalRedirect::compile).transpose();
        let internal_redirect = self.checked(&at.field("internal_redirect_policy"), internal_redirect)?;
        let hedge = action.hedge_policy.or(host.hedge_policy).unwrap_or_default();
        let router = outer.route.router.inside(&host.router.inside(&self.config.router));
        Some(Forward {
            cluster,
            hash_policy,
            metadata_match: label_match(action, weight),
            mirrors,
            safe_retry: weight.map(|weight| weight.router.inside(&router)).unwrap_or(router).safe_retry,
            max_grpc_timeout: match has_stream_duration(action) {
                true => TimeoutOverride::Inherit,
                false => action.max_grpc_timeout,
            },
            grpc_timeout_offset: action.grpc_timeout_offset,
            cluster_not_found: self
                .status(&at.field("cluster_not_found_response_code"), action.cluster_not_found_status)?,
            timeouts: Timeouts {
                global: action.timeout.filter(|_| !has_stream_duration(action)),
                per_try: retry.per_try_timeout,
                per_try_idle: retry.per_try_idle_timeout,
                hedge: if hedge.on_per_try_timeout { Hedge::OnPerTryTimeout } else { Hedge::Off },
                ..Timeouts::NONE
            },
            idle_timeout: action.idle_timeout,
            flush_timeout: action.flush_timeout,
            max_stream_duration: action.max_stream_duration,
            grpc_timeout_header_max: action.grpc_timeout_header_max,
            grpc_timeout_header_offset: action.grpc_timeout_header_offset,
            internal_redirect: internal_redirect.map(Box::new),
            retry,
            priority: action.priority,
            upgrades: action.upgrades.clone(),
            request_body_buffer_limit: outer
                .route
                .request_body_buffer_limit
                .or(host.request_body_buffer_limit),
            attempt_headers: AttemptHeaders {
                in_request: host.include_request_attempt_count,
                in_response: host.include_attempt_count_in_response,
                is_timeout_retry: host.include_is_timeout_retry_header,
            },
            path_rewrite,
            host_rewrite,
            cluster_host: None,
            append_x_forwarded_host: action.append_x_forwarded_host,
        })
    }

    fn route(
        &mut self,
        outer: &Outer<'_>,
        weight: Option<Level<'_, config::ClusterWeight>>,
        action: RouteAction,
    ) -> Arc<Route> {
        let (table, host, route) = (self.config, outer.host, outer.route);
        let mut headers: Vec<Level<'_, HeaderMutations>> = vec![
            (&route.headers, outer.route_path.clone()),
            (&host.headers, outer.host_path.clone()),
            (&table.headers, self.base.clone()),
        ];
        if table.most_specific_header_mutations_wins {
            headers.reverse();
        }
        if let Some((weight, path)) = &weight {
            // Always first, whoever wins.
            headers.insert(0, (&weight.headers, path.clone()));
        }
        let (mut mutations, mut errors) = (Mutations::default(), Vec::new());
        for (level, path) in headers {
            mutations.push(level, &path, &mut errors);
        }
        for error in errors {
            let known = self.problems.iter().any(|problem| problem.path == error.path);
            // Outer levels are compiled into every route, and reported once.
            if !known {
                self.problems.push(Problem::new(error.path, Span::default(), error.message));
            }
        }
        let mut levels = vec![&table.per_filter, &host.per_filter, &route.per_filter];
        levels.extend(weight.as_ref().map(|(weight, _)| &weight.per_filter));
        let name = (!route.name.is_empty()).then(|| route.name.as_str().into());
        let view = RouteView {
            name,
            virtual_host: Some(outer.host_name.clone()),
            per_filter: self.per_filter(&levels),
        };
        let group = (!route.stat_prefix.is_empty()).then(|| {
            Box::new(RequestGroup::route(self.filters.store(), &outer.host.name, &route.stat_prefix))
        });
        let virtual_clusters = outer.virtual_clusters.cloned();
        Arc::new(Route { view: Arc::new(view), action, mutations, virtual_clusters, group })
    }

    /// Resolves `typed_per_filter_config` of all levels to slots.
    fn per_filter(&mut self, levels: &[&BTreeMap<String, config::PerFilterConfig>]) -> PerFilterConfig {
        if levels.iter().all(|level| level.is_empty()) {
            return PerFilterConfig::default();
        }
        let filters = self.filters;
        for name in levels.iter().flat_map(|level| level.keys()) {
            if !filters.names().contains(name) && !self.strangers.contains(name) {
                self.strangers.insert(name.clone());
            }
        }
        let mut slots = vec![Slot::default(); filters.names().len()];
        for (number, (name, slot)) in filters.names().iter().zip(&mut slots).enumerate() {
            for config in levels.iter().filter_map(|level| level.get(name)) {
                slot.disabled = Some(config.disabled);
                let Some(typed) = &config.config else { continue };
                match filters.resolve(number, typed) {
                    Ok(erased) => slot.levels.push(erased),
                    Err(_) if config.is_optional => {}
                    Err(problems) => {
                        let new = |problem: &Problem| !self.problems.contains(problem);
                        let new: Vec<_> = problems.into_iter().filter(new).collect();
                        self.problems.extend(new);
                    }
                }
            }
        }
        PerFilterConfig::new(slots)
    }
}

/// Whether the route bounds streams the new way, which turns the route's `timeout` off, as in Envoy.
fn has_stream_duration(action: &config::RouteAction) -> bool {
    action.max_stream_duration != TimeoutOverride::Inherit
        || action.grpc_timeout_header_max != TimeoutOverride::Inherit
        || action.grpc_timeout_header_offset.is_some()
}

fn matched(path: &PathMatch) -> Matched {
    match path {
        PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => Matched::Prefix(prefix.len()),
        PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Connect => Matched::Whole,
    }
}

fn index_key(matcher: &config::RouteMatch) -> IndexKey<'_> {
    match &matcher.path {
        PathMatch::Regex(_) | PathMatch::Connect => IndexKey::Other,
        _ if !matcher.case_sensitive => IndexKey::Other,
        PathMatch::Exact(path) => IndexKey::Exact(path),
        PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => IndexKey::Prefix(prefix),
    }
}

fn path_check(matcher: &config::RouteMatch) -> Result<PathCheck, String> {
    let folded = !matcher.case_sensitive;
    Ok(match &matcher.path {
        PathMatch::Connect => PathCheck::Connect,
        PathMatch::Regex(pattern) => PathCheck::Whole(SlowPath::Regex(whole_regex(pattern)?)),
        PathMatch::Exact(path) if folded => PathCheck::Whole(SlowPath::Exact(path.as_str().into())),
        PathMatch::Prefix(prefix) if folded => PathCheck::Whole(SlowPath::Prefix(prefix.as_str().into())),
        PathMatch::SeparatedPrefix(prefix) if folded => {
            PathCheck::Whole(SlowPath::SeparatedPrefix(prefix.as_str().into()))
        }
        PathMatch::Exact(_) | PathMatch::Prefix(_) => PathCheck::Proved,
        PathMatch::SeparatedPrefix(prefix) => PathCheck::Separated(prefix.len()),
    })
}

/// The labels of a weighted cluster beat those of its route.
fn label_match(action: &config::RouteAction, weight: Option<&config::ClusterWeight>) -> Option<LabelMatch> {
    let own = weight.map(|weight| weight.metadata_match.as_slice()).unwrap_or_default();
    let labels = action.metadata_match.iter().chain(own).map(|(key, value)| (key.as_str(), value));
    let any = !action.metadata_match.is_empty() || !own.is_empty();
    any.then(|| LabelMatch::new(labels))
}
