//! `google.protobuf.Any`: an object whose `@type` says which message it is.

use std::sync::Arc;

use tidegate_types::json::{JsonPath, Kind, Node, Problem, TypedConfig};

use super::{Field, Message, Reader};
use crate::discovery::response::Wrapper;
use crate::schema::Shape;

/// An `Any` whose `@type` is a string.
#[derive(Clone)]
pub(crate) struct Any<'a> {
    pub(crate) type_url: &'a str,
    pub(crate) node: &'a Node,
    pub(crate) path: JsonPath,
}

impl<'a> Any<'a> {
    /// Takes an object with `@type`; reports what it lacks.
    pub(crate) fn open(reader: &Reader<'a>, node: &'a Node, path: JsonPath) -> Option<Self> {
        let (message, span) = match (&node.kind, node.member("@type")) {
            (Kind::Object(_), Some(name)) => match name.as_str().filter(|name| !name.is_empty()) {
                Some(type_url) if is_struct(type_url) => return Self::open_struct(reader, node, &path),
                Some(type_url) => return Some(Self { type_url, node, path }),
                None => ("`@type` must be a string".to_owned(), name.span),
            },
            (Kind::Object(_), None) => ("missing `@type`".to_owned(), node.span),
            _ => (format!("wrong type: {}", node.describe()), node.span),
        };
        let expected = "an object whose \"@type\" is \"type.googleapis.com/\" and a message name";
        reader
            .cx
            .report(Problem { expected: Some(expected.to_owned()), ..Problem::new(path, span, message) });
        None
    }

    /// The message that a `TypedStruct` stands for: its fields are those of `value`.
    fn open_struct(reader: &Reader<'a>, node: &'a Node, path: &JsonPath) -> Option<Self> {
        let inner = Reader::new(reader.cx, TYPED_STRUCT, node.members(), node.span, path.clone());
        inner.taken.borrow_mut().push("@type");
        inner.string("type_url").required_non_empty();
        let value = inner.take("value", || Shape::Struct);
        let is_object = value.is_some_and(|value| matches!(value.kind, Kind::Object(_)));
        let problem = |span, message: String| {
            let expected = Some("an object: the fields of the message".to_owned());
            reader.cx.report(Problem { expected, ..Problem::new(path.field("value"), span, message) });
        };
        match value {
            Some(value) if !is_object => problem(value.span, format!("wrong type: {}", value.describe())),
            Some(_) => {}
            None => problem(node.span, "missing field `value`".to_owned()),
        }
        inner.finish();
        let type_url = ["type_url", "typeUrl"].into_iter().find_map(|name| node.member(name)?.as_str());
        value.zip(type_url.filter(|name| is_object && !name.is_empty())).map(|(node, type_url)| Self {
            type_url,
            node,
            path: path.field("value"),
        })
    }

    /// Whether it is a `T`.
    pub(crate) fn is<T: Message>(&self) -> bool {
        self.type_url.rsplit('/').next() == Some(T::NAME)
    }

    /// Reads it as a `T`.
    pub(crate) fn read<T: Message>(&self, reader: &Reader<'a>) -> T {
        let inner = Reader::new(reader.cx, T::NAME, self.node.members(), self.node.span, self.path.clone());
        inner.taken.borrow_mut().push("@type");
        let value = T::read(&inner);
        inner.finish();
        value
    }

    /// What an `envoy.service.discovery.v3.Resource` holds.
    pub(crate) fn read_wrapper(&self, reader: &Reader<'a>) -> Option<Self> {
        self.read::<Wrapper>(reader);
        let Some(inner) = self.node.member("resource") else {
            reader.cx.report(Problem::new(self.path.clone(), self.node.span, "missing field `resource`"));
            return None;
        };
        // What is wrong with it was reported already.
        self.open_quietly(inner, "resource")
    }

    fn open_quietly(&self, node: &'a Node, field: &str) -> Option<Self> {
        let type_url = node.member("@type")?.as_str().filter(|name| !name.is_empty())?;
        Some(Self { type_url, node, path: self.path.field(field) })
    }

    /// Keeps it for the extension registry, under `name`.
    pub(crate) fn keep(&self, name: String) -> TypedConfig {
        let members = self.node.members().iter().filter(|m| &*m.key != "@type").cloned().collect();
        TypedConfig {
            name,
            type_url: self.type_url.to_owned(),
            value: Arc::new(Node { kind: Kind::Object(members), span: self.node.span }),
            path: self.path.clone(),
            span: self.node.span,
        }
    }
}

impl<'a> Reader<'a> {
    /// An `Any`.
    pub(crate) fn any(&'a self, name: &'static str) -> Field<'a, Any<'a>> {
        let Some(node) = self.take(name, || Shape::Any) else { return self.unset(name) };
        match Any::open(self, node, self.path.field(name)) {
            Some(any) => self.set(name, node, any),
            None => self.broken(name, node),
        }
    }

    /// A list of `Any`s.
    pub(crate) fn anys(&'a self, name: &'static str) -> Field<'a, Vec<Any<'a>>> {
        self.list(name, || Shape::Any, |node, path| Any::open(self, node, path))
    }

    /// An `Any` that may be `{}`, an unset one.
    pub(crate) fn any_or_empty(&'a self, name: &'static str) -> Field<'a, Option<Any<'a>>> {
        let Some(node) = self.take(name, || Shape::Struct) else { return self.unset(name) };
        if node.is_empty_object() {
            return self.set(name, node, None);
        }
        match Any::open(self, node, self.path.field(name)) {
            Some(any) => self.set(name, node, Some(any)),
            None => self.broken(name, node),
        }
    }

    /// In describe mode: an `Any` of this message may be a `T`.
    pub(crate) fn may_be<T: Message>(&self) {
        self.cx.describe::<T>();
        if let Some(recorder) = &self.cx.recorder {
            recorder.borrow_mut().variant(T::NAME);
        }
    }

    /// The extension pattern, `{name, typed_config}`; a problem when `typed_config` is missing.
    pub(crate) fn extension_any(&'a self) -> Option<Extension<'a>> {
        let name = self.string("name").required_non_empty();
        let any = self.any("typed_config");
        if !self.has("typed_config") && !self.has("config_discovery") {
            any.report("missing field `typed_config`", None);
        }
        any.optional().map(|config| Extension { name, config })
    }

    /// An extension that is left to its registry.
    pub(crate) fn extension(&'a self) -> Option<TypedConfig> {
        self.extension_any().map(|extension| extension.config.keep(extension.name))
    }
}

/// Whether this is the type of a message written without its descriptor, which control planes send where they do not
/// know the extension (Envoy docs, "Extension configuration").
fn is_struct(type_url: &str) -> bool {
    matches!(type_url.rsplit('/').next(), Some(TYPED_STRUCT | "udpa.type.v1.TypedStruct"))
}

const TYPED_STRUCT: &str = "xds.type.v3.TypedStruct";

/// An extension's name and configuration.
pub(crate) struct Extension<'a> {
    pub(crate) name: String,
    pub(crate) config: Any<'a>,
}
