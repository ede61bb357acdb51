//! A scripted upstream: records exact bytes, answers what the test says, when it says it.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::census::Census;
use crate::message::Request;
use crate::wait;
use crate::wire::Wire;

/// An answer with a two-byte body.
pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An upstream on a free port of 127.0.0.1. Its threads end with the connections.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Mutex<Vec<Request>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    census: Census,
}

/// The upstream's side of one connection, in a script.
#[derive(Debug)]
pub struct Peer {
    /// The connection.
    pub wire: Wire,
    /// Which one, counted from 0.
    pub number: usize,
    served: usize,
    seen: Arc<Seen>,
}

impl Peer {
    /// The next whole request, recorded; `None` when the proxy closed.
    pub fn request(&mut self) -> Option<Request> {
        let mut request = loop {
            // A pooled connection may idle for longer than a test's patience with a message.
            match self.wire.request() {
                Some(request) => break request,
                None if self.wire.is_quiet_for(Duration::ZERO) => {}
                None => return None,
            }
        };
        request.connection = self.number;
        self.served += 1;
        self.seen.requests.lock().unwrap().push(request.clone());
        Some(request)
    }

    /// Counts the connection in a census that several upstreams share.
    pub fn join(&self, census: &Census) {
        self.wire.join(census);
    }

    /// How many requests came on this connection.
    pub fn served(&self) -> usize {
        self.served
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.wire.send(bytes);
        self
    }
}

impl Origin {
    /// Runs `script` on a thread for each connection; the connection is closed when it returns.
    pub fn script(script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let (script, shared) = (Arc::new(script), seen.clone());
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let _ = stream.set_nodelay(true);
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                let socket = Arc::new(stream.into());
                shared.census.enter(&socket);
                let peer = Peer { wire: Wire::shared(socket), number, served: 0, seen: shared.clone() };
                let (script, seen) = (script.clone(), shared.clone());
                std::thread::spawn(move || {
                    script(peer);
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, seen }
    }

    /// Answers each request with what `answer` says; keeps connections.
    pub fn answering<T: AsRef<[u8]>>(answer: impl Fn(&Request) -> T + Send + Sync + 'static) -> Self {
        Self::script(move |mut peer| {
            while let Some(request) = peer.request() {
                peer.send(answer(&request));
            }
        })
    }

    /// Answers 200 with a two-byte body.
    pub fn ok() -> Self {
        Self::answering(|_| OK)
    }

    /// Answers every request with these bytes.
    pub fn saying(answer: &'static str) -> Self {
        Self::answering(move |_| answer)
    }

    /// Answers 200 with `name` as the body.
    pub fn named(name: &'static str) -> Self {
        Self::answering(move |_| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len()))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far, whole ones, in the order of their ends.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// The only request so far.
    ///
    /// # Panics
    /// When there is none or more than one.
    #[track_caller]
    pub fn request(&self) -> Request {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.seen.accepted.load(Ordering::SeqCst)
    }

    /// Connections whose script runs.
    pub fn open_connections(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// Its connections, counted at each accept.
    pub fn census(&self) -> &Census {
        &self.seen.census
    }

    /// Waits for `count` whole requests.
    ///
    /// # Panics
    /// When they do not come.
    #[track_caller]
    pub fn await_requests(&self, count: usize) -> Vec<Request> {
        wait::until("requests at the upstream", || self.requests().len() >= count);
        self.requests()
    }
}

/// An address of loopback where nobody listens, kept from being taken by anybody else.
#[derive(Debug)]
pub struct Nobody(socket2::Socket);

impl Nobody {
    /// Takes a port without listening on it: connecting to it is refused.
    ///
    /// # Panics
    /// When the system has no port.
    pub fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Self(socket)
    }

    /// The address.
    ///
    /// # Panics
    /// Never: the socket is bound.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }
}

impl Default for Nobody {
    fn default() -> Self {
        Self::new()
    }
}

/// What an upstream waits at until the test lets it answer.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicUsize>);

impl Gate {
    /// Lets `count` more answers pass.
    pub fn open(&self, count: usize) {
        self.0.fetch_add(count, Ordering::SeqCst);
    }

    /// Waits to be let through. Gives up silently, since the test that forgot to open it fails by itself.
    pub fn pass(&self) {
        let deadline = std::time::Instant::now() + wait::PATIENCE;
        while std::time::Instant::now() < deadline {
            let taken = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if taken.is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Origin {
    /// Answers 200 to each request once `gate` lets it.
    pub fn gated(gate: &Gate) -> Self {
        let gate = gate.clone();
        Self::script(move |mut peer| {
            while peer.request().is_some() {
                gate.pass();
                peer.send(OK);
            }
        })
    }
}
