//! A downstream connection from accept to close: exchanges, and the idle times between them.
//!
//! While it idles a connection holds no buffer and no request state: the exchange's future is
//! allocated when bytes arrive and freed at its end.

mod close;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_codec::h1::{Next, Readable, ServerConn};
use tidegate_filter::Clusters;
use tidegate_router::{Directory, PollClock};
use tidegate_types::ConnectionInfo;
use tokio::time::Instant;

use crate::exchange::{self, ExchangeEnd};
use crate::hcm::{Hcm, HcmSlot, WorkerHcm};
use crate::stats::HcmStats;
use crate::timers::LazyTimer;
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
    draining: Cell<Option<Instant>>,
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
        if self.draining.get().is_some() || (self.max_age.get().is_none() && self.is_old(hcm)) {
            return true;
        }
        match hcm.config.common.max_requests_per_connection {
            Some(max) if self.served.get() >= max => {
                hcm.stats.downstream_cx_max_requests_reached().inc();
                true
            }
            _ => false,
        }
    }

    /// A response announced the close because of `/healthcheck/fail`: the connection is in its drain window
    /// from here on, as in Envoy. Not when the process or the listener goes, which waits for nobody.
    pub(crate) fn close_announced(&self, hcm: &Hcm) {
        if self.drain.phase() == DrainPhase::Announce && self.draining.get().is_none() {
            self.draining.set(Some(self.clock.now() + hcm.config.timeouts.drain));
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
    /// The client closed.
    ClosedByPeer,
    /// `idle_timeout`.
    Idle,
    /// `max_connection_duration`.
    Age,
    /// The drain window after one of those is over.
    DrainWindowOver,
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
    };
    let stats = hcm.shared.stats.clone();
    stats.downstream_cx_total().inc();
    stats.downstream_cx_active().inc();
    let mut traffic = Traffic::default();
    let mut soft_drained = false;
    let mut idle_since = now;
    let close = loop {
        let hcm = slot.current();
        match next_event(&cx, &mut conn, &hcm, idle_since).await {
            Event::Request => {
                // The configuration of now, not of when the wait began: a reload reaches open connections.
                let hcm = slot.current();
                if let Some(close) = one_exchange(&cx, &mut conn, hcm, &mut traffic).await {
                    break close;
                }
                idle_since = cx.clock.now();
            }
            Event::ClosedByPeer => break Close::Remote,
            Event::Shutdown => break Close::Linger,
            Event::DrainWindowOver => break drain_close(&hcm),
            Event::Idle => {
                stats.downstream_cx_idle_timeout().inc();
                tracing::debug!(target: "http", connection = cx.info.id, "idle timeout");
                if let Some(close) = start_drain(&cx, &hcm) {
                    break close;
                }
            }
            Event::Age => {
                cx.age_reached(&stats);
                if hcm.shared.config.timeouts.http1_safe_max_connection_duration {
                    // The next response is the last; without one the connection stays.
                    soft_drained = true;
                    stats.downstream_cx_http1_soft_drain().inc();
                } else if let Some(close) = start_drain(&cx, &hcm) {
                    break close;
                }
            }
        }
    };
    let close = close::run(close, &cx, &mut conn, &slot.current().shared).await;
    traffic.count(&conn, &stats);
    close::count(close, &stats);
    stats.downstream_cx_active().dec();
    if soft_drained {
        stats.downstream_cx_http1_soft_drain().dec();
    }
    if traffic.spoke_http1 {
        stats.downstream_cx_http1_active().dec();
    }
    stats.downstream_cx_length_ms().record(cx.born.elapsed().as_millis() as u64);
}

/// An idle or old connection drains: one that has served requests stays for `drain_timeout`, so that a
/// request which is already on its way is answered (deviations, row 1).
fn start_drain(cx: &ConnectionCx, hcm: &WorkerHcm) -> Option<Close> {
    let window = hcm.shared.config.timeouts.drain;
    if cx.served.get() == 0 {
        return Some(Close::Now);
    }
    if window.is_zero() {
        return Some(drain_close(hcm));
    }
    cx.draining.set(Some(cx.clock.tick() + window));
    None
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
            Poll::Ready(Readable::Closed | Readable::Broken(_)) => return Poll::Ready(Event::ClosedByPeer),
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
        Some(over) => ([Some(over), None], Some(Event::DrainWindowOver)),
        None => ([idle, cx.age_deadline()], None),
    };
    let nearest = deadlines.into_iter().flatten().min();
    std::task::ready!(cx.timer.borrow_mut().poll(task, nearest, cx.clock.now()));
    Poll::Ready(event.unwrap_or_else(|| {
        if cx.age_deadline().is_some_and(|age| Some(age) == nearest) { Event::Age } else { Event::Idle }
    }))
}

/// Serves one exchange; the close that follows it, if one does.
async fn one_exchange(
    cx: &ConnectionCx,
    conn: &mut ServerConn,
    hcm: Rc<WorkerHcm>,
    traffic: &mut Traffic,
) -> Option<Close> {
    let stats = hcm.shared.stats.clone();
    cx.served.set(cx.served.get().saturating_add(1));
    traffic.first_byte(&stats);
    cx.clock.start();
    let delayed_close = hcm.shared.config.timeouts.delayed_close;
    let strict = hcm.shared.compat.is_strict();
    // Boxed: the state of a request lives on the heap while there is one, not in every idle connection.
    let end = Box::pin(exchange::serve(cx, hcm, conn, cx.clock.now())).await;
    traffic.count(conn, &stats);
    match end {
        end @ (ExchangeEnd::Complete | ExchangeEnd::Replied) => match conn.finish_exchange() {
            Next::KeepAlive => None,
            // Envoy waits for the end of the drain window, whatever the response announced.
            Next::Close if strict && cx.draining.get().is_some() => Some(Close::Deaf),
            // FIN at once, and a request that crosses it meets no RST (deviations, row 1).
            Next::Close if cx.draining.get().is_some() => Some(Close::Linger),
            Next::Close if end == ExchangeEnd::Replied && delayed_close.is_some() => Some(Close::Delayed),
            Next::Close => Some(Close::Now),
        },
        ExchangeEnd::DelayedClose | ExchangeEnd::ResetDelayed if delayed_close.is_some() => {
            Some(Close::Delayed)
        }
        ExchangeEnd::DelayedClose | ExchangeEnd::ResetDelayed | ExchangeEnd::Reset => Some(Close::Now),
        ExchangeEnd::Gone => Some(Close::RemoteActive),
    }
}

/// Bytes of a connection, added to the statistics after each exchange.
#[derive(Default)]
struct Traffic {
    spoke_http1: bool,
    received: u64,
    sent: u64,
}

impl Traffic {
    fn first_byte(&mut self, stats: &HcmStats) {
        if !self.spoke_http1 {
            self.spoke_http1 = true;
            stats.downstream_cx_http1_total().inc();
            stats.downstream_cx_http1_active().inc();
        }
    }

    fn count(&mut self, conn: &ServerConn, stats: &HcmStats) {
        let (received, sent) = (conn.rx_bytes(), conn.tx_bytes());
        stats.downstream_cx_rx_bytes_total().add(received - self.received);
        stats.downstream_cx_tx_bytes_total().add(sent - self.sent);
        (self.received, self.sent) = (received, sent);
    }
}
