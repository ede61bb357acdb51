//! The conditions of a route besides its path: headers, query parameters, chance.
//!
//! Envoy docs, `config.route.v3.HeaderMatcher`, `QueryParameterMatcher`, `type.matcher.v3.StringMatcher`.
//! Header names are compiled once; values are compared where they stand.

use http::{HeaderMap, HeaderName, HeaderValue};
use regex::Regex;
use tidegate_config::route as config;
use tidegate_config::values::{FractionalPercent, Pattern, StringMatcher as StringConfig, StringPattern};
use tidegate_types::{RequestHead, ResponseHead};

/// Compiles a regex that must match the whole text.
pub(crate) fn whole_regex(pattern: &Pattern) -> Result<Regex, String> {
    Regex::new(&format!(r"\A(?:{})\z", pattern.0)).map_err(|error| regex_message(&pattern.0, &error))
}

/// Compiles a regex that may match anywhere.
pub(crate) fn part_regex(pattern: &Pattern) -> Result<Regex, String> {
    Regex::new(&pattern.0).map_err(|error| regex_message(&pattern.0, &error))
}

fn regex_message(pattern: &str, error: &regex::Error) -> String {
    let reason = error.to_string();
    format!("regex `{pattern}`: {}", reason.lines().last().unwrap_or_default().trim_start_matches("error: "))
}

/// A compiled `StringMatcher`.
#[derive(Debug)]
pub(crate) struct StringMatcher {
    pattern: CompiledPattern,
    ignore_case: bool,
}

#[derive(Debug)]
enum CompiledPattern {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    Regex(Regex),
}

impl StringMatcher {
    pub(crate) fn compile(config: &StringConfig) -> Result<Self, String> {
        let text = |text: &str| -> Box<str> {
            if config.ignore_case { text.to_ascii_lowercase().into() } else { text.into() }
        };
        let pattern = match &config.pattern {
            StringPattern::Exact(exact) => CompiledPattern::Exact(text(exact)),
            StringPattern::Prefix(prefix) => CompiledPattern::Prefix(text(prefix)),
            StringPattern::Suffix(suffix) => CompiledPattern::Suffix(text(suffix)),
            StringPattern::Contains(part) => CompiledPattern::Contains(text(part)),
            StringPattern::Regex(regex) => CompiledPattern::Regex(whole_regex(regex)?),
        };
        Ok(Self { pattern, ignore_case: config.ignore_case })
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        if !self.ignore_case {
            return match &self.pattern {
                CompiledPattern::Exact(exact) => value == &**exact,
                CompiledPattern::Prefix(prefix) => value.starts_with(&**prefix),
                CompiledPattern::Suffix(suffix) => value.ends_with(&**suffix),
                CompiledPattern::Contains(part) => value.contains(&**part),
                CompiledPattern::Regex(regex) => regex.is_match(value),
            };
        }
        let (value, same) = (value.as_bytes(), <[u8]>::eq_ignore_ascii_case);
        match &self.pattern {
            CompiledPattern::Exact(exact) => same(value, exact.as_bytes()),
            CompiledPattern::Prefix(prefix) => {
                value.get(..prefix.len()).is_some_and(|start| same(start, prefix.as_bytes()))
            }
            CompiledPattern::Suffix(suffix) => value
                .len()
                .checked_sub(suffix.len())
                .and_then(|start| value.get(start..))
                .is_some_and(|end| same(end, suffix.as_bytes())),
            CompiledPattern::Contains(part) => {
                part.is_empty() || value.windows(part.len()).any(|window| same(window, part.as_bytes()))
            }
            CompiledPattern::Regex(regex) => {
                std::str::from_utf8(value).is_ok_and(|text| regex.is_match(text))
            }
        }
    }
}

/// A compiled `HeaderMatcher`.
#[derive(Debug)]
pub struct HeaderMatcher {
    name: FieldName,
    condition: Condition,
    invert: bool,
    missing_is_empty: bool,
}

/// What a matcher may name: a header, or what HTTP/2 calls a pseudo-header.
#[derive(Debug)]
enum FieldName {
    Header(HeaderName),
    Method,
    Path,
    Authority,
    Scheme,
    Status,
}

