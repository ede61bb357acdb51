//! From a configuration text to a [`Snapshot`], or to everything that is wrong with it.
//!
//! In two steps, so that a refused configuration leaves no trace: [`Draft::build`] validates and builds what
//! is new, [`Draft::finish`] (which cannot fail, and may touch limits that live clusters share) makes the
//! snapshot once the sockets are bound too.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::SystemTime;

use tidegate_cluster::{ClusterShared, Home};
use tidegate_config::access_log::AccessLogConfig;
use tidegate_config::listener::{FilterChainConfig, NetworkFilterConfig};
use tidegate_config::runtime::{Answers, Runtime};
use tidegate_config::{Bootstrap, ClusterConfig, ConfigError, Format, ListenerConfig, from_str};
use tidegate_filter::{AccessLog, AccessLogContext, Registry};
use tidegate_http::{BuildContext, access_log};
use tidegate_listener::ChainIndex;
use tidegate_stats::Store;
use tidegate_types::Compat;
use tidegate_types::json::{JsonPath, Problem, Span};

use crate::cli::ServeOptions;
use crate::runtime::RuntimeLoader;
use crate::snapshot::{ChainSnapshot, ListenerFilters, ListenerSnapshot, Snapshot, Source};
use crate::stats_policy;
use upstream::Transports;

mod chain;
mod listener_filters;
mod upstream;

/// What building needs besides the text.
pub(crate) struct Builder<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) store: &'a Store,
    pub(crate) options: &'a ServeOptions,
    pub(crate) runtime: &'a RuntimeLoader,
}

/// A configuration that is valid, with its connection managers built.
pub(crate) struct Draft {
    text: Arc<str>,
    format: Format,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) listeners: Vec<ListenerSnapshot>,
    admin_logs: Vec<Arc<dyn AccessLog>>,
    admin_answers: Answers,
    transports: Transports,
}

