//! `LEAST_REQUEST`.

use super::slow_start::LegacySlowStart;
use super::{LocalityLb, SlowStart};
use crate::reader::{Message, Reader};
use crate::values::RuntimeDouble;

/// `least_request_lb_config`.
#[derive(Debug, Clone, PartialEq)]
pub struct LeastRequestConfig {
    /// `choice_count`, 2 when unset, at least 2: of so many hosts drawn the one with the fewest requests gets it.
    pub choice_count: u32,
    /// `active_request_bias`, 1 when unset: how much requests in hand count where weights differ.
    pub active_request_bias: Option<RuntimeDouble>,
    /// `slow_start_config`.
    pub slow_start: Option<SlowStart>,
    /// `selection_method`.
    pub method: SelectionMethod,
}

/// `selection_method`: among which hosts the one with the fewest requests is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SelectionMethod {
    /// `N_CHOICES`: `choice_count` that chance draws.
    #[default]
    Choices,
    /// `FULL_SCAN`: all.
    FullScan,
}

impl Default for LeastRequestConfig {
    fn default() -> Self {
        Self {
            choice_count: 2,
            active_request_bias: None,
            slow_start: None,
            method: SelectionMethod::Choices,
        }
    }
}

/// The configuration beside `lb_policy`.
pub(super) struct LegacyLeastRequest(pub(super) LeastRequestConfig);

impl Message for LegacyLeastRequest {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig";

    fn read(r: &Reader<'_>) -> Self {
        let slow_start = r.message::<LegacySlowStart>("slow_start_config").optional();
        Self(LeastRequestConfig { slow_start: slow_start.and_then(|config| config.0), ..own(r) })
    }
}

/// `envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest`.
pub(super) struct LeastRequest(pub(super) LeastRequestConfig, pub(super) LocalityLb);

impl Message for LeastRequest {
    const NAME: &'static str = "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";

    fn read(r: &Reader<'_>) -> Self {
        const METHODS: &[(&str, u32, SelectionMethod)] =
            &[("N_CHOICES", 0, SelectionMethod::Choices), ("FULL_SCAN", 1, SelectionMethod::FullScan)];
        let method = r.enumeration("selection_method", METHODS, &[]).or_default();
        let slow_start = r.message::<Option<SlowStart>>("slow_start_config").optional().flatten();
        let locality = r.message_or_defaults("locality_lb_config");
        Self(LeastRequestConfig { slow_start, method, ..own(r) }, locality)
    }
}

/// What both have.
fn own(r: &Reader<'_>) -> LeastRequestConfig {
    let default = LeastRequestConfig::default();
    LeastRequestConfig {
        choice_count: r.u32("choice_count").within(2..=u32::MAX).or(default.choice_count),
        active_request_bias: r.message("active_request_bias").optional(),
        ..default
    }
}
