//! From a validated configuration to a connection manager that serves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tidegate_codec::h1::{KeptNames, NameCase, ServerOptions};
use tidegate_codec::multiplex::{MessageOptions, ObsText, Underscores};
use tidegate_codec::{h2, h3};
use tidegate_config::bootstrap::Node;
use tidegate_config::hcm::HttpFilterConfig;
use tidegate_config::protocol::{HeaderKeyFormat, UnderscoreAction};
use tidegate_config::values::TimeoutOverride;
use tidegate_config::{HcmConfig, RouteConfig, Runtime};
use tidegate_filter::{AccessLogContext, FactoryContext, Registry};
use tidegate_router::{FilterSlots, ROUTER_TYPE_URL, RouteTable, RouterOptions};
use tidegate_stats::{Scope, Store};
use tidegate_types::json::{self, JsonPath, Problem, Span, TypedConfig};
use tidegate_types::{Compat, OtherNames, Scheme};

use super::{Hcm, runtime};
use crate::access_log;
use crate::chain::ConfiguredFilter;
use crate::local_reply::ReplyTemplates;
use crate::stats::{
    AsyncClientStats, CodecStats, HcmStats, Http2Stats, Http3Observer, Http3Stats, ListenerHttpStats,
};

/// What building needs besides the manager's own configuration.
pub struct BuildContext<'a> {
    /// Filters and access loggers by `@type`.
    pub registry: &'a Registry,
    /// Where statistics live.
    pub store: &'a Store,
    /// The listener's name in statistics, its address unless it has a prefix of its own.
    pub listener: &'a str,
    /// The listener's `per_connection_buffer_limit_bytes`.
    pub buffer_limit: usize,
    /// Runtime values, which override defaults of filters of access logs.
    pub runtime: &'a Runtime,
    /// Who this proxy says it is.
    pub node: &'a Node,
    /// This machine's first address that is not loopback.
    pub local_address: Option<IpAddr>,
    /// How long access logs may hold lines back.
    pub log_flush_interval: Duration,
    /// Whose behaviour holds where Tidegate's differs from Envoy's.
    pub compat: Compat,
}

impl Hcm {
    /// Builds a connection manager.
    ///
    /// # Errors
    /// Everything that is wrong with filters, per-route configurations, access logs and format strings.
    pub fn build(config: &Arc<HcmConfig>, cx: &BuildContext<'_>) -> Result<Arc<Self>, Vec<Problem>> {
        Self::rebuild(config, cx, None)
    }

    /// Builds a connection manager in the place of `former`: if its configuration was the same, filters that the
    /// runtime answers the same keep their state.
    ///
    /// # Errors
    /// As [`Hcm::build`].
    pub fn rebuild(
        config: &Arc<HcmConfig>,
        cx: &BuildContext<'_>,
        former: Option<&Self>,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        let mut problems = Vec::new();
        let scope = Scope::http(&config.stat_prefix);
        let values = |key: &str| cx.runtime.integer(key);
        let factory = FactoryContext {
            stats: cx.store,
            scope: &scope,
            runtime: &values,
            local_cluster: &cx.node.cluster,
        };
        let text = |text: &str| HeaderValue::from_str(text).ok().filter(|value| !value.is_empty());
        // Factories see the cluster's name.
        let same = |former: &&Self| former.config == *config && former.node_cluster == text(&cx.node.cluster);
        let (filters, slots, router) = filters(config, cx, &factory, former.filter(same), &mut problems);
        let routes = match compile(&config.route_config, "route_config", cx, &slots) {
            Ok(routes) => Some(routes),
            Err(errors) => {
                problems.extend(errors);
                None
            }
        };
        let log_cx = AccessLogContext { stats: cx.store, flush_interval: cx.log_flush_interval };
        let logs = access_log::build(&config.access_log, cx.registry, &log_cx, cx.runtime).unwrap_or_else(
            |errors| {
                problems.extend(errors);
                Vec::new()
            },
        );
        let replies = ReplyTemplates::compile(&config.local_reply, cx.runtime).unwrap_or_else(|message| {
            problems.push(general(&format!("local_reply_config: {message}")));
            ReplyTemplates::default()
        });
        let server_name = HeaderValue::from_str(&config.server_name);
        if server_name.is_err() {
            problems.push(general(&format!("server_name: `{}` is no header value", config.server_name)));
        }
        let (Some(routes), Ok(server_name), true) = (routes, server_name, problems.is_empty()) else {
            return Err(problems);
        };
        let http3_stats = Http3Stats::new(cx.store, Scope::new("http3", &[]));
        Ok(Arc::new(Self {
            stats: HcmStats::new(cx.store, scope.clone()),
            async_client: AsyncClientStats::new(cx.store, Scope::http("async-client")),
            codec_stats: CodecStats::new(cx.store, Scope::root()),
            http2_stats: Http2Stats::new(cx.store, Scope::new("http2", &[])),
            http3_observer: Http3Observer::new(cx.store, http3_stats.clone(), cx.listener),
            http3_stats,
            listener_stats: ListenerHttpStats::new(
                cx.store,
                Scope::listener_http(cx.listener, &config.stat_prefix),
            ),
            config: config.clone(),
            filters,
            routes: Arc::new(routes),
            table: config.route_config.clone(),
            router,
            logs,
            replies: Arc::new(replies),
            server_name,
            node_id: text(&cx.node.id),
            node_cluster: text(&cx.node.cluster),
            local_address: cx.local_address,
            buffer_limit: cx.buffer_limit,
            request_headers_timeout: request_headers_timeout(config.timeouts.request_headers, cx.compat),
            compat: cx.compat,
        }))
    }
}

