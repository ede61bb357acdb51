//! Which priority a request goes to, and whether to its healthy or its degraded hosts.
//!
//! Envoy docs, "Priority levels", "Degraded endpoints" and "Panic threshold"; the arithmetic is that of whole
//! numbers, as there. Priority 0 takes everything as long as 1 / `overprovisioning_factor` of its hosts can; what it
//! cannot take goes to the next one.

use super::Health;

/// The hosts of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// All of them.
    pub hosts: u32,
    /// Those that may be used freely.
    pub healthy: u32,
    /// Those that may be used when the healthy ones do not suffice.
    pub degraded: u32,
    /// Those that do not count among `hosts`, neither for what the priority can take nor for panic.
    excluded: u32,
    /// The weights of the same, where they count instead (`weighted_priority_health`).
    weights: Option<Weights>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weights {
    hosts: u64,
    healthy: u64,
    degraded: u64,
}

impl Level {
    /// So many hosts, whatever their weights.
    pub fn of(hosts: u32, healthy: u32, degraded: u32) -> Self {
        Self { hosts, healthy, degraded, excluded: 0, weights: None }
    }

    /// One more host, whether or not it counts. Either all have a weight or none has.
    pub(super) fn add(&mut self, health: Health, weight: Option<u32>, excluded: bool) {
        let weights = weight.map(|weight| (u64::from(weight), self.weights.get_or_insert_default()));
        self.hosts += 1;
        self.excluded += u32::from(excluded);
        match health {
            Health::Healthy => self.healthy += 1,
            Health::Degraded => self.degraded += 1,
            Health::Unhealthy => {}
        }
        if let Some((weight, sums)) = weights {
            if !excluded {
                sums.hosts += weight;
            }
            match health {
                Health::Healthy => sums.healthy += weight,
                Health::Degraded => sums.degraded += weight,
                Health::Unhealthy => {}
            }
        }
    }

    /// Those that count.
    fn counting(&self) -> u32 {
        self.hosts - self.excluded
    }

    fn counted(&self) -> Weights {
        let Self { healthy, degraded, weights, .. } = *self;
        let hosts = self.counting().into();
        weights.unwrap_or(Weights { hosts, healthy: healthy.into(), degraded: degraded.into() })
    }
}

/// Which hosts of a priority are chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    /// The healthy ones.
    Healthy,
    /// The degraded ones.
    Degraded,
    /// All: too few are usable (`lb_healthy_panic`).
    All,
}

/// What each priority gets: of 100 requests so many, its healthy and its degraded hosts apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loads {
    healthy: Box<[u32]>,
    degraded: Box<[u32]>,
}

/// The priorities of a host set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Priorities {
    /// What the hosts of each could take, of 100, overprovisioned.
    healthy: Box<[u32]>,
    degraded: Box<[u32]>,
    loads: Loads,
    panic: Box<[bool]>,
}

impl Priorities {
    /// `overprovisioning` in per cent (140 by default), `panic_threshold` in per cent, 0 for never.
    pub fn new(levels: &[Level], overprovisioning: u32, panic_threshold: f64) -> Self {
        let takes = |count: fn(&Weights) -> u64| -> Box<[u32]> {
            let take = |level: &Level| {
                let counted = level.counted();
                let count = u64::from(overprovisioning) * count(&counted);
                count.checked_div(counted.hosts).unwrap_or(0).min(100) as u32
            };
            levels.iter().map(take).collect()
        };
        let healthy = takes(|level| level.healthy);
        let degraded = takes(|level| level.degraded);
        let total = total(&healthy, &degraded);
        let starved = |level: &Level| {
            let usable = f64::from(level.healthy + level.degraded);
            let hosts = level.counting();
            hosts == 0 || 100.0 * usable / f64::from(hosts) < panic_threshold
        };
        let panic: Box<[bool]> = if total == 0 && panic_threshold == 0.0 {
            levels.iter().map(|_| false).collect()
        } else {
            levels.iter().map(|level| total < 100 && starved(level)).collect()
        };
        let loads = if !panic.is_empty() && panic.iter().all(|panic| *panic) {
            by_size(levels)
        } else {
            distribute(&healthy, &degraded)
        };
        Self { healthy, degraded, loads, panic }
    }

