//! Events as lines of the event log, in the shape of Envoy's `OutlierDetectionEvent`.

use std::fmt::Write;
use std::time::SystemTime;

use tidegate_cluster::judged::History;
use tidegate_types::{Address, calendar};
use tokio::time::Instant;

use super::machine::{Average, Event, Kind, Origin, Outcome};

/// What the log tells of an event.
pub(super) struct Facts<'a> {
    pub(super) cluster: &'a str,
    pub(super) host: &'a Address,
    /// With the event.
    pub(super) history: &'a History,
    /// By [`Origin`].
    pub(super) rates: [f64; 2],
    /// By [`Origin`].
    pub(super) averages: [Option<Average>; 2],
    pub(super) now: (Instant, SystemTime),
}

impl Facts<'_> {
    /// The line, without its end; `None`: Envoy says nothing of such an event.
    pub(super) fn line(&self, event: Event) -> Option<String> {
        let ejections = self.history.ejections;
        Some(match event {
            Event::Detected(_, _, Outcome::Overflow | Outcome::AlreadyEjected) => return None,
            Event::Detected(_, kind, outcome) => {
                let enforced = outcome == Outcome::Ejected;
                let head = self.head(type_of(kind), self.history.returned_at);
                let details = self.details(kind);
                let rest = format!(r#""action":"EJECT","num_ejections":{ejections},"enforced":{enforced}"#);
                format!("{head}{rest},{details}}}")
            }
            // The type of the first value: Envoy sets none here.
            Event::Returned(_) => {
                let head = self.head("CONSECUTIVE_5XX", self.history.ejected_at);
                format!(r#"{head}"action":"UNEJECT","num_ejections":{ejections},"enforced":false}}"#)
            }
            Event::Degraded(_) => {
                let head = self.head("DEGRADED", self.history.returned_at);
                let rest = format!(r#""action":"EJECT","num_ejections":{ejections},"enforced":true"#);
                format!(r#"{head}{rest},"eject_consecutive_event":{{}}}}"#)
            }
            Event::Restored(_) => {
                let head = self.head("CONSECUTIVE_5XX", self.history.ejected_at);
                format!(r#"{head}"action":"UNEJECT","num_ejections":{ejections},"enforced":false}}"#)
            }
        })
    }

    /// What all events have in common; `before` is when the opposite happened last.
    fn head(&self, kind: &str, before: Option<Instant>) -> String {
        let (now, date) = self.now;
        let mut head = format!(r#"{{"type":"{kind}","timestamp":"{}","#, calendar::rfc3339(date));
        if let Some(before) = before {
            let seconds = now.saturating_duration_since(before).as_secs();
            // Writing to a `String` does not fail.
            let _ = write!(head, r#""secs_since_last_action":"{seconds}","#);
        }
        let cluster = serde_json::Value::from(self.cluster);
        let host = serde_json::Value::from(self.host.to_string());
        let _ = write!(head, r#""cluster_name":{cluster},"upstream_url":{host},"#);
        head
    }

    fn details(&self, kind: Kind) -> String {
        let rate = |origin: Origin| self.rates[origin as usize];
        let success_rate = |origin: Origin| {
            let average = self.averages[origin as usize].unwrap_or(Average { mean: -1.0, threshold: -1.0 });
            format!(
                r#""eject_success_rate_event":{{"host_success_rate":{},"cluster_average_success_rate":{},"cluster_success_rate_ejection_threshold":{}}}"#,
                rate(origin) as u32,
                average.mean as u32,
                average.threshold as u32
            )
        };
        let percentage = |origin: Origin| {
            let rate = rate(origin) as u32;
            format!(r#""eject_failure_percentage_event":{{"host_success_rate":{rate}}}"#)
        };
        match kind {
            Kind::Consecutive5xx | Kind::ConsecutiveGatewayFailure | Kind::ConsecutiveLocalOriginFailure => {
                r#""eject_consecutive_event":{}"#.to_owned()
            }
            Kind::SuccessRate => success_rate(Origin::External),
            Kind::SuccessRateLocalOrigin => success_rate(Origin::Local),
            Kind::FailurePercentage => percentage(Origin::External),
            Kind::FailurePercentageLocalOrigin => percentage(Origin::Local),
        }
    }
}

fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Consecutive5xx => "CONSECUTIVE_5XX",
        Kind::ConsecutiveGatewayFailure => "CONSECUTIVE_GATEWAY_FAILURE",
        Kind::ConsecutiveLocalOriginFailure => "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
        Kind::SuccessRate => "SUCCESS_RATE",
        Kind::SuccessRateLocalOrigin => "SUCCESS_RATE_LOCAL_ORIGIN",
        Kind::FailurePercentage => "FAILURE_PERCENTAGE",
        Kind::FailurePercentageLocalOrigin => "FAILURE_PERCENTAGE_LOCAL_ORIGIN",
    }
}