impl Draft {
    /// Reads `source`, validates it, and builds every connection manager that `previous` does not have.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(crate) fn build(
        source: &Source,
        builder: &Builder<'_>,
        previous: Option<&Snapshot>,
    ) -> Result<Self, Vec<ConfigError>> {
        let file = source.name();
        let (text, format) = read(source, &file)?;
        let mut bootstrap = from_str(&text, &file, format)?;
        command_line_node(&mut bootstrap, builder.options);
        let runtime = builder.runtime.load(&bootstrap);
        let runtime =
            runtime.map_err(|problem| vec![ConfigError::from_problem(&file.as_str().into(), problem)])?;
        bootstrap.set_runtime(runtime);
        if previous.is_none() {
            // Before anything is counted.
            builder.store.set_policy(stats_policy::policy(&bootstrap.stats_config));
        }
        Self::assemble((text, format), &file.into(), bootstrap, builder, previous)
    }

    /// What `previous` serves, with `runtime`: what read a value that differs is built anew.
    ///
    /// # Errors
    /// What does not go with the values.
    pub(crate) fn with_runtime(
        runtime: Runtime,
        source: &Source,
        builder: &Builder<'_>,
        previous: &Snapshot,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut bootstrap = previous.bootstrap.clone();
        bootstrap.set_runtime(runtime);
        let text = (previous.text.clone(), previous.format);
        Self::assemble(text, &source.name().into(), bootstrap, builder, Some(previous))
    }

    fn assemble(
        (text, format): (Arc<str>, Format),
        file: &Arc<str>,
        bootstrap: Bootstrap,
        builder: &Builder<'_>,
        previous: Option<&Snapshot>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut problems = match builder.options.compat() {
            Compat::Tidegate => Vec::new(),
            Compat::EnvoyStrict => extensions(&bootstrap),
        };
        problems.extend(cluster_policies(&bootstrap));
        problems.extend(
            bootstrap.clusters.iter().filter_map(|cluster| tidegate_health::active::problem(cluster)),
        );
        problems.extend(event_logs(&bootstrap));
        let mut listeners = Vec::new();
        for config in &bootstrap.listeners {
            match listener(config, &bootstrap, builder, previous) {
                Ok(listener) => listeners.push(listener),
                Err(more) => problems.extend(more),
            }
        }
        let transports = Transports::build(&bootstrap, builder, previous).unwrap_or_else(|more| {
            problems.extend(more);
            Transports::default()
        });
        let (admin_logs, admin_answers) =
            bootstrap.runtime.recorded(|| admin_logs(&bootstrap, builder, previous));
        let admin_logs = admin_logs.unwrap_or_else(|more| {
            problems.extend(more);
            Vec::new()
        });
        if bootstrap.admin.as_ref().is_some_and(|admin| admin.profile_path.is_some()) {
            tracing::warn!(target: "config", "admin.profile_path has no effect: there is no CPU profiler");
        }
        if problems.is_empty() {
            return Ok(Self { text, format, bootstrap, listeners, admin_logs, admin_answers, transports });
        }
        Err(problems.into_iter().map(|problem| ConfigError::from_problem(file, problem)).collect())
    }

    /// Builds the clusters. On the main thread.
    pub(crate) fn finish(self, builder: &Builder<'_>, previous: Option<&Snapshot>) -> Snapshot {
        let home = Home::of(&self.bootstrap, previous.map(|previous| &previous.home));
        let cx = tidegate_cluster::BuildContext {
            runtime: &self.bootstrap.runtime,
            home: &home,
            store: builder.store,
            workers: builder.options.workers(),
            compat: builder.options.compat(),
        };
        let old: HashMap<&str, &Arc<ClusterShared>> =
            previous.iter().flat_map(|p| &p.clusters).map(|cluster| (&**cluster.name(), cluster)).collect();
        let cluster = |config: &Arc<ClusterConfig>| {
            let transports = self.transports.of(&config.name);
            ClusterShared::build(config, transports, cx, old.get(config.name.as_str()).copied())
        };
        let snapshot = Snapshot {
            generation: previous.map_or(1, |previous| previous.generation + 1),
            clusters: self.bootstrap.clusters.iter().map(cluster).collect(),
            home: home.clone(),
            text: self.text,
            format: self.format,
            bootstrap: self.bootstrap,
            listeners: self.listeners,
            admin_logs: self.admin_logs,
            admin_answers: self.admin_answers,
            client_contexts: self.transports.contexts,
            loaded_at: SystemTime::now(),
        };
        let told = previous.map(|old| unread(&old.bootstrap)).unwrap_or_default();
        for line in unread(&snapshot.bootstrap) {
            if !told.contains(&line) {
                tracing::warn!(target: "config", "{line}");
            }
        }
        let told = previous.map(|old| warnings(&old.bootstrap)).unwrap_or_default();
        for line in warnings(&snapshot.bootstrap) {
            if !told.contains(&line) {
                tracing::warn!(target: "config", "{line}");
            }
        }
        snapshot
    }
}

/// Event logs that cannot be written.
fn event_logs(bootstrap: &Bootstrap) -> Option<Problem> {
    let path = bootstrap.outlier_event_log.as_ref()?;
    let error = tidegate_health::event_log::EventLog::check(path).err()?;
    let at = JsonPath::root().field("cluster_manager").field("outlier_detection").field("event_log_path");
    Some(Problem::new(at, Span::default(), format!("cannot open {path}: {error}")))
}

/// What is wrong with the retry and mirror policies of clusters.
fn cluster_policies(bootstrap: &Bootstrap) -> impl Iterator<Item = Problem> {
    let clusters = JsonPath::root().field("static_resources").field("clusters");
    bootstrap.clusters.iter().enumerate().filter_map(move |(number, cluster)| {
        let wrong = tidegate_router::OfCluster::compile(cluster).err()?;
        let path = clusters.index(number).field("typed_extension_protocol_options");
        Some(Problem::new(path, Span::default(), wrong))
    })
}

/// What is valid, and yet hardly meant.
pub(crate) fn warnings(bootstrap: &Bootstrap) -> Vec<String> {
    let mut all = stats_policy::hidden_idle_counters(bootstrap);
    all.extend(bootstrap.clusters.iter().filter_map(|cluster| upstream::unchecked_names(cluster)));
    all
}

/// What is said of runtime keys that nothing reads. Envoy takes any key in silence.
pub(crate) fn unread(bootstrap: &Bootstrap) -> Vec<String> {
    // Read by those who check hosts, once they begin.
    let keys = bootstrap.runtime.unread().into_iter().filter(|key| key != "health_check.verify_cluster");
    keys.map(|key| {
        format!("runtime key `{key}` has no effect: nothing in this configuration or this build reads it")
    })
    .collect()
}

