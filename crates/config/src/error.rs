//! What is wrong with a configuration file, with its place in that file.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tidegate_types::json::{Problem, SyntaxError};

/// One problem, printed as `FILE:LINE:COLUMN: PATH: message (expected ...; did you mean ...?)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// What is wrong with it.
    pub fault: Fault,
}

/// The kinds of [`ConfigError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The file cannot be read; the reason.
    Unreadable(String),
    /// The text is no JSON or YAML.
    Syntax(SyntaxError),
    /// A value is wrong, a field unknown, a reference broken.
    Value(Problem),
}

impl ConfigError {
    /// A problem that another crate found in a part of the file, for instance a filter in its own message.
    pub fn from_problem(file: &Arc<str>, problem: Problem) -> Self {
        Self { file: file.clone(), fault: Fault::Value(problem) }
    }

    pub(crate) fn unreadable(path: &Path, reason: impl fmt::Display) -> Self {
        Self { file: path.display().to_string().into(), fault: Fault::Unreadable(reason.to_string()) }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            Fault::Unreadable(reason) => write!(f, "{}: {reason}", self.file),
            Fault::Syntax(error) => write!(f, "{}:{error}", self.file),
            Fault::Value(problem) if problem.span.line == 0 => write!(f, "{}: {problem}", self.file),
            Fault::Value(problem) => {
                write!(f, "{}:{}:{}: {problem}", self.file, problem.span.line, problem.span.column)
            }
        }
    }
}

impl std::error::Error for ConfigError {}
