//! `envoy.config.core.v3.RuntimeFeatureFlag`.

use serde::Deserialize;
use tidegate_filter::RuntimeValues;

/// A switch that a runtime key overrides.
#[derive(Clone, Debug, Deserialize)]
pub struct RuntimeFeatureFlag {
    default_value: bool,
    #[serde(default)]
    runtime_key: String,
}

impl RuntimeFeatureFlag {
    /// Whether the switch is on: as the key says (`true` reads as 1, `false` as 0), else by default.
    pub fn is_on(&self, runtime: RuntimeValues<'_>) -> bool {
        runtime(&self.runtime_key).map_or(self.default_value, |value| value != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_overrides_the_default() {
        let flag = RuntimeFeatureFlag { default_value: true, runtime_key: "k".into() };
        assert!(flag.is_on(&|_| None));
        assert!(!flag.is_on(&|key| (key == "k").then_some(0)));
    }
}
