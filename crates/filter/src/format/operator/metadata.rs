//! `DYNAMIC_METADATA(namespace[:key])`: what listener filters found (TLVs of a PROXY header).

use std::borrow::Cow;

use tidegate_types::StreamInfo;
use tidegate_types::connection_state::ConnectionMetadata;

use super::super::value::Value;

/// The operator with its argument.
#[derive(Clone, Debug)]
pub(in crate::format) struct Metadata {
    namespace: Box<str>,
    key: Option<Box<str>>,
}

impl Metadata {
    /// Reads `namespace:key`. Values are plain texts: a path that goes deeper leads to nothing.
    pub(super) fn parse(argument: &str) -> Self {
        match argument.split_once(':') {
            Some((namespace, key)) => Self { namespace: namespace.into(), key: Some(key.into()) },
            None => Self { namespace: argument.into(), key: None },
        }
    }

    /// The value; without a key the whole namespace as a JSON object.
    pub(super) fn value(&self, info: &StreamInfo) -> Value<'static> {
        let Some(metadata) = info.connection.state.value::<ConnectionMetadata>() else {
            return Value::Missing;
        };
        let mut entries = metadata.0.iter().filter(|(namespace, ..)| **namespace == *self.namespace);
        if let Some(key) = &self.key {
            let found = entries.find(|(_, own, _)| **own == **key);
            return Value::maybe_owned(found.map(|(.., value)| value.clone()));
        }
        let entries: Vec<_> =
            entries.map(|(_, key, value)| format!("{}:{}", json(key), json(value))).collect();
        if entries.is_empty() {
            return Value::Missing;
        }
        Value::Text(Cow::Owned(format!("{{{}}}", entries.join(","))))
    }
}

/// A JSON string (RFC 8259 §7).
fn json(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
