//! `retry_priority`: the priorities that a request's next tries leave out (Envoy docs, "Previous priorities").

use tidegate_cluster::lb::Loads;

/// The priorities that were tried, and what follows from them.
#[derive(Debug, Default)]
pub struct PriorityAvoidance {
    tried: Vec<u32>,
    /// By priority.
    avoided: Vec<bool>,
    loads: Option<Loads>,
}

impl PriorityAvoidance {
    /// A try went to a host of this priority.
    pub fn note(&mut self, priority: u32) {
        self.tried.push(priority);
    }

    /// What each priority gets of the next try, if not what it gets of others: spread anew after every
    /// `update_frequency` tries. `without` tells what the priorities other than some get; when all were tried, or
    /// can take nothing, all are as good as new.
    pub fn loads(
        &mut self,
        update_frequency: u32,
        without: impl Fn(&[bool]) -> Option<Loads>,
    ) -> Option<&Loads> {
        let frequency = update_frequency.max(1) as usize;
        if self.tried.is_empty() || !self.tried.len().is_multiple_of(frequency) {
            return self.loads.as_ref();
        }
        for priority in &self.tried {
            let priority = *priority as usize;
            if self.avoided.len() <= priority {
                self.avoided.resize(priority + 1, false);
            }
            self.avoided[priority] = true;
        }
        self.loads = without(&self.avoided).or_else(|| {
            self.avoided.clear();
            self.tried.clear();
            without(&[])
        });
        self.loads.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use tidegate_cluster::lb::{Level, Priorities};

    use super::*;

    /// The priority that a try goes to, with one healthy host in each of so many.
    fn try_of(avoidance: &mut PriorityAvoidance, frequency: u32, priorities: &Priorities) -> usize {
        let loads = avoidance.loads(frequency, |avoided| priorities.without(avoided)).cloned();
        let (priority, _) = loads.map_or(priorities.choose(7), |loads| priorities.choose_by(&loads, 7));
        avoidance.note(priority as u32);
        priority
    }

    fn tries(frequency: u32, levels: usize) -> Vec<usize> {
        let level = Level::of(1, 1, 0);
        let priorities = Priorities::new(&vec![level; levels], 140, 50.0);
        let mut avoidance = PriorityAvoidance::default();
        (0..6).map(|_| try_of(&mut avoidance, frequency, &priorities)).collect()
    }

    #[test]
    fn each_priority_is_tried_before_the_first_one_again() {
        assert_eq!(tries(1, 3), [0, 1, 2, 0, 1, 2]);
        assert_eq!(tries(1, 1), [0; 6]);
    }

    #[test]
    fn it_changes_only_every_so_many_tries() {
        assert_eq!(tries(2, 3), [0, 0, 1, 1, 2, 2]);
    }
}
