//! `envoy.config.listener.v3.Listener`.

use std::sync::Arc;
use std::time::Duration;

use tidegate_types::Address;
use tidegate_types::json::TypedConfig;

use crate::access_log::{AccessLogConfig, access_logs};
use crate::address::Endpoint;
use crate::reader::{Message, Reader, Space};
use crate::transport::TransportSocket;
use crate::values::TcpKeepalive;
use crate::{HcmConfig, TcpProxyConfig};

/// A validated listener.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerConfig {
    /// `name`, unique; the address when the file gives none.
    pub name: String,
    /// `address`; port 0 lets the kernel choose.
    pub address: Address,
    /// `address.pipe.mode`: permission bits of a Unix-domain socket; `None` leaves the umask's.
    pub unix_mode: Option<u32>,
    /// `stat_prefix`; empty: the address.
    pub stat_prefix: String,
    /// `filter_chains`: exactly one in this build.
    pub filter_chains: Vec<FilterChainConfig>,
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
}

/// `envoy.config.listener.v3.FilterChain`.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterChainConfig {
    /// `name`; may be empty.
    pub name: String,
    /// `filters`, in order; the last one is terminal.
    pub filters: Vec<NetworkFilterConfig>,
    /// `transport_socket`.
    pub transport_socket: TransportSocket,
    /// `transport_socket_connect_timeout`: `None` is off (0).
    pub transport_socket_connect_timeout: Option<Duration>,
}

/// One network filter.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkFilterConfig {
    /// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
    Http(Arc<HcmConfig>),
    /// `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.
    Tcp(Arc<TcpProxyConfig>),
    /// Any other, for the filter registry.
    Other(TypedConfig),
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

impl Message for ListenerConfig {
    const NAME: &'static str = "envoy.config.listener.v3.Listener";

    fn read(r: &Reader<'_>) -> Self {
        const DIRECTIONS: &[(&str, u32, TrafficDirection)] = &[
            ("UNSPECIFIED", 0, TrafficDirection::Unspecified),
            ("INBOUND", 1, TrafficDirection::Inbound),
            ("OUTBOUND", 2, TrafficDirection::Outbound),
        ];
        let Endpoint { address, unix_mode } = r.required_message("address");
        let name = r.string("name").unique(Space::Listener).non_empty();
        let bind_to_port = r.bool("bind_to_port").or(true);
        if bind_to_port && address.port() != Some(0) {
            r.cx.define(
                Space::ListenerAddress,
                &address.to_string(),
                &r.path.field("address"),
                r.place("address"),
            );
        }
        Self {
            name: name.unwrap_or_else(|| address.to_string()),
            unix_mode,
            stat_prefix: r.string("stat_prefix").or_default(),
            filter_chains: filter_chains(r),
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
            address,
        }
    }
}

fn filter_chains(r: &Reader<'_>) -> Vec<FilterChainConfig> {
    let chains = r.repeated::<FilterChainConfig>("filter_chains");
    match chains.peek().map(Vec::len) {
        Some(1) => {}
        None | Some(0) => chains.report("no filter chain: the listener could not serve a connection", None),
        Some(_) => chains.report("more than one filter chain is not supported by this build", None),
    }
    chains.or_default()
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

impl Message for FilterChainConfig {
    const NAME: &'static str = "envoy.config.listener.v3.FilterChain";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            name: r.string("name").or_default(),
            filters: r
                .repeated::<Option<NetworkFilterConfig>>("filters")
                .required_non_empty()
                .into_iter()
                .flatten()
                .collect(),
            transport_socket: r.message_or_defaults("transport_socket"),
            transport_socket_connect_timeout: r
                .duration("transport_socket_connect_timeout")
                .zero_is_off(None),
        }
    }
}

impl Message for Option<NetworkFilterConfig> {
    const NAME: &'static str = "envoy.config.listener.v3.Filter";

    fn read(r: &Reader<'_>) -> Self {
        r.may_be::<HcmConfig>();
        r.may_be::<TcpProxyConfig>();
        let any = r.extension_any()?;
        Some(if any.config.is::<HcmConfig>() {
            NetworkFilterConfig::Http(Arc::new(any.config.read(r)))
        } else if any.config.is::<TcpProxyConfig>() {
            NetworkFilterConfig::Tcp(Arc::new(any.config.read(r)))
        } else {
            NetworkFilterConfig::Other(any.config.keep(any.name))
        })
    }
}
