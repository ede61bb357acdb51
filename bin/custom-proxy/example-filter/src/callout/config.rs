//! The filter's messages.

use std::time::Duration;

use http::{HeaderName, StatusCode};
use serde::{Deserialize, Deserializer};

// ANCHOR: config
/// What stands in `typed_config`.
#[derive(Debug, Deserialize)]
pub struct Config {
    /// The cluster that is asked.
    pub(super) cluster: String,
    /// What stands before the request's own path in the question.
    #[serde(default)]
    pub(super) path_prefix: String,
    /// How long to wait for the answer.
    #[serde(default = "default_timeout", deserialize_with = "tidegate_types::json::duration")]
    pub(super) timeout: Duration,
    /// The status of a refusal.
    #[serde(default = "forbidden", deserialize_with = "status")]
    pub(super) deny_status: StatusCode,
    /// Fields that the question takes over.
    #[serde(default, deserialize_with = "names")]
    pub(super) forward_headers: Vec<HeaderName>,
    /// What happens to a request when the service cannot be asked.
    #[serde(default, deserialize_with = "when_failed")]
    pub(super) fail_open: WhenFailed,
}

/// What stands in `typed_per_filter_config`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RouteConfig {
    /// Nobody is asked.
    pub(super) disabled: bool,
}
// ANCHOR_END: config

/// What happens to a request when the service cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WhenFailed {
    /// It is answered with 503.
    #[default]
    Refuse,
    /// It goes on.
    Allow,
}

/// Ext_authz's default, which a service next door meets with ease.
fn default_timeout() -> Duration {
    Duration::from_millis(200)
}

fn forbidden() -> StatusCode {
    StatusCode::FORBIDDEN
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    let code = u16::deserialize(deserializer)?;
    StatusCode::from_u16(code)
        .ok()
        .filter(|status| status.is_client_error() || status.is_server_error())
        .ok_or_else(|| serde::de::Error::custom("must be an error status, 400 to 599"))
}

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HeaderName>, D::Error> {
    let name = |text: String| {
        text.parse().map_err(|_| serde::de::Error::custom(format!("`{text}` is not a valid header name")))
    };
    Vec::<String>::deserialize(deserializer)?.into_iter().map(name).collect()
}

fn when_failed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WhenFailed, D::Error> {
    Ok(if bool::deserialize(deserializer)? { WhenFailed::Allow } else { WhenFailed::Refuse })
}
