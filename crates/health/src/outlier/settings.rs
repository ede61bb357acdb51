//! The numbers that outlier detection goes by: the cluster's, unless the runtime says otherwise.

use std::time::Duration;

use tidegate_cluster::judged::Consecutive;
use tidegate_config::cluster::OutlierDetectionConfig;
use tidegate_config::runtime::Runtime;

use super::machine::Kind;

/// The cluster's message with the runtime keys `outlier_detection.*` applied (Envoy docs, "Cluster manager: runtime").
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// See [`OutlierDetectionConfig`], of which this is one with other numbers.
    pub config: OutlierDetectionConfig,
}

impl Settings {
    /// What holds now.
    pub fn new(config: &OutlierDetectionConfig, runtime: &Runtime) -> Self {
        let mut config = config.clone();
        let value = |key: &str| runtime.integer(&format!("outlier_detection.{key}"));
        let time = |key: &str, time: &mut Duration| {
            *time = value(key).map_or(*time, Duration::from_millis);
        };
        time("interval_ms", &mut config.interval);
        time("base_ejection_time_ms", &mut config.base_ejection_time);
        time("max_ejection_time_ms", &mut config.max_ejection_time);
        time("max_ejection_time_jitter_ms", &mut config.max_ejection_time_jitter);
        // A sweep without a pause would starve the main thread.
        config.interval = config.interval.max(Duration::from_millis(1));
        let enforcing = &mut config.enforcing;
        let rates = &mut config.success_rate;
        let percentages = &mut config.failure_percentage;
        for (key, number) in [
            ("consecutive_5xx", &mut config.consecutive_5xx),
            ("consecutive_gateway_failure", &mut config.consecutive_gateway_failure),
            ("consecutive_local_origin_failure", &mut config.consecutive_local_origin_failure),
            ("max_ejection_percent", &mut config.max_ejection_percent),
            ("success_rate_minimum_hosts", &mut rates.minimum_hosts),
            ("success_rate_request_volume", &mut rates.request_volume),
            ("success_rate_stdev_factor", &mut rates.stdev_factor),
            ("failure_percentage_threshold", &mut percentages.threshold),
            ("failure_percentage_minimum_hosts", &mut percentages.minimum_hosts),
            ("failure_percentage_request_volume", &mut percentages.request_volume),
            ("enforcing_consecutive_5xx", &mut enforcing.consecutive_5xx),
            ("enforcing_consecutive_gateway_failure", &mut enforcing.consecutive_gateway_failure),
            ("enforcing_consecutive_local_origin_failure", &mut enforcing.consecutive_local_origin_failure),
            ("enforcing_success_rate", &mut enforcing.success_rate),
            ("enforcing_local_origin_success_rate", &mut enforcing.local_origin_success_rate),
            ("enforcing_failure_percentage", &mut enforcing.failure_percentage),
            ("enforcing_failure_percentage_local_origin", &mut enforcing.failure_percentage_local_origin),
        ] {
            if let Some(value) = value(key) {
                *number = u32::try_from(value).unwrap_or(u32::MAX);
            }
        }
        config.max_ejection_percent = config.max_ejection_percent.min(100);
        Self { config }
    }

    /// How many failures in a row make an outlier.
    pub fn threshold(&self, count: Consecutive) -> u32 {
        match count {
            Consecutive::ServerError => self.config.consecutive_5xx,
            Consecutive::GatewayFailure => self.config.consecutive_gateway_failure,
            Consecutive::LocalOrigin => self.config.consecutive_local_origin_failure,
        }
    }

    /// Of 100 outliers so many are ejected.
    pub(super) fn enforcing(&self, kind: Kind) -> u32 {
        let enforcing = &self.config.enforcing;
        match kind {
            Kind::Consecutive5xx => enforcing.consecutive_5xx,
            Kind::ConsecutiveGatewayFailure => enforcing.consecutive_gateway_failure,
            Kind::ConsecutiveLocalOriginFailure => enforcing.consecutive_local_origin_failure,
            Kind::SuccessRate => enforcing.success_rate,
            Kind::SuccessRateLocalOrigin => enforcing.local_origin_success_rate,
            Kind::FailurePercentage => enforcing.failure_percentage,
            Kind::FailurePercentageLocalOrigin => enforcing.failure_percentage_local_origin,
        }
    }

    /// How long an ejection lasts that `backoff` multiplies, without its jitter.
    pub(super) fn ejection_time(&self, backoff: u32) -> Duration {
        self.config.base_ejection_time.saturating_mul(backoff).min(self.config.max_ejection_time)
    }

    /// Whether a longer ejection than that is possible.
    pub(super) fn may_grow(&self, backoff: u32) -> bool {
        let base = self.config.base_ejection_time;
        base.saturating_mul(backoff) < self.config.max_ejection_time.saturating_add(base)
    }

    /// A jitter for an ejection that begins.
    pub(super) fn jitter(&self, random: u64) -> Duration {
        let most = u64::try_from(self.config.max_ejection_time_jitter.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(random.checked_rem(most.saturating_add(1)).unwrap_or(0))
    }
}
