//! The load generator: one thread, one epoll, many connections, either as fast as they go or at a fixed rate.
//!
//! It must cost much less than the proxies that it drives: per request one receive, one send, no
//! allocation. It knows no protocol: [`Protocol`] is the seam where HTTP/1.1 and HTTP/2 plug in. Start from
//! [`Load::connect`] and [`Load::run`]; connections stay open between runs, so a warm-up and a measurement
//! use the same ones.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::outcome::Outcome;
use super::{h3, tls};
use crate::failure::{Context, Failure};
use crate::sys::{Epoll, Interest, Timer};

/// One client connection's protocol, without I/O.
pub(super) trait Protocol {
    /// How many requests may be under way at once.
    fn capacity(&self) -> usize;
    /// Writes a request to `out`; its [`Exchange`] will carry `token`.
    fn start(&mut self, token: u64, out: &mut Vec<u8>);
    /// Takes received bytes, calls `done` for each response that ends in them, and appends to `out` what the
    /// protocol itself has to say (acknowledgements, windows).
    fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        done: &mut dyn FnMut(Exchange),
    ) -> Result<(), ProtocolError>;
}

/// A request that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) token: u64,
    /// The status and the length of the body were as expected.
    pub(super) is_good: bool,
    /// The server will close this connection.
    pub(super) close: bool,
}

/// The peer sent what the client cannot understand.
#[derive(Debug)]
pub(super) struct ProtocolError(pub(super) &'static str);

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// Each connection sends as soon as it was answered, until the time is over.
    Closed { duration: Duration },
    /// As `Closed`, but ends after this many requests.
    Count { requests: u64 },
    /// Requests are due at fixed times whatever the answers do, and wait their turn when all connections are
    /// taken. Latency counts from when a request was due, so a stall shows in all requests that it delayed.
    Open { duration: Duration, per_second: u64 },
    /// Each connection sends its next request `gap`, give or take up to `jitter`, after it was answered.
    Spaced { duration: Duration, gap: Duration, jitter: Duration },
}

/// Makes the protocol state of a new connection.
pub(super) type Factory = Box<dyn Fn() -> Box<dyn Protocol>>;

/// What new connections are made with.
pub(super) struct Client {
    pub(super) protocol: Factory,
    pub(super) tls: Option<tls::Client>,
}

/// What new connections of any kind are made with.
pub(super) enum Clients {
    Tcp(Client),
    Quic(h3::Caller),
}

impl Clients {
    /// Opens `connections` connections.
    pub(super) fn connect(self, address: SocketAddr, connections: usize) -> Result<Box<dyn Drive>, Failure> {
        Ok(match self {
            Self::Tcp(client) => Box::new(Load::connect(address, connections, client)?),
            Self::Quic(caller) => Box::new(h3::QuicLoad::connect(address, connections, caller)?),
        })
    }
}

struct Connection {
    socket: TcpStream,
    session: Option<tls::Session>,
    protocol: Box<dyn Protocol>,
    in_flight: usize,
    /// When the last answer arrived.
    answered: Instant,
}

/// How the server closed a connection that had nothing under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Close {
    /// Since its last answer.
    pub(super) idle_for: Duration,
    /// By RST.
    pub(super) is_reset: bool,
}

/// A set of open connections to one address that requests are sent on.
pub(super) trait Drive {
    /// How many connections there are.
    fn connections(&self) -> usize;
    /// Opens `connections` more, which alone take part in the next run.
    fn add(&mut self, connections: usize) -> Result<(), Failure>;
    /// Sends requests at `pace` and waits until all of them are answered.
    fn run(&mut self, pace: Pace) -> Result<Outcome, Failure>;
    /// Waits until the server has closed every connection, at most until `deadline`: how each was closed.
    /// Connections that are still open then are missing.
    fn watch_closes(&mut self, deadline: Instant) -> Result<Vec<Close>, Failure>;
}

