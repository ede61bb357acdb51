//! What is measured: the [`Scenario`] (all of them: [`SCENARIOS`]), and how one round of one scenario runs against a server.
//!
//! A new protocol is a new [`Factory`] in [`Scenario::clients`], a new kind of load a variant of [`Shape`].

mod list;

use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::distant;
use super::h1::H1;
use super::h2::client::{Exchanges, Request};
use super::h2::origin::{GRPC_PATH, PLAIN_PATH};
use super::h3;
use super::load::{Client, Clients, Drive, Factory, Pace};
use super::outcome::{self, Outcome};
use super::process::Server;
use super::proxies::{Front, Kind, Setup, Upstream};
use super::sample::{DriveUsage, Round, Sample};
use super::tls;
use crate::failure::Failure;

pub(super) use list::SCENARIOS;

/// A named load with a fixed request.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    front: Front,
    upstream: Upstream,
    pub(super) shape: Shape,
    connections: usize,
    /// Requests under way on each; HTTP/1.1 has one.
    streams: usize,
    message: Message,
    /// Bytes of the request's body; 0 is a GET.
    upload: usize,
    /// Bytes of the response's body.
    download: u64,
    /// What issue and documentation promise.
    pub(super) goals: &'static [Goal],
}

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Plain,
    /// A unary gRPC call, which is HTTP/2 only.
    Grpc,
}

/// How the load comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Shape {
    /// Each connection sends its next request when it was answered.
    Closed,
    /// At a fixed rate, with latency from the intended time.
    Open,
    /// As `Closed`, with a new connection for each request.
    Reconnect,
    /// Connections make one request each and then stay open, doing nothing.
    Idle,
    /// The same, until the proxy's idle timeout closes them.
    IdleTimeout,
    /// Requests spaced so that the origin closes the proxy's connections just when they are wanted again:
    /// GETs, and then POSTs.
    Stale,
}

/// An upper bound to show beside the result.
pub(super) enum Goal {
    /// CPU time a request, as a multiple of this proxy's in the same run.
    Cpu(f64, &'static str),
    /// Bytes of memory an idle connection.
    Bytes(f64),
    /// Part of a core while nothing happens, in percent.
    CorePercent(f64),
    /// Failed requests, in percent.
    FailedPercent(f64),
}

/// How long and how strong, from the command line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dose {
    pub(super) duration: Duration,
    pub(super) open_rate: u64,
    pub(super) idle_connections: usize,
    pub(super) timeout_connections: usize,
    pub(super) idle_timeout: Duration,
    pub(super) stale_duration: Duration,
}

/// Connections that the idle scenario opens at a time, so that the pool to the origin stays small and its
/// memory does not count as the clients'.
const IDLE_BATCH: usize = 32;

/// Time for a server to give back what the first requests needed, before its memory is read.
const SETTLE: Duration = Duration::from_millis(1_500);

/// How much the stale scenario's requests vary around the origin's idle timeout, and what its POSTs carry.
const STALE_JITTER: Duration = Duration::from_millis(20);
const STALE_UPLOAD: usize = 16;

/// How late an idle timeout may come before it counts as missing.
const LATENESS: Duration = Duration::from_secs(15);

impl Scenario {
    /// The scenario of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Whether this proxy can be measured in it.
    pub(super) fn fits(&self, kind: Kind, dose: Dose) -> bool {
        kind.can(self.front, self.upstream, self.idle_timeout(dose))
    }

    /// Rounds to run when `rounds` were asked for: what waits for timeouts takes long.
    pub(super) fn rounds(&self, rounds: usize) -> usize {
        if matches!(self.shape, Shape::IdleTimeout | Shape::Stale) { 1 } else { rounds }
    }

    /// What the proxy is to do.
    pub(super) fn setup(&self, port: u16, origin: u16, dose: Dose) -> Setup {
        Setup {
            port,
            origin,
            front: self.front,
            upstream: self.upstream,
            idle_timeout: self.idle_timeout(dose),
        }
    }

    /// Opens this scenario's connections to the server.
    pub(super) fn connect(&self, server: &Server) -> Result<Box<dyn Drive>, Failure> {
        self.clients()?.connect(server.address, self.connections)
    }

    /// One measured round; `origin` is the process behind the proxy.
    pub(super) fn measure(&self, server: &Server, origin: i32, dose: Dose) -> Result<Round, Failure> {
        if self.shape == Shape::Stale {
            return self.measure_stale(server, dose);
        }
        let mut load = self.connect(server)?;
        // Fills pools and caches on the connections that are measured.
        load.run(Pace::Closed { duration: dose.duration.mul_f64(0.2).min(Duration::from_secs(1)) })?;
        let pace = match self.shape {
            Shape::Idle => {
                drop(load);
                return self.measure_idle(server, dose);
            }
            Shape::IdleTimeout => {
                drop(load);
                return self.measure_timeout(server, dose);
            }
            Shape::Open => Pace::Open { duration: dose.duration, per_second: dose.open_rate },
            Shape::Closed | Shape::Reconnect | Shape::Stale => Pace::Closed { duration: dose.duration },
        };
        let own = std::process::id() as i32;
        let (before, drive_before) = (server.usage(), DriveUsage::now(own, origin)?);
        let outcome = load.run(pace)?;
        let drive = DriveUsage::now(own, origin)?.since(drive_before);
        let usage = server.usage().since(before);
        let sample = Sample::of_load(&outcome, usage, drive, server.rss_kib());
        Ok(Round { sample, latency: outcome.latency })
    }

