//! The numbers that outlier detection goes by.

use std::time::Duration;

use tidegate_cluster::judged::Consecutive;
use tidegate_config::cluster::OutlierDetectionConfig;

use super::machine::Kind;

/// The cluster's message as the runtime has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// See [`OutlierDetectionConfig`].
    pub config: OutlierDetectionConfig,
}

impl Settings {
    /// Those of a cluster.
    pub fn new(config: OutlierDetectionConfig) -> Self {
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
