//! What the server keeps on each worker, and how a configuration reaches it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_cluster::{Directory, Peers, PoolReport};
use tidegate_http::DrainPhase;
use tidegate_listener::{Listener, ListenerOptions, ListenerStats};
use tidegate_net::listen::ListenSocket;
use tidegate_stats::Store;
use tidegate_types::GracefulDrain;
use tidegate_types::overload::{Overload, OverloadLevels};
use tidegate_worker::Mailboxes;

use crate::plan::ClusterPlan;
use crate::snapshot::{ChainSnapshot, ListenerSnapshot};
use crate::stats::{ControlStats, ListenerManagerStats};

mod chain;
mod listener;
mod quic;

use chain::WorkerChain;
use listener::WorkerListener;

/// One worker's clusters and listeners.
pub(crate) struct WorkerState {
    index: usize,
    store: Store,
    directory: Rc<Directory>,
    listeners: RefCell<Vec<Rc<WorkerListener>>>,
    /// Removed or replaced; gone when their last connection is.
    draining: RefCell<Vec<Rc<WorkerListener>>>,
    /// Listeners that are about to stop: they may still accept what the kernel has queued.
    stopping: Cell<usize>,
    /// What new listeners begin with: `Announce` after `/healthcheck/fail`.
    phase: Cell<DrainPhase>,
    overload: Rc<Overload>,
    /// All workers, from the first configuration on.
    workers: RefCell<Option<Mailboxes<WorkerState>>>,
    manager: ListenerManagerStats,
}

/// A configuration on its way to one worker.
pub(crate) struct WorkerUpdate {
    /// All workers, who hand each other datagrams.
    pub(crate) workers: Mailboxes<WorkerState>,
    pub(crate) clusters: Arc<ClusterPlan>,
    pub(crate) listeners: Vec<(ListenerUpdate, SocketUpdate)>,
    pub(crate) drain_time: Duration,
}

/// One listener of a [`WorkerUpdate`].
pub(crate) struct ListenerUpdate {
    pub(crate) name: Arc<str>,
    pub(crate) stat_name: Arc<str>,
    pub(crate) options: ListenerOptions,
    pub(crate) snapshot: ListenerSnapshot,
}

/// Where a listener's connections come from.
pub(crate) enum SocketUpdate {
    /// The socket that the listener of that name has.
    Keep,
    /// A new one.
    Open(ListenSocket),
    /// One for QUIC. A listener at the same address that goes hands its own over instead.
    OpenUdp(UdpSocket),
}

impl WorkerState {
    pub(crate) fn new(index: usize, store: Store, peers: &Arc<Peers>) -> Self {
        Self {
            index,
            manager: ControlStats::new(&store).listeners,
            store,
            directory: Directory::new(peers),
            listeners: RefCell::default(),
            draining: RefCell::default(),
            stopping: Cell::default(),
            phase: Cell::default(),
            overload: Rc::default(),
            workers: RefCell::default(),
        }
    }

