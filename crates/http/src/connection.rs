//! A downstream connection from accept to close: exchanges, and the idle times between them.
//!
//! While it idles a connection holds no buffer and no request state: the exchange's future is
//! allocated when bytes arrive and freed at its end.

mod account;
mod close;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use tidegate_codec::h1::{Next, Readable, ServerConn};
use tidegate_filter::Clusters;
use tidegate_router::{Directory, PollClock};
use tidegate_types::{CloseReason, Compat, ConnectionInfo};
use tokio::time::Instant;

use crate::exchange::{self, ExchangeEnd};
use crate::hcm::{Hcm, HcmSlot, WorkerHcm};
use crate::stats::HcmStats;
use crate::timers::LazyTimer;
use account::Account;
use close::Close;
use tidegate_types::drain::{Drain, DrainPhase, DrainWatch};

/// What the exchanges of one connection share.
pub(crate) struct ConnectionCx {
    pub(crate) info: Rc<ConnectionInfo>,
    pub(crate) directory: Rc<Directory>,
    pub(crate) clusters: Rc<dyn Clusters>,
    pub(crate) drain: DrainWatch,
    /// The connection's one timer.
    pub(crate) timer: RefCell<LazyTimer>,
    /// When the task was last polled.
    pub(crate) clock: PollClock,
    born: Instant,
    max_age: Cell<Option<Duration>>,
    /// Exchanges begun.
    served: Cell<u32>,
    /// The idle or age limit was reached: the next response is the last, and this is when patience ends.
    draining: Cell<Option<Draining>>,
    /// Why the connection closes after the exchange under way, if it does.
    why: Cell<Option<CloseReason>>,
}

/// A drain window.
#[derive(Clone, Copy)]
struct Draining {
    /// When patience ends.
    over: Instant,
    /// Why it began.
    reason: CloseReason,
}

impl ConnectionCx {
    /// When `max_connection_duration` ends, until it has.
    pub(crate) fn age_deadline(&self) -> Option<Instant> {
        self.max_age.get().map(|age| self.born + age)
    }

    /// `max_connection_duration` ended.
    pub(crate) fn age_reached(&self, stats: &HcmStats) {
        self.max_age.set(None);
        stats.downstream_cx_max_duration_reached().inc();
        tracing::debug!(target: "http", connection = self.info.id, "max connection duration reached");
    }

    /// Whether the exchange under way is the last that the connection may carry.
    pub(crate) fn last_request(&self, hcm: &Hcm) -> bool {
        if let Some(draining) = self.draining.get() {
            self.closes_for(draining.reason);
            return true;
        }
        if self.max_age.get().is_none() && self.is_old(hcm) {
            self.closes_for(CloseReason::MaxDuration);
            return true;
        }
        match hcm.config.common.max_requests_per_connection {
            Some(max) if self.served.get() >= max => {
                hcm.stats.downstream_cx_max_requests_reached().inc();
                self.closes_for(CloseReason::MaxRequests);
                true
            }
            _ => false,
        }
    }

    /// A response announced the close because of `/healthcheck/fail`: the connection is in its drain window
    /// from here on, as in Envoy. Not when the process or the listener goes, which waits for nobody.
    pub(crate) fn close_announced(&self, hcm: &Hcm) {
        if self.drain.phase() == DrainPhase::Announce && self.draining.get().is_none() {
            let over = self.clock.now() + hcm.config.timeouts.drain;
            self.draining.set(Some(Draining { over, reason: CloseReason::Drained }));
        }
    }

    /// The exchange under way ends the connection for this reason; the first one that is found stays.
    pub(crate) fn closes_for(&self, reason: CloseReason) {
        if self.why.get().is_none() {
            self.why.set(Some(reason));
        }
    }

    fn is_old(&self, hcm: &Hcm) -> bool {
        hcm.config.common.max_connection_duration.is_some_and(|age| self.born.elapsed() >= age)
    }
}

/// What ends an idle wait.
enum Event {
    /// Bytes of a request.
    Request,
    /// The client closed, in this way.
    ClosedByPeer(CloseReason),
    /// `idle_timeout`.
    Idle,
    /// `max_connection_duration`.
    Age,
    /// The drain window after one of those is over.
    DrainWindowOver(CloseReason),
    /// The listener or the process goes away.
    Shutdown,
}

