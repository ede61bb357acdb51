//! The report as text for a terminal: a table for each scenario, its ratios, its goals.

use super::report::{Report, SUBJECT, ScenarioResult};
use super::sample::Sample;
use super::scenario::{Goal, Scenario, Shape};

/// All scenarios, ready to print.
pub(super) fn render(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "\n{}, {} CPUs, Linux {}; medians of {} rounds of {} s\n",
        machine.cpu, machine.cpus, machine.kernel, report.rounds, report.seconds_per_round
    );
    for scenario in &report.scenarios {
        text.push_str(&render_scenario(scenario));
    }
    let all = report.scenarios.iter().flat_map(|scenario| &scenario.results);
    if all.map(|result| result.median.waited_percent).fold(0.0, f64::max) > NOISY_PERCENT {
        text.push_str(
            "\nnoisy: another program used the proxies' CPU (column `waited %`); run it again alone\n",
        );
    }
    text
}

fn render_scenario(scenario: &ScenarioResult) -> String {
    let mut text = format!("\n{}: {}\n", scenario.name, scenario.title);
    let columns = columns(scenario.shape);
    text.push_str(&format!("  {:<10}", "proxy"));
    for column in columns {
        text.push_str(&format!(" {:>11}", column.title));
    }
    text.push('\n');
    for result in &scenario.results {
        text.push_str(&format!("  {:<10}", result.proxy));
        match &result.failed {
            Some(reason) => text.push_str(&format!(" FAILED: {reason}")),
            None => {
                for column in columns {
                    let number = format!("{:.*}", column.decimals, (column.of)(&result.median));
                    text.push_str(&format!(" {number:>11}"));
                }
            }
        }
        text.push('\n');
    }
    let ratios: Vec<String> =
        scenario.ratios().iter().map(|(proxy, ratio)| format!("{ratio:.2} x {proxy}")).collect();
    if let (Some(subject), false) = (scenario.subject(), ratios.is_empty()) {
        text.push_str(&format!("  {subject}: {}\n", ratios.join(", ")));
    }
    for verdict in verdicts(scenario) {
        text.push_str(&format!("  goal: {verdict}\n"));
    }
    text
}

/// Each goal of the scenario that can be judged: `CPU at most 1.00 x haproxy: 0.87, met`.
pub(super) fn verdicts(scenario: &ScenarioResult) -> Vec<String> {
    let Some(own) = scenario.of(SUBJECT).map(|sample| scenario.figure(sample)) else { return Vec::new() };
    let goals = Scenario::named(&scenario.name).map_or(&[][..], |scenario| scenario.goals);
    let judged = goals.iter().filter_map(|goal| match goal {
        Goal::Cpu(limit, peer) => {
            let ratio = own / scenario.figure(scenario.of(peer)?);
            Some(format!("CPU at most {limit:.2} x {peer}: {ratio:.2}, {}", met(ratio <= *limit)))
        }
        Goal::Bytes(limit) => {
            Some(format!("at most {limit:.0} bytes a connection: {own:.0}, {}", met(own <= *limit)))
        }
        Goal::FailedPercent(limit) => {
            Some(format!("at most {limit:.2} % failed: {own:.3}, {}", met(own <= *limit)))
        }
        Goal::CorePercent(limit) => {
            Some(format!("at most {limit:.2} % of a core: {own:.3}, {}", met(own <= *limit)))
        }
    });
    judged.collect()
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}

/// One column of a table.
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) decimals: usize,
    pub(super) of: fn(&Sample) -> f64,
}

/// The columns that mean something for this kind of load.
pub(super) fn columns(shape: Shape) -> &'static [Column] {
    match shape {
        Shape::Closed | Shape::Open | Shape::Reconnect => LOADED,
        Shape::Idle => IDLE,
        Shape::IdleTimeout => TIMEOUT,
        Shape::Stale => STALE,
    }
}

/// Share of a round that a proxy may wait for its CPU before the run counts as noisy.
const NOISY_PERCENT: f64 = 5.0;

