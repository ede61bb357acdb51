//! What the manager does to path and host before a route is chosen.

use crate::reader::Reader;

/// What happens to path and host before routing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Normalization {
    /// `normalize_path` (RFC 3986 §6.2.2), off when unset.
    pub normalize_path: bool,
    /// `merge_slashes`.
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`.
    pub escaped_slashes: EscapedSlashes,
    /// `strip_matching_host_port`, `strip_any_host_port`.
    pub strip_port: StripPort,
    /// `strip_trailing_host_dot`.
    pub strip_trailing_host_dot: bool,
}

/// Which port of the Host header is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StripPort {
    /// None.
    #[default]
    Keep,
    /// `strip_matching_host_port`: the listener's own port.
    Matching,
    /// `strip_any_host_port`.
    Any,
}

/// `path_with_escaped_slashes_action`: what `%2F` and `%5C` in a path do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// `KEEP_UNCHANGED`, and the default.
    #[default]
    KeepUnchanged,
    /// `REJECT_REQUEST`: 400.
    RejectRequest,
    /// `UNESCAPE_AND_REDIRECT`: 307.
    UnescapeAndRedirect,
    /// `UNESCAPE_AND_FORWARD`.
    UnescapeAndForward,
}

impl Normalization {
    /// Its fields of the manager that `r` reads.
    pub(super) fn read(r: &Reader<'_>) -> Self {
        const ESCAPED: &[(&str, u32, EscapedSlashes)] = &[
            ("IMPLEMENTATION_SPECIFIC_DEFAULT", 0, EscapedSlashes::KeepUnchanged),
            ("KEEP_UNCHANGED", 1, EscapedSlashes::KeepUnchanged),
            ("REJECT_REQUEST", 2, EscapedSlashes::RejectRequest),
            ("UNESCAPE_AND_REDIRECT", 3, EscapedSlashes::UnescapeAndRedirect),
            ("UNESCAPE_AND_FORWARD", 4, EscapedSlashes::UnescapeAndForward),
        ];
        let matching = r.bool("strip_matching_host_port").or_default();
        let any = r.bool("strip_any_host_port");
        if matching && any.peek() == Some(&true) {
            any.report("`strip_any_host_port` cannot be set together with `strip_matching_host_port`", None);
        }
        Self {
            normalize_path: r.bool("normalize_path").or_default(),
            merge_slashes: r.bool("merge_slashes").or_default(),
            escaped_slashes: r.enumeration("path_with_escaped_slashes_action", ESCAPED, &[]).or_default(),
            strip_port: match (matching, any.or_default()) {
                (_, true) => StripPort::Any,
                (true, false) => StripPort::Matching,
                (false, false) => StripPort::Keep,
            },
            strip_trailing_host_dot: r.bool("strip_trailing_host_dot").or_default(),
        }
    }
}
