//! When which host is due: one heap for a cluster, instead of a timer for each host.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokio::time::Instant;

/// Times of hosts by number. A host has one time: a new one takes the old one's place.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    heap: BinaryHeap<Reverse<(Instant, u32, u32)>>,
    /// The last epoch of each host: entries of others are of no meaning.
    epochs: Vec<u32>,
}

impl Schedule {
    /// The host is due then.
    pub(super) fn set(&mut self, host: usize, at: Instant) {
        let epoch = self.advance(host);
        self.heap.push(Reverse((at, host as u32, epoch)));
    }

    /// The host is not due any more.
    pub(super) fn clear(&mut self, host: usize) {
        self.advance(host);
    }

    /// When the next host is due, about: one that is not due any more may have been meant.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// A host that is due at `now`.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<usize> {
        while let Some(Reverse((at, host, epoch))) = self.heap.peek().copied() {
            if at > now {
                return None;
            }
            self.heap.pop();
            if self.epochs.get(host as usize) == Some(&epoch) {
                self.advance(host as usize);
                return Some(host as usize);
            }
        }
        None
    }

    fn advance(&mut self, host: usize) -> u32 {
        if self.epochs.len() <= host {
            self.epochs.resize(host + 1, 0);
        }
        self.epochs[host] = self.epochs[host].wrapping_add(1);
        self.epochs[host]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn hosts_are_due_in_the_order_of_their_last_times() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut schedule = Schedule::default();
        schedule.set(0, at(30));
        schedule.set(1, at(10));
        schedule.set(2, at(20));
        schedule.set(1, at(25));
        schedule.clear(0);
        assert_eq!(schedule.next(), Some(at(10)));
        assert_eq!(schedule.take_due(at(19)), None);
        assert_eq!(schedule.take_due(at(40)), Some(2));
        assert_eq!(schedule.take_due(at(40)), Some(1));
        assert_eq!(schedule.take_due(at(40)), None);
        assert_eq!(schedule.next(), None);
    }
}
