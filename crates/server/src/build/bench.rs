//! Where a configuration is put together, cluster by cluster and listener by listener.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tidegate_cluster::{ClusterShared, Transports};
use tidegate_config::cluster::LoadAssignment;
use tidegate_config::discovery::Rds;
use tidegate_config::listener::NetworkFilterConfig;
use tidegate_config::{Bootstrap, ClusterConfig, ListenerConfig, RouteConfig};
use tidegate_tls::ClientContext;
use tidegate_types::json::{JsonPath, Problem, Span};

use super::{Builder, Incoming, Previous, cluster_policies, dynamic, extensions, listener, rules, upstream};
use crate::discovered::{Kind, Single, Subscription, Tally};
use crate::snapshot::{ChainSnapshot, ListenerSnapshot, TerminalSnapshot};

/// See the module.
pub(super) struct Bench<'a> {
    pub(super) bootstrap: &'a Bootstrap,
    pub(super) builder: &'a Builder<'a>,
    pub(super) previous: Option<Previous<'a>>,
    pub(super) incoming: Incoming<'a>,
    pub(super) clusters: Vec<Piece>,
    pub(super) cluster_names: HashSet<String>,
    pub(super) listeners: Vec<ListenerSnapshot>,
    pub(super) rds: BTreeMap<Rds, Arc<Single<RouteConfig>>>,
    pub(super) eds: HashMap<String, Arc<Single<LoadAssignment>>>,
    pub(super) tallies: Vec<Tally>,
}

