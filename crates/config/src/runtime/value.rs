//! Runtime values: what a layer says of a key.

use std::collections::BTreeMap;

use tidegate_types::json::{Kind, Node};

use crate::values::FractionalPercent;
use crate::yaml;

/// One runtime value, as whoever asks for it sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum RuntimeValue {
    /// A number, or a text that reads as one.
    Number(f64),
    /// A boolean, or the texts `true` and `false`.
    Bool(bool),
    /// A `FractionalPercent`, or a text that reads as one (JSON or YAML).
    Fraction(FractionalPercent),
    /// Any other text.
    Text(String),
}

/// What a layer holds under a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// As it was written: what `/runtime` shows.
    pub text: String,
    /// What it means.
    pub value: RuntimeValue,
}

/// A layer's entries by key. Nested structs are joined with dots.
pub type Entries = BTreeMap<String, Entry>;

impl Entry {
    /// The meaning of a text: a file's content, or a value from the admin server.
    pub fn of_text(text: &str) -> Self {
        Self { value: RuntimeValue::of_text(text), text: text.to_owned() }
    }

    /// The content of a file: lines that begin with `#` are comments, and blanks at its end are not part of it.
    pub fn of_file(content: &str) -> Self {
        let lines: Vec<_> = content.split('\n').filter(|line| !line.starts_with('#')).collect();
        Self::of_text(lines.join("\n").trim_end())
    }

    /// `None`: no runtime value.
    pub(super) fn of_node(node: &Node) -> Option<Self> {
        Some(match &node.kind {
            Kind::Bool(flag) => Self { text: flag.to_string(), value: RuntimeValue::Bool(*flag) },
            Kind::Number(text) => {
                Self { text: text.to_string(), value: RuntimeValue::Number(text.parse().ok()?) }
            }
            Kind::String(text) => Self::of_text(text),
            Kind::Object(_) if is_fraction(node) => {
                let text = node.to_string();
                let value =
                    fraction(node).map_or_else(|| RuntimeValue::Text(text.clone()), RuntimeValue::Fraction);
                Self { text, value }
            }
            Kind::Null | Kind::Array(_) | Kind::Object(_) => return None,
        })
    }
}

impl RuntimeValue {
    fn of_text(text: &str) -> Self {
        let trimmed = text.trim();
        if let Some(flag) =
            [true, false].into_iter().find(|flag| trimmed.eq_ignore_ascii_case(&flag.to_string()))
        {
            return Self::Bool(flag);
        }
        if let Some(number) = trimmed.parse::<f64>().ok().filter(|number| number.is_finite()) {
            return Self::Number(number);
        }
        // Nothing else is worth a parser.
        let fraction = trimmed.contains("numerator").then(|| fraction(&yaml::parse(trimmed).ok()?)).flatten();
        fraction.map_or_else(|| Self::Text(text.to_owned()), Self::Fraction)
    }
}

/// An object that names one of these is one value, and no nested struct.
pub(super) fn is_fraction(node: &Node) -> bool {
    ["numerator", "denominator"].iter().any(|field| node.member(field).is_some())
}

fn fraction(node: &Node) -> Option<FractionalPercent> {
    let members = node.members();
    if members.is_empty() || members.iter().any(|member| !matches!(&*member.key, "numerator" | "denominator"))
    {
        return None;
    }
    let numerator = match node.member("numerator").map(|node| &node.kind) {
        None => 0,
        Some(Kind::Number(text)) => text.parse().ok()?,
        Some(_) => return None,
    };
    let denominator = match node.member("denominator").map(|node| &node.kind) {
        None => 100,
        Some(Kind::String(name) | Kind::Number(name)) => match &**name {
            "HUNDRED" | "0" => 100,
            "TEN_THOUSAND" | "1" => 10_000,
            "MILLION" | "2" => 1_000_000,
            _ => return None,
        },
        Some(_) => return None,
    };
    Some(FractionalPercent { numerator, denominator })
}