/// TCP connections.
pub(super) struct Load {
    epoll: Epoll,
    timer: Timer,
    address: SocketAddr,
    client: Client,
    connections: Vec<Connection>,
    /// Connections before this one take no part in the next run.
    first: usize,
    /// Tokens are nanoseconds since this moment.
    epoch: Instant,
    buffer: Vec<u8>,
    plain: Vec<u8>,
    out: Vec<u8>,
    finished: Vec<Exchange>,
}

/// The state of one run.
struct Run {
    pace: Pace,
    started: Instant,
    /// Requests sent, or (open loop) due so far.
    issued: u64,
    in_flight: usize,
    /// Open loop: connections with room, the longest idle first; one entry for each free place.
    idle: VecDeque<usize>,
    /// Open loop: requests that are due but found no connection.
    waiting: VecDeque<u64>,
    /// Spaced: when each idle connection sends, the next one first.
    planned: BinaryHeap<Reverse<(Instant, usize)>>,
    dice: Dice,
    /// What was wrong with the last answer that was not understood.
    complaint: &'static str,
    outcome: Outcome,
}

const TIMER: u64 = u64::MAX;

/// How long answers may take after the last request was sent.
const PATIENCE: Duration = Duration::from_secs(5);

impl Load {
    /// Opens `connections` connections.
    pub(super) fn connect(address: SocketAddr, connections: usize, client: Client) -> Result<Self, Failure> {
        let mut load = Self {
            epoll: Epoll::new().context("epoll")?,
            timer: Timer::new().context("timer")?,
            address,
            client,
            connections: Vec::with_capacity(connections),
            first: 0,
            epoch: Instant::now(),
            buffer: vec![0; 256 * 1024],
            plain: Vec::new(),
            out: Vec::with_capacity(4096),
            finished: Vec::new(),
        };
        load.epoll.add(load.timer.as_raw_fd(), TIMER, Interest::Read).context("epoll")?;
        load.add(connections)?;
        Ok(load)
    }
}

impl Drive for Load {
    fn connections(&self) -> usize {
        self.connections.len()
    }

    fn add(&mut self, connections: usize) -> Result<(), Failure> {
        self.first = self.connections.len();
        for index in self.first..self.first + connections {
            let connection = self.open(index)?;
            self.connections.push(connection);
        }
        Ok(())
    }

    fn run(&mut self, pace: Pace) -> Result<Outcome, Failure> {
        let mut run = Run {
            pace,
            started: Instant::now(),
            issued: 0,
            in_flight: 0,
            idle: VecDeque::new(),
            waiting: VecDeque::new(),
            planned: BinaryHeap::new(),
            dice: Dice(0x9e37_79b9_7f4a_7c15),
            complaint: "wrong status or length, or the connection broke",
            outcome: Outcome::new()?,
        };
        for index in self.first..self.connections.len() {
            self.out.clear();
            self.refill(&mut run, index, self.connections[index].protocol.capacity())?;
        }
        let mut tokens = Vec::with_capacity(256);
        let mut last_progress = Instant::now();
        loop {
            let more_due = self.send_due(&mut run)?;
            if run.in_flight == 0 && run.waiting.is_empty() && !more_due {
                break;
            }
            self.epoll.wait(&mut tokens, Some(Duration::from_millis(200))).context("epoll")?;
            for token in tokens.drain(..).filter(|token| *token != TIMER) {
                last_progress = Instant::now();
                self.on_readable(&mut run, token as usize)?;
            }
            if last_progress.elapsed() > PATIENCE {
                self.give_up(&mut run)?;
                break;
            }
        }
        run.outcome.end(run.started.elapsed(), run.complaint)
    }

