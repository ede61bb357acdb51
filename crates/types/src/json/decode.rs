//! A serde `Deserializer` over [`Node`], for the typed configurations of filters.
//!
//! Authors write plain structs with snake_case fields and `#[serde(default)]`; proto3 JSON's conventions
//! are kept here: lowerCamelCase keys, 64-bit numbers as strings, enums by name or number, `null` is unset; and
//! Envoy's own, that one value stands for a list of it.
//! Unknown fields are problems, all of them; the first other error of serde ends the decoding.
//! (`#[serde(flatten)]` hides the field list from this decoder, so unknown fields pass there.)

use std::cell::RefCell;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::scalar::{decode_base64, names_field};
use super::{JsonPath, Kind, Member, Node, Problem, TypedConfig, nearest};

/// Decodes the fields of a typed configuration.
///
/// # Errors
/// Every unknown field, and the first value that does not fit `T`, each with path and place.
pub fn from_typed<T: DeserializeOwned>(config: &TypedConfig) -> Result<T, Vec<Problem>> {
    from_node(&config.value, &config.path)
}

/// Decodes a node that stands at `path`.
///
/// # Errors
/// As [`from_typed`].
pub fn from_node<T: DeserializeOwned>(node: &Node, path: &JsonPath) -> Result<T, Vec<Problem>> {
    let problems = RefCell::new(Vec::new());
    let decoder = Decoder { node, path: path.clone(), problems: &problems };
    // What `T` itself says (`try_from`) stands at the whole value.
    let place = decoder.place();
    let decoded = T::deserialize(decoder).map_err(place);
    let mut problems = problems.into_inner();
    match decoded {
        Ok(value) if problems.is_empty() => return Ok(value),
        Ok(_) => {}
        Err(fault) => problems.push(*fault.problem),
    }
    problems.sort_by_key(|problem| problem.span.start);
    Err(problems)
}

struct Decoder<'a> {
    node: &'a Node,
    path: JsonPath,
    problems: &'a RefCell<Vec<Problem>>,
}

/// serde's error; it gets its place from the innermost value that is being decoded.
#[derive(Debug)]
struct Fault {
    problem: Box<Problem>,
    placed: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let problem = Problem::new(JsonPath::root(), Default::default(), message.to_string());
        Self { problem: Box::new(problem), placed: false }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mut fault = Self::custom(format!("unknown value `{variant}`"));
        fault.problem.expected = Some(format!("one of {}", expected.join(", ")));
        fault.problem.suggestion = nearest(variant, expected.iter().copied()).map(str::to_owned);
        fault
    }
}

impl<'a> Decoder<'a> {
    fn child(&self, node: &'a Node, path: JsonPath) -> Self {
        Self { node, path, problems: self.problems }
    }

    fn place(&self) -> impl FnOnce(Fault) -> Fault + use<> {
        let (path, span) = (self.path.clone(), self.node.span);
        move |mut fault| {
            if !fault.placed {
                fault.problem.path = path;
                fault.problem.span = span;
                fault.placed = true;
            }
            fault
        }
    }

    fn mismatch(&self, expected: &str) -> Fault {
        let mut fault: Fault = de::Error::custom(format!("wrong type: {}", self.node.describe()));
        fault.problem.expected = Some(expected.to_owned());
        fault
    }

    fn number<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        let place = self.place();
        let number = match &self.node.kind {
            Kind::Number(text) | Kind::String(text) => Number::read(text),
            _ => None,
        };
        match number {
            Some(Number::Unsigned(n)) => visitor.visit_u64(n),
            Some(Number::Signed(n)) => visitor.visit_i64(n),
            Some(Number::Float(n)) => visitor.visit_f64(n),
            None => Err(self.mismatch("a number")),
        }
        .map_err(place)
    }

    fn walk<V: Visitor<'a>>(
        self,
        fields: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let place = self.place();
        let Kind::Object(members) = &self.node.kind else {
            return Err(place(self.mismatch("an object")));
        };
        visitor
            .visit_map(Members { decoder: &self, fields, rest: members.iter(), value: None })
            .map_err(place)
    }
}

/// A JSON number's value, in the narrowest of serde's three forms.
enum Number {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

impl Number {
    fn read(text: &str) -> Option<Self> {
        if let Ok(n) = text.parse() {
            return Some(Self::Unsigned(n));
        }
        if let Ok(n) = text.parse() {
            return Some(Self::Signed(n));
        }
        let number: f64 = text.parse().ok().filter(|n: &f64| n.is_finite())?;
        // `1e3` and `2.0` are integers to proto3 JSON; beyond 2^53 a float names no exact integer.
        let whole = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
        Some(match (whole, number < 0.0) {
            (true, false) => Self::Unsigned(number as u64),
            (true, true) => Self::Signed(number as i64),
            (false, _) => Self::Float(number),
        })
    }
}

/// Integers and floats of every width read a number or, as proto3 JSON allows, a string that holds one.
macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.number(visitor)
        })*
    };
}

