//! Following the files of dynamic resources: what one of them holds now becomes part of the configuration, by the
//! same way as a reload.
//!
//! A cluster that is not ready yet ([`ClusterShared::warming`](tidegate_cluster::ClusterShared::warming)) holds up
//! nothing: what it replaces serves until it is. Source: Envoy docs, "Cluster manager: cluster warming".

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_cluster::ClusterShared;
use tidegate_config::cluster::LoadAssignment;
use tidegate_config::discovery::response;

use crate::build::{self, Draft, Incoming, Previous};
use crate::control::{Control, Stage};
use crate::discovered::{Found, Single};
use crate::reload::{self, SwapError, Wait, lines};

/// Follows `touched` in a task of its own, when it is its turn.
pub(crate) fn ask(control: &Rc<Control>, touched: BTreeSet<PathBuf>) {
    let control = control.clone();
    let task = tokio::task::spawn_local(async move {
        let _turn = control.reloading.lock().await;
        follow(&control, &touched).await;
        control.reloaded.notify_one();
    });
    tokio::task::spawn_local(async move {
        if let Err(error) = task.await {
            tracing::error!(target: "config", %error, "an update panicked; nothing has changed");
        }
    });
}

/// Clusters before their hosts, hosts before listeners, listeners before their routes: what is referred to first.
async fn follow(control: &Rc<Control>, touched: &BTreeSet<PathBuf>) {
    if control.stage() == Stage::Ending {
        return;
    }
    let cds = control.snapshot().discovered.cds.clone();
    if cds.is_some_and(|cds| touched.contains(&cds.subscription.source.path)) {
        clusters(control).await;
    }
    hosts(control, touched).await;
    let lds = control.snapshot().discovered.lds.clone();
    if lds.is_some_and(|lds| touched.contains(&lds.subscription.source.path)) {
        listeners(control).await;
    }
    tables(control, touched).await;
}

async fn clusters(control: &Rc<Control>) {
    let Some(cds) = control.snapshot().discovered.cds.clone() else { return };
    let secrets = control.snapshot().base.bootstrap.secrets.clone();
    let parse = |text: &str, file: &str, format| response::clusters(text, file, format, &secrets);
    let Some(response) = cds.subscription.read(parse) else { return };
    if let Err(error) = apply(control, Incoming::Clusters(&response)).await {
        tracing::error!(target: "config", "clusters could not be taken over: {error}");
    }
}

/// Reads `lds_config` and takes over what it holds. It must be the caller's turn.
pub(crate) async fn listeners(control: &Rc<Control>) {
    let Some(lds) = control.snapshot().discovered.lds.clone() else { return };
    let secrets = control.snapshot().base.bootstrap.secrets.clone();
    let parse = |text: &str, file: &str, format| response::listeners(text, file, format, &secrets);
    let Some(response) = lds.subscription.read(parse) else { return };
    let mut refused = HashMap::new();
    loop {
        match apply(control, Incoming::Listeners { response: &response, refused: &refused }).await {
            Err(SwapError::Bind(errors)) => {
                // Without those that cannot be bound.
                let before = refused.len();
                refused.extend(errors.iter().map(|error| (error.listener.clone(), error.to_string())));
                if refused.len() == before {
                    return tracing::error!(target: "config", "cannot bind: {}", lines(&errors));
                }
            }
            Err(error) => {
                return tracing::error!(target: "config", "listeners could not be taken over: {error}");
            }
            Ok(_) => return,
        }
    }
}

async fn tables(control: &Rc<Control>, touched: &BTreeSet<PathBuf>) {
    let all = control.snapshot().discovered.rds.clone();
    for (rds, single) in all.iter().filter(|(rds, _)| touched.contains(&rds.source.path)) {
        let snapshot = control.snapshot();
        let exists =
            |name: &str| snapshot.by_name.contains_key(name) || control.warming.borrow().contains_key(name);
        let (found, tally) = build::table(&single.subscription, &rds.name, &exists);
        let Some(mut tally) = tally else { continue };
        if let Some(found) = found {
            if single.found().is_some_and(|old| old.config == found.config) {
                tally.outcome = Ok(false);
            } else {
                match apply(control, Incoming::Table { rds, found: &found }).await {
                    Ok(_) => single.set(found),
                    Err(error) => tally.outcome = Err(error.to_string()),
                }
            }
        }
        tally.count();
    }
}

