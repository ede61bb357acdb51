//! One task for all hosts of a cluster: it starts checks when they are due, goes on with those whose connections
//! stirred, and tells of what they found.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use slab::Slab;
use tidegate_cluster::attend::{AttendContext, Hold};
use tidegate_cluster::{CheckKit, ClusterShared, Failing, HostShared, Mark, Peers, TransportOptions};
use tidegate_config::cluster::HealthCheckConfig;
use tidegate_stats::Scope;
use tokio::time::{Instant, sleep_until};

use super::ballot::Ballot;
use super::bell::{Bell, Chime};
use super::event::{About, Event};
use super::log::EventLog;
use super::plan::Plan;
use super::probe::{Answer, Outcome, Probe, Site};
use super::schedule::Schedule;
use super::session::{Failure, Jitter, Session, Standing, Transition, Verdict, interval_ms};
use super::stats::CheckStats;

/// Started in one go at most, before others of the thread have their turn.
const BATCH: usize = 64;

/// See the module.
pub(super) struct Driver {
    tools: Tools,
    lanes: Slab<Lane>,
    by_host: HashMap<*const HostShared, usize>,
    schedule: Schedule,
    bell: Arc<Bell>,
    news: News,
    warm_up: Option<WarmUp>,
    round: u64,
}

/// Which of a cluster's checks a driver makes.
pub(super) struct Seat {
    /// Its number.
    pub(super) number: usize,
    /// How many there are.
    pub(super) of: usize,
    /// Where it votes, if there are others.
    pub(super) ballot: Option<Rc<Ballot>>,
}

impl Seat {
    /// Whether hosts that say of themselves that they fail are its matter: the last check's, as in Envoy.
    fn hears_hosts(&self) -> bool {
        self.number + 1 == self.of
    }

    /// How the host stands in all, before and after a result that changes how it stands with this check.
    fn vote(&self, host: &Arc<HostShared>, before: Standing, after: Standing) -> (Standing, Standing) {
        match &self.ballot {
            Some(ballot) => ballot.vote(Arc::as_ptr(host), self.number, after),
            None => (before, after),
        }
    }
}

/// What does not change.
struct Tools {
    cluster: Arc<ClusterShared>,
    config: HealthCheckConfig,
    peers: Arc<Peers>,
    kit: CheckKit,
    plan: Plan,
    options: Rc<TransportOptions>,
    stats: CheckStats,
    seat: Seat,
    /// The cluster had a connection for traffic.
    used: Cell<bool>,
}

/// One host.
struct Lane {
    host: Arc<HostShared>,
    session: Session,
    probe: Probe,
    authority: String,
    chime: Arc<Chime>,
    waker: Waker,
    round: u64,
}

/// What is still to be told.
#[derive(Default)]
struct News {
    changed: bool,
    failed: bool,
    lines: String,
    logs: Vec<EventLog>,
}

/// Until each host that is known at first had a result, the cluster is not used.
struct WarmUp {
    _hold: Hold,
    /// Discovery has delivered.
    known: bool,
    unchecked: usize,
}

