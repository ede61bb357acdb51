//! A downstream connection from accept to close: its exchanges, one after the other or many at once, and the
//! idle times between them.
//!
//! While it idles a connection holds no buffer and no request state: the exchange's future is
//! allocated when bytes arrive and freed at its end.

mod account;
mod close;
mod deadlines;
mod multiplexed;
mod opening;
mod serial;
mod stream_cx;
mod streams;
mod wakes;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use http::Version;
use tidegate_codec::h1::ServerConn;
use tidegate_codec::{h2, h3};
use tidegate_filter::Clusters;
use tidegate_router::{Directory, PollClock};
use tidegate_types::{CloseReason, ConnectionInfo, ResponseFlags};
use tokio::time::Instant;

use crate::hcm::{Hcm, HcmSlot};
use crate::stats::HcmStats;
use crate::timers::LazyTimer;
use account::Account;
use close::{Close, Ending};
use multiplexed::Opening;
use serial::Outcome;
use tidegate_types::drain::{Drain, DrainPhase, DrainWatch};
use tidegate_types::overload::{Overload, ScaledTimer};

pub(crate) use stream_cx::StreamCx;

/// What the exchanges of one connection share.
pub(crate) struct ConnectionCx {
    pub(crate) info: Rc<ConnectionInfo>,
    pub(crate) directory: Rc<Directory>,
    pub(crate) clusters: Rc<dyn Clusters>,
    pub(crate) drain: DrainWatch,
    pub(crate) overload: Rc<Overload>,
    /// The connection's one timer.
    timer: RefCell<LazyTimer>,
    /// When the task was last polled.
    clock: PollClock,
    born: Instant,
    max_age: Cell<Option<Duration>>,
    /// Exchanges begun.
    served: Cell<u32>,
    /// How many of them had begun when `max_connection_duration` ended.
    served_in_time: Cell<Option<u32>>,
    /// The idle or age limit was reached: the next response is the last, and this is when patience ends.
    draining: Cell<Option<Draining>>,
    /// Why the connection closes after the exchange under way, if it does.
    why: Cell<Option<CloseReason>>,
    /// A drain was announced to the client, on a connection that carries many exchanges.
    announced: Cell<bool>,
    /// How the connection ended under its exchanges, unless the client just left.
    pub(crate) lost: Cell<Option<Lost>>,
}

