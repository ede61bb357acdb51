//! A route as it runs: what it does with a request, compiled from the configuration of the route and of
//! everything around it.
//!
//! A route with weighted clusters is one [`Route`] per cluster: the table picks, so nothing behind it
//! knows of weights. Routes are shared by all workers and never change. Start with [`Route::action`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tidegate_cluster::lb::LabelMatch;
use tidegate_config::hcm::{BodyFormat, TunnelEnd, UpgradeConfig};
use tidegate_config::route::Priority;
use tidegate_config::values::TimeoutOverride;
use tidegate_filter::{LogContext, RouteView};
use tidegate_types::{RequestHead, ResponseHead};

use crate::group::{RequestGroup, VirtualCluster, VirtualClusters};
use crate::internal_redirect::InternalRedirect;
use crate::mirror::Mirror;
use crate::retry::RetryPolicy;
use crate::timeout::{GrpcTimeout, Timeouts};

pub mod hash;
pub(crate) mod headers;
pub(crate) mod redirect;
pub(crate) mod rewrite;

use hash::HashPolicy;
use headers::Mutations;
pub use redirect::Redirect;
use rewrite::{HostRewrite, PathRewrite};

#[cfg(test)]
pub(crate) mod tests;

/// A compiled route.
#[derive(Debug)]
pub struct Route {
    /// What filters and access logs see.
    pub view: Arc<RouteView>,
    /// What to do.
    pub action: RouteAction,
    pub(crate) mutations: Mutations,
    /// Those of its virtual host.
    pub(crate) virtual_clusters: Option<Arc<VirtualClusters>>,
    /// Where it has a `stat_prefix`.
    pub(crate) group: Option<Box<RequestGroup>>,
}

/// What a route does.
#[derive(Debug)]
pub enum RouteAction {
    /// Send it upstream.
    Forward(Box<Forward>),
    /// Answer with a redirect.
    Redirect(Box<Redirect>),
    /// Answer with a fixed response.
    Direct(DirectResponse),
    /// A filter answers; it is an error to get to the router.
    NonForwarding,
}

/// How a request goes upstream.
#[derive(Debug)]
pub struct Forward {
    /// Which cluster.
    pub cluster: ClusterTarget,
    /// The status when that cluster does not exist.
    pub cluster_not_found: StatusCode,
    /// `timeout`, `per_try_timeout` and `per_try_idle_timeout`: before the request's own headers.
    pub timeouts: Timeouts,
    /// `idle_timeout` over the manager's `stream_idle_timeout`.
    pub idle_timeout: TimeoutOverride,
    /// `flush_timeout` over the manager's `stream_flush_timeout`.
    pub flush_timeout: TimeoutOverride,
    /// `max_stream_duration` over the manager's.
    pub max_stream_duration: TimeoutOverride,
    /// `grpc_timeout_header_max`.
    pub grpc_timeout_header_max: TimeoutOverride,
    /// `grpc_timeout_header_offset`.
    pub grpc_timeout_header_offset: Option<Duration>,
    /// `RouterPerRoute.safe_retry`; `None`: as the cluster says.
    pub safe_retry: Option<bool>,
    /// `max_grpc_timeout` (deprecated).
    pub max_grpc_timeout: TimeoutOverride,
    /// `grpc_timeout_offset` (deprecated).
    pub grpc_timeout_offset: Option<Duration>,
    /// Copies of requests to other clusters.
    pub mirrors: Arc<[Mirror]>,
    /// `internal_redirect_policy`.
    pub internal_redirect: Option<Box<InternalRedirect>>,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Which circuit-breaker thresholds count.
    pub priority: Priority,
    /// `upgrade_configs`, over the manager's by type.
    pub upgrades: Vec<UpgradeConfig>,
    /// Bytes of a request body that may be kept for a retry; `None`: the listener's buffer limit.
    pub request_body_buffer_limit: Option<u64>,
    /// Which attempt headers the virtual host asks for.
    pub attempt_headers: AttemptHeaders,
    /// By what hashing load balancers choose a host.
    pub hash_policy: HashPolicy,
    /// What labels its hosts have, where the cluster has subsets.
    pub metadata_match: Option<LabelMatch>,
    pub(crate) path_rewrite: Option<PathRewrite>,
    pub(crate) host_rewrite: Option<HostRewrite>,
    pub(crate) cluster_host: Option<Bytes>,
    pub(crate) append_x_forwarded_host: bool,
}

