//! `HealthCheck.HttpHealthCheck`.

use http::Method;

use crate::reader::{Message, Reader};
use crate::route::{HeaderMutations, HeaderToAdd, removable_names};
use crate::values::StringMatcher;

use super::payload::Payload;

/// A request and what is expected of its response.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpCheck {
    /// `path`.
    pub path: String,
    /// `host`; empty when unset: the cluster's name.
    pub host: String,
    /// `method`, GET when unset.
    pub method: Method,
    /// `send`: the request's body; empty when unset.
    pub send: Vec<u8>,
    /// `receive`: what the body must hold, in this order, with anything in between.
    pub receive: Vec<Vec<u8>>,
    /// `response_buffer_size`, 1024 when unset: how much of the body is looked at; `None` (0): all of it.
    pub response_buffer_size: Option<u64>,
    /// `request_headers_to_add` and `request_headers_to_remove`.
    pub headers: HeaderMutations,
    /// `expected_statuses`, 200 when unset.
    pub expected_statuses: StatusRanges,
    /// `retriable_statuses`: unexpected ones that count towards `unhealthy_threshold`; others decide at once.
    pub retriable_statuses: StatusRanges,
    /// `codec_client_type`.
    pub protocol: CheckProtocol,
    /// `service_name_matcher`: what `x-envoy-upstream-healthchecked-cluster` of the response must be.
    pub service_name: Option<StringMatcher>,
}

/// What a check speaks, whatever the cluster does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CheckProtocol {
    /// `HTTP1`.
    #[default]
    Http1,
    /// `HTTP2`.
    Http2,
}

/// Half-open ranges of statuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusRanges(Vec<(u16, u16)>);

impl StatusRanges {
    /// Whether `status` is in one of them.
    pub fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|(start, end)| (*start..*end).contains(&status))
    }
}

impl Message for HttpCheck {
    const NAME: &'static str = "envoy.config.core.v3.HealthCheck.HttpHealthCheck";

    fn read(r: &Reader<'_>) -> Self {
        const PROTOCOLS: &[(&str, u32, CheckProtocol)] =
            &[("HTTP1", 0, CheckProtocol::Http1), ("HTTP2", 1, CheckProtocol::Http2)];
        let method = method(r);
        let send = r.message::<Payload>("send").check(|_| match method {
            Method::POST | Method::PUT | Method::PATCH | Method::OPTIONS => Ok(()),
            _ => {
                Err(format!("a request with method {method} has no body: choose POST, PUT, PATCH or OPTIONS"))
            }
        });
        let size = r.u64("response_buffer_size").or(1024);
        let receive = r.repeated::<Payload>("receive").check(|payloads| {
            let expected: usize = payloads.iter().map(|payload| payload.0.len()).sum();
            match size > 0 && expected as u64 > size {
                true => Err(format!("{expected} bytes are more than `response_buffer_size` ({size})")),
                false => Ok(()),
            }
        });
        let expected = statuses(r, "expected_statuses");
        let headers = HeaderMutations {
            request_add: r.repeated::<HeaderToAdd>("request_headers_to_add").or_default(),
            request_remove: removable_names(r, "request_headers_to_remove"),
            ..HeaderMutations::default()
        };
        Self {
            path: r.string("path").check(|value| header_value(value)).required_non_empty(),
            host: r.string("host").check(|value| header_value(value)).or_default(),
            method: method.clone(),
            send: send.optional().map(|payload| payload.0).unwrap_or_default(),
            receive: receive.or_default().into_iter().map(|payload| payload.0).collect(),
            response_buffer_size: Some(size).filter(|size| *size > 0),
            headers,
            expected_statuses: if expected.0.is_empty() { StatusRanges(vec![(200, 201)]) } else { expected },
            retriable_statuses: statuses(r, "retriable_statuses"),
            protocol: r.enumeration("codec_client_type", PROTOCOLS, &[("HTTP3", 2)]).or_default(),
            service_name: r.message("service_name_matcher").optional(),
        }
    }
}

fn method(r: &Reader<'_>) -> Method {
    const METHODS: &[(&str, u32, usize)] = &[
        ("METHOD_UNSPECIFIED", 0, 0),
        ("GET", 1, 0),
        ("HEAD", 2, 1),
        ("POST", 3, 2),
        ("PUT", 4, 3),
        ("DELETE", 5, 4),
        ("OPTIONS", 7, 5),
        ("TRACE", 8, 6),
        ("PATCH", 9, 7),
    ];
    let all = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    let chosen = r.enumeration("method", METHODS, &[("CONNECT", 6)]).or_default();
    all.get(chosen).cloned().unwrap_or_default()
}

fn statuses(r: &Reader<'_>, name: &'static str) -> StatusRanges {
    StatusRanges(r.repeated::<(u16, u16)>(name).or_default())
}

impl Message for (u16, u16) {
    const NAME: &'static str = "envoy.type.v3.Int64Range";

    fn read(r: &Reader<'_>) -> Self {
        let (start, end) = (r.i64("start").or_default(), r.i64("end").or_default());
        if start >= end || start < 100 || end > 600 {
            r.problem(format!(
                "`start` ({start}) must be at least 100 and below `end` ({end}), `end` at most 600"
            ));
        }
        (start.try_into().unwrap_or_default(), end.try_into().unwrap_or_default())
    }
}

/// What may stand in a header (RFC 9110 §5.5).
pub(super) fn header_value(value: &str) -> Result<(), String> {
    match http::HeaderValue::from_str(value) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{value:?} cannot stand in a header")),
    }
}
