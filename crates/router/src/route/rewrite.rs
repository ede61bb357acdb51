//! Path and host rewrites.
//!
//! Envoy docs, `config.route.v3.RouteAction`: `prefix_rewrite`, `regex_rewrite`, `path_rewrite`,
//! `host_rewrite_*`, `append_x_forwarded_host`. The query survives every rewrite.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use regex::Regex;
use tidegate_config::route as config;
use tidegate_config::values::RegexRewrite as RegexConfig;
use tidegate_filter::{Format, LogContext, Missing};
use tidegate_types::RequestHead;

use super::{EnvoyHeaders, ORIGINAL_PATH};
use crate::table::matcher::part_regex;

const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// `RegexMatchAndSubstitute`, its RE2 substitution translated.
#[derive(Debug)]
pub(crate) struct RegexRewrite {
    regex: Regex,
    substitution: String,
}

impl RegexRewrite {
    pub(crate) fn compile(config: &RegexConfig) -> Result<Self, String> {
        let regex = part_regex(&config.pattern)?;
        let mut substitution = String::with_capacity(config.substitution.len());
        let mut chars = config.substitution.chars();
        while let Some(c) = chars.next() {
            match (c, c == '\\') {
                ('$', _) => substitution.push_str("$$"),
                (_, true) => match chars.next() {
                    Some('\\') => substitution.push('\\'),
                    Some(digit) if digit.is_ascii_digit() => {
                        let group = digit.to_digit(10).unwrap_or_default();
                        if usize::try_from(group).is_ok_and(|group| group >= regex.captures_len()) {
                            return Err(format!(
                                "substitution names group {group}, which the regex does not have"
                            ));
                        }
                        substitution.push_str(&format!("${{{group}}}"));
                    }
                    _ => return Err("substitution: `\\` must be followed by a digit or `\\`".to_owned()),
                },
                (c, false) => substitution.push(c),
            }
        }
        Ok(Self { regex, substitution })
    }

    /// Every match replaced; `None` when nothing matches.
    pub(crate) fn replace(&self, text: &str) -> Option<String> {
        match self.regex.replace_all(text, self.substitution.as_str()) {
            std::borrow::Cow::Borrowed(_) => None,
            std::borrow::Cow::Owned(text) => Some(text),
        }
    }
}

/// How the path changes.
#[derive(Debug)]
pub(crate) enum PathRewrite {
    /// Replaces what the route's path condition matched.
    Prefix {
        matched: Matched,
        rewrite: String,
    },
    Regex(RegexRewrite),
    Format(Format),
}

/// How much of a path the route's condition matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matched {
    /// That many bytes.
    Prefix(usize),
    /// All but the query.
    Whole,
}

impl PathRewrite {
    pub(crate) fn compile(config: &config::PathRewrite, matched: Matched) -> Result<Option<Self>, String> {
        Ok(match config {
            config::PathRewrite::Prefix(rewrite) if rewrite.is_empty() => None,
            config::PathRewrite::Prefix(rewrite) => Some(Self::Prefix { matched, rewrite: rewrite.clone() }),
            config::PathRewrite::Regex(rewrite) => Some(Self::Regex(RegexRewrite::compile(rewrite)?)),
            config::PathRewrite::Format(text) => {
                Some(Self::Format(Format::parse(text).map_err(|error| error.to_string())?))
            }
        })
    }

    pub(crate) fn is_format(&self) -> bool {
        matches!(self, Self::Format(_))
    }

    /// The new path with the old query; `None` when a format yields nothing.
    pub(crate) fn path(&self, path: &Bytes, cx: &LogContext<'_>) -> Option<Bytes> {
        let query_start = memchr::memchr2(b'?', b'#', path).unwrap_or(path.len());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (mut new, rest) = match self {
            Self::Prefix { matched: Matched::Prefix(length), rewrite } => {
                (rewrite.clone(), path.get(*length..)?)
            }
            Self::Prefix { matched: Matched::Whole, rewrite } => (rewrite.clone(), &path[query_start..]),
            Self::Regex(rewrite) => {
                let old = text(&path[..query_start]);
                (rewrite.replace(&old).unwrap_or(old), &path[query_start..])
            }
            Self::Format(format) => {
                let mut new = String::new();
                format.write_with(cx, Missing::Nothing, &mut new);
                if new.is_empty() {
                    return None;
                }
                (new, &path[query_start..])
            }
        };
        new.push_str(&text(rest));
        Some(new.into())
    }
}

