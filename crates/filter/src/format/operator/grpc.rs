//! `GRPC_STATUS`: the status of a gRPC call, from its trailers, its head, or its HTTP status.
//!
//! gRPC docs, "HTTP to gRPC Status Code Mapping"; Envoy docs, "Command operators".

use http::{HeaderMap, HeaderName};

use crate::LogContext;
use crate::format::value::Value;

/// How a status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format) enum GrpcStyle {
    /// `DeadlineExceeded`
    Camel,
    /// `DEADLINE_EXCEEDED`
    Snake,
    /// `4`
    Number,
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

impl GrpcStyle {
    pub(super) fn parse(argument: Option<&str>) -> Result<Self, String> {
        match argument.unwrap_or("CAMEL_STRING") {
            "" | "CAMEL_STRING" => Ok(Self::Camel),
            "SNAKE_STRING" => Ok(Self::Snake),
            "NUMBER" => Ok(Self::Number),
            other => Err(format!("`{other}` is not `CAMEL_STRING`, `SNAKE_STRING` or `NUMBER`")),
        }
    }

    pub(super) fn value(self, cx: &LogContext<'_>) -> Value<'static> {
        let Some(status) = status(cx) else { return Value::Missing };
        let names = usize::try_from(status).ok().and_then(|index| NAMES.get(index));
        match (self, names) {
            (Self::Number, _) => Value::Number(status),
            (Self::Camel, Some((camel, _))) => Value::text(camel),
            (Self::Snake, Some((_, snake))) => Value::text(snake),
            (Self::Camel | Self::Snake, None) => Value::Number(status),
        }
    }
}

fn status(cx: &LogContext<'_>) -> Option<u64> {
    if !cx.request.is_some_and(|head| head.is_grpc()) {
        return None;
    }
    cx.grpc_status()
}

impl LogContext<'_> {
    /// The gRPC status: of the trailers, of the head, or what the HTTP status amounts to, as of any request that has
    /// one.
    pub fn grpc_status(&self) -> Option<u64> {
        let of = |headers: &HeaderMap| headers.get(&GRPC_STATUS)?.to_str().ok()?.trim().parse().ok();
        self.response_trailers
            .and_then(of)
            .or_else(|| self.response.and_then(|head| of(&head.headers)))
            .or_else(|| from_http(self.info.response_code.get()))
    }
}

fn from_http(code: u16) -> Option<u64> {
    Some(match code {
        0 => return None,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    })
}

const NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];
