//! `envoy.extensions.filters.common.set_filter_state.v3.FilterStateValue`: an object by name, made from a format
//! string. What the HTTP filter and the network filter `set_filter_state` share.

use std::sync::Arc;

use serde::Deserialize;
use tidegate_filter::LogContext;
use tidegate_filter::format::{Format, Missing};
use tidegate_types::{FilterObject, Hashing};

/// One object to make.
#[derive(Debug, Deserialize)]
#[serde(try_from = "ValueMessage")]
pub struct ObjectRule {
    key: Arc<str>,
    kind: Kind,
    format: Format,
    missing: Missing,
    skip_if_empty: bool,
}

/// What becomes of the text: the factories that this build has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Object(Hashing),
    /// The cluster that the TCP proxy goes to.
    TcpCluster,
}

/// What one stream or connection gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Made {
    /// An object.
    Object(FilterObject),
    /// The cluster of the TCP proxy (`envoy.tcp_proxy.cluster`).
    TcpCluster(Arc<str>),
}

impl ObjectRule {
    /// The object on one stream; `None`: an empty text that `skip_if_empty` leaves out.
    pub fn make(&self, cx: &LogContext<'_>) -> Option<Made> {
        let mut text = String::new();
        self.format.write_with(cx, self.missing, &mut text);
        if text.is_empty() && self.skip_if_empty {
            return None;
        }
        Some(match self.kind {
            Kind::Object(hashing) => {
                Made::Object(FilterObject { key: self.key.clone(), text: text.into(), hashing })
            }
            Kind::TcpCluster => Made::TcpCluster(text.into()),
        })
    }

    /// Whether it is of use only to a TCP proxy.
    pub fn is_for_tcp(&self) -> bool {
        self.kind == Kind::TcpCluster
    }
}

#[derive(Deserialize)]
struct ValueMessage {
    #[serde(deserialize_with = "crate::config::non_empty")]
    object_key: String,
    #[serde(default)]
    factory_key: String,
    format_string: FormatMessage,
    /// A later value replaces it in Envoy too.
    #[serde(default, rename = "read_only")]
    _read_only: bool,
    /// Connections upstream take nothing over: nothing of this build would look at it there.
    #[serde(default, rename = "shared_with_upstream", deserialize_with = "not_shared")]
    _shared_with_upstream: (),
    #[serde(default)]
    skip_if_empty: bool,
}

/// `SubstitutionFormatString`, of text only.
#[derive(Default, Deserialize)]
#[serde(default)]
struct FormatMessage {
    text_format: Option<String>,
    text_format_source: Option<TextSource>,
    omit_empty_values: bool,
    #[serde(rename = "json_format", deserialize_with = "crate::config::unsupported")]
    _json_format: (),
}

#[derive(Deserialize)]
struct TextSource {
    inline_string: String,
}

impl TryFrom<ValueMessage> for ObjectRule {
    type Error = String;

    fn try_from(message: ValueMessage) -> Result<Self, String> {
        // As in Envoy, a name without a factory is one.
        let factory = match message.factory_key.as_str() {
            "" => &message.object_key,
            factory => factory,
        };
        let kind = match factory {
            "envoy.string" => Kind::Object(Hashing::Plain),
            "envoy.hashable_string" => Kind::Object(Hashing::Hashable),
            "envoy.tcp_proxy.cluster" => Kind::TcpCluster,
            other => {
                return Err(format!(
                    "this build makes no objects of `{other}` (expected envoy.string, envoy.hashable_string or \
                     envoy.tcp_proxy.cluster)"
                ));
            }
        };
        let FormatMessage { text_format, text_format_source, omit_empty_values, .. } = message.format_string;
        let text = match (text_format, text_format_source.map(|source| source.inline_string)) {
            (Some(text), None) | (None, Some(text)) => text,
            _ => return Err("exactly one of text_format and text_format_source must be set".to_owned()),
        };
        Ok(Self {
            key: message.object_key.into(),
            kind,
            format: Format::parse(&text).map_err(|error| error.to_string())?,
            missing: if omit_empty_values { Missing::Nothing } else { Missing::Dash },
            skip_if_empty: message.skip_if_empty,
        })
    }
}

fn not_shared<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "NONE" => Ok(()),
        _ => Err(serde::de::Error::custom("objects are not shared with upstream connections by this build")),
    }
}
