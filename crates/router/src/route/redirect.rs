//! Redirects: from a request to a `location`.
//!
//! Envoy docs, `config.route.v3.RedirectAction`; RFC 9110 §10.2.2.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tidegate_config::route as config;
use tidegate_filter::LogContext;
use tidegate_types::RequestHead;

use super::EnvoyHeaders;
use super::rewrite::{self, Matched, PathRewrite};

/// A compiled redirect; details `direct_response`.
#[derive(Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    target: Target,
}

#[derive(Debug)]
enum Target {
    /// `require_tls`: the same URL with https, port and all.
    Tls,
    Rules(Rules),
}

#[derive(Debug)]
struct Rules {
    scheme: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<RedirectPath>,
    strip_query: bool,
}

#[derive(Debug)]
enum RedirectPath {
    Whole(String),
    Rewrite(PathRewrite),
}

impl Redirect {
    pub(crate) fn to_tls() -> Self {
        Self { status: StatusCode::MOVED_PERMANENTLY, target: Target::Tls }
    }

    pub(crate) fn compile(config: &config::Redirect, matched: Matched) -> Result<Self, String> {
        let rewrite = |rewrite: config::PathRewrite| {
            PathRewrite::compile(&rewrite, matched).map(|rewrite| rewrite.map(RedirectPath::Rewrite))
        };
        let path = match &config.path {
            None => None,
            Some(config::RedirectPath::Path(path)) if path.is_empty() => None,
            Some(config::RedirectPath::Path(path)) => Some(RedirectPath::Whole(path.clone())),
            Some(config::RedirectPath::Prefix(prefix)) => {
                rewrite(config::PathRewrite::Prefix(prefix.clone()))?
            }
            Some(config::RedirectPath::Regex(regex)) => rewrite(config::PathRewrite::Regex(regex.clone()))?,
        };
        let scheme = match &config.scheme {
            Some(config::SchemeRedirect::Https) => Some("https".to_owned()),
            Some(config::SchemeRedirect::Scheme(scheme)) => Some(scheme.clone()),
            None => None,
        };
        let rules = Rules {
            scheme: scheme.filter(|scheme| !scheme.is_empty()),
            host: config.host.clone().filter(|host| !host.is_empty()),
            port: config.port.filter(|port| *port > 0),
            path,
            strip_query: config.strip_query,
        };
        let status =
            StatusCode::from_u16(config.status).map_err(|_| format!("{} is no status", config.status))?;
        Ok(Self { status, target: Target::Rules(rules) })
    }

    /// The `location`. A path rewrite changes the head too, as in Envoy, so that access logs show it.
    pub fn location(
        &self,
        head: &mut RequestHead,
        cx: &LogContext<'_>,
        envoy: EnvoyHeaders,
    ) -> Option<HeaderValue> {
        match &self.target {
            Target::Tls => value(format!("https://{}{}", head.authority_str(), head.path_str())),
            Target::Rules(rules) => {
                if let Some(RedirectPath::Rewrite(rewrite)) = &rules.path
                    && let Some(path) = rewrite.path(&head.path, cx)
                {
                    rewrite::set_path(head, path, envoy);
                }
                rules.location(head)
            }
        }
    }
}

impl Rules {
    fn location(&self, head: &RequestHead) -> Option<HeaderValue> {
        let scheme = self.scheme.as_deref().unwrap_or(head.scheme.as_str());
        let mut out = String::with_capacity(64);
        out.push_str(scheme);
        out.push_str("://");
        out.push_str(self.host.as_deref().unwrap_or_else(|| self.request_host(head, scheme)));
        if let Some(port) = self.port {
            out.push_str(&format!(":{port}"));
        }
        let (path, query) = match &self.path {
            // Its own query is kept and the request's is not, whatever `strip_query` says.
            Some(RedirectPath::Whole(path)) if path.contains('?') => (path.as_str(), None),
            Some(RedirectPath::Whole(path)) => (path.as_str(), head.query()),
            _ => (head.path_only(), head.query()),
        };
        out.push_str(path);
        if let Some(query) = query.filter(|_| !self.strip_query) {
            out.push('?');
            out.push_str(query);
        }
        value(out)
    }

    /// The request's host; its port goes when another is given, or when it was the old scheme's own and
    /// the scheme changes.
    fn request_host<'a>(&self, head: &'a RequestHead, scheme: &str) -> &'a str {
        let host = head.authority_str();
        let Some(colon) = crate::host::port_start(host.as_bytes()) else { return host };
        let old = head.scheme.as_str();
        let own_port = matches!((old, &host[colon..]), ("http", ":80") | ("https", ":443"));
        if self.port.is_some() || (scheme != old && own_port) { &host[..colon] } else { host }
    }
}

/// The request's own URL.
pub(super) fn own_location(head: &RequestHead) -> Option<HeaderValue> {
    value(format!("{}://{}{}", head.scheme.as_str(), head.authority_str(), head.path_str()))
}

fn value(text: String) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
}
