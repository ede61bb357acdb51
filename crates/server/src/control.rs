//! The control plane: everything that the main thread knows, and the publishing of configurations.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tidegate_cluster::{ClusterShared, Peers};
use tidegate_config::ListenerConfig;
use tidegate_filter::Registry;
use tidegate_http::DrainPhase;
use tidegate_listener::{ConnectionLimit, ListenerOptions};
use tidegate_stats::Store;
use tidegate_types::Address;
use tidegate_worker::{Mailboxes, WorkerLost};
use tokio::sync::Notify;

use crate::attendance::Attendance;
use crate::bind::{Bound, UdpSockets};
use crate::build::Builder;
use crate::cli::ServeOptions;
use crate::logging::Log;
use crate::plan::{ClusterPlan, ListenerPlan, Place, Step};
use crate::reload::Trigger;
use crate::runtime::RuntimeLoader;
use crate::snapshot::{ListenerSnapshot, Snapshot, Source};
use crate::stats::ControlStats;
use crate::workers::{ListenerUpdate, SocketUpdate, WorkerState, WorkerUpdate};

/// The running server, on the main thread.
pub(crate) struct Control {
    pub(crate) options: ServeOptions,
    pub(crate) source: Source,
    pub(crate) log: Log,
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) runtime: RuntimeLoader,
    pub(crate) stats: ControlStats,
    pub(crate) limit: Arc<ConnectionLimit>,
    pub(crate) workers: Mailboxes<WorkerState>,
    pub(crate) attendance: Attendance,
    pub(crate) started: Instant,
    /// Somebody asked the process to end (`/quitquitquit`).
    pub(crate) quit: Notify,
    /// Another configuration serves.
    pub(crate) reloaded: Notify,
    /// Clusters that files brought and that are not ready yet, by name.
    pub(crate) warming: RefCell<HashMap<Arc<str>, Arc<ClusterShared>>>,
    /// One reload at a time, and one update.
    pub(crate) reloading: tokio::sync::Mutex<()>,
    /// One waits for it, beside the one that runs.
    pub(crate) reload_waits: Cell<Option<Trigger>>,
    pub(crate) last_failure: RefCell<Option<ReloadFailure>>,
    pub(crate) admin_address: RefCell<Option<Address>>,
    snapshot: RefCell<Arc<Snapshot>>,
    bound: RefCell<HashMap<String, Address>>,
    pub(crate) udp_sockets: UdpSockets,
    /// Each listener's own limit of connections, which outlives what may change of it in place.
    own_limits: RefCell<HashMap<String, Arc<ConnectionLimit>>>,
    stage: Cell<Stage>,
    health: Cell<Health>,
    /// Which listeners a drain was begun of.
    drained: Cell<Option<DrainScope>>,
}

/// How far the process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    PreInitializing,
    Initializing,
    Live,
    /// It drains; no other configuration is served any more.
    Ending,
}

/// What the operator wants health checks to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Pass,
    /// `/healthcheck/fail`, or the process ends.
    Fail,
}

/// What the server says about itself (`/server_info`, `/ready`, `server.state`): Envoy's
/// `envoy.admin.v3.ServerInfo.State`, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Live = 0,
    Draining = 1,
    PreInitializing = 2,
    Initializing = 3,
}

impl State {
    /// As `/ready` and `/server_info` print it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }
}

/// Which listeners `/drain_listeners` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DrainScope {
    /// Those with `traffic_direction: INBOUND`.
    Inbound,
    /// All.
    All,
}

/// A configuration that was refused.
#[derive(Debug, Clone)]
pub(crate) struct ReloadFailure {
    pub(crate) at: SystemTime,
    pub(crate) details: String,
    /// The text, if it could be read: not to be tried again by itself.
    pub(crate) text: Option<Arc<str>>,
}

/// What [`Control::new`] is made of.
pub(crate) struct Parts {
    pub(crate) options: ServeOptions,
    pub(crate) source: Source,
    pub(crate) log: Log,
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) runtime: RuntimeLoader,
    pub(crate) workers: Mailboxes<WorkerState>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) started: Instant,
    pub(crate) snapshot: Arc<Snapshot>,
}

