//! Which filter chain serves a connection: an index over all matches, made once per configuration.
//!
//! A tree with a level for each criterion, in Envoy's order. On each level the most specific entry is taken and
//! the search goes on below it, never back to a less specific one; if it ends without a chain, the default one
//! serves. Source: <https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/listener/v3/listener_components.proto>
//! (`FilterChainMatch`). Start from [`ChainIndex::new`] and [`ChainIndex::find`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tidegate_config::ListenerConfig;
use tidegate_config::listener::{Rule, SourceType};
use tidegate_filter::listener::Arrival;
use tidegate_types::Address;

mod ranges;

use ranges::Ranges;

/// The index over a listener's filter chains. Chains are numbered in the order of
/// [`ListenerConfig::all_chains`].
#[derive(Debug, Default)]
pub struct ChainIndex {
    /// By `destination_port`; 0: any.
    ports: HashMap<u16, Ranges<ByName>>,
    default: Option<usize>,
}

/// By server name; empty: any. `.example.com` is the wildcard.
type ByName = HashMap<Box<str>, ByTransport>;
/// By transport protocol; empty: any.
type ByTransport = Few<Box<str>, ByApplication>;
/// By application protocol; empty: any.
type ByApplication = Few<Box<[u8]>, Ranges<BySourceType>>;
/// By source type.
type BySourceType = Few<SourceType, Ranges<BySourcePort>>;
/// By source port; 0: any. The chain's number.
type BySourcePort = HashMap<u16, usize>;

impl ChainIndex {
    /// Indexes the chains of `config`. Of two that have a rule in common, which validation refuses, the first
    /// wins.
    pub fn new(config: &ListenerConfig) -> Self {
        let mut index = Self::default();
        for (number, chain) in config.filter_chains.iter().enumerate() {
            for rule in chain.matching.rules() {
                index.insert(&rule, number);
            }
        }
        index.default = config.default_filter_chain.is_some().then_some(config.filter_chains.len());
        index
    }

    /// One chain that takes everything.
    pub fn only() -> Self {
        Self { ports: HashMap::new(), default: Some(0) }
    }

    fn insert(&mut self, rule: &Rule<'_>, chain: usize) {
        let port = self.ports.entry(rule.destination_port.unwrap_or(0)).or_default();
        for names in port.entries(rule.destination) {
            let transports = entry(names, rule.server_name.unwrap_or(""));
            let applications = transports.entry(rule.transport_protocol.unwrap_or("").into());
            let sources = applications.entry(rule.application_protocol.unwrap_or("").as_bytes().into());
            for types in sources.entries(rule.direct_source) {
                for ports in types.entry(rule.source_type).entries(rule.source) {
                    ports.entry(rule.source_port.unwrap_or(0)).or_insert(chain);
                }
            }
        }
    }

    /// The number of the chain that serves a connection; `None`: nobody does.
    pub fn find(&self, arrival: &Arrival) -> Option<usize> {
        self.matching(arrival).or(self.default)
    }

    fn matching(&self, arrival: &Arrival) -> Option<usize> {
        let port = arrival.local_address.port().and_then(|port| self.ports.get(&port));
        let names = port.or_else(|| self.ports.get(&0))?.find(ip(&arrival.local_address))?;
        let transports = by_name(names, arrival.server_name.as_deref().unwrap_or(""))?;
        let applications =
            transports.find_or_any(arrival.transport_protocol.as_deref().unwrap_or(UNINSPECTED))?;
        let protocols = arrival.application_protocols.iter();
        let sources = protocols.filter_map(|name| applications.find(name.as_slice())).next();
        let sources = sources.or_else(|| applications.find([].as_slice()))?;
        let types = sources.find(ip(&arrival.direct_remote_address))?;
        let ports = by_source_type(types, arrival)?.find(ip(&arrival.remote_address))?;
        let port = arrival.remote_address.port().and_then(|port| ports.get(&port));
        port.or_else(|| ports.get(&0)).copied()
    }
}

/// The address that ranges are looked up by. A Unix-domain socket is outside of all but the widest, as in Envoy.
fn ip(address: &Address) -> IpAddr {
    address.ip().unwrap_or(IpAddr::V4(Ipv4Addr::BROADCAST))
}

/// The exact name, then wildcards, the longest domain first, then any name.
fn by_name<'a>(names: &'a ByName, name: &str) -> Option<&'a ByTransport> {
    // Names come in lower case from `tls_inspector`; other filters may be less careful.
    let name = match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    };
    // Not the dot that ends a name.
    let dots = name.char_indices().skip(1).filter(|(at, c)| *c == '.' && at + 1 < name.len());
    let wildcards = dots.map(|(at, _)| &name[at..]);
    let candidates = [&*name].into_iter().chain(wildcards);
    candidates.filter_map(|candidate| names.get(candidate)).next().or_else(|| names.get(""))
}

fn by_source_type<'a>(types: &'a BySourceType, arrival: &Arrival) -> Option<&'a Ranges<BySourcePort>> {
    let local = types.find(&SourceType::SameIpOrLoopback);
    let external = types.find(&SourceType::External);
    let chosen = if local.is_none() && external.is_none() {
        None
    } else if is_same_ip_or_loopback(arrival) {
        local
    } else {
        external
    };
    chosen.or_else(|| types.find(&SourceType::Any))
}

fn is_same_ip_or_loopback(arrival: &Arrival) -> bool {
    match arrival.remote_address.ip() {
        // Envoy's loopback is one address of each family.
        Some(ip) => {
            ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST || arrival.local_address.ip() == Some(ip)
        }
        // A Unix-domain client is on this machine.
        None => true,
    }
}

/// What nobody has looked at is plain, as in Envoy.
const UNINSPECTED: &str = "raw_buffer";

/// Few entries: found by looking at each.
#[derive(Debug)]
struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, V: Default> Few<K, V> {
    fn find<Q>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.0.iter().find(|(own, _)| own.borrow() == key).map(|(_, value)| value)
    }

    fn entry(&mut self, key: K) -> &mut V
    where
        K: Eq,
    {
        let at = self.0.iter().position(|(own, _)| *own == key).unwrap_or(self.0.len());
        if at == self.0.len() {
            self.0.push((key, V::default()));
        }
        &mut self.0[at].1
    }
}

impl<V: Default> Few<Box<str>, V> {
    fn find_or_any(&self, key: &str) -> Option<&V> {
        self.find(key).or_else(|| self.find(""))
    }
}

fn entry<'a, V: Default>(map: &'a mut HashMap<Box<str>, V>, key: &str) -> &'a mut V {
    map.entry(key.into()).or_default()
}

#[cfg(test)]
mod tests;
