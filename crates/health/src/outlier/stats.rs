//! `cluster.<name>.outlier_detection.`

use tidegate_config::ClusterConfig;
use tidegate_stats::{Scope, Store, stat_block};

use super::machine::{Kind, Outcome};

stat_block! {
    /// Names follow Envoy docs, "Cluster manager statistics".
    pub(super) struct OutlierStats {
        counters {
            ejections_enforced_total,
            ejections_overflow,
            ejections_detected_consecutive_5xx,
            ejections_enforced_consecutive_5xx,
            ejections_detected_consecutive_gateway_failure,
            ejections_enforced_consecutive_gateway_failure,
            ejections_detected_consecutive_local_origin_failure,
            ejections_enforced_consecutive_local_origin_failure,
            ejections_detected_success_rate,
            ejections_enforced_success_rate,
            ejections_detected_local_origin_success_rate,
            ejections_enforced_local_origin_success_rate,
            ejections_detected_failure_percentage,
            ejections_enforced_failure_percentage,
            ejections_detected_local_origin_failure_percentage,
            ejections_enforced_local_origin_failure_percentage,
            ejections_detected_degradation,
            /// Deprecated: 5xx in a row and success rates, enforced or not.
            ejections_total,
            /// Deprecated.
            ejections_consecutive_5xx,
            /// Deprecated.
            ejections_success_rate,
        }
        gauges {
            ejections_active,
        }
    }
}

impl OutlierStats {
    /// The statistics of `config`'s cluster.
    pub(super) fn of(store: &Store, config: &ClusterConfig) -> Self {
        Self::new(store, Scope::cluster(config.stat_name()).child("outlier_detection"))
    }

    /// Counts an outlier and what became of it.
    pub(super) fn count(&self, kind: Kind, outcome: Outcome) {
        let (detected, enforced) = match kind {
            Kind::Consecutive5xx => {
                (self.ejections_detected_consecutive_5xx(), self.ejections_enforced_consecutive_5xx())
            }
            Kind::ConsecutiveGatewayFailure => (
                self.ejections_detected_consecutive_gateway_failure(),
                self.ejections_enforced_consecutive_gateway_failure(),
            ),
            Kind::ConsecutiveLocalOriginFailure => (
                self.ejections_detected_consecutive_local_origin_failure(),
                self.ejections_enforced_consecutive_local_origin_failure(),
            ),
            Kind::SuccessRate => {
                (self.ejections_detected_success_rate(), self.ejections_enforced_success_rate())
            }
            Kind::SuccessRateLocalOrigin => (
                self.ejections_detected_local_origin_success_rate(),
                self.ejections_enforced_local_origin_success_rate(),
            ),
            Kind::FailurePercentage => {
                (self.ejections_detected_failure_percentage(), self.ejections_enforced_failure_percentage())
            }
            Kind::FailurePercentageLocalOrigin => (
                self.ejections_detected_local_origin_failure_percentage(),
                self.ejections_enforced_local_origin_failure_percentage(),
            ),
        };
        detected.inc();
        match outcome {
            Outcome::Ejected => {
                self.ejections_enforced_total().inc();
                enforced.inc();
            }
            Outcome::Overflow => self.ejections_overflow().inc(),
            Outcome::NotEnforced | Outcome::AlreadyEjected => {}
        }
        self.count_as_of_old(kind, outcome);
    }

    /// The deprecated counters, which dashboards still show.
    fn count_as_of_old(&self, kind: Kind, outcome: Outcome) {
        let is_rate = matches!(kind, Kind::SuccessRate | Kind::SuccessRateLocalOrigin);
        match kind {
            Kind::Consecutive5xx => self.ejections_consecutive_5xx().inc(),
            _ if is_rate => self.ejections_success_rate().inc(),
            _ => {}
        }
        let counts = matches!(kind, Kind::Consecutive5xx | Kind::SuccessRate);
        if counts && matches!(outcome, Outcome::Ejected | Outcome::NotEnforced) {
            self.ejections_total().inc();
        }
    }
}
