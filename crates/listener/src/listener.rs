//! One listener on one worker.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate_config::ListenerConfig;
use tidegate_filter::{AccessLog, ListenerFilterFactory};
use tidegate_net::listen::{Acceptor, ListenSocket};
use tidegate_quic::Endpoint;
use tidegate_types::overload::Overload;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::{Chains, ConnectionLimit, ListenerStats, accept, quic};

/// What may change while the socket stays.
#[derive(Clone)]
pub struct ListenerOptions {
    /// `per_connection_buffer_limit_bytes`.
    pub buffer_limit: u32,
    /// Most connections accepted before the worker's other tasks get a turn.
    pub accept_burst: u32,
    /// The process-wide limit; `None`: this listener ignores it.
    pub limit: Option<Arc<ConnectionLimit>>,
    /// The listener's own limit, for all workers together.
    pub own_limit: Arc<ConnectionLimit>,
    /// `access_log`: a line at each connection's end.
    pub access_logs: Vec<Arc<dyn AccessLog>>,
    /// `listener_filters`, in order.
    pub filters: Vec<Arc<dyn ListenerFilterFactory>>,
    /// `listener_filters_timeout`: how long all of them may take together.
    pub filters_timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`: serve what they could not make sense of, instead of closing it.
    pub continue_on_filters_timeout: bool,
    /// `crypto_handshake_timeout`: how long a QUIC handshake may take.
    pub quic_handshake_timeout: Duration,
}

impl ListenerOptions {
    /// For a listener that is not configured: no limits, no filters, no logs.
    pub fn plain() -> Self {
        Self {
            buffer_limit: 1024 * 1024,
            accept_burst: DEFAULT_BURST,
            limit: None,
            own_limit: ConnectionLimit::new(None),
            access_logs: Vec::new(),
            filters: Vec::new(),
            filters_timeout: None,
            continue_on_filters_timeout: false,
            quic_handshake_timeout: QUIC_HANDSHAKE,
        }
    }

    /// The options that `config` asks for.
    pub fn new(
        config: &ListenerConfig,
        limit: &Arc<ConnectionLimit>,
        own_limit: Arc<ConnectionLimit>,
        access_logs: Vec<Arc<dyn AccessLog>>,
        filters: Vec<Arc<dyn ListenerFilterFactory>>,
    ) -> Self {
        let udp = config.udp.as_deref();
        let of_tcp = config.max_connections_to_accept_per_socket_event.unwrap_or(DEFAULT_BURST);
        Self {
            buffer_limit: config.per_connection_buffer_limit_bytes,
            accept_burst: udp.map_or(of_tcp, |udp| udp.max_sessions_per_event_loop),
            limit: (!config.ignore_global_conn_limit).then(|| limit.clone()),
            own_limit,
            access_logs,
            filters,
            filters_timeout: config.listener_filters_timeout,
            continue_on_filters_timeout: config.continue_on_listener_filters_timeout,
            quic_handshake_timeout: udp.map_or(QUIC_HANDSHAKE, |udp| udp.crypto_handshake_timeout),
        }
    }
}

/// Stops a flood of connections from starving the requests of those that are open. Envoy has no bound.
const DEFAULT_BURST: u32 = 64;

/// Envoy's default.
const QUIC_HANDSHAKE: Duration = Duration::from_secs(20);

/// A listener on its worker: accepts until stopped; its connections live on after that.
pub struct Listener {
    name: Arc<str>,
    chains: RefCell<Rc<Chains>>,
    stats: ListenerStats,
    options: RefCell<Rc<ListenerOptions>>,
    connections: Cell<usize>,
    stopping: Notify,
    overload: Rc<Overload>,
    overload_changed: Notify,
    accepting: RefCell<Option<JoinHandle<()>>>,
    /// The UDP socket, if it speaks QUIC.
    endpoint: Option<Endpoint>,
    /// A successor has it.
    gave_endpoint: Cell<bool>,
}

impl Listener {
    /// Starts accepting on `socket` with a local task of the calling worker.
    ///
    /// # Errors
    /// When the socket cannot be registered with the worker's runtime.
    pub fn start(
        name: Arc<str>,
        socket: ListenSocket,
        options: ListenerOptions,
        stats: ListenerStats,
        chains: Rc<Chains>,
        overload: Rc<Overload>,
    ) -> io::Result<Rc<Self>> {
        let acceptor = Acceptor::new(socket)?;
        let listener = Self::new(name, options, stats, chains, overload, None);
        let task = tokio::task::spawn_local(accept::run(listener.clone(), acceptor));
        *listener.accepting.borrow_mut() = Some(task);
        Ok(listener)
    }

    /// Starts accepting QUIC connections at `endpoint` with a local task of the calling worker.
    pub fn start_quic(
        name: Arc<str>,
        endpoint: Endpoint,
        options: ListenerOptions,
        stats: ListenerStats,
        chains: Rc<Chains>,
        overload: Rc<Overload>,
    ) -> Rc<Self> {
        let listener = Self::new(name, options, stats, chains, overload, Some(endpoint.clone()));
        let task = tokio::task::spawn_local(quic::run(listener.clone(), endpoint));
        *listener.accepting.borrow_mut() = Some(task);
        listener
    }

    fn new(
        name: Arc<str>,
        options: ListenerOptions,
        stats: ListenerStats,
        chains: Rc<Chains>,
        overload: Rc<Overload>,
        endpoint: Option<Endpoint>,
    ) -> Rc<Self> {
        Rc::new(Self {
            name,
            chains: RefCell::new(chains),
            stats,
            options: RefCell::new(Rc::new(options)),
            connections: Cell::new(0),
            stopping: Notify::new(),
            overload,
            overload_changed: Notify::new(),
            accepting: RefCell::default(),
            endpoint,
            gave_endpoint: Cell::new(false),
        })
    }

    /// The listener's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Open connections on this worker.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Stops accepting, if it has not stopped yet, and gives the UDP socket to a successor. Open connections go on.
    pub fn give_endpoint(&self) -> Option<Endpoint> {
        let endpoint = self.endpoint.clone()?;
        if let Some(accepting) = self.accepting.borrow_mut().take() {
            // Not to be polled again: the endpoint knows one acceptor.
            accepting.abort();
        }
        self.gave_endpoint.set(true);
        endpoint.reopen();
        Some(endpoint)
    }

    /// The UDP socket, if it speaks QUIC.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref()
    }

    pub(crate) fn gave_endpoint(&self) -> bool {
        self.gave_endpoint.get()
    }

    pub(crate) fn is_quic(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Applies to the connections accepted from now on.
    pub fn set_options(&self, options: ListenerOptions) {
        *self.options.borrow_mut() = Rc::new(options);
    }

    /// Chooses among `chains` for the connections accepted from now on; others stay with theirs.
    pub fn set_chains(&self, chains: Rc<Chains>) {
        *self.chains.borrow_mut() = chains;
    }

    /// Stops accepting: connections that the kernel has already completed are still taken, since closing
    /// their socket would reset them; then the socket is closed. Open connections go on, those of QUIC on the socket
    /// that they share, which is closed with the last one. Returns once nothing more is accepted.
    pub async fn stop(&self) {
        self.stopping.notify_one();
        let task = self.accepting.borrow_mut().take();
        if let Some(task) = task {
            // An accept loop that panicked has dropped its socket too.
            let _ = task.await;
        }
    }

    /// The worker's [`Overload`] says something else now.
    pub fn overload_changed(&self) {
        self.overload_changed.notify_one();
    }

    pub(crate) fn overload(&self) -> &Overload {
        &self.overload
    }

    /// Ready when [`Listener::overload_changed`] was called.
    pub(crate) fn watch_overload(&self) -> &Notify {
        &self.overload_changed
    }

    pub(crate) fn stats(&self) -> &ListenerStats {
        &self.stats
    }

    pub(crate) fn chains(&self) -> Rc<Chains> {
        self.chains.borrow().clone()
    }

    pub(crate) fn options(&self) -> Rc<ListenerOptions> {
        self.options.borrow().clone()
    }

    pub(crate) fn stopping(&self) -> &Notify {
        &self.stopping
    }

    pub(crate) fn count_connection(&self, change: isize) {
        self.connections.set(self.connections.get().saturating_add_signed(change));
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
