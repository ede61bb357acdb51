//! The data of a whole run, as `report.json` holds it: [`Report`], a scenario's results, ratios.
//!
//! The modules `table`, `html` and `compare` only read it.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::sample::Sample;
use super::scenario::{Dose, Shape};
use super::{html, report_path};
use crate::failure::{Context, Failure};

/// One run of the benchmark.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// Raised when a field changes its meaning.
    pub(super) format: u32,
    pub(super) machine: Machine,
    pub(super) rounds: usize,
    pub(super) seconds_per_round: f64,
    pub(super) open_loop_rate: u64,
    pub(super) idle_connections: usize,
    pub(super) scenarios: Vec<ScenarioResult>,
}

/// Where the run happened.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cpus: usize,
    pub(super) kernel: String,
}

/// All proxies in one scenario.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ScenarioResult {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) shape: Shape,
    pub(super) results: Vec<ProxyResult>,
}

/// One proxy in one scenario.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProxyResult {
    pub(super) proxy: String,
    pub(super) version: String,
    pub(super) median: Sample,
    pub(super) samples: Vec<Sample>,
    /// (quantile, microseconds) over all rounds.
    pub(super) latency_curve: Vec<(f64, f64)>,
    /// Why the proxy could not be measured.
    pub(super) failed: Option<String>,
}

/// The subject of the comparison when it was measured; its ratios are what the reports show.
pub(super) const SUBJECT: &str = "tidegate";

const FORMAT: u32 = 1;

impl Report {
    /// Joins results with what is known about the machine.
    pub(super) fn new(dose: Dose, rounds: usize, scenarios: Vec<ScenarioResult>) -> Self {
        Self {
            format: FORMAT,
            machine: Machine::here(),
            rounds,
            seconds_per_round: dose.duration.as_secs_f64(),
            open_loop_rate: dose.open_rate,
            idle_connections: dose.idle_connections,
            scenarios,
        }
    }

    /// Reads a former run.
    pub(super) fn load(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).context(path.display())?;
        let report: Self = serde_json::from_str(&text).context(path.display())?;
        if report.format != FORMAT {
            return Err(Failure(format!("{}: format {} is not {FORMAT}", path.display(), report.format)));
        }
        Ok(report)
    }

    /// Writes `report.json` and `report.html` into `folder`.
    pub(super) fn save(&self, folder: &Path) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(self).context("writing JSON")?;
        let path = report_path(folder, "json");
        fs::write(&path, json).context(path.display())?;
        let path = report_path(folder, "html");
        fs::write(&path, html::render(self)).context(path.display())
    }

    /// What could not be measured, a line each.
    pub(super) fn failures(&self) -> Vec<String> {
        let all = self.scenarios.iter().flat_map(|scenario| {
            scenario
                .results
                .iter()
                .filter_map(|result| Some(format!("{}: {}", scenario.name, result.failed.as_ref()?)))
        });
        all.collect()
    }
}

impl ScenarioResult {
    /// A proxy's medians, if it was measured.
    pub(super) fn of(&self, proxy: &str) -> Option<&Sample> {
        self.results
            .iter()
            .find(|r| r.proxy == proxy && r.failed.is_none() && !r.samples.is_empty())
            .map(|r| &r.median)
    }

    /// The number by which this scenario is judged: CPU microseconds a request, bytes an idle
    /// connection, percent of a core, or percent of requests that failed.
    pub(super) fn figure(&self, sample: &Sample) -> f64 {
        match self.shape {
            Shape::Closed | Shape::Open | Shape::Reconnect => sample.cpu_us,
            Shape::IdleTimeout => sample.timeout.unwrap_or_default().core_percent,
            Shape::Idle => sample.idle_bytes.unwrap_or(0.0),
            Shape::Stale => {
                let stale = sample.stale.unwrap_or_default();
                stale.get_percent.max(stale.post_percent)
            }
        }
    }

    /// The proxy that ratios are about: Tidegate, or the first that was measured.
    pub(super) fn subject(&self) -> Option<&str> {
        let measured = || self.results.iter().filter(|result| self.of(&result.proxy).is_some());
        let subject = measured().find(|result| result.proxy == SUBJECT).or_else(|| measured().next())?;
        Some(&subject.proxy)
    }

    /// The subject's figure over each other proxy's: (proxy, ratio).
    pub(super) fn ratios(&self) -> Vec<(&str, f64)> {
        let Some(subject) = self.subject() else { return Vec::new() };
        let own = self.of(subject).map_or(0.0, |sample| self.figure(sample));
        let others = self.results.iter().filter(|result| result.proxy != subject);
        others
            .filter_map(|result| {
                let other = self.figure(self.of(&result.proxy)?);
                (other > 0.0).then(|| (result.proxy.as_str(), own / other))
            })
            .collect()
    }
}

impl Machine {
    fn here() -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mut models = cpus.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: models.next().map_or("?", |(_, model)| model).to_owned(),
            cpus: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: kernel.trim().to_owned(),
        }
    }
}

/// Results for the tests of whatever reads a report.
#[cfg(test)]
pub(super) mod examples {
    use std::time::Duration;

    use super::*;

    /// A scenario in which each proxy needs the given CPU microseconds.
    pub(in super::super) fn scenario(name: &str, cpu: &[(&str, f64)]) -> ScenarioResult {
        let result = |(proxy, cpu_us): &(&str, f64)| {
            let median =
                Sample { cpu_us: *cpu_us, user_us: *cpu_us / 4.0, requests: 10.0, ..Sample::default() };
            ProxyResult {
                proxy: (*proxy).to_owned(),
                version: "1".into(),
                median,
                samples: vec![median],
                latency_curve: vec![(0.0, 10.0), (0.5, 20.0), (0.99, 300.0)],
                failed: None,
            }
        };
        ScenarioResult {
            name: name.into(),
            title: "<title>".into(),
            shape: Shape::Closed,
            results: cpu.iter().map(result).collect(),
        }
    }

    /// A report of these scenarios.
    pub(in super::super) fn report(scenarios: Vec<ScenarioResult>) -> Report {
        let dose = Dose {
            duration: Duration::from_secs(1),
            open_rate: 1,
            idle_connections: 1,
            timeout_connections: 1,
            idle_timeout: Duration::from_secs(1),
            stale_duration: Duration::from_secs(1),
        };
        Report::new(dose, 1, scenarios)
    }
}

#[cfg(test)]
mod tests {
    use super::examples::{report, scenario};
    use super::*;

    #[test]
    fn ratios_are_about_tidegate() {
        let scenario = scenario("h1-small", &[("nginx", 10.0), ("tidegate", 5.0), ("envoy", 20.0)]);
        assert_eq!(scenario.ratios(), [("nginx", 0.5), ("envoy", 0.25)]);
    }

    #[test]
    fn without_tidegate_the_first_is_the_subject() {
        let mut scenario = scenario("h1-small", &[("tidegate", 5.0), ("nginx", 10.0), ("envoy", 20.0)]);
        scenario.results[0].samples.clear();
        scenario.results[0].failed = Some("tidegate did not start".into());
        assert_eq!(scenario.subject(), Some("nginx"));
        assert_eq!(scenario.ratios(), [("envoy", 0.5)]);
        assert_eq!(report(vec![scenario]).failures(), ["h1-small: tidegate did not start"]);
    }

    #[test]
    fn json_round_trip() {
        let text = serde_json::to_string(&report(vec![scenario("a", &[("nginx", 10.0)])])).unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(back.scenarios[0].of("nginx").unwrap().cpu_us, 10.0);
    }
}
