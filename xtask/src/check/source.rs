//! A Rust source as tokens with line numbers: enough to count code and find calls, far from a parser.
//!
//! [`Source`] knows which lines hold code (not blank, not only comment), where functions begin and end, and
//! which ranges are test modules. Strings, character literals and comments never confuse it; macros are
//! read as the tokens that they are.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// One file, tokenised.
pub(super) struct Source {
    /// Relative to the workspace root.
    pub(super) path: PathBuf,
    pub(super) tokens: Vec<Token>,
    /// The file's text begins with a `//!` header.
    pub(super) has_header: bool,
    /// Line ranges of `#[cfg(test)]` modules; the whole file when it is one by its name.
    pub(super) tests: Vec<RangeInclusive<usize>>,
    code_lines: BTreeSet<usize>,
}

/// A lexical token and the line on which it starts (from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) line: usize,
    pub(super) kind: Kind,
}

/// What kind of token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name or a keyword.
    Word(String),
    /// One character of punctuation.
    Punct(char),
    /// A string, character or number.
    Literal,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) lines: RangeInclusive<usize>,
}

impl Source {
    /// Tokenises `text`, which is the file at `path`.
    pub(super) fn new(path: &Path, text: &str) -> Self {
        let mut lexer = Lexer { rest: text, line: 1, tokens: Vec::new(), code_lines: BTreeSet::new() };
        while lexer.step() {}
        let Lexer { tokens, code_lines, .. } = lexer;
        let is_tests = path.file_name().is_some_and(|name| name == "tests.rs")
            || path.components().any(|part| part.as_os_str() == "tests");
        let tests = if is_tests { vec![1..=usize::MAX] } else { test_modules(&tokens) };
        Self { path: path.to_path_buf(), has_header: text.starts_with("//!"), tokens, tests, code_lines }
    }

    /// Code lines within `lines`: not blank, not comment only.
    pub(super) fn count(&self, lines: RangeInclusive<usize>) -> usize {
        self.code_lines.range(lines).count()
    }

    /// Code lines of the file, its test modules not counted.
    pub(super) fn count_without_tests(&self) -> usize {
        self.code_lines.iter().filter(|line| !self.in_tests(**line)).count()
    }

    /// Whether `line` belongs to a test module.
    pub(super) fn in_tests(&self, line: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&line))
    }

    /// Every function with a body, nested ones too.
    pub(super) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for (at, pair) in self.tokens.windows(2).enumerate() {
            let (Kind::Word(keyword), Kind::Word(name)) = (&pair[0].kind, &pair[1].kind) else { continue };
            if keyword == "fn"
                && let Some(last) = body_end(&self.tokens, at)
            {
                functions.push(Function { name: name.clone(), lines: pair[0].line..=last });
            }
        }
        functions
    }
}

/// The line of the brace that closes the block which begins at or after `from`; `None` when a `;` comes first.
fn body_end(tokens: &[Token], from: usize) -> Option<usize> {
    // Inside brackets a `;` belongs to an array type and a `{` to a const generic.
    let (mut brackets, mut braces) = (0_i32, 0_i32);
    for token in &tokens[from..] {
        match token.kind {
            Kind::Punct('(' | '[') => brackets += 1,
            Kind::Punct(')' | ']') => brackets -= 1,
            Kind::Punct(';') if brackets == 0 && braces == 0 => return None,
            Kind::Punct('{') => braces += 1,
            Kind::Punct('}') => {
                braces -= 1;
                if brackets == 0 && braces == 0 {
                    return Some(token.line);
                }
            }
            _ => {}
        }
    }
    None
}

/// The ranges of `#[cfg(test)] mod name { … }`.
fn test_modules(tokens: &[Token]) -> Vec<RangeInclusive<usize>> {
    let mut modules: Vec<RangeInclusive<usize>> = Vec::new();
    for (at, window) in tokens.windows(4).enumerate() {
        let is_cfg_test =
            is_word(&window[0], "cfg") && window[1].kind == Kind::Punct('(') && is_word(&window[2], "test");
        if !is_cfg_test {
            continue;
        }
        // More attributes and a visibility may stand between the attribute and `mod`.
        let item = tokens[at..].iter().position(|token| match &token.kind {
            Kind::Word(word) => {
                matches!(word.as_str(), "mod" | "fn" | "use" | "impl" | "struct" | "enum" | "const")
            }
            _ => false,
        });
        if let Some(item) = item
            && is_word(&tokens[at + item], "mod")
            && let Some(last) = body_end(tokens, at + item)
        {
            modules.push(window[0].line..=last);
        }
    }
    modules
}

