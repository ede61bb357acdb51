//! How long to wait until a name is looked up again.

use std::time::Duration;

use tidegate_config::cluster::{DnsConfig, FailureRefresh};

/// Less would be a loop.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// What came of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The shortest time to live of the addresses; `None`: there are none.
    Answered {
        ttl: Option<Duration>,
    },
    Failed,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Schedule {
    refresh_rate: Duration,
    /// `None`: times to live are not looked at.
    min_ttl: Option<Duration>,
    jitter: Duration,
    failure: Option<FailureRefresh>,
    /// Below what the next wait after a failure lies.
    back_off: Duration,
}

impl Schedule {
    pub(super) fn new(config: &DnsConfig) -> Self {
        Self {
            refresh_rate: config.refresh_rate,
            min_ttl: config.respect_ttl.then_some(config.min_refresh_rate),
            jitter: config.jitter,
            failure: config.failure_refresh_rate,
            back_off: config.failure_refresh_rate.map_or(Duration::ZERO, |failure| failure.base),
        }
    }

    /// As Envoy: after an answer `dns_refresh_rate`, or its time to live unless that is 0, and jitter; after a failure
    /// a random time below a bound that doubles with each further one, or `dns_refresh_rate`.
    pub(super) fn wait(&mut self, outcome: Outcome, random: impl FnOnce() -> u64) -> Duration {
        let wait = match (outcome, self.failure) {
            (Outcome::Failed, None) => self.refresh_rate,
            (Outcome::Failed, Some(failure)) => {
                let bound = self.back_off;
                self.back_off = failure.max.min(bound.saturating_mul(2));
                below(bound, random())
            }
            (Outcome::Answered { ttl }, failure) => {
                self.back_off = failure.map_or(Duration::ZERO, |failure| failure.base);
                let ttl = ttl.filter(|ttl| !ttl.is_zero());
                let own = self.min_ttl.and_then(|min| Some(ttl?.max(min)));
                own.unwrap_or(self.refresh_rate) + below(self.jitter, random())
            }
        };
        wait.max(MIN_WAIT)
    }
}

/// A time below `bound`, in whole milliseconds.
fn below(bound: Duration, random: u64) -> Duration {
    Duration::from_millis(random.checked_rem(bound.as_millis() as u64).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn config() -> DnsConfig {
        DnsConfig {
            refresh_rate: 5 * S,
            failure_refresh_rate: None,
            respect_ttl: false,
            min_refresh_rate: Duration::ZERO,
            jitter: Duration::ZERO,
            family: Default::default(),
            resolver: None,
        }
    }

    fn answered(ttl: u32) -> Outcome {
        Outcome::Answered { ttl: Some(ttl * S) }
    }

    #[test]
    fn by_default_the_refresh_rate_holds_whatever_happens() {
        let mut schedule = Schedule::new(&config());
        for outcome in [answered(1), Outcome::Failed, Outcome::Answered { ttl: None }] {
            assert_eq!(schedule.wait(outcome, || 99), 5 * S);
        }
    }

    #[test]
    fn the_time_to_live_holds_if_it_is_to_be_respected() {
        let mut schedule = Schedule::new(&DnsConfig { respect_ttl: true, ..config() });
        assert_eq!(schedule.wait(answered(7), || 0), 7 * S);
        assert_eq!(schedule.wait(answered(0), || 0), 5 * S, "0 says nothing");
        assert_eq!(schedule.wait(Outcome::Answered { ttl: None }, || 0), 5 * S);
        assert_eq!(schedule.wait(Outcome::Failed, || 0), 5 * S);
        let least = DnsConfig { respect_ttl: true, min_refresh_rate: 3 * S, ..config() };
        let mut schedule = Schedule::new(&least);
        assert_eq!([1, 9].map(|ttl| schedule.wait(answered(ttl), || 0)), [3 * S, 9 * S]);
    }

    #[test]
    fn jitter_is_added_to_answers() {
        let mut schedule = Schedule::new(&DnsConfig { jitter: 2 * S, ..config() });
        assert_eq!(schedule.wait(answered(1), || 3_999), 5 * S + Duration::from_millis(1_999));
        assert_eq!(schedule.wait(Outcome::Failed, || 3_999), 5 * S);
    }

    #[test]
    fn failures_back_off_and_an_answer_forgets_them() {
        let failure = FailureRefresh { base: S, max: 3 * S };
        let mut schedule = Schedule::new(&DnsConfig { failure_refresh_rate: Some(failure), ..config() });
        let failed = |schedule: &mut Schedule, random| schedule.wait(Outcome::Failed, || random);
        assert_eq!(failed(&mut schedule, 999), Duration::from_millis(999));
        assert_eq!(failed(&mut schedule, 1_999), Duration::from_millis(1_999));
        assert_eq!(failed(&mut schedule, 2_999), Duration::from_millis(2_999));
        assert_eq!(failed(&mut schedule, 3_000), MIN_WAIT, "never at once");
        assert_eq!(schedule.wait(answered(1), || 0), 5 * S);
        assert_eq!(failed(&mut schedule, 1_000), MIN_WAIT);
    }
}
