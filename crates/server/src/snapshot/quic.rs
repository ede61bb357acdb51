//! What a QUIC listener's connections begin with.

use std::sync::Arc;

use tidegate_quic::ServerConfig;

/// Shared by all workers.
pub(crate) struct QuicSnapshot {
    server: Arc<ServerConfig>,
}

impl QuicSnapshot {
    pub(crate) fn new(server: Arc<ServerConfig>) -> Arc<Self> {
        Arc::new(Self { server })
    }

    /// What new connections get.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }
}
