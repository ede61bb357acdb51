//! Format strings into pieces: `%NAME%`, `%NAME(ARGUMENT)%`, `%NAME(ARGUMENT):LENGTH%` and `%%`.

use tidegate_types::json::nearest;

use super::Piece;
use super::operator::{self, Operator};

/// What is wrong with a format string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A `%` that begins no operator.
    #[error("`%` at byte {at} begins no operator: write `%%` for a percent sign, or `%NAME%`")]
    LonePercent {
        /// Byte offset in the format string.
        at: usize,
    },
    /// No operator has that name.
    #[error("unknown operator `%{name}%`{}", hint(.nearest))]
    Unknown {
        /// The name.
        name: String,
        /// The nearest name that exists.
        nearest: Option<&'static str>,
    },
    /// Envoy knows it, this build does not.
    #[error("operator `%{name}%` is not supported by this build")]
    Unsupported {
        /// The name.
        name: String,
    },
    /// The argument in parentheses is wrong, missing or one too many.
    #[error("operator `%{name}%`: {reason}")]
    Argument {
        /// The name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map(|name| format!(", did you mean `%{name}%`?")).unwrap_or_default()
}

/// Splits a format string.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, FormatError> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(percent) = rest.find('%') {
        literal.push_str(&rest[..percent]);
        let at = text.len() - rest.len() + percent;
        let behind = &rest[percent + 1..];
        if let Some(after) = behind.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let command = Command::split(behind).ok_or(FormatError::LonePercent { at })?;
        if !literal.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
        }
        pieces.push(Piece::Operator(command.operator()?));
        rest = command.after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal.into()));
    }
    Ok(pieces)
}

/// An operator as written.
struct Command<'a> {
    name: &'a str,
    argument: Option<&'a str>,
    /// Bytes that the value is cut to.
    length: Option<usize>,
    /// What follows its closing `%`.
    after: &'a str,
}

impl<'a> Command<'a> {
    /// Reads behind the opening `%`.
    fn split(text: &'a str) -> Option<Self> {
        let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
        let (name, rest) = text.split_at(end);
        if name.is_empty() {
            return None;
        }
        let Some(inside) = rest.strip_prefix('(') else {
            let (length, after) = closing(rest)?;
            return Some(Self { name, argument: None, length, after });
        };
        // An argument may hold `%` and `)`: it ends at the first `)` that the operator's end follows.
        inside.match_indices(')').find_map(|(at, _)| {
            let (length, after) = closing(&inside[at + 1..])?;
            Some(Self { name, argument: Some(&inside[..at]), length, after })
        })
    }

    fn operator(&self) -> Result<Operator, FormatError> {
        let error = |reason: String| FormatError::Argument { name: self.name.to_owned(), reason };
        match operator::parse(self.name, self.argument, self.length) {
            operator::Parsed::Operator(operator) => Ok(operator),
            operator::Parsed::Wrong(reason) => Err(error(reason)),
            operator::Parsed::Unsupported => Err(FormatError::Unsupported { name: self.name.to_owned() }),
            operator::Parsed::Unknown => Err(FormatError::Unknown {
                name: self.name.to_owned(),
                nearest: nearest(self.name, operator::NAMES.iter().copied())
                    .and_then(|found| operator::NAMES.iter().find(|name| **name == found).copied()),
            }),
        }
    }
}

/// Reads `%` or `:LENGTH%`.
fn closing(text: &str) -> Option<(Option<usize>, &str)> {
    if let Some(after) = text.strip_prefix('%') {
        return Some((None, after));
    }
    let (digits, after) = text.strip_prefix(':')?.split_once('%')?;
    Some((Some(digits.parse().ok()?), after))
}
