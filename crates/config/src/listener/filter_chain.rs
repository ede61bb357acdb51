//! `envoy.config.listener.v3.FilterChain`: what serves the connections that match it.

use std::sync::Arc;

use tidegate_types::json::TypedConfig;

use super::FilterChainMatch;
use crate::reader::{Message, Reader};
use crate::transport::TransportSocket;
use crate::values::TimeoutOverride;
use crate::{HcmConfig, TcpProxyConfig};

/// `envoy.config.listener.v3.FilterChain`.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterChainConfig {
    /// `name`; may be empty.
    pub name: String,
    /// `filter_chain_match`; matches everything when unset.
    pub matching: FilterChainMatch,
    /// `filters`, in order; the last one is terminal.
    pub filters: Vec<NetworkFilterConfig>,
    /// `transport_socket`.
    pub transport_socket: TransportSocket,
    /// `transport_socket_connect_timeout`, which bounds the handshake.
    pub transport_socket_connect_timeout: TimeoutOverride,
}

impl FilterChainConfig {
    /// Whether a connection of `other` can be served by this one after a reload: all but the match, which was
    /// made already, is the same.
    pub fn same_but_match(&self, other: &Self) -> bool {
        self.name == other.name
            && self.filters == other.filters
            && self.transport_socket == other.transport_socket
            && self.transport_socket_connect_timeout == other.transport_socket_connect_timeout
    }
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

impl Message for FilterChainConfig {
    const NAME: &'static str = "envoy.config.listener.v3.FilterChain";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            name: r.string("name").or_default(),
            matching: r.message_or_defaults("filter_chain_match"),
            filters: r
                .repeated::<Option<NetworkFilterConfig>>("filters")
                .required_non_empty()
                .into_iter()
                .flatten()
                .collect(),
            transport_socket: r.message_or_defaults("transport_socket"),
            transport_socket_connect_timeout: r.duration("transport_socket_connect_timeout").overriding(),
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
