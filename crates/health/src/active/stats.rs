//! `cluster.<name>.health_check.` (Envoy docs, "Cluster manager statistics: health check statistics").

use tidegate_stats::stat_block;

stat_block! {
    /// Of clusters that are checked.
    pub struct CheckStats {
        counters {
            attempt,
            success,
            failure,
            /// Responses to requests that said so.
            passive_failure,
            /// No answer, or none in time.
            network_failure,
            /// Checks that compared `service_name_matcher`.
            verify_cluster,
        }
        gauges {
            healthy,
            degraded,
        }
    }
}
