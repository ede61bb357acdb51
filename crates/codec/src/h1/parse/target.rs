//! The request target's four forms (RFC 9112 §3.2).

use bytes::Bytes;
use http::Method;
use memchr::memchr2;
use tidegate_types::Scheme;

use crate::h1::options::ServerOptions;
use crate::h1::rules::{self, Violation};

/// What a target says; the authority is given in its absolute and authority forms only.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) scheme: Option<Scheme>,
    pub(super) authority: Option<Bytes>,
    pub(super) path: Bytes,
}

impl Target {
    fn path_only(path: Bytes) -> Self {
        Self { scheme: None, authority: None, path }
    }
}

/// Parses `target`, a part of `block`.
pub(super) fn parse(
    block: &Bytes,
    target: &[u8],
    method: &Method,
    options: &ServerOptions,
) -> Result<Target, Violation> {
    if !options.allow_custom_methods && !rules::is_known_method(method) {
        return Err(Violation::Method);
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        let control = target.iter().any(|&byte| byte < b' ' && byte != b'\t' || byte == 0x7f);
        return Err(if control { Violation::Character } else { Violation::Target });
    }
    if *method == Method::CONNECT {
        // authority-form (§3.2.3): host and port, both required.
        let (host, port) = split_port(target).ok_or(Violation::Url)?;
        let valid = !host.is_empty() && rules::is_authority(target) && port.parse::<u16>().is_ok();
        return if valid {
            Ok(Target { scheme: None, authority: Some(block.slice_ref(target)), path: Bytes::new() })
        } else {
            Err(Violation::Url)
        };
    }
    // A fragment (§3.2) is refused by whoever serves the request, who answers it as a bad path.
    match target {
        [b'/', ..] => Ok(Target::path_only(block.slice_ref(target))),
        b"*" if *method == Method::OPTIONS => Ok(Target::path_only(Bytes::from_static(b"*"))),
        b"*" => Err(Violation::Url),
        _ => parse_absolute(block, target, options),
    }
}

/// absolute-form (§3.2.2): its authority replaces `Host`. Switched off, the target is taken for a path,
/// which no route matches.
fn parse_absolute(block: &Bytes, target: &[u8], options: &ServerOptions) -> Result<Target, Violation> {
    let (scheme, rest) = if let Some(rest) = strip_scheme(target, b"http://") {
        (Scheme::Http, rest)
    } else if let Some(rest) = strip_scheme(target, b"https://") {
        (Scheme::Https, rest)
    } else if memchr::memmem::find(target, b"://").is_some() {
        return Err(Violation::Scheme);
    } else {
        return Err(Violation::Target);
    };
    if !options.allow_absolute_url {
        return Ok(Target::path_only(block.slice_ref(target)));
    }
    let (authority, path) = rest.split_at(memchr2(b'/', b'?', rest).unwrap_or(rest.len()));
    // User information is not for the next hop (RFC 9110 §4.2.4).
    let authority = memchr::memrchr(b'@', authority).map_or(authority, |at| authority.split_at(at + 1).1);
    if authority.is_empty() || !rules::is_authority(authority) {
        return Err(Violation::Url);
    }
    let path = match path {
        [] => Bytes::from_static(b"/"),
        [b'?', ..] => [b"/", path].concat().into(),
        _ => block.slice_ref(path),
    };
    Ok(Target { scheme: Some(scheme), authority: Some(block.slice_ref(authority)), path })
}

fn strip_scheme<'a>(target: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn split_port(authority: &[u8]) -> Option<(&[u8], &str)> {
    let colon = memchr::memrchr(b':', authority)?;
    let port = std::str::from_utf8(authority.get(colon + 1..)?).ok()?;
    Some((authority.get(..colon)?, port))
}
