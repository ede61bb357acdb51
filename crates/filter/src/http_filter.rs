//! HTTP filters: the traits that authors implement and the erased form that a configuration holds.
//!
//! Two halves because a suspended future holds `&mut self`: with one object a stalled request chunk
//! would block the same filter's response hooks. No `async fn`: chains come from JSON, so `dyn` is
//! needed, and boxing every call costs about 100 ns and 8 allocations over 8 filters against 11 to
//! 14 ns and none for [`Step`].

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use serde::de::DeserializeOwned;
use tidegate_stats::{Scope, Store};
use tidegate_types::{BodyBuf, EndStream, RequestHead, ResponseHead};

use crate::route::ErasedConfig;
use crate::{Cx, Flow, HeadFlow, Step, Stream};

/// The request half of a filter on one stream.
pub trait RequestFilter {
    /// The head arrived; `end` if nothing follows.
    fn on_head<'a>(&'a mut self, cx: &'a Cx, head: &'a mut RequestHead, end: EndStream)
    -> Step<'a, HeadFlow>;

    /// A part of the body. The filter may change it; what it leaves goes on.
    fn on_data<'a>(&'a mut self, _cx: &'a Cx, _data: &'a mut BodyBuf, _end: EndStream) -> Step<'a, Flow> {
        Step::Now(Flow::Continue)
    }

    /// The whole body, after [`HeadFlow::Buffer`]. The head has not gone on yet.
    fn on_buffered<'a>(
        &'a mut self,
        _cx: &'a Cx,
        _head: &'a mut RequestHead,
        _body: &'a mut BodyBuf,
    ) -> Step<'a, Flow> {
        Step::Now(Flow::Continue)
    }

    /// The trailers, which end the message.
    fn on_trailers<'a>(&'a mut self, _cx: &'a Cx, _trailers: &'a mut HeaderMap) -> Step<'a, Flow> {
        Step::Now(Flow::Continue)
    }
}

/// The response half of a filter on one stream. Filters see responses in the reverse order of the chain.
pub trait ResponseFilter {
    /// A 1xx response other than 101 passes.
    fn on_informational<'a>(&'a mut self, _cx: &'a Cx, _head: &'a mut ResponseHead) -> Step<'a, Flow> {
        Step::Now(Flow::Continue)
    }

    /// The head arrived, from upstream or from a local reply; `end` if nothing follows.
    fn on_head<'a>(
        &'a mut self,
        cx: &'a Cx,
        head: &'a mut ResponseHead,
        end: EndStream,
    ) -> Step<'a, HeadFlow>;

    /// A part of the body. The filter may change it; what it leaves goes on.
    fn on_data<'a>(&'a mut self, _cx: &'a Cx, _data: &'a mut BodyBuf, _end: EndStream) -> Step<'a, Flow> {
        Step::Now(Flow::Continue)
    }

    /// The whole body, after [`HeadFlow::Buffer`]. The head has not gone on yet.
    fn on_buffered<'a>(
        &'a mut self,
        _cx: &'a Cx,
        _head: &'a mut ResponseHead,
        _body: &'a mut BodyBuf,
    ) -> Step<'a, Flow> {
        Step::Now(Flow::Continue)
    }

    /// The trailers, which end the message.
    fn on_trailers<'a>(&'a mut self, _cx: &'a Cx, _trailers: &'a mut HeaderMap) -> Step<'a, Flow> {
        Step::Now(Flow::Continue)
    }
}

/// One stream's instance of one filter: only the halves that exist are walked.
#[derive(Default)]
pub struct HttpFilter {
    /// Sees the request.
    pub request: Option<Box<dyn RequestFilter>>,
    /// Sees the response.
    pub response: Option<Box<dyn ResponseFilter>>,
}

impl HttpFilter {
    /// A filter with a request half only.
    pub fn request(half: impl RequestFilter + 'static) -> Self {
        Self { request: Some(Box::new(half)), response: None }
    }

    /// A filter with a response half only.
    pub fn response(half: impl ResponseFilter + 'static) -> Self {
        Self { request: None, response: Some(Box::new(half)) }
    }

    /// Adds a response half.
    #[must_use]
    pub fn and_response(mut self, half: impl ResponseFilter + 'static) -> Self {
        self.response = Some(Box::new(half));
        self
    }
}

/// What a factory may use while a configuration is built.
pub struct FactoryContext<'a> {
    /// Where the filter's statistics live.
    pub stats: &'a Store,
    /// For an HTTP filter the connection manager's scope, `http.<stat_prefix>.`: a filter's own is a child of
    /// it. For a network filter the root.
    pub scope: &'a Scope,
    /// The values of `layered_runtime`.
    pub runtime: RuntimeValues<'a>,
    /// `node.cluster`, or `--service-cluster`: the service that this proxy is part of.
    pub local_cluster: &'a str,
}

/// Looks a runtime key up: its value if it is an unsigned integer.
pub type RuntimeValues<'a> = &'a dyn Fn(&str) -> Option<u64>;

/// What filter authors write; [`Registry`](crate::Registry) erases it once, when a configuration is loaded.
pub trait HttpFilterType: 'static {
    /// The name that documentation uses, such as `envoy.filters.http.buffer`.
    const NAME: &'static str;
    /// `@type` of the filter's configuration, with `type.googleapis.com/`.
    const TYPE_URL: &'static str;
    /// `@type` of the per-route configuration.
    const ROUTE_TYPE_URL: &'static str = Self::TYPE_URL;
    /// The configuration. Unknown fields are refused without the author's help.
    type Config: DeserializeOwned;
    /// The per-route configuration.
    type RouteConfig: DeserializeOwned + Send + Sync + 'static;
    /// What lives as long as the configuration and is shared by all workers.
    type Factory: Send + Sync + 'static;

    /// Validates the configuration and builds the factory. The error is shown with the place of the
    /// filter in the user's file.
    fn build(config: Self::Config, cx: &FactoryContext<'_>) -> Result<Self::Factory, String>;

    /// Validates a per-route configuration and makes it ready: with statistics, for instance. The error is
    /// shown with its place in the user's file.
    fn build_route(config: Self::RouteConfig, _cx: &FactoryContext<'_>) -> Result<Self::RouteConfig, String> {
        Ok(config)
    }

    /// Opens the filter on a stream.
    fn open(factory: &Arc<Self::Factory>, stream: &Rc<Stream>) -> HttpFilter;
}

/// The erased, config-time form: part of a snapshot, shared by all workers.
pub trait HttpFilterFactory: Send + Sync {
    /// Opens the filter on a stream.
    fn open(&self, stream: &Rc<Stream>) -> HttpFilter;
}

/// [`HttpFilterFactory`] of a typed filter.
pub(crate) struct TypedFactory<T: HttpFilterType> {
    pub(crate) factory: Arc<T::Factory>,
}

impl<T: HttpFilterType> HttpFilterFactory for TypedFactory<T> {
    fn open(&self, stream: &Rc<Stream>) -> HttpFilter {
        T::open(&self.factory, stream)
    }
}

/// Erases a per-route configuration.
pub(crate) fn erase<C: Send + Sync + 'static>(config: C) -> ErasedConfig {
    Arc::new(config)
}