impl Driver {
    /// For `cluster`, which is checked by `config`, and is held until the first results.
    pub(super) fn new(
        cluster: &Arc<ClusterShared>,
        config: &HealthCheckConfig,
        plan: Plan,
        seat: Seat,
        cx: AttendContext<'_>,
    ) -> Self {
        let alpn = config.alpn_protocols.iter().map(|name| Arc::from(name.as_bytes())).collect();
        let tools = Tools {
            cluster: cluster.clone(),
            peers: cx.peers.clone(),
            kit: CheckKit::new(cluster, config.transport_labels.as_ref()),
            plan,
            options: Rc::new(TransportOptions { alpn, ..TransportOptions::default() }),
            stats: CheckStats::new(cx.store, scope(cluster, config)),
            seat,
            used: Cell::new(false),
            config: config.clone(),
        };
        let logs = config.events.paths.iter().map(|path| EventLog::new(path)).collect();
        let warm_up = WarmUp { _hold: cluster.warming().hold(), known: false, unchecked: 0 };
        Self {
            tools,
            lanes: Slab::new(),
            by_host: HashMap::new(),
            schedule: Schedule::default(),
            bell: Arc::default(),
            news: News { logs, ..News::default() },
            warm_up: Some(warm_up),
            round: 0,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let cluster = self.tools.cluster.clone();
        let mut changes = cluster.changes();
        let mut woken = Vec::new();
        self.follow_hosts();
        loop {
            let (due, bell) = (self.schedule.next(), self.bell.clone());
            let waits_for_others = self.warm_up.as_ref().is_some_and(|warm_up| !warm_up.known);
            tokio::select! {
                () = poll_fn(|cx| bell.poll_woken(cx, &mut woken)) => {
                    for lane in woken.drain(..) {
                        self.poll_lane(lane);
                    }
                }
                () = wait_until(due) => self.on_time(Instant::now()),
                _ = changes.changed() => self.follow_hosts(),
                () = cluster.host_told(), if self.tools.seat.hears_hosts() => self.follow_words(),
                () = cluster.warming().all_but(self.tools.seat.of), if waits_for_others => {
                    // Hosts may have come with the last word.
                    self.follow_hosts();
                    if let Some(warm_up) = &mut self.warm_up {
                        warm_up.known = true;
                    }
                }
            }
            self.tell();
            // The thread has other things to do.
            tokio::task::yield_now().await;
        }
    }

    /// Looks which hosts came and left.
    fn follow_hosts(&mut self) {
        self.round += 1;
        let hosts = self.tools.cluster.hosts();
        let cluster = self.tools.cluster.clone();
        for host in hosts.hosts.iter().filter(|host| cluster.is_checked(host)) {
            match self.by_host.get(&Arc::as_ptr(host)).and_then(|lane| self.lanes.get_mut(*lane)) {
                Some(lane) => lane.round = self.round,
                None => self.add(host),
            }
        }
        if self.lanes.len() == self.lanes.iter().filter(|(_, lane)| lane.round == self.round).count() {
            return;
        }
        let left: Vec<_> =
            self.lanes.iter().filter(|(_, lane)| lane.round != self.round).map(|(lane, _)| lane).collect();
        left.into_iter().for_each(|lane| self.remove(lane));
    }

    fn add(&mut self, host: &Arc<HostShared>) {
        let standing = Standing {
            failing: host.is_failing(Failing::ActiveCheck),
            degraded: host.checks.has(Mark::Degraded),
            pending: host.checks.has(Mark::Pending),
            timed_out: host.checks.has(Mark::TimedOut),
        };
        let seat = &self.tools.seat;
        let standing = match &seat.ballot {
            Some(ballot) => ballot.join(Arc::as_ptr(host), seat.number, standing),
            None => standing,
        };
        self.tools.stats.healthy().add(i64::from(!standing.failing));
        self.tools.stats.degraded().add(i64::from(standing.degraded));
        let entry = self.lanes.vacant_entry();
        let number = entry.key();
        let chime = Chime::new(&self.bell, number);
        entry.insert(Lane {
            session: Session::new(standing),
            probe: Probe::default(),
            authority: self.tools.authority(host),
            waker: Waker::from(chime.clone()),
            chime,
            host: host.clone(),
            round: self.round,
        });
        self.by_host.insert(Arc::as_ptr(host), number);
        let jitter = self.tools.config.initial_jitter.as_millis() as u64;
        let wait = match jitter {
            0 => 0,
            jitter => self.tools.jitter().apply(0, jitter, || fastrand::u64(..)),
        };
        self.schedule.set(number, Instant::now() + Duration::from_millis(wait));
        if let Some(warm_up) = &mut self.warm_up {
            warm_up.unchecked += 1;
        }
    }

    fn remove(&mut self, number: usize) {
        let lane = self.lanes.remove(number);
        if lane.host.attributes().health_check.disabled {
            // It stays, and is not checked any more: it counts as one that works.
            lane.host.set_failing(Failing::ActiveCheck, false);
            lane.host.checks.clear();
            self.news.changed = true;
        }
        self.by_host.remove(&Arc::as_ptr(&lane.host));
        self.schedule.clear(number);
        self.tools.forget(&lane);
        if let Some(warm_up) = self.warm_up.as_mut().filter(|_| lane.session.is_new()) {
            warm_up.unchecked -= 1;
        }
    }

    /// Starts the checks that are due, and ends those that took too long.
    fn on_time(&mut self, now: Instant) {
        for _ in 0..BATCH {
            let Some(number) = self.schedule.take_due(now) else { return };
            let Some(lane) = self.lanes.get_mut(number) else { continue };
            let site = self.tools.site(&lane.host, &lane.authority);
            if lane.probe.is_asking() {
                lane.probe.give_up(&site);
                let timeout = Outcome::Fail(Failure::Timeout);
                self.take(number, Answer { outcome: timeout, excluded: false, verified: false }, now);
            } else {
                lane.probe.start(&site);
                self.tools.stats.attempt().inc();
                self.schedule.set(number, now + self.tools.config.timeout);
            }
            self.poll_lane(number);
        }
    }

    fn poll_lane(&mut self, number: usize) {
        loop {
            let Some(lane) = self.lanes.get_mut(number) else { return };
            lane.chime.arm();
            let site = self.tools.site(&lane.host, &lane.authority);
            match lane.probe.poll(&site, &mut Context::from_waker(&lane.waker)) {
                Poll::Pending => return,
                Poll::Ready(answer) => self.take(number, answer, Instant::now()),
            }
        }
    }

    /// Takes a result, and sets when the next check is due.
    fn take(&mut self, number: usize, answer: Answer, now: Instant) {
        let Some(lane) = self.lanes.get_mut(number) else { return };
        if answer.verified {
            self.tools.stats.verify_cluster().inc();
        }
        if answer.excluded {
            lane.host.checks.set(Mark::Excluded, true);
        }
        let passed = matches!(answer.outcome, Outcome::Pass { .. });
        let transition = self.judge(number, answer.outcome);
        self.schedule.set(number, now + self.tools.interval(passed, transition));
    }

    /// What a result makes of the host.
    fn judge(&mut self, number: usize, outcome: Outcome) -> Transition {
        let Some(lane) = self.lanes.get_mut(number) else { return Transition::Unchanged };
        let before = lane.session.standing();
        let verdict = match outcome {
            Outcome::Pass { degraded } => lane.session.handle_pass(degraded, &self.tools.config),
            Outcome::Fail(failure) => lane.session.handle_failure(failure, &self.tools.config),
        };
        self.tools.count(outcome, before, lane.session.standing());
        let (old, all) = self.tools.seat.vote(&lane.host, before, lane.session.standing());
        self.tools.mark(&lane.host, all, verdict);
        if matches!(outcome, Outcome::Pass { .. }) && !all.failing {
            lane.host.check_passed();
        }
        self.news.changed |= verdict.transition == Transition::Changed && old != all;
        self.news.failed |= all.failing && !old.failing;
        self.news.log(&self.tools, &lane.host, outcome, verdict);
        self.tools.say(&lane.host, outcome, verdict);
        if let Some(warm_up) = self.warm_up.as_mut().filter(|_| verdict.first) {
            warm_up.unchecked -= 1;
        }
        verdict.transition
    }

    /// Hosts said of themselves that they fail, in responses to requests.
    fn follow_words(&mut self) {
        let told = |lane: &Lane| lane.host.checks.set(Mark::Told, false);
        let told: Vec<_> =
            self.lanes.iter().filter(|(_, lane)| told(lane)).map(|(number, _)| number).collect();
        for number in told {
            self.judge(number, Outcome::Fail(Failure::Passive));
        }
    }

    /// Tells load balancers, workers and logs.
    fn tell(&mut self) {
        let warm = self.warm_up.as_ref().is_some_and(|warm_up| warm_up.known && warm_up.unchecked == 0);
        let held = self.warm_up.is_some() && !warm && self.tools.cluster.config().wait_for_warm_on_init;
        // Nobody uses a cluster that is held: its load balancers are made when all results are in.
        if !held && (std::mem::take(&mut self.news.changed)) {
            self.tools.cluster.health_changed();
            if std::mem::take(&mut self.news.failed) {
                self.tools.peers.tell_of_hosts(&self.tools.cluster);
            }
        }
        self.news.write();
        if warm {
            self.warm_up = None;
        }
    }
}

impl Drop for Driver {
    /// The gauges live on with a changed cluster's checks.
    fn drop(&mut self) {
        self.lanes.iter().for_each(|(_, lane)| self.tools.forget(lane));
    }
}

impl Tools {
    /// With the bounds that the runtime has now.
    fn jitter(&self) -> Jitter {
        let (min_ms, max_ms) = self.cluster.check_interval_ms();
        Jitter { percent: u64::from(self.config.interval_jitter_percent), min_ms, max_ms }
    }

