//! `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.

use std::sync::Arc;
use std::time::Duration;

use tidegate_types::Scheme;
use tidegate_types::json::{Problem, TypedConfig};

use crate::RouteConfig;
use crate::access_log::{AccessLogConfig, access_logs};
use crate::discovery::Rds;
use crate::protocol::{CommonHttpOptions, FIELD_KB, Http1Options, Http2Options, Http3Options, QuicOptions};
use crate::reader::{Message, Reader};
use crate::values::{Jitter, TimeoutOverride};

mod client;
mod client_cert;
mod local_reply;
mod normalization;
mod request_id;
mod upgrade;

pub use client::{CidrRange, ClientAddress, InternalAddresses};
pub use client_cert::{ClientCertConfig, ClientCertDetails, ForwardClientCert};
pub use local_reply::{BodyFormat, LocalReplyConfig, ReplyFormat, ResponseMapper};
pub use normalization::{EscapedSlashes, Normalization, StripPort};
pub use request_id::RequestIdConfig;
pub(crate) use upgrade::{RouteUpgrade, upgrades};
pub use upgrade::{TunnelEnd, UpgradeConfig};

use upgrade::HcmUpgrade;

/// A validated HTTP connection manager.
#[derive(Debug, Clone, PartialEq)]
pub struct HcmConfig {
    /// `stat_prefix`, never empty.
    pub stat_prefix: String,
    /// `codec_type`.
    pub codec_type: CodecType,
    /// `route_config`; with `rds` an empty one.
    pub route_config: Arc<RouteConfig>,
    /// `rds`: the table is in a file of its own.
    pub rds: Option<Rds>,
    /// `http_filters` in request order; the last one is the router.
    pub http_filters: Vec<HttpFilterConfig>,
    /// `common_http_protocol_options`.
    pub common: CommonHttpOptions,
    /// `http_protocol_options`.
    pub http1: Http1Options,
    /// `http2_protocol_options`.
    pub http2: Http2Options,
    /// `http3_protocol_options`.
    pub http3: Http3Options,
    /// Times that bound requests, streams and closes.
    pub timeouts: HcmTimeouts,
    /// Whom to believe about the client.
    pub client: ClientAddress,
    /// What becomes of `x-forwarded-client-cert`.
    pub client_cert: ClientCertConfig,
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
    /// `scheme_header_transformation`.
    pub scheme: SchemeTransformation,
    /// `max_request_headers_kb` in KiB, 60 when unset, 1 to 8192.
    pub max_request_headers_kb: u32,
    /// `access_log`.
    pub access_log: Vec<AccessLogConfig>,
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
    /// `append_local_overload`: requests that the overload manager refuses are told so in
    /// `x-envoy-local-overloaded`.
    pub append_local_overload: bool,
}

/// `codec_type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CodecType {
    /// `AUTO`: HTTP/2 by ALPN (`h2`) or by its connection preface, else HTTP/1.1.
    #[default]
    Auto,
    /// `HTTP1`.
    Http1,
    /// `HTTP2`: what does not begin with the connection preface is a protocol error.
    Http2,
    /// `HTTP3`: over QUIC, and only there.
    Http3,
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
    /// `stream_flush_timeout`, `stream_idle_timeout` when unset: for streams whose protocol lets a peer hold back
    /// what a codec has buffered (HTTP/2, HTTP/3). HTTP/1 has nothing that it could act on.
    pub stream_flush: TimeoutOverride,
    /// `request_timeout`, off when unset.
    pub request: Option<Duration>,
    /// `request_headers_timeout`; what holds when it is unset is up to the connection manager.
    pub request_headers: TimeoutOverride,
    /// `drain_timeout`, 5 s when unset; 0 closes at once.
    pub drain: Duration,
    /// `drain_timeout_jitter`.
    pub drain_jitter: Jitter,
    /// `delayed_close_timeout`, 1 s when unset.
    pub delayed_close: Option<Duration>,
    /// `http1_safe_max_connection_duration`: announce the close instead of closing on the age limit.
    pub http1_safe_max_connection_duration: bool,
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

