//! What attends a cluster on the main thread: whoever finds its hosts, checks them, or ejects them.
//!
//! A cluster is not used before all of them had their first say ([`Warming`]; Envoy docs, "Cluster warming"). Which
//! attendants there are is their crates' matter.

use std::sync::{Arc, OnceLock};

use tidegate_config::runtime::Runtime;
use tidegate_stats::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::neighbours::Peers;

/// What attendants work with beside their cluster.
#[derive(Clone, Copy, Debug)]
pub struct AttendContext<'a> {
    /// Tells the workers of changes.
    pub peers: &'a Arc<Peers>,
    /// All statistics.
    pub store: &'a Store,
    /// The runtime layers of the configuration that the cluster is part of.
    pub runtime: &'a Runtime,
    /// Where ejections are told of (`cluster_manager.outlier_detection.event_log_path`).
    pub outlier_event_log: Option<&'a str>,
}

/// A task on the main thread; it ends with this handle.
#[derive(Debug)]
pub struct Attendant(JoinHandle<()>);

impl Attendant {
    /// Starts it. Within a `LocalSet` or local runtime.
    pub fn spawn(task: impl Future<Output = ()> + 'static) -> Self {
        Self(tokio::task::spawn_local(task))
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How many attendants have still to say something for the first time. Nothing is allocated where there are none.
#[derive(Debug, Default)]
pub struct Warming(OnceLock<watch::Sender<usize>>);

/// Keeps a cluster from being used until it is dropped.
#[derive(Debug)]
pub struct Hold(watch::Sender<usize>);

impl Warming {
    /// One more has to speak first.
    pub fn hold(&self) -> Hold {
        let holds = self.0.get_or_init(watch::Sender::default);
        holds.send_modify(|holds| *holds += 1);
        Hold(holds.clone())
    }

    /// Whether all have spoken.
    pub fn is_over(&self) -> bool {
        self.0.get().is_none_or(|holds| *holds.borrow() == 0)
    }

    /// Returns when all but `count` have spoken: when those have what they need of the others.
    pub async fn all_but(&self, count: usize) {
        self.at_most(count).await;
    }

    /// Returns when all have spoken.
    pub async fn over(&self) {
        self.at_most(0).await;
    }

    async fn at_most(&self, most: usize) {
        if let Some(holds) = self.0.get() {
            // The sender is here: there is no error.
            let _ = holds.subscribe().wait_for(|holds| *holds <= most).await;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.send_modify(|holds| *holds -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cluster_is_warm_when_all_have_spoken() {
        let warming = Warming::default();
        assert!(warming.is_over());
        warming.over().await;
        let (dns, checks) = (warming.hold(), warming.hold());
        drop(dns);
        assert!(!warming.is_over());
        let over = warming.over();
        drop(checks);
        over.await;
    }
}
