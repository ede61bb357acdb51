//! What is counted of one connection, from accept to close.
//!
//! A connection whose task is dropped or panics is counted to its end too: the reasons of closes add up to
//! `downstream_cx_destroy` whatever happens.

use http::Version;
use tidegate_codec::multiplex::Traffic;
use tidegate_stats::{Counter, Gauge};
use tidegate_types::{CloseReason, ConnectionInfo};
use tokio::time::Instant;

use super::close::Close;
use crate::stats::HcmStats;

/// See the module.
pub(super) struct Account {
    stats: HcmStats,
    born: Instant,
    /// Since when no request has been under way; `None` while one is.
    idle_since: Option<Instant>,
    /// The HTTP that it speaks, since it said something.
    spoken: Option<Version>,
    requested: bool,
    soft_drained: bool,
    carried: Traffic,
    open: bool,
    secure: bool,
    cut_streams: bool,
}

impl Account {
    /// A connection was accepted; `secure`: by a TLS chain, whatever becomes of the handshake.
    pub(super) fn open(stats: &HcmStats, now: Instant, secure: bool) -> Self {
        if secure {
            stats.downstream_cx_ssl_total().inc();
            stats.downstream_cx_ssl_active().inc();
        }
        stats.downstream_cx_total().inc();
        stats.downstream_cx_active().inc();
        stats.downstream_cx_idle().inc();
        Self {
            stats: stats.clone(),
            born: now,
            idle_since: Some(now),
            spoken: None,
            requested: false,
            soft_drained: false,
            carried: Traffic::default(),
            open: true,
            secure,
            cut_streams: false,
        }
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.idle_since.is_some()
    }

    /// Since when it idles; the present for one that does not.
    pub(super) fn idle_since(&self, now: Instant) -> Instant {
        self.idle_since.unwrap_or(now)
    }

    /// The first bytes told which HTTP it speaks.
    pub(super) fn speaks(&mut self, version: Version) {
        if self.spoken.replace(version).is_none() {
            let (total, active) = by_version(&self.stats, version);
            total.inc();
            active.inc();
        }
    }

    /// The first byte of a request came, and none was under way.
    pub(super) fn request(&mut self, now: Instant, version: Version) {
        if let Some(since) = self.idle_since.take() {
            self.stats.downstream_cx_idle().dec();
            // The wait for the first request is none between two.
            if self.requested {
                let idle = now.saturating_duration_since(since);
                self.stats.downstream_cx_idle_age_at_reuse_ms().record(idle.as_millis() as u64);
            }
        }
        self.requested = true;
        self.speaks(version);
    }

    /// The request is over and the connection stays.
    pub(super) fn idle(&mut self, now: Instant) {
        self.idle_since = Some(now);
        self.stats.downstream_cx_idle().inc();
    }

    /// It is past its age and waits for one more request.
    pub(super) fn soft_drain(&mut self) {
        if !std::mem::replace(&mut self.soft_drained, true) {
            self.stats.downstream_cx_http1_soft_drain().inc();
        }
    }

    /// Ours is the end, with streams under way.
    pub(super) fn cut_streams(&mut self) {
        self.cut_streams = true;
    }

    /// Adds the bytes since the last call.
    pub(super) fn count_traffic(&mut self, now: Traffic) {
        self.stats.downstream_cx_rx_bytes_total().add(now.rx - self.carried.rx);
        self.stats.downstream_cx_tx_bytes_total().add(now.tx - self.carried.tx);
        self.carried = now;
    }

    /// The connection is to be closed: how long it had idled, in ms.
    pub(super) fn end_idle(&mut self, now: Instant) -> u64 {
        let Some(since) = self.idle_since.take() else { return 0 };
        let idle = now.saturating_duration_since(since).as_millis() as u64;
        self.stats.downstream_cx_idle().dec();
        self.stats.downstream_cx_idle_age_at_close_ms().record(idle);
        idle
    }

    /// The one line of a close.
    #[inline]
    pub(super) fn log_close(&self, info: &ConnectionInfo, reason: CloseReason, idle_ms: u64) {
        tracing::debug!(
            target: "http",
            connection = info.id,
            kind = self.kind(),
            peer = %info.remote_address,
            stat_prefix = self.stats.scope().name(),
            reason = reason.name(),
            idle_ms,
            "closing a downstream connection: {}",
            reason.words(),
        );
    }

