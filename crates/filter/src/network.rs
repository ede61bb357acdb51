//! Network filters: what stands between the transport and the terminal filter of a connection.
//!
//! A filter is a type that implements [`NetworkFilterType`]; per connection it opens a [`NetworkFilter`], which
//! sees the connection begin, its bytes in both directions and its end. A terminal filter that answers by
//! itself is a [`Responder`]. Neither does I/O: `tidegate-listener` drives them.
//!
//! Unlike an HTTP hook, a network hook that waits answers a future that borrows nothing
//! (`Step<'static, _>`): the bytes stand still in the driver, not in the future, so that a poll-based
//! connection can keep filter and future side by side.

mod responder;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use serde::de::DeserializeOwned;
use tidegate_types::{CloseReason, ConnectionInfo, EndStream, ResponseFlags};

use crate::{FactoryContext, Step};

pub(crate) use responder::TypedResponder;
pub use responder::{RespondFlow, Responder, ResponderFactory, ResponderType};

/// One connection's instance of a network filter. Every hook has a default that lets all pass.
pub trait NetworkFilter {
    /// The connection begins. Filters are asked in order, before the terminal filter knows of the connection;
    /// the handshake of TLS has not happened yet (as in Envoy), so `info.tls` is empty.
    fn on_open(&mut self, _info: &Rc<ConnectionInfo>) -> Step<'static, NetworkFlow> {
        Step::Now(NetworkFlow::Continue)
    }

    /// Bytes from the client, on their way to the terminal filter; what the filter leaves in `data` goes on.
    /// `end` is the client's FIN: nothing follows. It may come with no bytes, and not at all before a terminal
    /// filter to which the FIN is the connection's end (HTTP).
    fn on_read(
        &mut self,
        _info: &Rc<ConnectionInfo>,
        _data: &mut BytesMut,
        _end: EndStream,
    ) -> Step<'static, NetworkFlow> {
        Step::Now(NetworkFlow::Continue)
    }

    /// Bytes to the client. Filters see them in the reverse order of the chain.
    fn on_write(
        &mut self,
        _info: &Rc<ConnectionInfo>,
        _data: &mut BytesMut,
        _end: EndStream,
    ) -> Step<'static, NetworkFlow> {
        Step::Now(NetworkFlow::Continue)
    }

    /// The connection has ended, by anybody; called once for each filter that was opened, also after
    /// [`NetworkFlow::Skip`]. `None`: whoever closed it did not say why.
    fn on_close(&mut self, _info: &Rc<ConnectionInfo>, _reason: Option<CloseReason>) {}

    /// Which bytes it wants to see, asked once after [`NetworkFilter::on_open`]. Bytes that no filter wants are
    /// not copied.
    fn wants(&self) -> Wants {
        Wants::Both
    }
}

/// Which directions a filter sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// What the client sends.
    Reads,
    /// What the client gets.
    Writes,
    /// Both.
    Both,
}

/// How a connection goes on after a hook.
#[derive(Debug)]
pub enum NetworkFlow {
    /// On to the next filter.
    Continue,
    /// On to the next filter, and show this one no more bytes of either direction. When no filter is left, the
    /// terminal filter has the socket to itself and may splice: say `Skip` as soon as you can.
    Skip,
    /// Close the connection at once; nothing more is written.
    Close(NetworkClose),
}

/// Why a filter closes a connection.
#[derive(Debug)]
pub struct NetworkClose {
    /// `%DOWNSTREAM_LOCAL_CLOSE_REASON%`.
    pub reason: Cow<'static, str>,
    /// Response flags to add to the connection's.
    pub flags: ResponseFlags,
}

impl NetworkFlow {
    /// Closes the connection, for `reason`, without a response flag.
    pub fn close(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Close(NetworkClose { reason: reason.into(), flags: ResponseFlags::NONE })
    }
}

/// What authors of network filters write; [`Registry::network`](crate::Registry::network) erases it once, when
/// a configuration is loaded.
pub trait NetworkFilterType: 'static {
    /// The name that documentation uses, such as `envoy.filters.network.rbac`.
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
    fn open(factory: &Arc<Self::Factory>, info: &Rc<ConnectionInfo>) -> Box<dyn NetworkFilter>;
}

/// The erased, config-time form: part of a snapshot, shared by all workers.
pub trait NetworkFilterFactory: Send + Sync {
    /// Opens the filter on a connection.
    fn open(&self, info: &Rc<ConnectionInfo>) -> Box<dyn NetworkFilter>;
}

/// What a network filter's configuration was built into.
#[derive(Clone)]
pub enum BuiltNetwork {
    /// A filter that stands before a terminal one.
    Filter(Arc<dyn NetworkFilterFactory>),
    /// A terminal filter that answers by itself.
    Responder(Arc<dyn ResponderFactory>),
}

/// Whether a chain may, and must, end with a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkRole {
    /// It stands before a terminal filter.
    Filter,
    /// It ends the chain.
    Terminal,
}

/// [`NetworkFilterFactory`] of a typed filter.
pub(crate) struct TypedNetwork<T: NetworkFilterType> {
    pub(crate) factory: Arc<T::Factory>,
}

impl<T: NetworkFilterType> NetworkFilterFactory for TypedNetwork<T> {
    fn open(&self, info: &Rc<ConnectionInfo>) -> Box<dyn NetworkFilter> {
        T::open(&self.factory, info)
    }
}
