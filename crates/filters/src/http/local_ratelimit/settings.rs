//! The message `LocalRateLimit`, decoded and validated.

use std::sync::OnceLock;

use http::StatusCode;
use serde::{Deserialize, Deserializer};
use tidegate_stats::Store;

use super::LimitStats;
use super::bucket::TokenBucket;
use crate::config::{FractionalPercent, HeaderRules, RuntimeFractionalPercent};

/// The configuration, at the filter or at a level of the route, and its bucket.
#[derive(Debug, Deserialize)]
pub struct Settings {
    #[serde(deserialize_with = "prefix")]
    pub(super) stat_prefix: String,
    #[serde(default = "too_many_requests", deserialize_with = "status")]
    pub(super) status: StatusCode,
    #[serde(default)]
    pub(super) token_bucket: Option<TokenBucket>,
    #[serde(default, deserialize_with = "share")]
    pub(super) filter_enabled: FractionalPercent,
    #[serde(default, deserialize_with = "share")]
    pub(super) filter_enforced: FractionalPercent,
    #[serde(default)]
    pub(super) response_headers_to_add: HeaderRules,
    #[serde(default)]
    pub(super) request_headers_to_add_when_not_enforced: HeaderRules,
    #[serde(default)]
    enable_x_ratelimit_headers: XRateLimitHeaders,
    #[serde(default)]
    rate_limited_as_resource_exhausted: bool,
    /// Only `false`: a bucket for each connection is not supported.
    #[serde(default, rename = "local_rate_limit_per_downstream_connection", deserialize_with = "off")]
    _per_connection: (),
    /// Descriptors alone use it.
    #[serde(default, rename = "stage")]
    _stage: u32,
    #[serde(skip)]
    stats: OnceLock<LimitStats>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum XRateLimitHeaders {
    #[default]
    Off,
    #[serde(rename = "DRAFT_VERSION_03")]
    Draft03,
}

impl Settings {
    pub(super) fn announces_limits(&self) -> bool {
        self.enable_x_ratelimit_headers == XRateLimitHeaders::Draft03
    }

    /// RESOURCE_EXHAUSTED if configured, else what 429 maps to.
    pub(super) fn grpc_status(&self) -> Option<u32> {
        self.rate_limited_as_resource_exhausted.then_some(8)
    }

    /// The statistics of a route's limit. A route's configuration is decoded without a store, so they are
    /// found at the first use.
    pub(super) fn stats(&self, store: &Store) -> &LimitStats {
        self.stats.get_or_init(|| LimitStats::of(store, &self.stat_prefix))
    }
}

fn too_many_requests() -> StatusCode {
    StatusCode::TOO_MANY_REQUESTS
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let prefix = String::deserialize(deserializer)?;
    if prefix.is_empty() {
        return Err(serde::de::Error::custom("must not be empty"));
    }
    Ok(prefix)
}

#[derive(Deserialize)]
struct HttpStatus {
    #[serde(deserialize_with = "code")]
    code: u16,
}

/// `envoy.type.v3.StatusCode`, an enum by number or name; the names are the reason phrases without blanks
/// and hyphens.
fn code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    struct Code;
    impl serde::de::Visitor<'_> for Code {
        type Value = u16;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a status code by number or name")
        }

        fn visit_u64<E: serde::de::Error>(self, code: u64) -> Result<u16, E> {
            u16::try_from(code).map_err(|_| E::custom("not a status code"))
        }

        fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<u16, E> {
            let phrase =
                |code: &u16| StatusCode::from_u16(*code).ok().and_then(|code| code.canonical_reason());
            let is_named = |phrase: &str| phrase.bytes().filter(u8::is_ascii_alphanumeric).eq(name.bytes());
            (100..600)
                .find(|code| phrase(code).is_some_and(is_named))
                .ok_or_else(|| E::custom(format!("`{name}` is not a status code")))
        }
    }
    deserializer.deserialize_any(Code)
}

/// A status below 400 would tell the client that all is well: it means 429, as in Envoy.
fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    let code = HttpStatus::deserialize(deserializer)?.code;
    if !(100..600).contains(&code) {
        return Err(serde::de::Error::custom("`code` must be between 100 and 599"));
    }
    let status = StatusCode::from_u16(code).map_err(serde::de::Error::custom)?;
    Ok(if code < 400 { too_many_requests() } else { status })
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FractionalPercent, D::Error> {
    RuntimeFractionalPercent::deserialize(deserializer).map(|share| share.value())
}

fn off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match bool::deserialize(deserializer)? {
        false => Ok(()),
        true => Err(serde::de::Error::custom("a bucket for each connection is not supported yet")),
    }
}