    fn watch_closes(&mut self, deadline: Instant) -> Result<Vec<Close>, Failure> {
        let mut closes = Vec::with_capacity(self.connections.len());
        let mut tokens = Vec::with_capacity(256);
        while closes.len() < self.connections.len() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            self.epoll.wait(&mut tokens, Some(left)).context("epoll")?;
            for token in tokens.drain(..).filter(|token| *token != TIMER) {
                let connection = &mut self.connections[token as usize];
                let is_reset = match connection.socket.read(&mut self.buffer) {
                    Ok(0) => false,
                    Err(_) => true,
                    // The farewell of a TLS session.
                    Ok(_) => continue,
                };
                closes.push(Close { idle_for: connection.answered.elapsed(), is_reset });
                self.epoll.remove(connection.socket.as_raw_fd()).context("epoll")?;
            }
        }
        Ok(closes)
    }
}

impl Load {
    fn open(&self, index: usize) -> Result<Connection, Failure> {
        let socket =
            TcpStream::connect(self.address).context(format_args!("connecting to {}", self.address))?;
        socket.set_nodelay(true).context("nodelay")?;
        socket.set_nonblocking(true).context("nonblocking")?;
        self.epoll.add(socket.as_raw_fd(), index as u64, Interest::Read).context("epoll")?;
        let session = self.client.tls.as_ref().map(tls::Client::session).transpose()?;
        Ok(Connection {
            socket,
            session,
            protocol: (self.client.protocol)(),
            in_flight: 0,
            answered: Instant::now(),
        })
    }

    /// Sends what is due, arms the timer for the next; answers whether more will come without an answer.
    fn send_due(&mut self, run: &mut Run) -> Result<bool, Failure> {
        match run.pace {
            Pace::Closed { .. } | Pace::Count { .. } => Ok(false),
            Pace::Open { duration, per_second } => self.send_open(run, duration, per_second),
            Pace::Spaced { .. } => self.send_planned(run),
        }
    }

    fn send_planned(&mut self, run: &mut Run) -> Result<bool, Failure> {
        while let Some(Reverse((due, index))) = run.planned.peek().copied() {
            let now = Instant::now();
            if due > now {
                self.timer.arm(due - now).context("timer")?;
                return Ok(true);
            }
            run.planned.pop();
            run.issued += 1;
            let token = self.token(now);
            self.out.clear();
            self.start(run, index, token);
            self.flush(index)?;
        }
        self.timer.arm(PATIENCE).context("timer")?;
        Ok(false)
    }

    fn send_open(&mut self, run: &mut Run, duration: Duration, per_second: u64) -> Result<bool, Failure> {
        let total = (duration.as_secs_f64() * per_second as f64) as u64;
        while run.issued < total {
            let after_start = Duration::from_secs_f64(run.issued as f64 / per_second as f64);
            let due = run.started + after_start;
            let now = Instant::now();
            if due > now {
                self.timer.arm(due - now).context("timer")?;
                return Ok(true);
            }
            run.issued += 1;
            let token = self.token(due);
            match run.idle.pop_front() {
                Some(index) => {
                    self.out.clear();
                    self.start(run, index, token);
                    self.flush(index)?;
                }
                None => run.waiting.push_back(token),
            }
        }
        // Forgets the last expiry, which would keep epoll awake.
        self.timer.arm(PATIENCE).context("timer")?;
        Ok(false)
    }

    fn on_readable(&mut self, run: &mut Run, index: usize) -> Result<(), Failure> {
        let connection = &mut self.connections[index];
        let received = match connection.socket.read(&mut self.buffer) {
            Ok(0) => return self.reconnect(run, index),
            Ok(received) => received,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(_) => return self.reconnect(run, index),
        };
        let finished = &mut self.finished;
        let mut bytes = &self.buffer[..received];
        if let Some(session) = &mut connection.session {
            self.plain.clear();
            if session.receive(&mut connection.socket, bytes, &mut self.plain).is_err() {
                run.complaint = "broken TLS";
                return self.reconnect(run, index);
            }
            bytes = &self.plain;
        }
        self.out.clear();
        let outcome = connection.protocol.receive(bytes, &mut self.out, &mut |e| finished.push(e));
        if let Err(error) = outcome {
            // Answers before the nonsense are lost with the connection.
            finished.clear();
            run.complaint = error.0;
            return self.reconnect(run, index);
        }
        if finished.is_empty() {
            return self.flush(index);
        }
        connection.answered = Instant::now();
        let now = nanoseconds(connection.answered.saturating_duration_since(self.epoch));
        let mut closing = false;
        let places = finished.len();
        for exchange in finished.drain(..) {
            run.in_flight -= 1;
            connection.in_flight -= 1;
            closing |= exchange.close;
            run.outcome.count(exchange, now);
        }
        if closing { self.reconnect(run, index) } else { self.refill(run, index, places) }
    }

