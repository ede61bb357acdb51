//! `envoy.type.v3.FractionalPercent` and `envoy.config.core.v3.RuntimeFractionalPercent`.

use serde::Deserialize;
use tidegate_filter::RuntimeValues;

/// A share of events: `numerator` of 100, 10,000 or 1,000,000.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct FractionalPercent {
    numerator: u32,
    denominator: Denominator,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Denominator {
    #[default]
    Hundred,
    TenThousand,
    Million,
}

impl FractionalPercent {
    /// Whether an event that drew `random` belongs to the share.
    pub fn holds(self, random: u64) -> bool {
        let of = match self.denominator {
            Denominator::Hundred => 100,
            Denominator::TenThousand => 10_000,
            Denominator::Million => 1_000_000,
        };
        random % of < u64::from(self.numerator)
    }

    /// Whether no event ever belongs to the share.
    pub fn is_zero(self) -> bool {
        self.numerator == 0
    }
}

/// A share that a runtime key overrides.
#[derive(Clone, Debug, Deserialize)]
pub struct RuntimeFractionalPercent {
    default_value: FractionalPercent,
    #[serde(default)]
    runtime_key: String,
}

impl RuntimeFractionalPercent {
    /// The share: a whole percentage if the key has a value, else the default.
    pub fn value(&self, runtime: RuntimeValues<'_>) -> FractionalPercent {
        match runtime(&self.runtime_key) {
            Some(percent) => FractionalPercent {
                numerator: u32::try_from(percent).unwrap_or(u32::MAX),
                denominator: Denominator::Hundred,
            },
            None => self.default_value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_exact_over_its_denominator() {
        let share = FractionalPercent { numerator: 25, denominator: Denominator::TenThousand };
        assert_eq!((0..10_000).filter(|random| share.holds(*random)).count(), 25);
        assert!(FractionalPercent::default().is_zero());
    }

    #[test]
    fn a_runtime_key_holds_a_percentage() {
        let share = RuntimeFractionalPercent { default_value: share(1), runtime_key: "a".into() };
        assert_eq!(share.value(&|key| (key == "a").then_some(30)).numerator, 30);
        assert_eq!(share.value(&|key| (key == "b").then_some(30)).numerator, 1);
    }

    fn share(numerator: u32) -> FractionalPercent {
        FractionalPercent { numerator, denominator: Denominator::Million }
    }
}
