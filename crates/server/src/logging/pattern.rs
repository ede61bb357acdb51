//! `--log-format`: how a line of the log looks, in spdlog's notation as Envoy takes it.
//! Source: <https://github.com/gabime/spdlog/wiki/Custom-formatting>. Padding is not supported.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use super::line::civil;

/// A compiled `--log-format`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    pieces: Vec<Piece>,
}

/// What a line is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) time: SystemTime,
    pub(super) thread: &'a str,
    pub(super) level: &'static str,
    pub(super) logger: &'static str,
    pub(super) message: &'a str,
    pub(super) file: &'a str,
    pub(super) line: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// One of [`FLAGS`].
    Flag(char),
}

/// Colours (`%^`, `%$`) concern terminals only and print nothing.
const FLAGS: &str = "YmdHMSTDFefEtlLnvgs#P^$_j";

impl Pattern {
    /// Envoy's default without the source's place.
    pub(crate) const DEFAULT: &'static str = "[%Y-%m-%d %T.%e][%t][%l][%n] %v";

    /// Compiles `text`.
    ///
    /// # Errors
    /// A flag that is not supported.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (mut pieces, mut plain, mut chars) = (Vec::new(), String::new(), text.chars());
        while let Some(c) = chars.next() {
            if c != '%' {
                plain.push(c);
                continue;
            }
            match chars.next() {
                Some('%') => plain.push('%'),
                Some(flag) if FLAGS.contains(flag) => {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    pieces.push(Piece::Flag(flag));
                }
                Some(flag) => return Err(format!("`%{flag}` is not supported by this build")),
                None => return Err("ends in the middle of a flag".to_owned()),
            }
        }
        pieces.push(Piece::Text(plain));
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        Ok(Self { text: text.to_owned(), pieces })
    }

    /// As the command line gave it.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Appends `line` without its end.
    pub(super) fn write(&self, line: &Line<'_>, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Flag(flag) => write_flag(*flag, line, out),
            }
        }
    }
}

/// Writing to a `String` does not fail.
fn write_flag(flag: char, line: &Line<'_>, out: &mut String) {
    let since = line.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = civil(seconds / 86_400);
    let _ = match flag {
        'Y' => write!(out, "{year:04}"),
        'm' => write!(out, "{month:02}"),
        'd' => write!(out, "{day:02}"),
        'H' => write!(out, "{hour:02}"),
        'M' => write!(out, "{minute:02}"),
        'S' => write!(out, "{second:02}"),
        'T' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
        'D' => write!(out, "{month:02}/{day:02}/{:02}", year % 100),
        'e' => write!(out, "{:03}", since.subsec_millis()),
        'f' => write!(out, "{:06}", since.subsec_micros()),
        'F' => write!(out, "{:09}", since.subsec_nanos()),
        'E' => write!(out, "{seconds}"),
        't' => out.write_str(line.thread),
        'l' => out.write_str(line.level),
        'L' => out.write_str(&line.level.get(..1).unwrap_or_default().to_ascii_uppercase()),
        'n' => out.write_str(line.logger),
        'v' => out.write_str(line.message),
        // Envoy's own: the message on one line, and as the inside of a JSON string.
        '_' => out.write_str(&line.message.replace('\\', "\\\\").replace('\n', "\\n")),
        'j' => {
            let quoted = serde_json::Value::from(line.message).to_string();
            out.write_str(quoted.get(1..quoted.len() - 1).unwrap_or_default())
        }
        'g' => out.write_str(line.file),
        's' => out.write_str(line.file.rsplit('/').next().unwrap_or_default()),
        '#' => write!(out, "{}", line.line),
        'P' => write!(out, "{}", std::process::id()),
        _ => Ok(()),
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Duration;

    use super::*;

    fn written(pattern: &str) -> String {
        let line = Line {
            time: UNIX_EPOCH + Duration::from_micros(951_782_400_007_089),
            thread: "worker_0",
            level: "warning",
            logger: "http",
            message: "a \"b\"\nc",
            file: "crates/http/src/lib.rs",
            line: 7,
        };
        let mut out = String::new();
        Pattern::parse(pattern).unwrap().write(&line, &mut out);
        out
    }

    #[test]
    fn flags_are_spdlogs() {
        let default = "[2000-02-29 00:00:00.007][worker_0][warning][http] a \"b\"\nc";
        assert_eq!(written(Pattern::DEFAULT), default);
        assert_eq!(written("%^%L%$ %s %g:%# %%%f 100"), "W lib.rs crates/http/src/lib.rs:7 %007089 100");
        assert_eq!(written("%_|%j"), "a \"b\"\\nc|a \\\"b\\\"\\nc");
        assert_eq!(Pattern::parse("a %q").unwrap_err(), "`%q` is not supported by this build");
        assert!(Pattern::parse("a %8l").is_err() && Pattern::parse("%").is_err());
    }
}
