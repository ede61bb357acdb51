//! A worker's part of a cluster: its hosts with their pools, and its load balancer's cursors.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_config::ClusterConfig;
use tidegate_config::route::Priority;
use tidegate_config::transport::UpstreamTransport;
use tidegate_pool::alternates::{Alternates, Caches};
use tidegate_pool::limits::{Limits, RetryPermit};
use tidegate_pool::machine::Tally;
use tidegate_pool::report::PoolReport;
use tidegate_types::CloseReason;
use tokio::time::Instant;

use crate::host::{Followed, Host, HostSet, clock_ms};
use crate::lb::{Balancer, LabelMatch, Loads, Moment, Pick, Seats, Wish};
use crate::neighbours::{Neighbourhood, PeerBell, Peers};
use crate::shared::ClusterShared;
use crate::stats::ClusterStats;

mod alternatives;
mod destinations;
pub(crate) mod kit;
mod pools;
mod quic;
mod subsets;

pub use pools::Ask;

use destinations::Visited;
use kit::Kit;

/// One cluster on one worker. Hosts and pools are made at first use.
pub struct Cluster {
    shared: Arc<ClusterShared>,
    members: RefCell<Option<Members>>,
    generation: Cell<u64>,
    kit: OnceCell<Kit>,
    neighbours: [OnceCell<Rc<Neighbourhood>>; 2],
    peers: Arc<Peers>,
    bell: Arc<PeerBell>,
    caches: Rc<Caches>,
    /// Which of its hosts' origins take HTTP/3.
    alternates: OnceCell<Rc<Alternates>>,
    extension: OnceCell<Rc<dyn Any>>,
    /// What its pools carry, if connections are opened ahead of the load balancer's choices.
    tally: Option<Rc<Tally>>,
    /// Of an `ORIGINAL_DST` cluster.
    visited: Option<Box<Visited>>,
}

struct Members {
    hosts: Vec<Rc<Host>>,
    /// Of all hosts.
    balancer: Balancer,
    /// Of a cluster that has subsets.
    seats: Option<Box<Seats>>,
}

impl Cluster {
    pub(crate) fn new(
        shared: Arc<ClusterShared>,
        peers: Arc<Peers>,
        bell: Arc<PeerBell>,
        caches: Rc<Caches>,
    ) -> Rc<Self> {
        let ahead = shared.config().preconnect.predictive > 1.0;
        Rc::new(Self {
            tally: ahead.then(Rc::default),
            visited: shared.destinations().map(|_| Box::default()),
            shared,
            members: RefCell::default(),
            generation: Cell::default(),
            kit: OnceCell::new(),
            extension: OnceCell::new(),
            neighbours: Default::default(),
            peers,
            bell,
            caches,
            alternates: OnceCell::new(),
        })
    }

    /// Chooses a host for a request; `None` counts in `upstream_cx_none_healthy`.
    pub fn choose_host(&self) -> Option<Rc<Host>> {
        self.choose_host_for(None)
    }

    /// As [`Cluster::choose_host`], for what a `hash_policy` found: hashing load balancers give equal hashes the
    /// same host, others do not look at them. See [`crate::lb::hash`].
    pub fn choose_host_for(&self, hash: Option<u64>) -> Option<Rc<Host>> {
        self.choose_host_by(Wish { hash, ..Wish::default() })
    }

    /// As [`Cluster::choose_host`], for a request with wishes of its own.
    pub fn choose_host_by(&self, wish: Wish<'_>) -> Option<Rc<Host>> {
        let mut members = self.members();
        let members = members.as_mut()?;
        let index = match &mut members.seats {
            None => self.pick(&mut members.balancer, wish).host,
            Some(seats) => self.choose_in_subsets(seats, &mut members.balancer, wish),
        };
        let host = index.and_then(|index| members.hosts.get(index)).cloned();
        if host.is_none() {
            self.stats().upstream.upstream_cx_none_healthy().inc();
        }
        host
    }

