//! Redirects that are followed (`internal_redirect_policy`), as far as the upstream side is concerned: whether a
//! response is one, what was kept of the body, the counters.

use http::StatusCode;
use tidegate_cluster::stream::BodyFrame;
use tidegate_types::{EndStream, ResponseHead};

use super::{RequestFacts, Upstream, UpstreamHead};
use crate::internal_redirect::InternalRedirect;

impl RequestFacts<'_> {
    fn redirects(&self) -> Option<&InternalRedirect> {
        self.route.forward()?.internal_redirect.as_deref()
    }

    /// Whether the body may have to be sent again for what the route says.
    pub(super) fn keeps_bodies(&self) -> bool {
        self.retries.borrow().is_some() || !self.copies.borrow().is_empty() || self.redirects().is_some()
    }
}

impl Upstream<'_> {
    pub(super) fn is_redirect(&self, status: StatusCode) -> bool {
        status.is_redirection() && self.facts.redirects().is_some_and(|policy| policy.concerns(status))
    }

    /// The request's body, if it was kept whole.
    pub fn kept_body(&self) -> Option<Vec<BodyFrame>> {
        let replay = self.replay.borrow();
        replay.fits(self.facts.replay_limit).then(|| replay.frames().collect())
    }

    /// A redirect is followed: this was the request's way to it.
    pub async fn redirected(&self, end: EndStream) {
        self.facts.cluster.stats().router.upstream_internal_redirect_succeeded_total().inc();
        self.deadlines.clear();
        self.safe_retry_ended(true);
        self.discard_response(end).await;
    }

    /// A redirect is not followed; [`Upstream::pass_on`] is next.
    pub fn redirect_refused(&self) {
        self.facts.cluster.stats().router.upstream_internal_redirect_failed_total().inc();
    }

    /// A redirect goes down as any other response.
    pub fn pass_on(&self, head: ResponseHead, end: EndStream) -> UpstreamHead {
        self.accept(head, end)
    }
}
