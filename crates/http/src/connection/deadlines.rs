//! The deadlines of a connection's streams, for the connection's one timer.
//!
//! A stream writes down when it wants to be polled; a later wish costs nothing, since the timer is only moved
//! for a nearer one. When it fires, the streams that are due are woken and look at their own clocks.

use std::cell::{Cell, RefCell};

use tokio::time::Instant;

/// See the module.
#[derive(Default)]
pub(crate) struct Deadlines {
    by_place: RefCell<Vec<Option<Instant>>>,
    /// No deadline is before this one.
    nearest: Cell<Option<Instant>>,
}

impl Deadlines {
    /// The stream at `place` is to be woken then, at the latest.
    pub(super) fn set(&self, place: usize, at: Option<Instant>) {
        let mut by_place = self.by_place.borrow_mut();
        if by_place.len() <= place {
            by_place.resize(place + 1, None);
        }
        by_place[place] = at;
        if let Some(at) = at
            && self.nearest.get().is_none_or(|nearest| at < nearest)
        {
            self.nearest.set(Some(at));
        }
    }

    /// When the stream at `place` will be woken.
    pub(super) fn of(&self, place: usize) -> Option<Instant> {
        self.by_place.borrow().get(place).copied().flatten()
    }

    /// The time before which nobody is due.
    pub(super) fn nearest(&self) -> Option<Instant> {
        self.nearest.get()
    }

    /// Hands out the places that are due at `now`.
    pub(super) fn take_due(&self, now: Instant, mut due: impl FnMut(usize)) {
        if self.nearest.get().is_none_or(|nearest| nearest > now) {
            return;
        }
        let mut left = None;
        for (place, at) in self.by_place.borrow_mut().iter_mut().enumerate() {
            match *at {
                Some(time) if time <= now => {
                    *at = None;
                    due(place);
                }
                Some(time) => left = Some(left.map_or(time, |left: Instant| left.min(time))),
                None => {}
            }
        }
        self.nearest.set(left);
    }

    /// No stream is left.
    pub(super) fn release(&self) {
        self.nearest.set(None);
        self.by_place.take();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_nearest_is_kept_and_the_due_are_handed_out_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let deadlines = Deadlines::default();
        deadlines.set(2, Some(at(30)));
        deadlines.set(0, Some(at(10)));
        // Moved away: the timer still fires at 10, and finds nobody.
        deadlines.set(0, Some(at(50)));
        assert_eq!(
            (deadlines.nearest(), deadlines.of(0), deadlines.of(1)),
            (Some(at(10)), Some(at(50)), None)
        );
        let due = |now| {
            let mut places: Vec<usize> = Vec::new();
            deadlines.take_due(now, |place| places.push(place));
            places
        };
        assert_eq!(due(at(10)), [0_usize; 0]);
        assert_eq!(deadlines.nearest(), Some(at(30)));
        assert_eq!(due(at(60)), [0_usize, 2]);
        assert_eq!((due(at(70)), deadlines.nearest()), (vec![], None));
    }
}