impl Message for HcmConfig {
    const NAME: &'static str =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

    fn read(r: &Reader<'_>) -> Self {
        const CODECS: &[(&str, u32, CodecType)] = &[
            ("AUTO", 0, CodecType::Auto),
            ("HTTP1", 1, CodecType::Http1),
            ("HTTP2", 2, CodecType::Http2),
            ("HTTP3", 3, CodecType::Http3),
        ];
        const SERVER: &[(&str, u32, ServerHeader)] = &[
            ("OVERWRITE", 0, ServerHeader::Overwrite),
            ("APPEND_IF_ABSENT", 1, ServerHeader::AppendIfAbsent),
            ("PASS_THROUGH", 2, ServerHeader::PassThrough),
        ];
        let http_filters = http_filters(r);
        let route_config = r.message::<RouteConfig>("route_config");
        let router = http_filters.iter().find(|filter| filter.config.message_name() == ROUTER);
        if let (Some(table), Some(router)) = (route_config.peek(), router) {
            routers_name(r, table, &router.config.name);
        }
        let rds = r.message::<Option<Rds>>("rds").optional().flatten();
        r.exactly_one(&["route_config", "rds"]);
        let max_request_headers_kb = r.u32("max_request_headers_kb").within(1..=8192).or(60);
        Self {
            stat_prefix: r.string("stat_prefix").required_non_empty(),
            codec_type: r.enumeration("codec_type", CODECS, &[]).or_default(),
            route_config: Arc::new(route_config.optional().unwrap_or_else(|| r.cx.empty())),
            rds,
            http_filters,
            common: r.message_or_defaults("common_http_protocol_options"),
            http1: r.message_or_defaults("http_protocol_options"),
            http2: http2(r, max_request_headers_kb),
            http3: http3(r),
            timeouts: HcmTimeouts::read(r),
            client: ClientAddress::read(r),
            client_cert: ClientCertConfig::read(r),
            normalization: Normalization::read(r),
            request_id: RequestIdConfig::read(r),
            add_user_agent: r.bool("add_user_agent").or_default(),
            server_name: r.string("server_name").non_empty().unwrap_or_else(|| "envoy".to_owned()),
            server_header: r.enumeration("server_header_transformation", SERVER, &[]).or_default(),
            scheme: r.message_or_defaults("scheme_header_transformation"),
            max_request_headers_kb,
            access_log: access_logs(r),
            via: r.string("via").or_default(),
            proxy_100_continue: r.bool("proxy_100_continue").or_default(),
            upgrades: upgrades::<HcmUpgrade>(r),
            local_reply: r.message_or_defaults("local_reply_config"),
            stream_error_on_invalid_http_message: r.bool("stream_error_on_invalid_http_message").or_default(),
            append_local_overload: r.bool("append_local_overload").or_default(),
        }
    }
}

/// The manager's options of HTTP/2, with what the manager says of them.
fn http2(r: &Reader<'_>, heads: u32) -> Http2Options {
    let mut http2: Http2Options = r.message_or_defaults("http2_protocol_options");
    if http2.max_header_field_size_kb.is_some_and(|field| FIELD_KB.contains(&field) && field > heads) {
        r.problem(format!(
            "`max_header_field_size_kb` is more than `max_request_headers_kb`, which is {heads}"
        ));
    }
    if http2.stream_error_on_invalid_http_messaging && !r.has("stream_error_on_invalid_http_message") {
        http2.override_stream_error_on_invalid_http_message.get_or_insert(true);
    }
    http2
}

/// The manager's options of HTTP/3. Envoy says nothing of those that it does not look at.
fn http3(r: &Reader<'_>) -> Http3Options {
    let http3: Http3Options = r.message_or_defaults("http3_protocol_options");
    let effective = QuicOptions { keepalive: http3.quic.keepalive, ..QuicOptions::default() };
    if http3.quic != effective {
        tracing::warn!(target: "config",
            "{}: of `http3_protocol_options.quic_protocol_options` only `connection_keepalive` has an effect here: \
             the others belong into the listener's `udp_listener_config.quic_options`", r.path);
    }
    http3
}

