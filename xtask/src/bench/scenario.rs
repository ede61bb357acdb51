//! What is measured: the list of [`Scenario`]s, and how one round of one scenario runs against a server.
//!
//! A new protocol is a new [`Factory`] in [`Scenario::factory`], a new kind of load a
//! variant of [`Shape`].

use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::h1::H1;
use super::load::{Client, Factory, Load, Outcome, Pace};
use super::process::Server;
use super::proxies::{Front, Kind, Setup};
use super::sample::{Round, Sample};
use super::tls;
use crate::failure::{Context, Failure};
use crate::sys;

/// A named load with a fixed request.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    front: Front,
    pub(super) shape: Shape,
    connections: usize,
    /// Bytes of the request's body; 0 is a GET.
    upload: usize,
    /// Bytes of the response's body.
    download: u64,
    /// What issue and documentation promise.
    pub(super) goals: &'static [Goal],
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
}

/// An upper bound to show beside the result.
pub(super) enum Goal {
    /// CPU time a request, as a multiple of this proxy's in the same run.
    Cpu(f64, &'static str),
    /// Bytes of memory an idle connection.
    Bytes(f64),
    /// Part of a core while nothing happens, in percent.
    CorePercent(f64),
}

/// How long and how strong, from the command line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dose {
    pub(super) duration: Duration,
    pub(super) open_rate: u64,
    pub(super) idle_connections: usize,
    pub(super) timeout_connections: usize,
    pub(super) idle_timeout: Duration,
}

/// All scenarios, in the order of the report.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "h1-small",
        title: "HTTP/1.1, 64 connections, closed loop, 100-byte responses",
        front: Front::Http,
        shape: Shape::Closed,
        connections: 64,
        upload: 0,
        download: 100,
        goals: &[Goal::Cpu(1.0, "haproxy"), Goal::Cpu(0.45, "envoy")],
    },
    Scenario {
        name: "h1-64k",
        title: "HTTP/1.1, 64 connections, closed loop, 64 KiB responses",
        front: Front::Http,
        shape: Shape::Closed,
        connections: 64,
        upload: 0,
        download: 64 * 1024,
        goals: &[Goal::Cpu(1.1, "haproxy")],
    },
    Scenario {
        name: "h1-post",
        title: "HTTP/1.1, 64 connections, closed loop, 512-byte requests, 100-byte responses",
        front: Front::Http,
        shape: Shape::Closed,
        connections: 64,
        upload: 512,
        download: 100,
        goals: &[],
    },
    Scenario {
        name: "h1-open-loop",
        title: "HTTP/1.1, 64 connections, fixed rate, 100-byte responses, latency from the intended time",
        front: Front::Http,
        shape: Shape::Open,
        connections: 64,
        upload: 0,
        download: 100,
        goals: &[],
    },
    Scenario {
        name: "h1-idle-memory",
        title: "HTTP/1.1, memory of an idle keep-alive connection after its first request",
        front: Front::Http,
        shape: Shape::Idle,
        connections: 64,
        upload: 0,
        download: 100,
        goals: &[Goal::Bytes(4096.0)],
    },
    Scenario {
        name: "tcp-small",
        title: "TCP proxy, 64 connections, closed loop, 100-byte responses",
        front: Front::Tcp,
        shape: Shape::Closed,
        connections: 64,
        upload: 0,
        download: 100,
        goals: &[Goal::Cpu(0.95, "haproxy"), Goal::Cpu(0.75, "envoy")],
    },
    Scenario {
        name: "tcp-bulk",
        title: "TCP proxy, 8 connections, closed loop, responses of 16 MiB (us/req / 16.8 = ms a GB)",
        front: Front::Tcp,
        shape: Shape::Closed,
        connections: 8,
        upload: 0,
        download: 16 << 20,
        goals: &[Goal::Cpu(1.0, "haproxy")],
    },
    Scenario {
        name: "tls-small",
        title: "TLS 1.3 kept alive to HTTP/1.1, 64 connections, closed loop, 100-byte responses",
        front: Front::Tls,
        shape: Shape::Closed,
        connections: 64,
        upload: 0,
        download: 100,
        goals: &[Goal::Cpu(1.0, "nginx")],
    },
    Scenario {
        name: "tls-new",
        title: "TLS 1.3, a new connection and a full handshake for each request, 16 at a time",
        front: Front::Tls,
        shape: Shape::Reconnect,
        connections: 16,
        upload: 0,
        download: 100,
        goals: &[Goal::Cpu(0.9, "envoy")],
    },
    Scenario {
        name: "tls-idle-memory",
        title: "TLS 1.3, memory of an idle keep-alive connection after its first request",
        front: Front::Tls,
        shape: Shape::Idle,
        connections: 64,
        upload: 0,
        download: 100,
        goals: &[Goal::Bytes(16_384.0)],
    },
    Scenario {
        name: "idle-timeout",
        title: "many idle HTTP/1.1 connections until their idle timeout: CPU meanwhile, and when they are closed",
        front: Front::Http,
        shape: Shape::IdleTimeout,
        connections: 64,
        upload: 0,
        download: 100,
        goals: &[Goal::CorePercent(0.2)],
    },
];