impl Hcm {
    /// The same manager, with its filters and their state, serving another route table: how `rds` changes it.
    ///
    /// # Errors
    /// What is wrong with the table for this manager's filters.
    pub fn with_table(
        &self,
        table: &Arc<RouteConfig>,
        cx: &BuildContext<'_>,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        let misnamed = self.config.check_table(table);
        if !misnamed.is_empty() {
            return Err(misnamed);
        }
        let scope = Scope::http(&self.config.stat_prefix);
        let values = |key: &str| cx.runtime.integer(key);
        let factory = FactoryContext {
            stats: cx.store,
            scope: &scope,
            runtime: &values,
            local_cluster: &cx.node.cluster,
        };
        let filters = self.config.http_filters.iter().map(|filter| &filter.config);
        // As `filters` chooses them.
        let chosen = filters.filter(|typed| cx.registry.knows_http(&typed.type_url)).cloned().collect();
        let slots = Slots::new(cx, &factory, chosen);
        let routes = Arc::new(compile(table, "", cx, &slots)?);
        Ok(Arc::new(Self { routes, table: table.clone(), ..self.clone() }))
    }
}

/// Compiles a table that stands in the field `place`; an empty one: in a document of its own.
fn compile(
    table: &Arc<RouteConfig>,
    place: &str,
    cx: &BuildContext<'_>,
    slots: &Slots<'_>,
) -> Result<RouteTable, Vec<Problem>> {
    let root = JsonPath::root();
    let base = if place.is_empty() { root } else { root.field(place) };
    RouteTable::compile(&runtime::resolve(table, cx.runtime), &base, slots)
}

/// 15 s unless configured: half a head must not hold a connection for ever (deviations, row 2). Envoy has no
/// default.
fn request_headers_timeout(configured: TimeoutOverride, compat: Compat) -> Option<Duration> {
    match configured {
        TimeoutOverride::After(time) => Some(time),
        TimeoutOverride::Off => None,
        TimeoutOverride::Inherit => (!compat.is_strict()).then_some(Duration::from_secs(15)),
    }
}

/// The filters of the chain by slot, for `typed_per_filter_config`.
struct Slots<'a> {
    registry: &'a Registry,
    factory: &'a FactoryContext<'a>,
    filters: Vec<TypedConfig>,
    names: Vec<String>,
}

impl<'a> Slots<'a> {
    fn new(cx: &'a BuildContext<'a>, factory: &'a FactoryContext<'a>, filters: Vec<TypedConfig>) -> Self {
        let names = filters.iter().map(|filter| filter.name.clone()).collect();
        Self { registry: cx.registry, factory, filters, names }
    }
}

impl FilterSlots for Slots<'_> {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn resolve(
        &self,
        slot: usize,
        config: &TypedConfig,
    ) -> Result<tidegate_filter::route::ErasedConfig, Vec<Problem>> {
        match self.filters.get(slot) {
            Some(filter) => self.registry.build_route(&filter.type_url, config, self.factory),
            None => Err(vec![general("no such filter")]),
        }
    }

    fn store(&self) -> &Store {
        self.factory.stats
    }
}

