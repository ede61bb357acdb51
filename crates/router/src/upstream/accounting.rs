//! What an exchange leaves in the statistics of its cluster and host
//! (Envoy docs, "Cluster manager statistics").

use http::{HeaderName, StatusCode};
use tidegate_cluster::stats::Origin;
use tidegate_cluster::{ClusterShared, ClusterStats, HostStat};
use tidegate_filter::LocalReply;
use tidegate_stats::CodePrefix;
use tidegate_types::{EndStream, ResetReason, ResponseHead};
use tokio::time::Instant;

use super::Upstream;
use super::deadlines::RouterTimeout;
use super::outcome::Failure;
use crate::group::Groups;
use crate::retry::Pace;
use crate::route::EnvoyHeaders;

/// The field by which an upstream says that it is a canary.
const CANARY: HeaderName = HeaderName::from_static("x-envoy-upstream-canary");

/// Counts a response code of a cluster, and whose request it answered.
fn count_code(stats: &ClusterStats, status: StatusCode, internal: bool, groups: Groups<'_>) {
    stats.codes.record(status.as_u16());
    let side = if internal { CodePrefix::Internal } else { CodePrefix::External };
    stats.codes.record_as(side, status.as_u16());
    groups.each(|group| group.codes.record(status.as_u16()));
}

/// The answer to a request whose cluster takes none now, counted: it is in maintenance, or drops what is too much.
pub fn refusal(
    cluster: &ClusterShared,
    internal: bool,
    envoy: EnvoyHeaders,
    groups: Groups<'_>,
) -> Option<LocalReply> {
    let stats = cluster.stats();
    let reply = if cluster.refuses_for_maintenance(|| fastrand::u64(..)) {
        stats.router.upstream_rq_maintenance_mode().inc();
        super::outcome::maintenance(envoy)
    } else {
        super::outcome::dropped(cluster.refuses_for_overload(|| fastrand::u64(..))?, envoy)
    };
    count_code(stats, reply.status, internal, groups);
    Some(reply)
}

