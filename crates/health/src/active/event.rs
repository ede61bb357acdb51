//! `envoy.data.core.v3.HealthCheckEvent` as a line of JSON, with Envoy's order of fields.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_cluster::HostShared;
use tidegate_types::Address;
use tidegate_types::json::Text;

use super::session::Failure;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Eject(Failure),
    Add { first: bool },
    Fail { failure: Failure, first: bool },
    Degraded,
    NoLongerDegraded,
    Success,
}

/// Whom an event is about, and when it happened.
pub(super) struct About<'a> {
    pub(super) cluster: &'a str,
    pub(super) checker: &'static str,
    pub(super) host: &'a HostShared,
    pub(super) at: SystemTime,
}

impl Event {
    /// Appends the line.
    pub(super) fn write(self, about: &About<'_>, out: &mut String) {
        let _ = self.try_write(about, out);
    }

    fn try_write(self, about: &About<'_>, out: &mut String) -> std::fmt::Result {
        write!(out, r#"{{"health_checker_type":"{}","host":"#, about.checker)?;
        write_address(&about.host.address(), out)?;
        write!(out, r#","cluster_name":{}"#, Text(about.cluster))?;
        // Fields stand in the order of their numbers.
        match self {
            Self::Eject(failure) => {
                write!(out, r#","eject_unhealthy_event":{{{}}}"#, Failed(failure, None))?;
            }
            Self::Add { first } => write!(out, r#","add_healthy_event":{{"first_check":{first}}}"#)?,
            _ => {}
        }
        write!(out, r#","timestamp":"{}""#, timestamp(about.at))?;
        match self {
            Self::Fail { failure, first } => {
                write!(out, r#","health_check_failure_event":{{{}}}"#, Failed(failure, Some(first)))?;
            }
            Self::Degraded => out.push_str(r#","degraded_healthy_host":{}"#),
            Self::NoLongerDegraded => out.push_str(r#","no_longer_degraded_host":{}"#),
            _ => {}
        }
        let attributes = about.host.attributes();
        if let Some(metadata) = &attributes.metadata {
            write!(out, r#","metadata":{{"filter_metadata":{metadata},"typed_filter_metadata":{{}}}}"#)?;
        }
        let place = &attributes.locality;
        let [region, zone, sub_zone] = [&place.region, &place.zone, &place.sub_zone].map(|name| Text(name));
        write!(out, r#","locality":{{"region":{region},"zone":{zone},"sub_zone":{sub_zone}}}"#)?;
        if self == Self::Success {
            out.push_str(r#","successful_health_check_event":{}"#);
        }
        out.push_str("}\n");
        Ok(())
    }
}

fn write_address(address: &Address, out: &mut String) -> std::fmt::Result {
    match address {
        Address::Ip(socket) => write!(
            out,
            concat!(
                r#"{{"socket_address":{{"protocol":"TCP","address":"{}","port_value":{},"resolver_name":"","#,
                r#""ipv4_compat":false,"network_namespace_filepath":""}}}}"#
            ),
            socket.ip(),
            socket.port()
        ),
        other => write!(out, r#"{{"pipe":{{"path":{},"mode":0}}}}"#, Text(&other.to_string())),
    }
}

/// The fields of a failure.
struct Failed(Failure, Option<bool>);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = if let Failure::Answer { status, .. } = self.0 { status } else { 0 };
        write!(f, r#""failure_type":"{}""#, self.0.name())?;
        if let Some(first) = self.1 {
            write!(f, r#","first_check":{first}"#)?;
        }
        write!(f, r#","http_status_code":{status}"#)
    }
}

/// RFC 3339 in UTC with milliseconds, without a fraction of 0, as protobuf's JSON has it.
fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = civil(seconds / 86_400);
    let ms = match since.subsec_millis() {
        0 => String::new(),
        ms => format!(".{ms:03}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{ms}Z")
}

/// The date of a day since 1970, by eras of 400 years that begin in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_protobufs() {
        let at = |ms| timestamp(UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400_007), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_795_336_108_045), "2026-11-22T08:28:28.045Z");
    }
}
