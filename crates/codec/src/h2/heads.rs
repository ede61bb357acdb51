//! Heads between the library's types and ours (RFC 9113 §8): pseudo-header fields, `host`, cookies, extended
//! CONNECT, fields that belong to a connection.
//!
//! What the library judges itself (it answers RST_STREAM PROTOCOL_ERROR): pseudo-header fields that are missing,
//! unknown, repeated or late, connection-specific fields, `te` other than `trailers`, `content-length` that is
//! not the body's.

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{self, Authority, PathAndQuery, Uri};
use http::{Method, Request, Response, StatusCode, Version, request, response};
use tidegate_types::{RequestHead, ResponseHead, Scheme};

use super::options::ServerOptions;
use crate::h1::parse::{join_request_fields, join_response_fields};
use crate::h1::rules::{is_authority, is_connection_field};

/// What of the request decides how its response is read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Ordinary,
    Head,
    /// `CONNECT`: a successful response makes a tunnel.
    Connect,
    /// Extended CONNECT for this protocol (RFC 8441), which HTTP/1.1 calls an upgrade: 101 there, 200 here.
    Upgrade(Bytes),
}

impl Asked {
    pub(crate) fn of(head: &RequestHead) -> Self {
        match (&head.upgrade, &head.method) {
            (Some(protocol), _) => Self::Upgrade(protocol.clone()),
            (None, &Method::HEAD) => Self::Head,
            (None, &Method::CONNECT) => Self::Connect,
            (None, _) => Self::Ordinary,
        }
    }

    /// Whether a response has no body, whatever its fields say (RFC 9110 §6.4.1).
    pub(crate) fn is_bodiless(&self, status: StatusCode) -> bool {
        *self == Self::Head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }
}

/// A request that was read, and what it takes to serve it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) head: Box<RequestHead>,
    pub(crate) asked: Asked,
    /// Bytes of the head as RFC 9113 §10.5.1 counts them.
    pub(crate) size: u64,
    pub(crate) expects_continue: bool,
    pub(crate) verdict: Verdict,
}

/// Whether a request's head can be served. What cannot is not answered, as in Envoy: its stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Valid,
    /// It is over a limit.
    TooLarge,
    /// It breaks a rule that the library does not know (RFC 9113 §8.1.1).
    Invalid,
}

/// Reads a request's head.
pub(crate) fn request(parts: request::Parts, options: &ServerOptions) -> Received {
    let request::Parts { mut method, uri, mut headers, mut extensions, .. } = parts;
    let upgrade = extensions.remove::<Protocol>();
    let upgrade = upgrade.map(|protocol| Bytes::copy_from_slice(protocol.as_str().as_bytes()));
    let size = size_of(&headers) + uri_size(&uri);
    if headers.len() > headers.keys_len() {
        join_cookies(&mut headers);
        // Fails only for a value that no peer can make.
        let _ = join_request_fields(&mut headers);
    }
    let host = if headers.contains_key(header::HOST) { headers.remove(header::HOST) } else { None };
    // `:authority` wins over `host` (RFC 9113 §8.3.1).
    let authority = match (uri.authority(), host) {
        (Some(authority), _) => Bytes::copy_from_slice(authority.as_str().as_bytes()),
        (None, Some(host)) => Bytes::copy_from_slice(host.as_bytes()),
        (None, None) => Bytes::new(),
    };
    let path = match uri.path_and_query() {
        Some(path) if method != Method::CONNECT || upgrade.is_some() => {
            Bytes::copy_from_slice(path.as_str().as_bytes())
        }
        _ => Bytes::new(),
    };
    let expects = headers.get(header::EXPECT);
    let expects_continue = !options.proxy_100_continue
        && expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expects_continue {
        headers.remove(header::EXPECT);
    }
    if upgrade.is_some() {
        // What HTTP/1.1 would have said (RFC 8441 §5).
        method = Method::GET;
    }
    let head = Box::new(RequestHead {
        method,
        scheme: scheme(&uri).unwrap_or(options.scheme),
        authority,
        path,
        version: Version::HTTP_2,
        headers,
        upgrade,
    });
    let asked = Asked::of(&head);
    let over =
        size > u64::from(options.common.max_head_bytes) || head.headers.len() > options.common.max_headers;
    let verdict = if over {
        Verdict::TooLarge
    } else if head.authority.is_empty() || !is_authority(&head.authority) {
        Verdict::Invalid
    } else {
        Verdict::Valid
    };
    Received { head, asked, size, expects_continue, verdict }
}

