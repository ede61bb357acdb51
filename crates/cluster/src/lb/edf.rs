//! Weighted round robin, earliest deadline first: each member's next deadline is `1 / weight` after its last.
//!
//! A heap of four children a node: its entries take 16 bytes, so that the children of one share a cache line.

/// A schedule of members with weights that may change from one choice to the next.
#[derive(Clone, Debug)]
pub struct Edf {
    heap: Vec<Entry>,
    order: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: f64,
    /// Among equals, who was queued first.
    order: u32,
    member: u32,
}

impl Edf {
    /// A schedule of members 0, 1, ... with these weights, each above 0, as it is after about so many `picks`.
    ///
    /// Nothing is picked for that: after a time t of the schedule a member of weight w was chosen floor(t * w)
    /// times.
    pub fn new(weights: impl ExactSizeIterator<Item = f64> + Clone, picks: u32) -> Self {
        let sum: f64 = weights.clone().map(sane).sum();
        let time = f64::from(picks) / sum;
        let entry = |(member, weight): (usize, f64)| {
            let weight = sane(weight);
            let deadline = ((time * weight).floor() + 1.0) / weight;
            Entry { deadline, order: member as u32, member: member as u32 }
        };
        let mut heap: Vec<_> = weights.enumerate().map(entry).collect();
        // What is sorted is a heap.
        heap.sort_unstable_by(|a, b| a.deadline.total_cmp(&b.deadline).then(a.order.cmp(&b.order)));
        let order = heap.len() as u32;
        Self { heap, order }
    }

    /// The next member, queued again by the weight that `weight` gives it now. `None` if there are no members.
    #[inline]
    pub fn next(&mut self, weight: impl FnOnce(usize) -> f64) -> Option<usize> {
        if self.order == u32::MAX {
            self.renumber();
        }
        let first = *self.heap.first()?;
        let deadline = first.deadline + 1.0 / sane(weight(first.member as usize));
        let order = self.order;
        self.order += 1;
        self.sink(Entry { deadline, order, ..first });
        Some(first.member as usize)
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

    /// The numbers that break ties are used up: they start again, in the same order.
    #[cold]
    fn renumber(&mut self) {
        self.heap.sort_unstable_by(|a, b| a.deadline.total_cmp(&b.deadline).then(a.order.cmp(&b.order)));
        for (order, entry) in self.heap.iter_mut().enumerate() {
            entry.order = order as u32;
        }
        self.order = self.heap.len() as u32;
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

    #[test]
    fn no_members_no_choice_and_bad_weights_do_no_harm() {
        assert_eq!(Edf::new([].into_iter(), 7).next(|_| 1.0), None);
        let mut edf = Edf::new([f64::NAN, 1.0, 0.0].into_iter(), 3);
        assert_eq!(picks(&mut edf, &[f64::NAN, 1.0, 0.0], 50).iter().filter(|m| **m == 1).count(), 50);
    }
}
