//! `HttpProtocolOptions`, and those of HTTP/1, HTTP/2 and HTTP/3, used by listeners and clusters.

use std::time::Duration;

use tidegate_types::json::Problem;

use crate::reader::{Message, Reader};
use crate::values::{Empty, Jitter};

mod http2;
mod http3;

pub(crate) use http2::FIELD_KB;
pub use http2::{Http2Keepalive, Http2Options};
pub use http3::{Http3Options, QuicKeepalive, QuicOptions};

/// `envoy.config.core.v3.HttpProtocolOptions` (`common_http_protocol_options`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommonHttpOptions {
    /// `idle_timeout`: `None` is off (0), 1 h when unset.
    pub idle_timeout: Option<Duration>,
    /// `max_connection_duration`: `None` is off (0 or unset).
    pub max_connection_duration: Option<Duration>,
    /// `max_connection_duration_jitter`, downstream only, as in Envoy.
    pub max_connection_duration_jitter: Jitter,
    /// `max_headers_count`, 100 when unset, at least 1.
    pub max_headers_count: u32,
    /// `max_response_headers_kb` in KiB, upstream only, 1 to 8192. Unset it is 80 of HTTP/1.1 and 60 of HTTP/2
    /// (measured on Envoy 1.40).
    pub max_response_headers_kb: Option<u32>,
    /// `max_stream_duration`: `None` is off (0 or unset).
    pub max_stream_duration: Option<Duration>,
    /// `headers_with_underscores_action`.
    pub headers_with_underscores_action: UnderscoreAction,
    /// `max_requests_per_connection`: `None` is no limit (0 or unset).
    pub max_requests_per_connection: Option<u32>,
}

/// `headers_with_underscores_action`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnderscoreAction {
    /// `ALLOW`.
    #[default]
    Allow,
    /// `REJECT_REQUEST`: 400.
    RejectRequest,
    /// `DROP_HEADER`.
    DropHeader,
}

/// `envoy.config.core.v3.Http1ProtocolOptions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http1Options {
    /// `allow_absolute_url`, true when unset.
    pub allow_absolute_url: bool,
    /// `accept_http_10`.
    pub accept_http_10: bool,
    /// `default_host_for_http_10`; `None`: a request without a host is a 400.
    pub default_host_for_http_10: Option<String>,
    /// `header_key_format`.
    pub header_key_format: HeaderKeyFormat,
    /// `enable_trailers`.
    pub enable_trailers: bool,
    /// `allow_chunked_length`: a request with both framings is served by its chunks, Content-Length
    /// removed.
    pub allow_chunked_length: bool,
    /// `override_stream_error_on_invalid_http_message`; `None`: the manager's setting.
    pub override_stream_error_on_invalid_http_message: Option<bool>,
    /// `allow_custom_methods`: any token is a method.
    pub allow_custom_methods: bool,
}

/// `header_key_format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HeaderKeyFormat {
    /// Lower case.
    #[default]
    Lowercase,
    /// `proper_case_words`: `Content-Type`.
    ProperCase,
    /// `stateful_formatter`, `preserve_case`: as the peer writes them, on the other side.
    PreserveCase(PreserveCase),
}

/// `envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PreserveCase {
    /// `forward_reason_phrase`: responses keep the upstream's.
    pub forward_reason_phrase: bool,
    /// `formatter_type_on_envoy_headers` is `PROPER_CASE`: for names that the peer did not write; else lower case.
    pub proper_case_on_others: bool,
}

impl Default for CommonHttpOptions {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_connection_duration_jitter: Jitter::default(),
            max_headers_count: 100,
            max_response_headers_kb: None,
            max_stream_duration: None,
            headers_with_underscores_action: UnderscoreAction::default(),
            max_requests_per_connection: None,
        }
    }
}

impl Default for Http1Options {
    fn default() -> Self {
        Self {
            allow_absolute_url: true,
            accept_http_10: false,
            default_host_for_http_10: None,
            header_key_format: HeaderKeyFormat::default(),
            enable_trailers: false,
            allow_chunked_length: false,
            override_stream_error_on_invalid_http_message: None,
            allow_custom_methods: false,
        }
    }
}

