//! The proxy's own answers as messages: text, `local_reply_config`, gRPC.

mod templates;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tidegate_filter::{LocalReply, LogContext};
use tidegate_types::{RequestHead, ResponseHead, StreamInfo};

use crate::hcm::Hcm;

pub(crate) use templates::ReplyTemplates;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The message for `reply`.
pub(crate) fn render(
    hcm: &Hcm,
    reply: &LocalReply,
    request: Option<&RequestHead>,
    info: &StreamInfo,
) -> (ResponseHead, Bytes) {
    let mut head = ResponseHead::new(reply.status);
    for (name, value) in &reply.headers {
        head.headers.append(name.clone(), value.clone());
    }
    let mut body = reply.body.clone();
    let mut content_type = None;
    info.response_code.set(reply.status.as_u16());
    if !hcm.replies.is_empty() {
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        let cx = LogContext {
            request,
            response: Some(&head),
            response_trailers: None,
            local_reply_body: &text,
            info,
        };
        let rendered = hcm.replies.render(&cx, &reply.body);
        if let Some(status) = rendered.status {
            head.status = status;
        }
        let text = String::from_utf8_lossy(&rendered.body).into_owned();
        let cx =
            LogContext { request, response: None, response_trailers: None, local_reply_body: &text, info };
        rendered.add_headers(&mut head, &cx);
        (body, content_type) = (rendered.body, rendered.content_type);
    }
    if request.is_some_and(RequestHead::is_grpc) {
        return (grpc(head, &body, reply.grpc_status), Bytes::new());
    }
    if !body.is_empty() {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let own_type = reply.headers.iter().any(|(name, _)| *name == CONTENT_TYPE);
        let text = HeaderValue::from_static("text/plain");
        match content_type {
            Some(value) => _ = head.headers.insert(CONTENT_TYPE, value),
            None if own_type => {}
            None => _ = head.headers.insert(CONTENT_TYPE, text),
        }
    }
    (head, body)
}

/// A trailers-only response (gRPC over HTTP/2 protocol, "Responses").
fn grpc(mut head: ResponseHead, body: &Bytes, status: Option<u32>) -> ResponseHead {
    let code = status.unwrap_or_else(|| grpc_status(head.status));
    let mut headers = HeaderMap::new();
    // In Envoy's order: what the reply has of its own goes first.
    for (name, value) in &head.headers {
        if *name != CONTENT_TYPE && *name != CONTENT_LENGTH {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(code));
    if !body.is_empty()
        && let Ok(message) = HeaderValue::from_maybe_shared(Bytes::from(percent_encode(body)))
    {
        headers.insert(GRPC_MESSAGE, message);
    }
    head.headers = headers;
    head.status = StatusCode::OK;
    head
}

/// gRPC docs, "HTTP to gRPC Status Code Mapping".
fn grpc_status(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// `grpc-message` keeps printable ASCII but `%` (gRPC over HTTP/2 protocol, "Percent-Encoded").
fn percent_encode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b' '..=b'~' if *byte != b'%' => out.push(*byte),
            _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_answer_carries_status_and_text_in_fields() {
        let head = ResponseHead::new(StatusCode::SERVICE_UNAVAILABLE);
        let head = grpc(head, &Bytes::from_static(b"100% gone\n"), None);
        assert_eq!(head.status, 200);
        assert_eq!(head.headers[GRPC_STATUS], "14");
        assert_eq!(head.headers[GRPC_MESSAGE], "100%25 gone%0A");
    }

    #[test]
    fn statuses_map_as_grpc_says() {
        let mapped = [400, 401, 403, 404, 429, 502, 503, 504, 200, 500]
            .map(|code| grpc_status(StatusCode::from_u16(code).unwrap()));
        assert_eq!(mapped, [13, 16, 7, 12, 14, 14, 14, 14, 2, 2]);
    }
}
