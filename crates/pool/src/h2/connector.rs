//! HTTP/2 connections: what the dialer opened, and the codec.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use http::Version;
use tidegate_codec::h2::client::connect;
use tidegate_codec::h2::{ClientOptions, Observer};
use tidegate_net::TransportOptions;
use tidegate_types::{Address, ResetReason};

use crate::dialer::{self, Dialer};
use crate::driver::Connect;
use crate::error::PoolError;
use crate::h1::ConnFacts;
use crate::h2::Opened;

/// HTTP/2 connections to a host, by prior knowledge: whatever TLS negotiated, HTTP/2 is spoken, as Envoy does.
pub struct SocketConnector {
    /// Opens them.
    pub dialer: Rc<Dialer>,
    /// What the pool's streams ask of its connections.
    pub options: Rc<TransportOptions>,
    /// Codec options.
    pub codec: Rc<ClientOptions>,
    /// Counts what happens on them.
    pub observer: Rc<dyn Observer>,
}

impl Connect<Opened> for SocketConnector {
    fn connect(&self) -> Pin<Box<dyn Future<Output = Result<Opened, PoolError>>>> {
        self.dialer.stats.upstream_cx_http2_total().inc();
        let (codec, observer) = (self.codec.clone(), self.observer.clone());
        let dialing = self.dialer.open(self.options.clone());
        Box::pin(async move { speak(dialing.await?, codec, observer) })
    }

    fn address(&self) -> Option<Arc<Address>> {
        Some(self.dialer.addresses.primary())
    }
}

/// HTTP/2 on what the dialer opened.
pub(crate) fn speak(
    opened: dialer::Opened,
    codec: Rc<ClientOptions>,
    observer: Rc<dyn Observer>,
) -> Result<Opened, PoolError> {
    let dialer::Opened { io, id, local_address, remote_address } = opened;
    let tls = io.tls().cloned();
    let facts = ConnFacts { id, local_address, remote_address, protocol: Version::HTTP_2, tls };
    let (conn, driver) = connect(io, codec, observer)
        .map_err(|_| PoolError::Connect { reason: ResetReason::LocalConnectionFailure, transport: None })?;
    Ok(Opened { conn, driver, facts })
}