    /// The priority of the request with this number, random or hashed.
    #[inline]
    pub fn choose(&self, number: u64) -> (usize, Among) {
        self.choose_by(&self.loads, number)
    }

    /// As [`Priorities::choose`], by loads of the request's own.
    pub fn choose_by(&self, loads: &Loads, number: u64) -> (usize, Among) {
        let mut left = (number % 100) as u32;
        for (loads, among) in [(&loads.healthy, Among::Healthy), (&loads.degraded, Among::Degraded)] {
            for (priority, load) in loads.iter().enumerate() {
                if left < *load {
                    return (priority, if self.is_panicking(priority) { Among::All } else { among });
                }
                left -= load;
            }
        }
        // Loads add up to 100 wherever there is a priority.
        (0, Among::Healthy)
    }

    /// What each priority gets if those in `avoided` get nothing; `None` if no other one could take anything.
    pub fn without(&self, avoided: &[bool]) -> Option<Loads> {
        let of_others = |takes: &[u32]| -> Box<[u32]> {
            let avoid = |priority| avoided.get(priority).is_some_and(|avoided| *avoided);
            takes.iter().enumerate().map(|(priority, take)| if avoid(priority) { 0 } else { *take }).collect()
        };
        let (healthy, degraded) = (of_others(&self.healthy), of_others(&self.degraded));
        (total(&healthy, &degraded) > 0).then(|| distribute(&healthy, &degraded))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.panic.len()
    }

    /// Whether requests to this priority go to all of its hosts.
    pub fn is_panicking(&self, priority: usize) -> bool {
        self.panic.get(priority).is_some_and(|panic| *panic)
    }
}

/// What all can take together, at most 100.
fn total(healthy: &[u32], degraded: &[u32]) -> u32 {
    healthy.iter().chain(degraded).sum::<u32>().min(100)
}

/// The first ones take what they can, healthy hosts of all priorities before degraded ones.
fn distribute(healthy: &[u32], degraded: &[u32]) -> Loads {
    let total = total(healthy, degraded);
    let mut left = 100;
    let mut share = |takes: &[u32]| -> Box<[u32]> {
        let take = |take: &u32| {
            let load = (take * 100).checked_div(total).unwrap_or(0).min(left);
            left -= load;
            load
        };
        takes.iter().map(take).collect()
    };
    let mut loads = Loads { healthy: share(healthy), degraded: share(degraded) };
    // What rounding left; or everything, if nobody can take anything.
    let first = |takes: &[u32]| takes.iter().position(|take| *take > 0);
    let rest = match (first(healthy), first(degraded)) {
        (Some(first), _) => loads.healthy.get_mut(first),
        (None, Some(first)) => loads.degraded.get_mut(first),
        (None, None) => loads.healthy.first_mut(),
    };
    if let Some(rest) = rest {
        *rest += left;
    }
    loads
}

