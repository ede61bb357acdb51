//! `envoy.config.listener.v3.Listener`.

use std::sync::Arc;
use std::time::Duration;

use tidegate_types::Address;
use tidegate_types::json::TypedConfig;

use crate::HcmConfig;
use crate::access_log::AccessLogConfig;
use crate::values::TcpKeepalive;

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
    /// Any other, for the filter registry.
    Other(TypedConfig),
}

/// How bytes travel on the socket.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum TransportSocket {
    /// Plain text: no `transport_socket`, or `envoy.transport_sockets.raw_buffer`.
    #[default]
    Raw,
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
