//! `envoy.config.core.v3.DataSource`.

use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use tidegate_types::json::decode_base64;

/// Bytes that stand in the configuration or somewhere that it names; read when it is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Message")]
pub struct DataSource(Bytes);

impl DataSource {
    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Message {
    filename: Option<PathBuf>,
    inline_string: Option<String>,
    #[serde(deserialize_with = "base64")]
    inline_bytes: Option<Bytes>,
    environment_variable: Option<String>,
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = decode_base64(&text).ok_or_else(|| serde::de::Error::custom("not base64"))?;
    Ok(Some(bytes.into()))
}

impl TryFrom<Message> for DataSource {
    type Error = String;

    fn try_from(message: Message) -> Result<Self, String> {
        match message {
            Message {
                filename: Some(path),
                inline_string: None,
                inline_bytes: None,
                environment_variable: None,
            } => {
                let bytes = std::fs::read(&path);
                bytes.map(|bytes| Self(bytes.into())).map_err(|error| format!("{}: {error}", path.display()))
            }
            Message {
                filename: None,
                inline_string: Some(text),
                inline_bytes: None,
                environment_variable: None,
            } => Ok(Self(text.into())),
            Message {
                filename: None,
                inline_string: None,
                inline_bytes: Some(bytes),
                environment_variable: None,
            } => Ok(Self(bytes)),
            Message {
                filename: None,
                inline_string: None,
                inline_bytes: None,
                environment_variable: Some(name),
            } => {
                let value = std::env::var(&name);
                value
                    .map(|text| Self(text.into()))
                    .map_err(|error| format!("environment variable {name}: {error}"))
            }
            _ => Err(
                "exactly one of filename, inline_string, inline_bytes and environment_variable must be set"
                    .to_owned(),
            ),
        }
    }
}
