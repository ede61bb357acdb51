//! `envoy.config.core.v3.HealthCheck`: how hosts are asked whether they work.

use std::time::Duration;

use tidegate_types::Address;
use tidegate_types::json::Node;

use crate::address::Endpoint;
use crate::reader::{Field, Message, Reader};
use crate::values::Place;

mod checker;
mod events;
mod http;
mod payload;

pub use self::http::{CheckProtocol, HttpCheck, StatusRanges};
pub use checker::{Checker, GrpcCheck, TcpCheck};
pub use events::CheckEvents;

/// A validated check. Jitters are added to the interval at hand: up to a fixed time, and up to a share of it.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheckConfig {
    /// `name`: what statistics call it; empty: nothing. Checks that are one of several have different ones.
    pub name: String,
    /// `timeout`: an attempt that takes longer failed.
    pub timeout: Duration,
    /// `interval`s between attempts.
    pub intervals: CheckIntervals,
    /// `initial_jitter`: the first attempt comes within this time, at once when 0.
    pub initial_jitter: Duration,
    /// `interval_jitter`.
    pub interval_jitter: Duration,
    /// `interval_jitter_percent`.
    pub interval_jitter_percent: u32,
    /// `unhealthy_threshold`: as many failures in a row that say nothing definite make a host fail; 0: none do.
    pub unhealthy_threshold: u32,
    /// `healthy_threshold`: as many successes in a row make a failing host work again; 0: none do.
    pub healthy_threshold: u32,
    /// `reuse_connection`, true when unset.
    pub reuse_connection: bool,
    /// `tls_options.alpn_protocols`: replaces what the cluster's transport offers, unless empty.
    pub alpn_protocols: Vec<String>,
    /// `transport_socket_match_criteria`: labels that stand in for those of hosts in `transport_socket_matches`;
    /// `None`: checks speak what the host speaks.
    pub transport_labels: Option<Node>,
    /// Which events are written, and where.
    pub events: CheckEvents,
    /// What is asked.
    pub checker: Checker,
    /// The message.
    pub place: Place,
}

/// The times between attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckIntervals {
    /// `interval`: of hosts that work.
    pub healthy: Duration,
    /// `healthy_edge_interval`, by default `interval`: a failing host succeeded, but not often enough yet.
    pub healthy_edge: Duration,
    /// `unhealthy_interval`, by default `interval`: of hosts that fail.
    pub unhealthy: Duration,
    /// `unhealthy_edge_interval`, by default `unhealthy_interval`: a working host failed, but not often enough yet.
    pub unhealthy_edge: Duration,
    /// `no_traffic_interval`, 60 s when unset: as long as the cluster never had a connection for traffic.
    pub no_traffic: Duration,
    /// `no_traffic_healthy_interval`, by default `no_traffic_interval`: the same, of hosts that work.
    pub no_traffic_healthy: Duration,
}

impl Message for HealthCheckConfig {
    const NAME: &'static str = "envoy.config.core.v3.HealthCheck";

    fn read(r: &Reader<'_>) -> Self {
        r.refuse("alt_port", "Envoy ignores this field: see `health_check_config.port_value` of endpoints");
        r.refuse("event_service", "events are written to files only: see `event_logger`");
        r.refuse(
            "custom_health_check",
            "custom checks (redis, thrift and others) are not supported by this build: use `tcp_health_check`",
        );
        Self {
            name: r.string("name").or_default(),
            timeout: r.duration("timeout").greater_than_zero().required(),
            intervals: CheckIntervals::read(r),
            initial_jitter: r.duration("initial_jitter").or_default(),
            interval_jitter: r.duration("interval_jitter").or_default(),
            interval_jitter_percent: r.u32("interval_jitter_percent").or_default(),
            unhealthy_threshold: r.u32("unhealthy_threshold").required(),
            healthy_threshold: r.u32("healthy_threshold").required(),
            reuse_connection: r.bool("reuse_connection").or(true),
            alpn_protocols: r.message_or_defaults::<TlsOptions>("tls_options").0,
            transport_labels: r.structure("transport_socket_match_criteria").optional(),
            events: CheckEvents::read(r),
            checker: Checker::read(r),
            place: Place::of(r),
        }
    }
}

