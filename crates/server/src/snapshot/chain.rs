//! One filter chain of a listener, built.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_config::listener::FilterChainConfig;
use tidegate_config::runtime::Answers;
use tidegate_filter::{AccessLog, ResponderFactory};
use tidegate_http::Hcm;
use tidegate_listener::NetworkFilters;
use tidegate_net::ServerTransport;
use tidegate_tcp::TcpProxy;
use tidegate_tls::ServerContext;

/// A filter chain with everything that was built from its configuration.
#[derive(Clone)]
pub(crate) struct ChainSnapshot {
    pub(crate) config: Arc<FilterChainConfig>,
    pub(crate) transport: TransportSnapshot,
    /// `transport_socket_connect_timeout`, with its default.
    pub(crate) handshake_timeout: Option<Duration>,
    /// What stands before the terminal.
    pub(crate) filters: NetworkFilters,
    pub(crate) terminal: TerminalSnapshot,
    /// What it asked of the runtime.
    pub(crate) answers: Answers,
    /// What the route table did that came from elsewhere.
    pub(crate) table_answers: Answers,
}

/// A transport, shared by all workers. A further kind is a variant here and a line in [`Self::open`].
#[derive(Clone)]
pub(crate) enum TransportSnapshot {
    /// Plain text.
    Raw,
    /// TLS.
    Tls(Arc<ServerContext>),
    /// The TLS inside QUIC.
    Quic(Arc<ServerContext>),
}

impl TransportSnapshot {
    /// A worker's own side of it; `None`: plain text.
    pub(crate) fn open(&self) -> Option<Rc<dyn ServerTransport>> {
        match self {
            Self::Raw | Self::Quic(_) => None,
            Self::Tls(context) => Some(context.transport()),
        }
    }
}

/// A terminal filter, shared by all workers. A further kind is a variant here, and one of the worker's slots.
#[derive(Clone)]
pub(crate) enum TerminalSnapshot {
    /// The HTTP connection manager.
    Http(Arc<Hcm>),
    /// A chain without filters: connections are closed at once, as in Envoy.
    Nothing,
    /// The TCP proxy.
    Tcp(Arc<TcpProxy>),
    /// One that answers by itself: echo, direct_response.
    Respond(Arc<dyn ResponderFactory>),
}

impl ChainSnapshot {
    /// The access logs of its terminal.
    pub(crate) fn access_logs(&self) -> Box<dyn Iterator<Item = &Arc<dyn AccessLog>> + '_> {
        match &self.terminal {
            TerminalSnapshot::Http(hcm) => Box::new(hcm.access_logs()),
            TerminalSnapshot::Tcp(proxy) => Box::new(proxy.access_logs()),
            TerminalSnapshot::Respond(_) | TerminalSnapshot::Nothing => Box::new(std::iter::empty()),
        }
    }
}
