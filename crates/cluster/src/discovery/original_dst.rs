//! `ORIGINAL_DST`: a host is wherever a request, or a connection, was going (Envoy docs, "Original destination").
//!
//! Workers make hosts when they need them ([`Destinations::host`]) and wait for nobody; the main thread publishes them,
//! and removes those that nobody used for a while. Where a request was going is said in [`Cluster::choose_host_at`].
//!
//! [`Cluster::choose_host_at`]: crate::Cluster::choose_host_at

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_config::cluster::{EndpointConfig, LocalityEndpoints, OriginalDstConfig};
use tidegate_pool::host::HostStat;
use tidegate_types::Address;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::host::HostShared;
use crate::neighbours::Peers;
use crate::shared::ClusterShared;

/// The hosts that were made, published or not: what holds, as to which there are.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    hosts: Mutex<HashMap<Address, Arc<Destination>>>,
    /// Some host is not published yet.
    made: Notify,
}

/// A host of a cluster without discovery.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) host: Arc<HostShared>,
    used: AtomicBool,
}

impl Destination {
    fn new(host: Arc<HostShared>) -> Self {
        Self { host, used: AtomicBool::new(true) }
    }

    /// Somebody goes there.
    pub(crate) fn note_used(&self) {
        // Mostly it is known: then the cache line stays with all workers.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }

    /// Whether it was used since this was asked last, or has connections: those end by their own idle timeout.
    fn take_used(&self) -> bool {
        self.used.swap(false, Relaxed) || self.host.stats.value(HostStat::CxActive) > 0
    }
}

impl Destinations {
    /// The host at `address`, which `make` makes if there is none. For workers, where they do not know it yet.
    pub(crate) fn host(
        &self,
        address: &Address,
        make: impl FnOnce() -> Option<Arc<HostShared>>,
    ) -> Option<Arc<Destination>> {
        let mut hosts = self.lock();
        if let Some(known) = hosts.get(address) {
            known.note_used();
            return Some(known.clone());
        }
        let made = Arc::new(Destination::new(make()?));
        hosts.insert(address.clone(), made.clone());
        drop(hosts);
        self.made.notify_one();
        Some(made)
    }

    /// Whether `destination` is still one of them.
    pub(crate) fn has(&self, address: &Address, destination: &Arc<Destination>) -> bool {
        self.lock().get(address).is_some_and(|known| Arc::ptr_eq(known, destination))
    }

    /// `old` without those that are gone, and with those that are new.
    pub(crate) fn follow(&self, old: &[Arc<HostShared>]) -> Vec<Arc<HostShared>> {
        let hosts = self.lock();
        let mut made: HashMap<_, _> =
            hosts.values().map(|known| (Arc::as_ptr(&known.host), &known.host)).collect();
        let stay = old.iter().filter(|host| made.remove(&Arc::as_ptr(host)).is_some());
        let stay: Vec<_> = stay.cloned().collect();
        stay.into_iter().chain(made.into_values().cloned()).collect()
    }

    fn remove_unused(&self) {
        self.lock().retain(|_, known| known.take_used());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Arc<Destination>>> {
        // What is inside is valid after any panic.
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes and removes the hosts of `cluster`. On the main thread.
pub(super) async fn tend(cluster: Arc<ClusterShared>, config: OriginalDstConfig, peers: Arc<Peers>) {
    let Some(destinations) = cluster.destinations() else { return };
    let mut clean_up = Instant::now() + config.cleanup_interval;
    loop {
        tokio::select! {
            () = destinations.made.notified() => drop(cluster.publish_destinations()),
            () = sleep_until(clean_up) => {
                clean_up = Instant::now() + config.cleanup_interval;
                destinations.remove_unused();
                cluster.forget_ancestors();
                if cluster.publish_destinations() {
                    // Idle connections of hosts that left close now.
                    peers.tell_of_hosts(&cluster);
                }
            }
        }
    }
}

/// The host at `address`, called after the cluster and the address, as in Envoy.
pub(crate) fn place(cluster: &str, address: &Address) -> LocalityEndpoints {
    let endpoint = EndpointConfig {
        address: address.clone(),
        additional_addresses: Vec::new(),
        name: None,
        hostname: format!("{cluster}{address}"),
        weight: 1,
        health_status: Default::default(),
        health_check: Default::default(),
        metadata: None,
    };
    LocalityEndpoints {
        locality: Default::default(),
        priority: 0,
        weight: None,
        metadata: None,
        endpoints: vec![endpoint],
    }
}

#[cfg(test)]
mod tests;
