//! `update_merge_window`: what is found out about hosts that stay reaches load balancers at once, and what follows
//! within the window all together when it is over (Envoy docs, `CommonLbConfig`). Unset it is off, where Envoy's is 1 s:
//! see the book, "Coming from Envoy".

use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::attend::Attendant;
use crate::shared::ClusterShared;
use crate::stats::ManagerStats;

/// The window of one cluster.
#[derive(Debug)]
pub(crate) struct Merging {
    window: Duration,
    cluster: Weak<ClusterShared>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When load balancers were told last.
    told: Option<Instant>,
    /// Tells them when the window is over.
    pending: Option<Attendant>,
}

impl Merging {
    pub(crate) fn new(window: Duration, cluster: &Weak<ClusterShared>) -> Self {
        Self { window, cluster: cluster.clone(), state: Mutex::default() }
    }

    /// Whether something about hosts that stay is to wait; then it is told later by itself. On the main thread, within
    /// a `LocalSet` or local runtime.
    pub(crate) fn holds_back(&self, stats: &ManagerStats) -> bool {
        let mut state = self.lock();
        if state.told.is_none_or(|told| told.elapsed() > self.window) {
            stats.update_out_of_merge_window().inc();
            return false;
        }
        if state.pending.is_none() {
            let (window, cluster) = (self.window, self.cluster.clone());
            state.pending = Some(Attendant::spawn(async move {
                sleep(window).await;
                if let Some(cluster) = cluster.upgrade() {
                    cluster.merged();
                }
            }));
        }
        true
    }

    /// What waited is told now: the window is over.
    pub(crate) fn take_pending(&self) -> Option<Attendant> {
        self.lock().pending.take()
    }

    /// Load balancers are told of everything, what waited included.
    pub(crate) fn told(&self, stats: &ManagerStats) {
        let mut state = self.lock();
        state.told = Some(Instant::now());
        if state.pending.take().is_some() {
            stats.update_merge_cancelled().inc();
        }
    }

    /// Ignores poison: what is inside is valid after any panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
