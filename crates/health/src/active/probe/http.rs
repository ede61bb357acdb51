//! `http_health_check`.

use http::header::{CONTENT_LENGTH, USER_AGENT};
use http::{HeaderValue, Version};
use tidegate_cluster::stream::ClientStream;
use tidegate_config::cluster::CheckProtocol;
use tidegate_types::{EndStream, RequestHead, Scheme};

use super::exchange::Response;
use super::{Answer, Outcome, Site};
use crate::active::plan::{HttpPlan, Matcher, holds};
use crate::active::session::Failure;

/// Sends the request.
pub(super) fn ask(plan: &HttpPlan, stream: &mut dyn ClientStream, site: &Site<'_>) {
    let check = &plan.check;
    let mut head = RequestHead::new(check.method.clone(), site.authority.to_owned(), check.path.clone());
    head.scheme = if site.secure { Scheme::Https } else { Scheme::Http };
    if check.protocol == CheckProtocol::Http2 {
        head.version = Version::HTTP_2;
    }
    head.headers.insert(USER_AGENT, AGENT);
    plan.headers.apply(&mut head, &site.host.address());
    if plan.body.is_empty() {
        stream.send_head(&head, EndStream::Yes);
        return;
    }
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(plan.body.len() as u64));
    stream.send_head(&head, EndStream::No);
    stream.send_data(plan.body.clone(), EndStream::Yes);
}

/// What a complete response says.
pub(super) fn judge(plan: &HttpPlan, response: &Response) -> Option<Answer> {
    let head = response.head.as_ref().filter(|_| response.complete)?;
    let status = head.status.as_u16();
    let says = |name: &str| head.headers.contains_key(name);
    let fails = |retriable| Answer {
        excluded: says("x-envoy-immediate-health-check-fail"),
        ..Answer::fail(Failure::Answer { retriable, status })
    };
    if !holds(&response.body, &plan.check.receive) {
        return Some(fails(false));
    }
    if !plan.check.expected_statuses.contain(status) {
        return Some(fails(plan.check.retriable_statuses.contain(status)));
    }
    let passed = Answer::pass(says("x-envoy-degraded"));
    let verifies = |_: &&Matcher| fastrand::u64(..100) < plan.verify_percent;
    let Some(matcher) = plan.service_name.as_ref().filter(verifies) else { return Some(passed) };
    let name = head.headers.get("x-envoy-upstream-healthchecked-cluster");
    let name = name.and_then(|name| name.to_str().ok()).unwrap_or_default();
    let outcome = match matcher.matches(name) {
        true => passed.outcome,
        false => Outcome::Fail(Failure::Answer { retriable: false, status }),
    };
    Some(Answer { outcome, verified: true, excluded: false })
}

/// Envoy's name for itself in checks.
pub(super) const AGENT: HeaderValue = HeaderValue::from_static("Envoy/HC");
