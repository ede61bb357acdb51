//! A path for UDP that a test makes good or bad: open, dropped, delayed or refused, also while it is in use.
//!
//! [`UdpPath`] listens where clients believe the server to be and passes datagrams on to it and back, with a socket of
//! its own for each client. It notes what clients send, passed on or not, and can send it again
//! ([`UdpPath::replay`]). Threads and blocking sockets, beside whatever runtime a test has.

// A test that cannot go on fails.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What becomes of datagrams, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// They are passed on at once.
    Open,
    /// They vanish.
    Dropped,
    /// They are passed on later, by this much each way.
    Delayed(Duration),
    /// To the server they are passed on at once, and its answers vanish.
    OneWay,
    /// Nobody listens: who sends one hears of it (ICMP port unreachable).
    Refused,
}

/// A datagram of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// When it was here.
    pub at: Instant,
    /// Who sent it.
    pub from: SocketAddr,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// See the module. It ends when it is dropped.
#[derive(Debug)]
pub struct UdpPath {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    far: SocketAddr,
    state: Mutex<State>,
    /// The socket towards clients was opened or closed.
    changed: Condvar,
    over: AtomicBool,
}

#[derive(Debug)]
struct State {
    quality: Quality,
    /// Towards clients; none while they are refused.
    near: Option<UdpSocket>,
    /// Towards the server, by client.
    far: HashMap<SocketAddr, UdpSocket>,
    sent: Vec<Datagram>,
}

/// A datagram on its way.
struct Due {
    at: Instant,
    client: SocketAddr,
    to: Side,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

/// So often is looked whether the path is another one, or at its end.
const LOOK: Duration = Duration::from_millis(5);

impl UdpPath {
    /// A path from `near` to `far`.
    ///
    /// # Errors
    /// When `near` is taken.
    pub fn new(near: SocketAddr, far: SocketAddr, quality: Quality) -> io::Result<Self> {
        let socket = UdpSocket::bind(near)?;
        let address = socket.local_addr()?;
        let state = State {
            quality: Quality::Open,
            near: Some(socket.try_clone()?),
            far: HashMap::new(),
            sent: Vec::new(),
        };
        let shared = Arc::new(Shared {
            far,
            state: Mutex::new(state),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
        });
        let (sender, receiver) = channel();
        let (of_clients, of_post) = (shared.clone(), shared.clone());
        std::thread::spawn(move || of_clients.hear_clients(socket, address, &sender));
        std::thread::spawn(move || of_post.deliver(&receiver));
        let path = Self { address, shared };
        path.set(quality);
        Ok(path)
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it is like this. What is under way is dropped if it is to be.
    pub fn set(&self, quality: Quality) {
        let mut state = self.shared.lock();
        state.quality = quality;
        while state.near.is_none() != (quality == Quality::Refused) {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What clients sent so far. What was refused never came.
    pub fn sent(&self) -> Vec<Datagram> {
        self.shared.lock().sent.clone()
    }

    /// Sends datagrams to the server from another port, which is given back for what is answered.
    ///
    /// # Panics
    /// When there is no socket.
    pub fn replay<'d>(&self, datagrams: impl IntoIterator<Item = &'d Datagram>) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP socket");
        for datagram in datagrams {
            socket.send_to(&datagram.bytes, self.shared.far).expect("a datagram goes out");
        }
        socket
    }
}

impl Drop for UdpPath {
    fn drop(&mut self) {
        self.shared.over.store(true, Relaxed);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Opens and closes the socket towards clients, and hears what they send.
    fn hear_clients(self: &Arc<Self>, socket: UdpSocket, address: SocketAddr, post: &Sender<Due>) {
        let mut socket = Some(socket);
        while !self.is_over() {
            let refuses = self.lock().quality == Quality::Refused;
            match (&socket, refuses) {
                (Some(_), true) => {
                    socket = None;
                    self.lock().near = None;
                    self.changed.notify_all();
                }
                (None, false) => {
                    let opened = UdpSocket::bind(address).expect("the address that it had");
                    self.lock().near = Some(opened.try_clone().expect("a descriptor"));
                    socket = Some(opened);
                    self.changed.notify_all();
                }
                (None, true) => std::thread::sleep(LOOK),
                (Some(open), false) => {
                    if let Some((bytes, client)) = receive(open) {
                        self.hear(client, bytes, post);
                    }
                }
            }
        }
    }

    fn hear(self: &Arc<Self>, client: SocketAddr, bytes: Vec<u8>, post: &Sender<Due>) {
        let at = Instant::now();
        let mut state = self.lock();
        state.sent.push(Datagram { at, from: client, bytes: bytes.clone() });
        state.far.entry(client).or_insert_with(|| self.hear_server(client, post));
        drop(state);
        self.send_later(Side::Server, client, bytes, post);
    }

    /// The socket of a client towards the server, from which answers go back.
    fn hear_server(self: &Arc<Self>, client: SocketAddr, post: &Sender<Due>) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP socket");
        socket.connect(self.far).expect("an address");
        let heard = socket.try_clone().expect("a descriptor");
        let (shared, post) = (self.clone(), post.clone());
        std::thread::spawn(move || {
            while !shared.is_over() {
                if let Some((bytes, _)) = receive(&heard) {
                    shared.send_later(Side::Client, client, bytes, &post);
                }
            }
        });
        socket
    }

