//! The messages `FileAccessLog`, `StdoutAccessLog` and `SubstitutionFormatString`.

use serde::Deserialize;

use super::line::{JsonTree, LineFormat, OmitEmpty};

/// Configuration of `envoy.access_loggers.file`.
#[derive(Deserialize)]
#[serde(try_from = "FileMessage")]
pub struct FileConfig {
    pub(super) path: String,
    pub(super) format: LineFormat,
}

/// Configuration of `envoy.access_loggers.stdout` and `.stderr`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    pub(super) log_format: Option<LineFormat>,
}

#[derive(Deserialize)]
struct FileMessage {
    path: String,
    format: Option<String>,
    json_format: Option<JsonTree>,
    typed_json_format: Option<JsonTree>,
    log_format: Option<LineFormat>,
}

impl TryFrom<FileMessage> for FileConfig {
    type Error = String;

    fn try_from(message: FileMessage) -> Result<Self, String> {
        if message.path.is_empty() {
            return Err("`path` must not be empty".into());
        }
        let given = [
            message.format.map(|text| {
                if text.is_empty() {
                    Ok(LineFormat::default())
                } else {
                    LineFormat::text(&text, OmitEmpty::No)
                }
            }),
            // `json_format` printed every value as a string; one that is an operator alone has kept its
            // type in Envoy since 1.32 too.
            message
                .json_format
                .or(message.typed_json_format)
                .map(|tree| LineFormat::json(&tree, OmitEmpty::No)),
            message.log_format.map(Ok),
        ];
        let mut given = given.into_iter().flatten();
        let format = given.next().transpose()?.unwrap_or_default();
        if given.next().is_some() {
            return Err("only one of format, json_format, typed_json_format and log_format may be set".into());
        }
        Ok(Self { path: message.path, format })
    }
}

/// `SubstitutionFormatString` as it stands in the file.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct FormatMessage {
    text_format: Option<String>,
    text_format_source: Option<TextSource>,
    json_format: Option<JsonTree>,
    omit_empty_values: bool,
    /// For local replies; means nothing in a log.
    #[serde(rename = "content_type")]
    _content_type: String,
}

#[derive(Deserialize)]
struct TextSource {
    inline_string: String,
}

impl TryFrom<FormatMessage> for LineFormat {
    type Error = String;

    fn try_from(message: FormatMessage) -> Result<Self, String> {
        let omit = if message.omit_empty_values { OmitEmpty::Yes } else { OmitEmpty::No };
        let inline = message.text_format_source.map(|source| source.inline_string);
        match (message.text_format, inline, message.json_format) {
            (Some(text), None, None) | (None, Some(text), None) => Self::text(&text, omit),
            (None, None, Some(tree)) => Self::json(&tree, omit),
            _ => Err("exactly one of text_format, text_format_source and json_format must be set".into()),
        }
    }
}
