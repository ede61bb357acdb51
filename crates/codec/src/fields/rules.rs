//! Rules that requests, responses and trailers share (RFC 9113 §8.2).

use http::{HeaderName, header};

use super::tally::Verdict;
use crate::h1::rules::is_authority;

/// Refuses a field that belongs to an HTTP/1.1 connection (RFC 9113 §8.2.2).
pub(super) fn check_connection_field(name: &HeaderName, value: &[u8]) -> Result<(), Verdict> {
    let allowed = match *name {
        header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => false,
        header::TE => value.eq_ignore_ascii_case(b"trailers"),
        _ => !is_old_connection_field(name),
    };
    if allowed { Ok(()) } else { Err(Verdict::Field) }
}

/// Connection-specific fields that `http` has no constant for. Their lengths tell most others apart.
pub(super) fn is_old_connection_field(name: &HeaderName) -> bool {
    let name = name.as_str();
    match name.len() {
        10 => name == "keep-alive",
        16 => name == "proxy-connection",
        _ => false,
    }
}

/// An authority without userinfo (RFC 9113 §8.3.1), or a `host`.
pub(super) fn check_authority(authority: &[u8]) -> Result<(), Verdict> {
    let valid = !authority.is_empty() && is_authority(authority) && !authority.contains(&b'@');
    if valid { Ok(()) } else { Err(Verdict::Field) }
}

/// A scheme (RFC 3986 §3.1).
pub(super) fn check_scheme(scheme: &[u8]) -> Result<(), Verdict> {
    let valid = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if valid { Ok(()) } else { Err(Verdict::Field) }
}

/// A path without controls and blanks. Text beyond ASCII passes, as in Envoy, if it is UTF-8.
pub(super) fn check_path(path: &[u8]) -> Result<(), Verdict> {
    let valid =
        !path.is_empty() && is_visible(path) && (path.is_ascii() || std::str::from_utf8(path).is_ok());
    if valid { Ok(()) } else { Err(Verdict::Field) }
}

/// No controls, no blanks. Looks at all bytes without a branch each.
pub(super) fn is_visible(text: &[u8]) -> bool {
    !text.iter().fold(false, |found, &byte| found | (byte <= b' ') | (byte == 0x7f))
}
