//! Strict JSON (RFC 8259) into [`Node`]s: no comments, no trailing commas, no duplicate keys.

use std::collections::HashSet;

use super::{Kind, MAX_DEPTH, Member, Node, Span, SyntaxError};

/// Parses one document.
///
/// # Errors
/// The first place where the text is not JSON, repeats a key, or nests deeper than [`MAX_DEPTH`].
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mark = Mark { offset: 0, line: 1, column: 1 };
    let mut parser = Parser { text, at: 0, mark, members: Vec::new(), items: Vec::new() };
    if u32::try_from(text.len()).is_err() {
        return Err(parser.fault("the file is larger than 4 GiB"));
    }
    parser.skip_space();
    let node = parser.value(0)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(node),
        Some(_) => Err(parser.fault("expected the end of the file after the top-level value")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    mark: Mark,
    /// The members of all objects that are not complete yet, the innermost last: lists that grow by themselves would
    /// take twice the memory of a large configuration.
    members: Vec<Member>,
    /// Likewise, the items of arrays.
    items: Vec<Node>,
}

/// The last position whose line and column were asked for. Positions are asked for in ascending order, so
/// counting from here keeps a one-line file of many megabytes linear.
#[derive(Clone, Copy)]
struct Mark {
    offset: usize,
    line: u32,
    column: u32,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Span of nothing at the current position; `end` is set when the value is complete.
    fn start(&mut self) -> Span {
        for byte in self.text.as_bytes().get(self.mark.offset..self.at).unwrap_or_default() {
            match byte {
                b'\n' => {
                    self.mark.line += 1;
                    self.mark.column = 1;
                }
                // The further bytes of a character (RFC 3629 section 3).
                0x80..0xc0 => {}
                _ => self.mark.column += 1,
            }
        }
        self.mark.offset = self.at;
        let offset = self.at as u32;
        Span { start: offset, end: offset, line: self.mark.line, column: self.mark.column }
    }

    fn fault(&mut self, message: impl Into<String>) -> SyntaxError {
        Self::fault_at(self.start(), message)
    }

    fn fault_at(span: Span, message: impl Into<String>) -> SyntaxError {
        SyntaxError { line: span.line, column: span.column, message: message.into() }
    }

