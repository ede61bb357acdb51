//! `envoy.filters.http.local_ratelimit`: a token bucket that all workers share; a request that gets no
//! token is answered with 429. The template of a filter that keeps state, counts, replies and changes
//! responses.
//!
//! Configuration, as in Envoy's `LocalRateLimit` message (also per route, where the most specific level takes
//! the place of the filter's own configuration, with a bucket of its own):
//! - `stat_prefix` (required): counters `PREFIX.http_local_rate_limit.{enabled,ok,rate_limited,enforced}`;
//! - `token_bucket {max_tokens, tokens_per_fill, fill_interval}`; without it every request gets a token;
//! - `filter_enabled`, `filter_enforced`: the share of requests that take a token, and of those without one
//!   that are refused. **Both are 0 % when unset**, as in Envoy;
//! - `status {code}` (429), `rate_limited_as_resource_exhausted` (gRPC status 8 instead of 14);
//! - `response_headers_to_add` to the refusal, `request_headers_to_add_when_not_enforced`;
//! - `enable_x_ratelimit_headers: DRAFT_VERSION_03`: `x-ratelimit-limit`, `-remaining` and `-reset` (seconds).
//!
//! It does not know descriptors, nor a bucket for each connection.

mod settings;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tidegate_filter::{
    Cx, FactoryContext, HeadFlow, HttpFilter, HttpFilterType, LocalReply, LogContext, RequestFilter,
    ResponseFilter, Step, Stream,
};
use tidegate_stats::{Scope, Store, stat_block};
use tidegate_types::{EndStream, RequestHead, ResponseFlags, ResponseHead};

use crate::token_bucket::{Level, Taken, since_epoch};
pub use settings::Settings;

/// The filter's type.
pub struct LocalRateLimit;

stat_block! {
    /// What a limit did.
    struct LimitStats {
        counters {
            /// Requests that were looked at.
            enabled,
            /// Requests that got a token.
            ok,
            /// Requests that got none.
            rate_limited,
            /// Requests that got none and were refused.
            enforced,
            /// Envoy's counter for descriptors in shadow mode: always 0 here.
            shadow_mode,
        }
    }
}

impl LimitStats {
    fn of(store: &Store, prefix: &str) -> Self {
        let scope = Scope::root().tagged("envoy_local_http_ratelimit_prefix", prefix);
        Self::new(store, scope.child("http_local_rate_limit"))
    }
}

impl HttpFilterType for LocalRateLimit {
    const NAME: &'static str = "envoy.filters.http.local_ratelimit";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    type Config = Settings;
    type RouteConfig = Settings;
    type Factory = Settings;

    fn build(config: Settings, cx: &FactoryContext<'_>) -> Result<Settings, String> {
        Ok(config.resolve(cx))
    }

    fn build_route(config: Settings, cx: &FactoryContext<'_>) -> Result<Settings, String> {
        Ok(config.resolve(cx))
    }

    fn open(factory: &Arc<Settings>, _: &Rc<Stream>) -> HttpFilter {
        let level = Rc::new(Cell::new(None));
        HttpFilter::request(Request { settings: factory.clone(), level: level.clone() })
            .and_response(Response { level })
    }
}

struct Request {
    settings: Arc<Settings>,
    /// For the response's `x-ratelimit-*` fields.
    level: Rc<Cell<Option<Level>>>,
}

impl RequestFilter for Request {
    fn on_head<'a>(&'a mut self, cx: &'a Cx, head: &'a mut RequestHead, _: EndStream) -> Step<'a, HeadFlow> {
        let route = cx.route_config::<Settings>();
        let settings = route.as_ref().unwrap_or(&self.settings);
        if !settings.resolved.enabled.holds(fastrand::u64(..)) {
            return Step::Now(HeadFlow::Skip);
        }
        let stats = &settings.resolved.stats;
        stats.enabled().inc();
        let now = since_epoch();
        let taken = settings.token_bucket.as_ref().map_or(Taken::Yes, |bucket| bucket.take(now));
        if settings.announces_limits() {
            self.level.set(settings.token_bucket.as_ref().map(|bucket| bucket.level(now)));
        }
        if taken == Taken::Yes {
            stats.ok().inc();
            return Step::Now(HeadFlow::Skip);
        }
        stats.rate_limited().inc();
        if !settings.resolved.enforced.holds(fastrand::u64(..)) {
            for rule in settings.request_headers_to_add_when_not_enforced.iter() {
                if let Some(value) = rule.render(&context(cx, head)) {
                    rule.put(&mut head.headers, value);
                }
            }
            return Step::Now(HeadFlow::Skip);
        }
        stats.enforced().inc();
        Step::Now(HeadFlow::Reply(Box::new(refusal(settings, &context(cx, head)))))
    }
}

/// The answer to a request without a token.
fn refusal(settings: &Settings, cx: &LogContext<'_>) -> LocalReply {
    let mut headers = HeaderMap::new();
    settings.response_headers_to_add.apply(&mut headers, cx);
    let mut reply = LocalReply::new(settings.status, "local_rate_limited", "local_rate_limited")
        .with_flags(ResponseFlags::RATE_LIMITED);
    reply.headers = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    reply.grpc_status = settings.grpc_status();
    reply
}

struct Response {
    level: Rc<Cell<Option<Level>>>,
}

impl ResponseFilter for Response {
    fn on_head<'a>(&'a mut self, _: &'a Cx, head: &'a mut ResponseHead, _: EndStream) -> Step<'a, HeadFlow> {
        if let Some(level) = self.level.get() {
            // Whole seconds, rounded up: whoever waits that long finds a token.
            let reset = level.next.as_nanos().div_ceil(Duration::from_secs(1).as_nanos()) as u64;
            head.headers.insert(X_RATELIMIT_LIMIT, level.max.into());
            head.headers.insert(X_RATELIMIT_REMAINING, level.remaining.into());
            head.headers.insert(X_RATELIMIT_RESET, reset.into());
        }
        Step::Now(HeadFlow::Skip)
    }
}

const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What `%FORMAT%` operators may print.
fn context<'a>(cx: &'a Cx, head: &'a RequestHead) -> LogContext<'a> {
    LogContext {
        request: Some(head),
        response: None,
        response_trailers: None,
        local_reply_body: "",
        info: cx.stream().info(),
    }
}
