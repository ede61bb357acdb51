//! Weighted round robin, earliest deadline first: each member's next deadline is `1 / weight` after its last.
//!
//! Deadlines that come up never go back, so members that are queued again by the same weight stand in line in the order
//! of their deadlines: a line a weight, read at one end and written at the other, and a heap of the few lines. With many
//! members that replaces a walk through a heap of all, which misses the caches. Of few members, and of weights that are
//! too many for lines, each is in the heap by itself.
//!
//! The heap has four children a node: its entries take 16 bytes, so that the children of one share a cache line.

use std::collections::VecDeque;

/// A schedule of members with weights that may change from one choice to the next.
#[derive(Clone, Debug)]
pub struct Edf {
    heap: Vec<Entry>,
    lines: Vec<Line>,
    /// How many lines there may be.
    max_lines: u32,
    order: u32,
}

/// What is in the heap: the first of a line, or a member by itself.
#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: f64,
    /// Among equals, who was queued first.
    order: u32,
    /// Below [`LINES`] a line; else [`LINES`] and the member.
    what: u32,
}

/// Members that were queued by the same weight, in the order of their deadlines.
#[derive(Clone, Debug)]
struct Line {
    /// From one deadline of a member to its next.
    step: f64,
    waiting: VecDeque<Place>,
}

/// A member in a line.
#[derive(Clone, Copy, Debug)]
struct Place {
    deadline: f64,
    order: u32,
    member: u32,
}

/// Lines at most: to look for one costs less than a heap of all members does.
const LINES: u32 = 32;

/// Members for whom a heap is enough.
const FEW: usize = 64;

impl Edf {
    /// A schedule of members 0, 1, ... with these weights, each above 0, as it is after about so many `picks`.
    ///
    /// Nothing is picked for that: after a time t of the schedule a member of weight w was chosen floor(t * w)
    /// times.
    pub fn new(weights: impl ExactSizeIterator<Item = f64> + Clone, picks: u32) -> Self {
        let max_lines = if weights.len() > FEW { LINES } else { 0 };
        let sum: f64 = weights.clone().map(sane).sum();
        let time = f64::from(picks) / sum;
        let place = |(member, weight): (usize, f64)| {
            let weight = sane(weight);
            let deadline = ((time * weight).floor() + 1.0) / weight;
            (Place { deadline, order: member as u32, member: member as u32 }, 1.0 / weight)
        };
        let mut places: Vec<_> = weights.enumerate().map(place).collect();
        places
            .sort_unstable_by(|(a, _), (b, _)| a.deadline.total_cmp(&b.deadline).then(a.order.cmp(&b.order)));
        let order = places.len() as u32;
        let mut edf = Self { heap: Vec::new(), lines: Vec::new(), max_lines, order };
        // What is sorted is a heap, and so is each line.
        let entries = places.into_iter().filter_map(|(place, step)| edf.stand(place, step)).collect();
        edf.heap = entries;
        edf
    }

    /// The next member, queued again by the weight that `weight` gives it now. `None` if there are no members.
    #[inline]
    pub fn next(&mut self, weight: impl FnOnce(usize) -> f64) -> Option<usize> {
        if self.order == u32::MAX {
            self.renumber();
        }
        let first = *self.heap.first()?;
        let order = self.order;
        self.order += 1;
        let Some(line) = self.lines.get_mut(first.what as usize) else {
            let member = first.what - LINES;
            let step = 1.0 / sane(weight(member as usize));
            let place = Place { deadline: first.deadline + step, order, member };
            match self.max_lines {
                0 => self.sink(Entry { deadline: place.deadline, order, ..first }),
                _ => self.requeue(place, step, None, None),
            }
            return Some(member as usize);
        };
        let member = line.waiting.pop_front()?.member;
        let step = 1.0 / sane(weight(member as usize));
        let place = Place { deadline: first.deadline + step, order, member };
        let line_of_step = (line.step == step).then_some(first.what);
        if line_of_step.is_some() {
            line.waiting.push_back(place);
        }
        let next =
            line.waiting.front().map(|next| Entry { deadline: next.deadline, order: next.order, ..first });
        match (line_of_step, next) {
            (Some(_), Some(next)) => self.sink(next),
            _ => self.requeue(place, step, Some(first.what), next),
        }
        Some(member as usize)
    }

