//! `cargo xtask bench`: Tidegate beside nginx, HAProxy and Envoy, on this machine, in one run.
//!
//! Method: each proxy has one worker, alone on one CPU; the load generator and the origin share another.
//! Rounds go in turn (A, B, C, A, B, C, …) so that a machine that slows down slows all of them, and a median
//! over rounds stands in the table. The figure that counts is the proxy's own CPU time for each request, and
//! only ratios within one run mean anything.
//!
//! This file is the flow: [`run`] builds, finds, measures and reports. The parts are [`scenario`] (what is
//! measured), [`proxies`] (on what), [`load`] and [`backend`] (with what), [`sample`] (numbers),
//! [`report`] (how it is told).

pub(crate) mod backend;
mod certificate;
mod compare;
mod distant;
mod h1;
mod h2;
mod h3;
mod host_death;
mod html;
mod instructions;
mod load;
mod outcome;
mod process;
mod progress;
mod proxies;
mod report;
mod sample;
mod scale;
mod scenario;
mod strace;
mod table;
mod tls;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;

use crate::failure::{Context, Failure};
use crate::sys;
use crate::workspace::{Workspace, cargo, run_to_end};
use process::Server;
use progress::Progress;
use proxies::{Kind, PEERS, Proxy};
use report::{ProxyResult, Report, ScenarioResult};
use sample::{Round, Sample};
use scenario::{Dose, SCENARIOS, Scenario, Shape};

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Measure this scenario only (repeatable); `--list` shows them
    #[arg(long)]
    scenario: Vec<String>,
    /// List the scenarios and stop
    #[arg(long)]
    list: bool,
    /// Seconds that each round measures
    #[arg(long, default_value_t = 3.0)]
    duration: f64,
    /// Rounds; the table shows medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Requests a second of the open-loop scenarios
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Connections of the idle-memory scenario
    #[arg(long, default_value_t = 5_000)]
    idle_connections: usize,
    /// Measure this proxy only (repeatable): tidegate, nginx, haproxy, envoy
    #[arg(long)]
    proxy: Vec<String>,
    /// Measure Tidegate alone
    #[arg(long)]
    no_peers: bool,
    /// A Tidegate binary to measure, instead of building this tree's in release mode
    #[arg(long)]
    tidegate: Option<PathBuf>,
    /// The Envoy binary (default: `envoy` in PATH)
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// The nginx binary (default: `nginx` in PATH or /usr/sbin)
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// The HAProxy binary (default: `haproxy` in PATH or /usr/sbin)
    #[arg(long)]
    haproxy: Option<PathBuf>,
    /// Compare with a former run's report.json
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// Where reports, configurations and logs go (default: `bench` in the target folder)
    #[arg(long)]
    out: Option<PathBuf>,
    /// Seconds after which the connections of the idle-timeout scenario are to be closed
    #[arg(long, default_value_t = 60)]
    idle_timeout: u64,
    /// Connections of the idle-timeout scenario
    #[arg(long, default_value_t = 15_000)]
    timeout_connections: usize,
    /// Seconds of GETs, and then of POSTs, of the stale-reuse scenario
    #[arg(long, default_value_t = 20.0)]
    stale_duration: f64,
    /// Instead of measuring time, kill an origin under load and count the requests that fail (`--rate`, `--rounds`)
    #[arg(long, conflicts_with_all = ["strace", "instructions"])]
    host_death: bool,
    /// Instead of the scenarios, measure what 10,000 clusters and 1,000 hosts cost (`--duration`, `--rounds`)
    #[arg(long, conflicts_with_all = ["strace", "instructions", "host_death"])]
    scale: bool,
    /// Instead of measuring time, count each proxy's system calls a request with strace
    #[arg(long)]
    strace: bool,
    /// Instead of measuring time, count each proxy's instructions and allocations a request with callgrind
    #[arg(long, conflicts_with = "strace")]
    instructions: bool,
}

/// What the flow carries along.
struct Bench {
    out: PathBuf,
    proxies: Vec<Proxy>,
    dose: Dose,
    rounds: usize,
    cpus: Cpus,
}

/// Who runs where; `None` on a machine with one CPU.
#[derive(Debug, Clone, Copy)]
struct Cpus {
    proxy: Option<usize>,
    load: Option<usize>,
}