/// Connections that the idle scenario opens at a time, so that the pool to the origin stays small and its
/// memory does not count as the clients'.
const IDLE_BATCH: usize = 32;

/// Time for a server to give back what the first requests needed, before its memory is read.
const SETTLE: Duration = Duration::from_millis(1_500);

/// How late an idle timeout may come before it counts as missing.
const LATENESS: Duration = Duration::from_secs(15);

impl Scenario {
    /// The scenario of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// The path that the origin answers with this scenario's body.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.download)
    }

    /// Whether this proxy can be measured in it.
    pub(super) fn fits(&self, kind: Kind, dose: Dose) -> bool {
        kind.can(self.front, self.idle_timeout(dose))
    }

    /// Rounds to run when `rounds` were asked for: an idle timeout takes long and varies little.
    pub(super) fn rounds(&self, rounds: usize) -> usize {
        if self.shape == Shape::IdleTimeout { 1 } else { rounds }
    }

    /// What the proxy is to do.
    pub(super) fn setup(&self, port: u16, origin: u16, dose: Dose) -> Setup {
        Setup { port, origin, front: self.front, idle_timeout: self.idle_timeout(dose) }
    }

    /// The TLS side of the clients, if they have one.
    pub(super) fn tls(&self) -> Result<Option<tls::Client>, Failure> {
        (self.front == Front::Tls).then(tls::Client::new).transpose()
    }

    /// Opens this scenario's connections to the server.
    pub(super) fn connect(&self, server: &Server) -> Result<Load, Failure> {
        Load::connect(server.address, self.connections, self.client()?)
    }

    /// One measured round.
    pub(super) fn measure(&self, server: &Server, dose: Dose) -> Result<Round, Failure> {
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
            Shape::Closed | Shape::Reconnect => Pace::Closed { duration: dose.duration },
        };
        let own_pid = std::process::id() as i32;
        let (before, own_before) = (server.usage(), sys::cpu_time(own_pid).context("own CPU time")?);
        let outcome = load.run(pace)?;
        let own = sys::cpu_time(own_pid).context("own CPU time")?.saturating_sub(own_before);
        let usage = server.usage().since(before);
        let sample = Sample::of_load(&outcome, usage, own, server.rss_kib());
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

    /// Opens connections that make a request each.
    fn open_idle(&self, server: &Server, connections: usize) -> Result<(Load, Outcome), Failure> {
        let mut load = Load::connect(server.address, 0, self.client()?)?;
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

    fn client(&self) -> Result<Client, Failure> {
        Ok(Client { protocol: self.factory(), tls: self.tls()? })
    }

    fn factory(&self) -> Factory {
        let method = if self.upload == 0 { "GET" } else { "POST" };
        let mut request = format!("{method} {} HTTP/1.1\r\nhost: bench.test\r\n", self.path());
        if self.upload > 0 {
            request.push_str(&format!("content-length: {}\r\n", self.upload));
        }
        if self.shape == Shape::Reconnect {
            request.push_str("connection: close\r\n");
        }
        request.push_str("user-agent: tidegate-bench\r\naccept: */*\r\n\r\n");
        request.push_str(&"y".repeat(self.upload));
        let (request, download) = (request.into_bytes(), self.download);
        Box::new(move || Box::new(H1::new(&request, download)))
    }
}
