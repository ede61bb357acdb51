//! `slow_start_config`: a host that is new gets its share little by little.

use std::time::Duration;

use super::LocalityLb;
use crate::reader::{Message, Reader};
use crate::values::{Percent, RuntimeDouble};

/// `slow_start_config` with a `slow_start_window`: without one it has no effect.
#[derive(Debug, Clone, PartialEq)]
pub struct SlowStart {
    /// `slow_start_window`, never 0.
    pub window: Duration,
    /// `aggression`, 1 when unset.
    pub aggression: Option<RuntimeDouble>,
    /// `min_weight_percent`, 10 when unset.
    pub min_weight_percent: f64,
}

impl Message for Option<SlowStart> {
    const NAME: &'static str = "envoy.extensions.load_balancing_policies.common.v3.SlowStartConfig";

    fn read(r: &Reader<'_>) -> Self {
        let window = r.duration("slow_start_window").or_default();
        let aggression = r.message("aggression").optional();
        let min_weight_percent =
            r.message::<Percent>("min_weight_percent").optional().map_or(10.0, |percent| percent.0);
        // Envoy counts whole milliseconds.
        (window.as_millis() > 0).then_some(SlowStart { window, aggression, min_weight_percent })
    }
}

/// The same beside `lb_policy`.
pub(super) struct LegacySlowStart(pub(super) Option<SlowStart>);

impl Message for LegacySlowStart {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.SlowStartConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(Option::read(r))
    }
}

/// `round_robin_lb_config`.
pub(super) struct LegacyRoundRobin {
    pub(super) slow_start: Option<SlowStart>,
}

impl Message for LegacyRoundRobin {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.RoundRobinLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        let slow_start = r.message::<LegacySlowStart>("slow_start_config").optional();
        Self { slow_start: slow_start.and_then(|config| config.0) }
    }
}

/// `envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin`.
pub(super) struct RoundRobin(pub(super) Option<SlowStart>, pub(super) LocalityLb);

impl Message for RoundRobin {
    const NAME: &'static str = "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";

    fn read(r: &Reader<'_>) -> Self {
        let slow_start = r.message::<Option<SlowStart>>("slow_start_config").optional().flatten();
        Self(slow_start, r.message_or_defaults("locality_lb_config"))
    }
}
