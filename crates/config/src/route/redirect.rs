//! `redirect` and `direct_response`: answers that the proxy gives itself.

use bytes::Bytes;

use crate::hcm::BodyFormat;
use crate::values::RegexRewrite;

/// `envoy.config.route.v3.RedirectAction`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `https_redirect` or `scheme_redirect`.
    pub scheme: Option<SchemeRedirect>,
    /// `host_redirect`; may hold a port.
    pub host: Option<String>,
    /// `port_redirect`.
    pub port: Option<u16>,
    /// The path oneof.
    pub path: Option<RedirectPath>,
    /// `response_code`: 301 (default), 302, 303, 307 or 308.
    pub status: u16,
    /// `strip_query`.
    pub strip_query: bool,
}

/// The scheme oneof of a redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemeRedirect {
    /// `https_redirect: true`.
    Https,
    /// `scheme_redirect`.
    Scheme(String),
}

/// The path oneof of a redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPath {
    /// `path_redirect`: replaces path and, if it has one, query.
    Path(String),
    /// `prefix_rewrite`.
    Prefix(String),
    /// `regex_rewrite`.
    Regex(RegexRewrite),
}

/// `envoy.config.route.v3.DirectResponseAction`.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectResponse {
    /// `status`, 200 to 599.
    pub status: u16,
    /// `body`, no longer than the table's `max_direct_response_body_size_bytes`.
    pub body: Option<Bytes>,
    /// `body_format`.
    pub body_format: Option<BodyFormat>,
}
