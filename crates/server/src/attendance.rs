//! Who attends the clusters on the main thread, from the time that a configuration wants them until another one
//! serves without them.
//!
//! A changed cluster is attended beside the one that it replaces until it is warm. What attendants do is not known
//! here.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use tidegate_cluster::attend::{AttendContext, Attendant};
use tidegate_cluster::{ClusterShared, Peers};
use tidegate_stats::Store;

use crate::snapshot::Snapshot;

/// See the module.
pub(crate) struct Attendance {
    peers: Arc<Peers>,
    /// Those that have attendants, by their place in memory: a changed cluster is another one.
    attended: RefCell<HashMap<*const ClusterShared, Attended>>,
}

struct Attended {
    cluster: Arc<ClusterShared>,
    _attendants: Vec<Attendant>,
}

impl Attendance {
    pub(crate) fn new(peers: Arc<Peers>) -> Self {
        Self { peers, attended: RefCell::default() }
    }

    /// Whether health checks of the process itself are to fail.
    pub(crate) fn set_fails_checks(&self, fails: bool) {
        self.peers.set_fails_checks(fails);
    }

    /// The workers' way to hear of hosts.
    pub(crate) fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Attends the clusters of `snapshot` too.
    pub(crate) fn begin(&self, snapshot: &Snapshot, store: &Store) {
        let cx = AttendContext {
            peers: &self.peers,
            store,
            runtime: &snapshot.base.bootstrap.runtime,
            outlier_event_log: snapshot.base.bootstrap.outlier_event_log.as_deref(),
        };
        let mut attended = self.attended.borrow_mut();
        for cluster in &snapshot.clusters {
            if attended.contains_key(&Arc::as_ptr(cluster)) {
                continue;
            }
            let mut attendants = tidegate_cluster::discovery::attend(cluster, cx);
            attendants.extend(tidegate_health::attend(cluster, cx));
            attendants.extend(tidegate_cluster::home::attend(cluster));
            if !attendants.is_empty() {
                let entry = Attended { cluster: cluster.clone(), _attendants: attendants };
                attended.insert(Arc::as_ptr(cluster), entry);
            }
        }
    }

    /// Returns when all clusters of `snapshot` that are to be waited for can be used.
    pub(crate) async fn warmed(&self, snapshot: &Snapshot) {
        for cluster in snapshot.clusters.iter().filter(|cluster| cluster.config().wait_for_warm_on_init) {
            if !cluster.warming().is_over() {
                cluster.warming().over().await;
            }
        }
    }

    /// Attends only the clusters of `snapshot`, and those that `warm` to replace some, any longer.
    pub(crate) fn end_all_but(&self, snapshot: &Snapshot, warm: &HashMap<Arc<str>, Arc<ClusterShared>>) {
        let is = |other: Option<&Arc<ClusterShared>>, cluster| other.map(Arc::as_ptr) == Some(cluster);
        self.attended.borrow_mut().retain(|cluster, attended| {
            let name = attended.cluster.name();
            is(snapshot.cluster(name), *cluster) || is(warm.get(name), *cluster)
        });
    }
}
