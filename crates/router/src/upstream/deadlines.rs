//! The router's own deadlines: sans-IO, `now` comes from outside.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouterTimeout {
    /// The route's `timeout`.
    Route,
    /// `per_try_timeout`.
    PerTry,
    /// `per_try_idle_timeout`.
    PerTryIdle,
    /// The cluster's `max_stream_duration`.
    MaxStreamDuration,
}

/// What the route and the cluster configure.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) route: Option<Duration>,
    pub(super) per_try: Option<Duration>,
    pub(super) per_try_idle: Option<Duration>,
    pub(super) max_stream_duration: Option<Duration>,
}

/// Running deadlines of one request.
#[derive(Debug)]
pub(super) struct Deadlines {
    limits: Limits,
    route: Cell<Option<Instant>>,
    per_try: Cell<Option<Instant>>,
    per_try_idle: Cell<Option<Instant>>,
    /// The try was late, and goes on: that it idles too is nothing more.
    late: Cell<bool>,
    max_stream: Cell<Option<Instant>>,
    fired: Cell<Option<RouterTimeout>>,
    /// The attempt has a connection: its time runs, once the request is complete.
    attached: Cell<bool>,
    /// A deadline may be nearer than when [`Deadlines::settle`] was last called.
    changed: Cell<bool>,
}