impl Forward {
    /// A request's times before its `x-envoy-*` headers; those of tries are `retry`'s. On a route with
    /// `max_grpc_timeout` a gRPC request has what its caller gives it, within bounds, in place of the route's
    /// `timeout`. Source: Envoy docs, `max_grpc_timeout` and `grpc_timeout_offset`.
    pub fn timeouts_of(&self, retry: &RetryPolicy, head: &RequestHead) -> Timeouts {
        let (per_try, per_try_idle) = (retry.per_try_timeout, retry.per_try_idle_timeout);
        let timeouts = Timeouts { per_try, per_try_idle, ..self.timeouts };
        let most = match self.max_grpc_timeout {
            TimeoutOverride::Inherit => return timeouts,
            _ if !head.is_grpc() => return timeouts,
            TimeoutOverride::Off => None,
            TimeoutOverride::After(most) => Some(most),
        };
        // A caller that names no time, or 0, waits for ever.
        let asked = crate::timeout::grpc_timeout(&head.headers).filter(|asked| !asked.is_zero());
        let offset = self.grpc_timeout_offset.unwrap_or_default();
        let asked =
            asked.map(|asked| asked.checked_sub(offset).filter(|left| !left.is_zero()).unwrap_or(asked));
        let global = match (asked, most) {
            (Some(asked), Some(most)) => Some(asked.min(most)),
            (asked, most) => asked.or(most),
        };
        Timeouts { global, grpc: GrpcTimeout::Rewritten, ..timeouts }
    }

    /// Where the tunnel ends that the request asks for, if it does.
    pub fn tunnel_end(&self, head: &RequestHead) -> TunnelEnd {
        if head.method != Method::CONNECT || head.upgrade.is_some() {
            return TunnelEnd::Upstream;
        }
        let connect = self.upgrades.iter().find(|upgrade| upgrade.upgrade_type == "connect");
        connect.filter(|upgrade| upgrade.enabled).map_or(TunnelEnd::Upstream, |upgrade| upgrade.tunnel)
    }

    /// The stream's time by the caller's `grpc-timeout`, where the route heeds that field; takes the place of
    /// `max_stream_duration`. Source: Envoy docs, `grpc_timeout_header_max` and `grpc_timeout_header_offset`.
    pub fn grpc_stream_duration(&self, headers: &http::HeaderMap) -> Option<Duration> {
        let most = match self.grpc_timeout_header_max {
            TimeoutOverride::Inherit => return None,
            TimeoutOverride::Off => Duration::MAX,
            TimeoutOverride::After(most) => most,
        };
        let asked = crate::timeout::grpc_timeout(headers)?;
        // A caller that sets 0 waits for ever: the route's limit holds.
        let limit = if asked.is_zero() { most } else { asked.min(most) };
        let offset = self.grpc_timeout_header_offset.unwrap_or_default();
        let shortened = limit.checked_sub(offset).filter(|left| !left.is_zero()).unwrap_or(limit);
        (limit < Duration::MAX).then_some(shortened)
    }
}

/// Headers that number the tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptHeaders {
    /// `x-envoy-attempt-count` to the upstream.
    pub in_request: bool,
    /// `x-envoy-attempt-count` to the client.
    pub in_response: bool,
    /// `x-envoy-is-timeout-retry` to the upstream.
    pub is_timeout_retry: bool,
}

/// The cluster of a route.
#[derive(Debug)]
pub enum ClusterTarget {
    /// By name.
    Name(Arc<str>),
    /// The value of that request header.
    Header(HeaderName),
}

impl ClusterTarget {
    /// The cluster's name for a request; `None` when the header is absent.
    pub fn name<'a>(&'a self, head: &'a RequestHead) -> Option<&'a str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Header(name) => head.header(name).filter(|value| !value.is_empty()),
        }
    }

    /// The same, to keep.
    pub fn named(&self, head: &RequestHead) -> Option<Arc<str>> {
        match self {
            Self::Name(name) => Some(name.clone()),
            Self::Header(_) => self.name(head).map(Arc::from),
        }
    }
}

/// A fixed response; details `direct_response`.
#[derive(Debug)]
pub struct DirectResponse {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
    /// `body_format`, for the local-reply formatter.
    pub body_format: Option<BodyFormat>,
}