    /// The heap's first has left it, or the line `left`, of which `next` is first now; `place` is queued elsewhere.
    fn requeue(&mut self, place: Place, step: f64, left: Option<u32>, next: Option<Entry>) {
        if let Some(line) = left.and_then(|left| self.lines.get_mut(left as usize)) {
            // What once was a long line gives its room back by and by.
            if line.waiting.capacity() > 64 && line.waiting.len() < line.waiting.capacity() / 8 {
                line.waiting.shrink_to(line.waiting.capacity() / 4);
            }
        }
        match (next, self.stand(place, step)) {
            (Some(next), alone) => {
                self.sink(next);
                if let Some(alone) = alone {
                    self.rise(alone);
                }
            }
            (None, Some(alone)) => self.sink(alone),
            (None, None) => {
                if let Some(last) = self.heap.pop()
                    && !self.heap.is_empty()
                {
                    self.sink(last);
                }
            }
        }
    }

    /// Puts a member behind its line, or where there is none by itself; what the heap is to take in for that.
    fn stand(&mut self, place: Place, step: f64) -> Option<Entry> {
        let Place { deadline, order, member } = place;
        let mut unused = None;
        for (index, line) in self.lines.iter_mut().enumerate() {
            if line.step == step {
                let entry = Entry { deadline, order, what: index as u32 };
                // Deadlines differ by a rounding where the first of all were computed in another way.
                let deadline = line.waiting.back().map_or(deadline, |last| last.deadline.max(deadline));
                line.waiting.push_back(Place { deadline, ..place });
                return (line.waiting.len() == 1).then_some(entry);
            }
            if line.waiting.is_empty() {
                unused = Some(index);
            }
        }
        let what = match unused {
            Some(index) => {
                if let Some(line) = self.lines.get_mut(index) {
                    line.step = step;
                    line.waiting.push_back(place);
                }
                index as u32
            }
            None if (self.lines.len() as u32) < self.max_lines => {
                self.lines.push(Line { step, waiting: VecDeque::from([place]) });
                self.lines.len() as u32 - 1
            }
            None => LINES + member,
        };
        Some(Entry { deadline, order, what })
    }

    /// Puts `entry`, which belongs at the root or below, in its place.
    #[inline]
    fn sink(&mut self, entry: Entry) {
        let heap = &mut *self.heap;
        let mut at = 0;
        loop {
            let first = 4 * at + 1;
            let last = (first + 4).min(heap.len());
            let Some(children) = heap.get(first..last).filter(|children| !children.is_empty()) else { break };
            let mut best = 0;
            for child in 1..children.len() {
                if children[child].is_before(&children[best]) {
                    best = child;
                }
            }
            let child = children[best];
            if !child.is_before(&entry) {
                break;
            }
            heap[at] = child;
            at = first + best;
        }
        heap[at] = entry;
    }

    /// Adds `entry`.
    fn rise(&mut self, entry: Entry) {
        let mut at = self.heap.len();
        self.heap.push(entry);
        while at > 0 {
            let parent = (at - 1) / 4;
            if !entry.is_before(&self.heap[parent]) {
                break;
            }
            self.heap[at] = self.heap[parent];
            at = parent;
        }
        self.heap[at] = entry;
    }

    /// The numbers that break ties are used up: they start again, in the same order.
    #[cold]
    fn renumber(&mut self) {
        let in_heap = self.heap.iter_mut().filter(|entry| entry.what >= LINES);
        let in_heap = in_heap.map(|entry| (entry.deadline, &mut entry.order));
        let in_lines = self.lines.iter_mut().flat_map(|line| &mut line.waiting);
        let in_lines = in_lines.map(|place| (place.deadline, &mut place.order));
        let mut all: Vec<_> = in_heap.chain(in_lines).collect();
        all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let count = all.len() as u32;
        for (order, (_, place)) in all.into_iter().enumerate() {
            *place = order as u32;
        }
        self.order = count;
        for entry in &mut self.heap {
            let first = self.lines.get(entry.what as usize).and_then(|line| line.waiting.front());
            if let Some(first) = first {
                entry.order = first.order;
            }
        }
    }
}

impl Entry {
    #[inline]
    fn is_before(&self, other: &Self) -> bool {
        self.deadline < other.deadline || (self.deadline == other.deadline && self.order < other.order)
    }
}

