//! The QUIC of clusters: what pools ask for, answered by the `tls` crate.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_config::ClusterConfig;
use tidegate_config::protocol::Http3Options;
use tidegate_net::{TransportError, TransportOptions};
use tidegate_pool::quic::{Beginning, Connection, QuicTransport, QuicTransports};
use tidegate_tls::ClientContext;
use tidegate_tls::quic::{self, QuicClient};
use tidegate_types::TlsInfo;

/// That of a cluster that speaks HTTP/3.
pub(super) fn transports(
    cluster: &ClusterConfig,
    context: Option<&Arc<ClientContext>>,
) -> Option<Arc<dyn QuicTransports>> {
    let (options, context) = (cluster.protocol.http3()?.clone(), context?.clone());
    Some(Arc::new(ClusterQuic { context, options }))
}

struct ClusterQuic {
    context: Arc<ClientContext>,
    options: Http3Options,
}

impl fmt::Debug for ClusterQuic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterQuic").field("options", &self.options).finish_non_exhaustive()
    }
}

impl QuicTransports for ClusterQuic {
    fn of_host(&self, hostname: &str) -> Rc<dyn QuicTransport> {
        Rc::new(HostQuic(QuicClient::new(self.context.clone(), hostname, &self.options)))
    }
}

struct HostQuic(QuicClient);

impl QuicTransport for HostQuic {
    fn begin(&self, options: &TransportOptions) -> Result<Beginning, TransportError> {
        let quic::Beginning { config, server_name } = self.0.begin(options)?;
        Ok(Beginning { config, server_name })
    }

    fn session(&self, conn: &Connection) -> Option<Rc<TlsInfo>> {
        quic::info(conn)
    }

    fn server_name(&self, options: &TransportOptions) -> Option<Arc<str>> {
        self.0.server_name(options)
    }

    fn verifies(&self) -> bool {
        self.0.verifies()
    }
}
