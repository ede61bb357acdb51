//! `envoy.filters.http.health_check`: answers health checks of the proxy itself, by the operator's word, by its
//! clusters, or with what an upstream answered a moment ago.
//!
//! Configuration: `pass_through_mode` (required), `headers` (which requests are checks; all of them must match),
//! `cluster_min_healthy_percentages` (without pass-through), `cache_time` (with it). Checks count in none of the
//! connection manager's and the cluster's numbers of responses, and `not_health_check_filter` keeps them out of
//! access logs. Unlike Envoy a check that has a body is answered before its end.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use tidegate_filter::{
    Clusters, Cx, FactoryContext, HeadFlow, HttpFilter, HttpFilterType, LocalReply, RequestFilter,
    ResponseFilter, Step, Stream,
};
use tidegate_stats::stat_block;
use tidegate_types::{EndStream, RequestHead, ResponseFlags, ResponseHead};
use tokio::time::Instant;

use crate::config::HeaderMatcher;

#[cfg(test)]
mod tests;

/// The filter's type.
pub struct HealthCheck;

/// The configuration.
#[derive(Debug, Deserialize)]
pub struct Config {
    pass_through_mode: bool,
    #[serde(default, deserialize_with = "tidegate_types::json::duration")]
    cache_time: Duration,
    #[serde(default)]
    cluster_min_healthy_percentages: BTreeMap<String, Percent>,
    #[serde(default)]
    headers: Vec<HeaderMatcher>,
}

#[derive(Debug, Deserialize)]
struct Percent {
    #[serde(default)]
    value: f64,
}

stat_block! {
    /// `http.<stat_prefix>.health_check.`: of the checks that the filter answers itself.
    struct HealthCheckStats {
        counters {
            request_total,
            ok,
            failed,
            cached_response,
            failed_cluster_not_found,
            failed_cluster_empty,
            failed_cluster_unhealthy,
            degraded,
        }
    }
}

/// What all workers share.
pub struct Factory {
    config: Config,
    stats: HealthCheckStats,
    /// `None`: nothing is kept.
    cache: Option<Cache>,
    /// `node.cluster`, which every check is told.
    local_cluster: HeaderValue,
}

impl HttpFilterType for HealthCheck {
    const NAME: &'static str = "envoy.filters.http.health_check";
    const TYPE_URL: &'static str =
        "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck";
    type Config = Config;
    type RouteConfig = ();
    type Factory = Factory;

    fn build(config: Config, cx: &FactoryContext<'_>) -> Result<Factory, String> {
        if !config.pass_through_mode && !config.cache_time.is_zero() {
            return Err("`cache_time` must not be set without `pass_through_mode`".to_owned());
        }
        let wrong = config.cluster_min_healthy_percentages.values().find(|percent| !percent.is_valid());
        if let Some(Percent { value }) = wrong {
            return Err(format!("`cluster_min_healthy_percentages`: {value} is not within 0 to 100"));
        }
        Ok(Factory {
            stats: HealthCheckStats::new(cx.stats, cx.scope.child("health_check")),
            cache: (!config.cache_time.is_zero()).then(|| Cache::new(config.cache_time)),
            local_cluster: HeaderValue::try_from(cx.local_cluster)
                .map_err(|_| "`node.cluster` cannot stand in a header field".to_owned())?,
            config,
        })
    }

    fn open(factory: &Arc<Factory>, _: &Rc<Stream>) -> HttpFilter {
        HttpFilter::request(Request(factory.clone())).and_response(Response(factory.clone()))
    }
}

struct Request(Arc<Factory>);

impl RequestFilter for Request {
    fn on_head<'a>(&'a mut self, cx: &'a Cx, head: &'a mut RequestHead, _: EndStream) -> Step<'a, HeadFlow> {
        let factory = &self.0;
        if !factory.config.headers.iter().all(|matcher| matcher.matches(head)) {
            return Step::Now(HeadFlow::Skip);
        }
        let stream = cx.stream();
        stream.info().health_check.set(true);
        let clusters = &**stream.clusters();
        let cached = factory.cache.as_ref().and_then(Cache::answer);
        let verdict = match (clusters.server_fails_checks(), cached) {
            (true, _) => Verdict::failed("health_check_failed"),
            (false, Some(cached)) => cached,
            (false, None) if factory.config.pass_through_mode => return Step::Now(HeadFlow::Skip),
            (false, None) => factory.judge(clusters),
        };
        Step::Now(HeadFlow::Reply(Box::new(factory.answer(verdict))))
    }
}

