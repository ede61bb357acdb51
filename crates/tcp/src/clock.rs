//! A session's deadlines and its one timer.
//!
//! A byte only writes down when it came. The timer stays where it was armed and looks for what has really
//! passed when it fires: never early, and late by no more than the runtime's millisecond.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// `idle_timeout`.
    Idle,
    /// `max_downstream_connection_duration`.
    MaxDuration,
    /// `access_log_flush_interval`.
    Flush,
}

/// When a session ends by itself.
#[derive(Debug)]
pub(crate) struct Clock {
    began: Instant,
    /// The last byte either way, or the beginning.
    active: Instant,
    idle: Option<Duration>,
    expires: Option<Instant>,
    flush: Option<(Duration, Instant)>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The runtime knows the task to wake at the timer's deadline.
    registered: bool,
}

impl Clock {
    pub(crate) fn new(
        now: Instant,
        idle: Option<Duration>,
        max_duration: Option<Duration>,
        flush: Option<Duration>,
    ) -> Self {
        Self {
            began: now,
            active: now,
            idle,
            expires: max_duration.map(|duration| now + duration),
            flush: flush.map(|interval| (interval, now + interval)),
            timer: None,
            registered: false,
        }
    }

    /// Since the session began.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Since the last byte.
    pub(crate) fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.active)
    }

    /// A byte passed.
    pub(crate) fn touch(&mut self, now: Instant) {
        self.active = now;
    }

    /// Ready when a deadline has passed; polled again for the next one.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Due> {
        let Some((deadline, due)) = self.next() else { return Poll::Pending };
        if self.registered
            && self.timer.as_ref().is_some_and(|timer| now < timer.deadline() && timer.deadline() <= deadline)
        {
            // It will wake this task early enough: nothing to do.
            return Poll::Pending;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            if deadline <= Instant::now() {
                self.registered = false;
                if let (Due::Flush, Some((interval, at))) = (due, &mut self.flush) {
                    *at = deadline + *interval;
                }
                return Poll::Ready(due);
            }
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            self.registered = true;
            std::task::ready!(timer.as_mut().poll(cx));
        }
    }

    fn next(&self) -> Option<(Instant, Due)> {
        let idle = self.idle.map(|timeout| (self.active + timeout, Due::Idle));
        let age = self.expires.map(|at| (at, Due::MaxDuration));
        let flush = self.flush.map(|(_, at)| (at, Due::Flush));
        [idle, age, flush].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn due(clock: &mut Clock) -> Due {
        poll_fn(|cx| clock.poll(cx, Instant::now())).await
    }

    #[tokio::test(start_paused = true)]
    async fn activity_moves_the_idle_deadline_and_nothing_else() {
        let start = Instant::now();
        let mut clock = Clock::new(start, Some(2 * SECOND), Some(5 * SECOND), None);
        let early = tokio::time::timeout(SECOND, due(&mut clock)).await;
        assert!(early.is_err());
        clock.touch(Instant::now());
        assert_eq!(due(&mut clock).await, Due::Idle);
        assert_eq!(start.elapsed(), 3 * SECOND);
        clock.touch(Instant::now());
        let early = tokio::time::timeout(SECOND + SECOND / 2, due(&mut clock)).await;
        assert!(early.is_err());
        clock.touch(Instant::now());
        assert_eq!(due(&mut clock).await, Due::MaxDuration);
        assert_eq!((start.elapsed(), clock.age()), (5 * SECOND, 5 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn flushes_repeat() {
        let start = Instant::now();
        let mut clock = Clock::new(start, None, None, Some(SECOND));
        for second in 1..4 {
            assert_eq!(due(&mut clock).await, Due::Flush);
            assert_eq!(start.elapsed(), second * SECOND);
        }
    }
}
