//! What outlier detection learns of a host's requests: [`Verdict`]s of the workers, gathered in [`Record`]s.
//!
//! Workers count, and say so when a count reaches its threshold ([`Watch`]); what follows is decided on the main
//! thread by whoever attends the cluster (Envoy docs, "Outlier detection").

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_config::cluster::OutlierDetectionConfig;
use tidegate_pool::host::{HostCounters, HostStat};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::host::HostShared;

/// How it went with a host once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A response with this status; for gRPC the status that its `grpc-status` stands for, where the head has it.
    Answer(u16),
    /// A response that the cluster's own rule takes for an error, or not.
    Matched {
        /// Whether it is one.
        is_error: bool,
    },
    /// There is a connection for a request, whose answer will follow.
    Connected,
    /// There is a connection, and nothing more is going to be learned.
    ConnectedForGood,
    /// No connection, or one that ended under its request.
    Failed,
    /// No answer in time; the status that says so.
    TimedOut(u16),
}

/// A count of failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Consecutive {
    /// Answers 5xx.
    ServerError,
    /// Answers 502, 503 and 504.
    GatewayFailure,
    /// What did not come from the host, where that is split.
    LocalOrigin,
}

/// What the main thread is told of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A count has reached its threshold.
    Reached(Consecutive),
    /// A response said that the host is degraded.
    Degraded,
    /// An active health check found it healthy.
    CheckPassed,
}

/// What all hosts of a cluster have in common, and the way to the main thread.
#[derive(Debug)]
pub struct Watch {
    thresholds: [AtomicU32; 3],
    splits: bool,
    sees_degraded: bool,
    check_unejects: bool,
    letters: Mutex<Vec<(Arc<HostShared>, Signal)>>,
    bell: Notify,
    /// Mean success rate and the one below which hosts are ejected, in percent: of answers, and of local origin.
    averages: Mutex<[Option<(f64, f64)>; 2]>,
}

impl Watch {
    pub(crate) fn new(config: &OutlierDetectionConfig) -> Arc<Self> {
        let thresholds = [
            config.consecutive_5xx,
            config.consecutive_gateway_failure,
            config.consecutive_local_origin_failure,
        ];
        Arc::new(Self {
            thresholds: thresholds.map(AtomicU32::new),
            splits: config.split_local_origin,
            sees_degraded: config.detect_degraded,
            check_unejects: config.check_unejects,
            letters: Mutex::default(),
            bell: Notify::new(),
            averages: Mutex::new([None; 2]),
        })
    }

    /// Sets how many failures in a row are told of; 0: none are.
    pub fn set_threshold(&self, count: Consecutive, threshold: u32) {
        self.thresholds[count as usize].store(threshold, Relaxed);
    }

    /// What the workers said, once they said something.
    pub async fn signals(&self) -> Vec<(Arc<HostShared>, Signal)> {
        loop {
            let letters = std::mem::take(&mut *lock(&self.letters));
            if !letters.is_empty() {
                return letters;
            }
            self.bell.notified().await;
        }
    }

    fn tell(&self, host: &Arc<HostShared>, signal: Signal) {
        lock(&self.letters).push((host.clone(), signal));
        self.bell.notify_one();
    }

    /// Mean success rate and ejection threshold in percent, where the last interval had enough requests to tell.
    pub fn averages(&self) -> [Option<(f64, f64)>; 2] {
        *lock(&self.averages)
    }

    /// Shows them on the admin pages.
    pub fn set_averages(&self, averages: [Option<(f64, f64)>; 2]) {
        *lock(&self.averages) = averages;
    }
}

/// One host's record.
#[derive(Debug)]
pub struct Record {
    watch: Arc<Watch>,
    consecutive: [AtomicU32; 3],
    /// [`Signal::Degraded`] was sent and not yet taken.
    told_degraded: AtomicBool,
    history: Mutex<History>,
    /// Success rates in percent, as bits of `f64`; -1: too few requests.
    rates: [AtomicU64; 2],
}

/// A host's ejections so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// How often it was ejected.
    pub ejections: u32,
    /// What `base_ejection_time` is multiplied with; falls while it does well.
    pub backoff: u32,
    /// When it was ejected last.
    pub ejected_at: Option<Instant>,
    /// When it returned last.
    pub returned_at: Option<Instant>,
    /// Added to the time of its ejection.
    pub jitter: Duration,
    /// When it returns at the earliest, if it is ejected.
    pub until: Option<Instant>,
    /// The same for being degraded: how often, the factor, and since when.
    pub degraded: Degradation,
}

/// A host's time among the degraded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Degradation {
    /// What `base_ejection_time` is multiplied with.
    pub backoff: u32,
    /// Since when it is degraded or was last.
    pub since: Option<Instant>,
    /// When it last ceased to be.
    pub ended_at: Option<Instant>,
    /// Added to its time.
    pub jitter: Duration,
}