/// The text of `source`.
pub(crate) fn read(source: &Source, name: &str) -> Result<(Arc<str>, Format), Vec<ConfigError>> {
    match source {
        Source::Text(text, format) => Ok((text.clone(), *format)),
        Source::File(path) => match std::fs::read_to_string(path) {
            Ok(text) => Ok((text.into(), Format::of(path))),
            Err(error) => Err(vec![ConfigError {
                file: name.into(),
                fault: tidegate_config::error::Fault::Unreadable(error.to_string()),
            }]),
        },
    }
}

/// `--service-node` and its like fill what the file leaves out, as in Envoy.
fn command_line_node(bootstrap: &mut Bootstrap, options: &ServeOptions) {
    let fill = |field: &mut String, option: &String| {
        if field.is_empty() {
            field.clone_from(option);
        }
    };
    fill(&mut bootstrap.node.id, &options.service_node);
    fill(&mut bootstrap.node.cluster, &options.service_cluster);
    fill(&mut bootstrap.node.locality.zone, &options.service_zone);
}

/// Uses of Tidegate's own additions to the configuration, which `--envoy-strict` refuses.
fn extensions(bootstrap: &Bootstrap) -> Vec<Problem> {
    let own = bootstrap.runtime.values.keys().filter(|key| key.starts_with("tidegate."));
    let keys = own.map(|key| {
        let message = format!("runtime key `{key}` is Tidegate's own, which --envoy-strict refuses");
        Problem::new(JsonPath::root().field("layered_runtime"), Span::default(), message)
    });
    let upstream =
        bootstrap.clusters.iter().filter_map(|cluster| cluster.transport_socket.tls()?.own.clone());
    let chains = bootstrap.listeners.iter().flat_map(|listener| listener.all_chains());
    let downstream = chains.filter_map(|chain| chain.transport_socket.tls()?.own.clone());
    let sockets = upstream.chain(downstream).map(|own| {
        own.problem("`tidegate.transport_sockets.tls` is Tidegate's own, which --envoy-strict refuses")
    });
    let reuse = bootstrap.clusters.iter().filter_map(|cluster| cluster.reuse.own.as_ref());
    let reuse = reuse.map(|own| {
        own.problem("`tidegate.connection_reuse` is Tidegate's own, which --envoy-strict refuses")
    });
    let filters = bootstrap.listeners.iter().flat_map(|listener| listener.all_chains());
    let managers = filters.flat_map(|chain| &chain.filters).filter_map(|filter| match filter {
        NetworkFilterConfig::Http(manager) => Some(manager),
        _ => None,
    });
    let routers = managers.flat_map(|manager| manager.route_config.router_overrides());
    let routers = routers.filter_map(|router| router.own.as_ref()).map(|(_, own)| {
        own.problem(
            "the router's own message for single routes is Tidegate's own, which --envoy-strict refuses",
        )
    });
    keys.chain(sockets).chain(reuse).chain(routers).collect()
}

fn listener(
    config: &Arc<ListenerConfig>,
    bootstrap: &Bootstrap,
    builder: &Builder<'_>,
    previous: Option<&Snapshot>,
) -> Result<ListenerSnapshot, Vec<Problem>> {
    if let Some(old) = unchanged(config, bootstrap, previous) {
        return Ok(old.clone());
    }
    let runtime = &bootstrap.runtime;
    let (built, answers) = runtime.recorded(|| new_listener(config, bootstrap, builder, previous));
    built.map(|listener| ListenerSnapshot { answers, ..listener })
}

