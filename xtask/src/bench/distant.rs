//! An origin at a distance that closes idle connections: `xtask bench-backend --distant`.
//!
//! The link takes [`DELAY`] in each direction and is modelled inside this process: what the kernel received
//! counts as arrived one delay later, and what the server does is put on the wire one delay after that. So a
//! request may still be on its way when the server closes, as it may in a real network: it is answered by a
//! RST, after the FIN. Idle connections are closed [`IDLE`] after their last request. Start from [`run`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::backend::{Requests, Responses};
use crate::failure::{Context, Failure};
use crate::sys::{self, Epoll, Interest, Timer};

/// What the link takes in one direction.
pub(super) const DELAY: Duration = Duration::from_millis(5);

/// How long a connection may idle after a request.
pub(super) const IDLE: Duration = Duration::from_millis(200);

/// A connection, and the server's view of it.
struct Link {
    socket: TcpStream,
    requests: Requests,
    /// Raised by everything that arrives: an idle check with an older number is void.
    activity: u64,
    /// The server has closed it, whether or not the client knows.
    is_closed: bool,
}

/// What happens to a connection, in the order of time and then of cause.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    due: Instant,
    number: u64,
    link: u64,
    what: What,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// At the server.
    Arrive(Vec<u8>),
    /// At the server, if nothing arrived since this activity.
    Idle(u64),
    /// At the client's end of the link.
    Send(Rc<[u8]>),
    Fin,
    Reset,
}

struct Distant {
    epoll: Epoll,
    timer: Timer,
    listener: TcpListener,
    links: HashMap<u64, Link>,
    events: BinaryHeap<Reverse<Event>>,
    /// The number of the last event and of the last link.
    last: u64,
    responses: Responses,
    buffer: Vec<u8>,
}

const LISTENER: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

/// Serves `listener` until the process is killed.
pub(super) fn run(listener: TcpListener) -> Result<(), Failure> {
    let mut server = Distant {
        epoll: Epoll::new().context("epoll")?,
        timer: Timer::new().context("timer")?,
        listener,
        links: HashMap::new(),
        events: BinaryHeap::new(),
        last: 0,
        responses: Responses::default(),
        buffer: vec![0; 64 * 1024],
    };
    server.epoll.add(server.listener.as_raw_fd(), LISTENER, Interest::Read).context("epoll")?;
    server.epoll.add(server.timer.as_raw_fd(), TIMER, Interest::Read).context("epoll")?;
    let mut tokens = Vec::new();
    loop {
        server.epoll.wait(&mut tokens, None).context("epoll")?;
        for token in tokens.drain(..) {
            match token {
                LISTENER => server.accept()?,
                TIMER => {}
                link => server.receive(link),
            }
        }
        server.handle_due()?;
    }
}

impl Distant {
    fn accept(&mut self) -> Result<(), Failure> {
        while let Ok((socket, _)) = self.listener.accept() {
            socket.set_nodelay(true).context("nodelay")?;
            socket.set_nonblocking(true).context("nonblocking")?;
            self.last += 1;
            self.epoll.add(socket.as_raw_fd(), self.last, Interest::Read).context("epoll")?;
            let link = Link { socket, requests: Requests::default(), activity: 0, is_closed: false };
            self.links.insert(self.last, link);
        }
        Ok(())
    }

    fn receive(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match link.socket.read(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The client has closed: nothing that is still on its way matters to it.
            Ok(0) | Err(_) => drop(self.links.remove(&id)),
            Ok(received) => {
                let bytes = self.buffer[..received].to_vec();
                self.plan(DELAY, id, What::Arrive(bytes));
            }
        }
    }

    fn plan(&mut self, delay: Duration, link: u64, what: What) {
        self.last += 1;
        self.events.push(Reverse(Event { due: Instant::now() + delay, number: self.last, link, what }));
    }

    /// Lets everything happen whose time has come, and sets the timer for what comes next.
    fn handle_due(&mut self) -> Result<(), Failure> {
        while let Some(Reverse(next)) = self.events.peek() {
            let now = Instant::now();
            if next.due > now {
                return self.timer.arm(next.due - now).context("timer");
            }
            if let Some(Reverse(event)) = self.events.pop() {
                self.handle(event.link, event.what);
            }
        }
        // Forgets the last expiry, which would keep epoll awake.
        self.timer.arm(Duration::from_secs(3600)).context("timer")
    }

    fn handle(&mut self, id: u64, what: What) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match what {
            What::Arrive(_) if link.is_closed => self.plan(DELAY, id, What::Reset),
            What::Arrive(bytes) => {
                link.activity += 1;
                let activity = link.activity;
                let (responses, mut answers) = (&mut self.responses, Vec::new());
                if link.requests.read(&bytes, &mut |size| answers.push(responses.of(size))).is_err() {
                    self.links.remove(&id);
                    return;
                }
                for answer in answers {
                    self.plan(DELAY, id, What::Send(answer));
                }
                self.plan(IDLE, id, What::Idle(activity));
            }
            What::Idle(activity) if activity == link.activity => {
                link.is_closed = true;
                self.plan(DELAY, id, What::Fin);
            }
            What::Idle(_) => {}
            // A client that is gone shows in the next read.
            What::Send(answer) => drop(link.socket.write(&answer)),
            What::Fin => drop(link.socket.shutdown(Shutdown::Write)),
            What::Reset => {
                if let Some(link) = self.links.remove(&id) {
                    // Without it the kernel would close in peace.
                    let _ = sys::reset_on_close(&link.socket);
                }
            }
        }
    }
}
