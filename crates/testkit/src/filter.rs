//! A filter test harness: one filter's hooks run against scripted messages, without sockets.
//!
//! [`FilterHarness`] decodes a configuration from JSON just as the proxy does, [`FilterHarness::open`]
//! begins a stream, and [`Run::request`] and [`Run::response`] take messages through the filter's two
//! halves in the engine's order of calls. Callouts go to [`FakeCluster`]s. It does not route, does not run
//! other filters and speaks no HTTP version; under tokio's paused clock, time is virtual.

mod clusters;
mod message;
mod run;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tidegate_filter::route::{ErasedConfig, Slot};
use tidegate_filter::{
    FactoryContext, HttpFilterFactory, HttpFilterType, PerFilterConfig, Registry, RouteView, Stream,
};
use tidegate_stats::{Scope, Store};
use tidegate_types::json::{self, JsonPath, Problem, Span, TypedConfig};
use tidegate_types::{Address, ConnectionInfo, StreamInfo};

pub use clusters::{Answer, Call, FakeCluster, FakeClusters};
pub use message::{Message, Outcome};
pub use run::Run;

/// One filter under test, with its configuration, its route and the clusters that it may call.
pub struct FilterHarness {
    registry: Registry,
    filter_type: &'static str,
    route_type: &'static str,
    factory: Arc<dyn HttpFilterFactory>,
    levels: Vec<ErasedConfig>,
    clusters: Rc<FakeClusters>,
    store: Store,
    runtime: &'static [(&'static str, u64)],
}

impl FilterHarness {
    /// Builds the filter from its configuration's fields, as JSON text without `@type`.
    ///
    /// # Errors
    /// What is wrong with the configuration, with path and place, as the proxy would print it.
    pub fn new<T: HttpFilterType>(config: &str) -> Result<Self, Vec<Problem>> {
        Self::with_runtime::<T>(config, &[])
    }

    /// As [`FilterHarness::new`], with values of the runtime layer.
    ///
    /// # Errors
    /// As [`FilterHarness::new`].
    pub fn with_runtime<T: HttpFilterType>(
        config: &str,
        runtime: &'static [(&'static str, u64)],
    ) -> Result<Self, Vec<Problem>> {
        let registry = Registry::default().http::<T>();
        let store = Store::new(1);
        let typed = typed(T::NAME, T::TYPE_URL, config)?;
        let factory = with_context(&store, runtime, |cx| registry.build_http(&typed, cx))?;
        Ok(Self {
            registry,
            filter_type: T::TYPE_URL,
            route_type: T::ROUTE_TYPE_URL,
            factory,
            levels: Vec::new(),
            clusters: Rc::default(),
            store,
            runtime,
        })
    }

    /// Adds a per-route configuration: the first call is the least specific level, the last the most.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn route(mut self, config: &str) -> Result<Self, Vec<Problem>> {
        let typed = typed("route", self.route_type, config)?;
        let level = with_context(&self.store, self.runtime, |cx| {
            self.registry.build_route(self.filter_type, &typed, cx)
        })?;
        self.levels.push(level);
        Ok(self)
    }

    /// Adds a cluster that callouts reach under `name`.
    #[must_use]
    pub fn cluster(self, name: &str, cluster: &FakeCluster) -> Self {
        self.clusters.insert(name, cluster.clone());
        self
    }

    /// What streams see of the clusters.
    pub fn clusters(&self) -> &FakeClusters {
        &self.clusters
    }

    /// The filter's statistics; print them with [`FilterHarness::stat`].
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The counter or gauge of that full name, read from the text that `/stats` prints; `None` if it is
    /// not there.
    pub fn stat(&self, name: &str) -> Option<u64> {
        stat(&self.store, name)
    }

    /// Begins a stream.
    pub fn open(&self) -> Run {
        let stream = Rc::new(Stream::new(stream_info(), self.clusters.clone()));
        if !self.levels.is_empty() {
            let slot = Slot { levels: self.levels.clone(), disabled: None };
            let per_filter = PerFilterConfig::new(vec![slot]);
            stream.set_route(Some(Arc::new(RouteView { per_filter, ..RouteView::default() })));
        }
        Run::new(self.factory.open(&stream), stream)
    }
}

fn with_context<T>(
    store: &Store,
    runtime: &[(&str, u64)],
    build: impl FnOnce(&FactoryContext<'_>) -> T,
) -> T {
    with_scope(store, &Scope::http("test"), runtime, build)
}

pub(crate) fn with_scope<T>(
    store: &Store,
    scope: &Scope,
    runtime: &[(&str, u64)],
    build: impl FnOnce(&FactoryContext<'_>) -> T,
) -> T {
    let value = |key: &str| runtime.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
    build(&FactoryContext { stats: store, scope, runtime: &value, local_cluster: "local" })
}

/// The counter or gauge of that full name in the text that `/stats` prints.
pub(crate) fn stat(store: &Store, name: &str) -> Option<u64> {
    let text = tidegate_stats::render::text(store, &tidegate_stats::render::Filter::default());
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
}

/// A typed configuration as the proxy reads it from a file.
pub(crate) fn typed(name: &str, type_url: &str, config: &str) -> Result<TypedConfig, Vec<Problem>> {
    let path = JsonPath::root().field("typed_config");
    let value = json::parse(config)
        .map_err(|error| vec![Problem::new(path.clone(), Span::default(), error.to_string())])?;
    let span = value.span;
    Ok(TypedConfig {
        name: name.to_owned(),
        type_url: type_url.to_owned(),
        value: Arc::new(value),
        path,
        span,
    })
}

/// A stream of a client at 192.0.2.1 (RFC 5737) that began at the Unix epoch.
pub fn stream_info() -> StreamInfo {
    let address = |host: [u8; 4], port: u16| Address::Ip((host, port).into());
    let connection = ConnectionInfo::new(
        1,
        address([192, 0, 2, 10], 80),
        address([192, 0, 2, 1], 40_000),
        Arc::from("test"),
    );
    StreamInfo::new(Rc::new(connection), SystemTime::UNIX_EPOCH)
}
