//! One TCP connection, byte by byte: the client's side of the proxy, and the upstream's.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, Socket};

use crate::census::Census;
use crate::message::{Request, Response, head_end};
use crate::wait::PATIENCE;

/// How the other side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is open.
    Open,
    /// An orderly end (FIN).
    Fin,
    /// An abort (RST).
    Reset,
}

/// A connection with what was received and not yet taken.
#[derive(Debug)]
pub struct Wire {
    socket: Arc<Socket>,
    received: Vec<u8>,
    end: End,
}

impl Wire {
    /// Connects over TCP.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"))
    }

    /// Connects over TCP.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        Ok(Self::new(stream))
    }

    /// Connects to a Unix-domain socket.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn connect_unix(path: &Path) -> Self {
        Self::new(UnixStream::connect(path).unwrap())
    }

    /// Takes over an accepted connection.
    pub fn new(socket: impl Into<Socket>) -> Self {
        Self::shared(Arc::new(socket.into()))
    }

    /// Takes over a connection that is counted elsewhere.
    pub(crate) fn shared(socket: Arc<Socket>) -> Self {
        Self { socket, received: Vec::new(), end: End::Open }
    }

    /// Counts the connection.
    pub(crate) fn join(&self, census: &Census) {
        census.enter(&self.socket);
    }

    /// Shrinks the kernel's receive buffer, for a reader that is slow on purpose.
    pub fn shrink_receive_buffer(&self, bytes: usize) {
        SockRef::from(&*self.socket).set_recv_buffer_size(bytes).unwrap();
    }

    /// Sends everything; what the other side no longer takes is lost, as on any connection.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let _ = (&*self.socket).write_all(bytes.as_ref());
        self
    }

    /// Sends as much as the buffers take within `patience`; the bytes that went.
    pub fn send_some(&mut self, bytes: &[u8], patience: Duration) -> usize {
        self.socket.set_write_timeout(Some(patience)).unwrap();
        let mut sent = 0;
        while sent < bytes.len() {
            match (&*self.socket).write(&bytes[sent..]) {
                Ok(count) if count > 0 => sent += count,
                _ => break,
            }
        }
        sent
    }

    /// Ends this side's sending (FIN).
    pub fn finish(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Aborts the connection (RST).
    pub fn reset(self) {
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    /// One receive with a limit in time; false when nothing came or the connection ended.
    fn receive(&mut self, patience: Duration) -> bool {
        if self.end != End::Open {
            return false;
        }
        let mut buffer = [0; 64 * 1024];
        self.socket.set_read_timeout(Some(patience.max(Duration::from_millis(1)))).unwrap();
        match (&*self.socket).read(&mut buffer) {
            Ok(0) => self.end = End::Fin,
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                return true;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(_) => self.end = End::Reset,
        }
        false
    }

    /// Receives until `parse` finds something at the start of what was received, and takes as many bytes as it
    /// says. `None` when the connection ended or the time is over first.
    fn take<T>(&mut self, parse: impl Fn(&[u8], End) -> Option<(T, usize)>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((found, length)) = parse(&self.received, self.end) {
                self.received.drain(..length);
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.end != End::Open || left.is_zero() {
                return None;
            }
            // A failed receive may have ended the connection: one more look with that knowledge.
            self.receive(left);
        }
    }

    /// The next response with its whole body.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// The next response, to a request of that method: one to HEAD has no body.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Response {
        match self.take(|bytes, end| Response::parse(bytes, method, end)) {
            Some(response) => response,
            None => panic!("no whole response: {:?}, {:?}", self.text(), self.end),
        }
    }

    /// The next request with its whole body; `None` when the connection ended before.
    pub fn request(&mut self) -> Option<Request> {
        self.take(|bytes, _| Request::parse(bytes))
    }

    /// The next message's head with its blank line.
    pub fn head(&mut self) -> Option<String> {
        self.take(|bytes, _| {
            let end = head_end(bytes)?;
            Some((String::from_utf8_lossy(&bytes[..end]).into_owned(), end))
        })
    }

    /// Everything up to and including `mark`.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn through(&mut self, mark: &str) -> String {
        let found = self.take(|bytes, _| {
            let at = bytes.windows(mark.len()).position(|window| window == mark.as_bytes())?;
            Some((String::from_utf8_lossy(&bytes[..at + mark.len()]).into_owned(), at + mark.len()))
        });
        found.unwrap_or_else(|| panic!("no {mark:?} in {:?}, {:?}", self.text(), self.end))
    }

    /// Exactly `count` bytes; `None` when the connection ended before.
    pub fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        self.take(|bytes, _| bytes.get(..count).map(|found| (found.to_vec(), count)))
    }

    /// One request and its response.
    ///
    /// # Panics
    /// When no response comes.
    #[track_caller]
    pub fn ask(&mut self, request: &str) -> Response {
        self.send(request).response_to(request.split(' ').next().unwrap_or_default())
    }

    /// Waits for the other side's end; what it sent until then stays to be taken.
    pub fn end(&mut self) -> End {
        let deadline = Instant::now() + PATIENCE;
        while self.end == End::Open && Instant::now() < deadline {
            self.receive(deadline.saturating_duration_since(Instant::now()));
        }
        self.end
    }

    /// Talks on after the other side's end: whether that meets an RST.
    pub fn is_reset_by(&mut self, bytes: &[u8]) -> bool {
        late_bytes_meet_a_reset(&*self.socket, bytes)
    }

    /// Whether the connection stays open and silent for `time`: the proof of an absence costs its time.
    pub fn is_quiet_for(&mut self, time: Duration) -> bool {
        let before = self.received.len();
        self.receive(time);
        self.end == End::Open && self.received.len() == before
    }

    /// Reads at most `count` bytes and throws them away; the bytes read, 0 at the end.
    pub fn discard(&mut self, count: usize) -> usize {
        let mut buffer = vec![0; count];
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        (&*self.socket).read(&mut buffer).unwrap_or(0)
    }

    /// What was received and not yet taken.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// This side's address.
    pub fn local_address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }
}

/// Sends bytes on a socket whose other side has ended, and watches for the RST that they meet when nobody reads
/// them: the proof of an absence costs its time.
pub(crate) fn late_bytes_meet_a_reset<'a, S>(socket: &'a S, bytes: &[u8]) -> bool
where
    SockRef<'a>: From<&'a S>,
{
    let socket = SockRef::from(socket);
    if (&*socket).write_all(bytes).is_err() {
        return true;
    }
    let deadline = Instant::now() + Duration::from_millis(100);
    while Instant::now() < deadline {
        // After a FIN the RST is no error of a read: it shows here, once.
        if socket.take_error().is_ok_and(|error| error.is_some()) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}
