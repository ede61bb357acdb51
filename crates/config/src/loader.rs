//! From a path or a text to a [`Bootstrap`], or to everything that is wrong with it.

use std::path::Path;
use std::sync::Arc;

use tidegate_types::json::{self, Kind, Node, SyntaxError};

use crate::error::{ConfigError, Fault};
use crate::reader::Context;
use crate::{Bootstrap, yaml};

/// The language of a configuration text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON, strictly.
    Json,
    /// YAML 1.2, of which JSON-like values are used.
    Yaml,
}

impl Format {
    /// YAML for `.yaml` and `.yml`, else JSON.
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Json,
        }
    }

    pub(crate) fn parse(self, text: &str) -> Result<Node, SyntaxError> {
        match self {
            Self::Json => json::parse(text),
            Self::Yaml => yaml::parse(text),
        }
    }
}

/// The text as plain JSON, whatever its language; `None` if it does not parse.
pub fn tree(text: &str, format: Format) -> Option<serde_json::Value> {
    match format {
        // Numbers as they were written.
        Format::Json => serde_json::from_str(text).ok(),
        Format::Yaml => format.parse(text).ok().map(|node| value(&node)),
    }
}

/// `node` without its places.
pub fn value(node: &Node) -> serde_json::Value {
    match &node.kind {
        Kind::Null => serde_json::Value::Null,
        Kind::Bool(bool) => (*bool).into(),
        Kind::Number(text) => text.parse::<serde_json::Number>().map_or_else(|_| (**text).into(), Into::into),
        Kind::String(text) => (**text).into(),
        Kind::Array(items) => items.iter().map(value).collect(),
        Kind::Object(members) => {
            members.iter().map(|member| (member.key.to_string(), value(&member.value))).collect()
        }
    }
}

/// Reads and validates a file. Files that it names are read from the working directory, as Envoy does.
///
/// # Errors
/// All problems in file order, at least one.
pub fn load(path: &Path) -> Result<Bootstrap, Vec<ConfigError>> {
    let bytes = std::fs::read(path).map_err(|error| vec![ConfigError::unreadable(path, error)])?;
    let text =
        String::from_utf8(bytes).map_err(|_| vec![ConfigError::unreadable(path, "the file is not UTF-8")])?;
    from_str(&text, &path.display().to_string(), Format::of(path))
}

/// Validates a text; `file` names it in errors.
///
/// # Errors
/// As [`load`].
pub fn from_str(text: &str, file: &str, format: Format) -> Result<Bootstrap, Vec<ConfigError>> {
    let file: Arc<str> = file.into();
    let fault = |fault| ConfigError { file: file.clone(), fault };
    let tree = format.parse(text).map_err(|error| vec![fault(Fault::Syntax(error))])?;
    let read_file =
        |path: &str| std::fs::read(path).map_err(|error| format!("cannot read `{path}`: {error}"));
    let context = Context::new(&read_file);
    context
        .read_root::<Bootstrap>(&tree)
        .map_err(|problems| problems.into_iter().map(|problem| fault(Fault::Value(problem))).collect())
}