fn filters<'a>(
    config: &HcmConfig,
    cx: &'a BuildContext<'a>,
    factory: &'a FactoryContext<'a>,
    former: Option<&Hcm>,
    problems: &mut Vec<Problem>,
) -> (Vec<ConfiguredFilter>, Slots<'a>, RouterOptions) {
    let (mut filters, mut slots, mut router) = (Vec::<ConfiguredFilter>::new(), Vec::new(), None);
    let former = former.map_or(&[][..], |former| &former.filters);
    for (index, filter) in config.http_filters.iter().enumerate() {
        let last = index + 1 == config.http_filters.len();
        let typed = &filter.config;
        if typed.type_url == ROUTER_TYPE_URL {
            if let Some(message) = misplaced_router(filter, last) {
                problems.push(at(typed, &message));
            }
            match json::from_typed::<RouterOptions>(typed) {
                Ok(options) => router = Some(options),
                Err(errors) => problems.extend(errors),
            }
            continue;
        }
        if filter.is_optional && !cx.registry.knows_http(&typed.type_url) {
            continue;
        }
        if last && let Some(kind) = cx.registry.http_name(&typed.type_url) {
            // Envoy's words.
            let message = format!(
                "Error: non-terminal filter named {} of type {kind} is the last filter in a http filter chain.",
                typed.name
            );
            problems.push(at(typed, &message));
        }
        if let Some(former) = former.get(filters.len()).filter(|former| former.answers.hold(cx.runtime)) {
            filters.push(former.clone());
            slots.push(typed.clone());
            continue;
        }
        let (built, answers) = cx.runtime.recorded(|| cx.registry.build_http(typed, factory));
        match built {
            Ok(factory) => {
                filters.push(ConfiguredFilter { factory, disabled: filter.disabled, answers });
                slots.push(typed.clone());
            }
            Err(errors) => problems.extend(errors),
        }
    }
    (filters, Slots::new(cx, factory, slots), router.unwrap_or_default())
}

/// What is wrong with the place of the terminal filter, in Envoy's words.
fn misplaced_router(router: &HttpFilterConfig, last: bool) -> Option<String> {
    let name = &router.config.name;
    if !last {
        return Some(format!(
            "Error: terminal filter named {name} of type envoy.filters.http.router must be the last filter in a http \
             filter chain."
        ));
    }
    router.disabled.then(|| {
        format!("Error: the last (terminal) filter ({name}) in the chain cannot be disabled by default.")
    })
}

fn at(typed: &TypedConfig, message: &str) -> Problem {
    Problem::new(typed.path.clone(), typed.span, message)
}

fn general(message: &str) -> Problem {
    Problem::new(JsonPath::root(), Span::default(), message)
}

/// Whether a request that is understood and yet refused with 400 leaves its connection open.
pub(super) fn keeps_after_bad_request(config: &HcmConfig) -> bool {
    let of_http1 = config.http1.override_stream_error_on_invalid_http_message;
    of_http1.unwrap_or(config.stream_error_on_invalid_http_message)
}

/// What the codec must know of the configuration.
pub(super) fn codec_options(config: &HcmConfig, buffer_limit: usize) -> ServerOptions {
    let http1 = &config.http1;
    ServerOptions {
        max_head_bytes: config.max_request_headers_kb as usize * 1024,
        max_headers: config.common.max_headers_count as usize,
        buffer_limit,
        accept_http_10: http1.accept_http_10,
        default_host_for_http_10: http1
            .default_host_for_http_10
            .as_deref()
            .map(|host| Bytes::copy_from_slice(host.as_bytes())),
        enable_trailers: http1.enable_trailers,
        allow_absolute_url: http1.allow_absolute_url,
        allow_chunked_length: http1.allow_chunked_length,
        allow_custom_methods: http1.allow_custom_methods,
        keep_without_host: keeps_after_bad_request(config),
        proxy_100_continue: config.proxy_100_continue,
        name_case: match http1.header_key_format {
            HeaderKeyFormat::ProperCase => NameCase::Proper,
            HeaderKeyFormat::Lowercase | HeaderKeyFormat::PreserveCase(_) => NameCase::Lower,
        },
        keep_names: match http1.header_key_format {
            HeaderKeyFormat::PreserveCase(keep) => Some(KeptNames {
                others: if keep.proper_case_on_others { OtherNames::Proper } else { OtherNames::Lower },
                // A request has none.
                reason: false,
            }),
            _ => None,
        },
        scheme: Scheme::Http,
    }
}

