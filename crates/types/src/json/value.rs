//! [`Node`] as a value of its own: printed as JSON, and decoded into filters' messages as it stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Kind, Member, Node, Span};

/// Compact JSON; `{:#}` indents by two spaces.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_node(self, f, 0)
    }
}

/// A text as JSON has it, in quotes.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(pub &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_string(self.0, f)
    }
}

fn write_node(node: &Node, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
    match &node.kind {
        Kind::Null => f.write_str("null"),
        Kind::Bool(b) => write!(f, "{b}"),
        Kind::Number(text) => f.write_str(text),
        Kind::String(text) => write_string(text, f),
        Kind::Array(items) => {
            write_list(f, depth, ('[', ']'), items, |item, f| write_node(item, f, depth + 1))
        }
        Kind::Object(members) => write_list(f, depth, ('{', '}'), members, |member, f| {
            write_string(&member.key, f)?;
            f.write_str(if f.alternate() { ": " } else { ":" })?;
            write_node(&member.value, f, depth + 1)
        }),
    }
}

fn write_list<T>(
    f: &mut fmt::Formatter<'_>,
    depth: usize,
    (open, close): (char, char),
    items: &[T],
    write: impl Fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    let line = |f: &mut fmt::Formatter<'_>, depth: usize| match f.alternate() {
        true => write!(f, "\n{:1$}", "", depth * 2),
        false => Ok(()),
    };
    write!(f, "{open}")?;
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        line(f, depth + 1)?;
        write(item, f)?;
    }
    if !items.is_empty() {
        line(f, depth)?;
    }
    write!(f, "{close}")
}

fn write_string(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c == '"' || c == '\\' || c < ' ') {
        let (plain, special) = rest.split_at(at);
        f.write_str(plain)?;
        let mut chars = special.chars();
        match chars.next() {
            Some('\n') => f.write_str("\\n")?,
            Some(c @ ('"' | '\\')) => write!(f, "\\{c}")?,
            Some(c) => write!(f, "\\u{:04x}", u32::from(c))?,
            None => {}
        }
        rest = chars.as_str();
    }
    write!(f, "{rest}\"")
}

/// A field of free JSON in a filter's message (`google.protobuf.Struct`): members keep their order. Places
/// inside it are lost; an error about it is placed at the field.
impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Free)
    }
}

struct Free;

fn placeless(kind: Kind) -> Node {
    Node { kind, span: Span::default() }
}

impl<'de> Visitor<'de> for Free {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(placeless(Kind::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(placeless(Kind::Bool(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(placeless(Kind::Number(value.to_string().into())))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(placeless(Kind::Number(value.to_string().into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(placeless(Kind::Number(value.to_string().into())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(placeless(Kind::String(value.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(placeless(Kind::Array(all)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some((key, value)) = members.next_entry::<String, Node>()? {
            all.push(Member { key: key.into(), key_span: Span::default(), value });
        }
        Ok(placeless(Kind::Object(all)))
    }
}
