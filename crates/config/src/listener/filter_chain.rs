//! `envoy.config.listener.v3.FilterChain`: what serves the connections that match it.

use std::sync::Arc;

use tidegate_types::json::{Node, Problem, TypedConfig};

use super::FilterChainMatch;
use crate::reader::{Message, Reader};
use crate::transport::TransportSocket;
use crate::values::{TimeoutOverride, metadata};
use crate::{HcmConfig, TcpProxyConfig};

/// `envoy.config.listener.v3.FilterChain`.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterChainConfig {
    /// `name`; may be empty.
    pub name: String,
    /// `filter_chain_match`; matches everything when unset.
    pub matching: FilterChainMatch,
    /// `filters`, in order; the last one is terminal. Without any, connections are closed at once.
    pub filters: Vec<NetworkFilterConfig>,
    /// `transport_socket`.
    pub transport_socket: TransportSocket,
    /// `transport_socket_connect_timeout`, which bounds the handshake.
    pub transport_socket_connect_timeout: TimeoutOverride,
    /// `metadata.filter_metadata`, as written: for who reads the configuration.
    pub metadata: Option<Node>,
}

impl FilterChainConfig {
    /// Whether a connection of `other` can be served by this one after a reload: all but the match, which was
    /// made already, is the same.
    pub fn same_but_match(&self, other: &Self) -> bool {
        self.name == other.name
            && self.filters == other.filters
            && self.transport_socket.same_but_content(&other.transport_socket)
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
            filters: filters(r),
            transport_socket: r.message_or_defaults("transport_socket"),
            transport_socket_connect_timeout: r.duration("transport_socket_connect_timeout").overriding(),
            metadata: metadata(r),
        }
    }
}

/// The filters, with those that only this crate knows to be terminal in their place; others are the registry's
/// to judge.
fn filters(r: &Reader<'_>) -> Vec<NetworkFilterConfig> {
    let field = r.repeated::<Named>("filters");
    let path = field.path();
    let named: Vec<_> = field.or_default();
    let last = named.len().saturating_sub(1);
    for (index, named) in named.iter().enumerate().take(last) {
        let Some((name, filter)) = &named.0 else { continue };
        let kind = match filter {
            NetworkFilterConfig::Http(_) => "envoy.filters.network.http_connection_manager",
            NetworkFilterConfig::Tcp(_) => "envoy.filters.network.tcp_proxy",
            NetworkFilterConfig::Other(_) => continue,
        };
        // Envoy's words.
        let message = format!(
            "Error: terminal filter named {name} of type {kind} must be the last filter in a network filter chain."
        );
        r.cx.report(Problem::new(path.index(index), r.place("filters"), message));
    }
    named.into_iter().filter_map(|named| Some(named.0?.1)).collect()
}

/// A filter and its name.
struct Named(Option<(String, NetworkFilterConfig)>);

impl Message for Named {
    const NAME: &'static str = "envoy.config.listener.v3.Filter";

    fn read(r: &Reader<'_>) -> Self {
        r.may_be::<HcmConfig>();
        r.may_be::<TcpProxyConfig>();
        let Some(any) = r.extension_any() else { return Self(None) };
        let filter = if any.config.is::<HcmConfig>() {
            NetworkFilterConfig::Http(Arc::new(any.config.read(r)))
        } else if any.config.is::<TcpProxyConfig>() {
            NetworkFilterConfig::Tcp(Arc::new(any.config.read(r)))
        } else {
            NetworkFilterConfig::Other(any.config.keep(any.name.clone()))
        };
        Self(Some((any.name, filter)))
    }
}