/// Whether the token is this word.
pub(super) fn is_word(token: &Token, word: &str) -> bool {
    matches!(&token.kind, Kind::Word(found) if found == word)
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
    code_lines: BTreeSet<usize>,
}

impl Lexer<'_> {
    /// Takes one token, comment or blank from the front; false at the end.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else if self.rest.starts_with("//") {
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.skip(block_comment(self.rest));
        } else if let Some(length) = raw_string(self.rest) {
            self.take(length, Kind::Literal);
        } else if first == '"' || self.rest.starts_with("b\"") || self.rest.starts_with("c\"") {
            self.take(quoted(self.rest), Kind::Literal);
        } else if first == '\'' || self.rest.starts_with("b'") {
            self.quote();
        } else if first.is_alphabetic() || first == '_' {
            let length =
                self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
            self.take(length, Kind::Word(self.rest[..length].to_owned()));
        } else if first.is_ascii_digit() {
            let length =
                self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
            self.take(length, Kind::Literal);
        } else {
            self.take(first.len_utf8(), Kind::Punct(first));
        }
        true
    }

    /// A character literal, or the quote of a lifetime.
    fn quote(&mut self) {
        let prefix = if self.rest.starts_with('b') { 2 } else { 1 };
        let mut inner = self.rest[prefix..].chars();
        let literal = match (inner.next(), inner.next()) {
            (Some('\\'), Some(escaped)) => {
                let from = prefix + 1 + escaped.len_utf8();
                self.rest[from..].find('\'').map(|end| from + end + 1)
            }
            (Some(character), Some('\'')) => Some(prefix + character.len_utf8() + 1),
            _ => None,
        };
        match literal {
            Some(length) => self.take(length, Kind::Literal),
            None => self.take(1, Kind::Punct('\'')),
        }
    }

    fn take(&mut self, length: usize, kind: Kind) {
        self.tokens.push(Token { line: self.line, kind });
        let first = self.line;
        self.skip(length);
        self.code_lines.extend(first..=self.line);
    }

    fn skip(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
    }
}

/// Length of the block comment at the front; they nest.
fn block_comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    text.len()
}

/// Length of the raw string at the front (`r"…"`, `br#"…"#`), if there is one.
fn raw_string(text: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
    })?;
    let hashes = text[prefix.len()..].bytes().take_while(|byte| *byte == b'#').count();
    // `r#"` is a raw string; `r#name` was excluded above, since no quote follows its hash.
    let start = prefix.len() + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(text[start..].find(&close).map_or(text.len(), |end| start + end + close.len()))
}

/// Length of the string at the front, from its prefix to its closing quote.
fn quoted(text: &str) -> usize {
    let start = text.find('"').unwrap_or(0) + 1;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new(Path::new("crates/x/src/a.rs"), text)
    }

    #[test]
    fn blanks_and_comments_are_not_code() {
        let source = source("//! head\n\nfn a() {\n    // why\n    /* more\n    lines */\n    b();\n}\n");
        assert!(source.has_header);
        assert_eq!(source.count_without_tests(), 3);
        assert_eq!(source.functions(), [Function { name: "a".into(), lines: 3..=8 }]);
    }

    #[test]
    fn strings_and_lifetimes_do_not_confuse() {
        let text = "fn a<'a>(x: &'a str) -> [u8; 2] {\n  let s = \"} fn no() {\"; let c = '}'; let d = b'\\'';\n  let r = r#\"\n}\"#;\n}\nfn b();\n";
        let source = source(text);
        assert_eq!(source.functions(), [Function { name: "a".into(), lines: 1..=5 }]);
        assert_eq!(source.count(1..=5), 5);
    }

    #[test]
    fn test_modules_are_found_and_not_counted() {
        let text = "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n    fn b() {}\n}\n#[cfg(test)]\nmod far;\n#[cfg(test)]\nfn c() {}\nmod real {\n}\n";
        let source = source(text);
        assert_eq!(source.tests, [2..=6]);
        assert!(source.in_tests(5));
        assert!(!source.in_tests(11));
    }

    #[test]
    fn a_file_named_tests_is_a_test_module() {
        let source = Source::new(Path::new("crates/x/src/a/tests.rs"), "fn a() {}\n");
        assert_eq!(source.count_without_tests(), 0);
    }
}