impl Deadlines {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            route: Cell::default(),
            per_try: Cell::default(),
            per_try_idle: Cell::default(),
            late: Cell::default(),
            max_stream: Cell::default(),
            fired: Cell::default(),
            attached: Cell::default(),
            changed: Cell::new(true),
        }
    }

    /// The request is complete: the route's timeout and the try's begin (Envoy docs, "Timeouts").
    pub(super) fn request_complete(&self, now: Instant) {
        self.changed.set(true);
        self.route.set(self.limits.route.map(|limit| now + limit));
        if self.attached.get() {
            self.per_try.set(self.limits.per_try.map(|limit| now + limit));
        }
    }

    /// An attempt is over: only the route's time runs on.
    pub(super) fn attempt_over(&self) {
        self.attached.set(false);
        self.per_try.set(None);
        self.per_try_idle.set(None);
        self.max_stream.set(None);
    }

    /// Another attempt begins; its own deadlines start over.
    pub(super) fn attempt_begins(&self) {
        self.attempt_over();
        // What ended the last try is over with it; the route's own time is not, also when it ended while the
        // next try was waited for.
        if self.fired.get() != Some(RouterTimeout::Route) {
            self.fired.set(None);
        }
    }

    /// The attempt has a connection. As in Envoy its time begins only now: waiting for one has limits of its own.
    pub(super) fn attached(&self, now: Instant, request_complete: bool) {
        self.changed.set(true);
        self.attached.set(true);
        self.late.set(false);
        if request_complete {
            self.per_try.set(self.limits.per_try.map(|limit| now + limit));
        }
        self.per_try_idle.set(self.limits.per_try_idle.map(|limit| now + limit));
        self.max_stream.set(self.limits.max_stream_duration.map(|limit| now + limit));
    }

    /// Whether a deadline may have come nearer since the last call.
    pub(super) fn settle(&self) -> bool {
        self.changed.replace(false)
    }

    /// Bytes moved on the attempt.
    pub(super) fn touch(&self, now: Instant) {
        if let Some(limit) = self.limits.per_try_idle.filter(|_| !self.late.get()) {
            self.changed.set(true);
            self.per_try_idle.set(Some(now + limit));
        }
    }

    /// The response began: a try may now take its time.
    pub(super) fn response_began(&self) {
        self.per_try.set(None);
    }

    /// Nothing more to wait for.
    pub(super) fn clear(&self) {
        self.route.set(None);
        self.per_try.set(None);
        self.per_try_idle.set(None);
        self.max_stream.set(None);
    }

    /// The nearest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.all().into_iter().filter_map(|(at, _)| at).min()
    }

    /// Notes which deadline passed; the earliest one when several did.
    pub(super) fn handle_timeout(&self, now: Instant) {
        let passed = self.all().into_iter().filter(|(at, _)| at.is_some_and(|at| at <= now));
        if let Some((_, timeout)) = passed.min_by_key(|(at, _)| *at) {
            self.fired.set(Some(timeout));
            match timeout {
                RouterTimeout::Route => self.route.set(None),
                // A hedged try goes on; as in Envoy one of the two is over with the other.
                RouterTimeout::PerTry => {
                    self.per_try.set(None);
                    self.per_try_idle.set(None);
                    self.late.set(true);
                }
                RouterTimeout::PerTryIdle => {
                    self.per_try_idle.set(None);
                    self.per_try.set(None);
                }
                RouterTimeout::MaxStreamDuration => self.max_stream.set(None),
            }
        }
    }

    /// The deadline that passed and was not taken yet.
    pub(super) fn take_fired(&self) -> Option<RouterTimeout> {
        self.fired.take()
    }

    fn all(&self) -> [(Option<Instant>, RouterTimeout); 4] {
        [
            (self.route.get(), RouterTimeout::Route),
            (self.per_try.get(), RouterTimeout::PerTry),
            (self.per_try_idle.get(), RouterTimeout::PerTryIdle),
            (self.max_stream.get(), RouterTimeout::MaxStreamDuration),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_starts_over_and_the_route_does_not() {
        let second = Duration::from_secs(1);
        let limits = Limits { route: Some(10 * second), per_try: Some(4 * second), ..Limits::default() };
        let deadlines = Deadlines::new(limits);
        let start = Instant::now();
        assert_eq!(deadlines.next(), None);
        deadlines.attempt_begins();
        deadlines.attached(start, false);
        assert_eq!(deadlines.next(), None, "the request is still uploading");
        deadlines.request_complete(start);
        assert_eq!(deadlines.next(), Some(start + 4 * second));
        deadlines.handle_timeout(start + 4 * second);
        assert_eq!(deadlines.take_fired(), Some(RouterTimeout::PerTry));
        deadlines.attempt_begins();
        assert_eq!(deadlines.next(), Some(start + 10 * second), "no connection yet");
        deadlines.attached(start + 5 * second, true);
        assert_eq!(deadlines.next(), Some(start + 9 * second));
        deadlines.response_began();
        assert_eq!(deadlines.next(), Some(start + 10 * second));
        deadlines.handle_timeout(start + 10 * second);
        assert_eq!(deadlines.take_fired(), Some(RouterTimeout::Route));
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn a_try_is_late_once() {
        let second = Duration::from_secs(1);
        let limits = Limits { per_try: Some(2 * second), per_try_idle: Some(second), ..Limits::default() };
        let start = Instant::now();
        let deadlines = Deadlines::new(limits);
        deadlines.attached(start, true);
        deadlines.handle_timeout(start + second);
        assert_eq!((deadlines.take_fired(), deadlines.next()), (Some(RouterTimeout::PerTryIdle), None));
        // Bytes that come after all may stop again.
        deadlines.touch(start + second);
        assert_eq!(deadlines.next(), Some(start + 2 * second));

        deadlines.attached(start, true);
        deadlines.touch(start + 3 * second / 2);
        deadlines.handle_timeout(start + 2 * second);
        assert_eq!((deadlines.take_fired(), deadlines.next()), (Some(RouterTimeout::PerTry), None));
        deadlines.touch(start + 2 * second);
        assert_eq!(deadlines.next(), None);
        deadlines.attached(start + 3 * second, true);
        assert_eq!(deadlines.next(), Some(start + 4 * second));
    }

    #[test]
    fn the_routes_time_holds_while_the_next_try_is_waited_for() {
        let second = Duration::from_secs(1);
        let deadlines = Deadlines::new(Limits { route: Some(second), ..Limits::default() });
        let start = Instant::now();
        deadlines.request_complete(start);
        deadlines.handle_timeout(start + second);
        deadlines.attempt_begins();
        assert_eq!(deadlines.take_fired(), Some(RouterTimeout::Route));
        assert_eq!(deadlines.take_fired(), None);
    }
}
