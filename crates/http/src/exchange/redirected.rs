//! Redirects of upstreams that are followed here (`internal_redirect_policy`): the exchange ends without a response,
//! and another one goes on with the new request on the client's stream, as in Envoy.

use std::pin::pin;
use std::rc::Rc;

use http::HeaderValue;
use tidegate_codec::{BodyFrame, ServerStream};
use tidegate_filter::LocalReply;
use tidegate_router::internal_redirect::{Body, InternalRedirect, Redirects, Refusal, Target};
use tidegate_router::{Route, Upstream, UpstreamHead};
use tidegate_types::{Address, BodyBuf, EndStream, RequestHead, ResponseHead, details};

use super::{Abort, Exchange, ExchangeEnd, HeldBody, panics};
use crate::chain::{self, ResponseChain};
use crate::connection::StreamCx;
use crate::hcm::WorkerHcm;
use crate::request;

/// A request that goes on after a redirect.
#[derive(Debug)]
pub(crate) struct Again {
    pub(crate) head: Box<RequestHead>,
    held: HeldBody,
    redirects: Box<Redirects>,
    bytes_received: u64,
    internal: bool,
    remote_address: Address,
    response_request_id: Option<HeaderValue>,
}

/// Serves what an exchange was redirected to, and where that leads.
pub(super) async fn follow(
    cx: &StreamCx<'_>,
    hcm: Rc<WorkerHcm>,
    server: &mut dyn ServerStream,
    mut again: Box<Again>,
) -> ExchangeEnd {
    loop {
        cx.clock.start();
        let exchange = Exchange::new(cx, hcm.clone(), &mut *server);
        exchange.begin();
        let end = match panics::catch(pin!(exchange.go_on(again)), || cx.tick()).await {
            Ok(end) => end,
            Err(panics::Panicked) => exchange.after_panic().await,
        };
        match exchange.again.take() {
            Some(next) => again = next,
            None => return end,
        }
    }
}

impl Exchange<'_> {
    /// An upstream's redirect that the route wants followed. The error is the request that follows it; what is not
    /// followed is the response.
    pub(super) async fn redirect(
        &self,
        route: &Route,
        upstream: &Upstream<'_>,
        head: ResponseHead,
        end: EndStream,
    ) -> Result<UpstreamHead, Abort> {
        let Some(policy) = route.forward().and_then(|forward| forward.internal_redirect.as_deref()) else {
            return Ok(upstream.pass_on(head, end));
        };
        let mut redirects = self.redirects.take().unwrap_or_default();
        // The request has to be here whole, to be sent whole.
        let kept = if self.request_ended.get() { upstream.kept_body() } else { None };
        let target = match kept {
            Some(body) => {
                self.target(route, policy, &head, &mut redirects).map(|target| Some((target, body)))
            }
            None => Ok(None),
        };
        match target {
            Ok(Some((target, body))) => {
                let info = self.stream.info();
                info.response_code.set(head.status.as_u16());
                info.detail(details::INTERNAL_REDIRECT);
                *self.response_head.borrow_mut() = Some(head);
                upstream.redirected(end).await;
                Err(Abort::Redirected(self.again(target, body, redirects)))
            }
            refused => {
                if let Err(refusal) = refused {
                    self.count_refusal(refusal);
                }
                upstream.redirect_refused();
                Ok(upstream.pass_on(head, end))
            }
        }
    }

    /// Where the redirect leads, if it may.
    fn target(
        &self,
        route: &Route,
        policy: &InternalRedirect,
        head: &ResponseHead,
        redirects: &mut Redirects,
    ) -> Result<Target, Refusal> {
        let request = self.stream.request().ok_or(Refusal::NoRoute)?;
        let secure = self.stream.info().connection.secure;
        let mut target = policy.follow(request, secure, head, redirects)?;
        *self.stream.info().cluster.borrow_mut() = None;
        let next = self.match_route(&mut target.head).ok_or(Refusal::NoRoute)?;
        let name = |route: &Route| route.name().cloned().unwrap_or_default();
        policy.accepts(redirects, &name(route), &name(&next), target.crossing)?;
        Ok(target)
    }

    fn again(&self, target: Target, body: Vec<BodyFrame>, redirects: Box<Redirects>) -> Box<Again> {
        // As in Envoy without its trailers.
        let mut held = HeldBody::new(EndStream::Yes);
        for frame in body {
            if let (BodyFrame::Data(data, _), Body::Keep) = (frame, target.body) {
                held.body.append(&mut BodyBuf::from(data));
            }
        }
        Box::new(Again {
            head: target.head,
            held,
            redirects,
            bytes_received: self.stream.info().bytes_received.get(),
            internal: self.internal.get(),
            remote_address: self.stream.info().remote_address.borrow().clone(),
            response_request_id: self.response_request_id.take(),
        })
    }

    fn count_refusal(&self, refusal: Refusal) {
        let stats = &self.hcm.shared.stats;
        match refusal {
            Refusal::NoLocation => {}
            Refusal::BadLocation => stats.passthrough_internal_redirect_bad_location().inc(),
            Refusal::UnsafeScheme => stats.passthrough_internal_redirect_unsafe_scheme().inc(),
            Refusal::TooMany => stats.passthrough_internal_redirect_too_many_redirects().inc(),
            Refusal::NoRoute => stats.passthrough_internal_redirect_no_route().inc(),
            Refusal::Predicate => stats.passthrough_internal_redirect_predicate().inc(),
        }
    }

    async fn go_on(&self, again: Box<Again>) -> ExchangeEnd {
        let mut response_filters = ResponseChain::default();
        let outcome = self.run_again(*again, &mut response_filters).await;
        self.settle(outcome, &mut response_filters).await
    }

    /// The pipeline from the route on: who the client is was found out before.
    async fn run_again(&self, again: Again, response_filters: &mut ResponseChain) -> Result<(), Abort> {
        let Again { mut head, mut held, redirects, bytes_received, internal, remote_address, .. } = again;
        self.timers.set_headers(None);
        let info = self.stream.info();
        info.protocol.set(Some(head.version));
        // As Envoy, which counts what is sent again with what was received.
        info.bytes_received.set(bytes_received + held.body.len() as u64);
        *info.remote_address.borrow_mut() = remote_address;
        self.request_complete(self.now());
        self.internal.set(internal);
        self.response_request_id.replace(again.response_request_id);
        self.redirects.set(Some(redirects));
        if let Err(reply) = request::normalize(&self.hcm.shared, &mut head, info) {
            return Err(self.refuse_head(head, reply));
        }
        let route = self.match_route(&mut head);
        let view = route.as_ref().map(|route| &*route.view);
        let (mut request_filters, filters) = chain::open(&self.hcm.shared.filters, &self.stream, view);
        *response_filters = filters;
        if let Err(abort) = self.filter_head(&mut request_filters, &mut head, &mut held).await {
            self.stream.set_request(head);
            return Err(abort);
        }
        self.route_request(route, head, &mut held, &mut request_filters, response_filters).await
    }

    fn refuse_head(&self, head: Box<RequestHead>, reply: Box<LocalReply>) -> Abort {
        self.stream.set_request(head);
        Abort::Reply(reply)
    }
}
