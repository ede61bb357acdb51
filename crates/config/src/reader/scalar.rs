//! Accessors: the fields of a message by type, in proto3 JSON's conventions.

use std::time::Duration;

use tidegate_types::json::{DURATION_FORM, JsonPath, Kind, Node, Problem, Span, nearest, parse_duration};

use super::field::State;
use super::{Field, Message, Reader};
use crate::schema::Shape;

/// What went wrong with a scalar: message and expectation.
type Wrong = (String, String);

impl<'a> Reader<'a> {
    /// A string.
    pub(crate) fn string(&'a self, name: &'static str) -> Field<'a, String> {
        self.scalar(name, || Shape::String, string)
    }

    /// A bool or `BoolValue`.
    pub(crate) fn bool(&'a self, name: &'static str) -> Field<'a, bool> {
        self.scalar(
            name,
            || Shape::Bool,
            |node| match node.kind {
                Kind::Bool(b) => Ok(b),
                // protobuf's JSON parser takes them, so Envoy does.
                Kind::String(ref text) if &**text == "true" => Ok(true),
                Kind::String(ref text) if &**text == "false" => Ok(false),
                _ => Err(mismatch(node, "true or false")),
            },
        )
    }

    /// A `uint32` or `UInt32Value`.
    pub(crate) fn u32(&'a self, name: &'static str) -> Field<'a, u32> {
        self.scalar(
            name,
            || Shape::Integer { max: Some(u64::from(u32::MAX)) },
            |node| integer(node, 0, i128::from(u32::MAX), "an integer from 0 to 4294967295"),
        )
    }

    /// A `uint64` or `UInt64Value`, as a number or a string.
    pub(crate) fn u64(&'a self, name: &'static str) -> Field<'a, u64> {
        self.scalar(
            name,
            || Shape::Integer { max: None },
            |node| integer(node, 0, i128::from(u64::MAX), "an integer from 0 to 18446744073709551615"),
        )
    }

    /// An `int64`, as a number or a string.
    pub(crate) fn i64(&'a self, name: &'static str) -> Field<'a, i64> {
        self.scalar(
            name,
            || Shape::Integer { max: None },
            |node| integer(node, i128::from(i64::MIN), i128::from(i64::MAX), "a 64-bit integer"),
        )
    }

    /// A `double`.
    pub(crate) fn f64(&'a self, name: &'static str) -> Field<'a, f64> {
        self.scalar(
            name,
            || Shape::Number,
            |node| match &node.kind {
                Kind::Number(text) | Kind::String(text) => match text.parse() {
                    Ok(number) if f64::is_finite(number) => Ok(number),
                    _ => Err(mismatch(node, "a number")),
                },
                _ => Err(mismatch(node, "a number")),
            },
        )
    }

    /// A `google.protobuf.Duration`.
    pub(crate) fn duration(&'a self, name: &'static str) -> Field<'a, Duration> {
        self.scalar(
            name,
            || Shape::Duration,
            |node| {
                let expected = "a duration such as \"0.25s\"";
                let Some(text) = node.as_str() else { return Err(mismatch(node, expected)) };
                parse_duration(text).map_err(|why| {
                    let message = if why == DURATION_FORM {
                        format!("`{text}` is no duration")
                    } else {
                        why.to_owned()
                    };
                    (message, expected.to_owned())
                })
            },
        )
    }

    /// An enum by name or number. `unsupported` are names of Envoy's that this build does not have.
    pub(crate) fn enumeration<T: Copy>(
        &'a self,
        name: &'static str,
        supported: &'static [(&'static str, u32, T)],
        unsupported: &'static [(&'static str, u32)],
    ) -> Field<'a, T> {
        let shape = || Shape::Enum(supported.iter().map(|(name, ..)| *name).collect());
        let Some(node) = self.take(name, shape) else { return self.unset(name) };
        let is = |name: &str, number: u32| match &node.kind {
            // Names have no case for protobuf's JSON parser.
            Kind::String(text) => text.eq_ignore_ascii_case(name) || text.parse() == Ok(number),
            Kind::Number(text) => text.parse() == Ok(number),
            _ => false,
        };
        if let Some((_, _, value)) = supported.iter().find(|(name, number, _)| is(name, *number)) {
            return self.set(name, node, *value);
        }
        let names: Vec<_> = supported.iter().map(|(name, ..)| *name).collect();
        let mut problem = Problem {
            expected: Some(if names.len() == 1 {
                names.concat()
            } else {
                format!("one of {}", names.join(", "))
            }),
            ..Problem::new(self.path.field(name), node.span, String::new())
        };
        problem.message = match (unsupported.iter().find(|(name, number)| is(name, *number)), &node.kind) {
            (Some((value, _)), _) => format!("`{value}` is known to Envoy, but not supported by this build"),
            (None, Kind::String(text) | Kind::Number(text)) => {
                problem.suggestion = nearest(text, names).map(str::to_owned);
                format!("unknown value `{text}`")
            }
            _ => format!("wrong type: {}", node.describe()),
        };
        self.cx.report(problem);
        self.broken(name, node)
    }

    /// A message.
    pub(crate) fn message<T: Message>(&'a self, name: &'static str) -> Field<'a, T> {
        self.cx.describe::<T>();
        match self.take(name, || Shape::Message(T::NAME)) {
            None => self.unset(name),
            Some(node) => self.set(name, node, Reader::open(self.cx, node, self.path.field(name))),
        }
    }

    /// A message that must be set.
    pub(crate) fn required_message<T: Message>(&'a self, name: &'static str) -> T {
        let field = self.message::<T>(name);
        if field.peek().is_none() {
            field.report(format!("missing field `{name}`"), None);
        }
        field.optional().unwrap_or_else(|| self.cx.empty())
    }

    /// A message, read from nothing when unset: for messages that are all defaults.
    pub(crate) fn message_or_defaults<T: Message>(&'a self, name: &'static str) -> T {
        self.message::<T>(name).optional().unwrap_or_else(|| self.cx.empty())
    }

    /// A list of messages; empty when unset.
    pub(crate) fn repeated<T: Message>(&'a self, name: &'static str) -> Field<'a, Vec<T>> {
        self.cx.describe::<T>();
        self.list(name, || Shape::Message(T::NAME), |node, path| Some(Reader::open(self.cx, node, path)))
    }

    /// A list of strings.
    pub(crate) fn strings(&'a self, name: &'static str) -> Field<'a, Vec<String>> {
        self.list(name, || Shape::String, |node, path| self.unwrap(string(node), path, node.span))
    }

    /// A list of `uint32`.
    pub(crate) fn u32s(&'a self, name: &'static str) -> Field<'a, Vec<u32>> {
        self.list(
            name,
            || Shape::Integer { max: None },
            |node, path| {
                let number = integer(node, 0, i128::from(u32::MAX), "an integer from 0 to 4294967295");
                self.unwrap(number, path, node.span)
            },
        )
    }

    /// A list of enums, by name or number.
    pub(crate) fn enumerations<T: Copy>(
        &'a self,
        name: &'static str,
        values: &'static [(&'static str, u32, T)],
    ) -> Field<'a, Vec<T>> {
        let names = || values.iter().map(|(name, ..)| *name).collect::<Vec<_>>();
        self.list(
            name,
            || Shape::Enum(names()),
            |node, path| {
                let (Kind::String(text) | Kind::Number(text)) = &node.kind else {
                    return self.unwrap(Err(mismatch(node, "a name or a number")), path, node.span);
                };
                let is =
                    |name: &str, number: u32| text.eq_ignore_ascii_case(name) || text.parse() == Ok(number);
                let found =
                    values.iter().find(|(name, number, _)| is(name, *number)).map(|(.., value)| *value);
                let unknown =
                    || (format!("unknown value `{text}`"), format!("one of {}", names().join(", ")));
                self.unwrap(found.ok_or_else(unknown), path, node.span)
            },
        )
    }

    /// A `google.protobuf.Struct`, as it is.
    pub(crate) fn structure(&'a self, name: &'static str) -> Field<'a, Node> {
        self.scalar(
            name,
            || Shape::Struct,
            |node| match node.kind {
                Kind::Object(_) => Ok(node.clone()),
                _ => Err(mismatch(node, "an object")),
            },
        )
    }

    /// A map from strings to what `read` makes of each value and its path.
    pub(crate) fn map<T>(
        &'a self,
        name: &'static str,
        read: impl Fn(&'a str, &'a Node, JsonPath) -> T,
    ) -> Vec<(String, T)> {
        let Some(node) = self.take(name, || Shape::Struct) else { return Vec::new() };
        let path = self.path.field(name);
        if !matches!(node.kind, Kind::Object(_)) {
            self.unwrap::<()>(Err(mismatch(node, "an object")), path, node.span);
            return Vec::new();
        }
        let entries = node.members().iter();
        entries.map(|m| (m.key.to_string(), read(&m.key, &m.value, path.field(&m.key)))).collect()
    }

    /// A list, or the one value that it holds: Envoy's JSON reader takes `clusters: {..}` for `clusters: [{..}]`.
    pub(super) fn list<T>(
        &'a self,
        name: &'static str,
        shape: impl FnOnce() -> Shape,
        read: impl Fn(&'a Node, JsonPath) -> Option<T>,
    ) -> Field<'a, Vec<T>> {
        let Some(node) = self.take(name, || Shape::List(Box::new(shape()))) else { return self.unset(name) };
        let path = self.path.field(name);
        let Kind::Array(items) = &node.kind else {
            return self.set(name, node, read(node, path).into_iter().collect());
        };
        let mut all = Vec::with_capacity(items.len());
        all.extend(items.iter().enumerate().filter_map(|(index, item)| read(item, path.index(index))));
        self.set(name, node, all)
    }

    fn scalar<T>(
        &'a self,
        name: &'static str,
        shape: impl FnOnce() -> Shape,
        read: impl FnOnce(&'a Node) -> Result<T, Wrong>,
    ) -> Field<'a, T> {
        let Some(node) = self.take(name, shape) else { return self.unset(name) };
        match read(node) {
            Ok(value) => self.set(name, node, value),
            wrong => {
                self.unwrap(wrong, self.path.field(name), node.span);
                self.broken(name, node)
            }
        }
    }

    fn unwrap<T>(&self, read: Result<T, Wrong>, path: JsonPath, span: Span) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err((message, expected)) => {
                self.cx.report(Problem { expected: Some(expected), ..Problem::new(path, span, message) });
                None
            }
        }
    }

    pub(super) fn unset<T>(&'a self, name: &'static str) -> Field<'a, T> {
        Field::new(self, name, self.span, State::Unset)
    }

    pub(super) fn broken<T>(&'a self, name: &'static str, node: &Node) -> Field<'a, T> {
        Field::new(self, name, node.span, State::Broken)
    }

    pub(super) fn set<T>(&'a self, name: &'static str, node: &Node, value: T) -> Field<'a, T> {
        Field::new(self, name, node.span, State::Set(value))
    }
}

