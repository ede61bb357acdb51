//! A link with latency: connections are passed on, each byte and each end later by a fixed time.
//!
//! Connecting takes no time, as the kernel answers at once. A reset is passed on as an end.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A link to one upstream.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    connected: Arc<Mutex<Vec<Instant>>>,
}

/// Bytes and when they arrive; none: the end.
type Due = (Instant, Vec<u8>);

impl Relay {
    /// A link that delays by `delay` each way.
    ///
    /// # Panics
    /// When there is no port.
    pub fn new(upstream: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connected: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let noted = connected.clone();
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                noted.lock().unwrap().push(Instant::now());
                if let Ok(far) = TcpStream::connect(upstream) {
                    pass(&near, &far, delay);
                    pass(&far, &near, delay);
                }
            }
        });
        Self { address, connected }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// When each connection was here: not before it was opened.
    pub fn connected(&self) -> Vec<Instant> {
        self.connected.lock().unwrap().clone()
    }
}

/// One direction, on two threads.
fn pass(from: &TcpStream, to: &TcpStream, delay: Duration) {
    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
    let _ = to.set_nodelay(true);
    let (sender, receiver) = channel();
    std::thread::spawn(move || listen(from, &sender, delay));
    std::thread::spawn(move || speak(to, &receiver));
}

fn listen(mut from: TcpStream, sender: &Sender<Due>, delay: Duration) {
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        let sent = sender.send((Instant::now() + delay, buffer[..count].to_vec()));
        if count == 0 || sent.is_err() {
            return;
        }
    }
}

fn speak(mut to: TcpStream, receiver: &Receiver<Due>) {
    while let Ok((due, bytes)) = receiver.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if bytes.is_empty() || to.write_all(&bytes).is_err() {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
    }
}
