//! `envoy.config.core.v3.KeyValueMutation`: changes of a request's query parameters.
//!
//! Parameters that no change names stay as they are, byte for byte and in their order. (Envoy 1.40 sorts
//! them, decodes them and does not encode them again, so that `%20` goes upstream as a raw space.)

use std::fmt::Write;

use bytes::Bytes;
use serde::Deserialize;
use tidegate_filter::{Cx, Format, Missing};
use tidegate_types::RequestHead;

use super::context;

/// Changes in the order of the configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct QueryMutations(Vec<Mutation>);

#[derive(Debug, Deserialize)]
#[serde(try_from = "Message")]
enum Mutation {
    Remove(String),
    Append { key: String, value: Format, action: Action },
}

impl QueryMutations {
    pub(super) fn apply(&self, head: &mut RequestHead, cx: &Cx) {
        if self.0.is_empty() {
            return;
        }
        let mut query = Query::of(head);
        for mutation in &self.0 {
            match mutation {
                Mutation::Remove(key) => query.remove(key),
                Mutation::Append { key, value, action } => {
                    let mut text = String::new();
                    value.write_with(&context(cx, Some(head), None), Missing::Nothing, &mut text);
                    let exists = query.contains(key);
                    match (action, exists) {
                        (Action::AddIfAbsent, true) | (Action::OverwriteIfExists, false) => continue,
                        (Action::OverwriteIfExistsOrAdd | Action::OverwriteIfExists, true) => {
                            query.remove(key)
                        }
                        _ => {}
                    }
                    query.append(key, &text);
                }
            }
        }
        head.path = query.into_path();
    }
}

/// A path taken apart. Parameters are kept as they stand, still encoded.
struct Query {
    path: String,
    parameters: Vec<String>,
}

impl Query {
    fn of(head: &RequestHead) -> Self {
        let parameters = head.query().unwrap_or_default().split('&').filter(|text| !text.is_empty());
        Self { path: head.path_only().to_owned(), parameters: parameters.map(str::to_owned).collect() }
    }

    fn contains(&self, key: &str) -> bool {
        self.parameters.iter().any(|parameter| has_key(parameter, key))
    }

    fn remove(&mut self, key: &str) {
        self.parameters.retain(|parameter| !has_key(parameter, key));
    }

    fn append(&mut self, key: &str, value: &str) {
        let mut parameter = String::new();
        encode(key, &mut parameter);
        parameter.push('=');
        encode(value, &mut parameter);
        self.parameters.push(parameter);
    }

    fn into_path(self) -> Bytes {
        let mut path = self.path;
        for (index, parameter) in self.parameters.iter().enumerate() {
            path.push(if index == 0 { '?' } else { '&' });
            path.push_str(parameter);
        }
        path.into()
    }
}

/// Whether a parameter's name, decoded, is `key`.
fn has_key(parameter: &str, key: &str) -> bool {
    let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
    decoded(name).eq(key.bytes())
}

/// The bytes of percent-encoded text (RFC 3986 §2.1); what is not an escape stands for itself.
fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (byte, tail) = match rest {
            [b'%', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
                (digit(*high) << 4 | digit(*low), tail)
            }
            [byte, tail @ ..] => (*byte, tail),
            [] => return None,
        };
        rest = tail;
        Some(byte)
    })
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3).
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

/// The message as it stands in the file.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    remove: Option<String>,
    append: Option<Append>,
}

#[derive(Deserialize)]
struct Append {
    record: Record,
    #[serde(default)]
    action: Action,
}

#[derive(Deserialize)]
struct Record {
    key: String,
    value: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Action {
    #[default]
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}

impl TryFrom<Message> for Mutation {
    type Error = String;

    fn try_from(message: Message) -> Result<Self, String> {
        match (message.remove, message.append) {
            (Some(key), None) if !key.is_empty() => Ok(Self::Remove(key)),
            (None, Some(Append { record, action })) if !record.key.is_empty() => {
                let value = Format::parse(&record.value).map_err(|error| error.to_string())?;
                Ok(Self::Append { key: record.key, value, action })
            }
            (Some(_), Some(_)) | (None, None) => Err("exactly one of remove and append must be set".into()),
            _ => Err("the key must not be empty".into()),
        }
    }
}
