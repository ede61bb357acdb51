//! Path normalisation before routing.
//!
//! Envoy docs, "HTTP connection manager": `normalize_path` (RFC 3986 §6.2.2, as browsers do it),
//! `merge_slashes` and `path_with_escaped_slashes_action`. The query never changes. Start with
//! [`normalize`]; the request's path is replaced by its caller.

use std::borrow::Cow;

use bytes::Bytes;
use tidegate_config::hcm::{EscapedSlashes, Normalization};

mod canonical;

#[cfg(test)]
mod tests;

/// What became of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normalized {
    /// It stays as it is.
    Unchanged,
    /// Route and forward this one.
    Changed(Bytes),
    /// Answer 307 with this `location` (400 to gRPC), details `path_normalization_failed`.
    Redirect(Bytes),
    /// Answer 400, details `path_normalization_failed`.
    Rejected,
}

/// Applies the connection manager's rules to a path with its query.
///
/// A path with a fragment is always refused: no client may send one (RFC 9112 §3.2.1).
pub fn normalize(path: &Bytes, options: &Normalization) -> Normalized {
    if memchr::memchr(b'#', path).is_some() {
        return Normalized::Rejected;
    }
    let unescapes = options.escaped_slashes != EscapedSlashes::KeepUnchanged;
    if !(unescapes || options.normalize_path || options.merge_slashes) || path.is_empty() || path == "*" {
        return Normalized::Unchanged;
    }
    let query_start = memchr::memchr(b'?', path).unwrap_or(path.len());
    let (only_path, query) = path.split_at(query_start);
    let mut redirect = false;
    let mut current = Cow::Borrowed(only_path);
    if unescapes && let Some(unescaped) = unescape_slashes(only_path) {
        match options.escaped_slashes {
            EscapedSlashes::RejectRequest => return Normalized::Rejected,
            EscapedSlashes::UnescapeAndRedirect => redirect = true,
            EscapedSlashes::UnescapeAndForward | EscapedSlashes::KeepUnchanged => {}
        }
        current = Cow::Owned(unescaped);
    }
    if options.normalize_path && !canonical::is_canonical(&current) {
        match canonical::canonicalize(&current) {
            Some(path) => current = Cow::Owned(path),
            None => return Normalized::Rejected,
        }
    }
    // After normalisation, which may have uncovered more slashes.
    if options.merge_slashes && memchr::memmem::find(&current, b"//").is_some() {
        current = Cow::Owned(merge_slashes(&current));
    }
    let Cow::Owned(mut changed) = current else { return Normalized::Unchanged };
    if !redirect && changed == only_path {
        return Normalized::Unchanged;
    }
    changed.extend_from_slice(query);
    if redirect { Normalized::Redirect(changed.into()) } else { Normalized::Changed(changed.into()) }
}

/// Turns `%2F` into `/` and `%5C` into `\`; `None` when there are none.
fn unescape_slashes(path: &[u8]) -> Option<Vec<u8>> {
    let escaped = |at: usize| match path.get(at..at + 3) {
        Some([b'%', b'2', b'F' | b'f']) => Some(b'/'),
        Some([b'%', b'5', b'C' | b'c']) => Some(b'\\'),
        _ => None,
    };
    let first = memchr::memchr_iter(b'%', path).find(|at| escaped(*at).is_some())?;
    let mut out = Vec::with_capacity(path.len());
    out.extend_from_slice(&path[..first]);
    let mut at = first;
    while at < path.len() {
        match escaped(at) {
            Some(slash) => {
                out.push(slash);
                at += 3;
            }
            None => {
                out.push(path[at]);
                at += 1;
            }
        }
    }
    Some(out)
}

/// Makes one slash of several. As in Envoy a path of nothing but slashes keeps its first and its last.
fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    if path.first() == Some(&b'/') {
        out.push(b'/');
    }
    let segments = path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty());
    for (index, segment) in segments.enumerate() {
        if index > 0 {
            out.push(b'/');
        }
        out.extend_from_slice(segment);
    }
    if path.last() == Some(&b'/') {
        out.push(b'/');
    }
    out
}