impl CheckIntervals {
    fn read(r: &Reader<'_>) -> Self {
        let healthy = r.duration("interval").greater_than_zero().required();
        let no_traffic = positive(r, "no_traffic_interval").or(NO_TRAFFIC);
        let unhealthy = positive(r, "unhealthy_interval").or(healthy);
        Self {
            healthy,
            healthy_edge: positive(r, "healthy_edge_interval").or(healthy),
            unhealthy,
            unhealthy_edge: positive(r, "unhealthy_edge_interval").or(unhealthy),
            no_traffic,
            no_traffic_healthy: positive(r, "no_traffic_healthy_interval").or(no_traffic),
        }
    }
}

fn positive<'a>(r: &'a Reader<'a>, name: &'static str) -> Field<'a, Duration> {
    r.duration(name).greater_than_zero()
}

/// The field `health_checks`.
pub(super) fn health_checks(r: &Reader<'_>, speaks_http2: bool) -> Vec<HealthCheckConfig> {
    let checks = r.repeated::<HealthCheckConfig>("health_checks").check(|checks| names(checks));
    let checks = checks.check(|checks| {
        let lost = checks.iter().any(|check| matches!(check.checker, Checker::Grpc(_))) && !speaks_http2;
        if lost { Err("gRPC health checks need a cluster that speaks HTTP/2".to_owned()) } else { Ok(()) }
    });
    checks.or_default()
}

/// Several have names, and each its own. In Envoy's words.
fn names(checks: &[HealthCheckConfig]) -> Result<(), String> {
    if checks.len() < 2 {
        return Ok(());
    }
    for (index, check) in checks.iter().enumerate() {
        if check.name.is_empty() {
            return Err(format!(
                "health check at index {index} is missing a name; all health checks must have a name when multiple \
                 health checks are configured"
            ));
        }
        if checks[..index].iter().any(|other| other.name == check.name) {
            return Err(format!(
                "duplicate health check name '{}' at index {index}; all health check names must be unique within a \
                 cluster",
                check.name
            ));
        }
    }
    Ok(())
}

struct TlsOptions(Vec<String>);

impl Message for TlsOptions {
    const NAME: &'static str = "envoy.config.core.v3.HealthCheck.TlsOptions";

    fn read(r: &Reader<'_>) -> Self {
        Self(r.strings("alpn_protocols").or_default())
    }
}

/// `Endpoint.HealthCheckConfig`: what a host's checks do otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EndpointHealthCheck {
    /// `address`, by default the host's.
    pub address: Option<Address>,
    /// `port_value`, by default that of the address.
    pub port: Option<u16>,
    /// `hostname`: asked for instead of the check's; empty when unset.
    pub hostname: String,
    /// `disable_active_health_check`: the host counts as one that works.
    pub disabled: bool,
}

impl Message for EndpointHealthCheck {
    const NAME: &'static str = "envoy.config.endpoint.v3.Endpoint.HealthCheckConfig";

    fn read(r: &Reader<'_>) -> Self {
        let port = r.u32("port_value").within(0..=65535).or_default();
        Self {
            address: r.message::<Endpoint>("address").optional().map(|endpoint| endpoint.address),
            port: u16::try_from(port).ok().filter(|port| *port > 0),
            hostname: r.string("hostname").or_default(),
            disabled: r.bool("disable_active_health_check").or_default(),
        }
    }
}

impl EndpointHealthCheck {
    /// Where a host at `address` is checked.
    pub fn address(&self, address: &Address) -> Address {
        match (self.address.as_ref().unwrap_or(address), self.port) {
            (Address::Ip(socket), Some(port)) => Address::Ip((socket.ip(), port).into()),
            (address, _) => address.clone(),
        }
    }
}

/// Envoy's `no_traffic_interval`.
const NO_TRAFFIC: Duration = Duration::from_secs(60);