impl Message for CommonHttpOptions {
    const NAME: &'static str = "envoy.config.core.v3.HttpProtocolOptions";

    fn read(r: &Reader<'_>) -> Self {
        const UNDERSCORES: &[(&str, u32, UnderscoreAction)] = &[
            ("ALLOW", 0, UnderscoreAction::Allow),
            ("REJECT_REQUEST", 1, UnderscoreAction::RejectRequest),
            ("DROP_HEADER", 2, UnderscoreAction::DropHeader),
        ];
        let default = Self::default();
        Self {
            idle_timeout: r.duration("idle_timeout").zero_is_off(default.idle_timeout),
            max_connection_duration: r.duration("max_connection_duration").zero_is_off(None),
            max_connection_duration_jitter: Jitter::read(r, "max_connection_duration_jitter"),
            max_headers_count: r.u32("max_headers_count").positive().or(default.max_headers_count),
            max_response_headers_kb: r.u32("max_response_headers_kb").within(1..=8192).optional(),
            max_stream_duration: r.duration("max_stream_duration").zero_is_off(None),
            headers_with_underscores_action: r
                .enumeration("headers_with_underscores_action", UNDERSCORES, &[])
                .or_default(),
            max_requests_per_connection: r.u32("max_requests_per_connection").optional().filter(|n| *n > 0),
        }
    }
}

impl Message for Http1Options {
    const NAME: &'static str = "envoy.config.core.v3.Http1ProtocolOptions";

    fn read(r: &Reader<'_>) -> Self {
        r.bool("send_fully_qualified_url").only(false);
        Self {
            allow_absolute_url: r.bool("allow_absolute_url").or(true),
            accept_http_10: r.bool("accept_http_10").or_default(),
            default_host_for_http_10: r.string("default_host_for_http_10").non_empty(),
            header_key_format: r.message_or_defaults("header_key_format"),
            enable_trailers: r.bool("enable_trailers").or_default(),
            allow_chunked_length: r.bool("allow_chunked_length").or_default(),
            override_stream_error_on_invalid_http_message: r
                .bool("override_stream_error_on_invalid_http_message")
                .optional(),
            allow_custom_methods: r.bool("allow_custom_methods").or_default(),
        }
    }
}

impl Message for HeaderKeyFormat {
    const NAME: &'static str = "envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat";

    fn read(r: &Reader<'_>) -> Self {
        let proper = r.message::<Empty>("proper_case_words").optional();
        let stateful = r.message::<Stateful>("stateful_formatter").optional();
        r.exactly_one(&["proper_case_words", "stateful_formatter"]);
        match (proper, stateful) {
            (Some(_), _) => Self::ProperCase,
            (None, Some(Stateful(preserve))) => Self::PreserveCase(preserve),
            (None, None) => Self::Lowercase,
        }
    }
}

/// `stateful_formatter`.
struct Stateful(PreserveCase);

impl Message for Stateful {
    const NAME: &'static str = "envoy.config.core.v3.TypedExtensionConfig";

    fn read(r: &Reader<'_>) -> Self {
        r.may_be::<PreserveCase>();
        let Some(any) = r.extension_any() else { return Self(PreserveCase::default()) };
        if any.config.is::<PreserveCase>() {
            return Self(any.config.read(r));
        }
        let message = "this header formatter is not supported by this build";
        r.cx.report(Problem {
            expected: Some(format!("type.googleapis.com/{}", PreserveCase::NAME)),
            ..Problem::new(any.config.path.field("@type"), any.config.node.span, message)
        });
        Self(PreserveCase::default())
    }
}

impl Message for PreserveCase {
    const NAME: &'static str =
        "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig";

    fn read(r: &Reader<'_>) -> Self {
        const OTHERS: &[(&str, u32, bool)] = &[("DEFAULT", 0, false), ("PROPER_CASE", 1, true)];
        Self {
            forward_reason_phrase: r.bool("forward_reason_phrase").or_default(),
            proper_case_on_others: r.enumeration("formatter_type_on_envoy_headers", OTHERS, &[]).or_default(),
        }
    }
}
