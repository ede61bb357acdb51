//! Envoy's own field names, so that an unsupported field is told from a misspelt one.
//!
//! `envoy_v3_fields.txt` lists, for each message that this crate reads, all fields of Envoy 1.40's API.
//! Nothing is read by this list: it only words error messages.

use std::collections::HashMap;
use std::sync::LazyLock;

use tidegate_types::json::names_field;

/// The fields of a message, in the API's order; empty for a message that is not listed.
pub(super) fn fields(message: &str) -> impl Iterator<Item = &'static str> {
    FIELDS.get(message).into_iter().flatten().copied()
}

/// Whether Envoy's message has a field that `key` names.
pub(super) fn has(message: &str, key: &str) -> bool {
    fields(message).any(|name| names_field(key, name))
}

static FIELDS: LazyLock<HashMap<&'static str, Vec<&'static str>>> = LazyLock::new(|| {
    include_str!("envoy_v3_fields.txt")
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(message, fields)| (message, fields.split_whitespace().collect()))
        .collect()
});
