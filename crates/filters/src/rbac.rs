//! The policies of role-based access control, apart from any filter: pure, so that the network filter and an HTTP
//! filter judge alike.
//!
//! [`Rules`] is Envoy's `envoy.config.rbac.v3.RBAC` message, [`Rules::judge`] its whole behaviour; what it looks
//! at is a [`Subject`]. Rules about requests (headers, paths), metadata and CEL conditions are refused when the
//! configuration is loaded. Envoy docs: "Role Based Access Control (RBAC) Network Filter".

mod message;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use tidegate_types::{Address, ConnectionInfo};

use crate::config::{CidrRange, StringMatcher};
use message::{Permission, Principal};

/// Who wants what.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The downstream connection.
    pub connection: &'a ConnectionInfo,
    /// The client: of a request, whom `x-forwarded-for` names; of a connection, its peer.
    pub remote_address: &'a Address,
}

impl<'a> Subject<'a> {
    /// A connection.
    pub fn connection(connection: &'a ConnectionInfo) -> Self {
        Self { connection, remote_address: &connection.remote_address }
    }
}

/// A set of policies and what matching one of them means.
#[derive(Debug, Deserialize)]
pub struct Rules {
    #[serde(default)]
    action: Action,
    /// By name, which is the order in which they are tried.
    #[serde(default)]
    policies: BTreeMap<String, Policy>,
    #[serde(default, rename = "audit_logging_options", deserialize_with = "crate::config::unsupported")]
    _audit_logging_options: (),
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Action {
    /// Who matches is allowed, all others are denied.
    #[default]
    Allow,
    /// Who matches is denied.
    Deny,
    /// Everybody is allowed.
    Log,
}

#[derive(Debug, Deserialize)]
struct Policy {
    #[serde(deserialize_with = "message::non_empty")]
    permissions: Vec<Permission>,
    #[serde(deserialize_with = "message::non_empty")]
    principals: Vec<Principal>,
    #[serde(default, rename = "condition", deserialize_with = "crate::config::unsupported")]
    _condition: (),
    #[serde(default, rename = "checked_condition", deserialize_with = "crate::config::unsupported")]
    _checked_condition: (),
    #[serde(default, rename = "cel_config", deserialize_with = "crate::config::unsupported")]
    _cel_config: (),
}

/// What [`Rules`] say of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Whether it may go on.
    pub access: Access,
    /// The policy that matched, if one did.
    pub policy: Option<&'a str>,
}

/// Whether a subject may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may.
    Allowed,
    /// It may not.
    Denied,
}

impl Verdict<'_> {
    /// What a denial is called where the connection's or the response's end is explained: Envoy's
    /// `rbac_access_denied_matched_policy[NAME]`, blanks replaced.
    pub fn details(&self) -> String {
        let name = self.policy.unwrap_or("none").replace(char::is_whitespace, "_");
        format!("rbac_access_denied_matched_policy[{name}]")
    }
}

impl Rules {
    /// Judges by the first policy that matches.
    pub fn judge(&self, subject: &Subject<'_>) -> Verdict<'_> {
        let matched = self.policies.iter().find(|(_, policy)| policy.matches(subject));
        let access = match (self.action, matched) {
            (Action::Allow, Some(_)) | (Action::Deny, None) | (Action::Log, _) => Access::Allowed,
            (Action::Allow, None) | (Action::Deny, Some(_)) => Access::Denied,
        };
        Verdict { access, policy: matched.map(|(name, _)| name.as_str()) }
    }
}

impl Policy {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        self.permissions.iter().any(|permission| permission.0.holds(subject))
            && self.principals.iter().any(|principal| principal.0.holds(subject))
    }
}

/// A permission or a principal, which differ only in what may stand in them.
#[derive(Debug)]
enum Rule {
    Always,
    All(Vec<Rule>),
    Any(Vec<Rule>),
    Not(Box<Rule>),
    Is(Fact),
}

/// What can be said of a subject.
#[derive(Debug)]
enum Fact {
    DestinationIp(CidrRange),
    DestinationPort(u16),
    /// The end is not in the range.
    DestinationPortIn(std::ops::Range<u32>),
    ServerName(StringMatcher),
    /// TLS, and the peer's certificate has a name that matches, if one is asked for.
    Authenticated(Option<StringMatcher>),
    /// The peer of the connection, or whom its PROXY header names.
    SourceIp(CidrRange),
    DirectRemoteIp(CidrRange),
    RemoteIp(CidrRange),
}

impl Rule {
    fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Always => true,
            Self::All(rules) => rules.iter().all(|rule| rule.holds(subject)),
            Self::Any(rules) => rules.iter().any(|rule| rule.holds(subject)),
            Self::Not(rule) => !rule.holds(subject),
            Self::Is(fact) => fact.holds(subject),
        }
    }
}

impl Fact {
    fn holds(&self, subject: &Subject<'_>) -> bool {
        let connection = subject.connection;
        let within = |range: &CidrRange, ip: Option<IpAddr>| ip.is_some_and(|ip| range.contains(ip));
        let port = || connection.local_address.port();
        match self {
            Self::DestinationIp(range) => within(range, connection.local_address.ip()),
            Self::DestinationPort(wanted) => port() == Some(*wanted),
            Self::DestinationPortIn(range) => port().is_some_and(|port| range.contains(&port.into())),
            Self::ServerName(matcher) => {
                matcher.matches(connection.requested_server_name.borrow().as_deref().unwrap_or_default())
            }
            Self::Authenticated(matcher) => authenticated(connection, matcher.as_ref()),
            Self::SourceIp(range) => within(range, connection.remote_address.ip()),
            Self::DirectRemoteIp(range) => within(range, connection.direct_remote_address.ip()),
            Self::RemoteIp(range) => within(range, subject.remote_address.ip()),
        }
    }
}

/// Envoy tries the certificate's URI names, its DNS names, and at last its subject.
fn authenticated(connection: &ConnectionInfo, matcher: Option<&StringMatcher>) -> bool {
    let Some(tls) = connection.tls.get() else { return false };
    let Some(matcher) = matcher else { return true };
    let Some(peer) = &tls.peer else { return matcher.matches("") };
    let names = peer.uri_sans.iter().chain(&peer.dns_sans).chain([&peer.subject]);
    names.into_iter().any(|name| matcher.matches(name))
}
