//! Outlier detection: hosts are judged by the requests that they got, and the outliers taken out for a time.
//!
//! Workers count ([`tidegate_cluster::judged`]); the [`machine`] decides; this drives it on the main thread, in real
//! time. Start from [`attend`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tidegate_cluster::attend::{AttendContext, Attendant};
use tidegate_cluster::judged::{Consecutive, Record, Signal, Watch};
use tidegate_cluster::{ClusterShared, Failing, HostShared, HostStat, Peers};
use tokio::time::Instant;

use crate::event_log::EventLog;
use machine::{Counts, Detector, Event, Known, Outcome, Seat};
use settings::Settings;
use stats::OutlierStats;

mod line;
pub mod machine;
pub mod settings;
mod stats;

/// Starts what `cluster` asks for.
pub fn attend(cluster: &Arc<ClusterShared>, cx: AttendContext<'_>) -> Vec<Attendant> {
    let (Some(config), Some(watch)) = (cluster.outlier_detection(), cluster.watch()) else {
        return Vec::new();
    };
    let log = cx.outlier_event_log.and_then(|path| {
        EventLog::open(path).inspect_err(|error| tracing::warn!(target: "health", "{path}: {error}")).ok()
    });
    let driver = Driver {
        detector: Detector::new(Settings::new(config)),
        hosts: Vec::new(),
        stats: OutlierStats::of(cx.store, cluster.config()),
        peers: cx.peers.clone(),
        cluster: cluster.clone(),
        watch: watch.clone(),
        log,
    };
    vec![Attendant::spawn(driver.run())]
}

struct Driver {
    detector: Detector,
    /// As the detector has them.
    hosts: Vec<Arc<HostShared>>,
    stats: OutlierStats,
    peers: Arc<Peers>,
    cluster: Arc<ClusterShared>,
    watch: Arc<Watch>,
    log: Option<Arc<EventLog>>,
}