const LOADED: &[Column] = &[
    Column { title: "CPU us/req", decimals: 2, of: |s| s.cpu_us },
    Column { title: "user", decimals: 2, of: |s| s.user_us },
    Column { title: "system", decimals: 2, of: |s| s.system_us },
    Column { title: "req/s", decimals: 0, of: |s| s.requests_per_second },
    Column { title: "p50 us", decimals: 0, of: |s| s.p50_us },
    Column { title: "p99 us", decimals: 0, of: |s| s.p99_us },
    Column { title: "p99.9 us", decimals: 0, of: |s| s.p999_us },
    Column { title: "RSS MiB", decimals: 1, of: |s| s.rss_kib / 1024.0 },
    Column { title: "load us", decimals: 2, of: |s| s.load_us },
    Column { title: "drive %", decimals: 0, of: |s| s.drive_percent },
    Column { title: "waited %", decimals: 1, of: |s| s.waited_percent },
    Column { title: "errors", decimals: 0, of: |s| s.errors },
    Column { title: "reconnects", decimals: 0, of: |s| s.reconnects },
];

const IDLE: &[Column] = &[
    Column { title: "bytes/conn", decimals: 0, of: |s| s.idle_bytes.unwrap_or(0.0) },
    Column { title: "RSS MiB", decimals: 1, of: |s| s.rss_kib / 1024.0 },
    Column { title: "connections", decimals: 0, of: |s| s.requests },
    Column { title: "errors", decimals: 0, of: |s| s.errors },
];

const STALE: &[Column] = &[
    Column { title: "GET fail %", decimals: 3, of: |s| s.stale.unwrap_or_default().get_percent },
    Column { title: "POST fail %", decimals: 3, of: |s| s.stale.unwrap_or_default().post_percent },
    Column { title: "requests", decimals: 0, of: |s| s.requests },
    Column { title: "failed", decimals: 0, of: |s| s.errors },
    Column { title: "reconnects", decimals: 0, of: |s| s.reconnects },
];

const TIMEOUT: &[Column] = &[
    Column { title: "core %", decimals: 3, of: |s| s.timeout.unwrap_or_default().core_percent },
    Column { title: "earliest ms", decimals: 0, of: |s| s.timeout.unwrap_or_default().earliest_ms },
    Column { title: "latest ms", decimals: 0, of: |s| s.timeout.unwrap_or_default().latest_ms },
    Column { title: "left open", decimals: 0, of: |s| s.timeout.unwrap_or_default().left_open },
    Column { title: "resets", decimals: 0, of: |s| s.timeout.unwrap_or_default().resets },
    Column { title: "connections", decimals: 0, of: |s| s.requests },
    Column { title: "errors", decimals: 0, of: |s| s.errors },
];

#[cfg(test)]
mod tests {
    use super::super::report::examples::{report, scenario};
    use super::*;

    #[test]
    fn a_table_with_ratios_and_goals() {
        let scenario = scenario("h1-small", &[("tidegate", 5.0), ("haproxy", 4.0), ("envoy", 20.0)]);
        let text = render(&report(vec![scenario]));
        assert!(text.contains("tidegate: 1.25 x haproxy, 0.25 x envoy"), "{text}");
        assert!(text.contains("goal: CPU at most 1.00 x haproxy: 1.25, MISSED"), "{text}");
        assert!(text.contains("goal: CPU at most 0.45 x envoy: 0.25, met"), "{text}");
    }

    #[test]
    fn a_failed_proxy_says_why() {
        let mut scenario = scenario("h1-small", &[("tidegate", 5.0), ("haproxy", 4.0)]);
        scenario.results[0].samples.clear();
        scenario.results[0].failed = Some("tidegate did not start".into());
        let text = render(&report(vec![scenario]));
        assert!(text.contains("tidegate   FAILED: tidegate did not start"), "{text}");
        assert!(!text.contains("goal:"), "{text}");
    }
}