    fn send_later(&self, to: Side, client: SocketAddr, bytes: Vec<u8>, post: &Sender<Due>) {
        let delay = match (self.lock().quality, to) {
            (Quality::Open, _) | (Quality::OneWay, Side::Server) => Duration::ZERO,
            (Quality::Delayed(delay), _) => delay,
            (Quality::OneWay, Side::Client) | (Quality::Dropped | Quality::Refused, _) => return,
        };
        // Without a receiver the path is at its end.
        let _ = post.send(Due { at: Instant::now() + delay, client, to, bytes });
    }

    /// In the order in which datagrams came: one that is not delayed any more waits for those that were.
    fn deliver(&self, receiver: &Receiver<Due>) {
        while let Ok(Due { at, client, to, bytes }) = receiver.recv() {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            let state = self.lock();
            if state.quality == Quality::Dropped {
                continue;
            }
            // One that cannot be sent is lost, as datagrams are.
            let _ = match (to, &state.near) {
                (Side::Client, Some(near)) => near.send_to(&bytes, client).map(drop),
                (Side::Server, Some(_)) => {
                    state.far.get(&client).map_or(Ok(()), |far| far.send(&bytes).map(drop))
                }
                (_, None) => Ok(()),
            };
        }
    }
}

/// The next datagram, if one comes soon.
fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 64 * 1024];
    socket.set_read_timeout(Some(LOOK)).expect("a timeout");
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => Some((buffer[..length].to_vec(), from)),
        // Nothing yet; or what was sent before met nobody.
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that echoes, and a client whose first datagram it got.
    fn path(quality: Quality) -> (UdpPath, UdpSocket, UdpSocket) {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = UdpSocket::bind(any).expect("a server");
        let path = UdpPath::new(any, server.local_addr().expect("an address"), quality).expect("a path");
        let client = UdpSocket::bind(any).expect("a client");
        client.connect(path.address()).expect("an address");
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        }
        (path, client, server)
    }

    fn there_and_back(client: &UdpSocket, server: &UdpSocket, word: &[u8]) -> SocketAddr {
        let mut buffer = [0; 16];
        client.send(word).expect("sent");
        let (length, from) = server.recv_from(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], word);
        server.send_to(word, from).expect("sent");
        assert_eq!(client.recv(&mut buffer).expect("answered"), word.len());
        from
    }

    #[test]
    fn datagrams_go_there_and_back_and_can_be_sent_again() {
        let (path, client, server) = path(Quality::Open);
        let first = there_and_back(&client, &server, b"one");
        assert_eq!(there_and_back(&client, &server, b"two"), first);
        let again = path.replay(&path.sent());
        let mut buffer = [0; 16];
        for word in [b"one", b"two"] {
            let (length, from) = server.recv_from(&mut buffer).expect("received");
            assert_eq!(
                (&buffer[..length], from.port()),
                (&word[..], again.local_addr().expect("bound").port())
            );
        }
    }

    #[test]
    fn a_delay_is_of_each_way() {
        let (_path, client, server) = path(Quality::Delayed(Duration::from_millis(30)));
        let began = Instant::now();
        there_and_back(&client, &server, b"late");
        assert!(began.elapsed() >= Duration::from_millis(60));
    }

    #[test]
    fn what_is_dropped_is_noted_and_the_path_can_heal() {
        let (path, client, server) = path(Quality::Dropped);
        client.send(b"lost").expect("sent");
        while path.sent().is_empty() {
            std::thread::yield_now();
        }
        path.set(Quality::Open);
        there_and_back(&client, &server, b"found");
    }

    #[test]
    fn who_is_refused_hears_of_it() {
        let (path, client, server) = path(Quality::Refused);
        client.send(b"knock").expect("sent");
        let refused = client.recv(&mut [0; 16]).map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused));
        path.set(Quality::Open);
        there_and_back(&client, &server, b"open");
        path.set(Quality::Refused);
        client.send(b"knock").expect("sent");
        assert!(client.recv(&mut [0; 16]).is_err());
        assert_eq!(path.sent().len(), 1);
    }
}
