//! Pools that share a connection limit: one without any connection takes the place of an idle
//! connection of another host, on this worker or another one.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tidegate_config::route::Priority;
use tidegate_pool::{Neighbour, Neighbours};

use tidegate_pool::report::PoolReport;

use crate::shared::ClusterShared;

/// Fewer entries are not worth a look.
const MIN_PRUNE: usize = 16;

/// The pools of one cluster and priority on this worker.
pub(crate) struct Neighbourhood {
    shared: Arc<ClusterShared>,
    priority: Priority,
    pools: RefCell<Vec<Weak<dyn Neighbour>>>,
    /// Pools that are gone are looked for when there are so many entries: pools come and go with connections.
    prune_at: Cell<usize>,
    peers: Arc<Peers>,
    own: Arc<PeerBell>,
}

impl Neighbourhood {
    pub(crate) fn new(
        shared: Arc<ClusterShared>,
        priority: Priority,
        peers: Arc<Peers>,
        own: Arc<PeerBell>,
    ) -> Rc<Self> {
        let prune_at = Cell::new(MIN_PRUNE);
        Rc::new(Self { shared, priority, pools: RefCell::default(), prune_at, peers, own })
    }

    pub(crate) fn join(&self, pool: Weak<dyn Neighbour>) {
        let mut pools = self.pools.borrow_mut();
        if pools.len() >= self.prune_at.get() {
            pools.retain(|pool| pool.strong_count() > 0);
            self.prune_at.set(MIN_PRUNE.max(2 * pools.len()));
        }
        pools.push(pool);
    }

    /// The pools as they are now.
    pub(crate) fn reports(&self) -> Vec<PoolReport> {
        self.pools.borrow().iter().filter_map(Weak::upgrade).map(|pool| pool.report()).collect()
    }

    /// Closes idle connections of this worker, the longest idle first, until no pool starves or none is
    /// left. Whether some pool still starves.
    pub(crate) fn reclaim_here(&self) -> bool {
        let pools: Vec<_> = self.pools.borrow().iter().filter_map(Weak::upgrade).collect();
        for pool in &pools {
            while pool.host_starves() && pool.clone().reclaim() {}
        }
        let limit = &self.shared.limits(self.priority).connections;
        while limit.starving_since_before(None) {
            if !reclaim_oldest(&pools) {
                return true;
            }
        }
        pools.iter().any(|pool| pool.host_starves())
    }
}

impl Neighbours for Neighbourhood {
    fn reclaim(&self) {
        if self.reclaim_here() {
            self.peers.ask(&self.own, &self.shared, self.priority);
        }
    }

    fn make_room(&self) {
        let pools: Vec<_> = self.pools.borrow().iter().filter_map(Weak::upgrade).collect();
        reclaim_oldest(&pools);
    }
}

/// Closes the connection that has idled longest. False if none is idle.
fn reclaim_oldest(pools: &[Rc<dyn Neighbour>]) -> bool {
    let oldest = pools.iter().filter_map(|pool| Some((pool.oldest_idle()?, pool)));
    oldest.min_by_key(|(since, _)| *since).is_some_and(|(_, pool)| pool.clone().reclaim())
}

/// How workers ask each other for idle connections. One per process, given to every [`crate::Directory`].
#[derive(Debug, Default)]
pub struct Peers {
    bells: Mutex<Vec<Arc<PeerBell>>>,
    fails_checks: AtomicBool,
}

/// A worker's letter box.
#[derive(Debug, Default)]
pub(crate) struct PeerBell {
    letters: Mutex<Vec<Letter>>,
    waker: Mutex<Option<Waker>>,
}

/// What a worker is asked for.
#[derive(Debug)]
pub(crate) enum Letter {
    /// Idle connections of this cluster and priority: another worker's pool has none.
    Reclaim(Arc<ClusterShared>, Priority),
    /// To look at the hosts of this cluster.
    Hosts(Arc<ClusterShared>),
}

impl Peers {
    /// Whether health checks of the process itself are to fail, for filters that answer them.
    pub fn set_fails_checks(&self, fails: bool) {
        self.fails_checks.store(fails, Relaxed);
    }

    pub(crate) fn fails_checks(&self) -> bool {
        self.fails_checks.load(Relaxed)
    }

    /// Lets all workers follow what happened to the cluster's hosts at once, and not with their next requests:
    /// connections to hosts that left or failed close.
    pub fn tell_of_hosts(&self, shared: &Arc<ClusterShared>) {
        for bell in lock(&self.bells).iter() {
            bell.deliver(Letter::Hosts(shared.clone()));
        }
    }

    pub(crate) fn join(&self) -> Arc<PeerBell> {
        let bell = Arc::new(PeerBell::default());
        lock(&self.bells).push(bell.clone());
        bell
    }

    pub(crate) fn leave(&self, bell: &Arc<PeerBell>) {
        lock(&self.bells).retain(|other| !Arc::ptr_eq(other, bell));
    }

    fn ask(&self, own: &Arc<PeerBell>, shared: &Arc<ClusterShared>, priority: Priority) {
        for bell in lock(&self.bells).iter().filter(|bell| !Arc::ptr_eq(bell, own)) {
            bell.deliver(Letter::Reclaim(shared.clone(), priority));
        }
    }
}

impl PeerBell {
    fn deliver(&self, letter: Letter) {
        lock(&self.letters).push(letter);
        self.ring();
    }

    pub(crate) fn ring(&self) {
        let waker = lock(&self.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Registers the worker's task, then takes what was asked: nothing asked in between is missed.
    pub(crate) fn take(&self, waker: &Waker) -> Vec<Letter> {
        *lock(&self.waker) = Some(waker.clone());
        std::mem::take(&mut lock(&self.letters))
    }
}

/// Locks, ignoring poison: what is inside is valid after any panic. Never taken on the way of a request that
/// finds a connection.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
