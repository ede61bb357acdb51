//! Which host an attempt goes to: what the route's `hash_policy` says to load balancers that hash, the labels that its
//! `metadata_match` wants, and which hosts a retry avoids (`retry_host_predicate`).

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use tidegate_cluster::Host;
use tidegate_cluster::lb::Wish;
use tidegate_config::route::HostPredicate;
use tidegate_types::Address;

use super::Upstream;
use crate::retry::{PriorityAvoidance, RetryState};
use crate::route::hash::Client;

/// What a request's choices of a host have in common.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Found once: every attempt asks for the same.
    hash: OnceCell<Option<u64>>,
    cookies: RefCell<Vec<HeaderValue>>,
    /// Hosts of earlier attempts.
    tried: RefCell<Vec<Arc<Address>>>,
    /// Of `retry_priority`, where there is one.
    priorities: RefCell<Option<Box<PriorityAvoidance>>>,
}

impl Selection {
    /// `set-cookie` fields for the response.
    pub(super) fn take_cookies(&self) -> Vec<HeaderValue> {
        self.cookies.take()
    }
}

impl Upstream<'_> {
    /// Chooses the host of the next attempt.
    pub(super) fn choose_host(&self) -> Option<Rc<Host>> {
        let cluster = &self.facts.cluster;
        if cluster.original_dst().is_some() {
            // There is one place to go to, whatever retries would avoid.
            let headers = self.stream.request().map(|head| &head.headers);
            let header = |name: &str| Some(headers?.get(name)?.as_bytes());
            return cluster.choose_host_at(header, Some(&self.stream.info().connection));
        }
        let hash = self.hash();
        let labels = self.facts.route.forward().and_then(|forward| forward.metadata_match.as_ref());
        let Some(avoidance) = self.facts.retries.borrow().as_ref().map(RetryState::hosts) else {
            return cluster.choose_host_by(Wish { hash, loads: None, labels });
        };
        let is_retry = self.facts.retries.borrow().as_ref().is_some_and(|retries| retries.retries() > 0);
        let mut priorities = self.selection.priorities.borrow_mut();
        let loads = avoidance.priorities.and_then(|update_frequency| {
            let priorities = priorities.get_or_insert_default();
            priorities.loads(update_frequency, |avoided| cluster.loads_without(avoided, labels)).cloned()
        });
        let choose = |hash| cluster.choose_host_by(Wish { hash, loads: loads.as_ref(), labels });
        let mut host = choose(hash)?;
        for again in 1..=avoidance.attempts {
            if !is_retry || !avoidance.predicates.iter().any(|predicate| self.avoids(predicate, &host)) {
                break;
            }
            // A hash would give the same host for ever: Envoy changes it so for each further choice.
            let hash = hash.map(|hash| hash ^ (u64::MAX - u64::from(again) + 1));
            host = choose(hash)?;
        }
        if let Some(priorities) = priorities.as_mut() {
            priorities.note(host.shared().priority());
        }
        if avoidance.predicates.contains(&HostPredicate::PreviousHosts) {
            self.selection.tried.borrow_mut().push(host.address());
        }
        Some(host)
    }

    fn avoids(&self, predicate: &HostPredicate, host: &Host) -> bool {
        let attributes = host.attributes();
        let label = |name: &str| attributes.labels.as_ref().and_then(|labels| labels.member(name));
        match predicate {
            HostPredicate::PreviousHosts => {
                self.selection.tried.borrow().iter().any(|tried| *tried == host.address())
            }
            HostPredicate::OmitHostMetadata(labels) => {
                !labels.is_empty() && labels.iter().all(|(name, value)| label(name) == Some(value))
            }
            HostPredicate::OmitCanaryHosts => attributes.canary,
        }
    }

    /// What the hash policy found, for load balancers that look at it: others would only cost clients a cookie.
    fn hash(&self) -> Option<u64> {
        let policy = &self.facts.route.forward()?.hash_policy;
        if policy.is_empty() || !self.facts.cluster.config().lb_policy.hashes() {
            return None;
        }
        *self.selection.hash.get_or_init(|| {
            let info = self.stream.info();
            let remote = info.remote_address.borrow();
            let connection = (&info.connection.remote_address, &info.connection.local_address);
            let client = Client { remote: &remote, connection };
            let object = |key: &str| self.stream.hashable_object(key);
            let hashed = policy.hash(self.stream.request()?, client, object);
            self.selection.cookies.replace(hashed.cookies);
            hashed.hash
        })
    }
}
