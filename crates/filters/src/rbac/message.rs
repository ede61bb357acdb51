//! `Permission` and `Principal` as they stand in the file.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use super::{Fact, Rule};
use crate::config::{CidrRange, StringMatcher};

/// `envoy.config.rbac.v3.Permission`: what is wanted.
#[derive(Debug, Deserialize)]
#[serde(try_from = "PermissionMessage")]
pub(super) struct Permission(pub(super) Rule);

/// `envoy.config.rbac.v3.Principal`: who wants it.
#[derive(Debug, Deserialize)]
#[serde(try_from = "PrincipalMessage")]
pub(super) struct Principal(pub(super) Rule);

#[derive(Default, Deserialize)]
#[serde(default)]
struct PermissionMessage {
    and_rules: Option<PermissionSet>,
    or_rules: Option<PermissionSet>,
    #[serde(deserialize_with = "only_true")]
    any: Option<()>,
    destination_ip: Option<CidrRange>,
    destination_port: Option<u32>,
    destination_port_range: Option<PortRange>,
    not_rule: Option<Box<Permission>>,
    requested_server_name: Option<StringMatcher>,
    #[serde(rename = "header", deserialize_with = "of_requests")]
    _header: (),
    #[serde(rename = "url_path", deserialize_with = "of_requests")]
    _url_path: (),
    #[serde(rename = "uri_template", deserialize_with = "of_requests")]
    _uri_template: (),
    #[serde(rename = "metadata", deserialize_with = "of_metadata")]
    _metadata: (),
    #[serde(rename = "sourced_metadata", deserialize_with = "of_metadata")]
    _sourced_metadata: (),
    #[serde(rename = "matcher", deserialize_with = "crate::config::unsupported")]
    _matcher: (),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PrincipalMessage {
    and_ids: Option<PrincipalSet>,
    or_ids: Option<PrincipalSet>,
    #[serde(deserialize_with = "only_true")]
    any: Option<()>,
    authenticated: Option<Authenticated>,
    source_ip: Option<CidrRange>,
    direct_remote_ip: Option<CidrRange>,
    remote_ip: Option<CidrRange>,
    not_id: Option<Box<Principal>>,
    #[serde(rename = "header", deserialize_with = "of_requests")]
    _header: (),
    #[serde(rename = "url_path", deserialize_with = "of_requests")]
    _url_path: (),
    #[serde(rename = "metadata", deserialize_with = "of_metadata")]
    _metadata: (),
    #[serde(rename = "sourced_metadata", deserialize_with = "of_metadata")]
    _sourced_metadata: (),
    #[serde(rename = "filter_state", deserialize_with = "crate::config::unsupported")]
    _filter_state: (),
    #[serde(rename = "custom", deserialize_with = "crate::config::unsupported")]
    _custom: (),
}

#[derive(Deserialize)]
struct PermissionSet {
    #[serde(deserialize_with = "non_empty")]
    rules: Vec<Permission>,
}

#[derive(Deserialize)]
struct PrincipalSet {
    #[serde(deserialize_with = "non_empty")]
    ids: Vec<Principal>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Authenticated {
    principal_name: Option<StringMatcher>,
}

/// `envoy.type.v3.Int32Range`: the end is not in it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PortRange {
    start: i64,
    end: i64,
}

impl TryFrom<PermissionMessage> for Permission {
    type Error = String;

    fn try_from(message: PermissionMessage) -> Result<Self, String> {
        let set = |set: PermissionSet| set.rules.into_iter().map(|rule| rule.0).collect();
        let port = |port: u32| {
            u16::try_from(port).map_err(|_| "`destination_port` must be at most 65535".to_owned())
        };
        let kinds = [
            message.and_rules.map(|rules| Rule::All(set(rules))),
            message.or_rules.map(|rules| Rule::Any(set(rules))),
            message.any.map(|()| Rule::Always),
            message.destination_ip.map(|range| Rule::Is(Fact::DestinationIp(range))),
            message.destination_port.map(port).transpose()?.map(|port| Rule::Is(Fact::DestinationPort(port))),
            message.destination_port_range.map(port_range).transpose()?.map(Rule::Is),
            message.not_rule.map(|rule| Rule::Not(Box::new(rule.0))),
            message.requested_server_name.map(|matcher| Rule::Is(Fact::ServerName(matcher))),
        ];
        only(kinds).map(Self).ok_or_else(|| "a permission must have exactly one rule".to_owned())
    }
}

impl TryFrom<PrincipalMessage> for Principal {
    type Error = String;

    fn try_from(message: PrincipalMessage) -> Result<Self, String> {
        let set = |set: PrincipalSet| set.ids.into_iter().map(|id| id.0).collect();
        let kinds = [
            message.and_ids.map(|ids| Rule::All(set(ids))),
            message.or_ids.map(|ids| Rule::Any(set(ids))),
            message.any.map(|()| Rule::Always),
            message.authenticated.map(|by| Rule::Is(Fact::Authenticated(by.principal_name))),
            message.source_ip.map(|range| Rule::Is(Fact::SourceIp(range))),
            message.direct_remote_ip.map(|range| Rule::Is(Fact::DirectRemoteIp(range))),
            message.remote_ip.map(|range| Rule::Is(Fact::RemoteIp(range))),
            message.not_id.map(|id| Rule::Not(Box::new(id.0))),
        ];
        only(kinds).map(Self).ok_or_else(|| "a principal must have exactly one identifier".to_owned())
    }
}

/// The one that is there.
fn only(kinds: impl IntoIterator<Item = Option<Rule>>) -> Option<Rule> {
    let mut kinds = kinds.into_iter().flatten();
    kinds.next().filter(|_| kinds.next().is_none())
}

/// The bounds and the words are Envoy's.
fn port_range(range: PortRange) -> Result<Fact, String> {
    let bound = |what: &str, bound: i64| {
        let port = u32::try_from(bound).ok().filter(|port| *port <= 65_536);
        port.ok_or_else(|| format!("range {what} {bound} is out of bounds"))
    };
    let (start, end) = (bound("start", range.start)?, bound("end", range.end)?);
    if start >= end {
        return Err(format!("range start {start} cannot be greater or equal than range end {end}"));
    }
    Ok(Fact::DestinationPortIn(start..end))
}

/// A list with something in it.
pub(super) fn non_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let items = Vec::<T>::deserialize(deserializer)?;
    if items.is_empty() {
        return Err(D::Error::custom("must have at least one item"));
    }
    Ok(items)
}

fn only_true<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<()>, D::Error> {
    match bool::deserialize(deserializer)? {
        true => Ok(Some(())),
        false => Err(D::Error::custom("`any` can only be true")),
    }
}

fn of_requests<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom("a connection has no request: not supported by RBAC network filter"))
}

fn of_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom("not supported by this build: there is no dynamic metadata"))
}
