//! What an endpoint's connections share: the socket, quinn-proto's endpoint, and the places of the connections.
//!
//! A datagram is handled where it arrives ([`Hub::receive`]): it changes its connection's state at once, and the task
//! that owns the connection is woken to look at the outcome; so there is no inbox that could fill up. A server's
//! hub is driven by [`Driver`], a task of its own; a client's by its one connection, until that is dropped.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quinn_proto::{
    ConnectionHandle, ConnectionIdGenerator, DatagramEvent, EndpointConfig, Incoming,
    RandomConnectionIdGenerator, ServerConfig,
};
use tokio::time::Instant;

use crate::conn::alarm::Alarm;
use crate::conn::core::Core;
use crate::link::{Link, Outgoing, Received};
use crate::options::{EndpointOptions, Limits, Reception, Worker};
use crate::stats::EndpointStats;
use crate::{Loss, cid, crypto, versions};

/// Datagrams after which others get their turn: half a millisecond of work. One receive may bring more.
const TURN: usize = 256;

/// The least time between two looks at the lingering connections.
const LINGER_STEP: Duration = Duration::from_millis(20);

/// Called with a datagram of another worker's connection and that worker's index.
pub(crate) type Foreign = Box<dyn Fn(u32, SocketAddr, &[u8])>;

pub(crate) struct Hub {
    pub(crate) link: Box<dyn Link>,
    pub(crate) proto: RefCell<quinn_proto::Endpoint>,
    places: RefCell<Vec<Option<Rc<Core>>>>,
    /// Attempts that nobody has accepted yet.
    pub(crate) attempts: RefCell<VecDeque<Incoming>>,
    pub(crate) acceptor: Cell<Option<Waker>>,
    /// Connections without an owner, until they are drained.
    lingering: RefCell<VecDeque<Rc<Core>>>,
    /// When the first of them has something to do.
    linger_until: Cell<Option<Instant>>,
    /// Owners of connections that wait for room in the socket.
    blocked: RefCell<Vec<Waker>>,
    driver: Cell<Option<Waker>>,
    /// A client's connection receives by itself.
    pub(crate) owned: Cell<bool>,
    pub(crate) handles: Cell<usize>,
    pub(crate) closed: Cell<bool>,
    /// What the system said of a client's socket.
    failure: Cell<Option<i32>>,
    pub(crate) limits: Limits,
    pub(crate) reception: Cell<Reception>,
    pub(crate) on_drop: RefCell<Option<Box<dyn Fn()>>>,
    pub(crate) worker: Worker,
    pub(crate) foreign: RefCell<Option<Foreign>>,
    pub(crate) stats: RefCell<EndpointStats>,
}

impl Hub {
    /// A server's.
    pub(crate) fn new(link: Box<dyn Link>, options: EndpointOptions) -> Rc<Self> {
        let worker = options.worker;
        Self::with_ids(link, options, move || Box::new(cid::WorkerIds(worker)))
    }

    /// That of one client's connection. All that its socket receives is for it, so that its ids need no length.
    pub(crate) fn of_client(link: Box<dyn Link>) -> Rc<Self> {
        Self::with_ids(link, EndpointOptions::default(), || Box::new(RandomConnectionIdGenerator::new(0)))
    }