#[derive(Debug)]
enum Condition {
    Present(bool),
    String(StringMatcher),
    Range(std::ops::Range<i64>),
}

impl HeaderMatcher {
    /// Compiles a matcher. The error says what is wrong with the name or the regex.
    pub fn compile(config: &config::HeaderMatcher) -> Result<Self, String> {
        let name = match config.name.as_str() {
            ":method" => FieldName::Method,
            ":path" => FieldName::Path,
            // Every version's host is the authority (RFC 9113 §8.3.1).
            ":authority" | "host" => FieldName::Authority,
            ":scheme" => FieldName::Scheme,
            ":status" => FieldName::Status,
            name => FieldName::Header(name.parse().map_err(|_| format!("`{name}` is no header name"))?),
        };
        let condition = match &config.condition {
            config::HeaderMatch::Present(present) => Condition::Present(*present),
            config::HeaderMatch::String(matcher) => Condition::String(StringMatcher::compile(matcher)?),
            config::HeaderMatch::Range { start, end } => Condition::Range(*start..*end),
        };
        Ok(Self { name, condition, invert: config.invert, missing_is_empty: config.treat_missing_as_empty })
    }

    /// Whether a request fulfils it.
    pub fn matches_request(&self, head: &RequestHead) -> bool {
        match &self.name {
            FieldName::Header(name) => self.matches_lines(&head.headers, name),
            FieldName::Method => self.matches_value(Some(head.method.as_str())),
            FieldName::Path => self.matches_value(present(head.path_str())),
            FieldName::Authority => self.matches_value(present(head.authority_str())),
            FieldName::Scheme => self.matches_value(Some(head.scheme.as_str())),
            FieldName::Status => self.matches_value(None),
        }
    }

    /// Whether a response fulfils it.
    pub fn matches_response(&self, head: &ResponseHead) -> bool {
        match &self.name {
            FieldName::Header(name) => self.matches_lines(&head.headers, name),
            FieldName::Status => self.matches_value(Some(head.status.as_str())),
            _ => self.matches_value(None),
        }
    }

    /// Of several lines of one header, any may fulfil the condition; an inverted matcher wants none to.
    fn matches_lines(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        let mut lines = headers.get_all(name).iter();
        let Some(first) = lines.next() else { return self.matches_value(None) };
        let fulfils = |value: &HeaderValue| self.fulfils(&String::from_utf8_lossy(value.as_bytes()));
        (fulfils(first) || lines.any(fulfils)) != self.invert
    }

    fn matches_value(&self, value: Option<&str>) -> bool {
        match value.or(self.missing_is_empty.then_some("")) {
            Some(value) => self.fulfils(value) != self.invert,
            // An absent header fails also an inverted condition, as in Envoy.
            None => matches!(self.condition, Condition::Present(present) if present == self.invert),
        }
    }

    fn fulfils(&self, value: &str) -> bool {
        match &self.condition {
            Condition::Present(present) => *present,
            Condition::String(matcher) => matcher.matches(value),
            Condition::Range(range) => value.trim().parse().is_ok_and(|number: i64| range.contains(&number)),
        }
    }
}

fn present(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// A compiled `QueryParameterMatcher`.
#[derive(Debug)]
pub(crate) struct QueryMatcher {
    name: Box<str>,
    value: Option<StringMatcher>,
    absent: bool,
}

impl QueryMatcher {
    pub(crate) fn compile(config: &config::QueryMatcher) -> Result<Self, String> {
        let value = config.value.as_ref().map(StringMatcher::compile).transpose()?;
        Ok(Self { name: config.name.as_str().into(), value, absent: config.absent })
    }

    /// Compares the first parameter of that name, as written: escapes are not decoded.
    pub(crate) fn matches(&self, query: Option<&str>) -> bool {
        let found = query.unwrap_or_default().split('&').find_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name == &*self.name).then_some(value)
        });
        match (found, &self.value) {
            (value, None) => value.is_some() != self.absent,
            (Some(value), Some(matcher)) => matcher.matches(value),
            (None, Some(_)) => false,
        }
    }
}

/// Whether a request is among the share that `random` selects.
pub(crate) fn in_fraction(fraction: &FractionalPercent, random: u64) -> bool {
    random % u64::from(fraction.denominator.max(1)) < u64::from(fraction.numerator)
}
