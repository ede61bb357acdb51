//! A weighted choice: a number in, an index out, in logarithmic time and without state.
//!
//! Envoy docs, `config.route.v3.WeightedCluster`. Start with [`Weighted`].

/// Weights as running sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted {
    ends: Box<[u64]>,
}

impl Weighted {
    /// Weights in order; `None` when they add up to nothing.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Option<Self> {
        let mut total = 0u64;
        let ends: Box<[u64]> = weights
            .into_iter()
            .map(|weight| {
                total += u64::from(weight);
                total
            })
            .collect();
        (total > 0).then_some(Self { ends })
    }

    /// The index whose interval holds `random` modulo the sum of weights. An index of weight 0 is never
    /// the answer.
    pub fn pick(&self, random: u64) -> usize {
        let total = self.ends.last().copied().unwrap_or(1).max(1);
        let value = random % total;
        self.ends.partition_point(|end| *end <= value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_follow_the_weights() {
        let weighted = Weighted::new([1, 0, 2]).unwrap();
        let picks: Vec<_> = (0..6).map(|random| weighted.pick(random)).collect();
        assert_eq!(picks, [0, 2, 2, 0, 2, 2]);
        assert_eq!(Weighted::new([0, 0]), None);
        assert_eq!(Weighted::new([]), None);
    }
}