impl Record {
    /// A new host's record, or that of the same host in a cluster that changed.
    pub(crate) fn new(watch: &Arc<Watch>, previous: Option<&Self>) -> Self {
        let before = |count: usize| previous.map_or(0, |record| record.consecutive[count].load(Relaxed));
        Self {
            watch: watch.clone(),
            consecutive: [0, 1, 2].map(|count| AtomicU32::new(before(count))),
            told_degraded: AtomicBool::new(false),
            history: Mutex::new(previous.map(Self::history).unwrap_or_default()),
            rates: [NO_RATE; 2].map(|rate| AtomicU64::new(rate.to_bits())),
        }
    }

    /// Its ejections.
    pub fn history(&self) -> History {
        *lock(&self.history)
    }

    /// Notes an ejection or its end.
    pub fn set_history(&self, history: History) {
        *lock(&self.history) = history;
    }

    /// Success rates in percent of the last interval, of answers and of local origin; -1 for too few requests.
    pub fn rates(&self) -> [f64; 2] {
        [0, 1].map(|of| f64::from_bits(self.rates[of].load(Relaxed)))
    }

    /// Shows them on the admin pages.
    pub fn set_rates(&self, rates: [f64; 2]) {
        for (shown, rate) in self.rates.iter().zip(rates) {
            shown.store(rate.to_bits(), Relaxed);
        }
    }

    /// Counts anew.
    pub fn reset(&self, count: Consecutive) {
        self.consecutive[count as usize].store(0, Relaxed);
    }

    /// [`Signal::Degraded`] was taken: the next response that says so is told of again.
    pub fn degradation_heard(&self) {
        self.told_degraded.store(false, Relaxed);
    }

    /// On a worker.
    pub(crate) fn note(&self, host: &Arc<HostShared>, counters: &HostCounters, verdict: Verdict) {
        match (verdict, self.watch.splits) {
            (Verdict::Answer(status), _) => self.answer(host, counters, status),
            (Verdict::Connected, false) => {}
            (Verdict::ConnectedForGood, false) | (Verdict::Matched { is_error: false }, false) => {
                self.answer(host, counters, 200);
            }
            (Verdict::Failed, false) => self.answer(host, counters, 503),
            (Verdict::TimedOut(status), false) => self.answer(host, counters, status),
            (Verdict::Matched { is_error: true }, false) => self.answer(host, counters, 500),
            (Verdict::Connected | Verdict::ConnectedForGood, true) => self.local_success(counters),
            (Verdict::Failed | Verdict::TimedOut(_), true) => {
                counters.inc(HostStat::JudgedLocal);
                self.count(host, Consecutive::LocalOrigin);
            }
            (Verdict::Matched { is_error: true }, true) => self.answer(host, counters, 503),
            (Verdict::Matched { is_error: false }, true) => {
                self.answer(host, counters, 200);
                self.local_success(counters);
            }
        }
    }

    /// `detect_degraded_hosts`.
    pub(crate) fn hears_degraded(&self) -> bool {
        self.watch.sees_degraded
    }

    /// A response said `x-envoy-degraded`.
    pub(crate) fn note_degraded(&self, host: &Arc<HostShared>) {
        if self.watch.sees_degraded && !self.told_degraded.swap(true, Relaxed) {
            self.watch.tell(host, Signal::Degraded);
        }
    }

    /// An active health check passed.
    pub(crate) fn check_passed(&self, host: &Arc<HostShared>) {
        if self.watch.check_unejects {
            self.watch.tell(host, Signal::CheckPassed);
        }
    }

    fn answer(&self, host: &Arc<HostShared>, counters: &HostCounters, status: u16) {
        counters.inc(HostStat::JudgedAnswers);
        match status {
            502..=504 => self.count(host, Consecutive::GatewayFailure),
            _ => self.clear(Consecutive::GatewayFailure),
        }
        match status {
            500..=599 => self.count(host, Consecutive::ServerError),
            _ => {
                counters.inc(HostStat::GoodAnswers);
                self.clear(Consecutive::ServerError);
            }
        }
    }

    fn local_success(&self, counters: &HostCounters) {
        counters.inc(HostStat::JudgedLocal);
        counters.inc(HostStat::GoodLocal);
        self.clear(Consecutive::LocalOrigin);
    }

    /// One more in a row. Told of once, when it is exactly as many as it takes.
    fn count(&self, host: &Arc<HostShared>, count: Consecutive) {
        let so_far = self.consecutive[count as usize].fetch_add(1, Relaxed).wrapping_add(1);
        if so_far == self.watch.thresholds[count as usize].load(Relaxed) {
            self.watch.tell(host, Signal::Reached(count));
        }
    }

    /// Reads before it writes: all workers share the line, and a host that does well is the rule.
    #[inline]
    fn clear(&self, count: Consecutive) {
        let count = &self.consecutive[count as usize];
        if count.load(Relaxed) != 0 {
            count.store(0, Relaxed);
        }
    }
}

/// What admin pages show as the success rate of a host that had too few requests.
pub const NO_RATE: f64 = -1.0;

/// Locks, ignoring poison: what is inside is valid after any panic. Workers come here only with news.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
