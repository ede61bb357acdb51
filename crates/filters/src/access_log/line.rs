//! How a line looks: text with operators, or JSON.

use serde::de::{Deserialize, Deserializer};
use tidegate_filter::LogContext;
use tidegate_filter::format::{Format, JsonFormat, Missing};
use tidegate_types::json::{Kind, Node};

use super::config::FormatMessage;

/// A compiled format.
pub(super) enum LineFormat {
    /// As it is: the format brings its own line end.
    Text(Format, Missing),
    /// One object a line.
    Json(JsonFormat),
}

/// `omit_empty_values`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OmitEmpty {
    No,
    Yes,
}

impl LineFormat {
    pub(super) fn text(text: &str, omit: OmitEmpty) -> Result<Self, String> {
        let missing = if omit == OmitEmpty::Yes { Missing::Nothing } else { Missing::Dash };
        Format::parse(text).map(|format| Self::Text(format, missing)).map_err(|error| error.to_string())
    }

    pub(super) fn json(tree: &JsonTree, omit: OmitEmpty) -> Result<Self, String> {
        JsonFormat::parse(&tree.0, omit == OmitEmpty::Yes)
            .map(Self::Json)
            .map_err(|(path, error)| format!("{path}: {error}"))
    }

    pub(super) fn write(&self, cx: &LogContext<'_>, line: &mut String) {
        match self {
            Self::Text(format, missing) => format.write_with(cx, *missing, line),
            Self::Json(format) => {
                format.write(cx, line);
                line.push('\n');
            }
        }
    }
}

impl Default for LineFormat {
    /// Envoy's default line.
    fn default() -> Self {
        Self::Text(Format::default_access_log(), Missing::Dash)
    }
}

impl<'de> Deserialize<'de> for LineFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FormatMessage::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

/// `google.protobuf.Struct`: any JSON object.
pub(super) struct JsonTree(Node);

impl<'de> Deserialize<'de> for JsonTree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tree = Node::deserialize(deserializer)?;
        match tree.kind {
            Kind::Object(_) => Ok(Self(tree)),
            _ => Err(serde::de::Error::custom(format!("expected an object, found {}", tree.describe()))),
        }
    }
}
