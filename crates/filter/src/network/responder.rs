//! Terminal network filters that answer by themselves, without I/O.

use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use serde::de::DeserializeOwned;
use tidegate_types::{ConnectionInfo, EndStream};

use crate::FactoryContext;

/// One connection's instance of a terminal filter that answers by itself.
pub trait Responder {
    /// The connection begins. What is put into `out` goes to the client.
    fn on_open(&mut self, _info: &Rc<ConnectionInfo>, _out: &mut BytesMut) -> RespondFlow {
        RespondFlow::Continue
    }

    /// Bytes from the client; what is left in `data` is dropped. `end` is the client's FIN, which may come with
    /// no bytes. Not called while more than the connection's buffer limit waits in `out`.
    fn on_read(
        &mut self,
        info: &Rc<ConnectionInfo>,
        data: &mut BytesMut,
        end: EndStream,
        out: &mut BytesMut,
    ) -> RespondFlow;
}

/// How a connection goes on after a [`Responder`]'s hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RespondFlow {
    /// Write, then read on.
    Continue,
    /// Write, then close.
    Close,
}

/// What authors of such filters write; [`Registry::responder`](crate::Registry::responder) erases it once, when
/// a configuration is loaded.
pub trait ResponderType: 'static {
    /// The name that documentation uses, such as `envoy.filters.network.echo`.
    const NAME: &'static str;
    /// `@type` of the filter's configuration, with `type.googleapis.com/`.
    const TYPE_URL: &'static str;
    /// The configuration. Unknown fields are refused without the author's help.
    type Config: DeserializeOwned;
    /// What lives as long as the configuration and is shared by all workers.
    type Factory: Send + Sync + 'static;

    /// Validates the configuration and builds the factory. The error is shown with the place of the filter in
    /// the user's file.
    fn build(config: Self::Config, cx: &FactoryContext<'_>) -> Result<Self::Factory, String>;

    /// Opens the filter on a connection.
    fn open(factory: &Arc<Self::Factory>, info: &Rc<ConnectionInfo>) -> Box<dyn Responder>;
}

/// The erased, config-time form: part of a snapshot, shared by all workers.
pub trait ResponderFactory: Send + Sync {
    /// Opens the filter on a connection.
    fn open(&self, info: &Rc<ConnectionInfo>) -> Box<dyn Responder>;
}

/// [`ResponderFactory`] of a typed filter.
pub(crate) struct TypedResponder<T: ResponderType> {
    pub(crate) factory: Arc<T::Factory>,
}

impl<T: ResponderType> ResponderFactory for TypedResponder<T> {
    fn open(&self, info: &Rc<ConnectionInfo>) -> Box<dyn Responder> {
        T::open(&self.factory, info)
    }
}
