//! The time of one poll of a stream's task: one look at the clock, and at most one subtraction, serve all that
//! happens in it.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// A clock that stands still between ticks.
#[derive(Debug)]
pub struct PollClock {
    now: Cell<Instant>,
    started: Cell<Instant>,
    /// Since the start; known once somebody has asked.
    elapsed: Cell<Option<Duration>>,
}

impl PollClock {
    /// A clock at `now`, whose stream starts now.
    pub fn new(now: Instant) -> Self {
        Self { now: Cell::new(now), started: Cell::new(now), elapsed: Cell::new(None) }
    }

    /// Looks at the real clock: once a poll.
    pub fn tick(&self) -> Instant {
        let now = Instant::now();
        self.set(now);
        now
    }

    /// Takes the time from whoever looked already, for several streams at once.
    pub fn set(&self, now: Instant) {
        self.now.set(now);
        self.elapsed.set(None);
    }

    /// A stream starts at the last tick.
    pub fn start(&self) {
        self.started.set(self.now.get());
        self.elapsed.set(None);
    }

    /// The last tick.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// From the stream's start to the last tick.
    pub fn elapsed(&self) -> Duration {
        self.elapsed.get().unwrap_or_else(|| {
            let elapsed = self.now.get().saturating_duration_since(self.started.get());
            self.elapsed.set(Some(elapsed));
            elapsed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_between_ticks() {
        let clock = PollClock::new(Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.elapsed(), Duration::ZERO);
        clock.tick();
        assert_eq!(clock.elapsed(), Duration::from_secs(1));
        clock.start();
        assert_eq!((clock.elapsed(), clock.now()), (Duration::ZERO, Instant::now()));
    }
}
