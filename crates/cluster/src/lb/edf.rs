//! Weighted round robin, earliest deadline first: each member's next deadline is `1 / weight` after its last.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A schedule of members with weights.
#[derive(Debug)]
pub struct Edf {
    queue: BinaryHeap<Reverse<Entry>>,
    order: u64,
}

#[derive(Debug)]
struct Entry {
    deadline: f64,
    /// Among equals, who was queued first.
    order: u64,
    member: usize,
    weight: f64,
}

impl Edf {
    /// A schedule of members 0, 1, ... with these weights, each at least 1.
    pub fn new(weights: impl Iterator<Item = u32>) -> Self {
        let entry = |(member, weight): (usize, u32)| {
            let weight = f64::from(weight.max(1));
            Reverse(Entry { deadline: 1.0 / weight, order: member as u64, member, weight })
        };
        let queue: BinaryHeap<_> = weights.enumerate().map(entry).collect();
        let order = queue.len() as u64;
        Self { queue, order }
    }
}

impl Iterator for Edf {
    type Item = usize;

    /// Endless unless there are no members.
    fn next(&mut self) -> Option<usize> {
        let mut first = self.queue.peek_mut()?;
        let Reverse(entry) = &mut *first;
        let member = entry.member;
        entry.deadline += 1.0 / entry.weight;
        entry.order = self.order;
        self.order += 1;
        Some(member)
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.deadline.total_cmp(&other.deadline).then(self.order.cmp(&other.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}