    fn measure_idle(&self, server: &Server, dose: Dose) -> Result<Round, Failure> {
        thread::sleep(SETTLE);
        let before = server.rss_kib();
        let (load, outcome) = self.open_idle(server, dose.idle_connections)?;
        thread::sleep(SETTLE);
        let after = server.rss_kib();
        let sample = Sample::of_idle(&outcome, load.connections(), before, after);
        Ok(Round { sample, latency: outcome.latency })
    }

    fn measure_timeout(&self, server: &Server, dose: Dose) -> Result<Round, Failure> {
        let began = Instant::now();
        let (mut load, outcome) = self.open_idle(server, dose.timeout_connections)?;
        thread::sleep(SETTLE);
        // The first connection's time is over this long after it was opened: no close may count as idling.
        let quiet = dose.idle_timeout.saturating_sub(began.elapsed() + SETTLE);
        if quiet.is_zero() {
            return Err(Failure::new("the idle timeout is over before all connections are open"));
        }
        let before = server.usage();
        thread::sleep(quiet);
        let usage = server.usage().since(before);
        let closes = load.watch_closes(Instant::now() + dose.idle_timeout + LATENESS)?;
        let sample =
            Sample::of_timeout(&outcome, &closes, load.connections(), dose.idle_timeout, usage, quiet);
        Ok(Round { sample, latency: outcome.latency })
    }

    fn measure_stale(&self, server: &Server, dose: Dose) -> Result<Round, Failure> {
        let pace = Pace::Spaced { duration: dose.stale_duration, gap: distant::IDLE, jitter: STALE_JITTER };
        let run = |upload| {
            let client = Client { protocol: self.h1_factory(upload), tls: None };
            Clients::Tcp(client).connect(server.address, self.connections)?.run(pace)
        };
        let (gets, posts) = (run(0)?, run(STALE_UPLOAD)?);
        let sample = Sample::of_stale(&gets, &posts);
        let mut latency = gets.latency;
        outcome::merge(&mut latency, &posts.latency);
        Ok(Round { sample, latency })
    }

    /// Opens connections that make a request each.
    fn open_idle(&self, server: &Server, connections: usize) -> Result<(Box<dyn Drive>, Outcome), Failure> {
        let mut load = self.clients()?.connect(server.address, 0)?;
        let mut total: Option<Outcome> = None;
        for _ in 0..connections.div_ceil(IDLE_BATCH) {
            load.add(IDLE_BATCH)?;
            let outcome = load.run(Pace::Count { requests: IDLE_BATCH as u64 })?;
            match &mut total {
                Some(total) => total.merge(&outcome),
                None => total = Some(outcome),
            }
        }
        let total = total.ok_or_else(|| Failure::new("no idle connections were asked for"))?;
        Ok((load, total))
    }

    fn idle_timeout(&self, dose: Dose) -> Option<Duration> {
        (self.shape == Shape::IdleTimeout).then_some(dose.idle_timeout)
    }

    /// What its connections speak.
    pub(super) fn clients(&self) -> Result<Clients, Failure> {
        if self.front == Front::Http3 {
            let request = h3::Request::new(&self.path(), self.upload, self.download);
            let caller = h3::Caller::new(request, self.streams, self.shape == Shape::Reconnect)?;
            return Ok(Clients::Quic(caller));
        }
        let tls = self.front.is_tls().then(|| tls::Client::new(self.front.alpn())).transpose()?;
        let protocol = if self.front.is_http2() { self.h2_factory() } else { self.h1_factory(self.upload) };
        Ok(Clients::Tcp(Client { protocol, tls }))
    }

    /// The path that the origin answers with this scenario's body, if it is asked in the right protocol.
    fn path(&self) -> String {
        let folder = if self.upstream == Upstream::Http2 { PLAIN_PATH } else { "/" };
        format!("{folder}{}", self.download)
    }

    fn h2_factory(&self) -> Factory {
        let scheme = if self.front.is_tls() { "https" } else { "http" };
        let request = match self.message {
            Message::Grpc => {
                Request::grpc(&format!("{GRPC_PATH}{}", self.download), self.upload, self.download)
            }
            Message::Plain => Request::new(scheme, &self.path(), &vec![b'y'; self.upload], self.download),
        };
        let (request, streams) = (Rc::new(request), self.streams);
        Box::new(move || Box::new(Exchanges::new(Rc::clone(&request), streams)))
    }

    fn h1_factory(&self, upload: usize) -> Factory {
        let method = if upload == 0 { "GET" } else { "POST" };
        let mut request = format!("{method} {} HTTP/1.1\r\nhost: bench.test\r\n", self.path());
        if upload > 0 {
            request.push_str(&format!("content-length: {}\r\n", upload));
        }
        if self.shape == Shape::Reconnect {
            request.push_str("connection: close\r\n");
        }
        request.push_str("user-agent: tidegate-bench\r\naccept: */*\r\n\r\n");
        request.push_str(&"y".repeat(upload));
        let (request, download) = (request.into_bytes(), self.download);
        Box::new(move || Box::new(H1::new(&request, download)))
    }
}
