//! The choice of an `ORIGINAL_DST` cluster: the host is where the request was going.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_config::cluster::{Discovery, OriginalDstConfig};
use tidegate_types::{Address, CloseReason, ConnectionInfo};

use super::Cluster;
use crate::discovery::Destination;
use crate::host::{Host, HostSet};

/// The hosts that this worker has used, published or not.
#[derive(Default)]
pub(super) struct Visited(RefCell<HashMap<Address, Visit>>);

type Visit = (Rc<Host>, Arc<Destination>);

impl Visited {
    fn known(&self, address: &Address) -> Option<Rc<Host>> {
        let visited = self.0.borrow();
        let (host, destination) = visited.get(address)?;
        destination.note_used();
        Some(host.clone())
    }

    pub(super) fn drain(&self) {
        self.0.take().into_values().for_each(|(host, _)| host.drain(CloseReason::Drained));
    }
}

impl Cluster {
    /// The configuration of an `ORIGINAL_DST` cluster, whose hosts [`Cluster::choose_host_at`] chooses; `None`:
    /// another one, whose load balancer does.
    #[inline]
    pub fn original_dst(&self) -> Option<&OriginalDstConfig> {
        match &self.config().discovery {
            Discovery::OriginalDst(config) => Some(config),
            _ => None,
        }
    }

    /// Chooses the host of an `ORIGINAL_DST` cluster: what `header` finds under the configured name, if there is one,
    /// or else where `connection` was going before it was redirected here. A header that is not `IP:port` counts in
    /// `original_dst_host_invalid`, and the connection decides. `None` counts in `upstream_cx_none_healthy`.
    pub fn choose_host_at<'a>(
        &self,
        header: impl FnOnce(&str) -> Option<&'a [u8]>,
        connection: Option<&ConnectionInfo>,
    ) -> Option<Rc<Host>> {
        let host = self.original_dst().and_then(|config| {
            let named = config.header.as_deref().and_then(header).filter(|value| !value.is_empty());
            let named = named.and_then(|value| self.parse(value));
            let restored =
                || connection.filter(|connection| connection.is_redirected)?.local_address.socket();
            let mut address = named.or_else(restored)?;
            if let Some(port) = config.port {
                address.set_port(port);
            }
            self.host_at(Address::Ip(address))
        });
        if host.is_none() {
            self.stats().upstream.upstream_cx_none_healthy().inc();
        }
        host
    }

    fn parse(&self, value: &[u8]) -> Option<SocketAddr> {
        let address = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        if address.is_none() {
            self.stats().balance.original_dst_host_invalid().inc();
        }
        address
    }

    fn host_at(&self, address: Address) -> Option<Rc<Host>> {
        let visited = self.visited.as_ref()?;
        // Follows what left.
        let members = self.members();
        if let Some(host) = visited.known(&address) {
            return Some(host);
        }
        let destination = self.shared.destination(&address)?;
        // It may have come by way of the published ones, unused so far.
        let mut published = members.iter().flat_map(|members| &members.hosts);
        let published = published.find(|host| Arc::ptr_eq(host.shared(), &destination.host));
        let host = published.cloned().unwrap_or_else(|| Rc::new(Host::new(destination.host.clone())));
        visited.0.borrow_mut().insert(address, (host.clone(), destination));
        Some(host)
    }

    /// Adds to `old` the hosts that this worker made and `set` has by now, and forgets those that are gone.
    pub(super) fn revisit(&self, set: &HostSet, mut old: Vec<Rc<Host>>) -> Vec<Rc<Host>> {
        let (Some(visited), Some(all)) = (&self.visited, self.shared.destinations()) else { return old };
        let published: HashSet<_> = set.hosts.iter().map(Arc::as_ptr).collect();
        let members: HashSet<_> = old.iter().map(|host| Arc::as_ptr(host.shared())).collect();
        let mut gone = Vec::new();
        visited.0.borrow_mut().retain(|address, (host, destination)| {
            let shared = Arc::as_ptr(host.shared());
            let is_member = members.contains(&shared);
            if published.contains(&shared) {
                if !is_member {
                    old.push(host.clone());
                }
                return true;
            }
            // It may be too new to be published.
            let stays = !is_member && all.has(address, destination);
            if !stays {
                gone.push(host.clone());
            }
            stays
        });
        // After the borrow: what ends with a connection may come back here.
        gone.iter().for_each(|host| host.drain(CloseReason::HostUnhealthy));
        old
    }
}