impl Driver {
    async fn run(mut self) {
        let mut changes = self.cluster.changes();
        let watch = self.watch.clone();
        self.follow_runtime();
        self.follow_hosts();
        let mut next = Instant::now() + self.interval();
        loop {
            tokio::select! {
                signals = watch.signals() => {
                    self.follow_hosts();
                    for (host, signal) in signals {
                        self.handle(&host, signal);
                        // One by one: the log tells of each as things stand then.
                        self.carry_out();
                    }
                }
                changed = changes.changed() => match changed {
                    Ok(()) => self.follow_hosts(),
                    // Not as long as the cluster is here.
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(next) => {
                    self.follow_runtime();
                    self.sweep();
                    next = Instant::now() + self.interval();
                }
            }
            self.carry_out();
        }
    }

    fn interval(&self) -> std::time::Duration {
        self.detector.settings().config.interval
    }

    fn follow_runtime(&mut self) {
        let Some(config) = self.cluster.outlier_detection() else { return };
        let settings = Settings::new(config);
        for count in COUNTS {
            self.watch.set_threshold(count, settings.threshold(count));
        }
        self.detector.set_settings(settings);
    }

    /// Hosts came or left.
    fn follow_hosts(&mut self) {
        let now = self.cluster.hosts();
        let unchanged = now.hosts.len() == self.hosts.len()
            && now.hosts.iter().zip(&self.hosts).all(|(new, old)| Arc::ptr_eq(new, old));
        if unchanged {
            return;
        }
        let old = places(&self.hosts);
        let place = |host: &Arc<HostShared>| match old.get(&Arc::as_ptr(host)) {
            Some(place) => Seat::Kept(*place),
            None => Seat::New(known(host)),
        };
        self.detector.set_hosts(now.hosts.iter().map(place));
        self.hosts.clone_from(&now.hosts);
        self.stats.ejections_active().set(self.detector.ejected() as i64);
    }

    fn handle(&mut self, host: &Arc<HostShared>, signal: Signal) {
        let Some(place) = self.hosts.iter().position(|other| Arc::ptr_eq(other, host)) else { return };
        let (now, detector) = (Instant::now(), &mut self.detector);
        match signal {
            Signal::Reached(count) => detector.handle_consecutive(place, count, now, &mut random),
            Signal::Degraded => {
                host.record().into_iter().for_each(Record::degradation_heard);
                detector.handle_degraded(place, now, &mut random);
            }
            Signal::CheckPassed => {
                if !host.is_failing(Failing::ActiveCheck) {
                    detector.handle_check_passed(place, now);
                }
            }
        }
    }

    fn sweep(&mut self) {
        let hosts = &self.hosts;
        let counts = |place: usize| hosts.get(place).map(|host| counts(host)).unwrap_or_default();
        self.detector.handle_interval(Instant::now(), counts, &mut random);
        for (place, host) in self.hosts.iter().enumerate() {
            let (Some(record), Some(history)) = (host.record(), self.detector.history(place)) else {
                continue;
            };
            record.set_rates(self.detector.rates(place));
            record.set_history(*history);
        }
        let averages = self.detector.averages();
        self.watch.set_averages(averages.map(|all| all.map(|average| (average.mean, average.threshold))));
    }

    /// Does what the detector decided.
    fn carry_out(&mut self) {
        let mut changed = false;
        while let Some(event) = self.detector.poll_event() {
            changed |= self.carry_out_one(event);
        }
        self.stats.ejections_active().set(self.detector.ejected() as i64);
        if changed {
            self.cluster.health_changed();
            self.peers.tell_of_hosts(&self.cluster);
        }
    }

    /// Whether load balancers are to know.
    fn carry_out_one(&self, event: Event) -> bool {
        let (Event::Detected(place, ..)
        | Event::Returned(place)
        | Event::Degraded(place)
        | Event::Restored(place)) = event;
        let Some(host) = self.hosts.get(place) else { return false };
        if let (Some(record), Some(history)) = (host.record(), self.detector.history(place)) {
            record.set_history(*history);
            match event {
                Event::Detected(_, kind, _) => {
                    COUNTS
                        .into_iter()
                        .filter(|count| machine::Kind::of(*count) == kind)
                        .for_each(|count| record.reset(count));
                }
                Event::Returned(_) => COUNTS.into_iter().for_each(|count| record.reset(count)),
                Event::Degraded(_) | Event::Restored(_) => {}
            }
        }
        let changed = match event {
            Event::Detected(_, kind, outcome) => {
                self.stats.count(kind, outcome);
                outcome == Outcome::Ejected && host.set_failing(Failing::Outlier, true)
            }
            Event::Returned(_) => host.set_failing(Failing::Outlier, false),
            Event::Degraded(_) => {
                self.stats.ejections_detected_degradation().inc();
                host.set_failing(Failing::OutlierDegraded, true)
            }
            Event::Restored(_) => host.set_failing(Failing::OutlierDegraded, false),
        };
        self.tell(host, place, event);
        changed
    }

    /// Logs the event.
    fn tell(&self, host: &HostShared, place: usize, event: Event) {
        let Some(history) = self.detector.history(place) else { return };
        let facts = line::Facts {
            cluster: self.cluster.name(),
            host: &host.address(),
            history,
            rates: self.detector.rates(place),
            averages: self.detector.averages(),
            now: (Instant::now(), SystemTime::now()),
        };
        match event {
            Event::Detected(_, kind, Outcome::Ejected) => {
                tracing::info!(target: "health", "{} of cluster {} is ejected: {kind:?}", host.address(), facts.cluster);
            }
            Event::Returned(_) => {
                tracing::info!(target: "health", "{} of cluster {} returns", host.address(), facts.cluster);
            }
            _ => {}
        }
        if let (Some(log), Some(line)) = (&self.log, facts.line(event)) {
            log.write(line);
        }
    }
}

/// All that are counted in a row.
const COUNTS: [Consecutive; 3] =
    [Consecutive::ServerError, Consecutive::GatewayFailure, Consecutive::LocalOrigin];

fn random() -> u64 {
    fastrand::u64(..)
}

fn places(hosts: &[Arc<HostShared>]) -> HashMap<*const HostShared, usize> {
    hosts.iter().enumerate().map(|(place, host)| (Arc::as_ptr(host), place)).collect()
}

/// A host that is new here: of a cluster that changed it may be known from before.
fn known(host: &Arc<HostShared>) -> Known {
    Known {
        is_ejected: host.is_failing(Failing::Outlier),
        is_degraded: host.is_failing(Failing::OutlierDegraded),
        history: host.record().map(Record::history).unwrap_or_default(),
        counts: counts(host),
    }
}

fn counts(host: &HostShared) -> [Counts; 2] {
    let of = |total, good| {
        // The good ones first: they are counted last.
        let good = host.stats.value(good);
        Counts { total: host.stats.value(total), good }
    };
    [of(HostStat::JudgedAnswers, HostStat::GoodAnswers), of(HostStat::JudgedLocal, HostStat::GoodLocal)]
}
