//! Which host an attempt goes to: what the route's `hash_policy` says to load balancers that hash.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use http::HeaderValue;
use tidegate_cluster::Host;
use tidegate_config::cluster::LbPolicy;

use super::Upstream;
use crate::route::hash::Client;

/// What a request's choices of a host have in common.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Found once: every attempt asks for the same.
    hash: OnceCell<Option<u64>>,
    cookies: RefCell<Vec<HeaderValue>>,
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
        self.facts.cluster.choose_host_for(self.hash())
    }

    /// What the hash policy found, for load balancers that look at it: others would only cost clients a cookie.
    fn hash(&self) -> Option<u64> {
        let policy = &self.facts.route.forward()?.hash_policy;
        let hashes =
            matches!(self.facts.cluster.config().lb_policy, LbPolicy::RingHash(_) | LbPolicy::Maglev(_));
        if policy.is_empty() || !hashes {
            return None;
        }
        *self.selection.hash.get_or_init(|| {
            let info = self.stream.info();
            let remote = info.remote_address.borrow();
            let connection = (&info.connection.remote_address, &info.connection.local_address);
            let hashed = policy.hash(self.stream.request()?, Client { remote: &remote, connection });
            self.selection.cookies.replace(hashed.cookies);
            hashed.hash
        })
    }
}
