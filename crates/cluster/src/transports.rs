//! What a cluster's connections speak below their protocol: one transport for most hosts, others for hosts whose
//! metadata has certain labels (Envoy docs, `Cluster.TransportSocketMatch`).

use std::rc::Rc;
use std::sync::Arc;

use tidegate_config::ClusterConfig;
use tidegate_config::cluster::{EndpointConfig, LocalityEndpoints, TRANSPORT_LABELS};
use tidegate_net::{BoxIo, Connecting, Transport};
use tidegate_pool::quic::QuicTransports;
use tidegate_pool::{TransportFactory, TransportOptions};
use tidegate_stats::{DynScope, OwnedCounter, Store};
use tidegate_types::json::Node;

use crate::host::HostShared;
use crate::lb::Label;
use crate::stats::ClusterStats;

/// What is built of `transport_socket` and `transport_socket_matches`.
#[derive(Clone, Debug, Default)]
pub struct Transports {
    /// Of hosts that none of `matches` is for.
    pub rest: HostTransports,
    /// One for each of `transport_socket_matches`.
    pub matches: Box<[HostTransports]>,
}

/// What connections to a host speak.
#[derive(Clone, Debug, Default)]
pub struct HostTransports {
    /// Of connections of bytes; `None`: plain text.
    pub stream: Option<Arc<dyn TransportFactory>>,
    /// QUIC's TLS; `None`: the cluster speaks no HTTP/3.
    pub quic: Option<Arc<dyn QuicTransports>>,
}

/// Which of a cluster's transports: the number of a match, or none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice(u32);

impl Choice {
    /// As a number that a host carries.
    pub(crate) fn to_bits(self) -> u32 {
        self.0
    }

    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    fn matched(index: usize) -> Self {
        Self(index as u32 + 1)
    }

    /// Of which of `transport_socket_matches`.
    pub(crate) fn index(self) -> Option<usize> {
        (self.0 as usize).checked_sub(1)
    }
}

impl Transports {
    pub(crate) fn of(&self, choice: Choice) -> &HostTransports {
        choice.index().and_then(|index| self.matches.get(index)).unwrap_or(&self.rest)
    }
}

/// Chooses by labels. Nothing is allocated where there is nothing to choose.
#[derive(Debug, Default)]
pub(crate) struct Matcher(Vec<Candidate>);

#[derive(Debug)]
struct Candidate {
    labels: Vec<Label>,
    /// `cluster.<name>.<match>.total_match_count`.
    count: OwnedCounter,
}

impl Matcher {
    pub(crate) fn new(config: &ClusterConfig, store: &Store, stats: &ClusterStats) -> Self {
        let count = |name: &str| {
            let scope = stats.scope().child(name);
            DynScope::new(store, scope).counter("total_match_count")
        };
        let candidate = |one: &tidegate_config::cluster::TransportMatch| Candidate {
            labels: one.labels.iter().map(|(key, value)| Label::new(key, value)).collect(),
            count: count(&one.name),
        };
        Self(config.transport_matches.iter().map(candidate).collect())
    }

    /// For a host with this `metadata`, or else by that of its locality.
    pub(crate) fn choose(&self, metadata: Option<&Node>, place: Option<&Node>) -> Choice {
        if self.0.is_empty() {
            return Choice::default();
        }
        let own = self.choose_by(labels(metadata));
        own.or_else(|| self.choose_by(labels(place))).unwrap_or_default()
    }

    /// For a host with these labels themselves.
    pub(crate) fn choose_by(&self, labels: Option<&Node>) -> Option<Choice> {
        let has = |wanted: &Label| {
            let value = labels.and_then(|labels| labels.member(&wanted.key));
            value.is_some_and(|value| Label::new(&wanted.key, value) == *wanted)
        };
        self.0.iter().position(|candidate| candidate.labels.iter().all(has)).map(Choice::matched)
    }

    /// Counts a choice; one of none in `stats`.
    pub(crate) fn count(&self, choice: Choice, stats: &ClusterStats) {
        match choice.index().and_then(|index| self.0.get(index)) {
            Some(candidate) => candidate.count.inc(),
            None => stats.members.default_total_match_count().inc(),
        }
    }

    /// Counts those of hosts that were made, be it that they turn out to be known, as in Envoy.
    pub(crate) fn count_made(
        &self,
        place: &LocalityEndpoints,
        endpoints: &[EndpointConfig],
        stats: &ClusterStats,
    ) {
        if self.0.is_empty() {
            stats.members.default_total_match_count().add(endpoints.len() as u64);
            return;
        }
        for endpoint in endpoints {
            let choice = self.choose(endpoint.metadata.as_ref(), place.metadata.as_ref());
            self.count(choice, stats);
        }
    }
}

fn labels(metadata: Option<&Node>) -> Option<&Node> {
    metadata?.member(TRANSPORT_LABELS)
}

/// The transport of a host whose labels may change while it has pools: each connection speaks what holds when it is
/// opened.
pub(crate) struct Switching {
    host: Arc<HostShared>,
    rest: Option<Rc<dyn Transport>>,
    matches: Vec<Option<Rc<dyn Transport>>>,
}

impl Switching {
    /// `open` makes the transport of one host.
    pub(crate) fn new(
        host: &Arc<HostShared>,
        transports: &Transports,
        open: impl Fn(&Arc<dyn TransportFactory>) -> Rc<dyn Transport>,
    ) -> Self {
        let open = |one: &HostTransports| one.stream.as_ref().map(&open);
        let matches = transports.matches.iter().map(open).collect();
        Self { host: host.clone(), rest: open(&transports.rest), matches }
    }
}

impl Transport for Switching {
    fn connect(&self, io: BoxIo, options: Rc<TransportOptions>) -> Connecting {
        let matched = self.host.transport().index().and_then(|index| self.matches.get(index));
        match matched.unwrap_or(&self.rest) {
            Some(transport) => transport.connect(io, options),
            None => Box::pin(async { Ok(io) }),
        }
    }
}

#[cfg(test)]
mod tests;