    fn with_ids(
        link: Box<dyn Link>,
        options: EndpointOptions,
        ids: impl Fn() -> Box<dyn ConnectionIdGenerator> + Send + Sync + 'static,
    ) -> Rc<Self> {
        let EndpointOptions { server, worker, limits, reset_key } = options;
        let mut config = match reset_key {
            Some(key) => {
                EndpointConfig::new(Arc::new(aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key)))
            }
            None => EndpointConfig::default(),
        };
        config.cid_generator(ids);
        config.supported_versions(vec![crypto::VERSION]);
        let may_fragment = link.may_fragment();
        let server = server.map(|server| bounded(&server, &limits));
        let proto = quinn_proto::Endpoint::new(Arc::new(config), server, !may_fragment, None);
        Rc::new(Self {
            link,
            proto: RefCell::new(proto),
            places: RefCell::default(),
            attempts: RefCell::default(),
            acceptor: Cell::default(),
            lingering: RefCell::default(),
            linger_until: Cell::new(None),
            blocked: RefCell::default(),
            driver: Cell::default(),
            owned: Cell::new(false),
            handles: Cell::new(0),
            closed: Cell::new(false),
            failure: Cell::new(None),
            limits,
            reception: Cell::default(),
            on_drop: RefCell::default(),
            worker,
            foreign: RefCell::default(),
            stats: RefCell::default(),
        })
    }

    /// What new connections get from now on.
    pub(crate) fn set_server_config(&self, server: Option<Arc<ServerConfig>>) {
        let server = server.map(|server| bounded(&server, &self.limits));
        self.proto.borrow_mut().set_server_config(server);
    }

    /// Gives a new connection its place.
    pub(crate) fn admit(&self, handle: ConnectionHandle, proto: quinn_proto::Connection) -> Rc<Core> {
        let core = Rc::new(Core::new(handle, proto));
        let mut places = self.places.borrow_mut();
        if places.len() <= handle.0 {
            places.resize_with(handle.0 + 1, || None);
        }
        places[handle.0] = Some(core.clone());
        let mut stats = self.stats.borrow_mut();
        stats.connections += 1;
        stats.half_open += 1;
        core
    }

    /// The connection is drained: its handle belongs to nobody now.
    pub(crate) fn vacate(&self, handle: ConnectionHandle) {
        if let Some(place) = self.places.borrow_mut().get_mut(handle.0)
            && place.take().is_some()
        {
            self.stats.borrow_mut().connections -= 1;
        }
        self.wake_driver();
    }

    /// A connection whose owner has gone, closed already. It lingers until it is drained.
    pub(crate) fn adopt(&self, core: Rc<Core>) {
        self.owned.set(false);
        let due = self.linger_until.get().into_iter().chain(core.deadline()).min();
        self.linger_until.set(due);
        self.lingering.borrow_mut().push_back(core);
        loop {
            let mut lingering = self.lingering.borrow_mut();
            let Some(oldest) = (lingering.len() > self.limits.lingering).then(|| lingering.pop_front())
            else {
                break;
            };
            drop(lingering);
            if let Some(oldest) = oldest {
                oldest.forget(self);
            }
        }
        self.wake_driver();
    }

    pub(crate) fn wake_driver(&self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }

    pub(crate) fn wake_acceptor(&self) {
        if let Some(waker) = self.acceptor.take() {
            waker.wake();
        }
    }

    /// Handshakes that cost memory now.
    pub(crate) fn half_open(&self) -> usize {
        self.stats.borrow().half_open + self.attempts.borrow().len()
    }

    /// What the system said of a client's socket.
    pub(crate) fn failure(&self) -> Option<Loss> {
        self.failure.get().map(|errno| Loss::Socket { errno })
    }

    /// Handles what has come; ready when there may be more.
    pub(crate) fn receive(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut handled = 0;
        let connections = self.stats.borrow().connections.max(1);
        let turn = self.reception.get().for_each_connection.saturating_mul(connections).min(TURN);
        while handled < turn {
            let now = Instant::now();
            let polled = self.link.poll_receive(cx, &mut |received| {
                handled += 1;
                self.handle(now, received);
            });
            match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.stats.borrow_mut().receives += 1,
                Poll::Ready(Err(error)) => {
                    // Errors come one by one; they must not keep the worker busy either.
                    handled += 1;
                    self.on_receive_error(&error);
                }
            }
        }
        Poll::Ready(())
    }

    /// Looks for errors of a client's socket while it has heard nothing from the server.
    pub(crate) fn watch_errors(&self, cx: &mut Context<'_>) {
        while let Poll::Ready(error) = self.link.poll_error(cx) {
            self.failure.set(error.raw_os_error());
            tracing::debug!(%error, "waiting for datagrams");
            if self.failure.get().is_some() {
                break;
            }
        }
    }

    fn on_receive_error(&self, error: &io::Error) {
        // Only a connected socket says something of a peer; on a server's, anybody could forge it.
        if self.owned.get() && error.kind() == io::ErrorKind::ConnectionRefused {
            self.failure.set(error.raw_os_error());
        }
        tracing::debug!(%error, "receiving datagrams");
    }

    /// One datagram.
    pub(crate) fn handle(self: &Rc<Self>, now: Instant, received: Received) {
        let Received { remote, local_ip, ecn, data } = received;
        {
            let mut stats = self.stats.borrow_mut();
            stats.datagrams_received += 1;
            stats.bytes_received += data.len() as u64;
        }
        if self.is_foreign(remote, &data) {
            return;
        }
        let reception = self.reception.get();
        if !reception.hears || data.len() > reception.longest {
            return self.note_dropped();
        }
        let size = data.len();
        let refusal = reception.speaks_no_version.then(|| versions::none_for(&data)).flatten();
        let mut answer = Vec::new();
        let (event, is_kept) = {
            let mut proto = self.proto.borrow_mut();
            let before = proto.incoming_buffer_bytes();
            let event = proto.handle(now.into_std(), remote, local_ip, ecn, data, &mut answer);
            (event, proto.incoming_buffer_bytes() > before)
        };
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let core = self.places.borrow().get(handle.0).cloned().flatten();
                if let Some(core) = core {
                    core.handle(self, now, event, size);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => match refusal {
                None => self.on_attempt(incoming),
                Some(refusal) => {
                    self.proto.borrow_mut().ignore(incoming);
                    self.stats.borrow_mut().answers += 1;
                    let _ = self.send(&Outgoing { remote, local_ip, ecn: None, segment: None }, &refusal);
                }
            },
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit, &answer),
            // More of an attempt that nobody has accepted yet.
            None if is_kept => {}
            None => self.note_dropped(),
        }
    }

    fn note_dropped(&self) {
        self.stats.borrow_mut().dropped += 1;
        if let Some(hook) = &*self.on_drop.borrow() {
            hook();
        }
    }

    /// Hands the datagram over if it is another worker's. The same holds for packets that begin a connection, whose
    /// ids are of the client's choice: a ClientHello may take several datagrams, and one worker must get all of them.
    fn is_foreign(&self, remote: SocketAddr, data: &[u8]) -> bool {
        let foreign = self.foreign.borrow();
        let Some(hook) = foreign.as_ref() else { return false };
        match cid::worker_of(data, self.worker.count) {
            Some(worker) if worker != self.worker.index => {
                self.stats.borrow_mut().handed_over += 1;
                hook(worker, remote, data);
                true
            }
            _ => false,
        }
    }

    fn on_attempt(&self, incoming: Incoming) {
        let half_open = self.half_open();
        if self.closed.get() || half_open >= self.limits.max_half_open {
            return self.refuse(incoming);
        }
        if half_open >= self.limits.retry_above && !incoming.remote_address_validated() {
            return self.retry(incoming);
        }
        let mut attempts = self.attempts.borrow_mut();
        if attempts.len() >= self.limits.backlog {
            self.stats.borrow_mut().overflowed += 1;
            self.proto.borrow_mut().ignore(incoming);
            return;
        }
        attempts.push_back(incoming);
        drop(attempts);
        self.wake_acceptor();
    }

    pub(crate) fn refuse(&self, incoming: Incoming) {
        let mut answer = Vec::new();
        let transmit = self.proto.borrow_mut().refuse(incoming, &mut answer);
        self.stats.borrow_mut().refused += 1;
        self.answer(&transmit, &answer);
    }

    /// Demands that the client proves its address; one that has done so is refused.
    pub(crate) fn retry(&self, incoming: Incoming) {
        let mut answer = Vec::new();
        let retried = self.proto.borrow_mut().retry(incoming, &mut answer);
        match retried {
            Ok(transmit) => {
                self.stats.borrow_mut().retries += 1;
                self.answer(&transmit, &answer);
            }
            Err(error) => self.refuse(error.into_incoming()),
        }
    }

    /// Sends what no connection sends. Nobody waits for it: where the socket is full it is as good as lost.
    pub(crate) fn answer(&self, transmit: &quinn_proto::Transmit, data: &[u8]) {
        self.stats.borrow_mut().answers += 1;
        let _ = self.send(&Outgoing::new(transmit), data.get(..transmit.size).unwrap_or(data));
    }

    /// How many datagrams one call may carry.
    pub(crate) fn segments(&self) -> usize {
        if self.reception.get().batches { self.link.segments() } else { 1 }
    }

    /// Sends, or says that the socket is full. Any other error is a loss on the way, as far as the protocol is
    /// concerned; a client's connection looks at [`Hub::failure`].
    pub(crate) fn send(&self, outgoing: &Outgoing, data: &[u8]) -> Result<(), Full> {
        let sent = self.link.send(outgoing, data);
        let mut stats = self.stats.borrow_mut();
        match sent {
            Ok(()) => {
                stats.sends += 1;
                stats.datagrams_sent += outgoing.datagrams(data.len());
                stats.bytes_sent += data.len() as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stats.blocked += 1;
                return Err(Full);
            }
            // A probe of the path's MTU was too large for it, which is what it wanted to know.
            Err(error) if error.raw_os_error() == Some(libc_emsgsize()) => {}
            Err(error) => {
                stats.send_errors += 1;
                if self.owned.get() {
                    self.failure.set(error.raw_os_error());
                }
                tracing::debug!(%error, remote = %outgoing.remote, "sending datagrams");
            }
        }
        Ok(())
    }

    /// The task is woken when the socket has room again.
    pub(crate) fn wait_for_room(&self, cx: &mut Context<'_>) {
        if self.owned.get() {
            if self.link.poll_writable(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            return;
        }
        let mut blocked = self.blocked.borrow_mut();
        if !blocked.iter().any(|waker| waker.will_wake(cx.waker())) {
            blocked.push(cx.waker().clone());
        }
        drop(blocked);
        self.wake_driver();
    }

    /// Drives those of the lingering connections whose time has come. Whatever a peer sends them they answer where
    /// it arrives ([`Core::handle`]), so that nothing has to look at all of them for that.
    fn drive_lingering(&self, now: Instant) {
        let cores = std::mem::take(&mut *self.lingering.borrow_mut());
        let mut due: Option<Instant> = None;
        let mut staying = VecDeque::with_capacity(cores.len());
        for core in cores {
            if core.deadline().is_some_and(|deadline| deadline <= now) {
                core.advance(self, now);
            }
            if core.is_drained() {
                continue;
            }
            due = due.into_iter().chain(core.deadline()).min();
            staying.push_back(core);
        }
        *self.lingering.borrow_mut() = staying;
        // Nobody waits for the end of any of them: many are looked at together.
        self.linger_until.set(due.map(|due| due.max(now + LINGER_STEP)));
    }
}

