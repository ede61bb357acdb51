//! From a configuration text, and what watched files brought beside it, to a [`Snapshot`], or to everything that
//! is wrong with it.
//!
//! In two steps, so that a refused configuration leaves no trace: [`Draft`] validates and builds what is new,
//! [`Draft::finish`] (which cannot fail, and may touch limits that live clusters share) makes the snapshot once
//! the sockets are bound too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tidegate_cluster::{ClusterShared, Home};
use tidegate_config::access_log::AccessLogConfig;
use tidegate_config::listener::NetworkFilterConfig;
use tidegate_config::runtime::{Answers, Runtime};
use tidegate_config::{Bootstrap, ClusterConfig, ConfigError, Format, ListenerConfig, from_str};
use tidegate_filter::{AccessLog, AccessLogContext, Registry};
use tidegate_http::access_log;
use tidegate_stats::Store;
use tidegate_types::Compat;
use tidegate_types::json::{JsonPath, Problem, Span};

use crate::cli::ServeOptions;
use crate::discovered::{Discovered, Tally};
use crate::runtime::RuntimeLoader;
use crate::snapshot::{Base, ListenerSnapshot, Snapshot, Source};
use crate::stats_policy;
use bench::{Bench, Piece};

mod bench;
mod chain;
mod dynamic;
mod listener;
mod listener_filters;
mod quic;
mod quic_listener;
mod rules;
mod upstream;

pub(crate) use dynamic::{Incoming, assignment, table};

/// What building needs besides the text.
pub(crate) struct Builder<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) store: &'a Store,
    pub(crate) options: &'a ServeOptions,
    pub(crate) runtime: &'a RuntimeLoader,
}

/// What serves, and what is about to.
#[derive(Clone, Copy)]
pub(crate) struct Previous<'a> {
    pub(crate) snapshot: &'a Snapshot,
    /// Clusters that are not warm yet, by name.
    pub(crate) warming: &'a HashMap<Arc<str>, Arc<ClusterShared>>,
}

/// A configuration that is valid, with its connection managers built.
pub(crate) struct Draft {
    pub(crate) base: Arc<Base>,
    pub(crate) discovered: Discovered,
    /// Those of the bootstrap, then the others.
    pub(crate) listeners: Vec<ListenerSnapshot>,
    clusters: Vec<Piece>,
    admin_logs: Vec<Arc<dyn AccessLog>>,
    admin_answers: Answers,
    /// To be counted when this is in force.
    pub(crate) tallies: Vec<Tally>,
}

