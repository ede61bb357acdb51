//! Heads and trailers to blocks. Nothing is cloned: fields that HTTP/2 does not have are passed over.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use tidegate_types::{RequestHead, ResponseHead};

use super::asked::Asked;
use super::rules::{is_old_connection_field, is_visible};

/// A request's head cannot be said in HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("head cannot be sent over HTTP/2")]
pub(crate) struct Unsendable;

/// What turns fields into a block: HPACK, or QPACK.
pub(crate) trait WriteFields {
    /// Begins a block.
    fn begin(&mut self, out: &mut BytesMut);
    fn method(&self, out: &mut BytesMut, method: &Method);
    fn scheme(&self, out: &mut BytesMut, scheme: &[u8]);
    fn authority(&self, out: &mut BytesMut, authority: &[u8]);
    fn path(&self, out: &mut BytesMut, path: &[u8]);
    fn status(&self, out: &mut BytesMut, status: StatusCode);
    fn protocol(&self, out: &mut BytesMut, protocol: &[u8]);
    /// Whether cookies are sent one by one (RFC 9114 §4.2.1), as Envoy's library for HTTP/3 does.
    const CRUMBS: bool;

    /// Any other field; a `sensitive` one is never to be indexed by anyone.
    fn field(&self, out: &mut BytesMut, name: &HeaderName, value: &[u8], sensitive: bool);
}

/// Writes a request's head as one block. Nothing is written if it fails.
pub(crate) fn write_request(
    encoder: &mut impl WriteFields,
    out: &mut BytesMut,
    head: &RequestHead,
) -> Result<(), Unsendable> {
    let plain_connect = head.method == Method::CONNECT && head.upgrade.is_none();
    let protocol = head.upgrade.as_deref();
    // Filters write heads too. Empty is what has a default or is left out.
    let visible = is_visible(&head.authority) && is_visible(&head.path) && protocol.is_none_or(is_visible);
    if !visible || plain_connect && head.authority.is_empty() {
        return Err(Unsendable);
    }
    encoder.begin(out);
    let method = if head.upgrade.is_some() { &Method::CONNECT } else { &head.method };
    let path = if head.path.is_empty() { b"/" } else { &head.path[..] };
    // An HTTP/2 client's order and Envoy's for others; both are Envoy's on the wire.
    if matches!(head.version, Version::HTTP_2 | Version::HTTP_3) {
        encoder.method(out, method);
        if !plain_connect {
            encoder.scheme(out, head.scheme.as_str().as_bytes());
        }
        write_authority(encoder, out, head);
        if !plain_connect {
            encoder.path(out, path);
        }
    } else {
        write_authority(encoder, out, head);
        if !plain_connect {
            encoder.path(out, path);
        }
        encoder.method(out, method);
        if !plain_connect {
            encoder.scheme(out, head.scheme.as_str().as_bytes());
        }
    }
    if let Some(protocol) = protocol {
        encoder.protocol(out, protocol);
    }
    // A tunnel has no length (RFC 9110 §9.3.6).
    write_fields(encoder, out, &head.headers, *method == Method::CONNECT);
    Ok(())
}

fn write_authority(encoder: &impl WriteFields, out: &mut BytesMut, head: &RequestHead) {
    if !head.authority.is_empty() {
        encoder.authority(out, &head.authority);
    }
}

/// Writes a response's head, final or informational, as one block.
pub(crate) fn write_response(
    encoder: &mut impl WriteFields,
    out: &mut BytesMut,
    head: &ResponseHead,
    asked: &Asked,
) {
    encoder.begin(out);
    let upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS && matches!(asked, Asked::Upgrade(_));
    encoder.status(out, if upgraded { StatusCode::OK } else { head.status });
    write_fields(encoder, out, &head.headers, upgraded);
}

/// Writes trailers as one block, without fields that frame, route or belong to a connection (RFC 9110 §6.5.1).
pub(crate) fn write_trailers(encoder: &mut impl WriteFields, out: &mut BytesMut, trailers: &HeaderMap) {
    encoder.begin(out);
    for (name, value) in trailers {
        if *name != header::TE && *name != header::CONTENT_LENGTH && is_sent(name, value) {
            encoder.field(out, name, value.as_bytes(), value.is_sensitive());
        }
    }
}

fn write_fields<W: WriteFields>(encoder: &W, out: &mut BytesMut, headers: &HeaderMap, tunnel: bool) {
    for (name, value) in headers {
        if !is_sent(name, value) || tunnel && *name == header::CONTENT_LENGTH {
            continue;
        }
        if W::CRUMBS && *name == header::COOKIE {
            write_crumbs(encoder, out, value);
        } else {
            encoder.field(out, name, value.as_bytes(), value.is_sensitive());
        }
    }
}

fn write_crumbs(encoder: &impl WriteFields, out: &mut BytesMut, cookies: &HeaderValue) {
    let mut rest = cookies.as_bytes();
    while let Some(at) = memchr::memmem::find(rest, b"; ") {
        encoder.field(out, &header::COOKIE, rest.get(..at).unwrap_or_default(), cookies.is_sensitive());
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    encoder.field(out, &header::COOKIE, rest, cookies.is_sensitive());
}

/// Whether HTTP/2 has this field: none that belongs to a connection (RFC 9113 §8.2.2), and no `host`.
fn is_sent(name: &HeaderName, value: &HeaderValue) -> bool {
    match *name {
        header::HOST | header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => false,
        header::TE => value == "trailers",
        _ => !is_old_connection_field(name),
    }
}
