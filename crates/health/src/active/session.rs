//! What a host's results say of it: the machine of one host, without clock and sockets.
//!
//! Envoy docs, "Health checking"; `HealthCheckerImplBase` of Envoy 1.40. Feed it with [`Session::handle_pass`] and
//! [`Session::handle_failure`]; what is to be done stands in the [`Verdict`].

use tidegate_config::cluster::{CheckIntervals, HealthCheckConfig};

/// One host.
#[derive(Debug)]
pub(super) struct Session {
    standing: Standing,
    first: bool,
    passes: u32,
    failures: u32,
}

/// What others see of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// It fails.
    pub(super) failing: bool,
    /// It said that it is degraded.
    pub(super) degraded: bool,
    /// It was never checked, and does not count until then.
    pub(super) pending: bool,
    /// It fails, and its last check took too long.
    pub(super) timed_out: bool,
}

/// How a check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The answer says so.
    Answer {
        /// It is one of those that count towards the threshold; others decide at once.
        retriable: bool,
        /// The response's status; 0 if there is none.
        status: u16,
    },
    /// A response to a request said so.
    Passive,
    /// There was no answer: the connection failed or ended.
    Network,
    /// There was none in time.
    Timeout,
}

impl Failure {
    /// Envoy's name for it (`failure_type` of events).
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Answer { .. } => "ACTIVE",
            Self::Passive => "PASSIVE",
            Self::Network => "NETWORK",
            Self::Timeout => "NETWORK_TIMEOUT",
        }
    }

    /// Whether it says nothing definite of the host.
    fn is_network(self) -> bool {
        matches!(self, Self::Network | Self::Timeout)
    }
}

/// How the host's state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// Not at all.
    Unchanged,
    /// It did: load balancers are to be told.
    Changed,
    /// It will, if the next results are like this one.
    Pending,
}

/// A result's consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) transition: Transition,
    /// The host fails, or works, from now on.
    pub(super) turned: bool,
    /// It is degraded, or is not any more, from now on.
    pub(super) degraded_turned: bool,
    /// This was its first result.
    pub(super) first: bool,
}

impl Session {
    /// A host that stands so.
    pub(super) fn new(standing: Standing) -> Self {
        Self { standing, first: true, passes: 0, failures: 0 }
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether there was no result yet.
    pub(super) fn is_new(&self) -> bool {
        self.first
    }

    /// A check found that it works.
    pub(super) fn handle_pass(&mut self, degraded: bool, config: &HealthCheckConfig) -> Verdict {
        self.failures = 0;
        let mut turned = false;
        let mut transition = Transition::Unchanged;
        if self.standing.failing {
            self.passes = self.passes.saturating_add(1);
            // The first result decides alone, which makes starting fast.
            turned = self.first || self.passes == config.healthy_threshold;
            transition = if turned { Transition::Changed } else { Transition::Pending };
        }
        if turned {
            self.standing.failing = false;
            self.standing.timed_out = false;
        }
        transition = self.count(transition);
        let degraded_turned = degraded != self.standing.degraded;
        self.standing.degraded = degraded;
        if degraded_turned && transition == Transition::Unchanged {
            transition = Transition::Changed;
        }
        Verdict { transition, turned, degraded_turned, first: std::mem::take(&mut self.first) }
    }

    /// A check found that it does not, or nothing.
    pub(super) fn handle_failure(&mut self, failure: Failure, config: &HealthCheckConfig) -> Verdict {
        self.passes = 0;
        let mut turned = false;
        let mut transition = Transition::Unchanged;
        if !self.standing.failing {
            let counts = failure.is_network() || matches!(failure, Failure::Answer { retriable: true, .. });
            turned = !counts || {
                self.failures = self.failures.saturating_add(1);
                self.failures == config.unhealthy_threshold
            };
            transition = if turned { Transition::Changed } else { Transition::Pending };
        }
        self.standing.failing |= turned;
        self.standing.timed_out = self.standing.failing && failure == Failure::Timeout;
        transition = self.count(transition);
        Verdict { transition, turned, degraded_turned: false, first: std::mem::take(&mut self.first) }
    }

    /// There is a result: from now on the host counts.
    fn count(&mut self, transition: Transition) -> Transition {
        match std::mem::take(&mut self.standing.pending) {
            true => Transition::Changed,
            false => transition,
        }
    }
}

/// When the next check is due, in milliseconds after a result, without jitter. `traffic`: the cluster was used.
pub(super) fn interval_ms(
    intervals: &CheckIntervals,
    passed: bool,
    transition: Transition,
    traffic: bool,
) -> u64 {
    let pending = transition == Transition::Pending;
    let interval = match (traffic, passed, pending) {
        (true, true, false) => intervals.healthy,
        (true, true, true) => intervals.healthy_edge,
        (true, false, false) => intervals.unhealthy,
        (true, false, true) => intervals.unhealthy_edge,
        (false, true, false) => intervals.no_traffic_healthy,
        (false, ..) => intervals.no_traffic,
    };
    interval.as_millis() as u64
}

/// What is random of an interval, and the runtime's bounds (`health_check.min_interval` and `.max_interval`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Jitter {
    pub(super) percent: u64,
    pub(super) min_ms: u64,
    pub(super) max_ms: u64,
}

impl Jitter {
    /// `base_ms` with up to `jitter_ms` and the percentage added. Never 0: a check that is due at once again and
    /// again would take the whole thread.
    pub(super) fn apply(&self, base_ms: u64, jitter_ms: u64, mut random: impl FnMut() -> u64) -> u64 {
        let mut ms = base_ms;
        let share = self.percent.saturating_mul(base_ms) / 100;
        for jitter in [share, jitter_ms].into_iter().filter(|jitter| *jitter > 0) {
            ms = ms.saturating_add(random() % jitter);
        }
        ms.min(self.max_ms).max(self.min_ms).max(1)
    }
}
