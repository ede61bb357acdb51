//! How a worker's connections learn that they should go.
//!
//! One [`Drain`] per filter chain and worker. Every connection holds a [`DrainWatch`]; a change of
//! phase wakes those that wait. A [`GracefulDrain`] takes its time beside the phases.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How far draining has gone. Phases only go up, except that `Announce` can be taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainPhase {
    /// Serving.
    #[default]
    Serving,
    /// Every response announces the close (`POST /healthcheck/fail`); idle connections are left alone.
    Announce,
    /// As `Announce`, and connections without a stream close at once (SIGTERM, a removed listener).
    CloseIdle,
    /// Time is up: every connection closes now.
    CloseAll,
}

/// A drain that spreads the goodbyes over its time (`POST /drain_listeners?graceful`), as Envoy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulDrain {
    /// When it began.
    pub began: Instant,
    /// `--drain-time-s`.
    pub time: Duration,
    /// Who is told how soon.
    pub strategy: DrainStrategy,
}

/// `--drain-strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrainStrategy {
    /// Responses announce the close the likelier the more of the time is over, and all do from half of it on.
    #[default]
    Gradual,
    /// All responses do.
    Immediate,
}

impl GracefulDrain {
    /// Whether a response at `now` announces the close; `draw` is any number, a new one for each response. Envoy counts
    /// whole seconds.
    pub fn announces(&self, now: Instant, draw: u64) -> bool {
        let until_all = self.time.as_secs() / 2;
        let elapsed = now.saturating_duration_since(self.began).as_secs();
        self.strategy == DrainStrategy::Immediate || elapsed >= until_all || draw % until_all < elapsed
    }

    /// When a connection that was `born` then is told if it idles: some time in the last third, which `draw` chooses.
    /// None for one that came when the time was over: its responses tell it.
    pub fn idle_due(&self, born: Instant, draw: u64) -> Option<Instant> {
        let over = self.began + self.time;
        let first = (self.began + self.time * 2 / 3).max(born);
        let rest = over.checked_duration_since(first)?;
        // Multiplied by the golden ratio neighbours lie far apart.
        let fraction = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        Some(first + rest.mul_f64(fraction as f64 / f64::from(u32::MAX)))
    }
}

/// The drain state of one filter chain's connections on one worker.
#[derive(Debug, Default)]
pub struct Drain {
    phase: Cell<DrainPhase>,
    graceful: Cell<Option<GracefulDrain>>,
    watchers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    connections: Cell<usize>,
}

impl Drain {
    /// A state that serves.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// The phase now.
    pub fn phase(&self) -> DrainPhase {
        self.phase.get()
    }

    /// Moves to `phase` and wakes the connections that wait.
    pub fn set(&self, phase: DrainPhase) {
        self.phase.set(phase);
        self.wake();
    }

    /// The graceful drain that was begun.
    pub fn graceful(&self) -> Option<GracefulDrain> {
        self.graceful.get()
    }

    /// Begins a graceful drain and wakes the connections that wait.
    pub fn begin(&self, graceful: GracefulDrain) {
        self.graceful.set(Some(graceful));
        self.wake();
    }

    /// Wakes the connections that wait, to look again at what else they go by.
    pub fn wake(&self) {
        let wakers: Vec<Waker> = self.watchers.borrow().iter().flatten().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Connections that hold a watch.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// A connection's own place in the list.
    pub fn watch(self: &Rc<Self>) -> DrainWatch {
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut watchers = self.watchers.borrow_mut();
            watchers.push(None);
            watchers.len() - 1
        });
        self.connections.set(self.connections.get() + 1);
        DrainWatch { drain: self.clone(), slot }
    }
}

/// One connection's view of its [`Drain`].
#[derive(Debug)]
pub struct DrainWatch {
    drain: Rc<Drain>,
    slot: usize,
}

impl DrainWatch {
    /// The phase now.
    pub fn phase(&self) -> DrainPhase {
        self.drain.phase.get()
    }

    /// The graceful drain that was begun.
    pub fn graceful(&self) -> Option<GracefulDrain> {
        self.drain.graceful.get()
    }

    /// Ready when the phase is at least `phase`.
    pub fn poll_reached(&self, cx: &mut Context<'_>, phase: DrainPhase) -> Poll<()> {
        if self.drain.phase.get() >= phase {
            return Poll::Ready(());
        }
        self.register(cx);
        Poll::Pending
    }

    /// Wakes this task at the next change of phase, and at [`Drain::wake`].
    pub fn register(&self, cx: &Context<'_>) {
        let slot = &mut self.drain.watchers.borrow_mut()[self.slot];
        match slot {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => *slot = Some(cx.waker().clone()),
        }
    }
}

impl Drop for DrainWatch {
    fn drop(&mut self) {
        self.drain.watchers.borrow_mut()[self.slot] = None;
        self.drain.free.borrow_mut().push(self.slot);
        self.drain.connections.set(self.drain.connections.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use super::*;

    fn graceful(seconds: u64, strategy: DrainStrategy) -> GracefulDrain {
        GracefulDrain { began: Instant::now(), time: Duration::from_secs(seconds), strategy }
    }

    #[test]
    fn responses_announce_the_close_the_likelier_the_later() {
        let drain = graceful(16, DrainStrategy::Gradual);
        let of_8 = |at: u64| {
            let now = drain.began + Duration::from_millis(at);
            (0..8).filter(|draw| drain.announces(now, *draw)).count()
        };
        let shares = [0, 999, 1000, 4500, 7999, 8000, 16_000, 60_000].map(of_8);
        assert_eq!(shares, [0, 0, 1, 4, 7, 8, 8, 8]);
        assert!(graceful(1, DrainStrategy::Gradual).announces(Instant::now(), 0));
        assert!(graceful(16, DrainStrategy::Immediate).announces(Instant::now(), 7));
    }

    #[test]
    fn idle_connections_are_told_in_the_last_third() {
        let drain = graceful(12, DrainStrategy::Gradual);
        let due = |born: u64, draw| {
            let born = drain.began + Duration::from_secs(born);
            drain.idle_due(born, draw).map(|due| due - drain.began)
        };
        let dues: Vec<_> = (0..100).map(|draw| due(0, draw).unwrap().as_secs()).collect();
        for second in 8..12 {
            let share = dues.iter().filter(|due| **due == second).count();
            assert!((15..36).contains(&share), "{second}: {share}");
        }
        assert!((0..100).all(|draw| due(11, draw).unwrap().as_secs() >= 11));
        assert_eq!(due(13, 1), None);
        let none = graceful(0, DrainStrategy::Gradual);
        assert_eq!(none.idle_due(none.began, 1), Some(none.began));
    }

    #[test]
    fn a_phase_wakes_those_who_wait_and_slots_are_reused() {
        let drain = Drain::new();
        let watch = drain.watch();
        let mut waiting = pin!(poll_fn(|cx| watch.poll_reached(cx, DrainPhase::CloseIdle)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drain.set(DrainPhase::Announce);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drain.set(DrainPhase::CloseIdle);
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
        assert_eq!(drain.connections(), 1);
        drop(drain.watch());
        drop(drain.watch());
        assert_eq!(drain.watchers.borrow().len(), 2);
    }
}