struct Response(Arc<Factory>);

impl ResponseFilter for Response {
    fn on_head<'a>(&'a mut self, cx: &'a Cx, head: &'a mut ResponseHead, _: EndStream) -> Step<'a, HeadFlow> {
        let (info, factory) = (cx.stream().info(), &self.0);
        if info.health_check.get() {
            // What is answered here was kept before, or is not to be.
            let details = info.details.borrow();
            let passed_through =
                !details.as_ref().is_some_and(|details| details.starts_with("health_check_"));
            if let (true, Some(cache)) = (passed_through, &factory.cache) {
                cache.keep(head.status, head.headers.contains_key(DEGRADED));
            }
            head.headers.insert(HEALTHCHECKED_CLUSTER, factory.local_cluster.clone());
        }
        if cx.stream().clusters().server_fails_checks() {
            head.headers.insert(IMMEDIATE_FAIL, HeaderValue::from_static("true"));
        }
        Step::Now(HeadFlow::Skip)
    }
}

/// What a check is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    status: StatusCode,
    is_degraded: bool,
    details: &'static str,
}

impl Verdict {
    fn ok(details: &'static str) -> Self {
        Self { status: StatusCode::OK, is_degraded: false, details }
    }

    fn failed(details: &'static str) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, is_degraded: false, details }
    }
}

impl Factory {
    /// By the clusters that are named, each of which must be there with its share of hosts that can serve.
    fn judge(&self, clusters: &dyn Clusters) -> Verdict {
        let named = &self.config.cluster_min_healthy_percentages;
        for (name, least) in named {
            // As in Envoy the fraction of a percent is cut off.
            let least = least.value as u64;
            match clusters.presence(name) {
                None => {
                    self.stats.failed_cluster_not_found().inc();
                    return Verdict::failed("health_check_failed_no_cluster_found");
                }
                Some(hosts) if hosts.total == 0 && least > 0 => {
                    self.stats.failed_cluster_empty().inc();
                    return Verdict::failed("health_check_failed_cluster_empty");
                }
                Some(hosts) if hosts.serving * 100 < hosts.total * least => {
                    self.stats.failed_cluster_unhealthy().inc();
                    return Verdict::failed("health_check_failed_cluster_unhealthy");
                }
                Some(_) => {}
            }
        }
        Verdict::ok(if named.is_empty() { "health_check_ok" } else { "health_check_ok_cluster_healthy" })
    }

    fn answer(&self, verdict: Verdict) -> LocalReply {
        let stats = &self.stats;
        stats.request_total().inc();
        if verdict.details == CACHED {
            stats.cached_response().inc();
        }
        let mut reply = LocalReply::new(verdict.status, "", verdict.details);
        if verdict.status.is_success() {
            stats.ok().inc();
        } else {
            stats.failed().inc();
            reply = reply.with_flags(ResponseFlags::FAILED_LOCAL_HEALTH_CHECK);
        }
        if verdict.is_degraded {
            stats.degraded().inc();
            reply = reply.with_header(DEGRADED, HeaderValue::from_static(""));
        }
        reply
    }
}

/// An upstream's last answer, in one word for all workers: when it is too old (ms since `since`), its status, and
/// whether it was degraded.
struct Cache {
    since: Instant,
    time: Duration,
    kept: AtomicU64,
}

impl Cache {
    fn new(time: Duration) -> Self {
        Self { since: Instant::now(), time, kept: AtomicU64::new(0) }
    }

    fn keep(&self, status: StatusCode, is_degraded: bool) {
        let until = u64::try_from((self.since.elapsed() + self.time).as_millis()).unwrap_or(u64::MAX >> 11);
        self.kept.store(until << 11 | u64::from(status.as_u16()) << 1 | u64::from(is_degraded), Relaxed);
    }

    fn answer(&self) -> Option<Verdict> {
        let kept = self.kept.load(Relaxed);
        if u128::from(kept >> 11) <= self.since.elapsed().as_millis() {
            return None;
        }
        let status = StatusCode::from_u16((kept >> 1 & 0x3ff) as u16).ok()?;
        Some(Verdict { status, is_degraded: kept & 1 == 1, details: CACHED })
    }
}

const CACHED: &str = "health_check_cached";
const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");
const HEALTHCHECKED_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");
const IMMEDIATE_FAIL: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");

impl Percent {
    fn is_valid(&self) -> bool {
        (0.0..=100.0).contains(&self.value)
    }
}