    fn kind(&self) -> &'static str {
        match self.spoken {
            Some(Version::HTTP_2) => "downstream h2",
            Some(Version::HTTP_3) => "downstream h3",
            _ => "downstream h1",
        }
    }

    /// The connection is closed.
    pub(super) fn closed(mut self, close: Close, reason: CloseReason) {
        self.count_end(close, reason);
    }

    fn count_end(&mut self, close: Close, reason: CloseReason) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        let stats = &self.stats;
        stats.downstream_cx_destroy().inc();
        stats.downstream_cx_close_reason().of(reason).inc();
        match close {
            Close::Remote => stats.downstream_cx_destroy_remote().inc(),
            Close::RemoteActive => {
                stats.downstream_cx_destroy_remote().inc();
                stats.downstream_cx_destroy_active_rq().inc();
                stats.downstream_cx_destroy_remote_active_rq().inc();
            }
            Close::Now | Close::Linger | Close::Told | Close::Delayed | Close::Waited | Close::Deaf => {
                stats.downstream_cx_destroy_local().inc()
            }
        }
        if self.cut_streams {
            stats.downstream_cx_destroy_active_rq().inc();
            match reason {
                // As in Envoy, whose manager did not close it.
                CloseReason::KeepaliveTimeout => stats.downstream_cx_destroy_remote_active_rq().inc(),
                _ => stats.downstream_cx_destroy_local_active_rq().inc(),
            }
        }
        stats.downstream_cx_active().dec();
        if self.secure {
            stats.downstream_cx_ssl_active().dec();
        }
        if self.soft_drained {
            stats.downstream_cx_http1_soft_drain().dec();
        }
        if let Some(version) = self.spoken {
            by_version(stats, version).1.dec();
        }
        stats.downstream_cx_length_ms().record(self.born.elapsed().as_millis() as u64);
    }
}

fn by_version(stats: &HcmStats, version: Version) -> (Counter<'_>, Gauge<'_>) {
    match version {
        Version::HTTP_2 => (stats.downstream_cx_http2_total(), stats.downstream_cx_http2_active()),
        Version::HTTP_3 => (stats.downstream_cx_http3_total(), stats.downstream_cx_http3_active()),
        _ => (stats.downstream_cx_http1_total(), stats.downstream_cx_http1_active()),
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if self.open {
            // The worker goes, or the task panicked: nobody else tells the end.
            self.end_idle(Instant::now());
            self.count_end(Close::Now, CloseReason::Drained);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_times_begin_and_end_with_requests() {
        let stats = HcmStats::detached();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut account = Account::open(&stats, start, true);
        assert_eq!(stats.downstream_cx_idle().value(), 1);
        account.request(at(10), Version::HTTP_11);
        assert_eq!((stats.downstream_cx_idle().value(), account.idle_since(at(15))), (0, at(15)));
        // The wait for the first request is no idle time between two.
        assert_eq!(stats.downstream_cx_idle_age_at_reuse_ms().count(), 0);
        account.idle(at(20));
        account.request(at(50), Version::HTTP_2);
        assert_eq!(stats.downstream_cx_idle_age_at_reuse_ms().count(), 1);
        account.idle(at(60));
        assert_eq!(account.end_idle(at(100)), 40);
        assert_eq!(account.end_idle(at(200)), 0);
        account.closed(Close::Linger, CloseReason::IdleTimeout);
        assert_eq!(stats.downstream_cx_idle_age_at_close_ms().count(), 1);
        assert_eq!((stats.downstream_cx_idle().value(), stats.downstream_cx_active().value()), (0, 0));
        assert_eq!(
            (stats.downstream_cx_ssl_total().value(), stats.downstream_cx_ssl_active().value()),
            (1, 0)
        );
        assert_eq!(stats.downstream_cx_close_reason().of(CloseReason::IdleTimeout).value(), 1);
        assert_eq!(stats.downstream_cx_destroy_local().value(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_dropped_is_counted_once_with_everything_it_held() {
        let stats = HcmStats::detached();
        let mut account = Account::open(&stats, Instant::now(), false);
        account.request(Instant::now(), Version::HTTP_11);
        account.soft_drain();
        drop(account);
        drop(Account::open(&stats, Instant::now(), false));
        let reasons = stats.downstream_cx_close_reason();
        assert_eq!((reasons.of(CloseReason::Drained).value(), reasons.total()), (2, 2));
        assert_eq!(stats.downstream_cx_destroy().value(), 2);
        let gauges = [
            stats.downstream_cx_active(),
            stats.downstream_cx_idle(),
            stats.downstream_cx_http1_active(),
            stats.downstream_cx_http1_soft_drain(),
        ];
        assert_eq!(gauges.map(|gauge| gauge.value()), [0; 4]);
    }
}
