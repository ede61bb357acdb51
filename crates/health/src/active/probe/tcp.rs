//! `tcp_health_check`.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tidegate_cluster::solo::TcpLine;
use tidegate_config::transport::ProxyVersion;
use tidegate_pool::proxy_protocol::{Pass, ProxyHeader, Version};

use super::Answer;
use crate::active::plan::{Plan, TcpPlan, holds};

/// Whether a connection is all that is asked for. What would be sent is not, as in Envoy.
pub(super) fn is_connect_only(plan: &Plan) -> bool {
    matches!(plan, Plan::Tcp(plan) if plan.check.receive.is_empty())
}

/// Sends the bytes.
pub(super) fn ask(plan: &TcpPlan, line: &mut TcpLine) {
    let mut bytes = Vec::new();
    if let Some(version) = plan.check.proxy_protocol {
        let (version, ends) = match version {
            ProxyVersion::V1 => (Version::V1, line.ends()),
            // LOCAL: the connection is the proxy's own.
            ProxyVersion::V2 => (Version::V2, None),
        };
        let header = ProxyHeader { version, added: Vec::new(), pass: Pass::None };
        bytes = header.encode(ends.as_ref());
    }
    bytes.extend_from_slice(&plan.check.send);
    line.send(Bytes::from(bytes));
}

/// Ready when what is expected came, or nothing will.
pub(super) fn poll(plan: &Plan, line: &mut TcpLine, cx: &mut Context<'_>) -> Poll<Answer> {
    let Plan::Tcp(plan) = plan else { return Poll::Ready(Answer::NETWORK) };
    loop {
        if holds(line.input(), &plan.check.receive) {
            line.forget_input();
            return Poll::Ready(Answer::pass(false));
        }
        if line.input().len() >= plan.most_input {
            // It talks of something else: the time-out ends this.
            return Poll::Pending;
        }
        if ready!(line.poll_input(cx)).is_err() {
            return Poll::Ready(Answer::NETWORK);
        }
    }
}

/// Ready when an idle connection ended. What it says meanwhile is kept for the next check, as in Envoy, as far as
/// that makes sense.
pub(super) fn poll_idle(line: &mut TcpLine, cx: &mut Context<'_>) -> Poll<()> {
    while line.input().len() < MOST_UNASKED {
        if ready!(line.poll_input(cx)).is_err() {
            return Poll::Ready(());
        }
    }
    Poll::Pending
}

/// Stops a host that talks all the time.
const MOST_UNASKED: usize = 64 * 1024;
