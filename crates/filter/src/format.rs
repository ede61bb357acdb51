//! Envoy's substitution formatter: text with `%OPERATORS%`, for access logs, header values and the
//! bodies of local replies.
//!
//! Envoy docs, "Access logging", "Command operators". Text is parsed once into static pieces and
//! operators; writing allocates nothing but what the output needs. Operators whose facts this build does
//! not have are errors that say so, except those of TLS and tracing, which print as missing. Start with
//! [`Format`] and [`JsonFormat`].

use std::fmt::Write;

use crate::LogContext;

mod json;
mod operator;
mod parse;
mod time;
mod value;

#[cfg(test)]
mod tests;

pub use json::JsonFormat;
pub use parse::FormatError;

use operator::Operator;
use value::Value;

/// Envoy's access-log line when none is configured, with its line end.
pub const DEFAULT_ACCESS_LOG: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n"
);

/// A parsed format string.
#[derive(Clone, Debug)]
pub struct Format {
    pieces: Box<[Piece]>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(Box<str>),
    Operator(Operator),
}

/// What stands for a value that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// `-`, as in access logs.
    Dash,
    /// Nothing: `omit_empty_values`, and always in header values.
    Nothing,
}

impl Format {
    /// Parses a format string.
    ///
    /// # Errors
    /// An unknown operator, with the nearest known one; one that this build has no facts for; a wrong
    /// argument; a lone `%`.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        parse::pieces(text).map(|pieces| Self { pieces: pieces.into() })
    }

    /// Envoy's default access-log line.
    pub fn default_access_log() -> Self {
        // The constant is parsed by a test; were it wrong, it would be printed as it is.
        Self::parse(DEFAULT_ACCESS_LOG)
            .unwrap_or_else(|_| Self { pieces: Box::new([Piece::Text(DEFAULT_ACCESS_LOG.into())]) })
    }

    /// The text, when no operator is in it: such a value is worth compiling once.
    pub fn as_static(&self) -> Option<&str> {
        match &*self.pieces {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the formatted text, `-` for missing values.
    pub fn write(&self, cx: &LogContext<'_>, out: &mut String) {
        self.write_with(cx, Missing::Dash, out);
    }

    /// Appends the formatted text.
    pub fn write_with(&self, cx: &LogContext<'_>, missing: Missing, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Operator(operator) => write_value(&operator.value(cx), missing, out),
            }
        }
    }

    /// The operator, when there is nothing else.
    fn sole_operator(&self) -> Option<&Operator> {
        match &*self.pieces {
            [Piece::Operator(operator)] => Some(operator),
            _ => None,
        }
    }
}

fn write_value(value: &Value<'_>, missing: Missing, out: &mut String) {
    match value {
        Value::Missing if missing == Missing::Dash => out.push('-'),
        Value::Missing => {}
        Value::Text(text) => out.push_str(text),
        Value::Number(number) => {
            // Writing to a string cannot fail.
            let _ = write!(out, "{number}");
        }
        Value::Shown(shown) => {
            let _ = write!(out, "{shown}");
        }
    }
}
