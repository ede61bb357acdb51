//! Messages to bytes: heads, bodies and trailers, always serialised anew and never copied through.
//!
//! Sans-IO. Names go out in lower case, as Envoy writes them, in proper case, or as they came. A value cannot hold CR,
//! LF or NUL (`HeaderValue` guarantees it), so no message can be split. Start from [`response_head`] and
//! [`request_head`]; they give the [`Encoder`] of the body.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode, Version};
use tidegate_types::{EndStream, OtherNames, RequestHead, ResponseHead, WrittenNames};

use super::body::Trailers;
use super::options::NameCase;
use super::output::Output;
use super::rules::{self, Asked};

/// Writes one message's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// The message has no body: bytes are dropped.
    None,
    /// This many bytes are still due.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// The body ends with the connection.
    UntilClose,
    /// Not HTTP any more.
    Tunnel,
    /// The end was written.
    Done,
    /// The caller gave another length than it announced: the message must stay visibly incomplete.
    Broken,
}

impl Encoder {
    /// Whether the message is complete.
    pub(crate) fn is_done(self) -> bool {
        self == Self::Done
    }

    /// Appends body bytes.
    pub(crate) fn data(&mut self, output: &mut Output, data: Bytes, end: EndStream) {
        match self {
            Self::None | Self::Done | Self::Broken => {}
            Self::Length(left) => {
                let len = data.len() as u64;
                if len > *left {
                    // Bytes beyond the announced length would be read as the next message.
                    *self = Self::Broken;
                    return;
                }
                *left -= len;
                output.push(data);
            }
            Self::Chunked => {
                if !data.is_empty() {
                    chunk_size(output.text(data.len().min(1024) + 32), data.len());
                    output.push(data);
                    let ending: &[u8] = if end.is_end() { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                    output.text(ending.len()).extend_from_slice(ending);
                    if end.is_end() {
                        *self = Self::Done;
                    }
                } else if end.is_end() {
                    output.text(5).extend_from_slice(b"0\r\n\r\n");
                }
            }
            Self::UntilClose | Self::Tunnel => output.push(data),
        }
        if end.is_end() {
            *self = match *self {
                Self::Length(left) if left > 0 => Self::Broken,
                Self::Broken => Self::Broken,
                _ => Self::Done,
            };
        }
    }

    /// Appends trailers, which end the message; only the chunked coding has them.
    pub(crate) fn trailers(&mut self, output: &mut Output, trailers: &HeaderMap, keep: Trailers) {
        if *self != Self::Chunked || keep == Trailers::Drop {
            return self.data(output, Bytes::new(), EndStream::Yes);
        }
        let text = output.text(64 * trailers.len() + 8);
        text.extend_from_slice(b"0\r\n");
        // In lower case, whatever the head's case is, as Envoy has it.
        fields(text, trailers, Names::Lower, |name| {
            !rules::is_connection_field(name)
                && !matches!(*name, header::CONTENT_LENGTH | header::HOST | header::TE)
        });
        text.extend_from_slice(b"\r\n");
        *self = Self::Done;
    }
}

/// How the names of a head's fields are written.
#[derive(Clone, Copy)]
enum Names<'a> {
    Lower,
    Proper,
    /// As the peer wrote them from which the head comes.
    Written(&'a WrittenNames),
}

impl<'a> Names<'a> {
    /// What the head brings along comes before the connection's own setting, as in Envoy.
    fn of(written: Option<&'a WrittenNames>, case: NameCase) -> Self {
        match (written, case) {
            (Some(written), _) => Self::Written(written),
            (None, NameCase::Lower) => Self::Lower,
            (None, NameCase::Proper) => Self::Proper,
        }
    }
}

/// What the connection knows about the exchange when the response's head is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponseContext {
    pub(crate) asked: Asked,
    /// The client's version.
    pub(crate) version: Version,
    /// Whether the connection ends after this response.
    pub(crate) close: bool,
    pub(crate) case: NameCase,
}

