//! `envoy.config.listener.v3.FilterChainMatch`: which connections a filter chain serves.
//!
//! Each criterion is a list of alternatives; an empty one takes everything. [`FilterChainMatch::rules`] spells
//! the combinations out: no two chains may have one in common, as in Envoy. The look-up is `listener`'s.

use std::collections::HashMap;

use super::FilterChainConfig;
use crate::hcm::CidrRange;
use crate::reader::{Message, Reader};

/// `envoy.config.listener.v3.FilterChainMatch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FilterChainMatch {
    /// `destination_port`.
    pub destination_port: Option<u16>,
    /// `prefix_ranges`, of the address that the client connected to; host bits are 0.
    pub destination_ranges: Vec<CidrRange>,
    /// `server_names` in lower case; `*.example.com` is kept as `.example.com`.
    pub server_names: Vec<String>,
    /// `transport_protocol`: `tls` or `raw_buffer`, as a listener filter finds it; empty takes all.
    pub transport_protocol: String,
    /// `application_protocols`, as a listener filter finds them (ALPN, `http/1.1`, `h2c`).
    pub application_protocols: Vec<String>,
    /// `direct_source_prefix_ranges`, of the socket's peer.
    pub direct_source_ranges: Vec<CidrRange>,
    /// `source_type`.
    pub source_type: SourceType,
    /// `source_prefix_ranges`, of the client (which a PROXY header may have named).
    pub source_ranges: Vec<CidrRange>,
    /// `source_ports`.
    pub source_ports: Vec<u16>,
}

/// `source_type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SourceType {
    /// `ANY`.
    #[default]
    Any,
    /// `SAME_IP_OR_LOOPBACK`.
    SameIpOrLoopback,
    /// `EXTERNAL`.
    External,
}

/// One combination of a match's alternatives, in the order in which they are looked up; `None` takes everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule<'a> {
    /// `destination_port`.
    pub destination_port: Option<u16>,
    /// One of `prefix_ranges`.
    pub destination: Option<CidrRange>,
    /// One of `server_names`: a name, or a dot and the domain of a wildcard.
    pub server_name: Option<&'a str>,
    /// `transport_protocol`.
    pub transport_protocol: Option<&'a str>,
    /// One of `application_protocols`.
    pub application_protocol: Option<&'a str>,
    /// One of `direct_source_prefix_ranges`.
    pub direct_source: Option<CidrRange>,
    /// `source_type`.
    pub source_type: SourceType,
    /// One of `source_prefix_ranges`.
    pub source: Option<CidrRange>,
    /// One of `source_ports`.
    pub source_port: Option<u16>,
}

impl FilterChainMatch {
    /// Every combination of the alternatives.
    pub fn rules<'a>(&'a self) -> Vec<Rule<'a>> {
        let transport_protocol = Some(self.transport_protocol.as_str()).filter(|name| !name.is_empty());
        let all = Rule {
            destination_port: self.destination_port,
            destination: None,
            server_name: None,
            transport_protocol,
            application_protocol: None,
            direct_source: None,
            source_type: self.source_type,
            source: None,
            source_port: None,
        };
        let mut rules = vec![all];
        expand(&mut rules, &self.destination_ranges, |rule, range| rule.destination = Some(*range));
        // An empty name takes everything, as in Envoy.
        let named = |name: &'a String| Some(name.as_str()).filter(|name| !name.is_empty());
        expand(&mut rules, &self.server_names, |rule, name| rule.server_name = named(name));
        expand(&mut rules, &self.application_protocols, |rule, name| rule.application_protocol = named(name));
        expand(&mut rules, &self.direct_source_ranges, |rule, range| rule.direct_source = Some(*range));
        expand(&mut rules, &self.source_ranges, |rule, range| rule.source = Some(*range));
        expand(&mut rules, &self.source_ports, |rule, port| rule.source_port = Some(*port));
        rules
    }
}

