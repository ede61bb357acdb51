//! `QuicProtocolOptions` as quinn-proto takes them.

use std::time::Duration;

use tidegate_config::listener::UdpListenerConfig;
use tidegate_config::protocol::{Http3Options, QuicOptions};
use tidegate_quic::proto::{IdleTimeout, MtuDiscoveryConfig};
use tidegate_quic::{TransportConfig, VarInt};

/// Of connections from clients. `options` are the connection manager's.
pub fn server_transport(listener: &UdpListenerConfig, options: &Http3Options) -> TransportConfig {
    let unlimited = options.disable_connection_flow_control_for_streams;
    let mut transport = common(&listener.quic, listener.idle_timeout, unlimited);
    transport.max_concurrent_bidi_streams(listener.quic.max_concurrent_streams.into());
    transport.enable_segmentation_offload(listener.gso);
    transport.keep_alive_interval(options.quic.keepalive.initial_interval);
    transport
}

/// Of connections to upstreams.
pub fn client_transport(options: &Http3Options) -> TransportConfig {
    let idle = options.quic.idle_network_timeout.unwrap_or(UPSTREAM_IDLE);
    let unlimited = options.disable_connection_flow_control_for_streams;
    let mut transport = common(&options.quic, idle, unlimited);
    // Servers open none (RFC 9114 §6.1).
    transport.max_concurrent_bidi_streams(0u32.into());
    let keepalive = options.quic.keepalive;
    let most = keepalive.max_interval.unwrap_or(UPSTREAM_PING);
    let interval = keepalive.initial_interval.map_or(most, |initial| initial.min(most));
    transport.keep_alive_interval(Some(interval).filter(|interval| !interval.is_zero()));
    transport
}

fn common(quic: &QuicOptions, idle: Duration, unlimited: bool) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let window = |bytes: u32| VarInt::from_u32(bytes.max(SMALLEST_WINDOW));
    transport
        .max_concurrent_uni_streams(UNI_STREAMS.into())
        .stream_receive_window(window(quic.initial_stream_window_size))
        .receive_window(if unlimited { VarInt::MAX } else { window(quic.initial_connection_window_size) })
        .send_window(u64::from(quic.initial_stream_window_size.clamp(SMALLEST_WINDOW, LARGEST_BACKLOG)))
        .max_idle_timeout(Some(
            IdleTimeout::try_from(idle).unwrap_or_else(|_| IdleTimeout::from(VarInt::MAX)),
        ))
        // Nobody reads datagrams (RFC 9221).
        .datagram_receive_buffer_size(None);
    if let Some(length) = quic.max_packet_length {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(length.min(LARGEST_PACKET));
        transport.mtu_discovery_config(Some(discovery));
    }
    transport
}

/// Envoy's default, which is its library's: a long answer may be silent for longer than routers on the way remember.
const UPSTREAM_PING: Duration = Duration::from_secs(15);

/// Envoy's default, which is its library's.
const UPSTREAM_IDLE: Duration = Duration::from_secs(600);

/// What Envoy takes at least, since its library only lets windows grow.
const SMALLEST_WINDOW: u32 = 16 * 1024;

/// Bytes that a connection keeps for a peer that does not take or acknowledge them. It bounds the memory that a slow
/// client costs; 8 MiB fill a path of 1 Gbit/s and 64 ms.
const LARGEST_BACKLOG: u32 = 8 << 20;

/// What HTTP/3 needs beside requests is control and two of QPACK; the rest is for extensions and grease, of which a
/// client opens one at most (RFC 9114 §6.2). Envoy allows as many more as there may be requests, which would cost each
/// connection 3 KB.
const UNI_STREAMS: u32 = 10;

/// What fits into an Ethernet frame with IPv6 (QUICHE's `kMaxOutgoingPacketSize`).
const LARGEST_PACKET: u16 = 1452;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    /// `TransportConfig` shows its values to `Debug` only.
    fn shows(transport: &TransportConfig, what: &str) -> bool {
        format!("{transport:?}").contains(what)
    }

    #[test]
    fn windows_and_limits_are_as_configured() {
        let quic = QuicOptions {
            max_concurrent_streams: 7,
            initial_stream_window_size: 1,
            initial_connection_window_size: 100_000,
            idle_network_timeout: Some(Duration::from_secs(9)),
            max_packet_length: Some(9000),
            ..QuicOptions::default()
        };
        let options = Http3Options { quic, ..Http3Options::default() };
        let transport = client_transport(&options);
        for what in [
            "max_concurrent_bidi_streams: 0,",
            "max_concurrent_uni_streams: 10,",
            "max_idle_timeout: Some(9000)",
            "stream_receive_window: 16384,",
            " receive_window: 100000,",
            "upper_bound: 1452,",
            "datagram_receive_buffer_size: None",
        ] {
            assert!(shows(&transport, what), "{what} is not in {transport:?}");
        }
        assert!(shows(&transport, "keep_alive_interval: Some(15s)"));
        let unlimited = Http3Options { disable_connection_flow_control_for_streams: true, ..options };
        assert!(shows(&client_transport(&unlimited), " receive_window: 4611686018427387903,"));
        assert!(shows(&client_transport(&Http3Options::default()), "max_idle_timeout: Some(600000)"));
    }
}
