//! Envoy's shared value messages, as serde types for the configurations of filters.
//!
//! Durations and 64-bit numbers as strings are read by `tidegate_types::json` itself. A type here
//! validates when it is decoded, so that an error names the value's own place in the file.

mod cidr;
mod data_source;
mod feature_flag;
mod fraction;
mod header_matcher;
mod header_option;
mod string_matcher;
mod template;

pub use cidr::CidrRange;
pub use data_source::DataSource;
pub use feature_flag::RuntimeFeatureFlag;
pub use fraction::{FractionalPercent, RuntimeFractionalPercent};
pub use header_matcher::HeaderMatcher;
pub(crate) use header_option::field_name;
pub use header_option::{HeaderRule, HeaderRules};
pub use string_matcher::StringMatcher;
pub use template::Template;

/// Reads a text that may not be empty, such as a `stat_prefix`.
pub(crate) fn non_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    if text.is_empty() {
        return Err(serde::de::Error::custom("must not be empty"));
    }
    Ok(text)
}

/// For a field that Envoy has and this build has not: refuses whatever stands there.
pub(crate) fn unsupported<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    <serde::de::IgnoredAny as serde::Deserialize>::deserialize(deserializer)?;
    Err(serde::de::Error::custom("not supported by this build"))
}
