//! [`Network`]: datagrams between addresses in memory, with scripted loss, delay, order and refusals.
//!
//! Delays run on tokio's clock, so that a test with `start_paused` takes no time; chance comes from a seed, so that a
//! run can be repeated.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use quinn_proto::{ClientConfig, EcnCodepoint};
use tokio::time::Instant;

use crate::conn::alarm::Alarm;
use crate::connect::connect_over;
use crate::link::{Link, Outgoing, Received};
use crate::{Conn, ConnectError, Endpoint, EndpointOptions};

/// What becomes of datagrams on their way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Path {
    /// How long each takes.
    pub delay: Duration,
    /// Up to this much more, by chance; above the time between datagrams it changes their order.
    pub jitter: Duration,
    /// The share that is lost, from 0 to 1.
    pub loss: f64,
    /// The share that comes twice.
    pub doubled: f64,
    /// The share of ECN-capable ones that gets a congestion mark.
    pub marked: f64,
    /// The largest UDP payload in bytes; what is larger is lost.
    pub mtu: usize,
    /// Whether anything passes at all.
    pub passage: Passage,
}

/// Whether datagrams pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// They do.
    Open,
    /// They vanish, and nobody is told.
    BlackHole,
    /// They come back as "port unreachable", which the sender's socket tells as `ECONNREFUSED`.
    Refused,
}

impl Default for Path {
    /// 5 ms each way, nothing lost, the MTU of Ethernet.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss: 0.0,
            doubled: 0.0,
            marked: 0.0,
            mtu: 1472,
            passage: Passage::Open,
        }
    }
}

impl Path {
    /// One that takes `delay` each way.
    pub fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// One on which everything vanishes.
    pub fn black_hole() -> Self {
        Self { passage: Passage::BlackHole, ..Self::default() }
    }

    /// One that refuses.
    pub fn refused() -> Self {
        Self { passage: Passage::Refused, ..Self::default() }
    }
}

/// A datagram that somebody sent, whatever became of it.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// The sender, as the receiver sees it.
    pub from: SocketAddr,
    /// The receiver.
    pub to: SocketAddr,
    /// When it was sent.
    pub at: Instant,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// A network in memory. Clones are the same network.
#[derive(Clone)]
pub struct Network(Rc<Shared>);

struct Shared {
    random: RefCell<fastrand::Rng>,
    path: Cell<Path>,
    paths_from: RefCell<BTreeMap<SocketAddr, Path>>,
    paths_to: RefCell<BTreeMap<SocketAddr, Path>>,
    ports: RefCell<BTreeMap<SocketAddr, Rc<Port>>>,
    /// What addresses look like from outside.
    translated: RefCell<BTreeMap<SocketAddr, SocketAddr>>,
    /// As whom addresses send.
    disguised: RefCell<BTreeMap<SocketAddr, SocketAddr>>,
    seen: RefCell<Option<Vec<Sighting>>>,
    sent: Cell<u64>,
    calls: Cell<u64>,
}

/// One socket.
struct Port {
    address: SocketAddr,
    inbox: RefCell<BinaryHeap<Reverse<Item>>>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
    is_full: Cell<bool>,
    /// Only connected sockets hear of refusals.
    is_connected: bool,
    /// Refusals that the socket has not told yet.
    refusals: Cell<usize>,
}