    fn site<'a>(&'a self, host: &'a HostShared, authority: &'a str) -> Site<'a> {
        Site {
            kit: &self.kit,
            plan: &self.plan,
            host,
            authority,
            options: &self.options,
            reuse: self.config.reuse_connection,
            secure: self.kit.is_secure(host),
        }
    }

    /// The host is not checked any more.
    fn forget(&self, lane: &Lane) {
        let standing = lane.session.standing();
        self.stats.healthy().sub(i64::from(!standing.failing));
        self.stats.degraded().sub(i64::from(standing.degraded));
        if let Some(ballot) = &self.seat.ballot {
            ballot.leave(Arc::as_ptr(&lane.host));
        }
    }

    /// The endpoint's, the check's, or the cluster's name.
    fn authority(&self, host: &HostShared) -> String {
        let attributes = host.attributes();
        let names = [&*attributes.health_check.hostname, self.plan.authority(), self.cluster.name()];
        names.into_iter().find(|name| !name.is_empty()).unwrap_or_default().to_owned()
    }

    fn interval(&self, passed: bool, transition: Transition) -> Duration {
        if !self.used.get() {
            self.used.set(self.cluster.stats().upstream.upstream_cx_total().value() > 0);
        }
        let base = interval_ms(&self.config.intervals, passed, transition, self.used.get());
        let jitter = self.config.interval_jitter.as_millis() as u64;
        Duration::from_millis(self.jitter().apply(base, jitter, || fastrand::u64(..)))
    }

    fn count(&self, outcome: Outcome, before: Standing, after: Standing) {
        match outcome {
            Outcome::Pass { .. } => self.stats.success().inc(),
            Outcome::Fail(failure) => {
                self.stats.failure().inc();
                match failure {
                    Failure::Network | Failure::Timeout => self.stats.network_failure().inc(),
                    Failure::Passive => self.stats.passive_failure().inc(),
                    Failure::Answer { .. } => {}
                }
            }
        }
        self.stats.healthy().add(i64::from(before.failing) - i64::from(after.failing));
        self.stats.degraded().add(i64::from(after.degraded) - i64::from(before.degraded));
    }

    /// The line about a failure, or about a host that turned; its fields cost nothing while the level is off.
    fn say(&self, host: &HostShared, outcome: Outcome, verdict: Verdict) {
        let words = match (outcome, verdict.turned) {
            (Outcome::Pass { .. }, true) => "host works",
            (Outcome::Fail(_), true) => "host fails",
            (Outcome::Fail(_), false) => "check failed",
            (Outcome::Pass { .. }, false) => return,
        };
        let result = match outcome {
            Outcome::Pass { .. } => None,
            Outcome::Fail(failure) => Some(failure.name()),
        };
        tracing::debug!(
            target: "health_checker",
            cluster = &**self.cluster.name(),
            host = %host.address(),
            result,
            flags = &*host.health_flags(),
            "{words}",
        );
    }

    /// Notes at the host how it stands.
    fn mark(&self, host: &HostShared, standing: Standing, verdict: Verdict) {
        host.set_failing(Failing::ActiveCheck, standing.failing);
        host.checks.set(Mark::Degraded, standing.degraded);
        host.checks.set(Mark::Pending, standing.pending);
        host.checks.set(Mark::TimedOut, standing.timed_out);
        if verdict.turned && !standing.failing {
            host.checks.set(Mark::Excluded, false);
        }
    }
}