/// The same configuration, with bounds on what attempts that nobody has accepted yet may bring along: a ClientHello of
/// several datagrams and some early data, since they are accepted as soon as the acceptor's task runs.
fn bounded(server: &ServerConfig, limits: &Limits) -> Arc<ServerConfig> {
    const EACH: u64 = 64 * 1024;
    const ALL: u64 = 16 * 1024 * 1024;
    let mut server = server.clone();
    server
        .max_incoming(limits.backlog.saturating_add(1))
        .incoming_buffer_size(EACH)
        .incoming_buffer_size_total(ALL);
    Arc::new(server)
}

/// `EMSGSIZE` on Linux; this crate has no business with descriptors otherwise.
fn libc_emsgsize() -> i32 {
    90
}

/// The socket takes nothing now.
#[derive(Debug)]
pub(crate) struct Full;

/// The task of a hub: receives for all, drives connections without an owner, and ends with the last of them.
pub(crate) struct Driver {
    pub(crate) hub: Rc<Hub>,
    pub(crate) alarm: Alarm,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let hub = self.hub.clone();
        hub.driver.set(Some(cx.waker().clone()));
        if hub.owned.get() {
            return Poll::Pending;
        }
        if hub.receive(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        while self.alarm.poll(cx, hub.linger_until.get()).is_ready() {
            hub.drive_lingering(Instant::now());
        }
        if !hub.blocked.borrow().is_empty() && hub.link.poll_writable(cx).is_ready() {
            for waker in hub.blocked.take() {
                waker.wake();
            }
        }
        let is_over = hub.handles.get() == 0 && hub.places.borrow().iter().all(Option::is_none);
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }
}
