//! What becomes of a cluster's hosts when discovery names others: a diff by address, and by where active checks go, as
//! in Envoy.
//!
//! Not here: who finds hosts, and what workers do about those that left.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tidegate_config::cluster::{EndpointConfig, LocalityEndpoints};
use tidegate_types::Address;

use crate::host::{HostScale, HostSet, HostShared};
use crate::transports::Choice;

/// How the hosts differ from those before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostChanges {
    /// How many were named.
    pub named: usize,
    /// How many came.
    pub added: usize,
    /// How many left.
    pub removed: usize,
    /// How many stay, and something else is said about them.
    pub changed: usize,
}

impl HostChanges {
    /// Whether anything differs but the order.
    pub fn is_news(&self) -> bool {
        self.added + self.removed + self.changed > 0
    }
}

/// See the module.
pub(crate) struct HostUpdate {
    pub(crate) hosts: Vec<Arc<HostShared>>,
    pub(crate) changes: HostChanges,
    /// The transports of hosts that stay, and were chosen again since their metadata differs.
    pub(crate) rematched: Vec<Choice>,
    /// How many priorities hosts came to or left: each is a change of membership, as in Envoy.
    pub(crate) priorities: usize,
    touched: HashSet<u32>,
    left: Vec<Arc<HostShared>>,
}

impl HostUpdate {
    /// From `old` to `endpoints`. New hosts inherit from those of `ancestors` at the same address.
    pub(crate) fn new(
        old: &HostSet,
        ancestors: Option<&HostSet>,
        endpoints: &[LocalityEndpoints],
        scale: &HostScale,
    ) -> Self {
        let mut survivors = by_address(&old.hosts);
        let mut ancestors = by_address(ancestors.map_or(&[], |set| &set.hosts));
        let mut changes = HostChanges::default();
        let mut touched = HashSet::new();
        let mut rematched = Vec::new();
        let mut hosts = Vec::new();
        for (place, endpoint) in all(endpoints) {
            changes.named += 1;
            let host =
                match next(&mut survivors, endpoint, |host| !scale.checked || host.is_checked_as(endpoint)) {
                    Some(host) => {
                        let priority = host.priority();
                        let updated = host.update(endpoint, place, scale);
                        changes.changed += usize::from(updated.news);
                        rematched.extend(updated.transport);
                        if priority != place.priority {
                            touched.extend([priority, place.priority]);
                        }
                        host
                    }
                    None => {
                        let ancestor = next(&mut ancestors, endpoint, |_| true);
                        changes.added += 1;
                        touched.insert(place.priority);
                        Arc::new(HostShared::new(endpoint, place, scale, ancestor.as_deref()))
                    }
                };
            hosts.push(host);
        }
        let left = old.hosts.iter().filter(|host| takes(&mut survivors, host)).cloned().collect();
        Self { hosts, changes, rematched, priorities: 0, touched, left }
    }

    /// Decides about those that discovery does not name any more.
    pub(crate) fn keeping(mut self, stays: impl Fn(&HostShared) -> bool) -> Self {
        for host in std::mem::take(&mut self.left) {
            if stays(&host) {
                self.changes.changed += usize::from(host.set_removing());
                self.hosts.push(host);
            } else {
                self.changes.removed += 1;
                self.touched.insert(host.priority());
            }
        }
        self.priorities = self.touched.len();
        self
    }
}

fn all(endpoints: &[LocalityEndpoints]) -> impl Iterator<Item = (&LocalityEndpoints, &EndpointConfig)> {
    endpoints.iter().flat_map(|place| place.endpoints.iter().map(move |endpoint| (place, endpoint)))
}

/// An address may be there more than once: then the hosts are taken in their order.
type ByAddress = HashMap<Arc<Address>, VecDeque<Arc<HostShared>>>;

fn by_address(hosts: &[Arc<HostShared>]) -> ByAddress {
    let mut found = ByAddress::with_capacity(hosts.len());
    for host in hosts {
        found.entry(host.address()).or_default().push_back(host.clone());
    }
    found
}

fn next(
    hosts: &mut ByAddress,
    endpoint: &EndpointConfig,
    is_same: impl Fn(&HostShared) -> bool,
) -> Option<Arc<HostShared>> {
    let hosts = hosts.get_mut(&endpoint.address)?;
    hosts.remove(hosts.iter().position(|host| is_same(host))?)
}

/// Whether `host` is still there, and takes it.
fn takes(hosts: &mut ByAddress, host: &Arc<HostShared>) -> bool {
    let Some(rest) = hosts.get_mut(&host.address()) else { return false };
    let place = rest.iter().position(|other| Arc::ptr_eq(other, host));
    place.is_some_and(|place| rest.remove(place).is_some())
}

#[cfg(test)]
mod tests;