    /// Applies a configuration, as a whole between two tasks: clusters first, which routes refer to; then
    /// what is behind listeners; then new listeners; then old ones go.
    ///
    /// # Errors
    /// A socket that could not be registered with the runtime; all else is applied.
    pub(crate) fn apply(self: &Rc<Self>, update: WorkerUpdate) -> Result<(), String> {
        let ClusterPlan { added, modified, removed } = &*update.clusters;
        self.directory.update(added.iter().chain(modified), removed);
        self.workers.replace(Some(update.workers));
        let mut old = self.listeners.take();
        let mut new = Vec::with_capacity(update.listeners.len());
        let mut failed = Vec::new();
        for (listener, socket) in update.listeners {
            match socket {
                SocketUpdate::Keep => {
                    let Some(at) = old.iter().position(|o| *o.listener.name() == listener.name) else {
                        continue;
                    };
                    let kept = old.swap_remove(at);
                    kept.renew_endpoint(&listener);
                    for gone in kept.update(&listener, |chain| self.open_chain(chain)) {
                        tokio::task::spawn_local(self.clone().retire_chain(
                            kept.clone(),
                            gone,
                            update.drain_time,
                        ));
                    }
                    new.push(kept);
                }
                socket => match self.open(listener, socket, &old) {
                    Ok(opened) => new.push(opened),
                    Err(error) => failed.push(error.to_string()),
                },
            }
        }
        self.listeners.replace(new);
        for removed in old {
            tokio::task::spawn_local(self.clone().retire(removed, update.drain_time));
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    /// The pools of this worker, by the clusters' names.
    pub(crate) fn pool_reports(&self) -> HashMap<Arc<str>, Vec<PoolReport>> {
        self.directory.pool_reports()
    }

    fn open(
        &self,
        update: ListenerUpdate,
        socket: SocketUpdate,
        old: &[Rc<WorkerListener>],
    ) -> io::Result<Rc<WorkerListener>> {
        let chains: Vec<_> = update.snapshot.chains.iter().map(|chain| self.open_chain(chain)).collect();
        let choice = WorkerListener::choice(&update, &chains);
        let stats = match &update.snapshot.quic {
            None => ListenerStats::new(&self.store, &update.stat_name, self.index),
            Some(_) => ListenerStats::of_quic(&self.store, &update.stat_name, self.index),
        };
        let overload = self.overload.clone();
        let listener = match socket {
            SocketUpdate::Open(socket) => {
                Listener::start(update.name, socket, update.options, stats, choice, overload)?
            }
            SocketUpdate::OpenUdp(socket) => {
                let draining = self.draining.borrow();
                let former = old.iter().chain(&*draining);
                let endpoint = match former.filter_map(|former| former.give_endpoint(&update)).next() {
                    Some(endpoint) => endpoint,
                    None => self.endpoint(&update, socket)?,
                };
                Listener::start_quic(update.name, endpoint, update.options, stats, choice, overload)
            }
            SocketUpdate::Keep => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(WorkerListener::new(listener, chains))
    }

    fn open_chain(&self, chain: &ChainSnapshot) -> WorkerChain {
        WorkerChain::open(chain, &self.directory, &self.overload, self.phase.get())
    }

    async fn retire_chain(
        self: Rc<Self>,
        listener: Rc<WorkerListener>,
        chain: Rc<WorkerChain>,
        drain_time: Duration,
    ) {
        let draining = self.manager.total_filter_chains_draining();
        let _counted = (self.index == 0).then(|| draining.hold());
        listener.retire_chain(chain, drain_time).await;
    }

    /// A listener goes: it stops accepting, its idle connections close now, the others with their
    /// requests, and what is left after `drain_time` at once.
    async fn retire(self: Rc<Self>, listener: Rc<WorkerListener>, drain_time: Duration) {
        self.draining.borrow_mut().push(listener.clone());
        // Each worker has one: the first one's counts for all.
        let draining = self.manager.total_listeners_draining();
        let counted = (self.index == 0).then(|| draining.hold());
        listener.listener.stop().await;
        listener.set_phase(DrainPhase::CloseIdle);
        let gone = async {
            while listener.listener.connections() > 0 {
                tokio::time::sleep(POLL).await;
            }
        };
        if tokio::time::timeout(drain_time, gone).await.is_err() {
            listener.close_all();
        }
        drop(counted);
        self.draining.borrow_mut().retain(|other| !Rc::ptr_eq(other, &listener));
    }

    /// Connections of the listeners that `which` names are told to go (`/drain_listeners?graceful`).
    pub(crate) fn drain_listeners(&self, which: &[Arc<str>], graceful: GracefulDrain) {
        self.each_of(which, |listener| listener.drain(graceful));
    }

    /// Stops accepting on the listeners that `which` names; their connections go on
    /// (`/drain_listeners`).
    pub(crate) fn stop_listeners(&self, which: &[Arc<str>]) {
        self.each_of(which, |listener| {
            let listener = listener.listener.clone();
            tokio::task::spawn_local(async move { listener.stop().await });
        });
    }

    fn each_of(&self, which: &[Arc<str>], act: impl Fn(&WorkerListener)) {
        self.listeners.borrow().iter().filter(|l| which.contains(l.listener.name())).for_each(|l| act(l));
    }

    /// The process ends: as [`Self::retire`], for all, with the end of patience left to the caller.
    pub(crate) fn begin_shutdown(self: &Rc<Self>) {
        for listener in self.listeners.borrow().iter().cloned() {
            let worker = self.clone();
            worker.stopping.set(worker.stopping.get() + 1);
            tokio::task::spawn_local(async move {
                listener.listener.stop().await;
                listener.set_phase(DrainPhase::CloseIdle);
                worker.stopping.set(worker.stopping.get() - 1);
            });
        }
    }

    /// Every response announces the close, or no longer does (`/healthcheck/fail|ok`).
    pub(crate) fn set_phase(&self, phase: DrainPhase) {
        self.phase.set(phase);
        self.listeners.borrow().iter().for_each(|listener| listener.set_phase(phase));
    }

    /// The process is more, or less, overloaded than before.
    pub(crate) fn set_overload(&self, levels: OverloadLevels) {
        self.overload.set(levels);
        self.each(|listener| listener.overload_changed());
    }

    /// Closes every connection now.
    pub(crate) fn close_all(&self) {
        self.each(|listener| listener.close_all());
    }

    /// Open connections, those of draining listeners included; not 0 while some may still be accepted.
    pub(crate) fn connections(&self) -> usize {
        let mut sum = self.stopping.get();
        self.each(|listener| sum += listener.listener.connections());
        sum
    }

    fn each(&self, mut f: impl FnMut(&WorkerListener)) {
        self.listeners.borrow().iter().chain(self.draining.borrow().iter()).for_each(|l| f(l));
    }
}

/// How often a draining listener or chain looks whether its connections are gone.
const POLL: Duration = Duration::from_millis(20);