/// Measures and reports as the options say.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.list {
        for scenario in SCENARIOS {
            println!("{:<16} {}", scenario.name, scenario.title);
        }
        return Ok(());
    }
    let scenarios = chosen_scenarios(&arguments.scenario)?;
    // Read first: a wrong file must not show up after minutes of measuring.
    let baseline = arguments.baseline.as_deref().map(Report::load).transpose()?;
    let bench = Bench::prepare(arguments)?;
    if arguments.host_death {
        return host_death::run(&bench);
    }
    if arguments.scale {
        return scale::run(&bench);
    }
    let origins = Origins {
        near: Origin::start(bench.cpus.load, &[])?,
        distant: Origin::start(bench.cpus.load, &["--distant"])?,
    };
    // The first says most, when none is named.
    let counted = if arguments.scenario.is_empty() { &scenarios[..1] } else { &scenarios[..] };
    if arguments.strace {
        return counted.iter().try_for_each(|scenario| strace::run(&bench, scenario, &origins));
    }
    if arguments.instructions {
        return counted.iter().try_for_each(|scenario| instructions::run(&bench, scenario, &origins));
    }

    let report = bench.measure(&scenarios, &origins)?;
    print!("{}", table::render(&report));
    if let Some(baseline) = &baseline {
        print!("{}", compare::render(&report, baseline));
    }
    report.save(&bench.out)?;
    println!("\nreport: {}", bench.out.join("report.html").display());
    println!("data:   {}", bench.out.join("report.json").display());
    match report.failures().as_slice() {
        [] => Ok(()),
        failures => Err(Failure(format!("not everything could be measured:\n  {}", failures.join("\n  ")))),
    }
}

fn chosen_scenarios(names: &[String]) -> Result<Vec<&'static Scenario>, Failure> {
    if names.is_empty() {
        return Ok(SCENARIOS.iter().collect());
    }
    let known = || SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| {
        Scenario::named(name).ok_or_else(|| Failure(format!("no scenario `{name}`; there are {}", known())))
    };
    names.iter().map(find).collect()
}

impl Bench {
    /// Builds Tidegate, finds the peers and takes its own CPU.
    fn prepare(arguments: &Arguments) -> Result<Self, Failure> {
        let workspace = Workspace::load()?;
        let out = arguments.out.clone().unwrap_or_else(|| workspace.target_directory.join("bench"));
        fs::create_dir_all(&out).context(out.display())?;
        // Proxies run elsewhere: paths in their configurations must not depend on a working folder.
        let out = out.canonicalize().context(out.display())?;
        let proxies = find_proxies(arguments, &workspace)?;
        for proxy in &proxies {
            eprintln!("{:<9} {:<18} {}", proxy.kind.name(), proxy.version, proxy.program.display());
        }
        if proxies.is_empty() {
            return Err(Failure::new("no proxy to measure"));
        }

        let limit = sys::raise_open_files() as usize;
        // A proxy may need a second descriptor for each connection while requests are under way.
        let idle_connections = fitting(arguments.idle_connections, limit.saturating_sub(500) / 2);
        let timeout_connections = fitting(arguments.timeout_connections, limit.saturating_sub(500));
        let cpus = match sys::usable_cpus()[..] {
            [proxy, load, ..] => Cpus { proxy: Some(proxy), load: Some(load) },
            _ => {
                eprintln!("one CPU only: proxies and load share it, so throughput and latency mean little");
                Cpus { proxy: None, load: None }
            }
        };
        if let Some(cpu) = cpus.load {
            sys::pin_to(cpu).context("pinning the load generator")?;
        }
        let dose = Dose {
            duration: Duration::try_from_secs_f64(arguments.duration).context("--duration")?,
            open_rate: arguments.rate,
            idle_connections,
            timeout_connections,
            idle_timeout: Duration::from_secs(arguments.idle_timeout),
            stale_duration: Duration::try_from_secs_f64(arguments.stale_duration)
                .context("--stale-duration")?,
        };
        Ok(Self { out, proxies, dose, rounds: arguments.rounds.max(1), cpus })
    }

