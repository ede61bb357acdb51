//! `grpc_health_check`: `grpc.health.v1.Health/Check`
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use tidegate_cluster::stream::ClientStream;
use tidegate_types::{EndStream, RequestHead, Scheme};

use super::exchange::Response;
use super::{Answer, Site};
use crate::active::plan::GrpcPlan;
use crate::active::session::Failure;

/// The longest answer that is looked at: one with a status has seven bytes.
pub(super) const MOST: usize = 4096;

/// Sends the request.
pub(super) fn ask(plan: &GrpcPlan, stream: &mut dyn ClientStream, site: &Site<'_>) {
    let path = "/grpc.health.v1.Health/Check";
    let mut head = RequestHead::new(Method::POST, site.authority.to_owned(), path);
    head.version = Version::HTTP_2;
    head.scheme = if site.secure { Scheme::Https } else { Scheme::Http };
    head.headers.insert(TE, HeaderValue::from_static("trailers"));
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.insert(USER_AGENT, super::http::AGENT);
    plan.headers.apply(&mut head, &site.host.address());
    if let Ok(timeout) = HeaderValue::from_str(&plan.timeout) {
        head.headers.insert("grpc-timeout", timeout);
    }
    stream.send_head(&head, EndStream::No);
    stream.send_data(plan.body.clone(), EndStream::Yes);
}

/// What the response says, as soon as it does.
pub(super) fn judge(response: &Response) -> Option<Answer> {
    let head = response.head.as_ref()?;
    let failed = Some(Answer::fail(Failure::Answer { retriable: false, status: 0 }));
    let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let is_grpc =
        content_type.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest, [] | [b'+', ..]));
    if head.status != StatusCode::OK || !is_grpc {
        return failed;
    }
    if !response.complete {
        // One message is allowed (Envoy: "unexpected streaming"), and more than is kept is not it.
        return if is_too_much(&response.body) { failed } else { None };
    }
    let status = match (&response.trailers, response.body.is_empty()) {
        (Some(trailers), _) => grpc_status(trailers),
        // No message: trailers only.
        (None, true) => grpc_status(&head.headers),
        (None, false) => None,
    };
    if status == Some(0) && is_serving(&response.body) { Some(Answer::pass(false)) } else { failed }
}

fn grpc_status(fields: &HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A prefix whose message is followed by more, or is longer than what is kept.
fn is_too_much(body: &[u8]) -> bool {
    match body.first_chunk::<5>() {
        Some(&[_, a, b, c, d]) => {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            length > MOST - 5 || body.len() > 5 + length
        }
        None => false,
    }
}

/// `HealthCheckResponse { status = 1 }` with `SERVING`, not compressed.
fn is_serving(body: &[u8]) -> bool {
    let Some((&[flags, a, b, c, d], message)) = body.split_first_chunk::<5>() else { return false };
    let whole = u32::from_be_bytes([a, b, c, d]) as usize == message.len();
    flags == 0 && whole && status_of(message) == Some(SERVING)
}

/// Field 1 of a protobuf message, the last one if there are several; 0 if there is none.
fn status_of(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

const SERVING: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_serving_is_well() {
        assert!(is_serving(&[0, 0, 0, 0, 2, 8, 1]));
        assert!(!is_serving(&[0, 0, 0, 0, 2, 8, 2]));
        assert!(!is_serving(&[0, 0, 0, 0, 0]));
        assert!(!is_serving(&[1, 0, 0, 0, 2, 8, 1]));
        assert!(!is_serving(&[0, 0, 0, 0, 3, 8, 1]));
        // An unknown field before it.
        assert!(is_serving(&[0, 0, 0, 0, 6, 0x12, 2, b'h', b'i', 8, 1]));
        assert!(!is_serving(&[0, 0, 0, 0, 2, 8, 0x80]));
    }

    #[test]
    fn more_than_one_message_is_too_much() {
        assert!(!is_too_much(&[0, 0, 0, 0, 2, 8]));
        assert!(!is_too_much(&[0, 0, 0, 0, 2, 8, 1]));
        assert!(is_too_much(&[0, 0, 0, 0, 2, 8, 1, 0]));
        assert!(is_too_much(&[0, 0xff, 0, 0, 0]));
    }
}
