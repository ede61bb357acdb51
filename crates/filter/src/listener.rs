//! Listener filters: they see a connection's first bytes and its addresses before a filter chain is chosen.
//!
//! A filter is a type that implements [`ListenerFilterType`]; per connection it opens a [`ListenerFilter`],
//! which is asked with all the bytes that have arrived, first with none, then whenever there are more, until it
//! is done or refuses. The bytes stay where they are for those that come after, unless the filter takes them
//! away ([`ListenerFlow::Done`]). What it finds it puts into the [`Arrival`]. No I/O here and no clock:
//! `tidegate-listener` drives filters, one after the other, and bounds the time.

use std::borrow::Cow;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tidegate_types::{Address, ConnectionState};

use crate::FactoryContext;

/// What is known of a connection before it is one: listener filters fill it in, the filter-chain match reads it.
#[derive(Debug)]
pub struct Arrival {
    /// The address that the client connected to.
    pub local_address: Address,
    /// The peer of the socket, whatever a PROXY header says.
    pub direct_remote_address: Address,
    /// The client: the peer, or who a PROXY header says it speaks for.
    pub remote_address: Address,
    /// Where the client wanted to go before the kernel redirected it here; only known to filters that ask for it
    /// ([`ListenerFilter::wants_original_destination`]). After all filters: `local_address`, if one of them restored it.
    pub original_destination: Option<Address>,
    /// The name that the client asks for, in lower case.
    pub server_name: Option<Arc<str>>,
    /// `tls` or `raw_buffer`, once a filter has found out.
    pub transport_protocol: Option<Cow<'static, str>>,
    /// The protocols that the client offers (ALPN), or the one that it was heard to speak; the best first.
    pub application_protocols: Vec<Vec<u8>>,
    /// What the access logs print as `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub transport_failure: Option<Box<str>>,
    /// What filters leave for those after them, until the connection's end.
    pub state: ConnectionState,
}

impl Arrival {
    /// A connection of which only the addresses are known.
    pub fn new(local_address: Address, peer: Address) -> Self {
        Self {
            local_address,
            direct_remote_address: peer.clone(),
            remote_address: peer,
            original_destination: None,
            server_name: None,
            transport_protocol: None,
            application_protocols: Vec::new(),
            transport_failure: None,
            state: ConnectionState::default(),
        }
    }
}

/// How it goes on after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerFlow {
    /// Ask again when there are more bytes.
    NeedMore,
    /// On to the next filter. The first `consume` bytes were for this filter alone: nobody after it sees them.
    Done {
        /// Bytes to take away; 0 for a filter that only looks.
        consume: usize,
    },
    /// Close the connection.
    Refuse,
}

impl ListenerFlow {
    /// Done, and nothing taken away.
    pub const DONE: Self = Self::Done { consume: 0 };
}

/// One connection's instance of a listener filter.
pub trait ListenerFilter {
    /// Looks at what has arrived so far: first at nothing, which is the moment for filters that need no bytes,
    /// then at more each time. The bytes begin at the same place each time.
    fn inspect(&mut self, arrival: &mut Arrival, bytes: &[u8]) -> ListenerFlow;

    /// Most bytes that it wants to see; at most [`MOST_BYTES`]. With so many at hand [`ListenerFlow::NeedMore`]
    /// refuses the connection.
    fn most_bytes(&self) -> usize {
        MOST_BYTES
    }

    /// Whether [`Arrival::original_destination`] should be looked up first, at the price of a system call.
    fn wants_original_destination(&self) -> bool {
        false
    }
}

/// Bounds what one connection can make the proxy hold before it is known who it is, as Envoy does.
pub const MOST_BYTES: usize = 64 * 1024;

/// What authors of listener filters write; [`Registry::listener`](crate::Registry::listener) erases it once,
/// when a configuration is loaded.
pub trait ListenerFilterType: 'static {
    /// The name that documentation uses, such as `envoy.filters.listener.tls_inspector`.
    const NAME: &'static str;
    /// `@type` of the filter's configuration, with `type.googleapis.com/`.
    const TYPE_URL: &'static str;
    /// The configuration. Unknown fields are refused without the author's help.
    type Config: DeserializeOwned;
    /// What lives as long as the configuration and is shared by all workers.
    type Factory: Send + Sync + 'static;

    /// Validates the configuration and builds the factory. `cx.scope` is the root of all names, as in Envoy.
    /// The error is shown with the place of the filter in the user's file.
    fn build(config: Self::Config, cx: &FactoryContext<'_>) -> Result<Self::Factory, String>;

    /// Opens the filter on a connection.
    fn open(factory: &Arc<Self::Factory>) -> Box<dyn ListenerFilter>;
}

/// The erased, config-time form: part of a snapshot, shared by all workers.
pub trait ListenerFilterFactory: Send + Sync {
    /// Opens the filter on a connection.
    fn open(&self) -> Box<dyn ListenerFilter>;
}

/// [`ListenerFilterFactory`] of a typed filter.
pub(crate) struct TypedListener<T: ListenerFilterType> {
    pub(crate) factory: Arc<T::Factory>,
}

impl<T: ListenerFilterType> ListenerFilterFactory for TypedListener<T> {
    fn open(&self) -> Box<dyn ListenerFilter> {
        T::open(&self.factory)
    }
}
