//! `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.

use std::sync::Arc;
use std::time::Duration;

use tidegate_types::json::TypedConfig;

use crate::RouteConfig;
use crate::access_log::{AccessLogConfig, AccessLogOptions, access_logs};
use crate::protocol::{CommonHttpOptions, Http1Options};
use crate::reader::{Message, Reader, Space};

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

impl Message for HcmConfig {
    const NAME: &'static str =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

    fn read(r: &Reader<'_>) -> Self {
        const CODECS: &[(&str, u32, CodecType)] =
            &[("AUTO", 0, CodecType::Auto), ("HTTP1", 1, CodecType::Http1)];
        const SERVER: &[(&str, u32, ServerHeader)] = &[
            ("OVERWRITE", 0, ServerHeader::Overwrite),
            ("APPEND_IF_ABSENT", 1, ServerHeader::AppendIfAbsent),
            ("PASS_THROUGH", 2, ServerHeader::PassThrough),
        ];
        const CERTIFICATES: &[(&str, u32)] =
            &[("FORWARD_ONLY", 1), ("APPEND_FORWARD", 2), ("SANITIZE_SET", 3), ("ALWAYS_FORWARD_ONLY", 4)];
        r.enumeration("forward_client_cert_details", &[("SANITIZE", 0, ())], CERTIFICATES).or_default();
        let route_config = r.message::<RouteConfig>("route_config");
        r.exactly_one(&["route_config"]);
        Self {
            stat_prefix: r.string("stat_prefix").required_non_empty(),
            codec_type: r.enumeration("codec_type", CODECS, &[("HTTP2", 2), ("HTTP3", 3)]).or_default(),
            route_config: Arc::new(route_config.optional().unwrap_or_else(|| r.cx.empty())),
            http_filters: http_filters(r),
            common: r.message_or_defaults("common_http_protocol_options"),
            http1: r.message_or_defaults("http_protocol_options"),
            timeouts: HcmTimeouts::read(r),
            client: ClientAddress::read(r),
            normalization: Normalization::read(r),
            request_id: RequestIdConfig::read(r),
            add_user_agent: r.bool("add_user_agent").or_default(),
            server_name: r.string("server_name").non_empty().unwrap_or_else(|| "envoy".to_owned()),
            server_header: r.enumeration("server_header_transformation", SERVER, &[]).or_default(),
            scheme_override: r
                .message::<SchemeTransformation>("scheme_header_transformation")
                .optional()
                .and_then(|transformation| transformation.0),
            max_request_headers_kb: r.u32("max_request_headers_kb").within(1..=8192).or(60),
            access_log: access_logs(r),
            access_log_options: r.message_or_defaults("access_log_options"),
            via: r.string("via").or_default(),
            proxy_100_continue: r.bool("proxy_100_continue").or_default(),
            upgrades: upgrades::<HcmUpgrade>(r),
            local_reply: r.message_or_defaults("local_reply_config"),
            stream_error_on_invalid_http_message: r.bool("stream_error_on_invalid_http_message").or_default(),
        }
    }
}

impl HcmTimeouts {
    fn read(r: &Reader<'_>) -> Self {
        let stream_idle = r.duration("stream_idle_timeout").zero_is_off(Some(Duration::from_secs(300)));
        Self {
            stream_idle,
            stream_flush: r.duration("stream_flush_timeout").zero_is_off(stream_idle),
            request: r.duration("request_timeout").zero_is_off(None),
            request_headers: r.duration("request_headers_timeout").zero_is_off(Some(Duration::from_secs(15))),
            drain: r.duration("drain_timeout").or(Duration::from_secs(5)),
            delayed_close: r.duration("delayed_close_timeout").zero_is_off(Some(Duration::from_secs(1))),
            http1_safe_max_connection_duration: r.bool("http1_safe_max_connection_duration").or_default(),
        }
    }
}

impl ClientAddress {
    fn read(r: &Reader<'_>) -> Self {
        Self {
            use_remote_address: r.bool("use_remote_address").or_default(),
            xff_num_trusted_hops: r.u32("xff_num_trusted_hops").or_default(),
            skip_xff_append: r.bool("skip_xff_append").or_default(),
            append_x_forwarded_port: r.bool("append_x_forwarded_port").or_default(),
            represent_ipv4_as_mapped_ipv6: r
                .bool("represent_ipv4_remote_address_as_ipv4_mapped_ipv6")
                .or_default(),
            internal_addresses: r.message("internal_address_config").optional(),
        }
    }
}

impl Message for InternalAddresses {
    const NAME: &'static str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.InternalAddressConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            unix_sockets: r.bool("unix_sockets").or_default(),
            cidr_ranges: r.repeated("cidr_ranges").or_default(),
        }
    }
}