    fn expected(&mut self, what: &str) -> SyntaxError {
        let found = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            None => "the end of the file".to_owned(),
            Some('/' | '#') => "a comment, which JSON does not have".to_owned(),
            Some(c) => format!("`{}`", c.escape_debug()),
        };
        self.fault(format!("expected {what}, found {found}"))
    }

    fn value(&mut self, depth: usize) -> Result<Node, SyntaxError> {
        let mut span = self.start();
        if depth > MAX_DEPTH {
            return Err(Self::fault_at(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let kind = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Kind::String(self.string()?.into()),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true", Kind::Bool(true))?,
            Some(b'f') => self.word("false", Kind::Bool(false))?,
            Some(b'n') => self.word("null", Kind::Null)?,
            _ => return Err(self.expected("a value")),
        };
        span.end = self.at as u32;
        Ok(Node { kind, span })
    }

    fn word(&mut self, word: &str, kind: Kind) -> Result<Kind, SyntaxError> {
        if !self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        Ok(kind)
    }

    fn object(&mut self, depth: usize) -> Result<Kind, SyntaxError> {
        self.at += 1;
        let first = self.members.len();
        loop {
            self.skip_space();
            match self.peek() {
                Some(b'}') if self.members.len() == first => break,
                Some(b'"') => {
                    let member = self.member(depth)?;
                    self.members.push(member);
                }
                Some(b'}') => return Err(self.fault("a comma before `}` is not JSON")),
                _ => return Err(self.expected("a key in double quotes")),
            }
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.expected("`,` or `}`")),
            }
        }
        self.at += 1;
        // In a list of just that length.
        let members: Vec<Member> = self.members.drain(first..).collect();
        refuse_duplicates(&members)?;
        Ok(Kind::Object(members))
    }

    fn member(&mut self, depth: usize) -> Result<Member, SyntaxError> {
        let mut key_span = self.start();
        let key = self.string()?.into();
        key_span.end = self.at as u32;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.expected("`:` after the key"));
        }
        self.at += 1;
        self.skip_space();
        Ok(Member { key, key_span, value: self.value(depth + 1)? })
    }

    fn array(&mut self, depth: usize) -> Result<Kind, SyntaxError> {
        self.at += 1;
        let first = self.items.len();
        loop {
            self.skip_space();
            match self.peek() {
                Some(b']') if self.items.len() == first => break,
                Some(b']') => return Err(self.fault("a comma before `]` is not JSON")),
                _ => {
                    let item = self.value(depth + 1)?;
                    self.items.push(item);
                }
            }
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.expected("`,` or `]`")),
            }
        }
        self.at += 1;
        Ok(Kind::Array(self.items.drain(first..).collect()))
    }

    fn number(&mut self) -> Result<Kind, SyntaxError> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let zero_led = self.peek() == Some(b'0');
        let integer = self.digits();
        let mut complete = integer == 1 || (integer > 1 && !zero_led);
        if self.peek() == Some(b'.') {
            self.at += 1;
            complete &= self.digits() > 0;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            complete &= self.digits() > 0;
        }
        let text = self.text.get(from..self.at).unwrap_or_default();
        if complete {
            Ok(Kind::Number(text.into()))
        } else {
            Err(self.fault(format!("`{text}` is no JSON number")))
        }
    }

    fn digits(&mut self) -> usize {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - from
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        self.at += 1;
        let mut out = String::from(self.plain());
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.fault("a control character in a string must be escaped")),
                None => return Err(self.fault("the string does not end")),
            }
            out.push_str(self.plain());
        }
        self.at += 1;
        Ok(out)
    }

    /// What follows, up to the end of the string or what needs a closer look.
    fn plain(&mut self) -> &'a str {
        let from = self.at;
        while matches!(self.peek(), Some(b) if b != b'"' && b != b'\\' && b >= 0x20) {
            self.at += 1;
        }
        self.text.get(from..self.at).unwrap_or_default()
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        let plain = match self.text.as_bytes().get(self.at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.fault("unknown escape in a string")),
        };
        self.at += 2;
        Ok(plain)
    }

    /// `\uXXXX`, or two of them for a surrogate pair.
    fn unicode_escape(&mut self) -> Result<char, SyntaxError> {
        let first = self.hex4()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            let second = self.hex4()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err(self.fault("half a surrogate pair in a string"));
            }
            0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.fault("half a surrogate pair in a string"))
    }

    fn hex4(&mut self) -> Result<u32, SyntaxError> {
        let code = self
            .text
            .get(self.at..self.at + 6)
            .and_then(|escape| escape.strip_prefix("\\u"))
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let Some(code) = code else { return Err(self.fault("expected `\\u` and four hex digits")) };
        self.at += 6;
        Ok(code)
    }
}

/// Refuses an object that gives a key twice: JSON parsers differ in which
/// of the two would win.
///
/// # Errors
/// The first repeated key.
pub fn refuse_duplicates(members: &[Member]) -> Result<(), SyntaxError> {
    let twice = if members.len() <= FEW {
        let before = |at: usize| members.get(..at).unwrap_or_default();
        let mut numbered = members.iter().enumerate();
        numbered
            .find(|(at, member)| before(*at).iter().any(|other| other.key == member.key))
            .map(|(_, twice)| twice)
    } else {
        let mut keys = HashSet::with_capacity(members.len());
        members.iter().find(|member| !keys.insert(&*member.key))
    };
    match twice {
        Some(twice) => Err(Parser::fault_at(twice.key_span, format!("key `{}` is given twice", twice.key))),
        None => Ok(()),
    }
}

/// Up to so many keys are compared with each other faster than they are hashed.
const FEW: usize = 12;
