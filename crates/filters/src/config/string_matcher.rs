//! `envoy.type.matcher.v3.StringMatcher`.

use regex::Regex;
use serde::Deserialize;

/// A test of a string, compiled when the configuration is loaded.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Message")]
pub struct StringMatcher {
    pattern: Pattern,
    case: Case,
}

#[derive(Debug)]
enum Pattern {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(Regex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Sensitive,
    Ignored,
}

impl StringMatcher {
    /// Whether a regex finds something: anchors are the caller's.
    pub(super) fn of_regex(pattern: &str) -> Result<Self, regex::Error> {
        Ok(Self { pattern: Pattern::Regex(Regex::new(pattern)?), case: Case::Sensitive })
    }

    /// Whether `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        let lower;
        let text = match self.case {
            Case::Sensitive => text,
            Case::Ignored => {
                lower = text.to_ascii_lowercase();
                lower.as_str()
            }
        };
        match &self.pattern {
            Pattern::Exact(pattern) => text == pattern,
            Pattern::Prefix(pattern) => text.starts_with(pattern.as_str()),
            Pattern::Suffix(pattern) => text.ends_with(pattern.as_str()),
            Pattern::Contains(pattern) => text.contains(pattern.as_str()),
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    exact: Option<String>,
    prefix: Option<String>,
    suffix: Option<String>,
    contains: Option<String>,
    safe_regex: Option<RegexMatcher>,
    ignore_case: bool,
}

#[derive(Deserialize)]
struct RegexMatcher {
    regex: String,
}

impl TryFrom<Message> for StringMatcher {
    type Error = String;

    fn try_from(message: Message) -> Result<Self, String> {
        let fold = |text: String| if message.ignore_case { text.to_ascii_lowercase() } else { text };
        let is_regex = message.safe_regex.is_some();
        // The whole string must match (Envoy docs, RegexMatcher).
        let regex = message
            .safe_regex
            .map(|matcher| Regex::new(&format!("^(?:{})$", matcher.regex)))
            .transpose()
            .map_err(|error| error.to_string())?;
        let mut patterns = [
            message.exact.map(|text| Pattern::Exact(fold(text))),
            message.prefix.map(|text| Pattern::Prefix(fold(text))),
            message.suffix.map(|text| Pattern::Suffix(fold(text))),
            message.contains.map(|text| Pattern::Contains(fold(text))),
            regex.map(Pattern::Regex),
        ]
        .into_iter()
        .flatten();
        match (patterns.next(), patterns.next()) {
            (Some(pattern), None) => {
                // `ignore_case` has no effect on `safe_regex`.
                let ignored = message.ignore_case && !is_regex;
                Ok(Self { pattern, case: if ignored { Case::Ignored } else { Case::Sensitive } })
            }
            _ => Err("exactly one of exact, prefix, suffix, contains and safe_regex must be set".into()),
        }
    }
}
