//! `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.

use std::sync::Arc;
use std::time::Duration;

use tidegate_types::json::TypedConfig;

use crate::RouteConfig;
use crate::access_log::{AccessLogConfig, AccessLogOptions};
use crate::protocol::{CommonHttpOptions, Http1Options};

mod local_reply;

pub use local_reply::{BodyFormat, LocalReplyConfig, ReplyFormat, ResponseMapper};

/// A validated HTTP connection manager.
#[derive(Debug, Clone, PartialEq)]
pub struct HcmConfig {
    /// `stat_prefix`, never empty.
    pub stat_prefix: String,
    /// `codec_type`.
    pub codec_type: CodecType,
    /// `route_config`.
    pub route_config: Arc<RouteConfig>,
    /// `http_filters` in request order; the last one is the router.
    pub http_filters: Vec<HttpFilterConfig>,
    /// `common_http_protocol_options`.
    pub common: CommonHttpOptions,
    /// `http_protocol_options`.
    pub http1: Http1Options,
    /// Times that bound requests, streams and closes.
    pub timeouts: HcmTimeouts,
    /// Whom to believe about the client.
    pub client: ClientAddress,
    /// Path and host normalisation before routing.
    pub normalization: Normalization,
    /// `x-request-id` handling.
    pub request_id: RequestIdConfig,
    /// `add_user_agent`.
    pub add_user_agent: bool,
    /// `server_name`, `envoy` when unset.
    pub server_name: String,
    /// `server_header_transformation`.
    pub server_header: ServerHeader,
    /// `scheme_header_transformation.scheme_to_overwrite`: `http` or `https`.
    pub scheme_override: Option<String>,
    /// `max_request_headers_kb` in KiB, 60 when unset, 1 to 8192.
    pub max_request_headers_kb: u32,
    /// `access_log`.
    pub access_log: Vec<AccessLogConfig>,
    /// `access_log_options`.
    pub access_log_options: AccessLogOptions,
    /// `via`; empty adds none.
    pub via: String,
    /// `proxy_100_continue`: the upstream's own 100 reaches the client; else the proxy answers 100.
    pub proxy_100_continue: bool,
    /// `upgrade_configs`.
    pub upgrades: Vec<UpgradeConfig>,
    /// `local_reply_config`.
    pub local_reply: LocalReplyConfig,
    /// `stream_error_on_invalid_http_message`.
    pub stream_error_on_invalid_http_message: bool,
}

/// `codec_type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CodecType {
    /// `AUTO`: HTTP/1.1 in this build.
    #[default]
    Auto,
    /// `HTTP1`.
    Http1,
}

/// One entry of `http_filters`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpFilterConfig {
    /// Name and `typed_config`. `name` is the key of `typed_per_filter_config`.
    pub config: TypedConfig,
    /// `disabled` unless a route's configuration enables it.
    pub disabled: bool,
    /// `is_optional`: an unknown `@type` skips the filter.
    pub is_optional: bool,
}

/// The manager's times. `None` is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HcmTimeouts {
    /// `stream_idle_timeout`, 5 min when unset.
    pub stream_idle: Option<Duration>,
    /// `stream_flush_timeout`, `stream_idle` when unset.
    pub stream_flush: Option<Duration>,
    /// `request_timeout`, off when unset.
    pub request: Option<Duration>,
    /// `request_headers_timeout`, 15 s when unset (deviations, row 2; Envoy: off), off when 0.
    pub request_headers: Option<Duration>,
    /// `drain_timeout`, 5 s when unset; 0 closes at once.
    pub drain: Duration,
    /// `delayed_close_timeout`, 1 s when unset.
    pub delayed_close: Option<Duration>,
    /// `http1_safe_max_connection_duration`: announce the close instead of closing on the age limit.
    pub http1_safe_max_connection_duration: bool,
}

/// Where the client's address comes from and what is said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAddress {
    /// `use_remote_address`: the peer is the client; false when unset.
    pub use_remote_address: bool,
    /// `xff_num_trusted_hops`.
    pub xff_num_trusted_hops: u32,
    /// `skip_xff_append`.
    pub skip_xff_append: bool,
    /// `append_x_forwarded_port`.
    pub append_x_forwarded_port: bool,
    /// `represent_ipv4_remote_address_as_ipv4_mapped_ipv6`.
    pub represent_ipv4_as_mapped_ipv6: bool,
    /// `internal_address_config`; `None`: Envoy 1.40 trusts no address, only Unix-domain sockets.
    pub internal_addresses: Option<InternalAddresses>,
}

/// `internal_address_config`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InternalAddresses {
    /// `unix_sockets`.
    pub unix_sockets: bool,
    /// `cidr_ranges`.
    pub cidr_ranges: Vec<CidrRange>,
}

/// `envoy.config.core.v3.CidrRange`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CidrRange {
    /// `address_prefix`.
    pub address: std::net::IpAddr,
    /// `prefix_len`, at most 32 or 128.
    pub prefix_len: u8,
}

/// What happens to path and host before routing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Normalization {
    /// `normalize_path` (RFC 3986 §6.2.2), off when unset.
    pub normalize_path: bool,
    /// `merge_slashes`.
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`.
    pub escaped_slashes: EscapedSlashes,
    /// `strip_matching_host_port`, `strip_any_host_port`.
    pub strip_port: StripPort,
    /// `strip_trailing_host_dot`.
    pub strip_trailing_host_dot: bool,
}

/// Which port of the Host header is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StripPort {
    /// None.
    #[default]
    Keep,
    /// `strip_matching_host_port`: the listener's own port.
    Matching,
    /// `strip_any_host_port`.
    Any,
}

/// `path_with_escaped_slashes_action`: what `%2F` and `%5C` in a path do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// `KEEP_UNCHANGED`, and the default.
    #[default]
    KeepUnchanged,
    /// `REJECT_REQUEST`: 400.
    RejectRequest,
    /// `UNESCAPE_AND_REDIRECT`: 307.
    UnescapeAndRedirect,
    /// `UNESCAPE_AND_FORWARD`.
    UnescapeAndForward,
}

/// `x-request-id` handling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestIdConfig {
    /// `generate_request_id`, true when unset.
    pub generate: bool,
    /// `preserve_external_request_id`.
    pub preserve_external: bool,
    /// `always_set_request_id_in_response`.
    pub always_set_in_response: bool,
    /// `request_id_extension` (UUID) `pack_trace_reason`, true when unset.
    pub pack_trace_reason: bool,
}

/// `server_header_transformation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServerHeader {
    /// `OVERWRITE`.
    #[default]
    Overwrite,
    /// `APPEND_IF_ABSENT`.
    AppendIfAbsent,
    /// `PASS_THROUGH`.
    PassThrough,
}

/// An entry of `upgrade_configs`, on the manager or a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeConfig {
    /// `upgrade_type`, compared without case: `websocket`.
    pub upgrade_type: String,
    /// `enabled`, true when unset.
    pub enabled: bool,
}
