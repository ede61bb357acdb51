//! Deadlines of a stream and the one lazily armed timer that a connection has for all of them.
//!
//! Activity only writes a timestamp; the timer looks at it when it fires. Under load a timer is
//! re-armed about once per timeout instead of twice per request.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_types::overload::ScaledTimer;
use tokio::time::{Instant, Sleep};

/// A timer that is moved forward only when it fires, and back only when a nearer deadline appears.
#[derive(Debug, Default)]
pub(crate) struct LazyTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// The runtime knows the task to wake at the sleep's deadline.
    registered: bool,
}

impl LazyTimer {
    /// Whether it is armed and will wake this task before any deadline that it was given.
    pub(crate) fn is_armed(&self, now: Instant) -> bool {
        self.registered && self.sleep.as_ref().is_some_and(|sleep| now < sleep.deadline())
    }

    /// Ready when `deadline` has passed. Never early. `now` may lag behind the clock by one poll of the
    /// task: a deadline that passed meanwhile wakes the task again at once.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>, now: Instant) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
            self.registered = false;
        } else if self.registered && now < sleep.deadline() {
            // Armed, early enough, for this same task: nothing to do, and no look at the wheel.
            return Poll::Pending;
        }
        loop {
            self.registered = true;
            std::task::ready!(sleep.as_mut().poll(cx));
            self.registered = false;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

/// Which deadline of a stream passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamTimeout {
    /// `request_headers_timeout`.
    RequestHeaders,
    /// `request_timeout`.
    Request,
    /// `stream_idle_timeout`, or the route's `idle_timeout`.
    StreamIdle,
    /// `max_stream_duration`.
    MaxDuration,
    /// `stream_flush_timeout`, or the route's `flush_timeout`.
    Flush,
}

/// What a stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Either side.
    Running,
    /// The client, to take the rest of a complete response.
    Flushing,
}

/// The deadlines that the connection manager watches over one stream.
#[derive(Debug)]
pub(crate) struct StreamTimers {
    started: Instant,
    idle: Cell<Option<Duration>>,
    active_at: Cell<Instant>,
    headers: Cell<Option<Instant>>,
    request: Cell<Option<Instant>>,
    max_duration: Cell<Option<Instant>>,
    phase: Cell<Phase>,
    /// A deadline may be nearer than when [`StreamTimers::settle`] was last called.
    changed: Cell<bool>,
}

impl StreamTimers {
    /// Timers of a stream whose first byte came at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            started: now,
            idle: Cell::new(None),
            active_at: Cell::new(now),
            headers: Cell::new(None),
            request: Cell::new(None),
            max_duration: Cell::new(None),
            phase: Cell::new(Phase::Running),
            changed: Cell::new(true),
        }
    }

    /// Sets `stream_idle_timeout`; `None` is off.
    pub(crate) fn set_idle(&self, timeout: Option<Duration>) {
        self.idle.set(timeout);
        self.changed.set(true);
    }

    /// Sets `request_headers_timeout`, or clears it when the head is complete.
    pub(crate) fn set_headers(&self, timeout: Option<Duration>) {
        self.headers.set(timeout.map(|timeout| self.started + timeout));
        self.changed.set(true);
    }

    /// Sets `request_timeout`, or clears it when the request is complete or the response began.
    pub(crate) fn set_request(&self, timeout: Option<Duration>) {
        self.request.set(timeout.map(|timeout| self.started + timeout));
        self.changed.set(true);
    }

    /// Sets `max_stream_duration`, counted from the stream's start.
    pub(crate) fn set_max_duration(&self, timeout: Option<Duration>) {
        self.max_duration.set(timeout.map(|timeout| self.started + timeout));
        self.changed.set(true);
    }

    /// The response is complete but for what the client holds back: only `timeout` from `now` on matters.
    pub(crate) fn flush(&self, timeout: Option<Duration>, now: Instant) {
        self.phase.set(Phase::Flushing);
        self.idle.set(timeout);
        self.active_at.set(now);
        [&self.headers, &self.request, &self.max_duration]
            .into_iter()
            .for_each(|deadline| deadline.set(None));
        self.changed.set(true);
    }

    /// Whether a deadline may have come nearer since the last call.
    pub(crate) fn settle(&self) -> bool {
        self.changed.replace(false)
    }

    /// Something moved in either direction: the idle deadline moves away.
    pub(crate) fn touch(&self, now: Instant) {
        self.active_at.set(now);
    }

    /// The nearest deadline; `scale` shortens the idle timeout under overload.
    pub(crate) fn next(
        &self,
        scale: impl Fn(ScaledTimer, Duration) -> Duration,
    ) -> Option<(Instant, StreamTimeout)> {
        let (scaled, kind) = match self.phase.get() {
            Phase::Running => (ScaledTimer::StreamIdle, StreamTimeout::StreamIdle),
            Phase::Flushing => (ScaledTimer::StreamFlush, StreamTimeout::Flush),
        };
        let idle = self.idle.get().map(|timeout| self.active_at.get() + scale(scaled, timeout));
        [
            (self.headers.get(), StreamTimeout::RequestHeaders),
            (self.request.get(), StreamTimeout::Request),
            (idle, kind),
            (self.max_duration.get(), StreamTimeout::MaxDuration),
        ]
        .into_iter()
        .filter_map(|(at, kind)| at.map(|at| (at, kind)))
        .min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_touched_deadline_moves_without_firing_early() {
        let mut timer = LazyTimer::default();
        let start = Instant::now();
        let timers = StreamTimers::new(start);
        timers.set_idle(Some(Duration::from_secs(2)));
        let mut touched = false;
        poll_fn(|cx| {
            if !touched && Instant::now() >= start + Duration::from_secs(1) {
                touched = true;
                timers.touch(Instant::now());
            }
            let next = timers.next(|_, timeout| timeout).map(|(at, _)| at);
            let wake = if touched { next } else { Some(start + Duration::from_secs(1)) };
            match timer.poll(cx, wake, Instant::now()) {
                Poll::Ready(()) if !touched => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                other => other,
            }
        })
        .await;
        assert_eq!(Instant::now() - start, Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_nearer_deadline_fires_first() {
        let mut timer = LazyTimer::default();
        let start = Instant::now();
        let far =
            poll_fn(|cx| Poll::Ready(timer.poll(cx, Some(start + Duration::from_secs(9)), start))).await;
        assert!(far.is_pending());
        poll_fn(|cx| timer.poll(cx, Some(start + Duration::from_secs(1)), Instant::now())).await;
        assert_eq!(Instant::now() - start, Duration::from_secs(1));
    }

    #[test]
    fn the_nearest_deadline_wins() {
        let now = Instant::now();
        let timers = StreamTimers::new(now);
        assert!(timers.next(|_, timeout| timeout).is_none());
        timers.set_idle(Some(Duration::from_secs(300)));
        timers.set_headers(Some(Duration::from_secs(15)));
        assert_eq!(timers.next(|_, timeout| timeout).unwrap().1, StreamTimeout::RequestHeaders);
        timers.set_headers(None);
        timers.set_request(Some(Duration::from_secs(20)));
        assert_eq!(
            timers.next(|_, timeout| timeout).unwrap(),
            (now + Duration::from_secs(20), StreamTimeout::Request)
        );
        let later = now + Duration::from_secs(10);
        timers.flush(Some(Duration::from_secs(60)), later);
        let halved = timers.next(|scaled, timeout| match scaled {
            ScaledTimer::StreamFlush => timeout / 2,
            _ => timeout,
        });
        assert_eq!(halved.unwrap(), (later + Duration::from_secs(30), StreamTimeout::Flush));
    }
}