impl DirectResponse {
    /// `location`: Envoy sends the request's own URL with 201 and every 3xx.
    pub fn location(&self, head: &RequestHead) -> Option<HeaderValue> {
        let wanted = self.status == StatusCode::CREATED || self.status.is_redirection();
        wanted.then(|| redirect::own_location(head)).flatten()
    }
}

/// Whether `x-envoy-*` headers are added; `suppress_envoy_headers` turns them off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvoyHeaders {
    /// The default.
    Add,
    /// `suppress_envoy_headers: true`.
    Suppress,
}

/// `x-envoy-original-path`
pub(crate) const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

impl Route {
    /// The route's `name`, or `None` when it has none.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.view.name.as_ref()
    }

    /// The virtual cluster of a request that takes this route, where its virtual host has any.
    #[inline]
    pub fn virtual_cluster(&self, head: &RequestHead) -> Option<&VirtualCluster> {
        self.virtual_clusters.as_ref()?.of(head)
    }

    /// Where the route's own requests are counted, if it has a `stat_prefix`.
    pub fn group(&self) -> Option<&RequestGroup> {
        self.group.as_deref()
    }

    /// Makes the head what the upstream gets: header mutations from the most specific level outwards
    /// (or inwards, `most_specific_header_mutations_wins`), then host, then path. `original` is the head
    /// as the client sent it, for the values of format strings.
    ///
    /// Nothing configured costs four branches.
    pub fn finalize_request(&self, head: &mut RequestHead, original: &LogContext<'_>, envoy: EnvoyHeaders) {
        if !self.mutations.request.is_empty() {
            self.mutations.apply_request(&mut head.headers, original);
        }
        let RouteAction::Forward(forward) = &self.action else { return };
        if let Some(host) = &forward.cluster_host {
            head.authority = host.clone();
        }
        if let Some(rewrite) = &forward.host_rewrite
            && let Some(host) = rewrite.host(head, original)
        {
            self.rewrite_host(head, host, envoy);
        }
        if let Some(rewrite) = &forward.path_rewrite
            && head.method != Method::CONNECT
            && let Some(path) = rewrite.path(&head.path, original)
        {
            rewrite::set_path(head, path, envoy);
        }
    }

    /// How it goes upstream, if it does.
    pub fn forward(&self) -> Option<&Forward> {
        match &self.action {
            RouteAction::Forward(forward) => Some(forward),
            RouteAction::Redirect(_) | RouteAction::Direct(_) | RouteAction::NonForwarding => None,
        }
    }

    /// Whether the mutations or rewrites of [`Route::finalize_request`] read format values, so that the
    /// caller keeps the original head only for those routes.
    pub fn reads_original(&self) -> bool {
        let rewrites = match &self.action {
            RouteAction::Forward(forward) => {
                forward.host_rewrite.as_ref().is_some_and(HostRewrite::is_format)
                    || forward.path_rewrite.as_ref().is_some_and(PathRewrite::is_format)
            }
            _ => false,
        };
        rewrites || self.mutations.request.has_formats()
    }

    /// Whether the upstream host's name becomes the request's host (`auto_host_rewrite`), which is known
    /// only when a host is chosen: then call [`Route::rewrite_host`].
    pub fn rewrites_host_automatically(&self) -> bool {
        matches!(&self.action, RouteAction::Forward(forward) if matches!(forward.host_rewrite, Some(HostRewrite::Auto)))
    }

    /// Replaces the host, keeping the old one in `x-envoy-original-host` and, if the route says so, in
    /// `x-forwarded-host`.
    pub fn rewrite_host(&self, head: &mut RequestHead, host: Bytes, envoy: EnvoyHeaders) {
        let append = matches!(&self.action, RouteAction::Forward(forward) if forward.append_x_forwarded_host);
        rewrite::set_host(head, host, envoy, append);
    }

    /// Applies the response header mutations of all levels.
    pub fn finalize_response(&self, head: &mut ResponseHead, cx: &LogContext<'_>) {
        if !self.mutations.response.is_empty() {
            self.mutations.apply_response(&mut head.headers, cx);
        }
    }

    /// The response's details, for routes that answer by themselves.
    pub fn details(&self) -> Option<Cow<'static, str>> {
        matches!(self.action, RouteAction::Direct(_) | RouteAction::Redirect(_))
            .then_some(Cow::Borrowed("direct_response"))
    }
}