fn mismatch(node: &Node, expected: &str) -> Wrong {
    let found = match &node.kind {
        Kind::Number(text) => format!("the number {text}"),
        Kind::String(text) if text.len() <= 40 => format!("the string {text:?}"),
        _ => node.describe().to_owned(),
    };
    (format!("wrong type: {found}"), expected.to_owned())
}

fn string(node: &Node) -> Result<String, Wrong> {
    node.as_str().map(str::to_owned).ok_or_else(|| mismatch(node, "a string"))
}

/// An integer as a number or a string; `2.0` and `1e3` are integers to proto3 JSON.
fn integer<T: TryFrom<i128>>(node: &Node, min: i128, max: i128, expected: &str) -> Result<T, Wrong> {
    let (Kind::Number(text) | Kind::String(text)) = &node.kind else { return Err(mismatch(node, expected)) };
    let number = match text.parse::<i128>() {
        Ok(number) => number,
        Err(_) => match text.parse::<f64>() {
            Ok(float) if float.fract() == 0.0 && float.abs() < 9e15 => float as i128,
            _ => return Err(mismatch(node, expected)),
        },
    };
    let in_range = Some(number).filter(|n| (min..=max).contains(n)).and_then(|n| T::try_from(n).ok());
    in_range.ok_or_else(|| (format!("{text} is out of range"), expected.to_owned()))
}