/// All priorities are in panic: each host counts.
fn by_size(levels: &[Level]) -> Loads {
    let hosts: u64 = levels.iter().map(|level| u64::from(level.hosts)).sum();
    let share = |level: &Level| (100 * u64::from(level.hosts)).checked_div(hosts).unwrap_or(0) as u32;
    let mut healthy: Box<[u32]> = levels.iter().map(share).collect();
    let rest = 100 - healthy.iter().sum::<u32>();
    let first = levels.iter().position(|level| level.hosts > 0).unwrap_or(0);
    if let Some(load) = healthy.get_mut(first) {
        *load += rest;
    }
    Loads { degraded: vec![0; levels.len()].into(), healthy }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(hosts: u32, healthy: u32, degraded: u32) -> Level {
        Level::of(hosts, healthy, degraded)
    }

    fn loads(levels: &[Level]) -> (Vec<u32>, Vec<u32>, Vec<bool>) {
        let priorities = Priorities::new(levels, 140, 50.0);
        let Loads { healthy, degraded } = priorities.loads;
        (healthy.into(), degraded.into(), priorities.panic.into())
    }

    /// The table of Envoy docs, "Priority levels": healthy of 100 at P=0, all healthy at P=1.
    #[test]
    fn what_the_first_priority_cannot_take_goes_to_the_next() {
        for (healthy, first) in [(100, 100), (72, 100), (71, 99), (50, 70), (25, 35), (0, 0)] {
            let (loads, _, panic) = loads(&[level(100, healthy, 0), level(100, 100, 0)]);
            assert_eq!(loads, [first, 100 - first], "{healthy}");
            assert!(!panic[1]);
        }
    }

    /// The second table: both are unhealthy, and what they take is normalised.
    #[test]
    fn too_little_is_shared_in_proportion() {
        for (healthy, expected) in
            [((25, 25), [50, 50]), ((5, 65), [8, 92]), ((0, 65), [0, 100]), ((65, 0), [100, 0])]
        {
            let priorities = Priorities::new(&[level(100, healthy.0, 0), level(100, healthy.1, 0)], 140, 0.0);
            assert_eq!(*priorities.loads.healthy, expected, "{healthy:?}");
        }
    }

    #[test]
    fn degraded_hosts_of_all_priorities_come_after_healthy_ones() {
        let Loads { healthy, degraded } =
            Priorities::new(&[level(10, 2, 2), level(10, 3, 0)], 140, 0.0).loads;
        // 28 and 42 of 100 are healthy's, 28 degraded's; 98 in all are normalised.
        assert_eq!((&*healthy, &*degraded), (&[30, 42][..], &[28, 0][..]));
    }

    #[test]
    fn in_total_panic_every_host_counts() {
        let (healthy, degraded, panic) = loads(&[level(2, 0, 0), level(4, 0, 0)]);
        assert_eq!((healthy, degraded, panic), (vec![34, 66], vec![0, 0], vec![true, true]));
        let (healthy, _, panic) = loads(&[level(0, 0, 0)]);
        assert_eq!((healthy, panic), (vec![100], vec![true]));
    }

    #[test]
    fn panic_is_off_at_0_and_while_all_load_can_be_taken() {
        let off = Priorities::new(&[level(2, 0, 0)], 140, 0.0);
        assert_eq!(off.choose(77), (0, Among::Healthy));
        // 3 of 4 are below 80 %, but can take all there is.
        let enough = Priorities::new(&[level(4, 3, 0)], 140, 80.0);
        assert_eq!(enough.choose(77), (0, Among::Healthy));
        let starved = Priorities::new(&[level(4, 1, 0)], 140, 50.0);
        assert_eq!(starved.choose(77), (0, Among::All));
    }

    /// `ignore_new_hosts_until_first_hc`: many new hosts make neither a failover nor a panic.
    #[test]
    fn excluded_hosts_do_not_count() {
        let mut first = Level::default();
        for _ in 0..2 {
            first.add(Health::Healthy, None, false);
        }
        for _ in 0..8 {
            first.add(Health::Unhealthy, None, true);
        }
        let (healthy, _, panic) = loads(&[first, level(1, 1, 0)]);
        assert_eq!((healthy, panic), (vec![100, 0], vec![false, false]));
        let mut none = Level::default();
        none.add(Health::Unhealthy, None, true);
        assert_eq!(loads(&[none]).2, [true]);
    }

    #[test]
    fn numbers_walk_through_healthy_then_degraded_loads() {
        let priorities = Priorities::new(&[level(10, 2, 2), level(10, 3, 0)], 140, 0.0);
        let chosen = [0, 29, 30, 71, 72, 99, 130].map(|number| priorities.choose(number));
        let [healthy, degraded] = [Among::Healthy, Among::Degraded];
        assert_eq!(
            chosen,
            [
                (0, healthy),
                (0, healthy),
                (1, healthy),
                (1, healthy),
                (0, degraded),
                (0, degraded),
                (1, healthy)
            ]
        );
    }

    #[test]
    fn priorities_can_be_avoided_as_long_as_others_can_take_something() {
        let priorities = Priorities::new(&[level(2, 2, 0), level(2, 1, 0), level(2, 0, 0)], 140, 50.0);
        let without = |avoided: &[bool]| priorities.without(avoided).map(|loads| loads.healthy.to_vec());
        assert_eq!(without(&[]), Some(vec![100, 0, 0]));
        assert_eq!(without(&[true]), Some(vec![0, 100, 0]));
        assert_eq!(without(&[true, true]), None);
    }
}
