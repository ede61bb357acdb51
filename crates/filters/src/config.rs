//! Envoy's shared value messages, as serde types for the configurations of filters.
//!
//! Durations and 64-bit numbers as strings are read by `tidegate_types::json` itself. A type here
//! validates when it is decoded, so that an error names the value's own place in the file.

mod fraction;
mod header_option;
mod string_matcher;
mod template;

pub use fraction::{FractionalPercent, RuntimeFractionalPercent};
pub(crate) use header_option::field_name;
pub use header_option::{HeaderRule, HeaderRules};
pub use string_matcher::StringMatcher;
pub use template::Template;
