//! `request_headers_to_add`, `..._to_remove` and their response twins, merged from all levels.
//!
//! Envoy docs, "HTTP header manipulation". Every level is evaluated on what the former left; within a
//! level removals come first, then overwrites, then additions, all values taken before the first change.

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use tidegate_config::route::{AppendAction, HeaderMutations, HeaderToAdd};
use tidegate_filter::{Format, LogContext, Missing};
use tidegate_types::fields::take_in_order;
use tidegate_types::json::JsonPath;

/// The mutations of a route, in the order in which they run.
#[derive(Debug, Default)]
pub(crate) struct Mutations {
    pub(crate) request: Levels,
    pub(crate) response: Levels,
}

/// One direction; levels without mutations are left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Levels(Vec<Level>);

#[derive(Clone, Debug)]
struct Level {
    remove: Box<[HeaderName]>,
    add: Box<[Addition]>,
}

#[derive(Clone, Debug)]
struct Addition {
    name: HeaderName,
    value: Template,
    action: AppendAction,
    keep_empty: bool,
}

/// A value: compiled once when it has no operators.
#[derive(Clone, Debug)]
enum Template {
    Fixed(HeaderValue),
    Format(Format),
}

/// What is wrong with a mutation, below the path of its level.
pub(crate) struct MutationError {
    pub(crate) path: JsonPath,
    pub(crate) message: String,
}

impl Mutations {
    /// Adds one level behind those that are there.
    pub(crate) fn push(
        &mut self,
        config: &HeaderMutations,
        path: &JsonPath,
        errors: &mut Vec<MutationError>,
    ) {
        let names = ["request_headers_to_remove", "request_headers_to_add"];
        self.request.push(&config.request_remove, &config.request_add, path, names, errors);
        let names = ["response_headers_to_remove", "response_headers_to_add"];
        self.response.push(&config.response_remove, &config.response_add, path, names, errors);
    }

    pub(crate) fn apply_request(&self, headers: &mut HeaderMap, cx: &LogContext<'_>) {
        self.request.apply(headers, cx);
    }

    pub(crate) fn apply_response(&self, headers: &mut HeaderMap, cx: &LogContext<'_>) {
        self.response.apply(headers, cx);
    }
}

impl Levels {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn has_formats(&self) -> bool {
        let formats = |level: &Level| level.add.iter().any(|add| matches!(add.value, Template::Format(_)));
        self.0.iter().any(formats)
    }

    fn push(
        &mut self,
        remove: &[String],
        add: &[HeaderToAdd],
        path: &JsonPath,
        [remove_field, add_field]: [&str; 2],
        errors: &mut Vec<MutationError>,
    ) {
        if remove.is_empty() && add.is_empty() {
            return;
        }
        let mut level = (Vec::with_capacity(remove.len()), Vec::with_capacity(add.len()));
        for (index, name) in remove.iter().enumerate() {
            match modifiable(name) {
                Ok(name) => level.0.push(name),
                Err(message) => {
                    errors.push(MutationError { path: path.field(remove_field).index(index), message });
                }
            }
        }
        for (index, header) in add.iter().enumerate() {
            let at = || path.field(add_field).index(index).field("header");
            match Addition::compile(header) {
                Ok(addition) => level.1.push(addition),
                Err((field, message)) => errors.push(MutationError { path: at().field(field), message }),
            }
        }
        self.0.push(Level { remove: level.0.into(), add: level.1.into() });
    }

    fn apply(&self, headers: &mut HeaderMap, cx: &LogContext<'_>) {
        for level in &self.0 {
            level.apply(headers, cx);
        }
    }
}

impl Level {
    fn apply(&self, headers: &mut HeaderMap, cx: &LogContext<'_>) {
        for name in &self.remove {
            take_in_order(headers, name);
        }
        let mut ready: SmallVec<[(&Addition, HeaderValue); 4]> = SmallVec::new();
        for addition in &self.add {
            if let Some(value) = addition.value.evaluate(cx)
                && (addition.keep_empty || !value.is_empty())
                && addition.applies(headers)
            {
                ready.push((addition, value));
            }
        }
        // Two passes, as in Envoy: an addition is never lost to an overwrite of its own level.
        for (addition, value) in ready.iter().filter(|(addition, _)| addition.overwrites()) {
            headers.insert(addition.name.clone(), value.clone());
        }
        for (addition, value) in ready {
            if !addition.overwrites() {
                headers.append(addition.name.clone(), value);
            }
        }
    }
}

impl Addition {
    fn compile(header: &HeaderToAdd) -> Result<Self, (&'static str, String)> {
        let name = modifiable(&header.key).map_err(|message| ("key", message))?;
        let format = Format::parse(&header.value).map_err(|error| ("value", error.to_string()))?;
        let value = match format.as_static() {
            Some(text) => Template::Fixed(
                HeaderValue::from_str(text).map_err(|_| ("value", "not a valid header value".to_owned()))?,
            ),
            None => Template::Format(format),
        };
        Ok(Self { name, value, action: header.action, keep_empty: header.keep_empty_value })
    }

    fn overwrites(&self) -> bool {
        matches!(self.action, AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd)
    }

    fn applies(&self, headers: &HeaderMap) -> bool {
        match self.action {
            AppendAction::AppendIfExistsOrAdd | AppendAction::OverwriteIfExistsOrAdd => true,
            AppendAction::AddIfAbsent => !headers.contains_key(&self.name),
            AppendAction::OverwriteIfExists => headers.contains_key(&self.name),
        }
    }
}

impl Template {
    /// The value; `None` when what a client or upstream sent does not fit into a header.
    fn evaluate(&self, cx: &LogContext<'_>) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Format(format) => {
                let mut text = String::new();
                format.write_with(cx, Missing::Nothing, &mut text);
                HeaderValue::try_from(text).ok()
            }
        }
    }
}

/// A header's name, unless it is one that only rewrites may touch.
fn modifiable(name: &str) -> Result<HeaderName, String> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(format!("`{name}` may not be modified: use host and path rewrites"));
    }
    name.parse().map_err(|_| format!("`{name}` is no header name"))
}
