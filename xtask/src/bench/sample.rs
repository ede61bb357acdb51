//! Numbers: what one round measured ([`Sample`]), the median of rounds, and the curve of latencies.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::load::Close;
use super::outcome::Outcome;
use super::process::Usage;
use crate::failure::{Context, Failure};
use crate::sys;

/// One round: its numbers and all its latencies.
pub(super) struct Round {
    pub(super) sample: Sample,
    /// Nanoseconds.
    pub(super) latency: Histogram<u64>,
}

/// What one round measured, or the median over rounds of each number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) requests: f64,
    /// Requests without the expected answer.
    pub(super) errors: f64,
    pub(super) reconnects: f64,
    pub(super) requests_per_second: f64,
    /// Microseconds of the proxy's CPU time a request, user and system together.
    pub(super) cpu_us: f64,
    pub(super) user_us: f64,
    pub(super) system_us: f64,
    /// Microseconds of the load generator's own CPU time a request: small beside the proxies', or it is the
    /// load generator that was measured.
    pub(super) load_us: f64,
    /// Part of one CPU that the load generator and the origin took together, in percent: they share one, and
    /// near 100 it was that CPU which limited the throughput.
    #[serde(default)]
    pub(super) drive_percent: f64,
    /// Microseconds.
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    /// Part of the round in which the proxy was ready but another program had its CPU, in percent. Above a
    /// few percent the machine was not quiet, and every other number suffers.
    pub(super) waited_percent: f64,
    /// Resident memory at the end of the round, in KiB.
    pub(super) rss_kib: f64,
    /// Bytes of resident memory for each idle connection; only the idle scenario has it.
    pub(super) idle_bytes: Option<f64>,
    /// Only the idle-timeout scenario has it.
    #[serde(default)]
    pub(super) timeout: Option<TimeoutSample>,
    /// Only the stale-reuse scenario has it.
    #[serde(default)]
    pub(super) stale: Option<StaleSample>,
}

/// CPU time of the two processes that are not measured, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DriveUsage {
    pub(super) load_ns: u64,
    pub(super) origin_ns: u64,
}

impl DriveUsage {
    /// What the load generator and the origin have taken up to now.
    pub(super) fn now(load: i32, origin: i32) -> Result<Self, Failure> {
        let of = |pid| sys::cpu_time(pid).context("CPU time of the load");
        Ok(Self { load_ns: of(load)?, origin_ns: of(origin)? })
    }

    /// What they took since `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            load_ns: self.load_ns.saturating_sub(earlier.load_ns),
            origin_ns: self.origin_ns.saturating_sub(earlier.origin_ns),
        }
    }
}

/// Requests that failed, in percent of those that were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct StaleSample {
    pub(super) get_percent: f64,
    pub(super) post_percent: f64,
}

/// What an idle timeout did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TimeoutSample {
    /// CPU time while nothing happened, in percent of one core.
    pub(super) core_percent: f64,
    /// The earliest and the latest close, in milliseconds after the timeout; negative is too early.
    pub(super) earliest_ms: f64,
    pub(super) latest_ms: f64,
    /// Connections that were not closed at all.
    pub(super) left_open: f64,
    /// Connections that were closed by RST.
    pub(super) resets: f64,
}

impl Sample {
    /// The numbers of a loaded round.
    pub(super) fn of_load(outcome: &Outcome, usage: Usage, drive: DriveUsage, rss_kib: u64) -> Self {
        let requests = outcome.good.max(1) as f64;
        let cpu_us = usage.cpu_ns as f64 / requests / 1e3;
        let user_us = usage.user_ns() / requests / 1e3;
        let elapsed = outcome.elapsed.as_secs_f64().max(1e-9);
        let quantile = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            requests: outcome.good as f64,
            errors: outcome.bad as f64,
            reconnects: outcome.reconnects as f64,
            requests_per_second: outcome.good as f64 / elapsed,
            cpu_us,
            user_us,
            system_us: cpu_us - user_us,
            load_us: drive.load_ns as f64 / requests / 1e3,
            drive_percent: (drive.load_ns + drive.origin_ns) as f64 / 1e7 / elapsed,
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            waited_percent: usage.waited_ns as f64 / 1e7 / elapsed,
            rss_kib: rss_kib as f64,
            idle_bytes: None,
            timeout: None,
            stale: None,
        }
    }

    /// The numbers of an idle round: memory before and after `connections` were opened, in KiB.
    pub(super) fn of_idle(outcome: &Outcome, connections: usize, before: u64, after: u64) -> Self {
        let grown = (after as f64 - before as f64) * 1024.0;
        Self {
            requests: outcome.good as f64,
            errors: outcome.bad as f64,
            reconnects: outcome.reconnects as f64,
            rss_kib: after as f64,
            idle_bytes: Some(grown / connections.max(1) as f64),
            ..Self::default()
        }
    }

    /// The numbers of an idle timeout: `usage` is what the proxy took in `quiet`.
    pub(super) fn of_timeout(
        outcome: &Outcome,
        closes: &[Close],
        connections: usize,
        timeout: Duration,
        usage: Usage,
        quiet: Duration,
    ) -> Self {
        let late = |close: &Close| (close.idle_for.as_secs_f64() - timeout.as_secs_f64()) * 1e3;
        let lateness: Vec<f64> = closes.iter().map(late).collect();
        Self {
            requests: outcome.good as f64,
            errors: outcome.bad as f64,
            reconnects: outcome.reconnects as f64,
            timeout: Some(TimeoutSample {
                core_percent: usage.cpu_ns as f64 / quiet.as_nanos().max(1) as f64 * 100.0,
                earliest_ms: lateness.iter().copied().fold(f64::INFINITY, f64::min),
                latest_ms: lateness.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                left_open: (connections - closes.len()) as f64,
                resets: closes.iter().filter(|close| close.is_reset).count() as f64,
            }),
            ..Self::default()
        }
    }

    /// The numbers of the stale-reuse scenario.
    pub(super) fn of_stale(gets: &Outcome, posts: &Outcome) -> Self {
        let failed =
            |outcome: &Outcome| outcome.bad as f64 / (outcome.good + outcome.bad).max(1) as f64 * 100.0;
        Self {
            requests: (gets.good + posts.good) as f64,
            errors: (gets.bad + posts.bad) as f64,
            reconnects: (gets.reconnects + posts.reconnects) as f64,
            stale: Some(StaleSample { get_percent: failed(gets), post_percent: failed(posts) }),
            ..Self::default()
        }
    }

    /// The median of each number on its own; errors and reconnects add up, since none may hide.
    pub(super) fn median(samples: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| median(samples.iter().map(field).collect());
        let idle: Vec<f64> = samples.iter().filter_map(|sample| sample.idle_bytes).collect();
        Self {
            requests: of(|s| s.requests),
            errors: samples.iter().map(|s| s.errors).sum(),
            reconnects: samples.iter().map(|s| s.reconnects).sum(),
            requests_per_second: of(|s| s.requests_per_second),
            cpu_us: of(|s| s.cpu_us),
            user_us: of(|s| s.user_us),
            system_us: of(|s| s.system_us),
            load_us: of(|s| s.load_us),
            drive_percent: of(|s| s.drive_percent),
            p50_us: of(|s| s.p50_us),
            p99_us: of(|s| s.p99_us),
            p999_us: of(|s| s.p999_us),
            waited_percent: of(|s| s.waited_percent),
            rss_kib: of(|s| s.rss_kib),
            idle_bytes: (!idle.is_empty()).then(|| median(idle)),
            // One round is made of these.
            timeout: samples.iter().find_map(|sample| sample.timeout),
            stale: samples.iter().find_map(|sample| sample.stale),
        }
    }
}