impl Draft {
    /// Reads `source`, validates it, and builds everything that `previous` does not have.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(crate) fn build(
        source: &Source,
        builder: &Builder<'_>,
        previous: Option<Previous<'_>>,
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
        let base = Base { text, format, bootstrap, loaded_at: SystemTime::now() };
        Self::assemble(base, &file.into(), builder, previous)
    }

    /// What `previous` serves, with `runtime`: what read a value that differs is built anew.
    ///
    /// # Errors
    /// What does not go with the values.
    pub(crate) fn with_runtime(
        runtime: Runtime,
        source: &Source,
        builder: &Builder<'_>,
        previous: Previous<'_>,
    ) -> Result<Self, Vec<ConfigError>> {
        let old = &previous.snapshot.base;
        let mut bootstrap = old.bootstrap.clone();
        bootstrap.set_runtime(runtime);
        let base = Base { text: old.text.clone(), format: old.format, bootstrap, loaded_at: old.loaded_at };
        Self::assemble(base, &source.name().into(), builder, Some(previous))
    }

    fn assemble(
        base: Base,
        file: &Arc<str>,
        builder: &Builder<'_>,
        previous: Option<Previous<'_>>,
    ) -> Result<Self, Vec<ConfigError>> {
        let bootstrap = &base.bootstrap;
        let mut problems = match builder.options.compat() {
            Compat::Tidegate => Vec::new(),
            Compat::EnvoyStrict => extensions(&bootstrap.clusters, &bootstrap.listeners),
        };
        problems.extend(event_logs(bootstrap));
        if builder.options.compat().is_strict() {
            problems.extend(own_keys(bootstrap));
        }
        if bootstrap.admin.as_ref().is_some_and(|admin| admin.profile_path.is_some()) {
            tracing::warn!(target: "config", "admin.profile_path has no effect: there is no CPU profiler");
        }
        let base = Arc::new(base);
        let composed = Self::compose(&base, Incoming::Nothing, builder, previous);
        drop(base);
        match composed {
            Ok(draft) if problems.is_empty() => Ok(draft.without_doubles()),
            outcome => {
                problems.extend(outcome.err().into_iter().flatten());
                Err(problems.into_iter().map(|problem| ConfigError::from_problem(file, problem)).collect())
            }
        }
    }

    /// What was built before holds the configuration that it was built from: the same is not kept twice.
    fn without_doubles(mut self) -> Self {
        if let Some(base) = Arc::get_mut(&mut self.base) {
            for (config, piece) in base.bootstrap.clusters.iter_mut().zip(&self.clusters) {
                // What hosts from elsewhere say of their cluster is not the file's.
                if config.eds.is_none() && piece.kept.is_some() && **config == *piece.config {
                    *config = piece.config.clone();
                }
            }
        }
        self
    }

    /// Builds everything of `base`, and of what files brought, that `previous` does not have. `incoming` is what one
    /// of the files holds now; what of it cannot be used is left out, and said in the draft's tallies.
    ///
    /// # Errors
    /// What is wrong with the bootstrap itself, or with an [`Incoming`] that is taken whole or not at all.
    pub(crate) fn compose(
        base: &Arc<Base>,
        incoming: Incoming<'_>,
        builder: &Builder<'_>,
        previous: Option<Previous<'_>>,
    ) -> Result<Self, Vec<Problem>> {
        let mut bench = Bench::new(&base.bootstrap, builder, previous, incoming);
        let mut problems = Vec::new();
        for (number, config) in base.bootstrap.clusters.iter().enumerate() {
            let path = JsonPath::root().field("static_resources").field("clusters").index(number);
            problems.extend(bench.add_cluster(config, &path).err().into_iter().flatten());
        }
        let cds = bench.discover_clusters(base.bootstrap.dynamic.cds.as_ref());
        for config in &base.bootstrap.listeners {
            problems.extend(bench.add_listener(config).err().into_iter().flatten());
        }
        let lds = bench.discover_listeners(base.bootstrap.dynamic.lds.as_ref());
        let old = previous.map(|previous| previous.snapshot);
        let runtime = &base.bootstrap.runtime;
        let (admin_logs, admin_answers) = runtime.recorded(|| admin_logs(&base.bootstrap, builder, old));
        let (cds, lds, admin_logs) = match (cds, lds, admin_logs) {
            (Ok(cds), Ok(lds), Ok(logs)) if problems.is_empty() => (cds, lds, logs),
            (cds, lds, logs) => {
                problems.extend(cds.err());
                problems.extend(lds.err());
                problems.extend(logs.err().into_iter().flatten());
                return Err(problems);
            }
        };
        Ok(Self {
            base: base.clone(),
            discovered: Discovered { cds, lds, rds: Arc::new(bench.rds), eds: Arc::new(bench.eds) },
            listeners: bench.listeners,
            clusters: bench.clusters,
            admin_logs,
            admin_answers,
            tallies: bench.tallies,
        })
    }

    /// Builds the clusters. On the main thread.
    pub(crate) fn finish(
        self,
        builder: &Builder<'_>,
        previous: Option<Previous<'_>>,
    ) -> (Snapshot, Vec<Tally>) {
        let bootstrap = &self.base.bootstrap;
        let old = previous.map(|previous| previous.snapshot);
        let runtime_is_old = old.is_some_and(|old| {
            Arc::ptr_eq(&old.base, &self.base) || old.base.bootstrap.runtime == bootstrap.runtime
        });
        let home = Home::of(bootstrap, old.map(|old| &old.home));
        // Then a cluster of the same configuration is the same.
        let as_before = runtime_is_old && old.is_some_and(|old| Arc::ptr_eq(&old.home, &home));
        let cx = tidegate_cluster::BuildContext {
            runtime: &bootstrap.runtime,
            home: &home,
            store: builder.store,
            workers: builder.options.workers(),
            compat: builder.options.compat(),
        };
        let mut contexts = HashMap::new();
        let mut clusters = Vec::with_capacity(self.clusters.len());
        let mut by_name = HashMap::with_capacity(self.clusters.len());
        for piece in self.clusters {
            if !piece.contexts.is_empty() {
                contexts.insert(piece.config.name.clone(), piece.contexts);
            }
            let shared = match piece.kept {
                Some(kept) if as_before => kept,
                kept => {
                    let before =
                        kept.or_else(|| old.and_then(|old| old.cluster(&piece.config.name).cloned()));
                    let built = ClusterShared::build(&piece.config, piece.transports, cx, before.as_ref());
                    let found = self.discovered.eds.get(&piece.config.name).and_then(|single| single.found());
                    if let Some(found) = found {
                        built.set_drop_overload(found.config.policy.drop_overload.as_deref());
                        built.set_endpoints(&found.config.endpoints);
                    }
                    built
                }
            };
            by_name.insert(shared.name().clone(), clusters.len());
            clusters.push(shared);
        }
        let snapshot = Snapshot {
            generation: old.map_or(1, |old| old.generation + 1),
            clusters,
            by_name,
            base: self.base,
            discovered: self.discovered,
            home: home.clone(),
            listeners: self.listeners,
            admin_logs: self.admin_logs,
            admin_answers: self.admin_answers,
            client_contexts: contexts,
        };
        if old.is_none_or(|old| !Arc::ptr_eq(&old.base, &snapshot.base)) {
            let all = |bootstrap| unread(bootstrap).into_iter().chain(warnings(bootstrap));
            let told: Vec<_> = old.map(|old| all(&old.base.bootstrap).collect()).unwrap_or_default();
            for line in all(&snapshot.base.bootstrap).filter(|line| !told.contains(line)) {
                tracing::warn!(target: "config", "{line}");
            }
        }
        (snapshot, self.tallies)
    }

    /// The listeners' configurations.
    pub(crate) fn listener_configs(&self) -> Vec<Arc<ListenerConfig>> {
        self.listeners.iter().map(|listener| listener.config.clone()).collect()
    }
}

