//! This run beside a former one: plain ratios, and ratios relative to each peer of the same run.
//!
//! A plain ratio mixes the code's change with the machine's mood. Dividing each run's figure by a peer's in
//! that run first takes the machine out: 0.95 relative to HAProxy means 5% less CPU than before, measured in
//! HAProxies.

use super::report::{Report, SUBJECT, ScenarioResult};

/// The comparison as a table.
pub(super) fn render(now: &Report, before: &Report) -> String {
    let mut text = String::from("\ncompared with the baseline (below 1 is better now)\n");
    for scenario in &now.scenarios {
        let Some(former) = before.scenarios.iter().find(|former| former.name == scenario.name) else {
            text.push_str(&format!("  {:<16} not in the baseline\n", scenario.name));
            continue;
        };
        match Change::between(scenario, former) {
            None => text.push_str(&format!("  {:<16} not measured in both runs\n", scenario.name)),
            Some(change) => {
                let relative: Vec<String> = change
                    .relative
                    .iter()
                    .map(|(peer, ratio)| format!("{ratio:.3} relative to {peer}"))
                    .collect();
                let line =
                    format!("{:<9} plain {:.3}, {}", change.subject, change.plain, relative.join(", "));
                text.push_str(&format!("  {:<16} {}\n", scenario.name, line.trim_end_matches(", ")));
            }
        }
    }
    text
}

/// How one proxy's figure moved in one scenario.
#[derive(Debug, PartialEq)]
struct Change {
    subject: String,
    plain: f64,
    relative: Vec<(String, f64)>,
}

impl Change {
    /// `None` when the subject is missing in one of the runs.
    fn between(now: &ScenarioResult, before: &ScenarioResult) -> Option<Self> {
        let subject = if now.of(SUBJECT).is_some() { SUBJECT } else { now.subject()? };
        let figure = |scenario: &ScenarioResult, proxy: &str| {
            scenario.of(proxy).map(|sample| scenario.figure(sample)).filter(|figure| *figure > 0.0)
        };
        let plain = figure(now, subject)? / figure(before, subject)?;
        let peers = now.results.iter().map(|result| result.proxy.as_str()).filter(|proxy| *proxy != subject);
        let relative = peers
            .filter_map(|peer| Some((peer.to_owned(), plain / (figure(now, peer)? / figure(before, peer)?))))
            .collect();
        Some(Self { subject: subject.to_owned(), plain, relative })
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::examples::{report, scenario};
    use super::*;

    #[test]
    fn a_slower_machine_cancels_out() {
        let before = scenario("h1-small", &[("tidegate", 10.0), ("haproxy", 10.0)]);
        let now = scenario("h1-small", &[("tidegate", 15.0), ("haproxy", 20.0), ("envoy", 30.0)]);
        let change = Change::between(&now, &before).unwrap();
        assert_eq!(change.plain, 1.5);
        assert_eq!(change.relative, [("haproxy".to_owned(), 0.75)]);
    }

    #[test]
    fn gaps_are_told() {
        let before = report(vec![scenario("a", &[("nginx", 1.0)])]);
        let now = report(vec![scenario("a", &[("tidegate", 1.0)]), scenario("b", &[("tidegate", 1.0)])]);
        let text = render(&now, &before);
        assert!(text.contains("not measured in both runs") && text.contains("not in the baseline"), "{text}");
    }
}