impl Upstream<'_> {
    /// A response is passed on.
    pub(super) fn count_accepted(&self, head: &ResponseHead, end: EndStream) {
        let upgraded = self.stream.request().is_some_and(|request| request.upgrade.is_some());
        let says_canary = head.headers.get(&CANARY).is_some_and(|value| value == "true");
        self.canary.set(says_canary || self.host.borrow().as_ref().is_some_and(|host| host.is_canary()));
        // An upgrade that was overlooked is answered by the manager, and no response of the upstream for Envoy.
        if head.status != StatusCode::OK || !upgraded {
            self.count_code(head.status);
        }
        if head.status.is_server_error() {
            self.count_host(HostStat::RqError);
        } else {
            self.count_answer(head, end);
        }
    }

    /// A response gives way to another attempt: whatever it was, it is taken for the host's error.
    pub(super) fn count_retried_response(&self, head: &ResponseHead) {
        if !self.stream.info().health_check.get() {
            self.facts.cluster.stats().codes.record_as(CodePrefix::Retry, head.status.as_u16());
        }
        self.count_host(HostStat::RqError);
    }

    /// A retry that was decided on is made.
    pub(super) fn count_retry(&self) {
        let Some(pace) = self.due_retry.take() else { return };
        let stats = &self.facts.cluster.stats().router;
        stats.upstream_rq_retry().inc();
        match pace {
            Pace::Exponential => stats.upstream_rq_retry_backoff_exponential().inc(),
            Pace::RateLimited => stats.upstream_rq_retry_backoff_ratelimited().inc(),
        }
        self.facts.groups.each(|group| group.stats.upstream_rq_retry().inc());
    }

    /// An attempt ended without a response.
    pub(super) fn count_failure(&self, failure: &Failure) {
        self.judge_failure(failure);
        let stats = &self.facts.cluster.stats().router;
        match failure {
            Failure::NoHost => {}
            // The host did nothing wrong: a limit of ours refused the stream.
            Failure::Reset { reason: ResetReason::Overflow, .. } => {}
            Failure::Reset { .. } | Failure::Stale => self.count_failed_host(),
            Failure::Timeout(RouterTimeout::Route) => self.count_route_timeout(),
            Failure::Timeout(timeout) => {
                match timeout {
                    RouterTimeout::Route => {}
                    RouterTimeout::PerTry => stats.upstream_rq_per_try_timeout().inc(),
                    RouterTimeout::PerTryIdle => stats.upstream_rq_per_try_idle_timeout().inc(),
                    RouterTimeout::MaxStreamDuration => {
                        return stats.upstream_rq_max_duration_reached().inc();
                    }
                }
                self.count_host(HostStat::RqTimeout);
                self.count_failed_host();
            }
        }
    }

    /// The route's time is over for every attempt that runs. As in Envoy each counts, and each as a 504; the one
    /// that the reply is for is counted with the reply.
    fn count_route_timeout(&self) {
        if let Some(tally) = self.tally.borrow().as_ref() {
            tally.out_of_time();
        }
        let rivals = self.rivals.out_of_time();
        let mut with_reply = false;
        if rivals.is_empty() || self.lease.borrow().is_some() {
            self.count_late_answer();
            // One that waits for a connection has no host yet.
            if self.lease.borrow().is_some() {
                self.count_host(HostStat::RqTimeout);
                self.count_failed_host();
            }
            with_reply = true;
        }
        for host in rivals {
            self.count_late_answer();
            host.counters().inc(HostStat::RqTimeout);
            host.counters().inc(HostStat::RqError);
            if std::mem::replace(&mut with_reply, true) {
                self.count_code(StatusCode::GATEWAY_TIMEOUT);
            }
        }
    }

    /// To Envoy a 1xx is the response's start, and what fails after it no failure to answer.
    fn count_failed_host(&self) {
        if !self.informed.get() {
            self.count_host(HostStat::RqError);
        }
    }

    fn count_late_answer(&self) {
        self.facts.cluster.stats().router.upstream_rq_timeout().inc();
        self.facts.groups.each(|group| group.stats.upstream_rq_timeout().inc());
    }

    /// The router answers in the upstream's place.
    pub(super) fn count_reply(&self, failure: &Failure, status: StatusCode) {
        // The cluster's own limit on streams leaves no trace among the codes, nor does what follows a 1xx,
        // which Envoy takes for the response's start.
        if !self.informed.get() && !matches!(failure, Failure::Timeout(RouterTimeout::MaxStreamDuration)) {
            self.count_code(status);
        }
    }

    /// A response was cut.
    pub(super) fn count_cut(&self, failure: &Failure) {
        self.judge_cut(failure);
        let stats = &self.facts.cluster.stats().router;
        if let Failure::Timeout(timeout) = failure {
            match timeout {
                RouterTimeout::Route => self.count_late_answer(),
                RouterTimeout::PerTry => stats.upstream_rq_per_try_timeout().inc(),
                RouterTimeout::PerTryIdle => stats.upstream_rq_per_try_idle_timeout().inc(),
                RouterTimeout::MaxStreamDuration => return stats.upstream_rq_max_duration_reached().inc(),
            }
            self.record_budget();
            self.count_host(HostStat::RqTimeout);
        } else if self.grpc_status_due.get() {
            self.count_host(HostStat::RqError);
        }
    }

    /// A response was taken whole.
    pub(super) fn count_complete(&self, now: Instant) {
        self.stream.info().last_upstream_rx.set(Some(self.facts.clock.elapsed()));
        let Some(sent) = self.request_complete.get() else { return };
        self.record_budget();
        if self.stream.info().health_check.get() {
            return;
        }
        let ms = u64::try_from((now - sent).as_millis()).unwrap_or(u64::MAX);
        let origin = if self.facts.internal { Origin::Internal } else { Origin::External };
        let stats = self.facts.cluster.stats();
        stats.record_time(Some(origin), ms);
        if self.canary.get() {
            stats.record_canary_time(ms);
        }
        if let Some(zone) = self.host.borrow().as_ref().and_then(|host| host.zone(stats)) {
            zone.record_time(ms);
        }
        self.facts.groups.each(|group| group.record_time(ms));
    }

    /// Envoy counts the first 1xx of a response, of those that it knows, and takes it for the response's start.
    pub(super) fn count_informational(&self, status: StatusCode) {
        if matches!(status.as_u16(), 100 | 102..=104) && !self.informed.replace(true) {
            self.count_code(status);
            // As in Envoy nothing is retried once the client was told something.
            self.facts.retries.take();
        }
    }

    /// Checks of the proxy itself that pass through are no part of the service's answers.
    fn count_code(&self, status: StatusCode) {
        if self.stream.info().health_check.get() {
            return;
        }
        let stats = self.facts.cluster.stats();
        count_code(stats, status, self.facts.internal, self.facts.groups);
        let host = self.host.borrow();
        if self.canary.get() || host.as_ref().is_some_and(|host| host.is_canary()) {
            stats.codes.record_as(CodePrefix::Canary, status.as_u16());
        }
        if let Some(zone) = host.as_ref().and_then(|host| host.zone(stats)) {
            zone.codes.record(status.as_u16());
        }
    }

    pub(super) fn count_host(&self, stat: HostStat) {
        if let Some(host) = self.host.borrow().as_ref() {
            host.counters().inc(stat);
        }
    }
}
