//! RFC 3986 §6.2.2 normalisation the way browsers and Envoy do it: dot segments resolved, escapes of
//! unreserved characters decoded, other escapes kept letter by letter, backslashes turned into slashes,
//! characters that do not belong into a path escaped.

/// Whether [`canonicalize`] would change nothing; the answer to nearly every request.
pub(super) fn is_canonical(path: &[u8]) -> bool {
    let mut after_slash = false;
    if path.first() != Some(&b'/') {
        return false;
    }
    for byte in path {
        match class(*byte) {
            // A dot inside a segment is an ordinary character.
            Class::Special if *byte == b'.' && !after_slash => {}
            Class::Pass | Class::Unreserved => {}
            Class::Special | Class::Escape | Class::Refused => return false,
        }
        after_slash = *byte == b'/';
    }
    true
}

/// The normal form of a path without its query; `None` when it holds what no path may hold.
pub(super) fn canonicalize(path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len() + 1);
    if !matches!(path.first(), Some(b'/' | b'\\')) {
        out.push(b'/');
    }
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        let dot = dot_len(&path[at..]);
        if dot > 0 {
            at += dot;
            if out.last() != Some(&b'/') {
                out.push(b'.');
                continue;
            }
            match after_dot(&path[at..]) {
                AfterDot::Name => out.push(b'.'),
                AfterDot::Current(length) => at += length,
                AfterDot::Parent(length) => {
                    to_previous_slash(&mut out);
                    at += length;
                }
            }
            continue;
        }
        at += 1;
        match (class(byte), byte) {
            (_, b'\\') => out.push(b'/'),
            (_, b'%') => match path.get(at..at + 2).and_then(decode_hex) {
                Some(decoded) if matches!(class(decoded), Class::Unreserved) => {
                    out.push(decoded);
                    at += 2;
                }
                Some(0) => return None,
                // Kept as it was written, whether it means something or not.
                _ => out.push(b'%'),
            },
            (Class::Escape, _) => escape(byte, &mut out),
            (Class::Refused, _) => return None,
            (Class::Pass | Class::Unreserved | Class::Special, _) => out.push(byte),
        }
    }
    Some(out)
}

/// What follows a dot that begins a segment.
enum AfterDot {
    /// More of a name.
    Name,
    /// The end of a `.` segment, this many bytes with the slash.
    Current(usize),
    /// The rest of a `..` segment, this many bytes with the slash.
    Parent(usize),
}

fn after_dot(rest: &[u8]) -> AfterDot {
    match rest.first() {
        None => return AfterDot::Current(0),
        Some(b'/' | b'\\') => return AfterDot::Current(1),
        Some(_) => {}
    }
    let second = dot_len(rest);
    if second == 0 {
        return AfterDot::Name;
    }
    match rest.get(second) {
        None => AfterDot::Parent(second),
        Some(b'/' | b'\\') => AfterDot::Parent(second + 1),
        Some(_) => AfterDot::Name,
    }
}

/// Length of a dot, plain or escaped, at the start; 0 when there is none.
fn dot_len(rest: &[u8]) -> usize {
    match rest {
        [b'.', ..] => 1,
        [b'%', b'2', b'e' | b'E', ..] => 3,
        _ => 0,
    }
}

/// Removes the last segment; `out` ends with a slash before and after. The root has no parent
/// (RFC 3986 §5.2.4).
fn to_previous_slash(out: &mut Vec<u8>) {
    if out.len() > 1 {
        out.pop();
        while out.len() > 1 && out.last() != Some(&b'/') {
            out.pop();
        }
    }
}

fn decode_hex(digits: &[u8]) -> Option<u8> {
    let value = |byte: u8| char::from(byte).to_digit(16);
    match digits {
        [high, low] => u8::try_from(value(*high)? * 16 + value(*low)?).ok(),
        _ => None,
    }
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// What a byte means in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stays, escaped or not.
    Pass,
    /// RFC 3986 §2.3: its escape is decoded.
    Unreserved,
    /// Is escaped.
    Escape,
    /// `.`, `\` and `%` have rules of their own.
    Special,
    /// NUL.
    Refused,
}

fn class(byte: u8) -> Class {
    match byte {
        0 => Class::Refused,
        b'.' | b'\\' | b'%' => Class::Special,
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'~' => Class::Unreserved,
        b'!' | b'$' | b'&'..=b',' | b'/' | b':' | b';' | b'=' | b'@' | b'[' | b']' => Class::Pass,
        _ => Class::Escape,
    }
}
