//! Plain HTTP/1.1 connections: a socket and the codec.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use http::Version;
use tidegate_codec::h1::{ClientConn, ClientOptions, IdleEvent};
use tidegate_net::{DialError, DialOptions, dial};
use tidegate_types::{Address, CloseReason, ResetReason};

use super::conn::{AfterExchange, Conn, ConnFacts, Connect, Connected, IdleEnd, Traffic};
use crate::error::PoolError;
use crate::stats::UpstreamStats;

/// Connects to a host by TCP or a Unix-domain socket, without TLS.
pub struct SocketConnector {
    /// The host's addresses, the primary one first.
    pub addresses: Arc<[Address]>,
    /// Socket options.
    pub dial: Rc<DialOptions>,
    /// Codec options.
    pub codec: Rc<ClientOptions>,
    /// For `bind_errors`.
    pub stats: UpstreamStats,
}

impl Connect for SocketConnector {
    fn connect(&self) -> Pin<Box<dyn Future<Output = Connected>>> {
        let addresses = self.addresses.clone();
        let options = self.dial.clone();
        let codec = self.codec.clone();
        let stats = self.stats.clone();
        stats.upstream_cx_http1_total().inc();
        Box::pin(async move {
            let dialed = dial(&addresses, &options).await.map_err(|error| failure(error, &stats))?;
            let facts = ConnFacts {
                id: NEXT_ID.fetch_add(1, Relaxed),
                local_address: dialed.local.map(Rc::new),
                remote_address: Some(Rc::new(dialed.remote)),
                protocol: Version::HTTP_11,
                tls: dialed.io.tls().cloned(),
            };
            let conn: Box<dyn Conn> = Box::new(ClientConn::new(dialed.io, codec));
            Ok((conn, facts))
        })
    }

    fn address(&self) -> Option<&Address> {
        self.addresses.first()
    }
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
}

fn failure(error: DialError, stats: &UpstreamStats) -> PoolError {
    let reason = match &error {
        DialError::Remote { .. } => ResetReason::RemoteConnectionFailure,
        DialError::Local { bind, .. } => {
            if *bind {
                stats.bind_errors().inc();
            }
            ResetReason::LocalConnectionFailure
        }
    };
    PoolError::Connect { reason, transport: Some(error.transport().clone()) }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