/// The middle value, or the mean of the two in the middle; 0 for none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Latency at rising quantiles, evenly spaced in "nines": (quantile, microseconds).
pub(super) fn latency_curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    // 0 nines is the minimum, 4 nines is 0.9999.
    let nines = (0..=40).map(|step| f64::from(step) / 10.0);
    nines
        .map(|nines| {
            let quantile = 1.0 - 10_f64.powf(-nines);
            (quantile, histogram.value_at_quantile(quantile) as f64 / 1e3)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::outcome::latency_histogram;
    use super::*;

    fn outcome(latencies_us: &[u64]) -> Outcome {
        let mut latency = latency_histogram().unwrap();
        for us in latencies_us {
            latency.record(us * 1_000).unwrap();
        }
        let good = latencies_us.len() as u64;
        Outcome { good, bad: 1, reconnects: 0, elapsed: Duration::from_secs(2), latency }
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn merging_keeps_every_value() {
        let mut all = outcome(&[10, 20]);
        all.merge(&outcome(&[30, 40_000]));
        assert_eq!((all.good, all.bad, all.latency.len()), (4, 2, 4));
        assert!(all.latency.max() >= 40_000_000);
        assert_eq!(all.latency.value_at_quantile(0.5) / 10_000, 2);
    }

    #[test]
    fn a_sample_is_per_request() {
        let usage = Usage { cpu_ns: 40_000, user_ticks: 1, system_ticks: 3, waited_ns: 500_000_000 };
        let drive = DriveUsage { load_ns: 8_000, origin_ns: 392_000 };
        let sample = Sample::of_load(&outcome(&[100, 200, 300, 400]), usage, drive, 7);
        assert!((sample.drive_percent - 0.02).abs() < 1e-9);
        assert!((sample.cpu_us - 10.0).abs() < 1e-9);
        assert!((sample.user_us - 2.5).abs() < 1e-9);
        assert!((sample.load_us - 2.0).abs() < 1e-9);
        assert!((sample.waited_percent - 25.0).abs() < 1e-9);
        assert!((sample.requests_per_second - 2.0).abs() < 1e-9);
        assert!((sample.p50_us - 200.0).abs() < 1.0);
    }

    #[test]
    fn failures_are_percent_of_all() {
        let stale = Sample::of_stale(&outcome(&[1; 199]), &outcome(&[1; 3])).stale.unwrap();
        assert_eq!(stale, StaleSample { get_percent: 0.5, post_percent: 25.0 });
    }

    #[test]
    fn errors_add_up_in_the_median() {
        let quiet = Sample { cpu_us: 1.0, ..Sample::default() };
        let noisy = Sample { cpu_us: 5.0, errors: 2.0, idle_bytes: Some(9.0), ..Sample::default() };
        let median = Sample::median(&[quiet, noisy, quiet]);
        assert_eq!((median.cpu_us, median.errors, median.idle_bytes), (1.0, 2.0, Some(9.0)));
    }

    #[test]
    fn a_curve_rises() {
        let curve = latency_curve(&outcome(&[1, 2, 3, 50, 1_000]).latency);
        assert_eq!(curve.len(), 41);
        assert!(curve.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        assert!(latency_curve(&latency_histogram().unwrap()).is_empty());
    }
}