/// How the host changes.
#[derive(Debug)]
pub(crate) enum HostRewrite {
    Literal(Bytes),
    Auto,
    Header(HeaderName),
    PathRegex(RegexRewrite),
    Format(Format),
}

impl HostRewrite {
    pub(crate) fn compile(config: &config::HostRewrite) -> Result<Option<Self>, String> {
        Ok(Some(match config {
            config::HostRewrite::Literal(host) if host.is_empty() => return Ok(None),
            config::HostRewrite::Literal(host) => Self::Literal(host.clone().into()),
            config::HostRewrite::Auto => Self::Auto,
            config::HostRewrite::Header(name) => {
                Self::Header(name.parse().map_err(|_| format!("`{name}` is no header name"))?)
            }
            config::HostRewrite::PathRegex(rewrite) => Self::PathRegex(RegexRewrite::compile(rewrite)?),
            config::HostRewrite::Format(text) => {
                Self::Format(Format::parse(text).map_err(|error| error.to_string())?)
            }
        }))
    }

    pub(crate) fn is_format(&self) -> bool {
        matches!(self, Self::Format(_))
    }

    /// The new host; `None` when there is none to be had from the request.
    pub(crate) fn host(&self, head: &RequestHead, cx: &LogContext<'_>) -> Option<Bytes> {
        let host: Bytes = match self {
            Self::Literal(host) => host.clone(),
            Self::Auto => return None,
            Self::Header(name) => Bytes::copy_from_slice(head.header(name)?.as_bytes()),
            Self::PathRegex(rewrite) => {
                let path = head.path_only();
                rewrite.replace(path).unwrap_or_else(|| path.to_owned()).into()
            }
            Self::Format(format) => {
                let mut host = String::new();
                format.write_with(cx, Missing::Nothing, &mut host);
                host.into()
            }
        };
        (!host.is_empty()).then_some(host)
    }
}

/// Replaces the path, keeping the old one in `x-envoy-original-path`.
pub(crate) fn set_path(head: &mut RequestHead, path: Bytes, envoy: EnvoyHeaders) {
    let old = std::mem::replace(&mut head.path, path);
    if envoy == EnvoyHeaders::Add
        && let Ok(value) = HeaderValue::from_maybe_shared(old)
    {
        head.headers.insert(ORIGINAL_PATH, value);
    }
}

/// Replaces the host, keeping the old one.
pub(crate) fn set_host(head: &mut RequestHead, host: Bytes, envoy: EnvoyHeaders, append: bool) {
    let old = std::mem::replace(&mut head.authority, host);
    let Ok(value) = HeaderValue::from_maybe_shared(old) else { return };
    if value.is_empty() {
        return;
    }
    if envoy == EnvoyHeaders::Add {
        head.headers.insert(ORIGINAL_HOST, value.clone());
    }
    if append {
        append_forwarded_host(head, value);
    }
}

/// Adds to `x-forwarded-host`, unless the last one there is the same.
fn append_forwarded_host(head: &mut RequestHead, host: HeaderValue) {
    let all = match head.headers.get(&FORWARDED_HOST) {
        None => host,
        Some(before) if before.is_empty() => host,
        Some(before) => {
            let last = before.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
            if last == host.as_bytes() {
                return;
            }
            let joined = [before.as_bytes(), host.as_bytes()].join(&b',');
            match HeaderValue::from_maybe_shared(Bytes::from(joined)) {
                Ok(joined) => joined,
                Err(_) => return,
            }
        }
    };
    head.headers.insert(FORWARDED_HOST, all);
}