struct Item {
    at: Instant,
    order: u64,
    from: SocketAddr,
    ecn: Option<EcnCodepoint>,
    data: Vec<u8>,
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Item {}

impl Network {
    /// A network without loss; all chance comes from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(Shared {
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            path: Cell::default(),
            paths_from: RefCell::default(),
            paths_to: RefCell::default(),
            ports: RefCell::default(),
            translated: RefCell::default(),
            disguised: RefCell::default(),
            seen: RefCell::default(),
            sent: Cell::new(0),
            calls: Cell::new(0),
        }))
    }

    /// A server's endpoint at `address`.
    pub fn endpoint(&self, address: SocketAddr, options: EndpointOptions) -> Endpoint {
        Endpoint::over(Box::new(self.link(address, false)), options)
    }

    /// A client's connection from `local` to `remote`. Where nobody is, connections are refused.
    ///
    /// # Errors
    /// As [`connect`](crate::connect).
    pub fn connect(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        config: ClientConfig,
        server_name: &str,
    ) -> Result<Conn, ConnectError> {
        connect_over(Box::new(self.link(local, true)), remote, config, server_name)
    }

    /// How datagrams travel from now on where nothing more special is set.
    pub fn set_path(&self, path: Path) {
        self.0.path.set(path);
    }

    /// How datagrams from this address travel; `None`: as others do.
    pub fn set_path_from(&self, address: SocketAddr, path: Option<Path>) {
        set(&mut self.0.paths_from.borrow_mut(), address, path);
    }

    /// How datagrams to this address travel; `None`: as others do.
    pub fn set_path_to(&self, address: SocketAddr, path: Option<Path>) {
        set(&mut self.0.paths_to.borrow_mut(), address, path);
    }

    /// From now on `inside` is seen as `outside` (a NAT that has bound it anew); what is sent to the address that it had
    /// before is lost.
    pub fn rebind(&self, inside: SocketAddr, outside: SocketAddr) {
        self.0.translated.borrow_mut().insert(inside, outside);
    }

    /// What `inside` sends seems to come from `outside` from now on, where another socket receives: workers that share
    /// an address.
    pub fn disguise(&self, inside: SocketAddr, outside: SocketAddr) {
        self.0.disguised.borrow_mut().insert(inside, outside);
    }

    /// Whether the socket at this address takes nothing more to send.
    pub fn set_full(&self, address: SocketAddr, is_full: bool) {
        if let Some(port) = self.0.ports.borrow().get(&address) {
            port.is_full.set(is_full);
            if let Some(waker) = port.writer.take() {
                waker.wake();
            }
        }
    }

    /// Sends a datagram of the test's own.
    pub fn inject(&self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        self.carry(from, to, None, data);
    }

    /// Keeps every datagram from now on, and gives those that were kept.
    pub fn watch(&self) -> Vec<Sighting> {
        self.0.seen.replace(Some(Vec::new())).unwrap_or_default()
    }

    /// Datagrams sent so far.
    pub fn datagrams(&self) -> u64 {
        self.0.sent.get()
    }

    /// Calls that sent them.
    pub fn calls(&self) -> u64 {
        self.0.calls.get()
    }

    fn link(&self, address: SocketAddr, is_connected: bool) -> MemoryLink {
        let port = Rc::new(Port {
            address,
            inbox: RefCell::default(),
            reader: Cell::default(),
            writer: Cell::default(),
            is_full: Cell::new(false),
            is_connected,
            refusals: Cell::new(0),
        });
        self.0.ports.borrow_mut().insert(address, port.clone());
        MemoryLink { network: self.clone(), port, alarm: RefCell::default() }
    }

    fn carry(&self, from: SocketAddr, to: SocketAddr, ecn: Option<EcnCodepoint>, data: &[u8]) {
        let shared = &self.0;
        let path = shared.path_of(from, to);
        let seen_from = shared.seen_as(from);
        let (order, at) = (shared.sent.get(), Instant::now());
        shared.sent.set(order + 1);
        if let Some(seen) = &mut *shared.seen.borrow_mut() {
            seen.push(Sighting { from: seen_from, to, at, data: data.to_vec() });
        }
        let target = shared.target(to);
        if path.passage == Passage::Refused || (target.is_none() && path.passage == Passage::Open) {
            return shared.refuse(from);
        }
        let Some(target) = target.filter(|_| path.passage == Passage::Open) else { return };
        let mut random = shared.random.borrow_mut();
        if data.len() > path.mtu || random.f64() < path.loss {
            return;
        }
        let is_marked = ecn.is_some() && random.f64() < path.marked;
        let ecn = if is_marked { Some(EcnCodepoint::Ce) } else { ecn };
        let copies = if random.f64() < path.doubled { 2 } else { 1 };
        for _ in 0..copies {
            let at = at + path.delay + path.jitter.mul_f64(random.f64());
            target.put(Item { at, order, from: seen_from, ecn, data: data.to_vec() });
        }
    }
}

