//! One stream as its filters see it.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tidegate_types::spare;
use tidegate_types::{FilterObject, FilterObjects, RequestHead, StreamInfo};

use crate::{Clusters, RouteView};

/// Facts of one stream, shared by its two directions. Accessors are short and hand out no guards.
pub struct Stream {
    info: StreamInfo,
    clusters: Rc<dyn Clusters>,
    route: RefCell<Option<Arc<RouteView>>>,
    route_cleared: Cell<bool>,
    request: OnceCell<Box<RequestHead>>,
    state: RefCell<Vec<Rc<dyn Any>>>,
}

impl Stream {
    /// A stream that has just begun.
    pub fn new(info: StreamInfo, clusters: Rc<dyn Clusters>) -> Self {
        Self {
            info,
            clusters,
            route: RefCell::default(),
            route_cleared: Cell::default(),
            request: OnceCell::new(),
            state: RefCell::default(),
        }
    }

    /// The facts that access logs print.
    pub fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// Where callouts go.
    pub fn clusters(&self) -> &Rc<dyn Clusters> {
        &self.clusters
    }

    /// The route that the request matched, if any.
    pub fn route(&self) -> Option<Arc<RouteView>> {
        self.route.borrow().clone()
    }

    /// For the engine: what the router matched.
    pub fn set_route(&self, route: Option<Arc<RouteView>>) {
        *self.route.borrow_mut() = route;
        self.route_cleared.set(false);
    }

    /// Asks for the route to be matched anew before the router runs: a filter that changes what routes
    /// match on calls this, as in Envoy.
    pub fn clear_route(&self) {
        self.route_cleared.set(true);
    }

    /// For the engine: whether [`Stream::clear_route`] was called since the last match.
    pub fn route_was_cleared(&self) -> bool {
        self.route_cleared.get()
    }

    /// The request's head as it went to the router: there once the request filters are done with it.
    pub fn request(&self) -> Option<&RequestHead> {
        self.request.get().map(|head| &**head)
    }

    /// For the engine: the request filters are done with the head. Ignored when called twice.
    pub fn set_request(&self, head: Box<RequestHead>) {
        // The first head wins: the request is routed once.
        let _ = self.request.set(head);
    }

    /// Keeps a value for other filters of this stream, found again by its type. A later value of the
    /// same type hides the former one.
    pub fn set<T: 'static>(&self, value: T) -> Rc<T> {
        let value = Rc::new(value);
        self.state.borrow_mut().push(value.clone());
        value
    }

    /// The last value of that type.
    pub fn state<T: 'static>(&self) -> Option<Rc<T>> {
        self.state.borrow().iter().rev().find_map(|value| value.clone().downcast::<T>().ok())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(mut head) = self.request.take() {
            spare::give_map(std::mem::take(&mut head.headers));
        }
    }
}

/// Objects by name (Envoy's filter state), for what the configuration refers to by name.
impl Stream {
    /// Leaves an object for those after.
    pub fn set_object(&self, object: FilterObject) {
        self.state::<FilterObjects>().unwrap_or_else(|| self.set(FilterObjects::default())).set(object);
    }

    /// The text that a `hash_policy` finds under that name: the stream's, else the connection's.
    pub fn hashable_object(&self, key: &str) -> Option<Arc<str>> {
        let own = self.state::<FilterObjects>();
        own.and_then(|objects| objects.hashable(key)).or_else(|| {
            let of_connection = self.info.connection.state.value::<FilterObjects>();
            of_connection.and_then(|objects| objects.hashable(key))
        })
    }
}

/// What a hook may touch, besides the message itself.
pub struct Cx {
    stream: Rc<Stream>,
    slot: usize,
}

impl Cx {
    /// The context of the filter at `slot` of the chain.
    pub fn new(stream: Rc<Stream>, slot: usize) -> Self {
        Self { stream, slot }
    }

    /// The stream.
    pub fn stream(&self) -> &Rc<Stream> {
        &self.stream
    }

    /// This filter's most specific per-route configuration.
    pub fn route_config<C: Any + Send + Sync>(&self) -> Option<Arc<C>> {
        let route = self.stream.route()?;
        route.per_filter.slot(self.slot)?.levels.last()?.clone().downcast::<C>().ok()
    }

    /// This filter's configuration at every level of the route, the least specific first.
    pub fn route_configs<C: Any + Send + Sync>(&self) -> Vec<Arc<C>> {
        let Some(route) = self.stream.route() else { return Vec::new() };
        let Some(slot) = route.per_filter.slot(self.slot) else { return Vec::new() };
        slot.levels.iter().filter_map(|level| level.clone().downcast::<C>().ok()).collect()
    }
}
