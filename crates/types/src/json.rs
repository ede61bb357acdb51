//! A JSON tree in which every value and key knows where in the user's file it stood.
//!
//! Configuration errors must name `file:line:column`, so text is parsed into [`Node`]s with [`Span`]s by
//! our own small parser ([`parse()`]), and filters' typed configurations are decoded from nodes by
//! [`from_typed`], a serde `Deserializer` which keeps those positions. This module does not know Envoy's
//! messages: that is the job of the `config` crate. Start from [`Node`] and [`TypedConfig`].

use std::fmt;
use std::sync::Arc;

mod decode;
mod parse;
mod problem;
mod scalar;
#[cfg(test)]
mod tests;
mod value;

pub use decode::{from_node, from_typed};
pub use parse::{parse, refuse_duplicates};
pub use problem::{Problem, SyntaxError, nearest};
pub use scalar::{
    DURATION_FORM, decode_base64, duration, lower_camel, names_field, optional_duration, parse_duration,
};
pub use value::Text;

/// How deep a file may nest: far beyond any configuration, and it keeps a hostile file off the stack's end.
pub const MAX_DEPTH: usize = 100;

/// Where a value or key stands in its source text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte; in YAML files of the first character.
    pub start: u32,
    /// Offset behind the last byte or character.
    pub end: u32,
    /// Line of the first byte, from 1; 0 when the value has no place in a file.
    pub line: u32,
    /// Column of the first byte in characters, from 1.
    pub column: u32,
}

/// A value with its place.
///
/// Equality looks at the value only: the same text moved by a line is the same configuration.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// The value.
    pub kind: Kind,
    /// Its place in the file.
    pub span: Span,
}

/// The value of a [`Node`].
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Kind {
    /// `null`, which proto3 JSON reads as "not set".
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it was written, so that 64-bit integers lose nothing.
    Number(Box<str>),
    /// A string, escapes resolved.
    String(Box<str>),
    /// An array.
    Array(Vec<Node>),
    /// An object, members in file order, keys unique.
    Object(Vec<Member>),
}

/// A key and its value in an object.
#[derive(Debug, Clone)]
pub struct Member {
    /// The key, escapes resolved.
    pub key: Box<str>,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The member named `key` of an object; `None` for other kinds.
    pub fn member(&self, key: &str) -> Option<&Node> {
        self.members().iter().find(|m| &*m.key == key).map(|m| &m.value)
    }

    /// Members of an object; empty for other kinds.
    pub fn members(&self) -> &[Member] {
        if let Kind::Object(members) = &self.kind { members } else { &[] }
    }

    /// Whether it is `{}`.
    pub fn is_empty_object(&self) -> bool {
        matches!(&self.kind, Kind::Object(members) if members.is_empty())
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Kind::String(s) = &self.kind { Some(s) } else { None }
    }

    /// What kind of value this is, for error messages: `a string`, `an object`, ...
    pub fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "a boolean",
            Kind::Number(_) => "a number",
            Kind::String(_) => "a string",
            Kind::Array(_) => "an array",
            Kind::Object(_) => "an object",
        }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.value == other.value
    }
}

/// Path of a value from the document's root: `static_resources.clusters[0].connect_timeout`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct JsonPath(Arc<str>);

impl JsonPath {
    /// The document itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// Path of a field; keys that are no plain names are quoted: `map["a.b"]`.
    pub fn field(&self, key: &str) -> Self {
        let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '@');
        Self(match (plain, self.0.is_empty()) {
            (true, true) => key.into(),
            (true, false) => format!("{}.{key}", self.0).into(),
            (false, _) => format!("{}[{key:?}]", self.0).into(),
        })
    }

    /// Path of an array's element, counted from 0.
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0).into())
    }

    /// The path as text; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An extension's configuration as Envoy writes it: `{name, typed_config: {"@type": ..., ...}}`.
///
/// Equality ignores where it stood, so that a reload can tell what changed.
#[derive(Debug, Clone)]
pub struct TypedConfig {
    /// The name given beside it; free text, used in statistics and `typed_per_filter_config`.
    pub name: String,
    /// The `@type`, with its `type.googleapis.com/` prefix as written.
    pub type_url: String,
    /// The fields, without `@type`.
    pub value: Arc<Node>,
    /// Path of `typed_config`.
    pub path: JsonPath,
    /// Place of `typed_config`.
    pub span: Span,
}

impl TypedConfig {
    /// The message's full name: the `@type` behind its last slash.
    pub fn message_name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or(&self.type_url)
    }
}

impl PartialEq for TypedConfig {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.type_url == other.type_url && self.value == other.value
    }
}