/// Likewise, of the codec that carries many streams.
pub(super) fn multiplexed_options(config: &HcmConfig, buffer_limit: usize) -> h2::ServerOptions {
    let http2 = &config.http2;
    h2::ServerOptions {
        common: h2::Options {
            max_concurrent_streams: http2.max_concurrent_streams,
            initial_stream_window_size: http2.initial_stream_window_size,
            initial_connection_window_size: http2.initial_connection_window_size,
            hpack_table_size: http2.hpack_table_size,
            max_header_field_bytes: http2.max_header_field_size_kb.unwrap_or(64).saturating_mul(1024),
            custom_settings: http2.custom_settings.clone(),
            messages: MessageOptions {
                obs_text: if http2.disallow_obs_text { ObsText::Refuse } else { ObsText::Allow },
                ..message_options(
                    config,
                    http2.allow_connect,
                    http2.override_stream_error_on_invalid_http_message,
                )
            },
            floods: h2::FloodLimits {
                max_consecutive_inbound_frames_with_empty_payload: http2
                    .max_consecutive_inbound_frames_with_empty_payload,
                max_inbound_priority_frames_per_stream: http2.max_inbound_priority_frames_per_stream,
                max_inbound_window_update_frames_per_data_frame_sent: http2
                    .max_inbound_window_update_frames_per_data_frame_sent,
                max_outbound_frames: http2.max_outbound_frames,
                max_outbound_control_frames: http2.max_outbound_control_frames,
                stream_reset_burst: http2.stream_reset_burst,
                stream_reset_rate: http2.stream_reset_rate,
            },
            keepalive: http2.connection_keepalive.map(|keepalive| h2::KeepaliveOptions {
                interval: keepalive.interval,
                timeout: keepalive.timeout,
                interval_jitter: keepalive.interval_jitter,
                connection_idle_interval: keepalive.connection_idle_interval,
            }),
            buffer_limit,
        },
        proxy_100_continue: config.proxy_100_continue,
        scheme: Scheme::Http,
    }
}

/// Likewise, of HTTP/3's codec. Windows and the number of streams are the listener's.
pub(super) fn http3_options(config: &HcmConfig) -> h3::ServerOptions {
    let http3 = &config.http3;
    h3::ServerOptions {
        common: h3::Options::from(message_options(
            config,
            http3.allow_extended_connect,
            http3.override_stream_error_on_invalid_http_message,
        )),
        proxy_100_continue: config.proxy_100_continue,
        scheme: Scheme::Https,
    }
}

/// What messages may be in a version that says so of tunnels and of invalid messages.
fn message_options(
    config: &HcmConfig,
    allow_connect: bool,
    spares_connection: Option<bool>,
) -> MessageOptions {
    MessageOptions {
        max_head_bytes: config.max_request_headers_kb.saturating_mul(1024),
        max_headers: config.common.max_headers_count as usize,
        allow_connect,
        underscores: match config.common.headers_with_underscores_action {
            UnderscoreAction::Allow => Underscores::Allow,
            UnderscoreAction::DropHeader => Underscores::Drop,
            UnderscoreAction::RejectRequest => Underscores::Reject,
        },
        obs_text: ObsText::Allow,
        override_stream_error_on_invalid_http_message: spares_connection
            .unwrap_or(config.stream_error_on_invalid_http_message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_head_is_bounded_unless_strict_or_told_otherwise() {
        let time = Duration::from_secs(3);
        let all = |configured| {
            [Compat::Tidegate, Compat::EnvoyStrict].map(|compat| request_headers_timeout(configured, compat))
        };
        assert_eq!(all(TimeoutOverride::Inherit), [Some(Duration::from_secs(15)), None]);
        assert_eq!(all(TimeoutOverride::Off), [None, None]);
        assert_eq!(all(TimeoutOverride::After(time)), [Some(time), Some(time)]);
    }
}
