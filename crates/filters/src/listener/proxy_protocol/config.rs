//! The message `ProxyProtocol`.

use serde::{Deserialize, Deserializer};

/// The configuration.
#[derive(Debug, Deserialize)]
pub struct Config {
    #[serde(default)]
    pub(super) rules: Vec<Rule>,
    #[serde(default)]
    pub(super) allow_requests_without_proxy_protocol: bool,
    #[serde(default)]
    pub(super) pass_through_tlvs: Option<PassThrough>,
    #[serde(default)]
    pub(super) disallowed_versions: Vec<Version>,
    #[serde(default)]
    pub(super) stat_prefix: String,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// A TLV to keep as metadata.
#[derive(Debug, Deserialize)]
pub(super) struct Rule {
    #[serde(default, deserialize_with = "tlv_type")]
    pub(super) tlv_type: u32,
    #[serde(default)]
    pub(super) on_tlv_present: Option<Key>,
}

/// Where to keep it.
#[derive(Debug, Deserialize)]
pub(super) struct Key {
    #[serde(default)]
    metadata_namespace: String,
    #[serde(deserialize_with = "crate::config::non_empty")]
    pub(super) key: String,
}

impl Key {
    pub(super) fn namespace(&self) -> &str {
        if self.metadata_namespace.is_empty() {
            "envoy.filters.listener.proxy_protocol"
        } else {
            &self.metadata_namespace
        }
    }
}

/// Which TLVs upstreams get to see.
#[derive(Debug, Deserialize)]
pub(super) struct PassThrough {
    #[serde(default)]
    match_type: MatchType,
    #[serde(default)]
    tlv_type: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum MatchType {
    #[default]
    IncludeAll,
    Include,
}

impl PassThrough {
    pub(super) fn takes(&self, kind: u8) -> bool {
        self.match_type == MatchType::IncludeAll || self.tlv_type.contains(&kind.into())
    }
}

fn tlv_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let kind = u32::deserialize(deserializer)?;
    // Envoy's own bound.
    if kind >= 256 {
        return Err(serde::de::Error::custom("must be less than 256"));
    }
    Ok(kind)
}
