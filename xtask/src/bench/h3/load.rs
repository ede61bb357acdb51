//! Many QUIC connections to one address, each with as many requests under way as it may have.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::super::load::{Close, Drive, Exchange, Pace, nanoseconds};
use super::super::outcome::Outcome;
use super::Caller;
use super::link::{Buffers, Link, State};
use crate::failure::{Context, Failure};
use crate::sys::{Epoll, Interest};

/// See the module.
pub(in super::super) struct QuicLoad {
    epoll: Epoll,
    address: SocketAddr,
    caller: Caller,
    links: Vec<Link>,
    /// Links before this one take no part in the next run.
    first: usize,
    /// Tokens are nanoseconds since this moment.
    epoch: Instant,
    buffers: Buffers,
    finished: Vec<Exchange>,
}

/// The state of one run.
struct Run {
    pace: Pace,
    started: Instant,
    issued: u64,
    outcome: Outcome,
}

/// How long answers may take after the last request was sent.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest that nothing is looked at.
const LOOK: Duration = Duration::from_millis(100);

impl QuicLoad {
    /// Begins `connections` handshakes.
    pub(in super::super) fn connect(
        address: SocketAddr,
        connections: usize,
        caller: Caller,
    ) -> Result<Self, Failure> {
        let mut load = Self {
            epoll: Epoll::new().context("epoll")?,
            address,
            caller,
            links: Vec::with_capacity(connections),
            first: 0,
            epoch: Instant::now(),
            buffers: Buffers::new(),
            finished: Vec::new(),
        };
        load.add(connections)?;
        Ok(load)
    }

    fn open(&mut self, index: usize) -> Result<Link, Failure> {
        let mut link = Link::dial(self.address, &self.caller)?;
        self.epoll.add(link.as_raw_fd(), index as u64, Interest::Read).context("epoll")?;
        link.send(&mut self.buffers);
        Ok(link)
    }

    /// One connection's turn: what came, what is due, new requests, and one send for all of it.
    fn turn(&mut self, run: &mut Run, index: usize) -> Result<(), Failure> {
        let link = &mut self.links[index];
        let was_open = link.state == State::Open;
        link.receive(&mut self.buffers, &mut self.finished, &self.caller);
        if !self.finished.is_empty() {
            link.answered = Instant::now();
        }
        let mut closing = false;
        for exchange in self.finished.drain(..) {
            let now = nanoseconds(link.answered.saturating_duration_since(self.epoch));
            closing |= exchange.close;
            run.outcome.count(exchange, now);
        }
        if link.state == State::Lost {
            if !was_open {
                return Err(Failure(format!("no QUIC connection to {}", self.address)));
            }
            run.outcome.bad += link.in_flight() as u64;
        }
        if closing {
            link.close();
            link.send(&mut self.buffers);
        }
        if closing || link.state == State::Lost {
            run.outcome.reconnects += 1;
            if !run.is_over() {
                // Closing the old descriptor also takes it out of epoll.
                self.links[index] = self.open(index)?;
            }
            return Ok(());
        }
        if index >= self.first && link.state == State::Open {
            while link.in_flight() < self.caller.streams && !run.is_over() {
                let token = nanoseconds(Instant::now().saturating_duration_since(self.epoch));
                if !link.start(token, &self.caller) {
                    break;
                }
                run.issued += 1;
            }
        }
        link.send(&mut self.buffers);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.links[self.first..].iter().map(Link::in_flight).sum()
    }

    /// Whether a run has nothing to wait for: no answer and, before its end, no handshake.
    fn is_done(&self, run: &Run) -> bool {
        run.is_over() && self.in_flight() == 0
    }
}

impl Run {
    /// Whether all requests were sent.
    fn is_over(&self) -> bool {
        match self.pace {
            Pace::Closed { duration } => self.started.elapsed() >= duration,
            Pace::Count { requests } => self.issued >= requests,
            Pace::Open { .. } | Pace::Spaced { .. } => true,
        }
    }
}

impl Drive for QuicLoad {
    fn connections(&self) -> usize {
        self.links.len()
    }

    fn add(&mut self, connections: usize) -> Result<(), Failure> {
        self.first = self.links.len();
        for index in self.first..self.first + connections {
            let link = self.open(index)?;
            self.links.push(link);
        }
        Ok(())
    }

    fn run(&mut self, pace: Pace) -> Result<Outcome, Failure> {
        if matches!(pace, Pace::Open { .. } | Pace::Spaced { .. }) {
            return Err(Failure::new("over QUIC there are closed loops only"));
        }
        let mut run = Run { pace, started: Instant::now(), issued: 0, outcome: Outcome::new()? };
        let mut tokens = Vec::with_capacity(256);
        let mut last_progress = Instant::now();
        for index in self.first..self.links.len() {
            self.turn(&mut run, index)?;
        }
        while !self.is_done(&run) {
            let now = Instant::now();
            let due = self.links.iter_mut().filter_map(Link::deadline).min().unwrap_or(now + LOOK);
            // Epoll counts milliseconds: rounded up, so as not to spin.
            let wait = due.saturating_duration_since(now).min(LOOK) + Duration::from_micros(999);
            self.epoll.wait(&mut tokens, Some(wait)).context("epoll")?;
            let now = Instant::now();
            if due <= now {
                for index in 0..self.links.len() {
                    if self.links[index].deadline().is_some_and(|due| due <= now) {
                        self.turn(&mut run, index)?;
                    }
                }
            }
            for token in tokens.drain(..) {
                last_progress = Instant::now();
                self.turn(&mut run, token as usize)?;
            }
            if last_progress.elapsed() > PATIENCE {
                run.outcome.bad += self.in_flight() as u64;
                break;
            }
        }
        run.outcome.end(run.started.elapsed(), "wrong status or length")
    }

    fn watch_closes(&mut self, _deadline: Instant) -> Result<Vec<Close>, Failure> {
        Err(Failure::new("idle timeouts are not watched over QUIC"))
    }
}
