//! From a request's head to the route's answer: local, or an upstream.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use tidegate_config::hcm::SchemeTransformation;
use tidegate_config::values::TimeoutOverride;
use tidegate_filter::{LocalReply, LogContext};
use tidegate_router::{
    Cluster, EnvoyHeaders, Forward, Groups, OfCluster, RequestBody, RequestFacts, RetryState, Route,
    RouteAction, Timeouts, Upstream, mirror, timeout,
};
use tidegate_types::{CloseReason, RequestHead, ResponseFlags, Scheme, details};

use super::{Abort, Exchange, Filters, HeldBody};
use crate::chain::ResponseChain;
use crate::request;

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

impl Exchange<'_> {
    /// Checks and rewrites the head for the proxy's own purposes.
    pub(super) fn sanitise(&self, head: &mut RequestHead) -> Result<(), Abort> {
        let info = self.stream.info();
        let prepared = request::prepare(&self.hcm.shared, head, info).map_err(|reply| {
            let closes =
                reply.status == StatusCode::BAD_REQUEST && !self.hcm.shared.keeps_after_bad_request();
            if closes {
                self.cx.closes_for(CloseReason::ProtocolError);
                self.close_after.set(true);
            }
            Abort::Reply(reply)
        })?;
        self.internal.set(prepared.internal);
        *self.response_request_id.borrow_mut() = prepared.response_request_id;
        Ok(())
    }

    /// Finds the route and lets it set the stream's times; a caller that names its time in `grpc-timeout` has its word
    /// replaced by the longest that the stream may take, if there is such a time.
    pub(super) fn match_route(&self, head: &mut RequestHead) -> Option<Arc<Route>> {
        let route = self.hcm.shared.routes.matches(head, head.scheme, fastrand::u64(..)).cloned();
        self.stream.set_route(route.as_ref().map(|route| route.view.clone()));
        let info = self.stream.info();
        if let Some(route) = &route {
            info.route_name.borrow_mut().clone_from(&route.view.name);
            info.virtual_host.borrow_mut().clone_from(&route.view.virtual_host);
            if let Some(forward) = forward(route) {
                info.cluster.borrow_mut().clone_from(&forward.cluster.named(head));
                let timeouts = &self.hcm.shared.config.timeouts;
                let common = &self.hcm.shared.config.common;
                self.timers.set_idle(overridden(forward.idle_timeout, timeouts.stream_idle));
                self.flush_timeout.set(forward.flush_timeout);
                let configured = overridden(forward.max_stream_duration, common.max_stream_duration);
                let of_caller = forward.grpc_stream_duration(&head.headers);
                let longest = of_caller.or(configured);
                self.timers.set_max_duration(longest);
                if let Some(longest) = longest {
                    timeout::limit_grpc(longest, &mut head.headers);
                }
            }
        }
        route
    }

    /// Whether the upgrade that the request asks for, if it does, is configured.
    pub(super) fn check_upgrade(&self, head: &RequestHead, route: Option<&Route>) -> Result<(), Abort> {
        let protocol = match &head.upgrade {
            Some(protocol) => protocol.as_ref(),
            // Without a route it is 404 for Envoy, and not 403.
            None if head.method == http::Method::CONNECT && route.is_some() => b"CONNECT",
            None => return Ok(()),
        };
        let matching = |upgrade: &&tidegate_config::hcm::UpgradeConfig| {
            upgrade.upgrade_type.as_bytes().eq_ignore_ascii_case(protocol)
        };
        let own = self.hcm.shared.config.upgrades.iter().find(matching);
        let of_route = route.and_then(forward).and_then(|forward| forward.upgrades.iter().find(matching));
        if of_route.or(own).is_some_and(|upgrade| upgrade.enabled) {
            self.hcm.shared.stats.downstream_cx_upgrades_total().inc();
            return Ok(());
        }
        self.request_ended.set(false);
        if !self.cx.is_alone() {
            // As Envoy, whose refusal asks for the connection's end.
            self.server.borrow_mut().announce_close();
        }
        self.hcm.shared.stats.downstream_rq_ws_on_non_ws_route().inc();
        Err(Abort::Reply(request::refuse(StatusCode::FORBIDDEN, details::UPGRADE_FAILED)))
    }

    /// The router, the last of the filters: answers itself or proxies.
    pub(super) async fn route_request(
        &self,
        mut route: Option<Arc<Route>>,
        mut head: Box<RequestHead>,
        held: &mut HeldBody,
        request_filters: Filters<'_>,
        response_filters: &mut ResponseChain,
    ) -> Result<(), Abort> {
        if self.stream.route_was_cleared() {
            route = self.match_route(&mut head);
        }
        let stats = &self.hcm.shared.stats;
        stats.rq_total().inc();
        let Some(route) = route else {
            stats.no_route().inc();
            self.stream.set_request(head);
            let reply = LocalReply::new(StatusCode::NOT_FOUND, "", details::ROUTE_NOT_FOUND);
            return Err(Abort::Reply(Box::new(reply.with_flags(ResponseFlags::NO_ROUTE_FOUND))));
        };
        let (forward, head) = self.act(&route, head)?;
        let cluster = forward.cluster.name(&head).and_then(|name| self.cx.connection.directory.cluster(name));
        let Some(cluster) = cluster else {
            return Err(self.no_cluster(head, forward.cluster_not_found));
        };
        let groups = self.groups(&route, &head);
        let (internal, envoy) = (self.internal.get(), self.envoy_headers());
        if let Some(reply) = tidegate_router::refusal(cluster.shared(), internal, envoy, groups) {
            self.stream.set_request(head);
            return Err(self.with_route_headers(&route, Box::new(reply)));
        }
        let of_cluster = OfCluster::of(&cluster);
        let facts = self.facts(&route, forward, cluster, of_cluster.as_deref(), head, held);
        let facts = RequestFacts { groups, ..facts };
        let upstream = Upstream::new(self.stream.clone(), facts, self.now());
        self.proxy(&route, &upstream, held, request_filters, response_filters).await
    }

    /// The groups that the request is counted in, by its head before anything is done to it for the upstream.
    fn groups<'r>(&self, route: &'r Route, head: &RequestHead) -> Groups<'r> {
        let virtual_cluster = route.virtual_cluster(head);
        if let Some(cluster) = virtual_cluster {
            self.stream.info().virtual_cluster.borrow_mut().clone_from(&cluster.name);
        }
        Groups { virtual_cluster: virtual_cluster.map(|cluster| &cluster.group), route: route.group() }
    }

    /// Where the route sends the request, unless it answers by itself.
    fn act<'r>(
        &self,
        route: &'r Route,
        mut head: Box<RequestHead>,
    ) -> Result<(&'r Forward, Box<RequestHead>), Abort> {
        let stats = &self.hcm.shared.stats;
        match &route.action {
            RouteAction::Forward(forward) => Ok((forward, head)),
            RouteAction::NonForwarding => Err(self.no_cluster(head, StatusCode::SERVICE_UNAVAILABLE)),
            RouteAction::Redirect(redirect) => {
                let original = head.clone();
                let cx = LogContext { request: Some(&original), ..self.log_context(None) };
                let location = redirect.location(&mut head, &cx, self.envoy_headers());
                stats.rq_direct_response().inc();
                Err(self.answer(route, head, redirect.status, Bytes::new(), location))
            }
            RouteAction::Direct(direct) => {
                let location = direct.location(&head);
                stats.rq_direct_response().inc();
                Err(self.answer(route, head, direct.status, direct.body.clone(), location))
            }
        }
    }

    /// Makes the head what goes up, and collects what the upstream side needs to know besides.
    fn facts<'r>(
        &'r self,
        route: &'r Route,
        forward: &'r Forward,
        cluster: Rc<Cluster>,
        of_cluster: Option<&'r OfCluster>,
        mut head: Box<RequestHead>,
        held: &HeldBody,
    ) -> RequestFacts<'r> {
        let envoy = self.envoy_headers();
        let original = route.reads_original().then(|| head.clone());
        let retry = of_cluster.and_then(|own| own.retry.as_ref()).unwrap_or(&forward.retry);
        let callers = self.hcm.shared.router.callers_timeout();
        let timeouts = Timeouts::of_request(forward.timeouts_of(retry, &head), &mut head.headers, callers);
        let retries = RetryState::of_request(retry, &mut head);
        if envoy == EnvoyHeaders::Add {
            timeouts.write_expected(Duration::ZERO, &mut head.headers);
        }
        timeouts.write_grpc(Duration::ZERO, &mut head.headers);
        if forward.attempt_headers.in_request {
            head.headers.insert(ATTEMPT_COUNT, HeaderValue::from(1_u32));
        }
        let cx = LogContext { request: original.as_deref(), ..self.log_context(None) };
        route.finalize_request(&mut head, &cx, envoy);
        if self.hcm.shared.config.scheme == SchemeTransformation::MatchUpstream {
            // Until a host is known.
            head.scheme = Scheme::of_connection(cluster.config().transport_socket.tls().is_some());
        }
        let mirrors = of_cluster.map(|own| &own.mirrors).filter(|mirrors| !mirrors.is_empty());
        let mirrors = mirrors.unwrap_or(&forward.mirrors);
        let own = self.hcm.shared.local_address;
        let copies = mirror::copies(mirrors, &head, &cx, &self.cx.connection.directory, own);
        if !copies.is_empty() {
            self.hcm.shared.async_client.rq_total().add(copies.len() as u64);
        }
        let follows = !self.request_ended.get() || !held.is_empty();
        let tunnel = forward.tunnel_end(&head);
        self.stream.set_request(head);
        let limit = forward.request_body_buffer_limit.and_then(|limit| usize::try_from(limit).ok());
        RequestFacts {
            cluster,
            priority: forward.priority,
            timeouts,
            retries: RefCell::new(retries),
            replay_limit: limit.unwrap_or(self.stream_buffer_limit()),
            clock: &self.cx.clock,
            internal: self.internal.get(),
            groups: Groups::default(),
            attempt_headers: forward.attempt_headers,
            route,
            envoy,
            scheme: self.hcm.shared.config.scheme,
            compat: self.hcm.shared.compat,
            tunnel,
            copies: RefCell::new(copies),
            body: if follows { RequestBody::Follows } else { RequestBody::None },
        }
    }

    fn envoy_headers(&self) -> EnvoyHeaders {
        if self.hcm.shared.router.suppress_envoy_headers { EnvoyHeaders::Suppress } else { EnvoyHeaders::Add }
    }

    fn no_cluster(&self, head: Box<RequestHead>, status: StatusCode) -> Abort {
        self.hcm.shared.stats.no_cluster().inc();
        *self.stream.info().cluster.borrow_mut() = None;
        self.stream.set_request(head);
        let reply = LocalReply::new(status, "", details::CLUSTER_NOT_FOUND);
        Abort::Reply(Box::new(reply.with_flags(ResponseFlags::NO_CLUSTER_FOUND)))
    }

    /// A redirect or a direct response, as a reply.
    fn answer(
        &self,
        route: &Route,
        head: Box<RequestHead>,
        status: StatusCode,
        body: Bytes,
        location: Option<HeaderValue>,
    ) -> Abort {
        self.stream.set_request(head);
        let mut reply = LocalReply::new(status, body, details::DIRECT_RESPONSE);
        reply.headers.extend(location.map(|location| (http::header::LOCATION, location)));
        self.with_route_headers(route, Box::new(reply))
    }

    /// What format strings may print now.
    pub(super) fn log_context<'c>(
        &'c self,
        response: Option<&'c tidegate_types::ResponseHead>,
    ) -> LogContext<'c> {
        LogContext {
            request: self.stream.request(),
            response,
            response_trailers: None,
            local_reply_body: "",
            info: self.stream.info(),
        }
    }
}

fn forward(route: &Route) -> Option<&Forward> {
    match &route.action {
        RouteAction::Forward(forward) => Some(forward),
        RouteAction::Redirect(_) | RouteAction::Direct(_) | RouteAction::NonForwarding => None,
    }
}

pub(super) fn overridden(by_route: TimeoutOverride, otherwise: Option<Duration>) -> Option<Duration> {
    match by_route {
        TimeoutOverride::Inherit => otherwise,
        TimeoutOverride::Off => None,
        TimeoutOverride::After(timeout) => Some(timeout),
    }
}
