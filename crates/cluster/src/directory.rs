//! A worker's clusters by name.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tidegate_filter::{Clusters, HttpCallout, Presence};
use tidegate_net::clock::monotonic_seconds;
use tidegate_pool::alternates::{Caches, Clock};
use tidegate_pool::report::PoolReport;
use tidegate_types::UpstreamInfo;
use tidegate_types::hash::ConfiguredMap;
use tokio::time::Instant;

use crate::callout::Callout;
use crate::cluster::Cluster;
use crate::lb::Health;
use crate::neighbours::{Letter, PeerBell, Peers};
use crate::shared::ClusterShared;

/// The clusters of one worker.
pub struct Directory {
    entries: RefCell<ConfiguredMap<Arc<str>, Entry>>,
    peers: Arc<Peers>,
    bell: Arc<PeerBell>,
    caches: Rc<Caches>,
}

/// A cluster that costs nothing on this worker until it is used.
struct Entry {
    shared: Arc<ClusterShared>,
    cluster: OnceCell<Rc<Cluster>>,
}

impl Directory {
    /// An empty directory. Must be called on the worker's thread, whose runtime takes local tasks; `peers` is
    /// the same for all workers.
    pub fn new(peers: &Arc<Peers>) -> Rc<Self> {
        let bell = peers.join();
        let directory = Rc::new(Self {
            entries: RefCell::default(),
            peers: peers.clone(),
            bell: bell.clone(),
            caches: Caches::new(clock),
        });
        tokio::task::spawn_local(answer_peers(Rc::downgrade(&directory), bell));
        directory
    }

    /// Follows a new configuration: unchanged clusters keep everything, changed and removed ones close idle
    /// connections now and the others with their streams.
    pub fn apply(&self, clusters: &[Arc<ClusterShared>]) {
        let mut old = self.entries.take();
        let mut new = ConfiguredMap::with_capacity_and_hasher(clusters.len(), Default::default());
        for shared in clusters {
            let kept = old.remove(shared.name()).and_then(|entry| {
                if Arc::ptr_eq(&entry.shared, shared) {
                    return Some(entry);
                }
                entry.drain();
                None
            });
            let entry = kept.unwrap_or_else(|| Entry { shared: shared.clone(), cluster: OnceCell::new() });
            new.insert(shared.name().clone(), entry);
        }
        self.entries.replace(new);
        old.values().for_each(Entry::drain);
    }

    /// Follows a change: `changed` are new, or replace those of the same name, `removed` go. As
    /// [`Directory::apply`], at the cost of what changes.
    pub fn update<'a>(
        &self,
        changed: impl IntoIterator<Item = &'a Arc<ClusterShared>>,
        removed: &[Arc<str>],
    ) {
        let mut gone = Vec::new();
        let mut entries = self.entries.borrow_mut();
        for shared in changed {
            let entry = Entry { shared: shared.clone(), cluster: OnceCell::new() };
            gone.extend(entries.insert(shared.name().clone(), entry));
        }
        gone.extend(removed.iter().filter_map(|name| entries.remove(name)));
        drop(entries);
        gone.iter().for_each(Entry::drain);
    }

    /// The cluster of that name: one hash of a short name.
    pub fn cluster(&self, name: &str) -> Option<Rc<Cluster>> {
        let entries = self.entries.borrow();
        let entry = entries.get(name)?;
        let new =
            || Cluster::new(entry.shared.clone(), self.peers.clone(), self.bell.clone(), self.caches.clone());
        Some(entry.cluster.get_or_init(new).clone())
    }

    /// The pools of all clusters on this worker, by the clusters' names.
    pub fn pool_reports(&self) -> HashMap<Arc<str>, Vec<PoolReport>> {
        let entries = self.entries.borrow();
        let used = entries.iter().filter_map(|(name, entry)| Some((name.clone(), entry.cluster.get()?)));
        used.map(|(name, cluster)| (name, cluster.pool_reports())).collect()
    }

    /// The names of all clusters.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.entries.borrow().keys().cloned().collect()
    }
}

impl Entry {
    fn drain(&self) {
        if let Some(cluster) = self.cluster.get() {
            cluster.drain();
        }
    }
}

impl Clusters for Directory {
    fn http(&self, cluster: &str) -> Option<Rc<dyn HttpCallout>> {
        let cluster = self.cluster(cluster)?;
        Some(Rc::new(Callout::new(cluster)))
    }

    fn presence(&self, cluster: &str) -> Option<Presence> {
        let hosts = self.cluster(cluster)?.shared().hosts();
        let serving = hosts.hosts.iter().filter(|host| host.health() != Health::Unhealthy).count();
        Some(Presence { total: hosts.hosts.len() as u64, serving: serving as u64 })
    }

    fn heard_alternatives(&self, cluster: &str, from: &UpstreamInfo, fields: &[&[u8]], age: Duration) {
        if let Some(cluster) = self.cluster(cluster) {
            cluster.heard_alternatives(from, fields, age);
        }
    }

    fn server_fails_checks(&self) -> bool {
        self.peers.fails_checks()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.peers.leave(&self.bell);
        // Attempts and idle connections go; what is lent out ends with its streams.
        self.entries.borrow().values().for_each(Entry::drain);
        self.bell.ring();
    }
}

/// Now, by both clocks.
fn clock() -> Clock {
    Clock { at: Instant::now(), seconds: monotonic_seconds() }
}

/// Gives up idle connections that other workers ask for, and follows changes of hosts.
async fn answer_peers(directory: Weak<Directory>, bell: Arc<PeerBell>) {
    poll_fn(|cx| {
        let letters = bell.take(cx.waker());
        let Some(directory) = directory.upgrade() else { return Poll::Ready(()) };
        for letter in letters {
            let (Letter::Reclaim(shared, _) | Letter::Hosts(shared)) = &letter;
            let cluster =
                directory.entries.borrow().get(shared.name()).and_then(|e| e.cluster.get().cloned());
            match (cluster, letter) {
                (None, _) => {}
                (Some(cluster), Letter::Reclaim(_, priority)) => cluster.reclaim_for_peer(priority),
                (Some(cluster), Letter::Hosts(_)) => cluster.follow_hosts(),
            }
        }
        Poll::Pending
    })
    .await;
}
