//! `envoy.config.listener.v3.UdpListenerConfig`, with `QuicProtocolOptions` of the same package: a listener of
//! HTTP/3.

use std::time::Duration;

use tidegate_types::json::{JsonPath, Problem};

use super::{FilterChainConfig, ListenerConfig, NetworkFilterConfig};
use crate::hcm::CodecType;
use crate::protocol::QuicOptions;
use crate::reader::{Message, Reader};
use crate::transport::TransportSocket;
use crate::values::{BuiltIn, RuntimeFlag};

/// How a listener speaks QUIC. What is not about single connections is here, the rest in [`QuicOptions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpListenerConfig {
    /// `quic_options.quic_protocol_options`.
    pub quic: QuicOptions,
    /// How long a connection may be silent: `quic_protocol_options.idle_network_timeout`, else
    /// `quic_options.idle_timeout`, at least 1 ms, 300 s when unset.
    pub idle_timeout: Duration,
    /// `quic_options.crypto_handshake_timeout`, at least 5 s, 20 s when unset.
    pub crypto_handshake_timeout: Duration,
    /// `quic_options.enabled`: off, datagrams are dropped; on when unset.
    pub enabled: RuntimeFlag,
    /// `quic_options.packets_to_read_to_connection_count_ratio`, at least 1, 32 when unset: datagrams that are read
    /// in one go for each connection.
    pub packets_per_connection: u32,
    /// `quic_options.max_sessions_per_event_loop`, at least 1, 16 when unset: connections that are accepted in one
    /// go.
    pub max_sessions_per_event_loop: u32,
    /// `quic_options.send_disable_active_migration`: clients are told to stay where they are (RFC 9000 §18.2).
    pub disable_active_migration: bool,
    /// `quic_options.reject_new_connections`: answers connection attempts with an empty version negotiation.
    pub reject_new_connections: bool,
    /// `downstream_socket_config.max_rx_datagram_size` in bytes, 1500 when unset: longer datagrams are dropped.
    pub max_rx_datagram_size: u16,
    /// `udp_packet_packet_writer_config`: whether the kernel is handed several datagrams as one; true when unset.
    pub gso: bool,
}

/// The listener's `udp_listener_config`, if its address is `udp`'s.
pub(super) fn read(r: &Reader<'_>, udp: bool) -> Option<Box<UdpListenerConfig>> {
    let config = r.message::<Udp>("udp_listener_config");
    match config.peek() {
        Some(_) if !udp => {
            config.report("the listener's address is not UDP's: set `address.socket_address.protocol`", None);
        }
        Some(Udp { has_quic: false, .. }) => {
            config.report(NO_QUIC, None);
        }
        None if udp && !r.has("udp_listener_config") => r.problem(NO_QUIC),
        _ => {}
    }
    // What follows is judged as if it were complete: one mistake, one problem.
    udp.then(|| Box::new(config.optional().unwrap_or_else(|| r.cx.empty()).config))
}

const NO_QUIC: &str = "a UDP listener speaks QUIC here, and needs `udp_listener_config.quic_options`";

/// What QUIC demands of the rest of its listener, and HTTP/3 of QUIC. In quotes Envoy's words.
pub(super) fn check(r: &Reader<'_>, listener: &ListenerConfig) {
    if listener.udp.is_none() {
        for (path, chain) in chains(r, listener) {
            let wrong = |message: &str| r.cx.report(Problem::new(path.clone(), r.span, message));
            if matches!(chain.transport_socket, TransportSocket::Quic(_)) {
                wrong(
                    "the transport socket `envoy.transport_sockets.quic` needs a UDP address and \
                     `udp_listener_config.quic_options`",
                );
            }
            if managers(chain).any(|codec| codec == CodecType::Http3) {
                wrong("HTTP/3 codec configured on non-QUIC listener.");
            }
        }
        return;
    }
    if !listener.bind_to_port {
        r.problem("bind_to_port: false is not supported for UDP listeners");
    }
    if let Some(filter) = listener.listener_filters.first() {
        let message =
            format!("listener filter `{}` is for TCP: a QUIC listener has none in this build", filter.name);
        r.cx.report(Problem::new(filter.path.clone(), filter.span, message));
    }
    for (path, chain) in chains(r, listener) {
        let wrong = |message: &str| r.cx.report(Problem::new(path.clone(), r.span, message));
        match &chain.transport_socket {
            TransportSocket::Quic(_) => {}
            TransportSocket::Raw => {
                wrong("no transport socket specified for connection oriented UDP listener")
            }
            TransportSocket::Tls(_) => {
                wrong("wrong transport socket config specified for quic transport socket");
            }
        }
        if !matches!(chain.filters.last(), Some(NetworkFilterConfig::Http(_))) {
            wrong(
                "error building network filter chain for quic listener: requires http_connection_manager filter to \
                 be last in the chain.",
            );
        }
        if managers(chain).any(|codec| codec != CodecType::Http3) {
            wrong("Non-HTTP/3 codec configured on QUIC listener.");
        }
    }
}

/// The chains with their paths.
fn chains<'l>(
    r: &Reader<'_>,
    listener: &'l ListenerConfig,
) -> impl Iterator<Item = (JsonPath, &'l FilterChainConfig)> {
    let (all, default) = (r.path.field("filter_chains"), r.path.field("default_filter_chain"));
    let listed = listener.filter_chains.iter().enumerate();
    let listed = listed.map(move |(index, chain)| (all.index(index), &**chain));
    listed.chain(listener.default_filter_chain.iter().map(move |chain| (default.clone(), &**chain)))
}

fn managers(chain: &FilterChainConfig) -> impl Iterator<Item = CodecType> {
    chain.filters.iter().filter_map(|filter| match filter {
        NetworkFilterConfig::Http(manager) => Some(manager.codec_type),
        _ => None,
    })
}