fn scheme(uri: &Uri) -> Option<Scheme> {
    match uri.scheme_str()? {
        "http" => Some(Scheme::Http),
        "https" => Some(Scheme::Https),
        _ => None,
    }
}

/// Cookie crumbs become one field again (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(crumbs.join(&b"; "[..]))) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Bytes of fields, 32 for each beside its text (RFC 9113 §10.5.1).
pub(crate) fn size_of(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len() + 32) as u64).sum()
}

fn uri_size(uri: &Uri) -> u64 {
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    // Four pseudo-header fields with their names.
    (path + authority) as u64 + 4 * 40
}

/// A request's head cannot be said in HTTP/2.
#[derive(Debug)]
pub(crate) struct Unsendable;

/// Writes a request's head.
pub(crate) fn to_request(head: &RequestHead) -> Result<Request<()>, Unsendable> {
    let mut parts = uri::Parts::default();
    if !head.authority.is_empty() {
        parts.authority = Some(Authority::from_maybe_shared(head.authority.clone()).map_err(|_| Unsendable)?);
    }
    let plain_connect = head.method == Method::CONNECT && head.upgrade.is_none();
    if !plain_connect {
        let path = if head.path.is_empty() { Bytes::from_static(b"/") } else { head.path.clone() };
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(path).map_err(|_| Unsendable)?);
        if parts.authority.is_some() {
            parts.scheme = Some(match head.scheme {
                Scheme::Http => uri::Scheme::HTTP,
                Scheme::Https => uri::Scheme::HTTPS,
            });
        }
    }
    let mut request = Request::new(());
    // Without an authority the library takes a request only as one that is translated from HTTP/1.1.
    *request.version_mut() = if parts.authority.is_some() { Version::HTTP_2 } else { Version::HTTP_11 };
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Unsendable)?;
    *request.method_mut() = head.method.clone();
    *request.headers_mut() = sendable(&head.headers);
    if let Some(protocol) = &head.upgrade {
        let protocol = std::str::from_utf8(protocol).map_err(|_| Unsendable)?;
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from(protocol));
        // A tunnel has no length (RFC 9110 §9.3.6).
        request.headers_mut().remove(header::CONTENT_LENGTH);
    }
    Ok(request)
}

/// Reads a response's head, final or informational.
pub(crate) fn response(parts: response::Parts, asked: &Asked) -> ResponseHead {
    let response::Parts { mut status, mut headers, .. } = parts;
    if headers.len() > headers.keys_len() {
        let _ = join_response_fields(&mut headers);
    }
    if let (Asked::Upgrade(protocol), true) = (asked, status.is_success()) {
        status = StatusCode::SWITCHING_PROTOCOLS;
        if let Ok(protocol) = HeaderValue::from_maybe_shared(protocol.clone()) {
            headers.insert(header::UPGRADE, protocol);
        }
    }
    ResponseHead { status, version: Version::HTTP_2, headers }
}

/// Writes a response's head, final or informational.
pub(crate) fn to_response(head: &ResponseHead, asked: &Asked) -> Response<()> {
    let mut response = Response::new(());
    *response.headers_mut() = sendable(&head.headers);
    *response.status_mut() = head.status;
    if head.status == StatusCode::SWITCHING_PROTOCOLS && matches!(asked, Asked::Upgrade(_)) {
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// Trailers without fields that frame, route or belong to a connection (RFC 9110 §6.5.1).
pub(crate) fn trailers(trailers: &HeaderMap) -> HeaderMap {
    copy_without(trailers, |name, _| {
        is_connection_field(name) || matches!(*name, header::CONTENT_LENGTH | header::HOST | header::TE)
    })
}

/// The fields that may be sent: none that belongs to a connection (RFC 9113 §8.2.2), and no `host`.
fn sendable(headers: &HeaderMap) -> HeaderMap {
    copy_without(headers, |name, value| {
        *name == header::HOST || *name == header::TE && value != "trailers" || is_connection_field(name)
    })
}

fn copy_without(headers: &HeaderMap, drop: impl Fn(&HeaderName, &HeaderValue) -> bool) -> HeaderMap {
    if !headers.iter().any(|(name, value)| drop(name, value)) {
        return headers.clone();
    }
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, value)| !drop(name, value)) {
        kept.append(name, value.clone());
    }
    kept
}

#[cfg(test)]
mod tests;