impl News {
    fn log(&mut self, tools: &Tools, host: &HostShared, outcome: Outcome, verdict: Verdict) {
        if self.logs.is_empty() {
            return;
        }
        let events = &tools.config.events;
        let about =
            About { cluster: tools.cluster.name(), checker: tools.plan.name(), host, at: SystemTime::now() };
        let mut write = |event: Event| event.write(&about, &mut self.lines);
        match outcome {
            Outcome::Fail(failure) => {
                if verdict.turned {
                    write(Event::Eject(failure));
                }
                if verdict.first || events.failures {
                    write(Event::Fail { failure, first: verdict.first });
                }
            }
            Outcome::Pass { degraded } => {
                if verdict.turned {
                    write(Event::Add { first: verdict.first });
                } else if events.successes {
                    write(Event::Success);
                }
                if verdict.degraded_turned {
                    write(if degraded { Event::Degraded } else { Event::NoLongerDegraded });
                }
            }
        }
    }

    fn write(&mut self) {
        if !self.lines.is_empty() {
            self.logs.iter_mut().for_each(|log| log.append(&self.lines));
            self.lines.clear();
        }
    }
}

/// `cluster.NAME.health_check.`, and the check's name if it has one, which is a label unless it has dots, as in Envoy.
fn scope(cluster: &ClusterShared, config: &HealthCheckConfig) -> Scope {
    let scope = Scope::cluster(cluster.config().stat_name()).child("health_check");
    match &*config.name {
        "" => scope,
        name if name.contains('.') => scope.child("name").child(name),
        name => scope.tagged_after("name", "envoy_health_check_name", name),
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