/// Writes a final response head; the status line says the version that the client spoke, as Envoy does.
pub(crate) fn response_head(
    output: &mut Output,
    head: &ResponseHead,
    end: EndStream,
    cx: ResponseContext,
) -> Encoder {
    let names = Names::of(head.names.as_deref(), cx.case);
    let text = output.text(128 + 48 * head.headers.len());
    status_line(text, cx.version, head);
    let tunnel = cx.asked.makes_tunnel(head.status);
    if tunnel && head.status == StatusCode::SWITCHING_PROTOCOLS {
        switching_fields(text, head, names);
        return if end.is_end() { Encoder::Done } else { Encoder::Tunnel };
    }
    let bodiless = head.status == StatusCode::NO_CONTENT || head.status.is_informational();
    let mut has_length = None;
    fields_inspected(text, &head.headers, names, |name, value| {
        if *name != header::CONTENT_LENGTH {
            return !rules::is_connection_field(name);
        }
        // Neither a tunnel nor a 1xx or 204 has a length (RFC 9110 §8.6).
        let valid = !tunnel && !bodiless && has_length.is_none();
        let length = rules::parse_length(value).filter(|_| valid);
        has_length = has_length.or(length);
        length.is_some()
    });
    if tunnel {
        text.extend_from_slice(b"\r\n");
        return if end.is_end() { Encoder::Done } else { Encoder::Tunnel };
    }
    if cx.close {
        field(text, &header::CONNECTION, b"close", names);
    } else if cx.version == Version::HTTP_10 {
        // Asked for, and to be confirmed (RFC 9112 §C.2.2).
        field(text, &header::CONNECTION, b"keep-alive", names);
    }
    let mut encoder = match has_length {
        _ if bodiless || head.status == StatusCode::NOT_MODIFIED => Encoder::None,
        Some(_) if cx.asked == Asked::Head => Encoder::None,
        Some(length) => Encoder::Length(length),
        // What the answer to GET would have had, as Envoy says it.
        None if cx.asked == Asked::Head => {
            if cx.version == Version::HTTP_11 {
                field(text, &header::TRANSFER_ENCODING, b"chunked", names);
            }
            Encoder::None
        }
        None if end.is_end() => {
            field(text, &header::CONTENT_LENGTH, b"0", names);
            Encoder::Length(0)
        }
        None if cx.version == Version::HTTP_11 => {
            field(text, &header::TRANSFER_ENCODING, b"chunked", names);
            Encoder::Chunked
        }
        None => Encoder::UntilClose,
    };
    text.extend_from_slice(b"\r\n");
    if end.is_end() {
        encoder.data(output, Bytes::new(), EndStream::Yes);
    }
    encoder
}

/// The fields of a 101, which says what is upgraded where the upstream did: HTTP/2's in Envoy's words.
fn switching_fields(text: &mut BytesMut, head: &ResponseHead, names: Names<'_>) {
    let of_http2 = head.version == Version::HTTP_2;
    let named = head.headers.contains_key(header::CONNECTION);
    for (name, value) in &head.headers {
        if *name == header::UPGRADE {
            if !of_http2 && !named {
                field(text, &header::CONNECTION, b"Upgrade", names);
            }
            field(text, name, value.as_bytes(), names);
            if of_http2 && !named {
                field(text, &header::CONNECTION, b"upgrade", names);
            }
        } else if *name == header::CONNECTION
            || *name != header::CONTENT_LENGTH && !rules::is_connection_field(name)
        {
            field(text, name, value.as_bytes(), names);
        }
    }
    if !named && !head.headers.contains_key(header::UPGRADE) {
        field(text, &header::CONNECTION, b"Upgrade", names);
    }
    text.extend_from_slice(b"\r\n");
}

/// Whether this response can only end with its connection.
pub(crate) fn ends_with_connection(
    head: &ResponseHead,
    end: EndStream,
    asked: Asked,
    version: Version,
) -> bool {
    version == Version::HTTP_10
        && !end.is_end()
        && asked != Asked::Head
        && !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        && !head.headers.contains_key(header::CONTENT_LENGTH)
}

/// Writes a 1xx head other than 101.
pub(crate) fn informational_head(output: &mut Output, head: &ResponseHead, case: NameCase) {
    let names = Names::of(head.names.as_deref(), case);
    let text = output.text(64 + 48 * head.headers.len());
    status_line(text, Version::HTTP_11, head);
    fields(text, &head.headers, names, |name| {
        !rules::is_connection_field(name) && *name != header::CONTENT_LENGTH
    });
    text.extend_from_slice(b"\r\n");
}