/// Multiplies `rules` by the alternatives, if there are any.
fn expand<'a, T>(rules: &mut Vec<Rule<'a>>, alternatives: &'a [T], set: impl Fn(&mut Rule<'a>, &'a T)) {
    if alternatives.is_empty() {
        return;
    }
    let with = |rule: Rule<'a>| {
        let set = &set;
        alternatives.iter().map(move |alternative| {
            let mut rule = rule;
            set(&mut rule, alternative);
            rule
        })
    };
    *rules = rules.drain(..).flat_map(with).collect();
}

/// Reports each chain that has a rule in common with an earlier one, or one twice: which of the two would serve
/// could not be told.
pub(super) fn check_duplicates(chains: &[FilterChainConfig], mut report: impl FnMut(usize, String)) {
    let mut first = HashMap::new();
    for (index, chain) in chains.iter().enumerate() {
        let taken = chain.matching.rules().into_iter().find_map(|rule| first.insert(rule, index));
        let Some(earlier) = taken else { continue };
        let other = &chains[earlier];
        report(
            index,
            if earlier != index && other.matching == chain.matching {
                format!(
                    "filter chain '{}' has the same matching rules defined as '{}'",
                    chain.name, other.name
                )
            } else {
                "multiple filter chains with overlapping matching rules are defined: filter_chains".to_owned()
                    + &format!("[{earlier}] and [{index}]")
            },
        );
    }
}

impl Message for FilterChainMatch {
    const NAME: &'static str = "envoy.config.listener.v3.FilterChainMatch";

    fn read(r: &Reader<'_>) -> Self {
        const SOURCE_TYPES: &[(&str, u32, SourceType)] = &[
            ("ANY", 0, SourceType::Any),
            ("SAME_IP_OR_LOOPBACK", 1, SourceType::SameIpOrLoopback),
            ("EXTERNAL", 2, SourceType::External),
        ];
        Self {
            destination_port: r.u32("destination_port").within(1..=65535).convert(port).optional(),
            destination_ranges: ranges(r, "prefix_ranges"),
            server_names: r.strings("server_names").convert(server_names).or_default(),
            transport_protocol: r.string("transport_protocol").or_default(),
            application_protocols: r.strings("application_protocols").or_default(),
            direct_source_ranges: ranges(r, "direct_source_prefix_ranges"),
            source_type: r.enumeration("source_type", SOURCE_TYPES, &[]).or_default(),
            source_ranges: ranges(r, "source_prefix_ranges"),
            source_ports: r
                .u32s("source_ports")
                .convert(|ports| ports.into_iter().map(source_port).collect())
                .or_default(),
        }
    }
}

fn port(number: u32) -> Result<u16, String> {
    u16::try_from(number).map_err(|_| format!("{number} is no port"))
}

fn source_port(number: u32) -> Result<u16, String> {
    port(number).and_then(|port| if port == 0 { Err("0 is no port".to_owned()) } else { Ok(port) })
}

fn ranges(r: &Reader<'_>, name: &'static str) -> Vec<CidrRange> {
    let ranges = r.repeated::<CidrRange>(name).or_default();
    ranges.into_iter().map(CidrRange::masked).collect()
}

/// Envoy matches a client's name in lower case, and so never one configured otherwise; here case does not
/// matter, since it does not in DNS.
fn server_names(names: Vec<String>) -> Result<Vec<String>, String> {
    names.into_iter().map(|name| server_name(&name.to_ascii_lowercase())).collect()
}

fn server_name(name: &str) -> Result<String, String> {
    match name.strip_prefix("*.") {
        // With its dot; a further asterisk is a character like any other, as in Envoy.
        Some(_) => Ok(name[1..].to_owned()),
        None if !name.contains('*') => Ok(name.to_owned()),
        None => Err(format!("partial wildcards are not supported in \"server_names\": `{name}`")),
    }
}