impl HcmTimeouts {
    /// `drain_timeout` of a drain that begins, which drew `random` in 0 to 1.
    pub fn drain_window(&self, random: impl FnOnce() -> f64) -> Duration {
        self.drain_jitter.lengthen(self.drain, random)
    }

    fn read(r: &Reader<'_>) -> Self {
        Self {
            stream_idle: r.duration("stream_idle_timeout").zero_is_off(Some(Duration::from_secs(300))),
            stream_flush: r.duration("stream_flush_timeout").overriding(),
            request: r.duration("request_timeout").zero_is_off(None),
            request_headers: r.duration("request_headers_timeout").overriding(),
            drain: r.duration("drain_timeout").or(Duration::from_secs(5)),
            drain_jitter: Jitter::read(r, "drain_timeout_jitter"),
            delayed_close: r.duration("delayed_close_timeout").zero_is_off(Some(Duration::from_secs(1))),
            http1_safe_max_connection_duration: r.bool("http1_safe_max_connection_duration").or_default(),
        }
    }
}

/// What becomes of a request's scheme.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SchemeTransformation {
    /// Nothing.
    #[default]
    None,
    /// `scheme_to_overwrite`: it is this one, whatever the client says. Wins over the other, as in Envoy.
    Overwrite(Scheme),
    /// `match_upstream`: upstreams are told what the connection to them is.
    MatchUpstream,
}

impl Message for SchemeTransformation {
    const NAME: &'static str = "envoy.config.core.v3.SchemeHeaderTransformation";

    fn read(r: &Reader<'_>) -> Self {
        let scheme = r.string("scheme_to_overwrite").convert(|scheme| match scheme.as_str() {
            "http" => Ok(Scheme::Http),
            "https" => Ok(Scheme::Https),
            other => Err(format!("`{other}` is neither `http` nor `https`")),
        });
        let match_upstream = r.bool("match_upstream").or_default();
        match (scheme.optional(), match_upstream) {
            (Some(scheme), _) => Self::Overwrite(scheme),
            (None, true) => Self::MatchUpstream,
            (None, false) => Self::None,
        }
    }
}

/// The terminal HTTP filter; the registry knows others.
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

/// What is said to the router of single routes is said under its name.
fn routers_name(r: &Reader<'_>, table: &RouteConfig, name: &str) {
    misnamed_routers(table, name).for_each(|problem| r.cx.report(problem));
}

fn misnamed_routers(table: &RouteConfig, name: &str) -> impl Iterator<Item = Problem> {
    let given = table.router_overrides().filter_map(|router| router.own.as_ref());
    given.filter(move |(given, _)| given != name).map(move |(_, place)| {
        place.problem(format!("this is the router's, whose name in `http_filters` is `{name}`"))
    })
}

impl HcmConfig {
    /// What is wrong with a table that comes from elsewhere ([`HcmConfig::rds`]) for this manager's filters.
    pub fn check_table(&self, table: &RouteConfig) -> Vec<Problem> {
        let router = self.http_filters.last().map(|router| &*router.config.name);
        router.map(|name| misnamed_routers(table, name).collect()).unwrap_or_default()
    }
}

fn http_filters(r: &Reader<'_>) -> Vec<HttpFilterConfig> {
    let filters = r.repeated::<Option<HttpFilterConfig>>("http_filters");
    filters.or_default().into_iter().flatten().collect()
}

impl Message for Option<HttpFilterConfig> {
    const NAME: &'static str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter";

    fn read(r: &Reader<'_>) -> Self {
        let disabled = r.bool("disabled").or_default();
        let is_optional = r.bool("is_optional").or_default();
        Some(HttpFilterConfig { config: r.extension()?, disabled, is_optional })
    }
}
