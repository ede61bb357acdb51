//! `Http2ProtocolOptions` and `KeepaliveSettings`, used by listeners and clusters.

use std::time::Duration;

use tidegate_types::json::Problem;

use crate::reader::{Message, Reader};
use crate::values::Percent;

/// `envoy.config.core.v3.Http2ProtocolOptions`. Defaults are those of Envoy 1.40.
///
/// The same message configures both sides: towards clients ([`HcmConfig::http2`](crate::HcmConfig::http2)) and
/// towards upstreams ([`UpstreamProtocol`](crate::cluster::UpstreamProtocol)).
#[derive(Debug, Clone, PartialEq)]
pub struct Http2Options {
    /// `hpack_table_size` in bytes, 4096 when unset: `SETTINGS_HEADER_TABLE_SIZE`.
    pub hpack_table_size: u32,
    /// `max_concurrent_streams`, 1 to 2^31-1, 1024 when unset: what we announce to clients; towards upstreams the
    /// most streams that we open on a connection, if the peer's own limit is not lower.
    pub max_concurrent_streams: u32,
    /// `initial_stream_window_size` in bytes, 65535 to 2^31-1, 16 MiB when unset.
    pub initial_stream_window_size: u32,
    /// `initial_connection_window_size` in bytes, 65535 to 2^31-1, 24 MiB when unset.
    pub initial_connection_window_size: u32,
    /// `allow_connect`: extended CONNECT (RFC 8441), which carries upgrades over HTTP/2.
    pub allow_connect: bool,
    /// `max_outbound_frames`, at least 1, 10000 when unset: frames that wait to be written to the peer; bodies stop at
    /// half of it (`http2.outbound_flood`).
    pub max_outbound_frames: u32,
    /// `max_outbound_control_frames`, at least 1, 1000 when unset: answers to PING and SETTINGS, and
    /// RST_STREAM, among them (`http2.outbound_control_flood`).
    pub max_outbound_control_frames: u32,
    /// `max_consecutive_inbound_frames_with_empty_payload`, 1 when unset; 0 allows none
    /// (`http2.inbound_empty_frames_flood`).
    pub max_consecutive_inbound_frames_with_empty_payload: u32,
    /// `max_inbound_priority_frames_per_stream`, 100 when unset (`http2.inbound_priority_frames_flood`).
    pub max_inbound_priority_frames_per_stream: u32,
    /// `max_inbound_window_update_frames_per_data_frame_sent`, at least 1, 10 when unset
    /// (`http2.inbound_window_update_frames_flood`).
    pub max_inbound_window_update_frames_per_data_frame_sent: u32,
    /// `stream_reset_burst`, 1000 when unset: RST_STREAM frames that a client may send at once.
    pub stream_reset_burst: u64,
    /// `stream_reset_rate`, 33 when unset: how many more of them each second.
    pub stream_reset_rate: u64,
    /// `max_header_field_size_kb` in KiB, 64 to 256: a field's name or value; `None` is 64.
    pub max_header_field_size_kb: Option<u32>,
    /// `disallow_obs_text`, where Envoy heeds it: with `use_oghttp2_codec`. Fields with bytes above 0x7f are invalid.
    pub disallow_obs_text: bool,
    /// `custom_settings_parameters`: identifiers with their values, sent as they are; none twice.
    pub custom_settings: Vec<(u16, u32)>,
    /// `stream_error_on_invalid_http_messaging`, which is deprecated: what holds if nothing newer is said, neither
    /// here nor by the manager.
    pub stream_error_on_invalid_http_messaging: bool,
    /// `override_stream_error_on_invalid_http_message`: an invalid message resets its stream and not the
    /// connection; `None`: the manager's `stream_error_on_invalid_http_message`, and towards upstreams false.
    pub override_stream_error_on_invalid_http_message: Option<bool>,
    /// `connection_keepalive`; `None` sends no PINGs.
    pub connection_keepalive: Option<Http2Keepalive>,
}