/// A weight of 0 would never be chosen again, and one that is no number would spoil the heap.
#[inline]
fn sane(weight: f64) -> f64 {
    if weight > f64::MIN_POSITIVE { weight } else { f64::MIN_POSITIVE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(edf: &mut Edf, weights: &[f64], n: usize) -> Vec<usize> {
        (0..n).filter_map(|_| edf.next(|member| weights[member])).collect()
    }

    #[test]
    fn the_earliest_deadline_goes_first_and_ties_go_to_who_waited_longest() {
        let weights = [1.0, 2.0, 1.0];
        let mut edf = Edf::new(weights.iter().copied(), 0);
        // Deadlines 1, 1/2, 1; then 1's second is as late as the others' first, but queued later.
        assert_eq!(picks(&mut edf, &weights, 8), [1, 0, 2, 1, 1, 0, 2, 1]);
    }

    /// Wherever it starts, a round of it has each member as often as its weight says.
    #[test]
    fn it_starts_as_if_picked_from_before() {
        let weights = [3.0, 5.0, 7.0, 1.0];
        for start in 0..40 {
            let mut edf = Edf::new(weights.iter().copied(), start);
            let round = picks(&mut edf, &weights, 16);
            let counts = [0, 1, 2, 3].map(|member| round.iter().filter(|m| **m == member).count());
            assert_eq!(counts, [3, 5, 7, 1], "{start}: {round:?}");
        }
        let starts: std::collections::HashSet<_> =
            (0..16).map(|start| picks(&mut Edf::new(weights.iter().copied(), start), &weights, 4)).collect();
        assert!(starts.len() > 8);
    }

    #[test]
    fn ties_stay_in_order_when_numbers_run_out() {
        let weights = [1.0; 7];
        let mut edf = Edf::new(weights.iter().copied(), 0);
        let mut old = edf.clone();
        edf.order = u32::MAX;
        assert_eq!(picks(&mut edf, &weights, 21), picks(&mut old, &weights, 21));
    }

    /// Lines choose as a heap of all members would, with weights that change and with more of them than lines.
    #[test]
    fn lines_keep_the_order_of_a_heap() {
        for (members, kinds, changes) in [(500, 7, 1), (500, 7, 5), (500, 30, 4), (65, 1, 1), (900, 900, 2)] {
            let weight = |member: usize, turn: usize| {
                (1 + member % kinds) as f64 / (1 + (turn * 7 + member) % changes) as f64
            };
            let mut lines = Edf::new((0..members).map(|member| weight(member, 0)), 12_345);
            let mut heap = Edf { heap: Vec::new(), lines: Vec::new(), max_lines: 0, order: lines.order };
            let all = lines.lines.iter().flat_map(|line| &line.waiting);
            let mut all: Vec<_> = all
                .map(|&Place { deadline, order, member }| Entry { deadline, order, what: LINES + member })
                .collect();
            all.extend(lines.heap.iter().filter(|entry| entry.what >= LINES));
            assert_eq!(all.len(), members);
            heap.heap = all;
            heap.renumber();
            heap.heap.sort_by_key(|entry| entry.order);
            for turn in 0..20_000 {
                if turn == 10_000 {
                    lines.renumber();
                    heap.order = u32::MAX;
                }
                let chosen = lines.next(|member| weight(member, turn));
                assert_eq!(
                    chosen,
                    heap.next(|member| weight(member, turn)),
                    "{members} {kinds} {changes} {turn}"
                );
            }
            assert!(lines.lines.len() <= LINES as usize);
            assert_eq!(
                lines.heap.len() - lines.heap.iter().filter(|entry| entry.what >= LINES).count(),
                lines.lines.iter().filter(|line| !line.waiting.is_empty()).count()
            );
        }
    }

    #[test]
    fn no_members_no_choice_and_bad_weights_do_no_harm() {
        assert_eq!(Edf::new([].into_iter(), 7).next(|_| 1.0), None);
        let mut edf = Edf::new([f64::NAN, 1.0, 0.0].into_iter(), 3);
        assert_eq!(picks(&mut edf, &[f64::NAN, 1.0, 0.0], 50).iter().filter(|m| **m == 1).count(), 50);
    }
}
