//! Names to addresses, by asking DNS servers: what a stub resolver does, and nothing of the system's own resolver.
//!
//! [`Resolve`] is what users see, so that tests can answer in its place; [`Resolver`] asks servers, in the order and
//! with the patience of c-ares, which is Envoy's. It keeps nothing: when to ask again is its user's matter. Messages
//! are read and written in `message`, sockets are in `exchange`, the system's files in `system`.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use tidegate_stats::stat_block;

mod exchange;
mod getaddrinfo;
mod message;
mod options;
mod resolver;
mod service;
mod system;

pub use exchange::{Exchange, Exchanging, Sockets, Via};
pub use getaddrinfo::SystemResolver;
pub use options::ResolverOptions;
pub use resolver::Resolver;
pub use service::ServiceEndpoint;
pub use system::System;

/// Whoever knows the addresses of names.
pub trait Resolve {
    /// The addresses of `name`; none if it has none, or does not exist.
    fn resolve(&self, name: &str, families: Families) -> Resolving;

    /// Who serves `https` at `name` and `port`, the preferred endpoints first (HTTPS records, RFC 9460); none if
    /// nobody says.
    fn services(&self, _name: &str, _port: u16) -> ResolvingServices {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// A look-up under way. Dropping it gives it up.
pub type Resolving = Pin<Box<dyn Future<Output = Result<Vec<Found>, ResolveError>>>>;

/// The same of services.
pub type ResolvingServices = Pin<Box<dyn Future<Output = Result<Vec<ServiceEndpoint>, ResolveError>>>>;

/// An address, and how long it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The address.
    pub ip: IpAddr,
    /// The time to live of its record; 0 says nothing, so do the system's files.
    pub ttl: Duration,
}

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// IPv4, and IPv6 where there is none.
    V4ThenV6,
    /// IPv6, and IPv4 where there is none.
    V6ThenV4,
    /// IPv4 and IPv6, in this order.
    Both,
}

/// Nobody could tell. Not that there is no such name: that is an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No server answered in time.
    #[error("no DNS server answered in time")]
    Timeout,
    /// Servers said that they cannot, or do not want to, tell.
    #[error("DNS servers refused or failed")]
    Server,
    /// No server could be reached.
    #[error("no DNS server could be reached")]
    Unreachable,
    /// What was asked for is no name.
    #[error("this is no DNS name")]
    BadName,
}

/// A record type: the family of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `A`.
    V4,
    /// `AAAA`.
    V6,
}

impl Family {
    fn of(ip: &IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "A",
            Self::V6 => "AAAA",
        })
    }
}

stat_block! {
    /// `dns.cares.`, as Envoy counts: a family that is asked for after another one by itself.
    pub struct DnsStats {
        counters {
            /// Look-ups that ended.
            resolve_total,
            /// Of them those of names that do not exist, or have no such address.
            not_found,
            /// Questions that no server answered in time, of look-ups that failed so.
            timeouts,
            /// Look-ups that failed otherwise.
            get_addr_failure,
            /// Look-ups after which Envoy opens new sockets. Here each has its own.
            reinits,
        }
        gauges {
            /// Look-ups under way.
            pending_resolutions,
        }
    }
}

#[cfg(test)]
mod tests;
