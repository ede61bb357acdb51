//! `envoy.config.cluster.v3.Cluster.PreconnectPolicy`: connections opened ahead of demand.

use crate::reader::{Message, Reader};

/// `preconnect_policy`. Ratios are floats of 32 bits, as what Envoy computes with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreconnectPolicy {
    /// `per_upstream_preconnect_ratio`, 1 to 3: places with a host for each of its streams; 1, none ahead, when
    /// unset.
    pub per_upstream: f32,
    /// `predictive_preconnect_ratio`, 1 to 3: places in the cluster for each of its streams and the one that comes;
    /// 1, none ahead, when unset.
    pub predictive: f32,
}

impl Default for PreconnectPolicy {
    fn default() -> Self {
        Self { per_upstream: 1.0, predictive: 1.0 }
    }
}

impl Message for PreconnectPolicy {
    const NAME: &'static str = "envoy.config.cluster.v3.Cluster.PreconnectPolicy";

    fn read(r: &Reader<'_>) -> Self {
        // A stream has a place of its own, and more than two beside it would be a flood.
        let ratio = |name| r.f64(name).within(1.0..=3.0).or(1.0) as f32;
        Self {
            per_upstream: ratio("per_upstream_preconnect_ratio"),
            predictive: ratio("predictive_preconnect_ratio"),
        }
    }
}