/// What a `UdpListenerConfig` holds; without `quic_options` it means datagrams of no connection.
struct Udp {
    config: UdpListenerConfig,
    has_quic: bool,
}

impl Message for Udp {
    const NAME: &'static str = "envoy.config.listener.v3.UdpListenerConfig";

    fn read(r: &Reader<'_>) -> Self {
        // Here, since a schema describes `TypedExtensionConfig` once.
        r.may_be::<GsoWriter>();
        r.may_be::<DefaultWriter>();
        let socket = r.message_or_defaults::<Socket>("downstream_socket_config");
        let quic = r.message::<Quic>("quic_options");
        let has_quic = r.has("quic_options");
        let quic = quic.optional().unwrap_or_else(|| r.cx.empty());
        Self {
            config: UdpListenerConfig {
                idle_timeout: quic.options.idle_network_timeout.unwrap_or(quic.idle_timeout),
                quic: quic.options,
                crypto_handshake_timeout: quic.crypto_handshake_timeout,
                enabled: quic.enabled,
                packets_per_connection: quic.packets_per_connection,
                max_sessions_per_event_loop: quic.max_sessions_per_event_loop,
                disable_active_migration: quic.disable_active_migration,
                reject_new_connections: quic.reject_new_connections,
                max_rx_datagram_size: socket.max_rx_datagram_size,
                gso: r.message::<Writer>("udp_packet_packet_writer_config").optional().is_none_or(|w| w.gso),
            },
            has_quic,
        }
    }
}

/// `QuicProtocolOptions` of listeners.
struct Quic {
    options: QuicOptions,
    idle_timeout: Duration,
    crypto_handshake_timeout: Duration,
    enabled: RuntimeFlag,
    packets_per_connection: u32,
    max_sessions_per_event_loop: u32,
    disable_active_migration: bool,
    reject_new_connections: bool,
}

impl Message for Quic {
    const NAME: &'static str = "envoy.config.listener.v3.QuicProtocolOptions";

    fn read(r: &Reader<'_>) -> Self {
        // Each is what this build does anyhow, or refused.
        BuiltIn::<CryptoServerStream>::of(r, "crypto_stream_config");
        BuiltIn::<ProofSource>::of(r, "proof_source_config");
        BuiltIn::<ConnectionIds>::of(r, "connection_id_generator_config");
        Self {
            options: r.message_or_defaults("quic_protocol_options"),
            idle_timeout: r
                .duration("idle_timeout")
                .or(Duration::from_secs(300))
                .max(Duration::from_millis(1)),
            crypto_handshake_timeout: r
                .duration("crypto_handshake_timeout")
                .or(Duration::from_secs(20))
                .max(Duration::from_secs(5)),
            enabled: r.message("enabled").or(RuntimeFlag { default: true, runtime_key: String::new() }),
            packets_per_connection: r.u32("packets_to_read_to_connection_count_ratio").positive().or(32),
            max_sessions_per_event_loop: r.u32("max_sessions_per_event_loop").positive().or(16),
            disable_active_migration: r.bool("send_disable_active_migration").or_default(),
            reject_new_connections: r.bool("reject_new_connections").or_default(),
        }
    }
}

/// `UdpSocketConfig`.
struct Socket {
    max_rx_datagram_size: u16,
}

impl Message for Socket {
    const NAME: &'static str = "envoy.config.core.v3.UdpSocketConfig";

    fn read(r: &Reader<'_>) -> Self {
        let size = r.u64("max_rx_datagram_size").within(1..=65_535).check(|size| match size {
            1..1200 => Err("QUIC needs datagrams of 1200 bytes (RFC 9000 §14)".to_owned()),
            _ => Ok(()),
        });
        // Performance only, as the API says: it is always used where the kernel has it.
        r.bool("prefer_gro").optional();
        Self { max_rx_datagram_size: size.optional().and_then(|size| size.try_into().ok()).unwrap_or(1500) }
    }
}

/// `udp_packet_packet_writer_config`.
struct Writer {
    gso: bool,
}

impl Message for Writer {
    const NAME: &'static str = "envoy.config.core.v3.TypedExtensionConfig";

    fn read(r: &Reader<'_>) -> Self {
        let Some(writer) = r.extension_any() else { return Self { gso: true } };
        let gso = writer.config.is::<GsoWriter>();
        if gso {
            writer.config.read::<GsoWriter>(r);
        } else if writer.config.is::<DefaultWriter>() {
            writer.config.read::<DefaultWriter>(r);
        } else {
            r.problem(format!(
                "`{}` is not supported by this build (expected one of {}, {})",
                writer.config.type_url.rsplit('/').next().unwrap_or_default(),
                GsoWriter::NAME,
                DefaultWriter::NAME
            ));
        }
        Self { gso }
    }
}

/// Messages without fields that name what this build does.
macro_rules! markers {
    ($($marker:ident = $name:literal;)*) => {$(
        struct $marker;

        impl Message for $marker {
            const NAME: &'static str = $name;

            fn read(_: &Reader<'_>) -> Self {
                Self
            }
        }
    )*};
}

markers! {
    GsoWriter = "envoy.extensions.udp_packet_writer.v3.UdpGsoBatchWriterFactory";
    DefaultWriter = "envoy.extensions.udp_packet_writer.v3.UdpDefaultWriterFactory";
    CryptoServerStream = "envoy.extensions.quic.crypto_stream.v3.CryptoServerStreamConfig";
    ProofSource = "envoy.extensions.quic.proof_source.v3.ProofSourceConfig";
    ConnectionIds =
        "envoy.extensions.quic.connection_id_generator.v3.DeterministicConnectionIdGeneratorConfig";
}
