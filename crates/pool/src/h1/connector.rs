//! HTTP/1.1 connections: what the dialer opened, and the codec.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use tidegate_codec::h1::{ClientConn, ClientOptions, IdleEvent};
use tidegate_codec::multiplex::Traffic;
use tidegate_net::{BoxIo, TransportOptions};
use tidegate_types::{Address, CloseReason};

use super::conn::{AfterExchange, Conn, ConnFacts, Connected, IdleEnd};
use crate::dialer::{Dialer, Opened};
use crate::driver::Connect;

/// HTTP/1.1 connections to a host.
pub struct SocketConnector {
    /// Opens them.
    pub dialer: Rc<Dialer>,
    /// What the pool's streams ask of its connections.
    pub options: Rc<TransportOptions>,
    /// Codec options.
    pub codec: Rc<ClientOptions>,
}

impl Connect<super::Opened> for SocketConnector {
    fn connect(&self) -> Pin<Box<dyn Future<Output = Connected>>> {
        let codec = self.codec.clone();
        self.dialer.stats.upstream_cx_http1_total().inc();
        let dialing = self.dialer.open(self.options.clone());
        Box::pin(async move { Ok(speak(dialing.await?, codec)) })
    }

    fn address(&self) -> Option<Arc<Address>> {
        Some(self.dialer.addresses.primary())
    }
}

/// HTTP/1.1 on what the dialer opened.
pub(crate) fn speak(opened: Opened, codec: Rc<ClientOptions>) -> (Box<dyn Conn>, ConnFacts) {
    let Opened { io, id, local_address, remote_address } = opened;
    let tls = io.tls().cloned();
    let facts = ConnFacts { id, local_address, remote_address, protocol: Version::HTTP_11, tls };
    (Box::new(ClientConn::new(io, codec)), facts)
}

impl Conn for ClientConn {
    #[inline]
    fn after_exchange(&self) -> AfterExchange {
        if self.is_reusable() {
            return AfterExchange::Reusable;
        }
        match (self.is_request_complete(), self.saw_close_notice()) {
            (false, false) => AfterExchange::RequestIncomplete,
            (false, true) => AfterExchange::RequestIncompleteAndAnnounced,
            (true, true) if self.is_closed_by_peer() => AfterExchange::AnnouncedAndClosed,
            (true, true) => AfterExchange::Announced,
            (true, false) if self.has_excess() => AfterExchange::Excess,
            (true, false) => AfterExchange::Closed,
        }
    }

    #[inline]
    fn announced_idle_limit(&self) -> Option<Duration> {
        Self::announced_idle_limit(self)
    }

    #[inline]
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<IdleEnd> {
        self.poll_idle_closed(cx).map(|event| match event {
            IdleEvent::Closed => IdleEnd::Closed(CloseReason::PeerFin),
            IdleEvent::Broken(error) => IdleEnd::Closed(CloseReason::of_io(&error)),
            IdleEvent::UnexpectedBytes => IdleEnd::UnexpectedData,
        })
    }

    #[inline]
    fn traffic(&self) -> Traffic {
        Traffic { rx: self.rx_bytes(), tx: self.tx_bytes() }
    }

    fn before_close(&mut self, reason: CloseReason) {
        Self::before_close(self, reason);
    }

    fn into_io(self: Box<Self>) -> Option<BoxIo> {
        Some(Self::into_io(*self))
    }
}