/// Writes a request head.
pub(crate) fn request_head(
    output: &mut Output,
    head: &RequestHead,
    end: EndStream,
    case: NameCase,
) -> Encoder {
    let names = Names::of(head.names.as_deref(), case);
    let connect = head.method == Method::CONNECT;
    let text = output.text(128 + head.path.len() + 48 * head.headers.len());
    text.extend_from_slice(head.method.as_str().as_bytes());
    text.extend_from_slice(b" ");
    let target = if connect { &head.authority } else { &head.path };
    target_bytes(text, if target.is_empty() { b"/" } else { target });
    text.extend_from_slice(b" HTTP/1.1\r\n");
    field_text(text, &header::HOST, &head.authority, names);
    let tunnel = connect || head.upgrade.is_some();
    let upgrade = head.upgrade.as_ref().filter(|_| !connect);
    // Where an HTTP/1.1 client put them.
    let has = |name| head.headers.contains_key(name);
    let in_place = upgrade.is_some() && has(header::UPGRADE) && has(header::CONNECTION);
    let mut length = None;
    fields_inspected(text, &head.headers, names, |name, value| {
        if in_place && matches!(*name, header::CONNECTION | header::UPGRADE) {
            return true;
        }
        if *name != header::CONTENT_LENGTH {
            return *name != header::HOST && !rules::is_connection_field(name);
        }
        let parsed = rules::parse_length(value).filter(|_| !tunnel && length.is_none());
        length = length.or(parsed);
        parsed.is_some()
    });
    if let Some(protocol) = upgrade.filter(|_| !in_place) {
        // Of an HTTP/2 client in Envoy's words.
        let option: &[u8] = if head.version == Version::HTTP_2 { b"upgrade" } else { b"Upgrade" };
        field(text, &header::CONNECTION, option, names);
        field_text(text, &header::UPGRADE, protocol, names);
    }
    let mut encoder = match length {
        _ if tunnel => Encoder::Tunnel,
        Some(length) => Encoder::Length(length),
        None if end.is_end() => {
            // A body is what the other methods are for (RFC 9110 §8.6).
            let expects_none = matches!(
                head.method,
                Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT | Method::TRACE
            );
            if !expects_none {
                field(text, &header::CONTENT_LENGTH, b"0", names);
            }
            Encoder::Length(0)
        }
        None => {
            field(text, &header::TRANSFER_ENCODING, b"chunked", names);
            Encoder::Chunked
        }
    };
    text.extend_from_slice(b"\r\n");
    if end.is_end() && !tunnel {
        encoder.data(output, Bytes::new(), EndStream::Yes);
    }
    encoder
}

fn status_line(text: &mut BytesMut, version: Version, head: &ResponseHead) {
    let status = head.status;
    text.extend_from_slice(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    text.extend_from_slice(status.as_str().as_bytes());
    text.extend_from_slice(b" ");
    match &head.names {
        Some(names) if !names.reason.is_empty() => text.extend_from_slice(&names.reason),
        _ => text.extend_from_slice(reason_phrase(status).as_bytes()),
    }
    text.extend_from_slice(b"\r\n");
}

/// Envoy's phrases: it does not know all codes.
fn reason_phrase(status: StatusCode) -> &'static str {
    match status.as_u16() {
        103 | 418 | 451 => "Unknown",
        203 => "Non-Authoritative Information",
        _ => status.canonical_reason().unwrap_or("Unknown"),
    }
}

fn fields(
    text: &mut BytesMut,
    headers: &HeaderMap,
    names: Names<'_>,
    mut keep: impl FnMut(&HeaderName) -> bool,
) {
    fields_inspected(text, headers, names, |name, _| keep(name));
}

fn fields_inspected(
    text: &mut BytesMut,
    headers: &HeaderMap,
    names: Names<'_>,
    mut keep: impl FnMut(&HeaderName, &[u8]) -> bool,
) {
    for (name, value) in headers {
        if keep(name, value.as_bytes()) {
            field(text, name, value.as_bytes(), names);
        }
    }
}

fn field(text: &mut BytesMut, name: &HeaderName, value: &[u8], names: Names<'_>) {
    let name = name.as_str().as_bytes();
    text.reserve(name.len() + value.len() + 4);
    match names {
        Names::Lower => text.extend_from_slice(name),
        Names::Proper => proper_case(text, name),
        Names::Written(written) => match (written.find(name), written.others) {
            (Some(name), _) => text.extend_from_slice(name),
            (None, OtherNames::Lower) => text.extend_from_slice(name),
            (None, OtherNames::Proper) => proper_case(text, name),
        },
    }
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

fn proper_case(text: &mut BytesMut, name: &[u8]) {
    let start = text.len();
    text.extend_from_slice(name);
    let mut word_start = true;
    for byte in text.iter_mut().skip(start) {
        if word_start {
            byte.make_ascii_uppercase();
        }
        word_start = !byte.is_ascii_alphanumeric();
    }
}

/// A field whose value is not a `HeaderValue`: what could end the line early is left out.
fn field_text(text: &mut BytesMut, name: &HeaderName, value: &Bytes, names: Names<'_>) {
    if value.iter().all(|&byte| byte >= b' ' && byte != 0x7f) {
        field(text, name, value, names);
    } else {
        let clean: Vec<u8> = value.iter().copied().filter(|&byte| byte >= b' ' && byte != 0x7f).collect();
        field(text, name, &clean, names);
    }
}

/// A request target; a rewrite that put a space or a control character in must not end it early.
fn target_bytes(text: &mut BytesMut, target: &[u8]) {
    if target.iter().all(u8::is_ascii_graphic) {
        text.extend_from_slice(target);
        return;
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in target {
        if byte.is_ascii_graphic() {
            text.extend_from_slice(&[byte]);
        } else {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            text.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

fn chunk_size(text: &mut BytesMut, size: usize) {
    let mut digits = [0_u8; 16];
    let mut rest = size;
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef".get(rest & 15).copied().unwrap_or(b'0');
        start -= 1;
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    text.extend_from_slice(digits.get(start..).unwrap_or_default());
    text.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