fn set(paths: &mut BTreeMap<SocketAddr, Path>, address: SocketAddr, path: Option<Path>) {
    match path {
        Some(path) => drop(paths.insert(address, path)),
        None => drop(paths.remove(&address)),
    }
}

impl Shared {
    fn path_of(&self, from: SocketAddr, to: SocketAddr) -> Path {
        let (by_sender, by_receiver) = (self.paths_from.borrow(), self.paths_to.borrow());
        by_sender.get(&from).or_else(|| by_receiver.get(&to)).copied().unwrap_or_else(|| self.path.get())
    }

    fn seen_as(&self, from: SocketAddr) -> SocketAddr {
        let (translated, disguised) = (self.translated.borrow(), self.disguised.borrow());
        translated.get(&from).or_else(|| disguised.get(&from)).copied().unwrap_or(from)
    }

    /// Who gets what is sent to an address.
    fn target(&self, to: SocketAddr) -> Option<Rc<Port>> {
        let translated = self.translated.borrow();
        let inside = translated.iter().find(|(_, outside)| **outside == to).map(|(inside, _)| *inside);
        if inside.is_none() && translated.contains_key(&to) {
            return None;
        }
        self.ports.borrow().get(&inside.unwrap_or(to)).cloned()
    }

    fn refuse(&self, sender: SocketAddr) {
        if let Some(port) = self.ports.borrow().get(&sender).filter(|port| port.is_connected) {
            port.refusals.set(port.refusals.get() + 1);
            port.wake();
        }
    }
}

impl Port {
    fn put(&self, item: Item) {
        self.inbox.borrow_mut().push(Reverse(item));
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn refusal(&self) -> Option<io::Error> {
        let refusals = self.refusals.get().checked_sub(1)?;
        self.refusals.set(refusals);
        Some(io::Error::from_raw_os_error(ECONNREFUSED))
    }

    /// The next that is there by `now`.
    fn take(&self, now: Instant) -> Option<Item> {
        let mut inbox = self.inbox.borrow_mut();
        let is_there = inbox.peek().is_some_and(|Reverse(item)| item.at <= now);
        if is_there { inbox.pop().map(|Reverse(item)| item) } else { None }
    }
}

/// Linux's number.
const ECONNREFUSED: i32 = 111;
/// Datagrams that one receive brings, as `recvmmsg` does.
const BATCH: usize = 32;

struct MemoryLink {
    network: Network,
    port: Rc<Port>,
    alarm: RefCell<Alarm>,
}

impl Link for MemoryLink {
    fn poll_receive(&self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Received)) -> Poll<io::Result<()>> {
        if let Some(refusal) = self.port.refusal() {
            return Poll::Ready(Err(refusal));
        }
        loop {
            let now = Instant::now();
            let mut count = 0;
            while count < BATCH
                && let Some(item) = self.port.take(now)
            {
                let local_ip = Some(self.port.address.ip());
                let data = BytesMut::from(&item.data[..]);
                sink(Received { remote: item.from, local_ip, ecn: item.ecn, data });
                count += 1;
            }
            if count > 0 {
                return Poll::Ready(Ok(()));
            }
            self.port.reader.set(Some(cx.waker().clone()));
            let next = self.port.inbox.borrow().peek().map(|Reverse(item)| item.at);
            if self.alarm.borrow_mut().poll(cx, next).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn send(&self, outgoing: &Outgoing, data: &[u8]) -> io::Result<()> {
        if self.port.is_full.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if let Some(refusal) = self.port.refusal() {
            return Err(refusal);
        }
        self.network.0.calls.set(self.network.0.calls.get() + 1);
        for datagram in data.chunks(outgoing.segment.unwrap_or(data.len()).max(1)) {
            self.network.carry(self.port.address, outgoing.remote, outgoing.ecn, datagram);
        }
        Ok(())
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.port.is_full.get() {
            return Poll::Ready(());
        }
        self.port.writer.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn poll_error(&self, _: &mut Context<'_>) -> Poll<io::Error> {
        // Whoever reads is told.
        Poll::Pending
    }

    fn forget_errors(&self) {}

    fn local_address(&self) -> SocketAddr {
        self.port.address
    }

    fn segments(&self) -> usize {
        64
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        self.network.0.ports.borrow_mut().remove(&self.port.address);
    }
}
