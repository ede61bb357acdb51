//! Which `@type` belongs to which filter: filled explicitly by each binary, read when a configuration
//! is loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tidegate_types::json::{self, Problem, TypedConfig};

use crate::http_filter::{TypedFactory, erase};
use crate::listener::{ListenerFilterFactory, ListenerFilterType, TypedListener};
use crate::network::{TypedNetwork, TypedResponder};
use crate::route::ErasedConfig;
use crate::{
    AccessLog, AccessLogContext, BuiltNetwork, FactoryContext, HttpFilterFactory, HttpFilterType,
    NetworkFilterType, NetworkRole, ResponderType,
};

/// What access-logger authors write.
pub trait AccessLogType: 'static {
    /// `@type` of the logger's configuration, with `type.googleapis.com/`.
    const TYPE_URL: &'static str;
    /// The configuration. Unknown fields are refused without the author's help.
    type Config: DeserializeOwned;

    /// Validates the configuration and opens the log.
    fn build(config: Self::Config, cx: &AccessLogContext<'_>) -> Result<Arc<dyn AccessLog>, String>;
}

/// All filters and access loggers that a binary has. Start from `tidegate_filters::registry()` and add yours.
#[derive(Default)]
pub struct Registry {
    http: BTreeMap<&'static str, HttpEntry>,
    routes: BTreeMap<&'static str, BuildRoute>,
    access_logs: BTreeMap<&'static str, BuildLog>,
    network: BTreeMap<&'static str, NetworkEntry>,
    listener: BTreeMap<&'static str, BuildListener>,
}

