//! What a QUIC listener's connections begin with.

use std::sync::Arc;

use tidegate_quic::{Endpoint, Reception, ServerConfig};

/// Shared by all workers.
pub(crate) struct QuicSnapshot {
    server: Arc<ServerConfig>,
    reception: Reception,
    /// Of stateless resets.
    pub(crate) reset_key: Option<[u8; 32]>,
}

impl QuicSnapshot {
    pub(crate) fn new(
        server: Arc<ServerConfig>,
        reception: Reception,
        reset_key: Option<[u8; 32]>,
    ) -> Arc<Self> {
        Arc::new(Self { server, reception, reset_key })
    }

    /// Makes a worker's socket go by it from now on.
    pub(crate) fn apply(&self, endpoint: &Endpoint) {
        endpoint.set_server_config(Some(self.server.clone()));
        endpoint.set_reception(self.reception);
    }
}