/// A cluster that can be built.
pub(super) struct Piece {
    pub(super) config: Arc<ClusterConfig>,
    /// It is there already.
    pub(super) kept: Option<Arc<ClusterShared>>,
    pub(super) transports: Transports,
    /// Of TLS, each once.
    pub(super) contexts: Vec<Arc<ClientContext>>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        bootstrap: &'a Bootstrap,
        builder: &'a Builder<'a>,
        previous: Option<Previous<'a>>,
        incoming: Incoming<'a>,
    ) -> Self {
        Self {
            bootstrap,
            builder,
            previous,
            incoming,
            clusters: Vec::with_capacity(bootstrap.clusters.len()),
            cluster_names: HashSet::with_capacity(bootstrap.clusters.len()),
            listeners: Vec::new(),
            rds: BTreeMap::new(),
            eds: HashMap::new(),
            tallies: Vec::new(),
        }
    }

    /// Adds a cluster that stands at `path`.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(super) fn add_cluster(
        &mut self,
        config: &Arc<ClusterConfig>,
        path: &JsonPath,
    ) -> Result<(), Vec<Problem>> {
        let config = &self.with_hosts(config, path).map_err(|problem| vec![problem])?;
        let resolver = self.bootstrap.dns_resolver.as_ref();
        let chosen = resolver.and_then(|resolver| config.with_resolver(resolver)).map(Arc::new);
        let config = chosen.as_ref().unwrap_or(config);
        let bind = self.bootstrap.upstream_bind.as_ref();
        let bound = bind.and_then(|bind| config.with_bind(bind)).map(Arc::new);
        let config = bound.as_ref().unwrap_or(config);
        let piece = match self.kept(config) {
            Some(kept) => kept,
            None => {
                let mut problems: Vec<_> = cluster_policies(config, path).into_iter().collect();
                problems.extend(tidegate_health::active::problem(config));
                problems.extend(rules::cluster(config, path, self.builder.options));
                let built = upstream::transports(config, self.builder);
                match built {
                    Ok((transports, contexts)) if problems.is_empty() => {
                        Piece { config: config.clone(), kept: None, transports, contexts }
                    }
                    built => {
                        problems.extend(built.err().into_iter().flatten());
                        return Err(problems);
                    }
                }
            }
        };
        self.cluster_names.insert(config.name.clone());
        self.clusters.push(piece);
        Ok(())
    }

    /// The cluster as it is already, active or warming.
    fn kept(&self, config: &Arc<ClusterConfig>) -> Option<Piece> {
        let previous = self.previous?;
        let warming = previous.warming.get(config.name.as_str());
        let cluster = warming.or_else(|| previous.snapshot.cluster(&config.name))?;
        let same = Arc::ptr_eq(cluster.config(), config) || cluster.config().same_but_content(config);
        same.then(|| Piece {
            // Not a second copy of the same.
            config: cluster.config().clone(),
            kept: Some(cluster.clone()),
            transports: cluster.transports().clone(),
            contexts: previous.snapshot.client_contexts.get(&config.name).cloned().unwrap_or_default(),
        })
    }

    /// Subscribes an `EDS` cluster to its hosts; what their file says about the cluster as a whole becomes part of
    /// its configuration.
    fn with_hosts(
        &mut self,
        config: &Arc<ClusterConfig>,
        path: &JsonPath,
    ) -> Result<Arc<ClusterConfig>, Problem> {
        let Some(eds) = &config.eds else { return Ok(config.clone()) };
        let known = self.previous.and_then(|previous| previous.snapshot.discovered.eds.get(&config.name));
        let single = match known.filter(|known| known.subscription.source == eds.source) {
            Some(known) => known.clone(),
            None => {
                let kind = Kind::Hosts(config.stat_name());
                let place = path.field("eds_cluster_config");
                let subscription = Subscription::new(&eds.source, kind, self.builder.store)
                    .map_err(|error| Problem::new(place, Span::default(), error))?;
                let (found, tally) = dynamic::assignment(&subscription, config);
                self.tallies.extend(tally);
                Arc::new(Single::new(subscription, found))
            }
        };
        let found = single.found();
        self.eds.insert(config.name.clone(), single);
        let policy = found.as_ref().map(|found| &found.config.policy);
        Ok(match policy.filter(|policy| !config.has_policy(policy)) {
            Some(policy) => Arc::new(config.with_policy(policy)),
            None => config.clone(),
        })
    }

    /// Adds a listener.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(super) fn add_listener(&mut self, config: &Arc<ListenerConfig>) -> Result<(), Vec<Problem>> {
        if self.builder.options.compat().is_strict() {
            let own = extensions(&[], std::slice::from_ref(config));
            if !own.is_empty() {
                return Err(own);
            }
        }
        if let Some(problem) = rules::listener(config, self.builder.options) {
            return Err(vec![problem]);
        }
        self.subscribe_routes(config).map_err(|problem| vec![problem])?;
        let snapshot = self.previous.map(|previous| previous.snapshot);
        let mut listener = listener::build(config, self.bootstrap, self.builder, snapshot)?;
        self.give_tables(&mut listener)?;
        self.listeners.push(listener);
        Ok(())
    }

    fn subscribe_routes(&mut self, config: &ListenerConfig) -> Result<(), Problem> {
        let managers =
            config.all_chains().flat_map(|chain| &chain.filters).filter_map(|filter| match filter {
                NetworkFilterConfig::Http(manager) => Some((manager.rds.as_ref()?, &manager.stat_prefix)),
                _ => None,
            });
        for (rds, prefix) in managers {
            if self.rds.contains_key(rds) {
                continue;
            }
            let known = self.previous.and_then(|previous| previous.snapshot.discovered.rds.get(rds));
            let single = match known {
                Some(known) => known.clone(),
                None => {
                    let kind = Kind::Routes(prefix, &rds.name);
                    let subscription = Subscription::new(&rds.source, kind, self.builder.store)
                        .map_err(|error| Problem::new(JsonPath::root(), Span::default(), error))?;
                    let (found, tally) =
                        dynamic::table(&subscription, &rds.name, &|name| self.cluster_names.contains(name));
                    self.tallies.extend(tally);
                    Arc::new(Single::new(subscription, found))
                }
            };
            self.rds.insert(rds.clone(), single);
        }
        Ok(())
    }

    /// Gives connection managers the tables that their files hold.
    fn give_tables(&self, listener: &mut ListenerSnapshot) -> Result<(), Vec<Problem>> {
        let stat_name = ListenerSnapshot::stat_name(&listener.config);
        let config = listener.config.clone();
        for chain in &mut listener.chains {
            let TerminalSnapshot::Http(hcm) = &chain.terminal else { continue };
            let Some(rds) = &hcm.config().rds else { continue };
            let table = match &self.incoming {
                Incoming::Table { rds: changed, found } if *changed == rds => Some(found.config.clone()),
                _ => self.rds.get(rds).and_then(|single| single.found()).map(|found| found.config.clone()),
            };
            let runtime = &self.bootstrap.runtime;
            let is_new =
                |table: &Arc<_>| !Arc::ptr_eq(hcm.table(), table) || !chain.table_answers.hold(runtime);
            if let Some(table) = table.filter(is_new) {
                let cx = listener::context(&config, &stat_name, self.bootstrap, self.builder);
                let (hcm, table_answers) = runtime.recorded(|| hcm.with_table(&table, &cx));
                let terminal = TerminalSnapshot::Http(hcm?);
                *chain = Arc::new(ChainSnapshot { terminal, table_answers, ..(**chain).clone() });
            }
        }
        Ok(())
    }
}
