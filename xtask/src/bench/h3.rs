//! HTTP/3 as the load generator speaks it: a client of its own over quinn-proto, one thread and one epoll, so that
//! what is measured is never measured with itself.
//!
//! Start from [`Caller`], which [`QuicLoad`] makes its connections with. QPACK is used without a dynamic table,
//! which the client does not offer, and every handshake is a full one.

mod link;
mod load;
mod message;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{ClientConfig, EndpointConfig, TransportConfig, VarInt};

pub(super) use load::QuicLoad;
pub(super) use message::Request;

use super::{certificate, tls};
use crate::failure::{Context, Failure};

/// What new connections are made with.
#[derive(Clone)]
pub(super) struct Caller {
    config: ClientConfig,
    endpoint: Arc<EndpointConfig>,
    request: Arc<Request>,
    /// Requests under way at once on each connection.
    streams: usize,
    /// Whether each connection is closed after its first response.
    closes: bool,
}

/// Room for what the proxy sends: its sending, not our reading, is to be the limit.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const WINDOW: u32 = 64 * 1024 * 1024;

impl Caller {
    /// Connections that keep `streams` copies of `request` under way.
    pub(super) fn new(request: Request, streams: usize, closes: bool) -> Result<Self, Failure> {
        let crypto = QuicClientConfig::try_from(tls::config("h3")?).context("QUIC's TLS")?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(None)
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(WINDOW))
            .datagram_receive_buffer_size(None);
        config.transport_config(Arc::new(transport));
        let endpoint = Arc::new(EndpointConfig::default());
        Ok(Self { config, endpoint, request: Arc::new(request), streams, closes })
    }

    /// The name that the certificate has.
    fn server_name(&self) -> &'static str {
        certificate::NAME
    }
}