fn new_listener(
    config: &Arc<ListenerConfig>,
    bootstrap: &Bootstrap,
    builder: &Builder<'_>,
    previous: Option<&Snapshot>,
) -> Result<ListenerSnapshot, Vec<Problem>> {
    let stat_name = ListenerSnapshot::stat_name(config);
    let cx = BuildContext {
        registry: builder.registry,
        store: builder.store,
        listener: &stat_name,
        buffer_limit: config.per_connection_buffer_limit_bytes as usize,
        runtime: &bootstrap.runtime,
        node: &bootstrap.node,
        local_address: local_address(),
        log_flush_interval: builder.options.log_flush_interval(),
        compat: builder.options.compat(),
    };
    let mut problems = Vec::new();
    let filters = listener_filters::build(config, bootstrap, builder, previous).unwrap_or_else(|more| {
        problems.extend(more);
        ListenerFilters::default()
    });
    let mut chains = Vec::new();
    let namesake = previous.and_then(|previous| {
        let same = |old: &&ListenerSnapshot| {
            old.config.name == config.name && ListenerSnapshot::stat_name(&old.config) == stat_name
        };
        previous.listeners.iter().find(same)
    });
    for chain in config.all_chains() {
        let built = match unchanged_chain(config, chain, bootstrap, previous) {
            Some(old) => Ok(old),
            None => {
                let (built, answers) = bootstrap.runtime.recorded(|| chain::build(chain, &cx, namesake));
                built.map(|chain| Arc::new(ChainSnapshot { answers, ..chain }))
            }
        };
        match built {
            Ok(chain) => chains.push(chain),
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let logs = access_logs(&config.access_log, bootstrap, builder)?;
    // https://www.envoyproxy.io/docs/envoy/latest/configuration/listeners/runtime
    let limit = format!("envoy.resource_limits.listener.{}.connection_limit", config.name);
    let max_connections = bootstrap.runtime.integer(&limit);
    let index = Arc::new(ChainIndex::new(config));
    let answers = Answers::default();
    Ok(ListenerSnapshot { config: config.clone(), filters, index, chains, logs, max_connections, answers })
}

fn admin_logs(
    bootstrap: &Bootstrap,
    builder: &Builder<'_>,
    previous: Option<&Snapshot>,
) -> Result<Vec<Arc<dyn AccessLog>>, Vec<Problem>> {
    let same = |previous: &&Snapshot| {
        previous.bootstrap.admin == bootstrap.admin && previous.admin_answers.hold(&bootstrap.runtime)
    };
    match previous.filter(same) {
        Some(previous) => Ok(previous.admin_logs.clone()),
        None => {
            let configs = bootstrap.admin.as_ref().map_or(&[][..], |admin| &admin.access_log);
            access_logs(configs, bootstrap, builder)
        }
    }
}

/// Access logs outside a connection manager.
fn access_logs(
    configs: &[AccessLogConfig],
    bootstrap: &Bootstrap,
    builder: &Builder<'_>,
) -> Result<Vec<Arc<dyn AccessLog>>, Vec<Problem>> {
    let cx = AccessLogContext { stats: builder.store, flush_interval: builder.options.log_flush_interval() };
    access_log::build(configs, builder.registry, &cx, &bootstrap.runtime)
}

/// A connection manager is built anew when anything that it was built from differs; an unchanged one keeps
/// the state of its filters.
fn unchanged<'a>(
    config: &ListenerConfig,
    bootstrap: &Bootstrap,
    previous: Option<&'a Snapshot>,
) -> Option<&'a ListenerSnapshot> {
    let previous = previous?;
    if previous.bootstrap.node != bootstrap.node {
        return None;
    }
    let old = previous.listeners.iter().find(|old| *old.config == *config)?;
    old.answers.hold(&bootstrap.runtime).then_some(old)
}

/// A chain of which nothing but the match differs, in a listener of which it sees no difference: it keeps the
/// state of its filters.
fn unchanged_chain(
    listener: &ListenerConfig,
    chain: &FilterChainConfig,
    bootstrap: &Bootstrap,
    previous: Option<&Snapshot>,
) -> Option<Arc<ChainSnapshot>> {
    let previous = previous?;
    if previous.bootstrap.node != bootstrap.node {
        return None;
    }
    let same = |old: &&ListenerSnapshot| {
        old.config.name == listener.name
            && old.config.per_connection_buffer_limit_bytes == listener.per_connection_buffer_limit_bytes
            && ListenerSnapshot::stat_name(&old.config) == ListenerSnapshot::stat_name(listener)
    };
    let old = previous.listeners.iter().find(same)?;
    let kept =
        |old: &&Arc<ChainSnapshot>| old.config.same_but_match(chain) && old.answers.hold(&bootstrap.runtime);
    let kept = old.chains.iter().find(kept)?;
    // Under the new configuration, whose match may differ.
    Some(Arc::new(ChainSnapshot { config: Arc::new(chain.clone()), ..(**kept).clone() }))
}

/// The address that this machine would use towards the Internet: Envoy's "local address", which stands in
/// for a loopback client in `x-forwarded-for`. Connecting a UDP socket sends nothing.
fn local_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}
