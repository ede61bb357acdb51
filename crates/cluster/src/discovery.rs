//! Finding hosts by DNS (Envoy docs, "Service discovery": strict DNS, logical DNS), and where requests were going
//! (`original_dst`).
//!
//! When a name is looked up again is decided by `schedule`, a machine without a clock; what an answer means for the
//! hosts by `strict` and `logical`. The loop that waits and asks is here; it runs on the main thread. Start from
//! [`attend`].

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use tidegate_config::cluster::{
    Discovery, DnsConfig, DnsResolverConfig, EndpointConfig, LookupFamily, ResolverConfig,
};
use tidegate_net::dns::{
    DnsStats, Families, Found, Resolve, ResolveError, Resolver, ResolverOptions, SystemResolver,
};
use tidegate_stats::Scope;
use tidegate_types::Address;

use crate::attend::{AttendContext, Attendant, Hold};
use crate::neighbours::Peers;
use crate::shared::ClusterShared;

mod logical;
mod original_dst;
mod schedule;
mod strict;

use logical::Logical;
pub(crate) use original_dst::{Destination, Destinations, place as original_place};
use schedule::{Outcome, Schedule};
use strict::{Board, Target};

/// Starts looking up the names of `cluster`, if it has some, or tending its hosts that workers make. On the main thread, within a `LocalSet` or local runtime.
/// The cluster is not warm before each name was looked up once, whatever came of it.
pub fn attend(cluster: &Arc<ClusterShared>, cx: AttendContext<'_>) -> Vec<Attendant> {
    if let Discovery::OriginalDst(config) = &cluster.config().discovery {
        let tend = original_dst::tend(cluster.clone(), (**config).clone(), cx.peers.clone());
        return vec![Attendant::spawn(tend)];
    }
    let (Discovery::StrictDns(config) | Discovery::LogicalDns(config)) = &cluster.config().discovery else {
        return Vec::new();
    };
    let resolver: Rc<dyn Resolve> = match &config.resolver {
        Some(ResolverConfig::System(system)) => {
            Rc::new(SystemResolver::new(system.at_once.unwrap_or(1), system.retries))
        }
        Some(ResolverConfig::Dns(dns)) => Rc::new(Resolver::new(options(dns), dns_stats(&cx))),
        None => Rc::new(Resolver::new(ResolverOptions::default(), dns_stats(&cx))),
    };
    look_up(cluster, config, &resolver, cx.peers)
}

/// As [`attend`], with answers of `resolver`.
fn look_up(
    cluster: &Arc<ClusterShared>,
    config: &DnsConfig,
    resolver: &Rc<dyn Resolve>,
    peers: &Arc<Peers>,
) -> Vec<Attendant> {
    let start = |name: &str, takes: Box<dyn Takes>| {
        let lookup = Lookup {
            name: name.to_owned(),
            families: families(config.family),
            resolver: resolver.clone(),
            schedule: Schedule::new(config),
            cluster: cluster.clone(),
            peers: peers.clone(),
            takes,
        };
        Attendant::spawn(lookup.run(cluster.warming().hold()))
    };
    match &cluster.config().discovery {
        Discovery::LogicalDns(_) => {
            Logical::of(cluster.config()).map(|logical| start(logical.name(), Box::new(logical.clone())))
        }
        _ => None,
    }
    .into_iter()
    .chain(ask_for_services(cluster, config, resolver, peers))
    .chain(Board::targets(cluster.config()).map(|target: Target| {
        let name = target.name().to_owned();
        start(&name, Box::new(target))
    }))
    .collect()
}

/// Starts asking who serves the cluster's names by HTTP/3, where that is of use. Nothing waits for it.
fn ask_for_services(
    cluster: &Arc<ClusterShared>,
    config: &DnsConfig,
    resolver: &Rc<dyn Resolve>,
    peers: &Arc<Peers>,
) -> Vec<Attendant> {
    if cluster.services().is_none() {
        return Vec::new();
    }
    let endpoints = cluster.config().endpoints.iter().flat_map(|place| &place.endpoints);
    let endpoints = endpoints.filter_map(|endpoint| {
        let name = endpoint.name.as_ref()?.to_string();
        Some((name, hostname(endpoint), endpoint.address.port().unwrap_or_default()))
    });
    let distinct: HashSet<(String, String, u16)> = endpoints.collect();
    let ask = |(name, hostname, port): (String, String, u16)| {
        let (cluster, resolver, peers) = (cluster.clone(), resolver.clone(), peers.clone());
        let mut schedule = Schedule::new(config);
        Attendant::spawn(async move {
            loop {
                let outcome = match resolver.services(&name, port).await {
                    Ok(found) => {
                        if let Some(services) = cluster.services() {
                            services.note((hostname.clone(), port), &found);
                            peers.tell_of_hosts(&cluster);
                        }
                        Outcome::Answered { ttl: found.iter().map(|found| found.ttl).min() }
                    }
                    Err(error) => {
                        tracing::debug!(target: "dns", cluster = %cluster.name(), name, %error, "nobody tells of services");
                        Outcome::Failed
                    }
                };
                tokio::time::sleep(schedule.wait(outcome, || fastrand::u64(..))).await;
            }
        })
    };
    distinct.into_iter().map(ask).collect()
}