/// What access logs tell of exchanges whose connection ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    pub(crate) flag: ResponseFlags,
    pub(crate) details: &'static str,
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
    /// A connection that begins now.
    fn new(info: Rc<ConnectionInfo>, slot: &HcmSlot, directory: Rc<Directory>, drain: &Rc<Drain>) -> Self {
        let now = Instant::now();
        let common = &slot.current().shared.config.common;
        let jitter = common.max_connection_duration_jitter;
        Self {
            info,
            clusters: directory.clone(),
            directory,
            drain: drain.watch(),
            overload: slot.overload().clone(),
            timer: RefCell::default(),
            clock: PollClock::new(now),
            born: now,
            max_age: Cell::new(common.max_connection_duration.map(|age| jitter.lengthen(age, fastrand::f64))),
            served: Cell::new(0),
            served_in_time: Cell::new(None),
            draining: Cell::new(None),
            why: Cell::new(None),
            announced: Cell::new(false),
            lost: Cell::new(None),
        }
    }

    /// What is counted of it.
    fn account(&self, slot: &HcmSlot) -> Account {
        Account::open(&slot.current().shared.stats, self.born, self.info.secure)
    }

    /// When `max_connection_duration` ends, until it has.
    fn age_deadline(&self) -> Option<Instant> {
        self.max_age.get().map(|age| self.born + self.overload.scale(ScaledTimer::ConnectionMax, age))
    }

    /// When `idle_timeout` ends for a connection that has idled `since` then.
    fn idle_deadline(&self, hcm: &Hcm, since: Instant) -> Option<Instant> {
        let timeout = hcm.config.common.idle_timeout?;
        Some(since + self.overload.scale(ScaledTimer::ConnectionIdle, timeout))
    }

    /// When a graceful drain tells the connection, if it idles then.
    fn drain_deadline(&self) -> Option<Instant> {
        let due = self.drain.graceful()?.idle_due(self.born.into_std(), self.info.id)?;
        Some(Instant::from_std(due))
    }

    /// Whether a response that goes now announces the close.
    fn announces_drain(&self) -> bool {
        self.drain.phase() >= DrainPhase::Announce
            || self
                .drain
                .graceful()
                .is_some_and(|drain| drain.announces(self.clock.now().into_std(), fastrand::u64(..)))
    }

    /// `max_connection_duration` ended.
    fn age_reached(&self, stats: &HcmStats) {
        self.max_age.set(None);
        self.served_in_time.set(Some(self.served.get()));
        stats.downstream_cx_max_duration_reached().inc();
        tracing::debug!(target: "http", connection = self.info.id, "max connection duration reached");
    }

    /// `idle_timeout` ended.
    fn idle_reached(&self, stats: &HcmStats) {
        stats.downstream_cx_idle_timeout().inc();
        tracing::debug!(target: "http", connection = self.info.id, "idle timeout");
    }

    /// Whether the exchange under way is the last that the connection may carry.
    fn last_request(&self, hcm: &Hcm) -> bool {
        if let Some(draining) = self.draining.get() {
            self.closes_for(draining.reason);
            return true;
        }
        // A connection that is only told with a response is told with the next one that begins, as in Envoy.
        let in_time = hcm.config.timeouts.http1_safe_max_connection_duration
            && self.served_in_time.get() == Some(self.served.get());
        if self.max_age.get().is_none() && self.is_old(hcm) && !in_time {
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

    /// A response announced the close because of `/healthcheck/fail` or `/drain_listeners?graceful`: the connection is in
    /// its drain window from here on, as in Envoy. Not when the process or the listener goes, which waits for nobody.
    fn close_announced(&self, hcm: &Hcm) {
        if self.drain.phase() < DrainPhase::CloseIdle && self.draining.get().is_none() {
            // Not when the exchange began.
            let over = self.clock.tick() + hcm.config.timeouts.drain_window(fastrand::f64);
            self.draining.set(Some(Draining { over, reason: CloseReason::Drained }));
        }
    }

    /// The exchange under way ends the connection for this reason; the first one that is found stays.
    fn closes_for(&self, reason: CloseReason) {
        if self.why.get().is_none() {
            self.why.set(Some(reason));
        }
    }

    fn is_old(&self, hcm: &Hcm) -> bool {
        hcm.config.common.max_connection_duration.is_some_and(|age| self.born.elapsed() >= age)
    }
}

/// Serves a connection until it is closed. `conn` is taken for HTTP/1.1 until its first bytes, or its handshake,
/// say otherwise.
pub async fn serve(
    mut conn: ServerConn,
    info: Rc<ConnectionInfo>,
    slot: Rc<HcmSlot>,
    directory: Rc<Directory>,
    drain: Rc<Drain>,
) {
    let cx = ConnectionCx::new(info, &slot, directory, &drain);
    let mut account = cx.account(&slot);
    match serial::run(&cx, &mut conn, &slot, &mut account).await {
        Outcome::Over(close, reason) => end(&cx, conn, &slot, account, close, reason).await,
        Outcome::Multiplexed => {
            let (io, seen) = conn.into_input();
            let conn = h2::ServerConn::new(io, seen, slot.multiplexed_options(), slot.observer());
            // Boxed: what many streams need is not to be room in every connection.
            Box::pin(multiplexed::serve(&cx, conn, Version::HTTP_2, &slot, account, Opening::default())).await
        }
    }
}

/// Serves a connection of HTTP/3, whose handshake must be over at `handshake_due`, until it is closed. `learn` puts what
/// the handshake brought by then into `info`.
#[allow(clippy::manual_async_fn, reason = "a function's future would hold its arguments twice")]
pub fn serve_http3(
    conn: h3::ServerConn,
    handshake_due: Instant,
    learn: impl Fn() + 'static,
    info: Rc<ConnectionInfo>,
    slot: Rc<HcmSlot>,
    directory: Rc<Directory>,
    drain: Rc<Drain>,
) -> impl Future<Output = ()> + 'static {
    async move {
        let cx = ConnectionCx::new(info, &slot, directory, &drain);
        let account = cx.account(&slot);
        let opening = Opening { due: Some(handshake_due), learn: Some(&learn) };
        multiplexed::serve(&cx, conn, Version::HTTP_3, &slot, account, opening).await;
        // At its end, as Envoy counts it.
        slot.current().shared.http3_stats.quic_version_rfc_v1().inc();
    }
}

/// Says farewell as `close` asks, and counts it.
#[allow(clippy::manual_async_fn, reason = "a function's future would hold its arguments twice")]
fn end<'c, C: Ending>(
    cx: &'c ConnectionCx,
    mut conn: C,
    slot: &'c HcmSlot,
    mut account: Account,
    close: Close,
    reason: CloseReason,
) -> impl Future<Output = ()> + 'c {
    async move {
        let idle_ms = account.end_idle(cx.clock.now());
        // Before the farewell, which may take `delayed_close_timeout`.
        account.log_close(&cx.info, reason, idle_ms);
        conn.before_close(reason);
        close::note(&cx.info, close, reason);
        let hcm = slot.current();
        let close = close::run(close, cx, &mut conn, &hcm.shared).await;
        account.count_traffic(conn.traffic());
        account.closed(close, reason);
        if close == Close::Told {
            close::listen_on(conn, &hcm.shared);
        }
    }
}
