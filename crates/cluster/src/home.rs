//! Where this proxy is, and who else is there: what zone-aware routing goes by.

use std::sync::Arc;

use tidegate_config::Bootstrap;
use tidegate_config::bootstrap::Locality;
use tokio::sync::watch;

use crate::attend::Attendant;
use crate::lb::Census;
use crate::shared::ClusterShared;

/// `node.locality` and `cluster_manager.local_cluster_name`, with what is known of that cluster's hosts.
#[derive(Debug, Default)]
pub struct Home {
    locality: Locality,
    local_cluster: Option<String>,
    census: watch::Sender<Arc<Census>>,
}

impl Home {
    /// That of `bootstrap`: `previous`, if it is the same.
    pub fn of(bootstrap: &Bootstrap, previous: Option<&Arc<Self>>) -> Arc<Self> {
        let (locality, local_cluster) = (&bootstrap.node.locality, &bootstrap.local_cluster);
        let same = |home: &&Arc<Self>| home.locality == *locality && home.local_cluster == *local_cluster;
        previous.filter(same).cloned().unwrap_or_else(|| {
            Arc::new(Self {
                locality: locality.clone(),
                local_cluster: local_cluster.clone(),
                census: watch::Sender::default(),
            })
        })
    }

    /// Whether clusters built with one can go on with the other.
    pub(crate) fn serves_for(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let nobody_counts = self.local_cluster.is_none() && other.local_cluster.is_none();
        Arc::ptr_eq(self, other) || (nobody_counts && self.locality == other.locality)
    }

    /// Where this proxy is.
    pub(crate) fn locality(&self) -> &Locality {
        &self.locality
    }

    /// Whether that cluster is the local one.
    pub(crate) fn is_local(&self, cluster: &str) -> bool {
        self.local_cluster.as_deref() == Some(cluster)
    }

    /// The hosts of the local cluster, if `cluster`, which is another one, is to go by them.
    pub(crate) fn census(&self, cluster: &str) -> Option<Arc<Census>> {
        let known = self.local_cluster.is_some() && !self.is_local(cluster);
        known.then(|| self.census.borrow().clone())
    }

    /// The hosts of the local cluster are these now.
    pub(crate) fn count(&self, census: Census) {
        self.census.send_if_modified(|old| {
            let news = **old != census;
            if news {
                *old = Arc::new(census);
            }
            news
        });
    }
}

/// Follows the local cluster's hosts where `cluster` is routed by zones. On the main thread, within a `LocalSet` or
/// local runtime.
pub fn attend(cluster: &Arc<ClusterShared>) -> Option<Attendant> {
    let home = cluster.home();
    home.census(cluster.name())?;
    let (mut changes, cluster) = (home.census.subscribe(), cluster.clone());
    // It may have been built before the local one.
    changes.mark_changed();
    Some(Attendant::spawn(async move {
        while changes.changed().await.is_ok() {
            cluster.rebalance();
        }
    }))
}
