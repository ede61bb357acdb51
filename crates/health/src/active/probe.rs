//! One host's check on the wire: a connection that is opened, asked, and kept for the next time.
//!
//! Polled by its owner; the time-out is the owner's. Start from [`Probe::start`] and [`Probe::poll`].

use std::rc::Rc;
use std::task::{Context, Poll};

use tidegate_cluster::solo::{HttpLine, LineEvent, TcpLine};
use tidegate_cluster::{CheckKit, HostShared, TransportOptions};
use tidegate_pool::dialer::{Opened, Opening};

use super::plan::Plan;
use super::session::Failure;

mod exchange;
mod grpc;
mod http;
mod tcp;

use exchange::Exchange;

/// What a check is made with.
pub(super) struct Site<'a> {
    pub(super) kit: &'a CheckKit,
    pub(super) plan: &'a Plan,
    pub(super) host: &'a HostShared,
    /// `:authority`, or `host`.
    pub(super) authority: &'a str,
    pub(super) options: &'a Rc<TransportOptions>,
    pub(super) reuse: bool,
    /// Whether connections are of TLS.
    pub(super) secure: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Probe {
    line: Option<Line>,
    stage: Stage,
    /// The peer goes away: the connection is not for the next time.
    going_away: bool,
}

enum Line {
    Http(HttpLine),
    Tcp(TcpLine),
}

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    Opening(Opening),
    Asking(Box<Exchange>),
}

/// A check's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    /// The host says of itself that it is not to be used.
    pub(super) excluded: bool,
    /// `service_name_matcher` was compared.
    pub(super) verified: bool,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Pass { degraded: bool },
    Fail(Failure),
}

impl Answer {
    fn pass(degraded: bool) -> Self {
        Self { outcome: Outcome::Pass { degraded }, excluded: false, verified: false }
    }

    fn fail(failure: Failure) -> Self {
        Self { outcome: Outcome::Fail(failure), excluded: false, verified: false }
    }

    const NETWORK: Self = Self { outcome: Outcome::Fail(Failure::Network), excluded: false, verified: false };
}

impl Probe {
    /// Begins a check: on the connection of the last one, or on a new one.
    pub(super) fn start(&mut self, site: &Site<'_>) {
        self.stage = match &mut self.line {
            None => Stage::Opening(site.kit.dialer(site.host).open(site.options.clone())),
            Some(line) => Stage::Asking(ask(line, site)),
        };
    }

    /// Whether a check is under way.
    pub(super) fn is_asking(&self) -> bool {
        !matches!(self.stage, Stage::Idle)
    }

    /// Goes on with a check, or looks after an idle connection; ready with a result. An idle connection has one when
    /// its end is one (TCP).
    pub(super) fn poll(&mut self, site: &Site<'_>, cx: &mut Context<'_>) -> Poll<Answer> {
        if let Stage::Opening(opening) = &mut self.stage {
            let opened = match opening.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(opened) => opened,
            };
            self.stage = Stage::Idle;
            self.going_away = false;
            let Some(mut line) = opened.ok().and_then(|opened| line_on(opened, site)) else {
                return Poll::Ready(Answer::NETWORK);
            };
            if tcp::is_connect_only(site.plan) {
                return Poll::Ready(Answer::pass(false));
            }
            self.stage = Stage::Asking(ask(&mut line, site));
            self.line = Some(line);
        }
        match &self.stage {
            Stage::Asking(_) => self.poll_asking(site, cx),
            _ => self.poll_idle(cx),
        }
    }

    fn poll_asking(&mut self, site: &Site<'_>, cx: &mut Context<'_>) -> Poll<Answer> {
        let (Some(line), Stage::Asking(exchange)) = (&mut self.line, &mut self.stage) else {
            return Poll::Pending;
        };
        let polled = match line {
            Line::Http(line) => exchange.poll(site.plan, line, cx),
            Line::Tcp(line) => tcp::poll(site.plan, line, cx),
        };
        if let Poll::Ready(answer) = polled {
            self.end(site, answer);
            return Poll::Ready(answer);
        }
        match line {
            Line::Http(line) if line.is_multiplexed() => loop {
                match line.poll_idle(cx) {
                    Poll::Pending => return Poll::Pending,
                    // The answer may still come, or its failure does with the next poll of the exchange.
                    Poll::Ready(LineEvent::GoingAway) => self.going_away = true,
                    Poll::Ready(LineEvent::Over) => {
                        let last = exchange.poll(site.plan, line, cx);
                        self.close();
                        return Poll::Ready(match last {
                            Poll::Ready(answer) => answer,
                            Poll::Pending => Answer::NETWORK,
                        });
                    }
                    Poll::Ready(LineEvent::Refused) => {
                        self.close();
                        return Poll::Ready(Answer::NETWORK);
                    }
                }
            },
            _ => Poll::Pending,
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut self.line {
            Some(Line::Http(line)) => {
                // Whatever happens to an idle connection is its end.
                if line.poll_idle(cx).is_ready() {
                    self.line = None;
                }
                Poll::Pending
            }
            Some(Line::Tcp(line)) => {
                // For Envoy the end of a connection is a failure, also between checks.
                let ended = tcp::poll_idle(line, cx);
                if ended.is_ready() {
                    self.line = None;
                }
                ended.map(|()| Answer::NETWORK)
            }
            None => Poll::Pending,
        }
    }

    /// There is an answer: keeps the connection if it is good for another one.
    fn end(&mut self, site: &Site<'_>, answer: Answer) {
        self.stage = Stage::Idle;
        let keep = match &mut self.line {
            Some(Line::Http(line)) => line.finish(),
            // Any connection that answered is good for another check.
            Some(Line::Tcp(_)) => answer != Answer::NETWORK,
            None => false,
        };
        if !keep || !site.reuse || self.going_away {
            self.line = None;
        }
    }

    /// The check took too long: gives it up. A gRPC check gives up its stream only.
    pub(super) fn give_up(&mut self, site: &Site<'_>) {
        match (&site.plan, &self.stage) {
            (Plan::Grpc(_), Stage::Asking(_)) => self.end(site, Answer::fail(Failure::Timeout)),
            _ => self.close(),
        }
    }

    fn close(&mut self) {
        self.stage = Stage::Idle;
        self.line = None;
    }
}

fn line_on(opened: Opened, site: &Site<'_>) -> Option<Line> {
    match site.plan {
        Plan::Tcp(_) => Some(Line::Tcp(TcpLine::new(opened.io))),
        plan if plan.speaks_http2() => site.kit.http2(opened).ok().map(Line::Http),
        _ => Some(Line::Http(site.kit.http1(opened))),
    }
}

fn ask(line: &mut Line, site: &Site<'_>) -> Box<Exchange> {
    match (line, site.plan) {
        (Line::Http(line), Plan::Http(plan)) => http::ask(plan, line.stream(), site),
        (Line::Http(line), Plan::Grpc(plan)) => grpc::ask(plan, line.stream(), site),
        (Line::Tcp(line), Plan::Tcp(plan)) => tcp::ask(plan, line),
        // A probe lives with one plan.
        _ => {}
    }
    Box::default()
}
