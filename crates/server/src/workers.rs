//! What the server keeps on each worker, and how a configuration reaches it.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_cluster::{ClusterShared, Directory, Peers};
use tidegate_codec::h1::ServerConn;
use tidegate_http::{Drain, DrainPhase, Hcm, HcmSlot};
use tidegate_listener::{Connection, Listener, ListenerOptions, ListenerStats, Serving, Terminal};
use tidegate_net::listen::ListenSocket;
use tidegate_stats::Store;

use crate::stats::{ControlStats, ListenerManagerStats};

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
    manager: ListenerManagerStats,
}

/// A listener that serves HTTP, on one worker.
struct WorkerListener {
    listener: Rc<Listener>,
    slot: Rc<HcmSlot>,
    drain: Rc<Drain>,
}

/// A configuration on its way to one worker.
pub(crate) struct WorkerUpdate {
    pub(crate) clusters: Vec<Arc<ClusterShared>>,
    pub(crate) listeners: Vec<ListenerUpdate>,
    pub(crate) drain_time: Duration,
}

/// One listener of a [`WorkerUpdate`].
pub(crate) struct ListenerUpdate {
    pub(crate) name: Arc<str>,
    pub(crate) stat_name: Arc<str>,
    pub(crate) options: ListenerOptions,
    pub(crate) hcm: Arc<Hcm>,
    pub(crate) socket: SocketUpdate,
}

/// Where a listener's connections come from.
pub(crate) enum SocketUpdate {
    /// The socket that the listener of that name has.
    Keep,
    /// A new one.
    Open(ListenSocket),
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
        }
    }

    /// Applies a configuration, as a whole between two tasks: clusters first, which routes refer to; then
    /// what is behind listeners; then new listeners; then old ones go.
    ///
    /// # Errors
    /// A socket that could not be registered with the runtime; all else is applied.
    pub(crate) fn apply(self: &Rc<Self>, update: WorkerUpdate) -> Result<(), String> {
        self.directory.apply(&update.clusters);
        let mut old = self.listeners.take();
        let mut new = Vec::with_capacity(update.listeners.len());
        let mut failed = Vec::new();
        for listener in update.listeners {
            match listener.socket {
                SocketUpdate::Keep => {
                    let Some(at) = old.iter().position(|o| *o.listener.name() == listener.name) else {
                        continue;
                    };
                    let kept = old.swap_remove(at);
                    kept.slot.set(listener.hcm);
                    kept.listener.set_options(listener.options);
                    new.push(kept);
                }
                SocketUpdate::Open(_) => match self.open(listener) {
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

    fn open(&self, update: ListenerUpdate) -> io::Result<Rc<WorkerListener>> {
        let SocketUpdate::Open(socket) = update.socket else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let slot = HcmSlot::new(update.hcm);
        let drain = Drain::new();
        drain.set(self.phase.get());
        let terminal =
            HttpTerminal { slot: slot.clone(), directory: self.directory.clone(), drain: drain.clone() };
        let stats = ListenerStats::new(&self.store, &update.stat_name, self.index);
        let listener = Listener::start(update.name, socket, update.options, stats, Rc::new(terminal))?;
        Ok(Rc::new(WorkerListener { listener, slot, drain }))
    }

    /// A listener goes: it stops accepting, its idle connections close now, the others with their
    /// requests, and what is left after `drain_time` at once.
    async fn retire(self: Rc<Self>, listener: Rc<WorkerListener>, drain_time: Duration) {
        self.draining.borrow_mut().push(listener.clone());
        // Each worker has one: the first one's counts for all.
        let draining = self.manager.total_listeners_draining();
        let counted = (self.index == 0).then(|| draining.hold());
        listener.listener.stop().await;
        listener.drain.set(DrainPhase::CloseIdle);
        let gone = async {
            while listener.listener.connections() > 0 {
                tokio::time::sleep(POLL).await;
            }
        };
        if tokio::time::timeout(drain_time, gone).await.is_err() {
            listener.drain.set(DrainPhase::CloseAll);
        }
        drop(counted);
        self.draining.borrow_mut().retain(|other| !Rc::ptr_eq(other, &listener));
    }

    /// Stops accepting on the listeners that `which` names; their connections go on
    /// (`/drain_listeners`).
    pub(crate) fn stop_listeners(&self, which: &[Arc<str>]) {
        for listener in self.listeners.borrow().iter().filter(|l| which.contains(l.listener.name())) {
            let listener = listener.listener.clone();
            tokio::task::spawn_local(async move { listener.stop().await });
        }
    }

    /// The process ends: as [`Self::retire`], for all, with the end of patience left to the caller.
    pub(crate) fn begin_shutdown(self: &Rc<Self>) {
        for listener in self.listeners.borrow().iter().cloned() {
            let worker = self.clone();
            worker.stopping.set(worker.stopping.get() + 1);
            tokio::task::spawn_local(async move {
                listener.listener.stop().await;
                listener.drain.set(DrainPhase::CloseIdle);
                worker.stopping.set(worker.stopping.get() - 1);
            });
        }
    }

    /// Every response announces the close, or no longer does (`/healthcheck/fail|ok`).
    pub(crate) fn set_phase(&self, phase: DrainPhase) {
        self.phase.set(phase);
        self.listeners.borrow().iter().for_each(|listener| listener.drain.set(phase));
    }

    /// Closes every connection now.
    pub(crate) fn close_all(&self) {
        self.each(|listener| listener.drain.set(DrainPhase::CloseAll));
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

/// The HTTP connection manager behind a listener.
struct HttpTerminal {
    slot: Rc<HcmSlot>,
    directory: Rc<Directory>,
    drain: Rc<Drain>,
}

impl Terminal for HttpTerminal {
    fn serve(&self, connection: Connection) -> Serving {
        let conn = ServerConn::new(connection.io, self.slot.codec_options());
        Box::pin(tidegate_http::serve(
            conn,
            connection.info,
            self.slot.clone(),
            self.directory.clone(),
            self.drain.clone(),
        ))
    }
}

/// How often a draining listener looks whether its connections are gone.
const POLL: Duration = Duration::from_millis(20);
