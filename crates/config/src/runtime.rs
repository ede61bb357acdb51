//! `envoy.config.bootstrap.v3.LayeredRuntime`: keys that change behaviour.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidegate_types::json::{Kind, Node};

use crate::reader::{Message, Reader, Space};

/// Runtime values from `layered_runtime`'s static layers. Nested structs are joined with dots.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Runtime {
    /// Key to value, as the number, boolean or string was written.
    pub values: BTreeMap<String, RuntimeValue>,
    reads: Reads,
}

/// The keys that were asked for, so that one which nothing heeds can be told to the user. Noted while a
/// configuration is built; no request comes here.
#[derive(Debug, Default)]
struct Reads(Mutex<BTreeSet<String>>);

impl Reads {
    fn set(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for Reads {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.set().clone()))
    }
}

/// Who read it is no part of a configuration.
impl PartialEq for Reads {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// One runtime value.
#[derive(Debug, Clone, PartialEq)]
pub enum RuntimeValue {
    /// A number, or a string that reads as one.
    Number(f64),
    /// A boolean, or the strings `true` and `false`.
    Bool(bool),
    /// Any other string.
    Text(String),
}

impl Runtime {
    /// The keys that nothing has asked for, in order.
    pub fn unread(&self) -> Vec<String> {
        let read = self.reads.set();
        self.values.keys().filter(|key| !read.contains(*key)).cloned().collect()
    }

    fn read_key(&self, key: &str) -> Option<&RuntimeValue> {
        let value = self.values.get(key)?;
        self.reads.set().insert(key.to_owned());
        Some(value)
    }

    /// The key's value as an unsigned integer; `None` when unset or of another kind.
    pub fn integer(&self, key: &str) -> Option<u64> {
        match self.read_key(key)? {
            RuntimeValue::Number(n) if *n >= 0.0 && n.fract() == 0.0 => Some(*n as u64),
            _ => None,
        }
    }

    /// The key's value as a number; `None` when unset or of another kind.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.read_key(key)? {
            RuntimeValue::Number(n) => Some(*n),
            _ => None,
        }
    }

    /// The key's value as a boolean; `None` when unset or of another kind.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.read_key(key)? {
            RuntimeValue::Bool(b) => Some(*b),
            _ => None,
        }
    }
}

impl RuntimeValue {
    fn read(node: &Node) -> Option<Self> {
        Some(match &node.kind {
            Kind::Bool(b) => Self::Bool(*b),
            Kind::Number(text) => Self::Number(text.parse().ok()?),
            Kind::String(text) => match (&**text, text.parse()) {
                ("true", _) => Self::Bool(true),
                ("false", _) => Self::Bool(false),
                (_, Ok(number)) => Self::Number(number),
                (text, Err(_)) => Self::Text(text.to_owned()),
            },
            Kind::Null | Kind::Array(_) | Kind::Object(_) => return None,
        })
    }
}

impl Message for Runtime {
    const NAME: &'static str = "envoy.config.bootstrap.v3.LayeredRuntime";

    fn read(r: &Reader<'_>) -> Self {
        let layers = r.repeated::<Layer>("layers").or_default();
        Self { values: layers.into_iter().flat_map(|layer| layer.0).collect(), reads: Reads::default() }
    }
}

struct Layer(BTreeMap<String, RuntimeValue>);

impl Message for Layer {
    const NAME: &'static str = "envoy.config.bootstrap.v3.RuntimeLayer";

    fn read(r: &Reader<'_>) -> Self {
        r.string("name").unique(Space::RuntimeLayer).required_non_empty();
        let layer = r.structure("static_layer");
        r.exactly_one(&["static_layer"]);
        let mut values = BTreeMap::new();
        let layer = layer.convert(|node| flatten("", &node, &mut values));
        layer.optional();
        Self(values)
    }
}

fn flatten(prefix: &str, node: &Node, values: &mut BTreeMap<String, RuntimeValue>) -> Result<(), String> {
    for member in node.members() {
        let key = if prefix.is_empty() { member.key.to_string() } else { format!("{prefix}.{}", member.key) };
        match (&member.value.kind, RuntimeValue::read(&member.value)) {
            (Kind::Object(_), _) => flatten(&key, &member.value, values)?,
            (_, Some(value)) => {
                values.insert(key, value);
            }
            (_, None) => return Err(format!("runtime key `{key}` holds {}", member.value.describe())),
        }
    }
    Ok(())
}
