//! What a cluster's connections speak below their protocol.

use std::sync::Arc;

use tidegate_pool::TransportFactory;
use tidegate_pool::quic::QuicTransports;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Transports {
    /// Of connections of bytes; `None`: plain text.
    pub stream: Option<Arc<dyn TransportFactory>>,
    /// QUIC's TLS; `None`: the cluster speaks no HTTP/3.
    pub quic: Option<Arc<dyn QuicTransports>>,
}
