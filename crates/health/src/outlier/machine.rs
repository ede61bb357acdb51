//! The decisions of outlier detection, without clock or threads (Envoy docs, "Outlier detection").
//!
//! Inputs are [`Detector::handle_consecutive`] and its like; then [`Detector::poll_event`] is to be called until it
//! has nothing more. Counters, logs and flags are the caller's.

use std::collections::VecDeque;

use tidegate_cluster::judged::{Consecutive, Degradation, History, NO_RATE};
use tokio::time::Instant;

use super::settings::Settings;

mod rates;

#[cfg(test)]
mod tests;

/// Requests of a host that were counted, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub total: u64,
    /// Those that did well.
    pub good: u64,
}

/// Which requests a success rate is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Origin {
    /// Answers; failures of our own side too, unless these are split off.
    External,
    /// Failures to connect and the like, where they are split off.
    Local,
}

/// Why a host is an outlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Too many answers 5xx in a row.
    Consecutive5xx,
    /// Too many answers 502, 503 and 504 in a row.
    ConsecutiveGatewayFailure,
    /// Too many failures of our own side in a row.
    ConsecutiveLocalOriginFailure,
    /// Success rate far below the others'.
    SuccessRate,
    /// The same of our own side.
    SuccessRateLocalOrigin,
    /// Too large a share of failures.
    FailurePercentage,
    /// The same of our own side.
    FailurePercentageLocalOrigin,
}

impl Kind {
    /// The kind that a count in a row stands for.
    pub fn of(count: Consecutive) -> Self {
        match count {
            Consecutive::ServerError => Self::Consecutive5xx,
            Consecutive::GatewayFailure => Self::ConsecutiveGatewayFailure,
            Consecutive::LocalOrigin => Self::ConsecutiveLocalOriginFailure,
        }
    }
}

/// What became of an outlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is out.
    Ejected,
    /// `enforcing_*` spared it.
    NotEnforced,
    /// `max_ejection_percent` of the hosts are out already.
    Overflow,
    /// It was found by another measure a moment ago.
    AlreadyEjected,
}

/// What happened to a host, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is an outlier.
    Detected(usize, Kind, Outcome),
    /// Its ejection is over: what was counted of it is to be forgotten.
    Returned(usize),
    /// It says that it is degraded.
    Degraded(usize),
    /// It is not to be taken for degraded any longer.
    Restored(usize),
}

/// A host as it is known before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Whether it is ejected.
    pub is_ejected: bool,
    /// Whether it is degraded.
    pub is_degraded: bool,
    /// What happened to it.
    pub history: History,
    /// What was counted so far, by [`Origin`]: the next interval begins here.
    pub counts: [Counts; 2],
}

/// Where a host comes from.
#[derive(Clone, Copy, Debug)]
pub enum Seat {
    /// From this place.
    Kept(usize),
    /// From outside.
    New(Known),
}

/// All hosts of a cluster.
#[derive(Debug)]
pub struct Detector {
    settings: Settings,
    hosts: Vec<Judged>,
    ejected: usize,
    averages: [Option<Average>; 2],
    events: VecDeque<Event>,
}

/// Of the hosts that had enough requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Average {
    /// Mean success rate in percent.
    pub mean: f64,
    /// A host below it is an outlier; may be negative.
    pub threshold: f64,
}

#[derive(Clone, Debug)]
struct Judged {
    known: Known,
    /// Of the last interval, in percent.
    rates: [f64; 2],
}

impl Detector {
    /// For a cluster whose hosts follow ([`Self::set_hosts`]).
    pub fn new(settings: Settings) -> Self {
        let (hosts, events) = (Vec::new(), VecDeque::new());
        Self { settings, hosts, ejected: 0, averages: [None; 2], events }
    }

    /// The runtime changed.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// What holds.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// These are the hosts now. To be called without events pending.
    pub fn set_hosts(&mut self, hosts: impl Iterator<Item = Seat>) {
        let old = std::mem::take(&mut self.hosts);
        let host = |seat| match seat {
            Seat::Kept(place) => old.get(place).cloned().unwrap_or_else(|| Judged::new(Known::default())),
            Seat::New(known) => Judged::new(known),
        };
        self.hosts = hosts.map(host).collect();
        self.ejected = self.hosts.iter().filter(|host| host.known.is_ejected).count();
    }

    /// A host failed as often in a row as its threshold says.
    pub fn handle_consecutive(&mut self, host: usize, count: Consecutive, now: Instant, random: Random<'_>) {
        if self.hosts.get(host).is_some_and(|host| !host.known.is_ejected) {
            self.eject(host, Kind::of(count), now, random);
        }
    }

    /// An active health check found the host healthy, and so do all of them.
    pub fn handle_check_passed(&mut self, host: usize, now: Instant) {
        if self.hosts.get(host).is_some_and(|host| host.known.is_ejected) {
            self.take_back(host, now);
        }
    }

    /// The host said that it is degraded.
    pub fn handle_degraded(&mut self, host: usize, now: Instant, random: Random<'_>) {
        let Some(Judged { known, .. }) = self.hosts.get_mut(host) else { return };
        if std::mem::replace(&mut known.is_degraded, true) {
            return;
        }
        let degraded = &mut known.history.degraded;
        degraded.since = Some(now);
        degraded.jitter = self.settings.jitter(random());
        if self.settings.may_grow(degraded.backoff) {
            degraded.backoff += 1;
        }
        self.events.push_back(Event::Degraded(host));
    }

