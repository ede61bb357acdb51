//! Objects that filters leave by name for those after them, and for what the configuration refers to by their names
//! (Envoy's filter state).

use std::cell::RefCell;
use std::sync::Arc;

/// What one stream's or one connection's filters left; kept there as a value of this type.
#[derive(Debug, Default)]
pub struct FilterObjects(RefCell<Vec<FilterObject>>);

/// An object: a text, as all of them are that a configuration can make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterObject {
    /// Its name (`object_key`).
    pub key: Arc<str>,
    /// What it holds.
    pub text: Arc<str>,
    /// Whether a `hash_policy` may go by it.
    pub hashing: Hashing,
}

/// Whether an object has a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashing {
    /// It has: Envoy's `envoy.hashable_string`.
    Hashable,
    /// It has not, and gives a `hash_policy` nothing: Envoy's `envoy.string`.
    Plain,
}

impl FilterObjects {
    /// The object of that name.
    pub fn object(&self, key: &str) -> Option<FilterObject> {
        self.0.borrow().iter().find(|object| &*object.key == key).cloned()
    }

    /// The text of the object of that name, if a `hash_policy` may go by it.
    pub fn hashable(&self, key: &str) -> Option<Arc<str>> {
        self.object(key).filter(|object| object.hashing == Hashing::Hashable).map(|object| object.text)
    }

    /// Puts an object in the place of the one of its name.
    pub fn set(&self, object: FilterObject) {
        let mut all = self.0.borrow_mut();
        all.retain(|other| other.key != object.key);
        all.push(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_object_of_a_name_holds() {
        let objects = FilterObjects::default();
        let object = |text: &str, hashing| FilterObject { key: "k".into(), text: text.into(), hashing };
        objects.set(object("a", Hashing::Hashable));
        assert_eq!(objects.hashable("k").as_deref(), Some("a"));
        objects.set(object("b", Hashing::Plain));
        assert_eq!(objects.object("k").map(|object| object.text).as_deref(), Some("b"));
        assert_eq!((objects.hashable("k"), objects.object("other")), (None, None));
    }
}