/// Event logs that cannot be written.
fn event_logs(bootstrap: &Bootstrap) -> Option<Problem> {
    let path = bootstrap.outlier_event_log.as_ref()?;
    let error = tidegate_health::event_log::EventLog::check(path).err()?;
    let at = JsonPath::root().field("cluster_manager").field("outlier_detection").field("event_log_path");
    Some(Problem::new(at, Span::default(), format!("cannot open {path}: {error}")))
}

/// What is wrong with the retry and mirror policies of a cluster that stands at `path`.
fn cluster_policies(cluster: &ClusterConfig, path: &JsonPath) -> Option<Problem> {
    let wrong = tidegate_router::OfCluster::compile(cluster).err()?;
    Some(Problem::new(path.field("typed_extension_protocol_options"), Span::default(), wrong))
}

/// What is valid, and yet hardly meant.
pub(crate) fn warnings(bootstrap: &Bootstrap) -> Vec<String> {
    let mut all = stats_policy::hidden_idle_counters(bootstrap);
    all.extend(bootstrap.clusters.iter().flat_map(|cluster| upstream::unchecked_names(cluster)));
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

/// Runtime keys of Tidegate's own, which `--envoy-strict` refuses.
fn own_keys(bootstrap: &Bootstrap) -> impl Iterator<Item = Problem> {
    let own = bootstrap.runtime.values.keys().filter(|key| key.starts_with("tidegate."));
    own.map(|key| {
        let message = format!("runtime key `{key}` is Tidegate's own, which --envoy-strict refuses");
        Problem::new(JsonPath::root().field("layered_runtime"), Span::default(), message)
    })
}

/// Uses of Tidegate's own additions to the configuration, which `--envoy-strict` refuses.
fn extensions(clusters: &[Arc<ClusterConfig>], listeners: &[Arc<ListenerConfig>]) -> Vec<Problem> {
    let upstream = clusters.iter().flat_map(|cluster| cluster.transports());
    let upstream = upstream.filter_map(|socket| socket.tls()?.own.clone());
    let chains = listeners.iter().flat_map(|listener| listener.all_chains());
    let downstream = chains.filter_map(|chain| chain.transport_socket.tls()?.own.clone());
    let sockets = upstream.chain(downstream).map(|own| {
        own.problem("`tidegate.transport_sockets.tls` is Tidegate's own, which --envoy-strict refuses")
    });
    let reuse = clusters.iter().filter_map(|cluster| cluster.reuse.own.as_ref());
    let reuse = reuse.map(|own| {
        own.problem("`tidegate.connection_reuse` is Tidegate's own, which --envoy-strict refuses")
    });
    let selections = clusters.iter().filter_map(|cluster| cluster.http3_selection.own.as_ref());
    let selections = selections
        .map(|own| own.problem("`tidegate.http3_selection` is Tidegate's own, which --envoy-strict refuses"));
    let filters = listeners.iter().flat_map(|listener| listener.all_chains());
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
    sockets.chain(reuse).chain(selections).chain(routers).collect()
}

fn admin_logs(
    bootstrap: &Bootstrap,
    builder: &Builder<'_>,
    previous: Option<&Snapshot>,
) -> Result<Vec<Arc<dyn AccessLog>>, Vec<Problem>> {
    let same = |previous: &&Snapshot| {
        previous.base.bootstrap.admin == bootstrap.admin && previous.admin_answers.hold(&bootstrap.runtime)
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
