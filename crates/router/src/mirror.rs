//! `request_mirror_policies`: copies of requests whose responses nobody waits for.
//!
//! Envoy docs, `config.route.v3.RouteAction.RequestMirrorPolicy`. [`Mirror`] is a compiled policy and makes the copy's
//! head; [`Shadow`] sends it, in a task of its own, so that nothing of the copy reaches the request. Limits on
//! connections and requests are the mirror cluster's.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tidegate_cluster::{Cluster, Directory};
use tidegate_config::route::{self as config, AppendAction, HeaderMutations, MirrorPolicy, MirrorTarget};
use tidegate_config::values::FractionalPercent;
use tidegate_filter::LogContext;
use tidegate_types::RequestHead;
use tidegate_types::json::JsonPath;

use crate::group::Groups;
use crate::host::port_start;
use crate::route::headers::Mutations;
use crate::route::{ClusterTarget, EnvoyHeaders};
use crate::table::matcher::in_fraction;
use crate::upstream::refusal;

mod shadow;

pub use shadow::Shadow;

/// A compiled policy.
#[derive(Debug)]
pub struct Mirror {
    cluster: ClusterTarget,
    fraction: Option<FractionalPercent>,
    host: HostChange,
    mutations: Mutations,
}

#[derive(Debug)]
enum HostChange {
    /// `-shadow` before the port: logs of the mirror's hosts tell copies from requests.
    Suffix,
    Keep,
    Literal(Bytes),
}

/// Compiles a list of policies.
///
/// # Errors
/// The first header name or format string that is wrong.
pub fn compile(policies: &[MirrorPolicy]) -> Result<Arc<[Mirror]>, String> {
    policies.iter().map(Mirror::compile).collect()
}

impl Mirror {
    fn compile(policy: &MirrorPolicy) -> Result<Self, String> {
        let cluster = match &policy.cluster {
            MirrorTarget::Cluster(name) => ClusterTarget::Name(name.as_str().into()),
            MirrorTarget::Header(name) => {
                ClusterTarget::Header(name.parse().map_err(|_| format!("`{name}` is no header name"))?)
            }
        };
        let host = match &policy.host_rewrite_literal {
            Some(host) => HostChange::Literal(host.clone().into()),
            None if policy.disable_shadow_host_suffix_append => HostChange::Keep,
            None => HostChange::Suffix,
        };
        let (mut mutations, mut errors) = (Mutations::default(), Vec::new());
        for mutation in &policy.request_headers {
            // One level each: they apply in their order.
            let level = match mutation {
                config::HeaderMutation::Remove(name) => {
                    HeaderMutations { request_remove: vec![name.clone()], ..HeaderMutations::default() }
                }
                config::HeaderMutation::Append(header) => {
                    let mut level =
                        HeaderMutations { request_add: vec![header.clone()], ..HeaderMutations::default() };
                    if header.action == AppendAction::OverwriteIfExistsOrAdd {
                        // In Envoy the new one stands at the end.
                        level.request_remove.push(header.key.clone());
                    }
                    level
                }
            };
            mutations.push(&level, &JsonPath::root(), &mut errors);
        }
        if let Some(error) = errors.into_iter().next() {
            return Err(error.message);
        }
        let fraction = policy.runtime_fraction.as_ref().map(|fraction| fraction.default);
        Ok(Self { cluster, fraction, host, mutations })
    }

    /// The name of the cluster that gets a copy of this request, if it is one that is copied. `random` decides
    /// fractions.
    pub fn target<'a>(&'a self, head: &'a RequestHead, random: u64) -> Option<&'a str> {
        let chosen = self.fraction.as_ref().is_none_or(|fraction| in_fraction(fraction, random));
        self.cluster.name(head).filter(|_| chosen)
    }

    /// The copy's head. `own` is this proxy's address: the copy is a request of its own.
    pub fn head(&self, head: &RequestHead, cx: &LogContext<'_>, own: Option<IpAddr>) -> RequestHead {
        let mut copy = head.clone();
        match &self.host {
            HostChange::Suffix => copy.authority = with_suffix(&head.authority),
            HostChange::Keep => {}
            HostChange::Literal(host) => copy.authority = host.clone(),
        }
        if !self.mutations.request.is_empty() {
            // They see the request as it goes up.
            self.mutations.apply_request(&mut copy.headers, &LogContext { request: Some(head), ..*cx });
        }
        copy.headers.insert(INTERNAL, HeaderValue::from_static("true"));
        if let Some(own) = own {
            append_forwarded_for(&mut copy.headers, own);
        }
        copy
    }
}

/// `a.test:80` becomes `a.test-shadow:80`.
fn with_suffix(authority: &Bytes) -> Bytes {
    let end = port_start(authority).unwrap_or(authority.len());
    let mut changed = Vec::with_capacity(authority.len() + SUFFIX.len());
    changed.extend_from_slice(&authority[..end]);
    changed.extend_from_slice(SUFFIX);
    changed.extend_from_slice(&authority[end..]);
    changed.into()
}

fn append_forwarded_for(headers: &mut HeaderMap, own: IpAddr) {
    let before = headers.get(&FORWARDED_FOR).and_then(|value| value.to_str().ok());
    let text = match before {
        Some(before) if !before.is_empty() => format!("{before},{own}"),
        Some(_) | None => own.to_string(),
    };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(FORWARDED_FOR, value);
    }
}

const SUFFIX: &[u8] = b"-shadow";
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The copies to make of a request: `mirrors` are its cluster's if there are any, else its route's. A cluster that
/// does not exist gets none. `own` is this machine's address, for `x-forwarded-for`.
pub fn copies(
    mirrors: &[Mirror],
    head: &RequestHead,
    cx: &LogContext<'_>,
    directory: &Directory,
    own: Option<IpAddr>,
) -> Vec<Copy> {
    // An upgraded stream is a conversation: a copy would talk to itself.
    if mirrors.is_empty() || head.upgrade.is_some() || head.method == http::Method::CONNECT {
        return Vec::new();
    }
    let copy = |mirror: &Mirror| {
        let cluster = directory.cluster(mirror.target(head, fastrand::u64(..))?)?;
        // What a cluster refuses is counted with it, as requests from inside are.
        if refusal(cluster.shared(), true, EnvoyHeaders::Suppress, Groups::default()).is_some() {
            return None;
        }
        Some(Copy { cluster, head: mirror.head(head, cx, own) })
    };
    mirrors.iter().filter_map(copy).collect()
}

/// A copy that is to be made of the request under way.
pub struct Copy {
    /// Where it goes.
    pub cluster: Rc<Cluster>,
    /// As it will be sent.
    pub head: RequestHead,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_stands_before_the_port() {
        let shadow = |host: &'static str| with_suffix(&Bytes::from_static(host.as_bytes()));
        assert_eq!(shadow("a.test"), "a.test-shadow");
        assert_eq!(shadow("a.test:80"), "a.test-shadow:80");
        assert_eq!(shadow("[::1]"), "[::1]-shadow");
    }

    #[test]
    fn a_copy_is_a_request_of_the_proxys_own() {
        let mut headers = HeaderMap::new();
        append_forwarded_for(&mut headers, [10, 0, 0, 1].into());
        assert_eq!(headers[FORWARDED_FOR], "10.0.0.1");
        append_forwarded_for(&mut headers, [10, 0, 0, 2].into());
        assert_eq!(headers[FORWARDED_FOR], "10.0.0.1,10.0.0.2");
    }
}
