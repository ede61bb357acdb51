//! What every pool of a cluster is made with: its configuration in the words of pools and codecs.

use std::rc::Rc;
use std::time::Duration;

use tidegate_config::ClusterConfig;
use tidegate_config::cluster::{BindConfig, FirstFamily, HappyEyeballsConfig, Source};
use tidegate_config::protocol::{HeaderKeyFormat, Http1Options, Http2Options, Http3Options};
use tidegate_config::values::TcpKeepalive;
use tidegate_pool::dialer::{Family, Order};
use tidegate_pool::h1::{Binding, DialOptions, Keepalive, KeptNames, NameCase, SocketOption};
use tidegate_pool::machine::{Carries, Settings};
use tidegate_pool::{MessageOptions, ObsText, Underscores, h1, h2, h3};
use tidegate_types::OtherNames;

/// See the module.
pub(super) struct Kit {
    pub(super) dial: Rc<DialOptions>,
    /// In which a host's addresses are tried.
    pub(super) order: Order,
    pub(super) http1: Http1Kit,
    pub(super) http2: Http2Kit,
    /// Where HTTP/3 may be spoken.
    pub(super) http3: Option<Http3Kit>,
    /// TCP pools'.
    pub(super) tcp: Settings,
}

/// For HTTP/1.1 pools.
pub(super) struct Http1Kit {
    pub(super) settings: Rc<Settings>,
    pub(super) codec: Rc<h1::ClientOptions>,
}

/// For HTTP/3 pools.
pub(super) struct Http3Kit {
    pub(super) settings: Rc<Settings>,
    pub(super) codec: Rc<h3::ClientOptions>,
}

/// For HTTP/2 pools.
pub(super) struct Http2Kit {
    pub(super) settings: Rc<Settings>,
    pub(super) codec: Rc<h2::ClientOptions>,
}

impl Kit {
    pub(super) fn new(config: &ClusterConfig) -> Self {
        let http = &config.common_http;
        let settings = Settings {
            connect_timeout: config.connect_timeout,
            idle_timeout: http.idle_timeout,
            max_connection_duration: http.max_connection_duration,
            max_streams: http.max_requests_per_connection,
            concurrency: 1,
            preconnect_ratio: config.preconnect.per_upstream,
            carries: Carries::Requests,
            timeout_text: None,
        };
        let http1 = Http1Kit {
            codec: Rc::new(http1_codec(config, config.protocol.http1().unwrap_or(&Http1Options::default()))),
            settings: Rc::new(settings.clone()),
        };
        let codec = http2_codec(config, config.protocol.http2().unwrap_or(&Http2Options::default()));
        let http2 = Http2Kit {
            settings: Rc::new(Settings { concurrency: codec.max_concurrent_streams, ..settings.clone() }),
            codec: Rc::new(codec),
        };
        let http3 = config.protocol.http3().map(|http3| Http3Kit {
            settings: Rc::new(Settings {
                concurrency: http3.quic.max_concurrent_streams,
                timeout_text: Some(h3::TIMEOUT_TEXT),
                ..settings.clone()
            }),
            codec: Rc::new(http3_codec(config, http3)),
        });
        let tcp =
            Settings { idle_timeout: config.tcp_idle_timeout, max_connection_duration: None, ..settings };
        Self {
            dial: Rc::new(dial_options(config)),
            order: order(config.happy_eyeballs),
            http1,
            http2,
            http3,
            tcp,
        }
    }
}

pub(crate) fn http1_codec(config: &ClusterConfig, http1: &Http1Options) -> h1::ClientOptions {
    let http = &config.common_http;
    h1::ClientOptions {
        max_head_bytes: http.max_response_headers_kb.unwrap_or(80) as usize * 1024,
        max_headers: http.max_headers_count as usize,
        buffer_limit: config.per_connection_buffer_limit_bytes as usize,
        enable_trailers: http1.enable_trailers,
        name_case: match http1.header_key_format {
            HeaderKeyFormat::ProperCase => NameCase::Proper,
            HeaderKeyFormat::Lowercase | HeaderKeyFormat::PreserveCase(_) => NameCase::Lower,
        },
        keep_names: match http1.header_key_format {
            HeaderKeyFormat::PreserveCase(keep) => Some(KeptNames {
                others: if keep.proper_case_on_others { OtherNames::Proper } else { OtherNames::Lower },
                reason: keep.forward_reason_phrase,
            }),
            _ => None,
        },
    }
}

pub(crate) fn http2_codec(config: &ClusterConfig, http2: &Http2Options) -> h2::ClientOptions {
    h2::ClientOptions {
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
                http2
                    .override_stream_error_on_invalid_http_message
                    .or(http2.stream_error_on_invalid_http_messaging.then_some(true)),
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
        buffer_limit: config.per_connection_buffer_limit_bytes as usize,
    }
}

fn http3_codec(config: &ClusterConfig, http3: &Http3Options) -> h3::ClientOptions {
    h3::ClientOptions {
        max_concurrent_streams: http3.quic.max_concurrent_streams,
        messages: message_options(
            config,
            http3.allow_extended_connect,
            http3.override_stream_error_on_invalid_http_message,
        ),
    }
}

/// What messages may be in a version that says so of tunnels and of invalid messages.
fn message_options(
    config: &ClusterConfig,
    allow_connect: bool,
    spares_connection: Option<bool>,
) -> MessageOptions {
    let http = &config.common_http;
    MessageOptions {
        max_head_bytes: http.max_response_headers_kb.unwrap_or(60).saturating_mul(1024),
        max_headers: http.max_headers_count as usize,
        allow_connect,
        // `headers_with_underscores_action` is about clients.
        underscores: Underscores::Allow,
        obs_text: ObsText::Allow,
        override_stream_error_on_invalid_http_message: spares_connection.unwrap_or(false),
    }
}

fn order(config: HappyEyeballsConfig) -> Order {
    let first = match config.first_family {
        FirstFamily::OfFirstAddress => None,
        FirstFamily::V4 => Some(Family::V4),
        FirstFamily::V6 => Some(Family::V6),
        FirstFamily::Pipe => Some(Family::Unix),
    };
    Order { first, count: config.first_count as usize }
}

pub(crate) fn dial_options(config: &ClusterConfig) -> DialOptions {
    let seconds = |s: Option<u32>| s.map(|s| Duration::from_secs(u64::from(s)));
    let keepalive = match config.tcp_keepalive {
        Some(TcpKeepalive::On { probes, time_s, interval_s }) => {
            Some(Keepalive { time: seconds(time_s), interval: seconds(interval_s), probes })
        }
        Some(TcpKeepalive::Off) | None => None,
    };
    DialOptions { keepalive, bindings: config.bind.as_deref().map_or_else(Vec::new, bindings) }
}

fn bindings(bind: &BindConfig) -> Vec<Binding> {
    let option = |option: &tidegate_config::socket_option::SocketOption| SocketOption {
        level: option.level,
        name: option.name,
        value: option.value.as_slice().into(),
    };
    let of_source = |source: &Source| Binding {
        address: Some(source.address),
        freebind: bind.freebind,
        options: source.options.iter().map(option).collect(),
    };
    match &*bind.sources {
        [] if bind.options.is_empty() => Vec::new(),
        [] => {
            vec![Binding {
                address: None,
                freebind: false,
                options: bind.options.iter().map(option).collect(),
            }]
        }
        sources => sources.iter().map(of_source).collect(),
    }
}
