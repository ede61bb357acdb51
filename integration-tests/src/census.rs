//! How many connections an upstream has, at the moment of each accept: a limit that is exceeded for an instant
//! shows here.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use socket2::Socket;

/// `MSG_PEEK | MSG_DONTWAIT`.
const LOOK: i32 = 0x2 | 0x40;

/// How long a reader may take to take what lies before a FIN.
const DRAIN: Duration = Duration::from_millis(200);

/// The connections that a proxy has not ended yet. It holds no socket open.
#[derive(Debug, Default)]
pub struct Census(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: Vec<Weak<Socket>>,
    most: usize,
}

impl Census {
    /// Counts a connection just accepted. What the proxy sent before it connected has arrived by now, so a
    /// connection that it closed first is not counted any more.
    pub fn enter(&self, socket: &Arc<Socket>) {
        let mut counts = self.0.lock().unwrap();
        let newcomer = Arc::downgrade(socket);
        counts.open.retain(|socket| is_open(socket, DRAIN));
        // Its own thread may have come here late, after it was closed again.
        if is_open(&newcomer, Duration::ZERO) {
            counts.open.push(newcomer);
        }
        counts.most = counts.most.max(counts.open.len());
    }

    /// The most connections at once so far.
    pub fn most(&self) -> usize {
        self.0.lock().unwrap().most
    }

    /// The connections now.
    pub fn now(&self) -> usize {
        let mut counts = self.0.lock().unwrap();
        counts.open.retain(|socket| is_open(socket, DRAIN));
        counts.open.len()
    }

    /// The local addresses of the proxy's ends of the connections that are open.
    pub fn peers(&self) -> Vec<SocketAddr> {
        let counts = self.0.lock().unwrap();
        let sockets = counts.open.iter().filter_map(Weak::upgrade);
        sockets.filter_map(|socket| socket.peer_addr().ok()?.as_socket()).collect()
    }
}

/// Whether neither side has ended it.
fn is_open(socket: &Weak<Socket>, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while let Some(socket) = socket.upgrade() {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match socket.recv_with_flags(&mut byte, LOOK) {
            Ok(0) => return false,
            // Bytes hide a FIN behind them until they are read.
            Ok(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Ok(_) => return true,
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
    false
}