type BuildHttp = fn(&TypedConfig, &FactoryContext<'_>) -> Result<Arc<dyn HttpFilterFactory>, Vec<Problem>>;
type BuildRoute = fn(&TypedConfig, &FactoryContext<'_>) -> Result<ErasedConfig, Vec<Problem>>;
type BuildNetwork = fn(&TypedConfig, &FactoryContext<'_>) -> Result<BuiltNetwork, Vec<Problem>>;
type BuildListener =
    fn(&TypedConfig, &FactoryContext<'_>) -> Result<Arc<dyn ListenerFilterFactory>, Vec<Problem>>;
type BuildLog = fn(&TypedConfig, &AccessLogContext<'_>) -> Result<Arc<dyn AccessLog>, Vec<Problem>>;

struct HttpEntry {
    build: BuildHttp,
    name: &'static str,
    route_type: &'static str,
}

struct NetworkEntry {
    build: BuildNetwork,
    name: &'static str,
    role: NetworkRole,
}

impl Registry {
    /// Adds an HTTP filter. A later one of the same `@type` takes its place.
    #[must_use]
    pub fn http<T: HttpFilterType>(mut self) -> Self {
        self.http.insert(
            T::TYPE_URL,
            HttpEntry { build: build_http::<T>, name: T::NAME, route_type: T::ROUTE_TYPE_URL },
        );
        self.routes.insert(T::ROUTE_TYPE_URL, build_route::<T>);
        self
    }

    /// Adds an access logger. A later one of the same `@type` takes its place.
    #[must_use]
    pub fn access_log<T: AccessLogType>(mut self) -> Self {
        self.access_logs.insert(T::TYPE_URL, |config, cx| {
            let decoded = json::from_typed::<T::Config>(config)?;
            T::build(decoded, cx).map_err(|message| vec![problem(config, message)])
        });
        self
    }

    /// Adds a network filter. A later one of the same `@type` takes its place.
    #[must_use]
    pub fn network<T: NetworkFilterType>(mut self) -> Self {
        let build: BuildNetwork = |config, cx| {
            let decoded = json::from_typed::<T::Config>(config)?;
            let factory = T::build(decoded, cx).map_err(|message| vec![problem(config, message)])?;
            Ok(BuiltNetwork::Filter(Arc::new(TypedNetwork::<T> { factory: Arc::new(factory) })))
        };
        self.network.insert(T::TYPE_URL, NetworkEntry { build, name: T::NAME, role: NetworkRole::Filter });
        self
    }

    /// Adds a terminal network filter that answers by itself. A later one of the same `@type` takes its place.
    #[must_use]
    pub fn responder<T: ResponderType>(mut self) -> Self {
        let build: BuildNetwork = |config, cx| {
            let decoded = json::from_typed::<T::Config>(config)?;
            let factory = T::build(decoded, cx).map_err(|message| vec![problem(config, message)])?;
            Ok(BuiltNetwork::Responder(Arc::new(TypedResponder::<T> { factory: Arc::new(factory) })))
        };
        self.network.insert(T::TYPE_URL, NetworkEntry { build, name: T::NAME, role: NetworkRole::Terminal });
        self
    }

    /// Adds a listener filter. A later one of the same `@type` takes its place.
    #[must_use]
    pub fn listener<T: ListenerFilterType>(mut self) -> Self {
        let build: BuildListener = |config, cx| {
            let decoded = json::from_typed::<T::Config>(config)?;
            let factory = T::build(decoded, cx).map_err(|message| vec![problem(config, message)])?;
            Ok(Arc::new(TypedListener::<T> { factory: Arc::new(factory) }))
        };
        self.listener.insert(T::TYPE_URL, build);
        self
    }

    /// Builds the factory of a listener filter.
    ///
    /// # Errors
    /// An unknown `@type`, or everything that is wrong with the configuration.
    pub fn build_listener(
        &self,
        config: &TypedConfig,
        cx: &FactoryContext<'_>,
    ) -> Result<Arc<dyn ListenerFilterFactory>, Vec<Problem>> {
        match self.listener.get(&*config.type_url) {
            Some(build) => build(config, cx),
            None => Err(vec![unknown(config, "listener filter", self.listener.keys())]),
        }
    }

    /// Builds the factory of a network filter or of a terminal one that answers by itself.
    ///
    /// # Errors
    /// An unknown `@type`, or everything that is wrong with the configuration.
    pub fn build_network(
        &self,
        config: &TypedConfig,
        cx: &FactoryContext<'_>,
    ) -> Result<BuiltNetwork, Vec<Problem>> {
        match self.network.get(&*config.type_url) {
            Some(entry) => (entry.build)(config, cx),
            None => Err(vec![unknown(config, "network filter", self.network.keys())]),
        }
    }

    /// The name (`envoy.filters.network.echo`) and the role of the network filter with that `@type`.
    pub fn network_role(&self, type_url: &str) -> Option<(&'static str, NetworkRole)> {
        self.network.get(type_url).map(|entry| (entry.name, entry.role))
    }

    /// Builds the factory of an HTTP filter.
    ///
    /// # Errors
    /// An unknown `@type`, or everything that is wrong with the configuration.
    pub fn build_http(
        &self,
        config: &TypedConfig,
        cx: &FactoryContext<'_>,
    ) -> Result<Arc<dyn HttpFilterFactory>, Vec<Problem>> {
        match self.http.get(&*config.type_url) {
            Some(entry) => (entry.build)(config, cx),
            None => Err(vec![unknown(config, "HTTP filter", self.http.keys())]),
        }
    }

    /// Whether an HTTP filter with that `@type` exists.
    pub fn knows_http(&self, type_url: &str) -> bool {
        self.http.contains_key(type_url)
    }

    /// The name (`envoy.filters.http.buffer`) of the HTTP filter with that `@type`.
    pub fn http_name(&self, type_url: &str) -> Option<&'static str> {
        self.http.get(type_url).map(|entry| entry.name)
    }

    /// Builds the per-route configuration of the filter whose own `@type` is `filter_type`.
    ///
    /// # Errors
    /// A per-route `@type` that is not that filter's, or everything that is wrong with it.
    pub fn build_route(
        &self,
        filter_type: &str,
        config: &TypedConfig,
        cx: &FactoryContext<'_>,
    ) -> Result<ErasedConfig, Vec<Problem>> {
        let expected = self.http.get(filter_type).map(|entry| entry.route_type);
        match (expected, self.routes.get(&*config.type_url)) {
            (Some(expected), Some(build)) if expected == config.type_url => build(config, cx),
            (Some(expected), _) => Err(vec![problem(
                config,
                format!(
                    "`{}` is not the per-route configuration of this filter: expected `{expected}`",
                    config.type_url
                ),
            )]),
            (None, _) => Err(vec![unknown(config, "HTTP filter", self.routes.keys())]),
        }
    }

    /// Builds an access logger.
    ///
    /// # Errors
    /// An unknown `@type`, or everything that is wrong with the configuration.
    pub fn build_access_log(
        &self,
        config: &TypedConfig,
        cx: &AccessLogContext<'_>,
    ) -> Result<Arc<dyn AccessLog>, Vec<Problem>> {
        match self.access_logs.get(&*config.type_url) {
            Some(build) => build(config, cx),
            None => Err(vec![unknown(config, "access logger", self.access_logs.keys())]),
        }
    }
}

fn build_http<T: HttpFilterType>(
    config: &TypedConfig,
    cx: &FactoryContext<'_>,
) -> Result<Arc<dyn HttpFilterFactory>, Vec<Problem>> {
    let decoded = json::from_typed::<T::Config>(config)?;
    let factory = T::build(decoded, cx).map_err(|message| vec![problem(config, message)])?;
    Ok(Arc::new(TypedFactory::<T> { factory: Arc::new(factory) }))
}

fn build_route<T: HttpFilterType>(
    config: &TypedConfig,
    cx: &FactoryContext<'_>,
) -> Result<ErasedConfig, Vec<Problem>> {
    let decoded = json::from_typed::<T::RouteConfig>(config)?;
    T::build_route(decoded, cx).map(erase).map_err(|message| vec![problem(config, message)])
}

fn problem(config: &TypedConfig, message: String) -> Problem {
    Problem::new(config.path.clone(), config.span, message)
}

fn unknown<'a>(
    config: &TypedConfig,
    what: &str,
    known: impl Iterator<Item = &'a &'static str> + Clone,
) -> Problem {
    let path = config.path.field("@type");
    let mut problem = Problem::new(
        path,
        config.span,
        format!("no {what} has the type `{}` in this build", config.type_url),
    );
    problem.suggestion = json::nearest(&config.type_url, known.copied()).map(str::to_owned);
    problem
}