async fn hosts(control: &Rc<Control>, touched: &BTreeSet<PathBuf>) {
    let snapshot = control.snapshot();
    for (name, single) in snapshot.discovered.eds.iter() {
        if !touched.contains(&single.subscription.source.path) {
            continue;
        }
        let clusters = both(control, name);
        let Some(cluster) = clusters.first() else { continue };
        let (found, tally) = build::assignment(&single.subscription, cluster.config());
        if let Some(found) = found {
            take_hosts(control, name, single, &clusters, found).await;
        }
        tally.into_iter().for_each(crate::discovered::Tally::count);
    }
}

/// Takes over the hosts of a cluster, which may be there twice, in force and warming.
async fn take_hosts(
    control: &Rc<Control>,
    name: &str,
    single: &Arc<Single<LoadAssignment>>,
    clusters: &[Arc<ClusterShared>],
    found: Arc<Found<LoadAssignment>>,
) {
    single.set(found.clone());
    if clusters.iter().any(|cluster| !cluster.config().has_policy(&found.config.policy)) {
        // What holds for the cluster as a whole makes another cluster of it.
        if let Err(error) = apply(control, Incoming::Nothing).await {
            tracing::error!(target: "config", "hosts could not be taken over: {error}");
        }
        control.stats.clusters.cluster_updated().inc();
    } else {
        for cluster in clusters {
            cluster.set_drop_overload(found.config.policy.drop_overload.as_deref());
            set_hosts(control, cluster, &found.config.endpoints);
        }
    }
    await_renewal(control, name, single);
}

/// Has hosts leave that were found with `endpoint_stale_after`, when others were not found by then.
pub(crate) fn await_renewal(control: &Rc<Control>, name: &str, single: &Arc<Single<LoadAssignment>>) {
    let Some(found) = single.take_new() else { return };
    let Some(stale_after) = found.config.policy.stale_after else { return };
    if let Some(cluster) = both(control, name).first() {
        cluster.stats().balance.assignment_timeout_received().inc();
    }
    let (control, name, single) = (control.clone(), name.to_owned(), single.clone());
    tokio::task::spawn_local(async move {
        tokio::time::sleep(stale_after).await;
        let _turn = control.reloading.lock().await;
        let is_found = single.found().is_some_and(|now| Arc::ptr_eq(&now, &found));
        let clusters = both(&control, &name);
        let Some(cluster) = clusters.first().filter(|_| is_found && control.stage() != Stage::Ending) else {
            return;
        };
        cluster.stats().balance.assignment_stale().inc();
        tracing::warn!(target: "config", "the hosts of cluster `{}` are stale", cluster.name());
        take_hosts(&control, &name, &single, &clusters, Arc::new(found.without_hosts())).await;
    });
}

/// The cluster in force and the warming one of that name.
fn both(control: &Control, name: &str) -> Vec<Arc<ClusterShared>> {
    let clusters = [control.snapshot().cluster(name).cloned(), control.warming.borrow().get(name).cloned()];
    clusters.into_iter().flatten().collect()
}

fn set_hosts(
    control: &Control,
    cluster: &Arc<ClusterShared>,
    endpoints: &[tidegate_config::cluster::LocalityEndpoints],
) {
    if cluster.set_endpoints(endpoints).is_news() {
        control.stats.clusters.cluster_updated().inc();
        control.peers().tell_of_hosts(cluster);
    } else {
        cluster.stats().balance.update_no_rebuild().inc();
    }
}

/// Puts the same bootstrap with what came in in force.
async fn apply(control: &Rc<Control>, incoming: Incoming<'_>) -> Result<u64, SwapError> {
    let old = control.snapshot();
    let warming = control.warming.borrow().clone();
    let previous = Previous { snapshot: &old, warming: &warming };
    let draft = Draft::compose(&old.base, incoming, &control.builder(), Some(previous));
    let draft = draft.map_err(|problems| SwapError::Other(lines(&problems)))?;
    reload::swap(control, draft, Wait::ForNone).await
}

/// Puts a cluster in force when it is warm, unless it was replaced or removed by then.
pub(crate) fn await_warmth(control: &Rc<Control>, cluster: Arc<ClusterShared>) {
    let control = control.clone();
    tokio::task::spawn_local(async move {
        cluster.warming().over().await;
        let _turn = control.reloading.lock().await;
        let waits = |other: &Arc<ClusterShared>| Arc::ptr_eq(other, &cluster);
        if control.stage() == Stage::Ending
            || !control.warming.borrow().get(cluster.name()).is_some_and(waits)
        {
            return;
        }
        if let Err(error) = apply(&control, Incoming::Nothing).await {
            tracing::error!(target: "config", "cluster `{}` could not be put in force: {error}", cluster.name());
        }
    });
}