impl Control {
    pub(crate) fn new(parts: Parts) -> Self {
        let stats = ControlStats::new(&parts.store);
        Self {
            stats,
            limit: ConnectionLimit::new(parts.snapshot.base.bootstrap.global_downstream_max_connections),
            options: parts.options,
            source: parts.source,
            log: parts.log,
            registry: parts.registry,
            store: parts.store,
            runtime: parts.runtime,
            workers: parts.workers,
            attendance: Attendance::new(parts.peers),
            started: parts.started,
            quit: Notify::new(),
            reloaded: Notify::new(),
            warming: RefCell::default(),
            reloading: tokio::sync::Mutex::default(),
            reload_waits: Cell::default(),
            last_failure: RefCell::default(),
            admin_address: RefCell::default(),
            snapshot: RefCell::new(parts.snapshot),
            bound: RefCell::default(),
            udp_sockets: UdpSockets::default(),
            own_limits: RefCell::default(),
            stage: Cell::new(Stage::PreInitializing),
            health: Cell::new(Health::Pass),
            drained: Cell::default(),
        }
    }

    /// The configuration that is served.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// The workers' way to hear of hosts.
    pub(crate) fn peers(&self) -> &Arc<Peers> {
        self.attendance.peers()
    }

    pub(crate) fn builder(&self) -> Builder<'_> {
        Builder {
            registry: &self.registry,
            store: &self.store,
            options: &self.options,
            runtime: &self.runtime,
        }
    }

    pub(crate) fn state(&self) -> State {
        match (self.health.get(), self.stage.get()) {
            (Health::Fail, _) => State::Draining,
            (Health::Pass, Stage::PreInitializing) => State::PreInitializing,
            (Health::Pass, Stage::Initializing) => State::Initializing,
            (Health::Pass, Stage::Live | Stage::Ending) => State::Live,
        }
    }

    /// Where a listener listens, port 0 replaced.
    pub(crate) fn bound_address(&self, listener: &str) -> Option<Address> {
        self.bound.borrow().get(listener).cloned()
    }

    /// Where all listening sockets are.
    pub(crate) fn held_places(&self) -> Vec<Place> {
        let bound = self.bound.borrow();
        let snapshot = self.snapshot();
        let listeners = snapshot.listeners.iter().map(|listener| &listener.config);
        let place = |config: &Arc<ListenerConfig>| {
            bound
                .get(&config.name)
                .map(|address| Place { address: address.clone(), udp: config.udp.is_some() })
        };
        listeners.filter_map(place).collect()
    }

    /// Makes `snapshot` the configuration of the process; returns when every worker has applied it.
    ///
    /// # Errors
    /// A worker that did not answer or could not register a socket. The rest is applied.
    pub(crate) async fn publish(
        &self,
        snapshot: Arc<Snapshot>,
        clusters: ClusterPlan,
        plan: &ListenerPlan,
        sockets: HashMap<String, Bound>,
    ) -> Result<(), String> {
        self.limit.set(snapshot.base.bootstrap.global_downstream_max_connections);
        self.remember_addresses(&snapshot, &sockets);
        self.set_own_limits(&snapshot, plan);
        self.runtime.serves(&snapshot.base.bootstrap);
        self.snapshot.replace(snapshot.clone());
        let mut sockets: HashMap<String, std::vec::IntoIter<SocketUpdate>> =
            sockets.into_iter().map(|(name, bound)| (name, bound.sockets.into_iter())).collect();
        let clusters = Arc::new(clusters);
        let mut answers = Vec::new();
        for mailbox in self.workers.iter() {
            let update = self.worker_update(&snapshot, &clusters, plan, &mut sockets);
            let mailbox = mailbox.clone();
            // All workers at once: each answer is awaited after all were asked.
            answers.push(tokio::task::spawn_local(async move {
                mailbox.ask(move |state| state.apply(update)).await
            }));
        }
        let mut failed = Vec::new();
        for (worker, answer) in answers.into_iter().enumerate() {
            match answer.await.unwrap_or(Err(WorkerLost(worker))) {
                Ok(Ok(())) => self.stats.listeners.listener_create_success().add(plan.opened()),
                Ok(Err(error)) => failed.push(format!("worker {worker}: {error}")),
                Err(lost) => failed.push(lost.to_string()),
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        self.stats.listeners.listener_create_failure().inc();
        Err(failed.join("; "))
    }

    fn worker_update(
        &self,
        snapshot: &Snapshot,
        clusters: &Arc<ClusterPlan>,
        plan: &ListenerPlan,
        sockets: &mut HashMap<String, std::vec::IntoIter<SocketUpdate>>,
    ) -> WorkerUpdate {
        let own_limits = self.own_limits.borrow();
        let listener = |(listener, step): (&ListenerSnapshot, _)| {
            let config = &listener.config;
            let own_limit = own_limits.get(&config.name)?.clone();
            let socket = match step {
                Step::Open(..) => sockets.get_mut(&config.name)?.next()?,
                _ => SocketUpdate::Keep,
            };
            let update = ListenerUpdate {
                name: config.name.as_str().into(),
                stat_name: ListenerSnapshot::stat_name(config).into(),
                options: ListenerOptions::new(
                    config,
                    &self.limit,
                    own_limit,
                    listener.logs.clone(),
                    listener.filters.all.clone(),
                ),
                snapshot: listener.clone(),
            };
            Some((update, socket))
        };
        WorkerUpdate {
            workers: self.workers.clone(),
            clusters: clusters.clone(),
            listeners: snapshot
                .listeners
                .iter()
                .zip(plan.steps.iter().copied())
                .filter_map(listener)
                .collect(),
            drain_time: self.options.drain_time(),
        }
    }

    /// A listener with a new socket counts anew: the connections of the one that it replaces drain apart.
    fn set_own_limits(&self, snapshot: &Snapshot, plan: &ListenerPlan) {
        let mut old = self.own_limits.take();
        let limit = |(listener, step): (&ListenerSnapshot, &Step)| {
            let name = &listener.config.name;
            let kept = old.remove(name).filter(|_| !matches!(step, Step::Open(..)));
            let limit = kept.unwrap_or_else(|| ConnectionLimit::new(None));
            limit.set(listener.max_connections);
            (name.clone(), limit)
        };
        let new = snapshot.listeners.iter().zip(&plan.steps).map(limit).collect();
        self.own_limits.replace(new);
    }

    fn remember_addresses(&self, snapshot: &Snapshot, sockets: &HashMap<String, Bound>) {
        let mut old = self.bound.take();
        let address = |listener: &ListenerSnapshot| {
            let name = &listener.config.name;
            let kept = old.remove(name).unwrap_or_else(|| listener.config.address.clone());
            (name.clone(), sockets.get(name).map_or(kept, |bound| bound.address.clone()))
        };
        let new = snapshot.listeners.iter().map(address).collect();
        self.bound.replace(new);
        sockets.values().for_each(|bound| self.udp_sockets.hold(bound));
    }

    /// Closes the UDP sockets at addresses where no listener is any more.
    pub(crate) fn release_udp_sockets(&self) {
        let held = self.held_places();
        self.udp_sockets
            .release(|address| held.iter().any(|place| place.udp && place.address == Address::Ip(address)));
    }

    /// How far it has come.
    pub(crate) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// The process has come to `stage`.
    pub(crate) fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        self.show_state();
    }

    fn show_state(&self) {
        let state = self.state();
        self.stats.server.live().set(i64::from(state == State::Live));
        self.stats.server.state().set(state as i64);
    }

    /// A drain of these listeners is to begin: whether none was begun before.
    pub(crate) fn begins_drain(&self, scope: DrainScope) -> bool {
        let begins = self.drained.get() < Some(scope);
        if begins {
            self.drained.set(Some(scope));
        }
        begins
    }

    /// `/healthcheck/fail`, `/healthcheck/ok`, and the end of the process.
    pub(crate) fn set_health(&self, health: Health) {
        self.health.set(health);
        self.show_state();
        self.attendance.set_fails_checks(health == Health::Fail);
        let phase = match health {
            Health::Pass => DrainPhase::Serving,
            Health::Fail => DrainPhase::Announce,
        };
        self.workers.broadcast(move |worker| worker.set_phase(phase));
    }
}
