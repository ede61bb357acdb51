//! YAML into the same tree as JSON.
//!
//! `saphyr-parser` gives the events; here they become [`Node`]s by YAML 1.2's core schema, so `yes` and `on`
//! are strings. Anchors and aliases work, merge keys (`<<`) do not, as in Envoy.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};
use tidegate_types::json::{Kind, MAX_DEPTH, Member, Node, Span, SyntaxError, refuse_duplicates};

/// Parses one YAML document.
///
/// # Errors
/// The first place where the text is not YAML, or uses what JSON has no counterpart for.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut tree = Tree { events: Parser::new_from_str(text), anchors: HashMap::new(), copied: 0 };
    let mut document = None;
    loop {
        let (event, span) = tree.next()?;
        match event {
            Event::StreamEnd => return Ok(document.unwrap_or_default()),
            Event::StreamStart | Event::Nothing | Event::DocumentStart(_) | Event::DocumentEnd => {}
            _ if document.is_some() => return Err(fault(span.start, "more than one document in the file")),
            event => document = Some(tree.node(event, span, 0)?),
        }
    }
}

struct Tree<'a> {
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    /// Nodes copied for aliases.
    copied: usize,
}

/// Bounds what aliases of aliases can grow to in memory ("billion laughs").
const MAX_COPIED: usize = 1_000_000;

impl<'a> Tree<'a> {
    fn next(&mut self) -> Result<(Event<'a>, saphyr_parser::Span), SyntaxError> {
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(scan_fault(&error)),
            None => Ok((Event::StreamEnd, saphyr_parser::Span::default())),
        }
    }

    fn node(
        &mut self,
        event: Event<'a>,
        span: saphyr_parser::Span,
        depth: usize,
    ) -> Result<Node, SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(fault(span.start, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let mut place = place(span);
        let (anchor, kind) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, scalar(&text, style, tag.as_deref()).map_err(|message| fault(span.start, message))?)
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), "seq").map_err(|message| fault(span.start, message))?;
                (anchor, self.sequence(depth, &mut place)?)
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), "map").map_err(|message| fault(span.start, message))?;
                (anchor, self.mapping(depth, &mut place)?)
            }
            Event::Alias(anchor) => return self.alias(anchor, span.start),
            _ => return Err(fault(span.start, "expected a value")),
        };
        let node = Node { kind, span: place };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize, place: &mut Span) -> Result<Kind, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, end) => {
                    place.end = offset(end.end);
                    return Ok(Kind::Array(items));
                }
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize, place: &mut Span) -> Result<Kind, SyntaxError> {
        let mut members: Vec<Member> = Vec::new();
        loop {
            let (key, span) = match self.next()? {
                (Event::MappingEnd, end) => {
                    place.end = offset(end.end);
                    break;
                }
                (Event::Scalar(key, ..), span) => (key, span),
                (_, span) => return Err(fault(span.start, "a key must be a plain name")),
            };
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span, depth + 1)?;
            members.push(Member { key: key.into(), key_span: self::place(span), value });
        }
        refuse_duplicates(&members)?;
        Ok(Kind::Object(members))
    }

    fn alias(&mut self, anchor: usize, at: Marker) -> Result<Node, SyntaxError> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(fault(at, "an alias inside its own anchor"));
        };
        self.copied += size(node);
        if self.copied > MAX_COPIED {
            return Err(fault(at, "the aliases expand to too much"));
        }
        Ok(node.clone())
    }
}

/// How many nodes a node holds, itself included.
fn size(node: &Node) -> usize {
    1 + match &node.kind {
        Kind::Array(items) => items.iter().map(size).sum(),
        Kind::Object(members) => members.iter().map(|member| size(&member.value)).sum(),
        _ => 0,
    }
}

/// YAML 1.2 §10.3: quoted is a string; plain is null, a boolean or a number when it looks like one.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Kind, String> {
    let tagged_string = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    if !tagged_string {
        refuse_tag(tag, "")?;
    }
    if tagged_string || style != ScalarStyle::Plain {
        return Ok(Kind::String(text.into()));
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        _ => match number(text) {
            Some(number) => Kind::Number(number.into()),
            None => Kind::String(text.into()),
        },
    })
}

/// The number as JSON would write it.
fn number(text: &str) -> Option<String> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(|n| n.to_string());
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(|n| n.to_string());
    }
    if let Ok(integer) = text.parse::<i128>() {
        return Some(integer.to_string());
    }
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let number: f64 = text.parse().ok().filter(|n: &f64| numeric && n.is_finite())?;
    Some(number.to_string())
}

fn refuse_tag(tag: Option<&Tag>, expected: &str) -> Result<(), String> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == expected) => {
            Err(format!("the tag `{}{}` is not supported", tag.handle, tag.suffix))
        }
        _ => Ok(()),
    }
}

fn place(span: saphyr_parser::Span) -> Span {
    Span {
        start: offset(span.start),
        end: offset(span.end),
        line: span.start.line().try_into().unwrap_or(u32::MAX),
        column: (span.start.col() + 1).try_into().unwrap_or(u32::MAX),
    }
}

fn offset(marker: Marker) -> u32 {
    marker.index().try_into().unwrap_or(u32::MAX)
}

fn fault(at: Marker, message: impl Into<String>) -> SyntaxError {
    let place = place(saphyr_parser::Span::new(at, at));
    SyntaxError { line: place.line, column: place.column, message: message.into() }
}

fn scan_fault(error: &ScanError) -> SyntaxError {
    fault(*error.marker(), error.info())
}
