//! What watched files brought: clusters, listeners, route tables, hosts, with the versions that they had.
//!
//! Plain data beside a [`Snapshot`](crate::snapshot::Snapshot), kept while another bootstrap names the same files.
//! How a file becomes part of it is `build::dynamic`'s matter, and when, that of `discovery`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tidegate_config::cluster::LoadAssignment;
use tidegate_config::discovery::{ConfigSource, Rds};
use tidegate_config::{ClusterConfig, ListenerConfig, RouteConfig};

use crate::watch::Watched;

mod subscription;

pub(crate) use subscription::{Kind, Subscription, Tally};

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Discovered {
    /// `cds_config`.
    pub(crate) cds: Option<Arc<Collection<ClusterConfig>>>,
    /// `lds_config`.
    pub(crate) lds: Option<Arc<Collection<ListenerConfig>>>,
    /// `rds` of connection managers.
    pub(crate) rds: Arc<BTreeMap<Rds, Arc<Single<RouteConfig>>>>,
    /// Hosts by the cluster's name.
    pub(crate) eds: Arc<HashMap<String, Arc<Single<LoadAssignment>>>>,
}

/// All resources of a kind.
pub(crate) struct Collection<T> {
    pub(crate) subscription: Arc<Subscription>,
    /// The version of the last response that was taken whole.
    pub(crate) version: Arc<str>,
    pub(crate) found: Vec<Arc<Found<T>>>,
    /// What the last response held that could not be taken.
    pub(crate) refused: Vec<Refusal>,
}

/// The only resource of its file.
pub(crate) struct Single<T> {
    pub(crate) subscription: Arc<Subscription>,
    found: Mutex<Option<Arc<Found<T>>>>,
    /// Nobody looked at how long `found` is valid.
    is_new: AtomicBool,
}

/// A resource that is in use.
pub(crate) struct Found<T> {
    pub(crate) config: Arc<T>,
    /// The `version_info` that it came with.
    pub(crate) version: Arc<str>,
    /// As it was written, in JSON.
    pub(crate) text: Box<str>,
    pub(crate) at: SystemTime,
}

/// A resource that is not.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) name: String,
    pub(crate) text: Box<str>,
    pub(crate) details: String,
    pub(crate) at: SystemTime,
}

impl<T> Collection<T> {
    /// Nothing yet.
    pub(crate) fn new(subscription: Arc<Subscription>) -> Self {
        Self { subscription, version: "".into(), found: Vec::new(), refused: Vec::new() }
    }
}

impl<T> Single<T> {
    /// What its file holds, or nothing yet.
    pub(crate) fn new(subscription: Arc<Subscription>, found: Option<Arc<Found<T>>>) -> Self {
        Self { subscription, found: Mutex::new(found), is_new: AtomicBool::new(true) }
    }

    pub(crate) fn found(&self) -> Option<Arc<Found<T>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, found: Arc<Found<T>>) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        self.is_new.store(true, Relaxed);
    }

    /// What was found since this was asked last.
    pub(crate) fn take_new(&self) -> Option<Arc<Found<T>>> {
        self.is_new.swap(false, Relaxed).then(|| self.found()).flatten()
    }
}

impl Found<LoadAssignment> {
    /// The same with no host, and nothing else that it said.
    pub(crate) fn without_hosts(&self) -> Self {
        let cluster_name = self.config.cluster_name.clone();
        Self {
            text: format!(r#"{{"cluster_name":{}}}"#, serde_json::Value::from(cluster_name.as_str())).into(),
            config: Arc::new(LoadAssignment { cluster_name, ..LoadAssignment::default() }),
            version: self.version.clone(),
            at: SystemTime::now(),
        }
    }
}

impl Discovered {
    /// The files to watch.
    pub(crate) fn files(&self) -> BTreeSet<Watched> {
        self.subscriptions().map(|subscription| watched(&subscription.source)).collect()
    }

    /// Those that changed since they were read.
    pub(crate) fn stale(&self) -> BTreeSet<PathBuf> {
        let stale = self.subscriptions().filter(|subscription| subscription.is_stale());
        stale.map(|subscription| subscription.source.path.clone()).collect()
    }

    fn subscriptions(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        let collections =
            [self.cds.as_ref().map(|cds| &cds.subscription), self.lds.as_ref().map(|lds| &lds.subscription)];
        let routes = self.rds.values().map(|rds| &rds.subscription);
        let hosts = self.eds.values().map(|eds| &eds.subscription);
        collections.into_iter().flatten().chain(routes).chain(hosts)
    }
}

fn watched(source: &ConfigSource) -> Watched {
    Watched { path: source.path.clone(), directory: source.watched_directory.clone() }
}
