//! HTTP/3 connections: what the dialer opened, and the codec.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use tidegate_codec::h3::{ClientOptions, connect};
use tidegate_codec::multiplex::Observer;
use tidegate_types::Address;

use super::Opened;
use crate::dialer::next_id;
use crate::driver::Connect;
use crate::error::PoolError;
use crate::h1::ConnFacts;
use crate::quic::{self, QuicDialer};

/// HTTP/3 connections to a host.
pub struct QuicConnector {
    /// Opens them.
    pub dialer: QuicDialer,
    /// Codec options.
    pub codec: Rc<ClientOptions>,
    /// Counts what happens on them.
    pub observer: Rc<dyn Observer>,
    /// Told how long a round trip takes, when a connection was made.
    pub on_round_trip: Option<Rc<dyn Fn(Duration)>>,
}

impl Connect<Opened> for QuicConnector {
    fn connect(&self) -> Pin<Box<dyn Future<Output = Result<Opened, PoolError>>>> {
        self.dialer.stats.upstream_cx_http3_total().inc();
        let (codec, observer) = (self.codec.clone(), self.observer.clone());
        let on_round_trip = self.on_round_trip.clone();
        let dialing = self.dialer.open();
        Box::pin(async move {
            let quic::Opened { conn, tls } = dialing.await?;
            if let Some(told) = on_round_trip {
                told(conn.rtt());
            }
            let facts = ConnFacts {
                id: next_id(),
                local_address: Some(Rc::new(Address::Ip(conn.local_address()))),
                remote_address: Some(Rc::new(Address::Ip(conn.remote_address()))),
                protocol: Version::HTTP_3,
                tls,
            };
            let (conn, driver) = connect(conn, codec, observer);
            Ok(Opened { conn, driver, facts })
        })
    }

    fn address(&self) -> Option<Arc<Address>> {
        Some(self.dialer.addresses.primary())
    }
}
