//! A JSON Schema of the configuration, for editors.
//!
//! It is not written by hand: the functions that read messages run once on empty ones, and every accessor
//! leaves the name and shape of its field in a recorder. So the schema has what this build reads,
//! no more and no less. Extensions (`typed_config`) are open objects with an `@type`.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tidegate_types::json::lower_camel;

use crate::Bootstrap;
use crate::reader::{Context, Message};

/// The JSON Schema (draft 2020-12) of a whole configuration file.
pub fn schema() -> Value {
    let mut context = Context::new(&|_| Err(String::new()));
    context.recorder = Some(RefCell::default());
    context.empty::<Bootstrap>();
    let recorder = context.recorder.take().map(RefCell::into_inner).unwrap_or_default();
    recorder.schema(Bootstrap::NAME)
}

/// The JSON form of a field.
#[derive(Debug, Clone)]
pub(crate) enum Shape {
    String,
    Bool,
    Integer { max: Option<u64> },
    Number,
    Duration,
    Enum(Vec<&'static str>),
    Message(&'static str),
    List(Box<Shape>),
    Any,
    Struct,
}

/// What the accessors of one describing run saw.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    messages: BTreeMap<&'static str, BTreeMap<&'static str, Shape>>,
    variants: Vec<&'static str>,
}

impl Recorder {
    /// Whether `message` is new, and so must be described.
    pub(crate) fn enter(&mut self, message: &'static str) -> bool {
        match self.messages.entry(message) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(BTreeMap::new());
                true
            }
            std::collections::btree_map::Entry::Occupied(_) => false,
        }
    }

    /// A field of `message`.
    pub(crate) fn field(&mut self, message: &'static str, name: &'static str, shape: Shape) {
        self.messages.entry(message).or_default().insert(name, shape);
    }

    /// A message that an `Any` may hold and that this crate reads itself.
    pub(crate) fn variant(&mut self, message: &'static str) {
        if !self.variants.contains(&message) {
            self.variants.push(message);
        }
    }

    fn schema(&self, root: &str) -> Value {
        let mut definitions: Map<String, Value> = self
            .messages
            .iter()
            .map(|(name, fields)| ((*name).to_owned(), self.message(name, fields)))
            .collect();
        definitions.insert("Any".to_owned(), self.any());
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Tidegate configuration",
            "$ref": format!("#/$defs/{root}"),
            "$defs": definitions,
        })
    }

    fn message(&self, name: &str, fields: &BTreeMap<&'static str, Shape>) -> Value {
        let mut properties = Map::new();
        if self.variants.contains(&name) {
            properties.insert("@type".to_owned(), json!({"type": "string"}));
        }
        for (field, shape) in fields {
            let value = shape.schema();
            let camel = lower_camel(field);
            if camel != *field {
                properties.insert(camel, value.clone());
            }
            properties.insert((*field).to_owned(), value);
        }
        json!({"type": ["object", "null"], "properties": properties, "additionalProperties": false})
    }

    fn any(&self) -> Value {
        let cases = self.variants.iter().map(|name| {
            json!({
                "if": {"properties": {"@type": {"const": format!("type.googleapis.com/{name}")}}},
                "then": {"$ref": format!("#/$defs/{name}")},
            })
        });
        json!({
            "type": "object",
            "properties": {"@type": {"type": "string"}},
            "required": ["@type"],
            "allOf": cases.collect::<Vec<_>>(),
        })
    }
}

impl Shape {
    fn schema(&self) -> Value {
        match self {
            Self::String => json!({"type": ["string", "null"]}),
            Self::Bool => json!({"type": ["boolean", "null"]}),
            Self::Integer { max: Some(max) } => {
                json!({"type": ["integer", "string", "null"], "minimum": 0, "maximum": max})
            }
            Self::Integer { max: None } => json!({"type": ["integer", "string", "null"]}),
            Self::Number => json!({"type": ["number", "null"]}),
            Self::Duration => json!({"type": ["string", "null"], "pattern": r"^[0-9]+(\.[0-9]{1,9})?s$"}),
            Self::Enum(names) => json!({"anyOf": [{"enum": names}, {"type": ["integer", "null"]}]}),
            Self::Message(name) => json!({"$ref": format!("#/$defs/{name}")}),
            Self::List(item) => json!({"type": ["array", "null"], "items": item.schema()}),
            Self::Any => json!({"$ref": "#/$defs/Any"}),
            Self::Struct => json!({"type": ["object", "null"]}),
        }
    }
}