/// `envoy.config.core.v3.KeepaliveSettings`: PINGs that find dead peers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Http2Keepalive {
    /// `interval` between PINGs, at least 1 ms; `None` sends none by the clock.
    pub interval: Option<Duration>,
    /// `timeout`, at least 1 ms: a PING that is not answered in time closes the connection
    /// (`http2.keepalive_timeout`).
    pub timeout: Duration,
    /// `interval_jitter` in percent of `interval`, added at random; 0 to 100, 15 when unset.
    pub interval_jitter: f64,
    /// `connection_idle_interval`, at least 1 ms: a stream that is opened after so long a silence is preceded by a
    /// PING; `None` is off.
    pub connection_idle_interval: Option<Duration>,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            hpack_table_size: 4096,
            max_concurrent_streams: 1024,
            initial_stream_window_size: 16 << 20,
            initial_connection_window_size: 24 << 20,
            allow_connect: false,
            max_outbound_frames: 10_000,
            max_outbound_control_frames: 1_000,
            max_consecutive_inbound_frames_with_empty_payload: 1,
            max_inbound_priority_frames_per_stream: 100,
            max_inbound_window_update_frames_per_data_frame_sent: 10,
            stream_reset_burst: 1000,
            stream_reset_rate: 33,
            max_header_field_size_kb: None,
            disallow_obs_text: false,
            custom_settings: Vec::new(),
            stream_error_on_invalid_http_messaging: false,
            override_stream_error_on_invalid_http_message: None,
            connection_keepalive: None,
        }
    }
}

impl Message for Http2Options {
    const NAME: &'static str = "envoy.config.core.v3.Http2ProtocolOptions";

    fn read(r: &Reader<'_>) -> Self {
        const WINDOW: std::ops::RangeInclusive<u32> = 65_535..=MAX_31_BITS;
        let default = Self::default();
        // Envoy has two codecs; here is one, whichever is asked for.
        let oghttp2 = r.bool("use_oghttp2_codec").or_default();
        r.bool("allow_metadata").only(false);
        // Of what is not taken.
        r.u64("max_metadata_size").optional();
        // A sender need not use the codes, and this one never does.
        r.bool("enable_huffman_encoding").optional();
        let disallow_obs_text = r.bool("disallow_obs_text").or_default();
        let floods = |name, default| r.u32(name).positive().or(default);
        Self {
            hpack_table_size: r.u32("hpack_table_size").or(default.hpack_table_size),
            max_concurrent_streams: r
                .u32("max_concurrent_streams")
                .within(1..=MAX_31_BITS)
                .or(default.max_concurrent_streams),
            initial_stream_window_size: r
                .u32("initial_stream_window_size")
                .within(WINDOW)
                .or(default.initial_stream_window_size),
            initial_connection_window_size: r
                .u32("initial_connection_window_size")
                .within(WINDOW)
                .or(default.initial_connection_window_size),
            allow_connect: r.bool("allow_connect").or_default(),
            max_outbound_frames: floods("max_outbound_frames", default.max_outbound_frames),
            max_outbound_control_frames: floods(
                "max_outbound_control_frames",
                default.max_outbound_control_frames,
            ),
            max_consecutive_inbound_frames_with_empty_payload: r
                .u32("max_consecutive_inbound_frames_with_empty_payload")
                .or(default.max_consecutive_inbound_frames_with_empty_payload),
            max_inbound_priority_frames_per_stream: r
                .u32("max_inbound_priority_frames_per_stream")
                .or(default.max_inbound_priority_frames_per_stream),
            max_inbound_window_update_frames_per_data_frame_sent: floods(
                "max_inbound_window_update_frames_per_data_frame_sent",
                default.max_inbound_window_update_frames_per_data_frame_sent,
            ),
            stream_reset_burst: r.u64("stream_reset_burst").or(default.stream_reset_burst),
            stream_reset_rate: r.u64("stream_reset_rate").or(default.stream_reset_rate),
            max_header_field_size_kb: r.u32("max_header_field_size_kb").within(FIELD_KB).optional(),
            disallow_obs_text: disallow_obs_text && oghttp2,
            custom_settings: custom_settings(r),
            stream_error_on_invalid_http_messaging: r
                .bool("stream_error_on_invalid_http_messaging")
                .or_default(),
            override_stream_error_on_invalid_http_message: r
                .bool("override_stream_error_on_invalid_http_message")
                .optional(),
            connection_keepalive: r.message("connection_keepalive").optional(),
        }
    }
}

