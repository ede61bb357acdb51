//! `request_headers_to_add`, `..._to_remove` and the same for responses.

use tidegate_types::json::decode_base64;

use crate::reader::{Field, Message, Reader};

/// The four lists that exist on route tables, virtual hosts, routes and cluster weights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMutations {
    /// `request_headers_to_add`.
    pub request_add: Vec<HeaderToAdd>,
    /// `request_headers_to_remove`, lower case.
    pub request_remove: Vec<String>,
    /// `response_headers_to_add`.
    pub response_add: Vec<HeaderToAdd>,
    /// `response_headers_to_remove`, lower case.
    pub response_remove: Vec<String>,
}

impl HeaderMutations {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// `envoy.config.core.v3.HeaderValueOption`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderToAdd {
    /// `header.key`, lower case, a valid header name.
    pub key: String,
    /// `header.value` (or `raw_value`): a format string with `%OPERATORS%`, not yet compiled.
    pub value: String,
    /// `append_action`, or the deprecated `append`.
    pub action: AppendAction,
    /// `keep_empty_value`: a value that formats to nothing is still added.
    pub keep_empty_value: bool,
}

/// `append_action`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AppendAction {
    /// `APPEND_IF_EXISTS_OR_ADD`.
    #[default]
    AppendIfExistsOrAdd,
    /// `ADD_IF_ABSENT`.
    AddIfAbsent,
    /// `OVERWRITE_IF_EXISTS_OR_ADD`.
    OverwriteIfExistsOrAdd,
    /// `OVERWRITE_IF_EXISTS`.
    OverwriteIfExists,
}

impl HeaderMutations {
    /// The four fields of the message that `r` reads.
    pub(super) fn read(r: &Reader<'_>) -> Self {
        Self {
            request_add: r.repeated("request_headers_to_add").or_default(),
            request_remove: removable_names(r, "request_headers_to_remove"),
            response_add: r.repeated("response_headers_to_add").or_default(),
            response_remove: removable_names(r, "response_headers_to_remove"),
        }
    }
}

/// A list of header names, lower case.
pub(super) fn header_names(r: &Reader<'_>, field: &'static str) -> Vec<String> {
    names(r, field, check_header_name)
}

pub(crate) fn removable_names(r: &Reader<'_>, field: &'static str) -> Vec<String> {
    names(r, field, |name| {
        protected(name, "removed")?;
        check_header_name(name)
    })
}

/// Envoy refuses to change what routing was decided by: rewrites are fields of the route.
pub(super) fn protected(name: &str, done: &str) -> Result<(), String> {
    if name.starts_with(':') || name == "host" {
        return Err(format!("`{name}` cannot be {done}: pseudo-headers and `host` are changed by rewrites"));
    }
    Ok(())
}

pub(super) fn names(
    r: &Reader<'_>,
    field: &'static str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Vec<String> {
    let names = r
        .strings(field)
        .convert(|names| Ok(names.into_iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>()));
    names.check(|names| names.iter().try_for_each(|name| check(name))).or_default()
}

/// A field of a message that holds a header name, lower case; pseudo-headers pass.
pub(crate) fn header_name<'a>(r: &'a Reader<'a>, field: &'static str) -> Field<'a, String> {
    r.string(field).convert(|name| Ok(name.to_ascii_lowercase())).check(|name| check_header_name(name))
}

pub(super) fn check_header_name(name: &str) -> Result<(), String> {
    let token = name.strip_prefix(':').unwrap_or(name);
    match http::HeaderName::from_bytes(token.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{name:?} is no header name")),
    }
}

impl Message for HeaderToAdd {
    const NAME: &'static str = "envoy.config.core.v3.HeaderValueOption";

    fn read(r: &Reader<'_>) -> Self {
        const ACTIONS: &[(&str, u32, AppendAction)] = &[
            ("APPEND_IF_EXISTS_OR_ADD", 0, AppendAction::AppendIfExistsOrAdd),
            ("ADD_IF_ABSENT", 1, AppendAction::AddIfAbsent),
            ("OVERWRITE_IF_EXISTS_OR_ADD", 2, AppendAction::OverwriteIfExistsOrAdd),
            ("OVERWRITE_IF_EXISTS", 3, AppendAction::OverwriteIfExists),
        ];
        let HeaderValue { key, value } = r.required_message("header");
        let append = r.bool("append").optional().map(|append| match append {
            true => AppendAction::AppendIfExistsOrAdd,
            false => AppendAction::OverwriteIfExistsOrAdd,
        });
        r.at_most_one(&["append_action", "append"]);
        let action = r.enumeration("append_action", ACTIONS, &[]).optional();
        Self {
            key,
            value,
            action: action.or(append).unwrap_or_default(),
            keep_empty_value: r.bool("keep_empty_value").or_default(),
        }
    }
}

struct HeaderValue {
    key: String,
    value: String,
}

impl Message for HeaderValue {
    const NAME: &'static str = "envoy.config.core.v3.HeaderValue";

    fn read(r: &Reader<'_>) -> Self {
        let raw = r.string("raw_value").convert(|text| {
            let bytes = decode_base64(&text).ok_or_else(|| "not base64".to_owned())?;
            String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
        });
        r.at_most_one(&["value", "raw_value"]);
        let value = r.string("value").check(|value| {
            let bad = value.contains(['\0', '\r', '\n']);
            if bad { Err("a header value cannot hold CR, LF or NUL".to_owned()) } else { Ok(()) }
        });
        Self {
            key: header_name(r, "key").check(|name| protected(name, "added")).required_non_empty(),
            value: value.optional().or(raw.optional()).unwrap_or_default(),
        }
    }
}