/// Does with the cluster what an answer means.
trait Takes {
    /// The addresses that the name has; none if it has none, or does not exist.
    fn take(&mut self, cluster: &ClusterShared, found: &[Found]) -> Taken;
}

/// What came of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// Hosts differ.
    Changed,
    /// All is as it was.
    Same,
    /// It is of no use: as if nobody had answered.
    Useless,
}

/// A name, looked up again and again.
struct Lookup {
    name: String,
    families: Families,
    resolver: Rc<dyn Resolve>,
    schedule: Schedule,
    cluster: Arc<ClusterShared>,
    peers: Arc<Peers>,
    takes: Box<dyn Takes>,
}

impl Lookup {
    async fn run(mut self, hold: Hold) {
        let mut hold = Some(hold);
        loop {
            self.cluster.stats().balance.update_attempt().inc();
            let answer = self.resolver.resolve(&self.name, self.families).await;
            let outcome = self.take(answer);
            // Also after a failure: a cluster that cannot be resolved keeps none from starting.
            drop(hold.take());
            tokio::time::sleep(self.schedule.wait(outcome, || fastrand::u64(..))).await;
        }
    }

    fn take(&mut self, answer: Result<Vec<Found>, ResolveError>) -> Outcome {
        let balance = &self.cluster.stats().balance;
        let cluster = self.cluster.name();
        let found = match answer {
            Ok(found) => found,
            Err(error) => {
                balance.update_failure().inc();
                tracing::debug!(target: "dns", %cluster, name = %self.name, %error, "a name cannot be resolved");
                return Outcome::Failed;
            }
        };
        match self.takes.take(&self.cluster, &found) {
            Taken::Useless => {
                balance.update_failure().inc();
                tracing::debug!(target: "dns", %cluster, name = %self.name, "a name has no address");
                return Outcome::Failed;
            }
            Taken::Same => balance.update_no_rebuild().inc(),
            Taken::Changed => {
                tracing::debug!(target: "dns", %cluster, name = %self.name, addresses = found.len(), "hosts change");
                self.peers.tell_of_hosts(&self.cluster);
            }
        }
        balance.update_success().inc();
        Outcome::Answered { ttl: found.iter().map(|found| found.ttl).min() }
    }
}

/// A host of `template` at the addresses `found`, of which the first is its own.
fn host(template: &EndpointConfig, found: &[Found]) -> Option<EndpointConfig> {
    let port = template.address.port().unwrap_or_default();
    let mut addresses = found.iter().map(|found| Address::Ip((found.ip, port).into()));
    let address = addresses.next()?;
    let hostname = hostname(template);
    Some(EndpointConfig { address, additional_addresses: addresses.collect(), hostname, ..template.clone() })
}

/// What TLS and `auto_host_rewrite` know the hosts of `template` by.
fn hostname(template: &EndpointConfig) -> String {
    match template.hostname.is_empty() {
        true => template.name.clone().unwrap_or_default(),
        false => template.hostname.clone(),
    }
}

fn families(family: LookupFamily) -> Families {
    match family {
        LookupFamily::Auto => Families::V6ThenV4,
        LookupFamily::V4Only => Families::V4,
        LookupFamily::V6Only => Families::V6,
        LookupFamily::V4Preferred => Families::V4ThenV6,
        LookupFamily::All => Families::Both,
    }
}

fn dns_stats(cx: &AttendContext<'_>) -> DnsStats {
    DnsStats::new(cx.store, Scope::new("dns", &["cares"]))
}

fn options(config: &DnsResolverConfig) -> ResolverOptions {
    ResolverOptions {
        servers: config.servers.clone(),
        servers_are_fallback: config.servers_are_fallback,
        filter_unroutable_families: config.filter_unroutable_families,
        tcp: config.tcp,
        no_search: config.no_search,
        timeout: config.query_timeout,
        tries: config.query_tries,
        rotate: config.rotate,
        max_payload: config.max_payload,
    }
}

#[cfg(test)]
mod tests;