impl Normalization {
    fn read(r: &Reader<'_>) -> Self {
        const ESCAPED: &[(&str, u32, EscapedSlashes)] = &[
            ("IMPLEMENTATION_SPECIFIC_DEFAULT", 0, EscapedSlashes::KeepUnchanged),
            ("KEEP_UNCHANGED", 1, EscapedSlashes::KeepUnchanged),
            ("REJECT_REQUEST", 2, EscapedSlashes::RejectRequest),
            ("UNESCAPE_AND_REDIRECT", 3, EscapedSlashes::UnescapeAndRedirect),
            ("UNESCAPE_AND_FORWARD", 4, EscapedSlashes::UnescapeAndForward),
        ];
        let matching = r.bool("strip_matching_host_port").or_default();
        let any = r.bool("strip_any_host_port");
        if matching && any.peek() == Some(&true) {
            any.report("`strip_any_host_port` cannot be set together with `strip_matching_host_port`", None);
        }
        Self {
            normalize_path: r.bool("normalize_path").or_default(),
            merge_slashes: r.bool("merge_slashes").or_default(),
            escaped_slashes: r.enumeration("path_with_escaped_slashes_action", ESCAPED, &[]).or_default(),
            strip_port: match (matching, any.or_default()) {
                (_, true) => StripPort::Any,
                (true, false) => StripPort::Matching,
                (false, false) => StripPort::Keep,
            },
            strip_trailing_host_dot: r.bool("strip_trailing_host_dot").or_default(),
        }
    }
}

impl RequestIdConfig {
    fn read(r: &Reader<'_>) -> Self {
        Self {
            generate: r.bool("generate_request_id").or(true),
            preserve_external: r.bool("preserve_external_request_id").or_default(),
            always_set_in_response: r.bool("always_set_request_id_in_response").or_default(),
            pack_trace_reason: r
                .message::<RequestIdExtension>("request_id_extension")
                .optional()
                .is_none_or(|x| x.0),
        }
    }
}

/// `request_id_extension`: the UUID one, and whether it packs the trace reason.
struct RequestIdExtension(bool);

impl Message for RequestIdExtension {
    const NAME: &'static str =
        "envoy.extensions.filters.network.http_connection_manager.v3.RequestIDExtension";

    fn read(r: &Reader<'_>) -> Self {
        r.may_be::<Uuid>();
        let any = r.any("typed_config");
        if any.peek().is_some_and(|any| !any.is::<Uuid>()) {
            let expected = format!("type.googleapis.com/{}", Uuid::NAME);
            any.report("this request id extension is not supported by this build", Some(expected));
            return Self(true);
        }
        Self(any.optional().is_none_or(|any| any.read::<Uuid>(r).0))
    }
}

struct Uuid(bool);

impl Message for Uuid {
    const NAME: &'static str = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.bool("pack_trace_reason").or(true))
    }
}

struct SchemeTransformation(Option<String>);

impl Message for SchemeTransformation {
    const NAME: &'static str = "envoy.config.core.v3.SchemeHeaderTransformation";

    fn read(r: &Reader<'_>) -> Self {
        let scheme = r.string("scheme_to_overwrite").check(|scheme| match scheme.as_str() {
            "http" | "https" => Ok(()),
            other => Err(format!("`{other}` is neither `http` nor `https`")),
        });
        Self(scheme.optional())
    }
}

fn http_filters(r: &Reader<'_>) -> Vec<HttpFilterConfig> {
    r.repeated::<Option<HttpFilterConfig>>("http_filters").or_default().into_iter().flatten().collect()
}

impl Message for Option<HttpFilterConfig> {
    const NAME: &'static str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter";

    fn read(r: &Reader<'_>) -> Self {
        let disabled = r.bool("disabled").or_default();
        let is_optional = r.bool("is_optional").or_default();
        Some(HttpFilterConfig { config: r.extension()?, disabled, is_optional })
    }
}

/// The two messages that [`UpgradeConfig`] is read from; they differ in what this build does not support.
pub(crate) struct HcmUpgrade(UpgradeConfig);

impl Message for HcmUpgrade {
    const NAME: &'static str =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(UpgradeConfig::read(r))
    }
}

pub(crate) struct RouteUpgrade(UpgradeConfig);

impl Message for RouteUpgrade {
    const NAME: &'static str = "envoy.config.route.v3.RouteAction.UpgradeConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self(UpgradeConfig::read(r))
    }
}

impl From<HcmUpgrade> for UpgradeConfig {
    fn from(upgrade: HcmUpgrade) -> Self {
        upgrade.0
    }
}

impl From<RouteUpgrade> for UpgradeConfig {
    fn from(upgrade: RouteUpgrade) -> Self {
        upgrade.0
    }
}

impl UpgradeConfig {
    fn read(r: &Reader<'_>) -> Self {
        let kind = r.string("upgrade_type").convert(|kind| {
            let connect = kind.eq_ignore_ascii_case("connect") || kind.eq_ignore_ascii_case("connect-udp");
            if connect {
                Err(format!("the upgrade `{kind}` is known to Envoy, but not supported by this build"))
            } else {
                Ok(kind.to_ascii_lowercase())
            }
        });
        Self {
            upgrade_type: kind.unique(Space::Upgrade).required_non_empty(),
            enabled: r.bool("enabled").or(true),
        }
    }
}

/// The field `upgrade_configs`; types are unique in it.
pub(crate) fn upgrades<T: Message + Into<UpgradeConfig>>(r: &Reader<'_>) -> Vec<UpgradeConfig> {
    r.cx.forget(Space::Upgrade);
    r.repeated::<T>("upgrade_configs").or_default().into_iter().map(Into::into).collect()
}
