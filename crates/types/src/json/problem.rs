//! What is wrong with a value, and where.

use std::fmt;

use super::{JsonPath, Span};

/// Text that is not JSON (or not YAML).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
}

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the value.
    pub path: JsonPath,
    /// Its place in the file.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// What was expected instead, if that helps.
    pub expected: Option<String>,
    /// The nearest valid name.
    pub suggestion: Option<String>,
}

impl Problem {
    /// A problem with neither expectation nor suggestion.
    pub fn new(path: JsonPath, span: Span, message: impl Into<String>) -> Self {
        Self { path, span, message: message.into(), expected: None, suggestion: None }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for SyntaxError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.as_str().is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match (&self.expected, &self.suggestion) {
            (None, None) => Ok(()),
            (Some(expected), None) => write!(f, " (expected {expected})"),
            (None, Some(name)) => write!(f, " (did you mean `{name}`?)"),
            (Some(expected), Some(name)) => write!(f, " (expected {expected}; did you mean `{name}`?)"),
        }
    }
}

impl std::error::Error for Problem {}

/// The candidate that is most like `name`, if any is like it at all.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Jaro-Winkler likeness from which a name is worth suggesting: typing errors and swapped words score
/// above, unrelated field names of one message below.
const ALIKE: f64 = 0.8;
