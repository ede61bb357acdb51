//! A harness of network filters: one filter's hooks run against scripted bytes, without sockets.
//!
//! [`NetworkHarness`] decodes a configuration from JSON just as the proxy does; [`NetworkHarness::open`] begins a
//! connection. What the hooks answer comes back as it is: unlike the proxy's driver, a [`NetworkRun`] does not stop
//! at `Skip` or `Close`. Under tokio's paused clock, delays take no time.

use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidegate_filter::{
    BuiltNetwork, NetworkFilter, NetworkFilterType, NetworkFlow, Registry, RespondFlow, Responder,
    ResponderType,
};
use tidegate_stats::{Scope, Store};
use tidegate_types::json::Problem;
use tidegate_types::{Address, CloseReason, ConnectionInfo, EndStream};

use crate::filter::{stat, typed, with_scope};

/// One filter under test, with its configuration.
pub struct NetworkHarness {
    built: BuiltNetwork,
    store: Store,
}

impl NetworkHarness {
    /// Builds a filter from its configuration's fields, as JSON text without `@type`.
    ///
    /// # Errors
    /// What is wrong with the configuration, with path and place, as the proxy would print it.
    pub fn new<T: NetworkFilterType>(config: &str) -> Result<Self, Vec<Problem>> {
        Self::with_runtime::<T>(config, &[])
    }

    /// As [`NetworkHarness::new`], with values of the runtime layer.
    ///
    /// # Errors
    /// As [`NetworkHarness::new`].
    pub fn with_runtime<T: NetworkFilterType>(
        config: &str,
        runtime: &[(&str, u64)],
    ) -> Result<Self, Vec<Problem>> {
        Self::build(&Registry::default().network::<T>(), (T::NAME, T::TYPE_URL), config, runtime)
    }

    /// As [`NetworkHarness::new`], for a terminal filter that answers by itself.
    ///
    /// # Errors
    /// As [`NetworkHarness::new`].
    pub fn responder<T: ResponderType>(config: &str) -> Result<Self, Vec<Problem>> {
        Self::build(&Registry::default().responder::<T>(), (T::NAME, T::TYPE_URL), config, &[])
    }

    fn build(
        registry: &Registry,
        (name, type_url): (&str, &str),
        config: &str,
        runtime: &[(&str, u64)],
    ) -> Result<Self, Vec<Problem>> {
        let store = Store::new(1);
        let config = typed(name, type_url, config)?;
        let built = with_scope(&store, &Scope::root(), runtime, |cx| registry.build_network(&config, cx))?;
        Ok(Self { built, store })
    }

    /// The counter or gauge of that full name, read from the text that `/stats` prints; `None` if it is not
    /// there.
    pub fn stat(&self, name: &str) -> Option<u64> {
        stat(&self.store, name)
    }

    /// Begins a connection of [`connection`].
    pub fn open(&self) -> NetworkRun {
        self.open_on(connection())
    }

    /// Begins a connection with these facts.
    pub fn open_on(&self, info: ConnectionInfo) -> NetworkRun {
        let info = Rc::new(info);
        let opened = match &self.built {
            BuiltNetwork::Filter(factory) => Opened::Filter(factory.open(&info)),
            BuiltNetwork::Responder(factory) => Opened::Responder(factory.open(&info)),
        };
        NetworkRun { opened, info }
    }
}

/// A connection from 192.0.2.1:40000 to 192.0.2.10:80 (RFC 5737), without TLS.
pub fn connection() -> ConnectionInfo {
    let address = |host: u8, port: u16| Address::Ip(([192, 0, 2, host], port).into());
    ConnectionInfo::new(1, address(10, 80), address(1, 40_000), Arc::from("test"))
}

/// One connection and the filter's instance on it.
pub struct NetworkRun {
    opened: Opened,
    info: Rc<ConnectionInfo>,
}

enum Opened {
    Filter(Box<dyn NetworkFilter>),
    Responder(Box<dyn Responder>),
}

#[allow(clippy::panic, reason = "a test helper: a panic is how a test fails")]
impl NetworkRun {
    /// The connection's facts.
    pub fn info(&self) -> &Rc<ConnectionInfo> {
        &self.info
    }

    /// The connection begins.
    ///
    /// # Panics
    /// When the filter is a responder, as the other hooks of filters.
    pub async fn on_open(&mut self) -> NetworkFlow {
        let info = self.info.clone();
        self.filter().on_open(&info).resolve().await
    }

    /// Bytes from the client: what the filter answered and what it left of them.
    pub async fn on_read(&mut self, bytes: &str, end: EndStream) -> (NetworkFlow, Bytes) {
        let (info, mut data) = (self.info.clone(), BytesMut::from(bytes));
        let flow = self.filter().on_read(&info, &mut data, end).resolve().await;
        (flow, data.freeze())
    }

    /// Bytes to the client: what the filter answered and what it left of them.
    pub async fn on_write(&mut self, bytes: &str, end: EndStream) -> (NetworkFlow, Bytes) {
        let (info, mut data) = (self.info.clone(), BytesMut::from(bytes));
        let flow = self.filter().on_write(&info, &mut data, end).resolve().await;
        (flow, data.freeze())
    }

    /// The connection ends.
    pub fn on_close(&mut self, reason: CloseReason) {
        let info = self.info.clone();
        self.filter().on_close(&info, Some(reason));
    }

    /// The connection of a responder begins: how it goes on, and what the client gets.
    ///
    /// # Panics
    /// When the filter is not a responder, as [`NetworkRun::answer`].
    pub fn greet(&mut self) -> (RespondFlow, Bytes) {
        let (info, mut out) = (self.info.clone(), BytesMut::new());
        let flow = self.responder().on_open(&info, &mut out);
        (flow, out.freeze())
    }

    /// A responder gets bytes from the client: how the connection goes on, and what the client gets.
    pub fn answer(&mut self, bytes: &str, end: EndStream) -> (RespondFlow, Bytes) {
        let (info, mut data, mut out) = (self.info.clone(), BytesMut::from(bytes), BytesMut::new());
        let flow = self.responder().on_read(&info, &mut data, end, &mut out);
        (flow, out.freeze())
    }

    #[track_caller]
    fn filter(&mut self) -> &mut dyn NetworkFilter {
        match &mut self.opened {
            Opened::Filter(filter) => filter.as_mut(),
            Opened::Responder(_) => panic!("a responder has no such hook"),
        }
    }

    #[track_caller]
    fn responder(&mut self) -> &mut dyn Responder {
        match &mut self.opened {
            Opened::Responder(responder) => responder.as_mut(),
            Opened::Filter(_) => panic!("the filter is no responder"),
        }
    }
}
