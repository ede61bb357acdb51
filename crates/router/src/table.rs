//! The route table: from a request's head to its route.
//!
//! Envoy docs, `config.route.v3.RouteConfiguration`. Compiled whole when a configuration is loaded, then
//! immutable and shared by all workers. Virtual hosts are found by hash, routes through an index over
//! their paths that yields candidates in configured order: the first that fulfils all conditions wins,
//! as if every route had been tried. A look-up allocates nothing. Start with [`RouteTable`].

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use tidegate_config::RouteConfig;
use tidegate_config::route::RequireTls;
use tidegate_filter::route::ErasedConfig;
use tidegate_stats::Store;
use tidegate_types::json::{JsonPath, Problem, TypedConfig};
use tidegate_types::{RequestHead, Scheme};

use crate::route::Route;
use crate::weighted::Weighted;

mod compile;
mod hosts;
mod index;
pub mod matcher;

#[cfg(test)]
pub(crate) mod tests;

use hosts::HostIndex;
use index::RouteIndex;
use matcher::{HeaderMatcher, QueryMatcher, in_fraction};
use tidegate_config::values::FractionalPercent;

/// The HTTP filter chain that a table's `typed_per_filter_config` speaks to.
pub trait FilterSlots {
    /// The filters' names, by slot.
    fn names(&self) -> &[String];

    /// Decodes a per-route configuration for the filter at `slot`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    fn resolve(&self, slot: usize, config: &TypedConfig) -> Result<ErasedConfig, Vec<Problem>>;

    /// Where what the table counts is listed.
    fn store(&self) -> &Store;
}

/// A compiled route table.
#[derive(Debug)]
pub struct RouteTable {
    hosts: HostIndex,
    virtual_hosts: Vec<VirtualHost>,
    ignore_port: bool,
    internal_only_headers: Vec<HeaderName>,
}

#[derive(Debug)]
struct VirtualHost {
    entries: Vec<Entry>,
    index: RouteIndex,
    require_tls: RequireTls,
    tls_redirect: Arc<Route>,
}

/// One configured route.
#[derive(Debug)]
struct Entry {
    path: PathCheck,
    conditions: Option<Box<Conditions>>,
    target: Target,
}

/// What of the path condition the index has not proved.
#[derive(Debug)]
enum PathCheck {
    /// Nothing: a case-sensitive prefix or path.
    Proved,
    /// The byte behind a prefix of that length.
    Separated(usize),
    /// Everything.
    Whole(index::SlowPath),
    /// That there is none: a CONNECT request.
    Connect,
}

/// The other conditions.
#[derive(Debug)]
struct Conditions {
    fraction: Option<FractionalPercent>,
    grpc: bool,
    headers: Vec<HeaderMatcher>,
    query: Vec<QueryMatcher>,
}

#[derive(Debug)]
enum Target {
    One(Arc<Route>),
    Weighted { routes: Vec<Arc<Route>>, weights: Weighted, header: Option<HeaderName> },
}

const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
/// `x-forwarded-proto`.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

impl RouteTable {
    /// Compiles a table. `base` is the path of the table in the document, for errors.
    ///
    /// # Errors
    /// All regexes, format strings, header names and per-filter configurations that are wrong.
    pub fn compile(
        config: &RouteConfig,
        base: &JsonPath,
        filters: &dyn FilterSlots,
    ) -> Result<Self, Vec<Problem>> {
        compile::table(config, base, filters)
    }

    /// `internal_only_headers`: the connection manager removes them from requests that are not internal.
    pub fn internal_only_headers(&self) -> &[HeaderName] {
        &self.internal_only_headers
    }

    /// The route of a request: `None` is 404. `scheme` is what `x-forwarded-proto` says, `random` a fresh
    /// number that decides fractions and weights; the same number gives the same route.
    ///
    /// The caller clones the `Arc` only where it must outlive the table.
    pub fn matches(&self, head: &RequestHead, scheme: Scheme, random: u64) -> Option<&Arc<Route>> {
        let mut host = &*head.authority;
        if self.ignore_port {
            host = crate::host::without_port(host);
        }
        let host = self.virtual_hosts.get(self.hosts.find(host)?)?;
        if host.redirects_to_tls(head, scheme) {
            return Some(&host.tls_redirect);
        }
        let path = head.path_str();
        if path.is_empty() && head.method != Method::CONNECT {
            return None;
        }
        let (path, query) = match memchr::memchr2(b'?', b'#', path.as_bytes()) {
            Some(end) => (&path[..end], path.get(end + 1..)),
            None => (path, None),
        };
        let candidates = host.index.candidates(path);
        let entry = candidates
            .filter_map(|index| host.entries.get(index))
            .find(|entry| entry.matches(head, path, query, random))?;
        entry.target.pick(head, random)
    }
}

impl VirtualHost {
    fn redirects_to_tls(&self, head: &RequestHead, scheme: Scheme) -> bool {
        match self.require_tls {
            RequireTls::None => false,
            _ if client_scheme(head, scheme) == Scheme::Https => false,
            RequireTls::All => true,
            RequireTls::ExternalOnly => head.headers.get(&INTERNAL).is_none_or(|value| value != "true"),
        }
    }
}

/// What the client spoke, as far as those before us know.
fn client_scheme(head: &RequestHead, scheme: Scheme) -> Scheme {
    match head.headers.get(&FORWARDED_PROTO).map(HeaderValue::as_bytes) {
        Some(b"https") => Scheme::Https,
        Some(b"http") => Scheme::Http,
        _ => scheme,
    }
}

impl Entry {
    fn matches(&self, head: &RequestHead, path: &str, query: Option<&str>, random: u64) -> bool {
        let path_matches = match &self.path {
            PathCheck::Connect => head.method == Method::CONNECT,
            _ if path.is_empty() => false,
            PathCheck::Proved => true,
            PathCheck::Separated(length) => matches!(path.as_bytes().get(*length), None | Some(b'/')),
            PathCheck::Whole(slow) => slow.matches(path),
        };
        path_matches && self.conditions.as_ref().is_none_or(|conditions| conditions.hold(head, query, random))
    }
}

impl Conditions {
    fn hold(&self, head: &RequestHead, query: Option<&str>, random: u64) -> bool {
        self.fraction.as_ref().is_none_or(|fraction| in_fraction(fraction, random))
            && (!self.grpc || head.is_grpc())
            && self.headers.iter().all(|matcher| matcher.matches_request(head))
            && self.query.iter().all(|matcher| matcher.matches(query))
    }
}

impl Target {
    fn pick(&self, head: &RequestHead, random: u64) -> Option<&Arc<Route>> {
        match self {
            Self::One(route) => Some(route),
            Self::Weighted { routes, weights, header } => {
                let asked = header.as_ref().and_then(|name| number(head.headers.get(name)?));
                routes.get(weights.pick(asked.unwrap_or(random)))
            }
        }
    }
}

fn number(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.trim().parse().ok()
}
