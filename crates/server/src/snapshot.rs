//! A whole configuration, ready to serve: plain data that the workers share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tidegate_cluster::{ClusterShared, Home};
use tidegate_config::runtime::Answers;
use tidegate_config::{Bootstrap, Format, ListenerConfig};
use tidegate_filter::{AccessLog, ListenerFilterFactory};
use tidegate_listener::ChainIndex;
use tidegate_tls::ClientContext;

use crate::discovered::Discovered;

mod chain;
mod quic;

pub(crate) use chain::{ChainSnapshot, TerminalSnapshot, TransportSnapshot};
pub(crate) use quic::QuicSnapshot;

/// A bootstrap as it was read.
pub(crate) struct Base {
    /// The text that it came from.
    pub(crate) text: Arc<str>,
    /// Its format.
    pub(crate) format: Format,
    /// The validated tree.
    pub(crate) bootstrap: Bootstrap,
    /// When it was loaded.
    pub(crate) loaded_at: SystemTime,
}

/// A validated configuration with everything that was built from it.
pub(crate) struct Snapshot {
    /// Counts the configurations that were served, from 1.
    pub(crate) generation: u64,
    /// The bootstrap.
    pub(crate) base: Arc<Base>,
    /// What its dynamic resources are.
    pub(crate) discovered: Discovered,
    /// Those of the bootstrap in file order, then those that files brought.
    pub(crate) listeners: Vec<ListenerSnapshot>,
    /// Likewise; without those that are still warming.
    pub(crate) clusters: Vec<Arc<ClusterShared>>,
    /// Where this proxy is.
    pub(crate) home: Arc<Home>,
    /// Where in `clusters` each one is.
    pub(crate) by_name: HashMap<Arc<str>, usize>,
    /// TLS towards hosts, by cluster.
    pub(crate) client_contexts: HashMap<String, Vec<Arc<ClientContext>>>,
    /// `admin.access_log`.
    pub(crate) admin_logs: Vec<Arc<dyn AccessLog>>,
    /// What they asked of the runtime.
    pub(crate) admin_answers: Answers,
}

impl Snapshot {
    /// The cluster of that name.
    pub(crate) fn cluster(&self, name: &str) -> Option<&Arc<ClusterShared>> {
        self.clusters.get(*self.by_name.get(name)?)
    }

    /// Whether a file brought the cluster, and not the bootstrap.
    pub(crate) fn is_discovered(&self, cluster: &ClusterShared) -> bool {
        self.by_name.get(cluster.name()).is_some_and(|place| *place >= self.base.bootstrap.clusters.len())
    }

    /// Puts back, for the clusters that `still_warming` takes, what served before: another one, or nothing.
    pub(crate) fn hold_back(
        &mut self,
        old: &Self,
        still_warming: impl Fn(&ClusterShared) -> bool,
    ) -> Vec<Arc<ClusterShared>> {
        let mut held = Vec::new();
        self.clusters.retain_mut(|cluster| {
            if !still_warming(cluster) {
                return true;
            }
            let before = old.cluster(cluster.name()).cloned();
            let stays = before.is_some();
            held.push(std::mem::replace(cluster, before.unwrap_or_else(|| cluster.clone())));
            stays
        });
        if !held.is_empty() {
            let places =
                self.clusters.iter().enumerate().map(|(place, cluster)| (cluster.name().clone(), place));
            self.by_name = places.collect();
        }
        held
    }

    /// The listeners' configurations.
    pub(crate) fn listener_configs(&self) -> Vec<Arc<ListenerConfig>> {
        self.listeners.iter().map(|listener| listener.config.clone()).collect()
    }

    /// Every access log.
    pub(crate) fn access_logs(&self) -> impl Iterator<Item = &Arc<dyn AccessLog>> {
        let listeners = self.listeners.iter().flat_map(|listener| {
            listener.chains.iter().flat_map(|chain| chain.access_logs()).chain(&listener.logs)
        });
        listeners.chain(&self.admin_logs)
    }
}

/// One listener of a snapshot.
#[derive(Clone)]
pub(crate) struct ListenerSnapshot {
    pub(crate) config: Arc<ListenerConfig>,
    /// `listener_filters`, in order.
    pub(crate) filters: ListenerFilters,
    /// Chooses among the chains.
    pub(crate) index: Arc<ChainIndex>,
    /// In file order, the default chain last.
    pub(crate) chains: Vec<Arc<ChainSnapshot>>,
    /// What its connections begin with, if they are QUIC's.
    pub(crate) quic: Option<Arc<QuicSnapshot>>,
    /// `access_log`: a line a connection.
    pub(crate) logs: Vec<Arc<dyn AccessLog>>,
    /// Most connections at a time; `None`: no limit.
    pub(crate) max_connections: Option<u64>,
    /// What all of it asked of the runtime.
    pub(crate) answers: Answers,
}

/// A listener's filters.
#[derive(Clone, Default)]
pub(crate) struct ListenerFilters {
    pub(crate) all: Vec<Arc<dyn ListenerFilterFactory>>,
    /// What they asked of the runtime.
    pub(crate) answers: Answers,
}

impl ListenerSnapshot {
    /// The name in statistics: `stat_prefix`, else the address as configured.
    pub(crate) fn stat_name(config: &ListenerConfig) -> String {
        match config.stat_prefix.as_str() {
            "" => config.address.to_string(),
            prefix => prefix.to_owned(),
        }
    }
}

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A file, read anew at each reload.
    File(PathBuf),
    /// Text from the command line, or the demo's.
    Text(Arc<str>, Format),
}

impl Source {
    /// What errors call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text(..) => "<command line>".to_owned(),
        }
    }
}
