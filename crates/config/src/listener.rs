//! `envoy.config.listener.v3.Listener`.

use std::sync::Arc;
use std::time::Duration;

use tidegate_types::Address;
use tidegate_types::json::{Node, Problem, TypedConfig};

use crate::access_log::{AccessLogConfig, access_logs};
use crate::address::Endpoint;
use crate::reader::{Message, Reader, Space};
use crate::socket_option::SocketOption;
use crate::values::{TcpKeepalive, metadata};

mod chain_match;
mod filter_chain;
mod udp;

pub use chain_match::{FilterChainMatch, Rule, SourceType};
pub use filter_chain::{FilterChainConfig, NetworkFilterConfig};
pub use udp::UdpListenerConfig;

/// A validated listener.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerConfig {
    /// `name`, unique; the address when the file gives none, with `/udp` behind it if it is UDP's.
    pub name: String,
    /// `address`; port 0 lets the kernel choose.
    pub address: Address,
    /// `udp_listener_config`: the address is UDP's, and all chains speak QUIC and HTTP/3. `None`: TCP.
    pub udp: Option<Box<UdpListenerConfig>>,
    /// `address.pipe.mode`: permission bits of a Unix-domain socket; `None` leaves the umask's.
    pub unix_mode: Option<u32>,
    /// `stat_prefix`; empty: the address.
    pub stat_prefix: String,
    /// `filter_chains`, in file order; which one serves a connection is the match's matter, not the order's.
    pub filter_chains: Vec<Arc<FilterChainConfig>>,
    /// `default_filter_chain`: for connections that no other matches.
    pub default_filter_chain: Option<Arc<FilterChainConfig>>,
    /// `listener_filters`, in order.
    pub listener_filters: Vec<TypedConfig>,
    /// `listener_filters_timeout`: `None` is off (0), 15 s when unset.
    pub listener_filters_timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`.
    pub continue_on_listener_filters_timeout: bool,
    /// `per_connection_buffer_limit_bytes`, 1 MiB when unset.
    pub per_connection_buffer_limit_bytes: u32,
    /// `tcp_backlog_size`; `None`: the kernel's `somaxconn`.
    pub tcp_backlog_size: Option<u32>,
    /// `enable_reuse_port`, true when unset.
    pub enable_reuse_port: bool,
    /// `tcp_keepalive` as Envoy spells it in socket options; `None` leaves the sockets alone.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `access_log`: one line a connection.
    pub access_log: Vec<AccessLogConfig>,
    /// `traffic_direction`.
    pub traffic_direction: TrafficDirection,
    /// `bind_to_port`, true when unset.
    pub bind_to_port: bool,
    /// `ignore_global_conn_limit`.
    pub ignore_global_conn_limit: bool,
    /// `max_connections_to_accept_per_socket_event`; `None`: no limit.
    pub max_connections_to_accept_per_socket_event: Option<u32>,
    /// `freebind`: the address may be one that this machine does not have (`IP_FREEBIND`).
    pub freebind: bool,
    /// `transparent`: connections that are redirected here keep the address that their client meant
    /// (`IP_TRANSPARENT`).
    pub transparent: bool,
    /// `tcp_fast_open_queue_length`; `None` leaves the sockets alone.
    pub tcp_fast_open_queue_length: Option<u32>,
    /// `socket_options`, those of the address's kind of socket.
    pub socket_options: Vec<SocketOption>,
    /// `metadata.filter_metadata`, as written: for who reads the configuration.
    pub metadata: Option<Node>,
}

/// `traffic_direction`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrafficDirection {
    /// `UNSPECIFIED`.
    #[default]
    Unspecified,
    /// `INBOUND`.
    Inbound,
    /// `OUTBOUND`.
    Outbound,
}

impl ListenerConfig {
    /// Every filter chain, the default one last.
    pub fn all_chains(&self) -> impl Iterator<Item = &Arc<FilterChainConfig>> {
        self.filter_chains.iter().chain(&self.default_filter_chain)
    }
}

impl Message for ListenerConfig {
    const NAME: &'static str = "envoy.config.listener.v3.Listener";

    fn read(r: &Reader<'_>) -> Self {
        const DIRECTIONS: &[(&str, u32, TrafficDirection)] = &[
            ("UNSPECIFIED", 0, TrafficDirection::Unspecified),
            ("INBOUND", 1, TrafficDirection::Inbound),
            ("OUTBOUND", 2, TrafficDirection::Outbound),
        ];
        r.cx.takes_udp.set(true);
        let Endpoint { address, unix_mode, udp } = r.required_message("address");
        r.cx.takes_udp.set(false);
        let shown = if udp { format!("{address}/udp") } else { address.to_string() };
        let name = r.string("name").unique(Space::Listener).non_empty();
        let bind_to_port = r.bool("bind_to_port").or(true);
        if bind_to_port && address.port() != Some(0) {
            r.cx.define(Space::ListenerAddress, &shown, &r.path.field("address"), r.place("address"));
        }
        let listener = Self {
            name: name.unwrap_or(shown),
            udp: udp::read(r, udp),
            unix_mode,
            stat_prefix: r.string("stat_prefix").or_default(),
            filter_chains: filter_chains(r),
            default_filter_chain: default_filter_chain(r),
            listener_filters: listener_filters(r),
            listener_filters_timeout: r
                .duration("listener_filters_timeout")
                .zero_is_off(Some(Duration::from_secs(15))),
            continue_on_listener_filters_timeout: r.bool("continue_on_listener_filters_timeout").or_default(),
            per_connection_buffer_limit_bytes: r.u32("per_connection_buffer_limit_bytes").or(1 << 20),
            tcp_backlog_size: r.u32("tcp_backlog_size").optional(),
            enable_reuse_port: r.bool("enable_reuse_port").or(true),
            tcp_keepalive: r.message("tcp_keepalive").optional(),
            access_log: access_logs(r),
            traffic_direction: r.enumeration("traffic_direction", DIRECTIONS, &[]).or_default(),
            bind_to_port,
            ignore_global_conn_limit: r.bool("ignore_global_conn_limit").or_default(),
            max_connections_to_accept_per_socket_event: r
                .u32("max_connections_to_accept_per_socket_event")
                .positive()
                .optional(),
            freebind: of_ip(r, "freebind", &address),
            transparent: of_ip(r, "transparent", &address),
            tcp_fast_open_queue_length: r.u32("tcp_fast_open_queue_length").optional(),
            socket_options: socket_options(r, udp),
            metadata: metadata(r),
            address,
        };
        udp::check(r, &listener);
        listener
    }
}

/// A `BoolValue` that sockets of IP addresses are told; Envoy fails to start with it on others.
fn of_ip(r: &Reader<'_>, name: &'static str, address: &Address) -> bool {
    let field = r.bool(name);
    if field.peek() == Some(&true) && matches!(address, Address::Unix(_)) {
        field.report("a Unix-domain socket has no such option", None);
    }
    field.or_default()
}

fn socket_options(r: &Reader<'_>, udp: bool) -> Vec<SocketOption> {
    let options = r.repeated::<SocketOption>("socket_options").or_default();
    let kept = |option: &SocketOption| match udp {
        true => option.kinds.has_datagram(),
        false => option.kinds.has_stream(),
    };
    options.into_iter().filter(kept).collect()
}

fn filter_chains(r: &Reader<'_>) -> Vec<Arc<FilterChainConfig>> {
    let chains = r.repeated::<FilterChainConfig>("filter_chains");
    if !r.has("default_filter_chain") && chains.peek().is_none_or(Vec::is_empty) {
        chains.report("no filter chain: the listener could not serve a connection", None);
    }
    let path = chains.path();
    let chains = chains.or_default();
    chain_match::check_duplicates(&chains, |index, message| {
        r.cx.report(Problem::new(path.index(index), r.place("filter_chains"), message));
    });
    chains.into_iter().map(Arc::new).collect()
}

fn default_filter_chain(r: &Reader<'_>) -> Option<Arc<FilterChainConfig>> {
    let chain = r.message::<FilterChainConfig>("default_filter_chain");
    // As in Envoy, which says nothing.
    if chain.peek().is_some_and(|chain| chain.matching != FilterChainMatch::default()) {
        tracing::warn!(target: "config",
            "default_filter_chain: its `filter_chain_match` has no effect: it takes what no other chain matches");
    }
    chain.optional().map(Arc::new)
}

fn listener_filters(r: &Reader<'_>) -> Vec<TypedConfig> {
    r.repeated::<ListenerFilter>("listener_filters").or_default().into_iter().filter_map(|f| f.0).collect()
}

struct ListenerFilter(Option<TypedConfig>);

impl Message for ListenerFilter {
    const NAME: &'static str = "envoy.config.listener.v3.ListenerFilter";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.extension())
    }
}