    /// Runs all rounds of all scenarios.
    fn measure(&self, scenarios: &[&'static Scenario], origins: &Origins) -> Result<Report, Failure> {
        let mut progress = Progress::new(scenarios.len() * self.rounds * self.proxies.len());
        let mut results = Vec::new();
        for scenario in scenarios {
            let proxies: Vec<&Proxy> =
                self.proxies.iter().filter(|proxy| scenario.fits(proxy.kind, self.dose)).collect();
            let mut collected: Vec<Collected> = proxies.iter().map(|_| Collected::default()).collect();
            for round in 1..=scenario.rounds(self.rounds) {
                for (proxy, collected) in proxies.iter().copied().zip(&mut collected) {
                    progress.step(&format!(
                        "{} round {round}/{} {}",
                        scenario.name,
                        self.rounds,
                        proxy.kind.name()
                    ));
                    // One that failed once would fail again, and waiting for it costs time.
                    if collected.failed.is_none() {
                        collected.add(self.round(scenario, proxy, origins));
                    }
                }
            }
            let proxies = proxies.iter().zip(collected);
            results.push(ScenarioResult {
                name: scenario.name.to_owned(),
                title: scenario.title.to_owned(),
                shape: scenario.shape,
                results: proxies.map(|(proxy, collected)| collected.finish(proxy)).collect(),
            });
        }
        progress.finish();
        Ok(Report::new(self.dose, self.rounds, results))
    }

    fn round(&self, scenario: &Scenario, proxy: &Proxy, origins: &Origins) -> Result<Round, Failure> {
        let server = self.start(proxy, origins, scenario)?;
        scenario.measure(&server, origins.of(scenario).child.id() as i32, self.dose)
    }

    /// Starts a proxy in front of the origin, on its own CPU.
    fn start(&self, proxy: &Proxy, origins: &Origins, scenario: &Scenario) -> Result<Server, Failure> {
        self.start_under(proxy, origins, scenario, |command| command, process::PATIENCE)
    }

    /// The same with a changed command, which may take `patience` until it answers.
    fn start_under(
        &self,
        proxy: &Proxy,
        origins: &Origins,
        scenario: &Scenario,
        change: impl FnOnce(Command) -> Command,
        patience: Duration,
    ) -> Result<Server, Failure> {
        let name = proxy.kind.name();
        let setup = scenario.setup(proxies::free_port()?, origins.of(scenario).port, self.dose);
        let command = change(proxy.command(&self.out.join(name), setup)?);
        let log = self.out.join(format!("{name}.log"));
        let address = ([127, 0, 0, 1], setup.port).into();
        Server::start(command, log, address, &scenario.clients()?, self.cpus.proxy, patience)
            .context(format_args!("{name} did not start"))
    }
}

/// As many idle connections as are wanted and as open files allow.
fn fitting(wanted: usize, room: usize) -> usize {
    if room < wanted {
        eprintln!("only {room} of {wanted} idle connections fit under the limit of open files");
    }
    wanted.min(room)
}

/// Builds or finds what the options ask for; a peer that is not there is left out, and said so.
fn find_proxies(arguments: &Arguments, workspace: &Workspace) -> Result<Vec<Proxy>, Failure> {
    let wanted =
        |kind: Kind| arguments.proxy.is_empty() || arguments.proxy.iter().any(|name| name == kind.name());
    let mut found = Vec::new();
    if wanted(Kind::Tidegate) {
        let program = match &arguments.tidegate {
            Some(program) => program.clone(),
            None => {
                run_to_end(cargo().args(["build", "--release", "--package", "tidegate"]))?;
                workspace.target_directory.join("release/tidegate")
            }
        };
        let missing = || Failure(format!("no Tidegate at {}", program.display()));
        found.push(proxies::find(Kind::Tidegate, Some(&program)).ok_or_else(missing)?);
    }
    for kind in PEERS.into_iter().filter(|kind| wanted(*kind) && !arguments.no_peers) {
        let path = match kind {
            Kind::Nginx => &arguments.nginx,
            Kind::Haproxy => &arguments.haproxy,
            Kind::Envoy | Kind::Tidegate => &arguments.envoy,
        };
        match proxies::find(kind, path.as_deref()) {
            Some(proxy) => found.push(proxy),
            None => eprintln!("{} is not here (--{} PATH): measuring without it", kind.name(), kind.name()),
        }
    }
    Ok(found)
}

/// The rounds of one proxy in one scenario.
#[derive(Default)]
struct Collected {
    samples: Vec<Sample>,
    latency: Option<Histogram<u64>>,
    failed: Option<String>,
}

impl Collected {
    fn add(&mut self, round: Result<Round, Failure>) {
        match round {
            Err(Failure(message)) => self.failed = Some(message),
            Ok(round) => {
                self.samples.push(round.sample);
                match &mut self.latency {
                    Some(latency) => outcome::merge(latency, &round.latency),
                    None => self.latency = Some(round.latency),
                }
            }
        }
    }

    fn finish(self, proxy: &Proxy) -> ProxyResult {
        ProxyResult {
            proxy: proxy.kind.name().to_owned(),
            version: proxy.version.clone(),
            median: Sample::median(&self.samples),
            latency_curve: self.latency.as_ref().map(sample::latency_curve).unwrap_or_default(),
            samples: self.samples,
            failed: self.failed,
        }
    }
}

/// Both servers behind the proxies.
struct Origins {
    near: Origin,
    distant: Origin,
}

impl Origins {
    fn of(&self, scenario: &Scenario) -> &Origin {
        if scenario.shape == Shape::Stale { &self.distant } else { &self.near }
    }
}

/// An origin server's process; it ends with this value.
struct Origin {
    child: Child,
    port: u16,
}

impl Origin {
    fn start(cpu: Option<usize>, options: &[&str]) -> Result<Self, Failure> {
        let own = std::env::current_exe().context("finding xtask's own binary")?;
        let mut command = Command::new(own);
        command.arg("bench-backend").args(options).stdin(Stdio::null()).stdout(Stdio::piped());
        sys::tie(&mut command, cpu);
        let mut child = command.spawn().context("starting the backend")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.as_mut() {
            BufReader::new(stdout).read_line(&mut line).context("reading the backend's port")?;
        }
        let port = line.trim().parse().context("reading the backend's port")?;
        Ok(Self { child, port })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The part of the file name below the output folder that all reports share.
fn report_path(out: &Path, extension: &str) -> PathBuf {
    out.join("report").with_extension(extension)
}