/// Serves a connection until it is closed.
pub async fn serve(
    mut conn: ServerConn,
    info: Rc<ConnectionInfo>,
    slot: Rc<HcmSlot>,
    directory: Rc<Directory>,
    drain: Rc<Drain>,
) {
    let hcm = slot.current();
    let now = Instant::now();
    let cx = ConnectionCx {
        info,
        clusters: directory.clone(),
        directory,
        drain: drain.watch(),
        timer: RefCell::default(),
        clock: PollClock::new(now),
        born: now,
        max_age: Cell::new(hcm.shared.config.common.max_connection_duration),
        served: Cell::new(0),
        draining: Cell::new(None),
        why: Cell::new(None),
    };
    let stats = hcm.shared.stats.clone();
    let mut account = Account::open(&stats, now, cx.info.secure);
    let (close, reason) = loop {
        let hcm = slot.current();
        match next_event(&cx, &mut conn, &hcm, account.idle_since(now)).await {
            Event::Request => {
                // The configuration of now, not of when the wait began: a reload reaches open connections.
                let hcm = slot.current();
                if let Some(closing) = one_exchange(&cx, &mut conn, hcm, &mut account).await {
                    break closing;
                }
                account.idle(cx.clock.now());
            }
            // It is us who do not wait for the handshake any longer.
            Event::ClosedByPeer(CloseReason::ConnectTimeout) => {
                break (Close::Now, CloseReason::ConnectTimeout);
            }
            Event::ClosedByPeer(how) => break (Close::Remote, how),
            Event::Shutdown => break (Close::Linger, CloseReason::Drained),
            Event::DrainWindowOver(reason) => break (drain_close(&hcm), reason),
            Event::Idle => {
                stats.downstream_cx_idle_timeout().inc();
                tracing::debug!(target: "http", connection = cx.info.id, "idle timeout");
                if let Some(close) = start_drain(&cx, &hcm, CloseReason::IdleTimeout) {
                    break (close, CloseReason::IdleTimeout);
                }
            }
            Event::Age => {
                cx.age_reached(&stats);
                if hcm.shared.config.timeouts.http1_safe_max_connection_duration {
                    // The next response is the last; without one the connection stays.
                    account.soft_drain();
                } else if let Some(close) = start_drain(&cx, &hcm, CloseReason::MaxDuration) {
                    break (close, CloseReason::MaxDuration);
                }
            }
        }
    };
    let idle_ms = account.end_idle(cx.clock.now());
    // Before the farewell, which may take `delayed_close_timeout`.
    account.log_close(&cx.info, reason, idle_ms);
    conn.before_close(reason);
    close::note(&cx.info, close, reason);
    let close = close::run(close, &cx, &mut conn, &slot.current().shared).await;
    account.count_traffic(&conn);
    account.closed(close, reason);
    if close == Close::Told {
        close::listen_on(conn, &slot.current().shared);
    }
}

/// An idle or old connection drains: one that has served requests stays for `drain_timeout`, so that a
/// request which is already on its way is answered (deviations, row 1).
fn start_drain(cx: &ConnectionCx, hcm: &WorkerHcm, reason: CloseReason) -> Option<Close> {
    let window = hcm.shared.config.timeouts.drain;
    if cx.served.get() == 0 {
        return Some(last_close(hcm.shared.compat));
    }
    if window.is_zero() {
        return Some(drain_close(hcm));
    }
    cx.draining.set(Some(Draining { over: cx.clock.tick() + window, reason }));
    None
}

/// How a connection ends whose client was told by the last response, or never sent a request. Envoy just closes,
/// and resets what was on its way: a pipelined request then takes the response before it along (RFC 9112 §9.6).
fn last_close(compat: Compat) -> Close {
    if compat.is_strict() { Close::Now } else { Close::Told }
}

/// How the drain ends.
fn drain_close(hcm: &WorkerHcm) -> Close {
    if hcm.shared.compat.is_strict() { Close::Deaf } else { Close::Linger }
}

