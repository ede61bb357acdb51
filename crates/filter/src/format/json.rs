//! `json_format`: a tree whose strings are format strings.
//!
//! Envoy docs, "Access logging", "Format dictionaries": a string that is one operator becomes its
//! value's type, missing values become `null`, keys are sorted.

use std::fmt::Write;

use tidegate_types::json::{Kind, Node};

use super::value::Value;
use super::{Format, FormatError, Missing};
use crate::LogContext;

/// A parsed JSON format. Members are in the order of their keys, as in Envoy.
#[derive(Clone, Debug)]
pub struct JsonFormat {
    root: Item,
    missing: Missing,
}

#[derive(Clone, Debug)]
enum Item {
    /// JSON that never changes.
    Fixed(Box<str>),
    /// A string that is one operator, or text around operators.
    Format(Format),
    /// Encoded keys with their colon, and values.
    Object(Vec<(Box<str>, Item)>),
    Array(Vec<Item>),
}

impl JsonFormat {
    /// Parses a tree; `omit_empty_values` leaves out members whose value is missing.
    ///
    /// # Errors
    /// The path of the string that is wrong, as `.a.b`, and why.
    pub fn parse(root: &Node, omit_empty_values: bool) -> Result<Self, (String, FormatError)> {
        let missing = if omit_empty_values { Missing::Nothing } else { Missing::Dash };
        Ok(Self { root: item(root, &mut String::new())?, missing })
    }

    /// Appends the JSON, without a line end.
    pub fn write(&self, cx: &LogContext<'_>, out: &mut String) {
        self.item(&self.root, cx, out);
    }

    fn item(&self, item: &Item, cx: &LogContext<'_>, out: &mut String) {
        match item {
            Item::Fixed(json) => out.push_str(json),
            Item::Format(format) => match format.sole_operator() {
                Some(operator) => value(&operator.value(cx), out),
                None => self.text(format, cx, out),
            },
            Item::Object(members) => {
                out.push('{');
                let mut first = true;
                for (key, member) in members {
                    if self.left_out(member, cx) {
                        continue;
                    }
                    if !std::mem::take(&mut first) {
                        out.push(',');
                    }
                    out.push_str(key);
                    self.item(member, cx, out);
                }
                out.push('}');
            }
            Item::Array(items) => {
                out.push('[');
                let mut first = true;
                for member in items {
                    if self.left_out(member, cx) {
                        continue;
                    }
                    if !std::mem::take(&mut first) {
                        out.push(',');
                    }
                    self.item(member, cx, out);
                }
                out.push(']');
            }
        }
    }

    /// Whether `omit_empty_values` leaves it out: missing values, nulls, and what holds nothing else.
    fn left_out(&self, item: &Item, cx: &LogContext<'_>) -> bool {
        if self.missing == Missing::Dash {
            return false;
        }
        match item {
            Item::Fixed(json) => &**json == "null",
            Item::Format(format) => {
                format.sole_operator().is_some_and(|operator| matches!(operator.value(cx), Value::Missing))
            }
            Item::Object(members) => members.iter().all(|(_, member)| self.left_out(member, cx)),
            Item::Array(items) => items.iter().all(|member| self.left_out(member, cx)),
        }
    }

    /// Text around operators is a string, whatever the operators yield.
    fn text(&self, format: &Format, cx: &LogContext<'_>, out: &mut String) {
        let mut plain = String::new();
        format.write_with(cx, self.missing, &mut plain);
        string(&plain, out);
    }
}

fn item(node: &Node, path: &mut String) -> Result<Item, (String, FormatError)> {
    Ok(match &node.kind {
        Kind::Null => Item::Fixed("null".into()),
        Kind::Bool(flag) => Item::Fixed(if *flag { "true" } else { "false" }.into()),
        Kind::Number(number) => Item::Fixed(number.clone()),
        Kind::String(text) => {
            let format = Format::parse(text).map_err(|error| (path.clone(), error))?;
            match format.as_static() {
                Some(text) => {
                    let mut json = String::new();
                    string(text, &mut json);
                    Item::Fixed(json.into())
                }
                None => Item::Format(format),
            }
        }
        Kind::Array(nodes) => {
            let mut items = Vec::with_capacity(nodes.len());
            for (index, node) in nodes.iter().enumerate() {
                items.push(below(node, path, &format!("[{index}]"))?);
            }
            Item::Array(items)
        }
        Kind::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|a, b| a.key.cmp(&b.key));
            let mut items = Vec::with_capacity(members.len());
            for member in sorted {
                let mut key = String::new();
                string(&member.key, &mut key);
                key.push(':');
                items.push((key.into(), below(&member.value, path, &format!(".{}", member.key))?));
            }
            Item::Object(items)
        }
    })
}

fn below(node: &Node, path: &mut String, step: &str) -> Result<Item, (String, FormatError)> {
    let length = path.len();
    path.push_str(step);
    let result = item(node, path);
    path.truncate(length);
    result
}

fn value(value: &Value<'_>, out: &mut String) {
    match value {
        Value::Missing => out.push_str("null"),
        Value::Text(text) => string(text, out),
        // Writing to a string cannot fail.
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        // Addresses and flags need no escapes, but for the odd path of a socket.
        Value::Shown(shown) => string(&shown.to_string(), out),
    }
}

/// Appends a JSON string (RFC 8259 §7).
fn string(text: &str, out: &mut String) {
    out.push('"');
    let mut clean = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            0..=0x1f | 0x7f => "",
            _ => continue,
        };
        out.push_str(&text[clean..at]);
        out.push_str(escape);
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        }
        clean = at + 1;
    }
    out.push_str(&text[clean..]);
    out.push('"');
}
