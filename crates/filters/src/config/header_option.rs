//! `envoy.config.core.v3.HeaderValueOption`: a header field to add, with what to do if it exists.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer};
use tidegate_filter::LogContext;
use tidegate_types::json;

use super::Template;

/// A header field to add: its name checked, its value compiled.
#[derive(Debug, Deserialize)]
#[serde(try_from = "HeaderValueOption")]
pub struct HeaderRule {
    name: HeaderName,
    value: Template,
    action: AppendAction,
    when_empty: WhenEmpty,
}

/// `repeated HeaderValueOption`.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct HeaderRules(Vec<HeaderRule>);

impl HeaderRule {
    /// The value on one stream; `None` if there is nothing to add.
    pub fn render(&self, cx: &LogContext<'_>) -> Option<HeaderValue> {
        self.value.render(cx).filter(|value| !value.is_empty() || self.when_empty == WhenEmpty::Keep)
    }

    /// Puts a rendered value into `headers`.
    pub fn put(&self, headers: &mut HeaderMap, value: HeaderValue) {
        match self.action {
            AppendAction::AppendIfExistsOrAdd => drop(headers.append(&self.name, value)),
            AppendAction::AddIfAbsent => drop(headers.entry(&self.name).or_insert(value)),
            AppendAction::OverwriteIfExistsOrAdd => drop(headers.insert(&self.name, value)),
            AppendAction::OverwriteIfExists => {
                if headers.contains_key(&self.name) {
                    headers.insert(&self.name, value);
                }
            }
        }
    }
}

impl HeaderRules {
    /// Adds all of them to fields that are not part of `cx`, such as those of a local reply.
    pub fn apply(&self, headers: &mut HeaderMap, cx: &LogContext<'_>) {
        for rule in &self.0 {
            if let Some(value) = rule.render(cx) {
                rule.put(headers, value);
            }
        }
    }

    /// The rules in order.
    pub fn iter(&self) -> std::slice::Iter<'_, HeaderRule> {
        self.0.iter()
    }
}

/// The message as it stands in the file.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct HeaderValueOption {
    header: Option<Header>,
    /// Deprecated form of `append_action`.
    append: Option<bool>,
    append_action: Option<AppendAction>,
    keep_empty_value: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Header {
    key: String,
    value: String,
    #[serde(deserialize_with = "raw_value")]
    raw_value: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum AppendAction {
    #[default]
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}

/// What happens when a value comes out empty (`keep_empty_value`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenEmpty {
    Drop,
    Keep,
}

impl TryFrom<HeaderValueOption> for HeaderRule {
    type Error = String;

    fn try_from(option: HeaderValueOption) -> Result<Self, String> {
        let header = option.header.ok_or("`header` is required")?;
        let value = match (&header.raw_value, header.value.as_str()) {
            (Some(_), value) if !value.is_empty() => {
                return Err("both `value` and `raw_value` are set".into());
            }
            (Some(raw), _) => raw,
            (None, value) => value,
        };
        let action = match (option.append, option.append_action) {
            (Some(_), Some(action)) if action != AppendAction::default() => {
                return Err("Both append and append_action are set and it's not allowed".into());
            }
            (Some(false), _) => AppendAction::OverwriteIfExistsOrAdd,
            (_, action) => action.unwrap_or_default(),
        };
        Ok(Self {
            name: field_name(&header.key)?,
            value: Template::parse(value)?,
            action,
            when_empty: if option.keep_empty_value { WhenEmpty::Keep } else { WhenEmpty::Drop },
        })
    }
}

/// The name of a field that a configuration may change.
///
/// # Errors
/// The message for the user: no name at all, or one that is part of the request line in disguise.
pub(crate) fn field_name(name: &str) -> Result<HeaderName, String> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(":-prefixed or host headers may not be modified".into());
    }
    name.parse().map_err(|_| format!("`{}` is not a valid header name", name.escape_debug()))
}

fn raw_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let bytes =
        json::decode_base64(&text).ok_or_else(|| serde::de::Error::custom("expected bytes in base64"))?;
    String::from_utf8(bytes).map(Some).map_err(|_| serde::de::Error::custom("`raw_value` must be UTF-8 text"))
}