    /// An interval is over; `counts` are those of all hosts, by [`Origin`].
    pub fn handle_interval(
        &mut self,
        now: Instant,
        counts: impl Fn(usize) -> [Counts; 2],
        random: Random<'_>,
    ) {
        let mut windows = Vec::with_capacity(self.hosts.len());
        for place in 0..self.hosts.len() {
            self.look_for_end(place, now);
            let host = &mut self.hosts[place];
            host.rates = [NO_RATE; 2];
            let all = counts(place);
            let before = std::mem::replace(&mut host.known.counts, all);
            windows.push([0, 1].map(|of| all[of].since(before[of])));
        }
        for origin in [Origin::External, Origin::Local] {
            self.judge_rates(origin, &windows, now, random);
        }
        for host in &mut self.hosts {
            host.known.forgive(now, &self.settings);
        }
    }

    /// What happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A host's past; `None` if there is none at that place.
    pub fn history(&self, host: usize) -> Option<&History> {
        self.hosts.get(host).map(|host| &host.known.history)
    }

    /// Success rates of the last interval in percent, by [`Origin`]; [`NO_RATE`] where there were too few requests.
    pub fn rates(&self, host: usize) -> [f64; 2] {
        self.hosts.get(host).map_or([NO_RATE; 2], |host| host.rates)
    }

    /// Of the last interval, by [`Origin`].
    pub fn averages(&self) -> [Option<Average>; 2] {
        self.averages
    }

    /// How many hosts are out.
    pub fn ejected(&self) -> usize {
        self.ejected
    }

    fn eject(&mut self, place: usize, kind: Kind, now: Instant, random: Random<'_>) {
        let outcome = self.try_eject(place, kind, now, random);
        self.events.push_back(Event::Detected(place, kind, outcome));
    }

    fn try_eject(&mut self, place: usize, kind: Kind, now: Instant, random: Random<'_>) -> Outcome {
        let config = &self.settings.config;
        let all = self.hosts.len();
        let allowed = (self.ejected + 1) * 100 <= config.max_ejection_percent as usize * all
            || (config.always_eject_one_host && self.ejected == 0);
        let Judged { known, .. } = &mut self.hosts[place];
        if known.is_ejected {
            return Outcome::AlreadyEjected;
        }
        if !allowed {
            return Outcome::Overflow;
        }
        if random() % 100 >= u64::from(self.settings.enforcing(kind)) {
            return Outcome::NotEnforced;
        }
        known.is_ejected = true;
        let history = &mut known.history;
        history.ejections = history.ejections.saturating_add(1);
        history.ejected_at = Some(now);
        history.jitter = self.settings.jitter(random());
        if self.settings.may_grow(history.backoff) {
            history.backoff += 1;
        }
        history.until = now.checked_add(self.settings.ejection_time(history.backoff) + history.jitter);
        self.ejected += 1;
        Outcome::Ejected
    }

    /// Whether the time of its ejection, or of its degradation, is over.
    fn look_for_end(&mut self, place: usize, now: Instant) {
        let Known { is_ejected, is_degraded, history, .. } = self.hosts[place].known;
        let is_over = |since: Option<Instant>, backoff, jitter| {
            let lasts = self.settings.ejection_time(backoff).saturating_add(jitter);
            since.is_none_or(|since| now.saturating_duration_since(since) >= lasts)
        };
        let Degradation { backoff, since, jitter, .. } = history.degraded;
        let restored = is_degraded && is_over(since, backoff, jitter);
        if is_ejected && is_over(history.ejected_at, history.backoff, history.jitter) {
            self.take_back(place, now);
        }
        if restored {
            let known = &mut self.hosts[place].known;
            known.is_degraded = false;
            known.history.degraded.ended_at = Some(now);
            self.events.push_back(Event::Restored(place));
        }
    }

    fn take_back(&mut self, place: usize, now: Instant) {
        let known = &mut self.hosts[place].known;
        known.is_ejected = false;
        known.history.returned_at = Some(now);
        known.history.until = None;
        self.ejected -= 1;
        self.events.push_back(Event::Returned(place));
    }
}

/// Where chances come from.
pub type Random<'a> = &'a mut dyn FnMut() -> u64;

impl Judged {
    fn new(known: Known) -> Self {
        Self { known, rates: [NO_RATE; 2] }
    }
}

impl Known {
    /// A host that did well for an interval is out for less long the next time.
    fn forgive(&mut self, now: Instant, settings: &Settings) {
        let long_ago = |at: Option<Instant>| {
            at.is_some_and(|at| now.saturating_duration_since(at) >= settings.config.interval)
        };
        if !self.is_ejected && long_ago(self.history.returned_at) {
            self.history.backoff = self.history.backoff.saturating_sub(1);
        }
        let degraded = &mut self.history.degraded;
        if !self.is_degraded && long_ago(degraded.ended_at) {
            degraded.backoff = degraded.backoff.saturating_sub(1);
        }
    }
}

impl Counts {
    /// What came after `earlier`. Counters of a worker that is just writing may seem to run ahead of each other.
    fn since(self, earlier: Self) -> Self {
        let total = self.total.saturating_sub(earlier.total);
        Self { total, good: self.good.saturating_sub(earlier.good).min(total) }
    }
}
