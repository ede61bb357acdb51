//! What an exchange has of its connection: alone on it, or one of many.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, ready};

use http::Version;
use tidegate_router::PollClock;
use tidegate_types::CloseReason;
use tidegate_types::overload::OverloadAction;
use tokio::time::Instant;

use super::deadlines::Deadlines;
use super::{ConnectionCx, Draining};
use crate::hcm::Hcm;
use crate::timers::LazyTimer;

/// See the module.
pub(crate) struct StreamCx<'c> {
    pub(crate) connection: &'c ConnectionCx,
    /// The time of this poll, counted from the stream's start.
    pub(crate) clock: PollClock,
    /// Which HTTP the connection speaks.
    pub(crate) protocol: Version,
    timer: Timer<'c>,
    /// Which overload the timer was set by.
    overload: Cell<u32>,
}

/// Who wakes the stream at its deadline.
enum Timer<'c> {
    /// The connection's timer, which no other stream needs.
    Alone(&'c RefCell<LazyTimer>),
    /// The connection, which watches over the deadlines of all its streams.
    Among(&'c Deadlines, usize),
}

impl<'c> StreamCx<'c> {
    /// A stream that has the connection for itself, from `now` on.
    pub(crate) fn alone(connection: &'c ConnectionCx, protocol: Version, now: Instant) -> Self {
        let (clock, timer) = (PollClock::new(now), Timer::Alone(&connection.timer));
        Self { connection, clock, protocol, timer, overload: Cell::new(connection.overload.generation()) }
    }

    /// One of many streams, at this place among the deadlines.
    pub(crate) fn among(
        connection: &'c ConnectionCx,
        protocol: Version,
        deadlines: &'c Deadlines,
        place: usize,
    ) -> Self {
        let clock = PollClock::new(connection.clock.now());
        let timer = Timer::Among(deadlines, place);
        Self { connection, clock, protocol, timer, overload: Cell::new(connection.overload.generation()) }
    }

    /// Whether the connection is this stream's alone: what ends the one then ends the other.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self.timer, Timer::Alone(_))
    }

    /// The time of the poll that begins: the connection's, if it has looked already.
    pub(crate) fn tick(&self) {
        match self.timer {
            Timer::Alone(_) => _ = self.clock.tick(),
            Timer::Among(..) => self.clock.set(self.connection.clock.now()),
        }
    }

    /// Ready when `deadline` has passed; never early.
    pub(crate) fn poll_deadline(&self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        self.overload.set(self.connection.overload.generation());
        match self.timer {
            Timer::Alone(timer) => {
                // Overload may shorten the timer that runs.
                self.connection.drain.register(cx);
                ready!(timer.borrow_mut().poll(cx, deadline, self.clock.now()));
                self.clock.tick();
                Poll::Ready(())
            }
            Timer::Among(deadlines, place) => {
                if deadline.is_some_and(|at| at <= self.clock.now()) {
                    return Poll::Ready(());
                }
                deadlines.set(place, deadline);
                Poll::Pending
            }
        }
    }

    /// Whether the stream will be woken before any deadline that it asked for.
    pub(crate) fn is_armed(&self) -> bool {
        if self.overload.get() != self.connection.overload.generation() {
            return false;
        }
        let now = self.clock.now();
        match self.timer {
            Timer::Alone(timer) => timer.borrow().is_armed(now),
            Timer::Among(deadlines, place) => deadlines.of(place).is_some_and(|at| now < at),
        }
    }

    /// When `max_connection_duration` ends, if the stream is the one to see it.
    pub(crate) fn age_deadline(&self) -> Option<Instant> {
        if self.is_alone() { self.connection.age_deadline() } else { None }
    }

    /// `max_connection_duration` ended.
    pub(crate) fn age_reached(&self, hcm: &Hcm) {
        self.connection.age_reached(&hcm.stats);
        let timeouts = &hcm.config.timeouts;
        let waits = hcm.compat.is_strict() && !timeouts.http1_safe_max_connection_duration;
        if waits && self.connection.draining.get().is_none() {
            // Envoy waits for the end of this window even behind a response that announced the close.
            let over = self.connection.clock.tick() + timeouts.drain_window(fastrand::f64);
            self.connection.draining.set(Some(Draining { over, reason: CloseReason::MaxDuration }));
        }
    }

    /// The stream's end is the connection's, for this reason, if it has the connection for itself.
    pub(crate) fn closes_for(&self, reason: CloseReason) {
        if self.is_alone() {
            self.connection.closes_for(reason);
        }
    }

    /// Whether a drain is under way that the response, or the connection, is to announce. Counted once:
    /// `close_after` says whether the stream's own response does so already.
    pub(crate) fn announces_drain(&self, hcm: &Hcm, close_after: &Cell<bool>) -> bool {
        if !self.connection.announces_drain() {
            return false;
        }
        let told = if self.is_alone() { close_after } else { &self.connection.announced };
        if !told.replace(true) {
            hcm.stats.downstream_cx_drain_close().inc();
            if self.is_alone() {
                self.connection.close_announced(hcm);
            }
        }
        self.closes_for(CloseReason::Drained);
        true
    }

    /// Whether the proxy is so loaded that the response, or the connection, is to announce its end
    /// (`disable_http_keepalive`): half an overload, every other response.
    pub(crate) fn sheds_load(&self, hcm: &Hcm, close_after: &Cell<bool>) -> bool {
        let level = self.connection.overload.level(OverloadAction::DisableHttpKeepalive);
        if level <= 0.0 || (level < 1.0 && fastrand::f64() >= level) {
            return false;
        }
        let told = if self.is_alone() { close_after } else { &self.connection.announced };
        told.set(true);
        hcm.stats.downstream_cx_overload_disable_keepalive().inc();
        self.closes_for(CloseReason::Overflow);
        true
    }

    /// Whether the exchange is the last that the connection may carry.
    pub(crate) fn is_last_request(&self, hcm: &Hcm) -> bool {
        self.is_alone() && self.connection.last_request(hcm)
    }
}

impl Drop for StreamCx<'_> {
    fn drop(&mut self) {
        if let Timer::Among(deadlines, place) = self.timer {
            deadlines.set(place, None);
        }
    }
}