    /// Gives a connection work for the `places` that have become free on it, and sends it with whatever is in
    /// `out` already: one send for all.
    fn refill(&mut self, run: &mut Run, index: usize, places: usize) -> Result<(), Failure> {
        for _ in 0..places {
            match run.pace {
                Pace::Closed { duration } if run.started.elapsed() >= duration => break,
                Pace::Count { requests } if run.issued >= requests => break,
                Pace::Closed { .. } | Pace::Count { .. } => {
                    run.issued += 1;
                    let token = self.token(Instant::now());
                    self.start(run, index, token);
                }
                Pace::Open { .. } => match run.waiting.pop_front() {
                    Some(token) => self.start(run, index, token),
                    None => run.idle.push_back(index),
                },
                Pace::Spaced { duration, gap, jitter } => {
                    let after = gap - jitter + (2 * jitter).mul_f64(run.dice.roll());
                    let due = Instant::now() + after;
                    if due < run.started + duration {
                        run.planned.push(Reverse((due, index)));
                    }
                }
            }
        }
        self.flush(index)
    }

    /// Begins a request; it is in `out` then.
    fn start(&mut self, run: &mut Run, index: usize, token: u64) {
        let connection = &mut self.connections[index];
        connection.protocol.start(token, &mut self.out);
        connection.in_flight += 1;
        run.in_flight += 1;
    }

    /// Sends what is in `out`.
    fn flush(&mut self, index: usize) -> Result<(), Failure> {
        if self.out.is_empty() {
            return Ok(());
        }
        let connection = &mut self.connections[index];
        if let Some(session) = &mut connection.session {
            // A broken session shows in the next read.
            let _ = session.send(&mut connection.socket, &self.out);
            return Ok(());
        }
        match connection.socket.write(&self.out) {
            Ok(sent) if sent == self.out.len() => Ok(()),
            Ok(_) => Err(Failure::new("a request did not fit into the socket's buffer")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Err(Failure::new("a request did not fit into the socket's buffer"))
            }
            // The connection is readable now, with its end; `on_readable` counts the loss.
            Err(_) => Ok(()),
        }
    }

    /// Replaces a connection; requests under way on the former are lost.
    fn reconnect(&mut self, run: &mut Run, index: usize) -> Result<(), Failure> {
        let lost = self.connections[index].in_flight;
        run.in_flight -= lost;
        run.outcome.bad += lost as u64;
        run.outcome.reconnects += 1;
        run.idle.retain(|idle| *idle != index);
        run.planned.retain(|Reverse((_, planned))| *planned != index);
        // Closing the old descriptor also takes it out of epoll.
        self.connections[index] = self.open(index)?;
        self.out.clear();
        self.refill(run, index, self.connections[index].protocol.capacity())
    }

    /// Counts what is still under way as lost, and opens clean connections for the next run.
    fn give_up(&mut self, run: &mut Run) -> Result<(), Failure> {
        run.outcome.bad += (run.in_flight + run.waiting.len()) as u64;
        for index in 0..self.connections.len() {
            if self.connections[index].in_flight > 0 {
                self.connections[index] = self.open(index)?;
            }
        }
        Ok(())
    }

    fn token(&self, moment: Instant) -> u64 {
        nanoseconds(moment.saturating_duration_since(self.epoch))
    }
}

/// Numbers that look random and are the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    /// From 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// At most 584 years.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
