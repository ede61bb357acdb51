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
    transport
}

/// Of connections to upstreams.
pub fn client_transport(options: &Http3Options) -> TransportConfig {
    let idle = options.quic.idle_network_timeout.unwrap_or(UPSTREAM_IDLE);
    let unlimited = options.disable_connection_flow_control_for_streams;
    let mut transport = common(&options.quic, idle, unlimited);
    // Servers open none (RFC 9114 §6.1).
    transport.max_concurrent_bidi_streams(0u32.into());
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
