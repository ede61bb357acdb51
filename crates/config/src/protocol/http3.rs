//! `Http3ProtocolOptions` and `QuicProtocolOptions`, used by listeners and clusters.
//!
//! What they mean on the wire is the `tls` crate's (`tls::quic`) and the HTTP/3 codec's.

use std::time::Duration;

use crate::reader::{Message, Reader};
use crate::values::BuiltIn;

/// `envoy.config.core.v3.Http3ProtocolOptions`.
///
/// The same message configures both sides: towards clients ([`HcmConfig::http3`](crate::HcmConfig::http3)) and
/// towards upstreams ([`UpstreamProtocol`](crate::cluster::UpstreamProtocol)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http3Options {
    /// `quic_protocol_options`. Of a connection manager only [`QuicOptions::keepalive`] has an effect, as in
    /// Envoy: the others are the listener's, since connections exist before a manager is chosen.
    pub quic: QuicOptions,
    /// `override_stream_error_on_invalid_http_message`: an invalid message resets its stream and not the
    /// connection; `None`: the manager's `stream_error_on_invalid_http_message`, and towards upstreams false.
    pub override_stream_error_on_invalid_http_message: Option<bool>,
    /// `allow_extended_connect`: extended CONNECT (RFC 9220), which carries upgrades over HTTP/3.
    pub allow_extended_connect: bool,
    /// `disable_connection_flow_control_for_streams`: only the windows of streams bound what a peer may send.
    pub disable_connection_flow_control_for_streams: bool,
}

/// `envoy.config.core.v3.QuicProtocolOptions`. Defaults are those of Envoy 1.40.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuicOptions {
    /// `max_concurrent_streams`, at least 1, 100 when unset: requests that a client may have open on a connection;
    /// towards upstreams the most that we open, if the peer's own limit is not lower.
    pub max_concurrent_streams: u32,
    /// `initial_stream_window_size` in bytes, 1 to 16 MiB, 16 MiB when unset.
    pub initial_stream_window_size: u32,
    /// `initial_connection_window_size` in bytes, 1 to 24 MiB, 24 MiB when unset.
    pub initial_connection_window_size: u32,
    /// `num_timeouts_to_trigger_port_migration`, 0 to 5: without effect on listeners, as in Envoy; clusters take only
    /// 0, since connections to upstreams never change their port.
    pub num_timeouts_to_trigger_port_migration: Option<u32>,
    /// `connection_keepalive`.
    pub keepalive: QuicKeepalive,
    /// `idle_network_timeout`, at least 1 s; `None` when unset: the listener's `idle_timeout`, and towards upstreams
    /// 600 s.
    pub idle_network_timeout: Option<Duration>,
    /// `max_packet_length` in bytes: the largest datagram that is sent, at least 1200 (RFC 9000 §14); `None` when
    /// unset or 0.
    pub max_packet_length: Option<u16>,
}

/// `envoy.config.core.v3.QuicKeepAliveSettings`: PINGs on connections that are silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuicKeepalive {
    /// `max_interval`: `None` when unset (15 s towards upstreams), zero is off.
    pub max_interval: Option<Duration>,
    /// `initial_interval`, at least 1 ms; `None` when unset or 0: towards upstreams `max_interval`, towards clients no
    /// PINGs. Envoy doubles it until `max_interval`; here it stays.
    pub initial_interval: Option<Duration>,
}

impl Default for QuicOptions {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 100,
            initial_stream_window_size: LARGEST_STREAM_WINDOW,
            initial_connection_window_size: LARGEST_CONNECTION_WINDOW,
            num_timeouts_to_trigger_port_migration: None,
            keepalive: QuicKeepalive::default(),
            idle_network_timeout: None,
            max_packet_length: None,
        }
    }
}

impl Message for Http3Options {
    const NAME: &'static str = "envoy.config.core.v3.Http3ProtocolOptions";

    fn read(r: &Reader<'_>) -> Self {
        r.bool("allow_metadata").only(false);
        r.bool("disallow_obs_text").only(false);
        // Envoy's documentation says not to use it.
        r.bool("disable_qpack").only(false);
        Self {
            quic: r.message_or_defaults("quic_protocol_options"),
            override_stream_error_on_invalid_http_message: r
                .bool("override_stream_error_on_invalid_http_message")
                .optional(),
            allow_extended_connect: r.bool("allow_extended_connect").or_default(),
            disable_connection_flow_control_for_streams: r
                .bool("disable_connection_flow_control_for_streams")
                .or_default(),
        }
    }
}

impl Message for QuicOptions {
    const NAME: &'static str = "envoy.config.core.v3.QuicProtocolOptions";

    fn read(r: &Reader<'_>) -> Self {
        let default = Self::default();
        for field in ["connection_options", "client_connection_options"] {
            let options = r.string(field);
            if options.peek().is_some_and(|options| !options.is_empty()) {
                options
                    .report("these are options of one library (QUICHE), which this build does not use", None);
            }
        }
        BuiltIn::<DefaultClientWriter>::of(r, "client_packet_writer");
        r.bool("enable_scone").only(false);
        let length = r.u64("max_packet_length").check(|length| match length {
            1..SMALLEST_DATAGRAM => {
                Err(format!("{length} is out of range: QUIC needs datagrams of {SMALLEST_DATAGRAM} bytes"))
            }
            _ => Ok(()),
        });
        Self {
            max_concurrent_streams: r
                .u32("max_concurrent_streams")
                .positive()
                .or(default.max_concurrent_streams),
            initial_stream_window_size: r
                .u32("initial_stream_window_size")
                .within(1..=LARGEST_STREAM_WINDOW)
                .or(default.initial_stream_window_size),
            initial_connection_window_size: r
                .u32("initial_connection_window_size")
                .within(1..=LARGEST_CONNECTION_WINDOW)
                .or(default.initial_connection_window_size),
            num_timeouts_to_trigger_port_migration: r
                .u32("num_timeouts_to_trigger_port_migration")
                .within(0..=5)
                .optional(),
            keepalive: r.message_or_defaults("connection_keepalive"),
            idle_network_timeout: r
                .duration("idle_network_timeout")
                .at_least(Duration::from_secs(1))
                .optional(),
            max_packet_length: length
                .optional()
                .filter(|length| *length > 0)
                .map(|length| u16::try_from(length).unwrap_or(u16::MAX)),
        }
    }
}

impl Message for QuicKeepalive {
    const NAME: &'static str = "envoy.config.core.v3.QuicKeepAliveSettings";

    fn read(r: &Reader<'_>) -> Self {
        let initial = r.duration("initial_interval").check(|interval| {
            if !interval.is_zero() && *interval < Duration::from_millis(1) {
                Err("the duration is too short: 0s, or at least 0.001s".to_owned())
            } else {
                Ok(())
            }
        });
        Self {
            max_interval: r.duration("max_interval").optional(),
            initial_interval: initial.optional().filter(|interval| !interval.is_zero()),
        }
    }
}

struct DefaultClientWriter;

impl Message for DefaultClientWriter {
    const NAME: &'static str = "envoy.extensions.quic.client_writer_factory.v3.DefaultClientWriter";

    fn read(_: &Reader<'_>) -> Self {
        Self
    }
}

/// What Envoy's library can do.
const LARGEST_STREAM_WINDOW: u32 = 16 << 20;

/// What Envoy's library can do.
const LARGEST_CONNECTION_WINDOW: u32 = 24 << 20;

/// RFC 9000 §14: what every path must carry.
const SMALLEST_DATAGRAM: u64 = 1200;