    /// Chooses, and counts what there is to count about it.
    #[inline]
    fn pick(&self, balancer: &mut Balancer, wish: Wish<'_>) -> Pick {
        let moment = self.moment(balancer);
        let pick = balancer.choose(wish, moment, &mut || fastrand::u64(..));
        let stats = self.stats();
        if pick.panic {
            stats.balance.lb_healthy_panic().inc();
        }
        if let Some(zone) = pick.zone {
            stats.balance.count_zone(zone);
        }
        pick
    }

    /// What each priority is to get of requests that avoid some, by place, and want these labels; `None` if the others
    /// can take nothing.
    pub fn loads_without(&self, avoided: &[bool], labels: Option<&LabelMatch>) -> Option<Loads> {
        let members = self.members();
        let members = members.as_ref()?;
        let subset = members.seats.as_deref().and_then(|seats| self.subset_roster(seats, labels));
        subset.unwrap_or(members.balancer.roster()).priorities().without(avoided)
    }

    /// The host of a choice to come; `None` if all hosts were looked at already.
    fn peek_host(&self) -> Option<Rc<Host>> {
        let mut members = self.members();
        // Nobody knows which labels the next request has: no choice is foreseen, as in Envoy.
        let members = members.as_mut().filter(|members| members.seats.is_none())?;
        let moment = self.moment(&members.balancer);
        let pick = members.balancer.peek(moment, &mut || fastrand::u64(..))?;
        pick.host.and_then(|index| members.hosts.get(index)).cloned()
    }

    /// What choices need to know of this moment: mostly nothing, which is cheaper.
    #[inline]
    fn moment(&self, balancer: &Balancer) -> Moment {
        let roster = balancer.roster();
        let active =
            |priority| self.shared.limits_in_use(priority).map_or(0, |limits| limits.requests.used());
        Moment {
            ms: if roster.needs_time() { clock_ms() } else { 0 },
            active: if roster.needs_active() {
                active(Priority::Default) + active(Priority::High)
            } else {
                0
            },
        }
    }

