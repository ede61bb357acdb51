//! `redirect` and `direct_response`: answers that the proxy gives itself.

use bytes::Bytes;

use crate::hcm::BodyFormat;
use crate::reader::{Message, Reader};
use crate::values::{DataSource, RegexRewrite};

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

impl Message for Redirect {
    const NAME: &'static str = "envoy.config.route.v3.RedirectAction";

    fn read(r: &Reader<'_>) -> Self {
        const CODES: &[(&str, u32, u16)] = &[
            ("MOVED_PERMANENTLY", 0, 301),
            ("FOUND", 1, 302),
            ("SEE_OTHER", 2, 303),
            ("TEMPORARY_REDIRECT", 3, 307),
            ("PERMANENT_REDIRECT", 4, 308),
        ];
        r.at_most_one(&["https_redirect", "scheme_redirect"]);
        r.at_most_one(&["path_redirect", "prefix_rewrite", "regex_rewrite"]);
        let https = r.bool("https_redirect").or_default().then_some(SchemeRedirect::Https);
        let scheme = r.string("scheme_redirect").non_empty().map(SchemeRedirect::Scheme);
        let path = r.string("path_redirect").non_empty().map(RedirectPath::Path);
        let prefix = r.string("prefix_rewrite").optional().map(RedirectPath::Prefix);
        let regex = r.message("regex_rewrite").optional().map(RedirectPath::Regex);
        let port = r.u32("port_redirect").within(0..=65535).optional();
        Self {
            scheme: https.or(scheme),
            host: r.string("host_redirect").non_empty(),
            port: port.and_then(|port| port.try_into().ok()).filter(|port| *port != 0),
            path: path.or(prefix).or(regex),
            status: r.enumeration("response_code", CODES, &[]).or(301),
            strip_query: r.bool("strip_query").or_default(),
        }
    }
}

impl Message for DirectResponse {
    const NAME: &'static str = "envoy.config.route.v3.DirectResponseAction";

    fn read(r: &Reader<'_>) -> Self {
        let status = r.u32("status").within(200..=599).required();
        let limit = r.cx.direct_response_limit.get() as usize;
        let body = r.message::<DataSource>("body").check(|body| {
            let size = body.bytes.len();
            let most = "max_direct_response_body_size_bytes";
            if size > limit { Err(format!("the body has {size} bytes, `{most}` is {limit}")) } else { Ok(()) }
        });
        Self {
            status: status.try_into().unwrap_or_default(),
            body: body.optional().map(|body| body.bytes),
            body_format: r.message("body_format").optional(),
        }
    }
}
