//! The message `LocalRateLimit`, decoded and validated.

use http::StatusCode;
use serde::{Deserialize, Deserializer};
use tidegate_filter::FactoryContext;

use super::LimitStats;
use crate::config::{FractionalPercent, HeaderRules, RuntimeFractionalPercent};
use crate::token_bucket::TokenBucket;

/// The configuration, at the filter or at a level of the route, and its bucket.
#[derive(Debug, Deserialize)]
pub struct Settings {
    #[serde(deserialize_with = "crate::config::non_empty")]
    pub(super) stat_prefix: String,
    #[serde(default = "too_many_requests", deserialize_with = "status")]
    pub(super) status: StatusCode,
    #[serde(default)]
    pub(super) token_bucket: Option<TokenBucket>,
    #[serde(default)]
    filter_enabled: Option<RuntimeFractionalPercent>,
    #[serde(default)]
    filter_enforced: Option<RuntimeFractionalPercent>,
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
    /// What the context adds.
    #[serde(skip)]
    pub(super) resolved: Resolved,
}

/// What a limit has besides its message.
#[derive(Debug)]
pub(super) struct Resolved {
    /// `filter_enabled`, or its runtime value.
    pub(super) enabled: FractionalPercent,
    /// `filter_enforced`, or its runtime value.
    pub(super) enforced: FractionalPercent,
    pub(super) stats: LimitStats,
}

impl Default for Resolved {
    fn default() -> Self {
        Self { enabled: Default::default(), enforced: Default::default(), stats: LimitStats::detached() }
    }
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

    /// The limit with its statistics and runtime values.
    pub(super) fn resolve(mut self, cx: &FactoryContext<'_>) -> Self {
        let share = |share: &Option<RuntimeFractionalPercent>| {
            share.as_ref().map(|share| share.value(cx.runtime)).unwrap_or_default()
        };
        self.resolved = Resolved {
            enabled: share(&self.filter_enabled),
            enforced: share(&self.filter_enforced),
            stats: LimitStats::of(cx.stats, &self.stat_prefix),
        };
        self
    }
}

fn too_many_requests() -> StatusCode {
    StatusCode::TOO_MANY_REQUESTS
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

fn off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match bool::deserialize(deserializer)? {
        false => Ok(()),
        true => Err(serde::de::Error::custom("a bucket for each connection is not supported yet")),
    }
}