    /// The hosts as they are now.
    fn members(&self) -> RefMut<'_, Option<Members>> {
        let generation = self.shared.generation();
        let mut members = self.members.borrow_mut();
        if members.is_none() || generation != self.generation.get() {
            self.generation.set(generation);
            *members = Some(self.new_members(members.take()));
        }
        members
    }

    /// What the router compiled of the cluster's message, made at first use. There is one such thing a cluster: who
    /// asks for another type gets one of its own each time.
    pub fn extension<T: 'static>(&self, make: impl Fn(&ClusterConfig) -> T) -> Rc<T> {
        let known = self.extension.get_or_init(|| Rc::new(make(self.config())));
        known.clone().downcast().unwrap_or_else(|_| Rc::new(make(self.config())))
    }

    /// What all workers share of it.
    #[inline]
    pub fn shared(&self) -> &Arc<ClusterShared> {
        &self.shared
    }

    /// The validated message.
    #[inline]
    pub fn config(&self) -> &Arc<ClusterConfig> {
        self.shared.config()
    }

    /// The configuration of what connections to `host` speak below their protocol now.
    pub fn socket_of(&self, host: &Host) -> &UpstreamTransport {
        let config = self.config();
        if config.transport_matches.is_empty() {
            // Nothing of the host has to be read, of which there may be thousands.
            return &config.transport_socket;
        }
        self.shared.socket_of(host.shared().transport())
    }

    /// Statistics.
    #[inline]
    pub fn stats(&self) -> &ClusterStats {
        self.shared.stats()
    }

    /// The circuit breakers of a priority.
    #[inline]
    pub fn limits(&self, priority: Priority) -> &Arc<Limits> {
        self.shared.limits(priority)
    }

    /// Lets a retry start, within `max_retries` or the retry budget. The router counts the refusal.
    pub fn reserve_retry(&self, priority: Priority, now: Instant) -> Option<RetryPermit> {
        self.limits(priority).reserve_retry(now)
    }

    /// No new requests will come: idle connections close, the others with their streams.
    pub(crate) fn drain(&self) {
        if let Some(members) = self.members.borrow_mut().take() {
            members.hosts.iter().for_each(|host| host.drain(CloseReason::Drained));
        }
        if let Some(visited) = &self.visited {
            visited.drain();
        }
    }

    /// Follows what happened to the hosts now, and not at the next request: connections to those that left or are
    /// not healthy any more close.
    pub(crate) fn follow_hosts(&self) {
        if self.members.borrow().is_some()
            && let Some(members) = &*self.members()
        {
            // What load balancers hear later (`update_merge_window`) is known of hosts now.
            members.hosts.iter().for_each(|host| follow(host, false));
        }
        self.hear_dns();
    }

    /// Another worker's pool has no connection: gives up idle ones.
    pub(crate) fn reclaim_for_peer(&self, priority: Priority) {
        if let Some(neighbours) = self.neighbours[priority as usize].get() {
            neighbours.reclaim_here();
        }
    }

    /// Its pools on this worker.
    pub fn pool_reports(&self) -> Vec<PoolReport> {
        let neighbours = self.neighbours.iter().filter_map(OnceCell::get);
        neighbours.flat_map(|neighbours| neighbours.reports()).collect()
    }

    fn new_members(&self, old: Option<Members>) -> Members {
        let set: Arc<HostSet> = self.shared.hosts();
        let (old, balancer, seats) = match old {
            Some(Members { hosts, balancer, seats }) => (hosts, Some(balancer), seats),
            None => Default::default(),
        };
        let old = self.revisit(&set, old);
        let hosts = self.new_hosts(&set, old);
        let seats = set.subsets().map(|subsets| match seats {
            Some(mut seats) => {
                seats.follow(subsets.clone());
                seats
            }
            None => Box::new(Seats::new(subsets.clone(), fastrand::u64(..))),
        });
        let balancer = match balancer {
            Some(mut balancer) => {
                balancer.follow(set.roster().clone());
                balancer
            }
            None => Balancer::new(set.roster().clone(), fastrand::u64(..)),
        };
        Members { hosts, balancer, seats }
    }

    /// The hosts of `set`, those that stay from `old`. Connections to those that left or lost their health close.
    fn new_hosts(&self, set: &HostSet, old: Vec<Rc<Host>>) -> Vec<Rc<Host>> {
        let same = |(host, shared): (&Rc<Host>, _)| Arc::ptr_eq(host.shared(), shared);
        let unchanged = old.len() == set.hosts.len() && old.iter().zip(&set.hosts).all(same);
        if unchanged {
            old.iter().for_each(|host| follow(host, false));
            return old;
        }
        let mut stay: HashMap<_, _> = old.iter().map(|host| (Arc::as_ptr(host.shared()), host)).collect();
        let kept = |shared| stay.remove(&Arc::as_ptr(shared)).cloned();
        let kept: Vec<_> = set.hosts.iter().map(kept).collect();
        // An answer that only changed the order closes nothing.
        let came_or_left = !stay.is_empty() || kept.iter().any(Option::is_none);
        let left = stay.into_values();
        // One that comes back, or is used in spite of it, starts afresh.
        left.for_each(|host| host.drain(CloseReason::HostUnhealthy));
        let close_all = came_or_left && self.config().close_connections_on_host_set_change;
        kept.iter().flatten().for_each(|host| follow(host, close_all));
        let hosts = kept.into_iter().zip(&set.hosts);
        hosts.map(|(kept, shared)| kept.unwrap_or_else(|| Rc::new(Host::new(shared.clone())))).collect()
    }

    fn neighbours(&self, priority: Priority) -> &Rc<Neighbourhood> {
        self.neighbours[priority as usize].get_or_init(|| {
            Neighbourhood::new(self.shared.clone(), priority, self.peers.clone(), self.bell.clone())
        })
    }
}

/// Closes the connections to a host that stays where what happened to it demands it.
fn follow(host: &Host, close_all: bool) {
    match host.follow() {
        Followed::LostHealth => {
            host.drain(CloseReason::HostUnhealthy);
            host.cut_sessions();
        }
        Followed::Renamed => host.drain(CloseReason::Drained),
        Followed::Same if close_all => host.drain(CloseReason::Drained),
        Followed::Same => {}
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A request that outlived its configuration may have opened connections after the drain.
        self.drain();
    }
}
