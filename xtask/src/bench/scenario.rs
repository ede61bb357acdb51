//! What is measured: the list of [`Scenario`]s, and how one round of one scenario runs against a server.
//!
//! A new protocol is a new [`Factory`] in [`Scenario::factory`], a new kind of load a
//! variant of [`Shape`].

use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::h1::H1;
use super::load::{Factory, Load, Outcome, Pace};
use super::process::Server;
use super::sample::{Round, Sample};
use crate::failure::{Context, Failure};
use crate::sys;

/// A named load with a fixed request.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
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
    /// Connections make one request each and then stay open, doing nothing.
    Idle,
}

/// An upper bound to show beside the result.
pub(super) enum Goal {
    /// CPU time a request, as a multiple of this proxy's in the same run.
    CpuAtMost(f64, &'static str),
    /// Bytes of memory an idle connection.
    BytesAtMost(f64),
}

/// How long and how strong, from the command line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dose {
    pub(super) duration: Duration,
    pub(super) open_rate: u64,
    pub(super) idle_connections: usize,
}

/// All scenarios, in the order of the report.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "h1-small",
        title: "HTTP/1.1, 64 connections, closed loop, 100-byte responses",
        shape: Shape::Closed,
        connections: 64,
        upload: 0,
        download: 100,
        goals: &[Goal::CpuAtMost(1.0, "haproxy"), Goal::CpuAtMost(0.45, "envoy")],
    },
    Scenario {
        name: "h1-64k",
        title: "HTTP/1.1, 64 connections, closed loop, 64 KiB responses",
        shape: Shape::Closed,
        connections: 64,
        upload: 0,
        download: 64 * 1024,
        goals: &[Goal::CpuAtMost(1.1, "haproxy")],
    },
    Scenario {
        name: "h1-post",
        title: "HTTP/1.1, 64 connections, closed loop, 512-byte requests, 100-byte responses",
        shape: Shape::Closed,
        connections: 64,
        upload: 512,
        download: 100,
        goals: &[],
    },
    Scenario {
        name: "h1-open-loop",
        title: "HTTP/1.1, 64 connections, fixed rate, 100-byte responses, latency from the intended time",
        shape: Shape::Open,
        connections: 64,
        upload: 0,
        download: 100,
        goals: &[],
    },
    Scenario {
        name: "h1-idle-memory",
        title: "HTTP/1.1, memory of an idle keep-alive connection after its first request",
        shape: Shape::Idle,
        connections: 64,
        upload: 0,
        download: 100,
        goals: &[Goal::BytesAtMost(4096.0)],
    },
];

/// Connections that the idle scenario opens at a time, so that the pool to the origin stays small and its
/// memory does not count as the clients'.
const IDLE_BATCH: usize = 32;

/// Time for a server to give back what the first requests needed, before its memory is read.
const SETTLE: Duration = Duration::from_millis(1_500);

impl Scenario {
    /// The scenario of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// The path that the origin answers with this scenario's body.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.download)
    }

    /// Opens this scenario's connections to the server.
    pub(super) fn connect(&self, server: &Server) -> Result<Load, Failure> {
        Load::connect(server.address, self.connections, self.factory())
    }

    /// One measured round.
    pub(super) fn measure(&self, server: &Server, dose: Dose) -> Result<Round, Failure> {
        let mut load = self.connect(server)?;
        // Fills pools and caches on the connections that are measured.
        load.run(Pace::Closed { duration: dose.duration.mul_f64(0.2).min(Duration::from_secs(1)) })?;
        if self.shape == Shape::Idle {
            drop(load);
            return self.measure_idle(server, dose);
        }
        let pace = match self.shape {
            Shape::Open => Pace::Open { duration: dose.duration, per_second: dose.open_rate },
            _ => Pace::Closed { duration: dose.duration },
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
        let mut loads = Vec::new();
        let mut total: Option<Outcome> = None;
        for _ in 0..dose.idle_connections.div_ceil(IDLE_BATCH) {
            let mut load = Load::connect(server.address, IDLE_BATCH, self.factory())?;
            let outcome = load.run(Pace::Count { requests: IDLE_BATCH as u64 })?;
            loads.push(load);
            match &mut total {
                Some(total) => total.merge(&outcome),
                None => total = Some(outcome),
            }
        }
        thread::sleep(SETTLE);
        let after = server.rss_kib();
        let outcome = total.ok_or_else(|| Failure::new("no idle connections were asked for"))?;
        let connections = loads.len() * IDLE_BATCH;
        let sample = Sample::of_idle(&outcome, connections, before, after);
        Ok(Round { sample, latency: outcome.latency })
    }

    fn factory(&self) -> Factory {
        let method = if self.upload == 0 { "GET" } else { "POST" };
        let mut request = format!("{method} {} HTTP/1.1\r\nhost: bench.test\r\n", self.path());
        if self.upload > 0 {
            request.push_str(&format!("content-length: {}\r\n", self.upload));
        }
        request.push_str("user-agent: tidegate-bench\r\naccept: */*\r\n\r\n");
        request.push_str(&"y".repeat(self.upload));
        let (request, download) = (request.into_bytes(), self.download);
        Box::new(move || Box::new(H1::new(&request, download)))
    }
}