impl<'de> de::Deserializer<'de> for Decoder<'de> {
    type Error = Fault;

    numbers! {
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_i8 deserialize_i16
        deserialize_i32 deserialize_i64 deserialize_f32 deserialize_f64
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let place = self.place();
        match &self.node.kind {
            Kind::Null => visitor.visit_unit().map_err(place),
            Kind::Bool(b) => visitor.visit_bool(*b).map_err(place),
            Kind::Number(_) => self.number(visitor),
            Kind::String(s) => visitor.visit_borrowed_str(s).map_err(place),
            Kind::Array(items) => {
                visitor.visit_seq(Items { decoder: &self, rest: items.iter().enumerate() }).map_err(place)
            }
            Kind::Object(_) => self.walk(None, visitor),
        }
    }

    /// One value stands for the list that holds it, as for Envoy's JSON reader.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.kind {
            Kind::Array(_) | Kind::Null => self.deserialize_any(visitor),
            _ => visitor.visit_seq(One(Some(self))),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let place = self.place();
        match self.node.as_str().and_then(decode_base64) {
            Some(bytes) => visitor.visit_byte_buf(bytes).map_err(place),
            None => Err(place(self.mismatch("bytes in base64"))),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_byte_buf(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.walk(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let place = self.place();
        match &self.node.kind {
            Kind::String(name) if name.parse::<usize>().is_err() => {
                // Names have no case for protobuf's JSON parser.
                let known = variants.iter().find(|variant| variant.eq_ignore_ascii_case(name));
                visitor.visit_enum(text(known.copied().unwrap_or(name)))
            }
            Kind::Number(number) | Kind::String(number) => {
                match number.parse().ok().and_then(|n: usize| variants.get(n)) {
                    Some(name) => visitor.visit_enum(text(name)),
                    None => Err(de::Error::unknown_variant(number, variants)),
                }
            }
            Kind::Object(members) => visitor.visit_enum(MapAccessDeserializer::new(Members {
                decoder: &self,
                fields: Some(variants),
                rest: members.iter(),
                value: None,
            })),
            _ => Err(self.mismatch(&format!("one of {}", variants.join(", ")))),
        }
        .map_err(place)
    }

    forward_to_deserialize_any! {
        bool i128 u128 char str string unit unit_struct tuple tuple_struct map identifier ignored_any
    }
}

fn text(text: &str) -> StrDeserializer<'_, Fault> {
    text.into_deserializer()
}

struct Items<'a, 'd> {
    decoder: &'d Decoder<'a>,
    rest: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> de::SeqAccess<'de> for Items<'de, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        let item = self.decoder.child(node, self.decoder.path.index(index));
        let place = item.place();
        seed.deserialize(item).map(Some).map_err(place)
    }
}

/// A list of one that was written without brackets.
struct One<'a>(Option<Decoder<'a>>);

impl<'de> de::SeqAccess<'de> for One<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.0.take() else { return Ok(None) };
        let place = item.place();
        seed.deserialize(item).map(Some).map_err(place)
    }
}

struct Members<'a, 'd> {
    decoder: &'d Decoder<'a>,
    /// The struct's fields; `None` for a map, whose keys are free.
    fields: Option<&'static [&'static str]>,
    rest: std::slice::Iter<'a, Member>,
    value: Option<&'a Member>,
}

impl<'de> de::MapAccess<'de> for Members<'de, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        for member in self.rest.by_ref() {
            let Some(fields) = self.fields else {
                self.value = Some(member);
                return seed.deserialize(text(&member.key)).map(Some);
            };
            // `null` is "unset" for a message's field, whatever its type.
            match fields.iter().find(|name| names_field(&member.key, name)) {
                Some(_) if member.value.kind == Kind::Null => {}
                Some(name) => {
                    self.value = Some(member);
                    return seed.deserialize(text(name)).map(Some);
                }
                None => self.decoder.problems.borrow_mut().push(Problem {
                    suggestion: nearest(&member.key, fields.iter().copied()).map(str::to_owned),
                    ..Problem::new(
                        self.decoder.path.field(&member.key),
                        member.key_span,
                        format!("unknown field `{}`", member.key),
                    )
                }),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some(member) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let value = self.decoder.child(&member.value, self.decoder.path.field(&member.key));
        let place = value.place();
        seed.deserialize(value).map_err(place)
    }
}