/// `Http2ProtocolOptions.SettingsParameter`.
struct Setting {
    identifier: u16,
    value: u32,
}

impl Message for Setting {
    const NAME: &'static str = "envoy.config.core.v3.Http2ProtocolOptions.SettingsParameter";

    fn read(r: &Reader<'_>) -> Self {
        let identifier = r.u32("identifier").within(0..=u32::from(u16::MAX)).required();
        Self { identifier: u16::try_from(identifier).unwrap_or_default(), value: r.u32("value").required() }
    }
}

/// `custom_settings_parameters` without those that say the same again.
fn custom_settings(r: &Reader<'_>) -> Vec<(u16, u32)> {
    const FIELD: &str = "custom_settings_parameters";
    let refuse = |message: String| r.cx.report(Problem::new(r.path.field(FIELD), r.place(FIELD), message));
    let mut settings: Vec<(u16, u32)> = Vec::new();
    for Setting { identifier, value } in r.repeated::<Setting>(FIELD).or_default() {
        match identifier {
            ENABLE_PUSH if value == 1 => refuse("server push is not supported".to_owned()),
            ENABLE_CONNECT_PROTOCOL => {
                refuse("SETTINGS_ENABLE_CONNECT_PROTOCOL (0x8) is set by `allow_connect` alone".to_owned());
            }
            _ => {}
        }
        if let Some((_, name)) = NAMED.iter().find(|(id, name)| *id == identifier && r.has(name)) {
            refuse(format!("identifier {identifier:#x} is also set by `{name}`"));
        }
        match settings.iter().find(|(other, _)| *other == identifier) {
            Some((_, other)) if *other != value => {
                refuse(format!("identifier {identifier:#x} has two values, {other} and {value}"));
            }
            Some(_) => {}
            None => settings.push((identifier, value)),
        }
    }
    settings
}

impl Message for Http2Keepalive {
    const NAME: &'static str = "envoy.config.core.v3.KeepaliveSettings";

    fn read(r: &Reader<'_>) -> Self {
        let timeout = r.duration("timeout").at_least(TICK);
        Self {
            interval: r.duration("interval").at_least(TICK).optional(),
            timeout: timeout.required(),
            interval_jitter: r
                .message::<Percent>("interval_jitter")
                .optional()
                .map_or(15.0, |jitter| jitter.0),
            connection_idle_interval: r.duration("connection_idle_interval").at_least(TICK).optional(),
        }
    }
}

/// SETTINGS_ENABLE_PUSH and SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 9113 §6.5.2, RFC 8441 §3).
const ENABLE_PUSH: u16 = 0x2;
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// Settings that have fields of their own.
const NAMED: [(u16, &str); 3] =
    [(0x1, "hpack_table_size"), (0x3, "max_concurrent_streams"), (0x4, "initial_stream_window_size")];

/// `max_header_field_size_kb`.
pub(crate) const FIELD_KB: std::ops::RangeInclusive<u32> = 64..=256;

/// The resolution of Envoy's timers.
const TICK: Duration = Duration::from_millis(1);

/// The largest window and stream number (RFC 9113 §5.1.1, §6.9.1).
const MAX_31_BITS: u32 = (1 << 31) - 1;