/// Waits between exchanges: for bytes, the client's close, a deadline or a drain.
async fn next_event(cx: &ConnectionCx, conn: &mut ServerConn, hcm: &WorkerHcm, idle_since: Instant) -> Event {
    if conn.has_buffered_input() {
        return Event::Request;
    }
    let idle = hcm.shared.config.common.idle_timeout.map(|timeout| idle_since + timeout);
    // Envoy's way: any byte, a blank line too, begins a stream.
    let strict = hcm.shared.compat.is_strict();
    let received = conn.rx_bytes();
    poll_fn(|task| {
        cx.clock.tick();
        match conn.poll_readable(task) {
            Poll::Ready(Readable::Bytes) => return Poll::Ready(Event::Request),
            Poll::Ready(Readable::Closed) => return Poll::Ready(Event::ClosedByPeer(CloseReason::PeerFin)),
            Poll::Ready(Readable::Broken(error)) => {
                return Poll::Ready(Event::ClosedByPeer(CloseReason::of_io(&error)));
            }
            Poll::Pending if strict && conn.rx_bytes() > received => return Poll::Ready(Event::Request),
            Poll::Pending => {}
        }
        if cx.drain.poll_reached(task, DrainPhase::CloseIdle).is_ready() {
            return Poll::Ready(Event::Shutdown);
        }
        poll_idle_deadline(cx, task, idle)
    })
    .await
}

fn poll_idle_deadline(cx: &ConnectionCx, task: &mut Context<'_>, idle: Option<Instant>) -> Poll<Event> {
    let (deadlines, event): ([Option<Instant>; 2], _) = match cx.draining.get() {
        Some(Draining { over, reason }) => ([Some(over), None], Some(Event::DrainWindowOver(reason))),
        None => ([idle, cx.age_deadline()], None),
    };
    let nearest = deadlines.into_iter().flatten().min();
    std::task::ready!(cx.timer.borrow_mut().poll(task, nearest, cx.clock.now()));
    Poll::Ready(event.unwrap_or_else(|| {
        if cx.age_deadline().is_some_and(|age| Some(age) == nearest) { Event::Age } else { Event::Idle }
    }))
}

/// Serves one exchange; the close that follows it, if one does, and why.
async fn one_exchange(
    cx: &ConnectionCx,
    conn: &mut ServerConn,
    hcm: Rc<WorkerHcm>,
    account: &mut Account,
) -> Option<(Close, CloseReason)> {
    cx.served.set(cx.served.get().saturating_add(1));
    cx.why.set(None);
    cx.info.state.protocol.set(Some(Version::HTTP_11));
    account.request(cx.clock.now());
    cx.clock.start();
    let delayed_close = hcm.shared.config.timeouts.delayed_close;
    let compat = hcm.shared.compat;
    // Boxed: the state of a request lives on the heap while there is one, not in every idle connection.
    let end = Box::pin(exchange::serve(cx, hcm, conn, cx.clock.now())).await;
    account.count_traffic(conn);
    let why = |otherwise| cx.why.get().unwrap_or(otherwise);
    match end {
        end @ (ExchangeEnd::Complete | ExchangeEnd::Replied) => {
            let close = match conn.finish_exchange() {
                Next::KeepAlive => return None,
                // Envoy waits for the end of the drain window, whatever the response announced.
                Next::Close if compat.is_strict() && cx.draining.get().is_some() => Close::Deaf,
                // FIN at once, and a request that crosses it meets no RST (deviations, row 1).
                Next::Close if cx.draining.get().is_some() => Close::Linger,
                Next::Close if end == ExchangeEnd::Replied && delayed_close.is_some() => Close::Delayed,
                Next::Close => last_close(compat),
            };
            // Unless we had a reason of our own the client asked for it, or speaks HTTP/1.0.
            Some((close, why(CloseReason::Announced)))
        }
        ExchangeEnd::DelayedClose | ExchangeEnd::ResetDelayed if delayed_close.is_some() => {
            Some((Close::Delayed, why(CloseReason::RequestReset)))
        }
        ExchangeEnd::DelayedClose | ExchangeEnd::ResetDelayed | ExchangeEnd::Reset => {
            Some((Close::Now, why(CloseReason::RequestReset)))
        }
        // A failed write may be all that there is to see.
        ExchangeEnd::Gone => Some((Close::RemoteActive, conn.ended().unwrap_or(CloseReason::PeerRst))),
    }
}
