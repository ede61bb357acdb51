//! Connections whose protocol the peer chooses: what the dialer opened, and the codec that ALPN asks for.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_codec::h2::Observer;
use tidegate_net::TransportOptions;
use tidegate_types::Address;

use crate::dialer::Dialer;
use crate::driver::Connect;
use crate::error::PoolError;
use crate::h1::{self, Conn, ConnFacts};
use crate::h2;

/// What the peer chose.
pub enum Opened {
    /// HTTP/1.1.
    H1(Box<dyn Conn>, ConnFacts),
    /// HTTP/2.
    H2(h2::Opened),
}

/// TLS connections to a host.
pub struct SocketConnector {
    /// Opens them; its transport offers both protocols.
    pub dialer: Rc<Dialer>,
    /// What the pool's streams ask of its connections.
    pub options: Rc<TransportOptions>,
    /// Codec options of HTTP/1.1.
    pub http1: Rc<h1::ClientOptions>,
    /// Codec options of HTTP/2.
    pub http2: Rc<h2::ClientOptions>,
    /// Counts what happens on HTTP/2 connections.
    pub observer: Rc<dyn Observer>,
}

impl Connect<Opened> for SocketConnector {
    fn connect(&self) -> Pin<Box<dyn Future<Output = Result<Opened, PoolError>>>> {
        let (http1, http2, observer) = (self.http1.clone(), self.http2.clone(), self.observer.clone());
        let stats = self.dialer.stats.clone();
        let dialing = self.dialer.open(self.options.clone());
        Box::pin(async move {
            let opened = dialing.await?;
            let alpn = opened.io.tls().and_then(|tls| tls.alpn.as_deref());
            if alpn == Some(b"h2") {
                stats.upstream_cx_http2_total().inc();
                return h2::connector::speak(opened, http2, observer).map(Opened::H2);
            }
            stats.upstream_cx_http1_total().inc();
            let (conn, facts) = h1::connector::speak(opened, http1);
            Ok(Opened::H1(conn, facts))
        })
    }

    fn address(&self) -> Option<Arc<Address>> {
        Some(self.dialer.addresses.primary())
    }
}
