//! `envoy.config.bootstrap.v3.LayeredRuntime`: keys that change behaviour.
//!
//! [`LayeredRuntime`] is what the configuration says of layers, [`Runtime`] what they hold at one time. Reading
//! directories, and what the admin server changes, is the server's matter. A runtime is asked while what a
//! configuration describes is built; [`Runtime::recorded`] notes the answers, so that another runtime leaves alone
//! what it would answer the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::values::FractionalPercent;

mod layers;
mod value;

pub use layers::{DiskLayer, LayerSource, LayeredRuntime, RuntimeLayer};
pub use value::{Entries, Entry, RuntimeValue};

/// The values of all layers at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Runtime {
    /// Key to value: of the last layer that has the key.
    pub values: BTreeMap<String, RuntimeValue>,
    /// The layers by name, in the order of the configuration; not those whose directory is missing.
    pub layers: Vec<(String, Entries)>,
    reads: Reads,
}

/// What was asked of a runtime, and what it answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers(BTreeMap<String, Option<RuntimeValue>>);

impl Runtime {
    /// These layers, the last of which wins.
    pub fn new(layers: Vec<(String, Entries)>) -> Self {
        let entries = layers.iter().flat_map(|(_, entries)| entries);
        let values = entries.map(|(key, entry)| (key.clone(), entry.value.clone())).collect();
        Self { values, layers, reads: Reads::default() }
    }

    /// The keys that nothing has asked for, in order.
    pub fn unread(&self) -> Vec<String> {
        let reads = self.reads.lock();
        self.values.keys().filter(|key| !reads.read.contains(*key)).cloned().collect()
    }

    /// Whether any key begins with `prefix`: where none does, nobody needs to spell out those that might. No recording
    /// knows that this was asked.
    pub fn has_keys_under(&self, prefix: &str) -> bool {
        self.values.range(prefix.to_owned()..).next().is_some_and(|(key, _)| key.starts_with(prefix))
    }

    /// What `build` makes, and what it asked for to make it. May be nested.
    pub fn recorded<T>(&self, build: impl FnOnce() -> T) -> (T, Answers) {
        self.reads.lock().asked.push(BTreeSet::new());
        let built = build();
        let mut reads = self.reads.lock();
        let asked = reads.asked.pop().unwrap_or_default();
        if let Some(outer) = reads.asked.last_mut() {
            outer.extend(asked.iter().cloned());
        }
        let answer = |key: String| {
            let value = self.values.get(&key).cloned();
            (key, value)
        };
        (built, Answers(asked.into_iter().map(answer).collect()))
    }

    fn ask(&self, key: &str) -> Option<&RuntimeValue> {
        let value = self.values.get(key);
        let mut reads = self.reads.lock();
        if let Some(asked) = reads.asked.last_mut() {
            asked.insert(key.to_owned());
        }
        if value.is_some() && !reads.read.contains(key) {
            reads.read.insert(key.to_owned());
        }
        value
    }

    /// The key's value as an unsigned integer, rounded down; `None` when unset, negative, or of another kind.
    pub fn integer(&self, key: &str) -> Option<u64> {
        match self.ask(key)? {
            RuntimeValue::Number(number) if *number >= 0.0 => Some(*number as u64),
            _ => None,
        }
    }

    /// The key's value as a number; `None` when unset or of another kind.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.ask(key)? {
            RuntimeValue::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The key's value as a boolean; `None` when unset or of another kind.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.ask(key)? {
            RuntimeValue::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The key's value as a share: a fraction, or an integer of 100 as in Envoy; `None` when unset or of another kind.
    pub fn share(&self, key: &str) -> Option<FractionalPercent> {
        match self.ask(key)? {
            RuntimeValue::Fraction(fraction) => Some(*fraction),
            RuntimeValue::Number(number) if *number >= 0.0 => {
                Some(FractionalPercent { numerator: *number as u32, denominator: 100 })
            }
            _ => None,
        }
    }
}

impl Answers {
    /// Whether `runtime` answers the same. What is not built anew since it does counts as having asked.
    pub fn hold(&self, runtime: &Runtime) -> bool {
        self.0.iter().all(|(key, answer)| runtime.ask(key) == answer.as_ref())
    }
}

/// Who asked for what. Noted while a configuration is built; no request comes here.
#[derive(Debug, Default)]
struct Reads(Mutex<Log>);

#[derive(Debug, Default, Clone)]
struct Log {
    /// Keys with a value that somebody asked for, so that one which nothing heeds can be told to the user.
    read: BTreeSet<String>,
    /// What each recording, the innermost last, was asked for.
    asked: Vec<BTreeSet<String>>,
}

impl Reads {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for Reads {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.lock().clone()))
    }
}

/// Who read it is no part of a configuration.
impl PartialEq for Reads {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
