#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_config::cluster::{
    EnforcingConfig, FailurePercentageConfig, OutlierDetectionConfig, SuccessRateConfig,
};
use tidegate_config::runtime::{Runtime, RuntimeValue};

use super::*;

/// Envoy's defaults, for clusters small enough that a share of half of them matters.
fn config() -> OutlierDetectionConfig {
    OutlierDetectionConfig {
        interval: seconds(10),
        base_ejection_time: seconds(30),
        max_ejection_time: seconds(300),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 50,
        always_eject_one_host: false,
        consecutive_5xx: 5,
        consecutive_gateway_failure: 5,
        consecutive_local_origin_failure: 5,
        split_local_origin: false,
        success_rate: SuccessRateConfig { minimum_hosts: 5, request_volume: 100, stdev_factor: 1900 },
        failure_percentage: FailurePercentageConfig { threshold: 85, minimum_hosts: 5, request_volume: 50 },
        enforcing: EnforcingConfig {
            consecutive_5xx: 100,
            consecutive_gateway_failure: 0,
            consecutive_local_origin_failure: 100,
            success_rate: 100,
            local_origin_success_rate: 100,
            failure_percentage: 0,
            failure_percentage_local_origin: 0,
        },
        check_unejects: true,
        detect_degraded: true,
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A detector with a clock of its own.
struct Lab {
    detector: Detector,
    now: Instant,
    counts: Vec<[Counts; 2]>,
    random: u64,
}

impl Lab {
    fn new(hosts: usize, config: OutlierDetectionConfig) -> Self {
        let mut detector = Detector::new(Settings { config });
        detector.set_hosts((0..hosts).map(|_| Seat::New(Known::default())));
        Self { detector, now: Instant::now(), counts: vec![Default::default(); hosts], random: 0 }
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.detector.poll_event()).collect()
    }

    fn fails(&mut self, host: usize, count: Consecutive) -> Vec<Event> {
        let random = self.random;
        self.detector.handle_consecutive(host, count, self.now, &mut || random);
        self.events()
    }

    /// After that time an interval ends.
    fn sweep(&mut self, after: Duration) -> Vec<Event> {
        self.now += after;
        let random = self.random;
        self.detector.handle_interval(self.now, |place| self.counts[place], &mut || random);
        self.events()
    }

    /// Requests of an interval, by host: how many did well of how many.
    fn serves(&mut self, origin: Origin, hosts: &[(u64, u64)]) {
        for (counts, (good, total)) in self.counts.iter_mut().zip(hosts) {
            counts[origin as usize].good += good;
            counts[origin as usize].total += total;
        }
    }

    /// For how long the host is out, in whole intervals.
    fn time_out(&mut self, host: usize) -> u64 {
        (1..1000).find(|_| self.sweep(seconds(10)).contains(&Event::Returned(host))).unwrap() * 10
    }
}

const SERVER_ERROR: Consecutive = Consecutive::ServerError;

fn ejected(host: usize, kind: Kind) -> Vec<Event> {
    vec![Event::Detected(host, kind, Outcome::Ejected)]
}

#[test]
fn ejections_grow_with_each_and_shrink_while_all_is_well() {
    let mut lab = Lab::new(2, config());
    assert_eq!(lab.fails(0, SERVER_ERROR), ejected(0, Kind::Consecutive5xx));
    // It is out already: what still comes in counts for nothing.
    assert_eq!(lab.fails(0, SERVER_ERROR), []);
    assert_eq!(lab.time_out(0), 30);
    assert_eq!(lab.fails(0, SERVER_ERROR), ejected(0, Kind::Consecutive5xx));
    assert_eq!(lab.time_out(0), 60);
    // An interval without an ejection takes one from the factor of the next.
    assert_eq!(lab.sweep(seconds(10)), []);
    lab.fails(0, SERVER_ERROR);
    assert_eq!(lab.time_out(0), 60);
    (0..20).for_each(|_| drop(lab.sweep(seconds(10))));
    lab.fails(0, SERVER_ERROR);
    assert_eq!(lab.time_out(0), 30);
    assert_eq!(lab.detector.history(0).unwrap().ejections, 4);
}

#[test]
fn an_ejection_lasts_no_longer_than_max_ejection_time() {
    let mut lab = Lab::new(2, OutlierDetectionConfig { max_ejection_time: seconds(75), ..config() });
    for expected in [30, 60, 80, 80] {
        lab.fails(0, SERVER_ERROR);
        assert_eq!(lab.time_out(0), expected);
    }
}

#[test]
fn jitter_lengthens_an_ejection() {
    let jitter = Duration::from_millis(5_000);
    let mut lab = Lab::new(2, OutlierDetectionConfig { max_ejection_time_jitter: jitter, ..config() });
    lab.random = 3 * 5_001 + 4_200;
    lab.fails(0, SERVER_ERROR);
    assert_eq!(lab.sweep(seconds(34)), []);
    assert_eq!(lab.sweep(Duration::from_millis(199)), []);
    assert_eq!(lab.sweep(Duration::from_millis(1)), [Event::Returned(0)]);
}

#[test]
fn only_a_share_of_the_hosts_is_ejected() {
    let mut lab = Lab::new(4, config());
    let overflow = |host| vec![Event::Detected(host, Kind::Consecutive5xx, Outcome::Overflow)];
    assert_eq!(lab.fails(0, SERVER_ERROR), ejected(0, Kind::Consecutive5xx));
    assert_eq!(lab.fails(1, SERVER_ERROR), ejected(1, Kind::Consecutive5xx));
    assert_eq!(lab.fails(2, SERVER_ERROR), overflow(2));
    // The default share of two hosts is none, and stays so.
    let share = OutlierDetectionConfig { max_ejection_percent: 10, ..config() };
    assert_eq!(Lab::new(2, share.clone()).fails(0, SERVER_ERROR), overflow(0));
    assert_eq!(Lab::new(10, share.clone()).fails(0, SERVER_ERROR), ejected(0, Kind::Consecutive5xx));
    let mut one = Lab::new(2, OutlierDetectionConfig { always_eject_one_host: true, ..share });
    assert_eq!(one.fails(0, SERVER_ERROR), ejected(0, Kind::Consecutive5xx));
    assert_eq!(one.fails(1, SERVER_ERROR), overflow(1));
}

#[test]
fn enforcing_spares_by_chance() {
    let mut lab = Lab::new(2, config());
    let spared = [Event::Detected(0, Kind::ConsecutiveGatewayFailure, Outcome::NotEnforced)];
    assert_eq!(lab.fails(0, Consecutive::GatewayFailure), spared);
    lab.detector.settings.config.enforcing.consecutive_gateway_failure = 40;
    lab.random = 40;
    assert_eq!(lab.fails(0, Consecutive::GatewayFailure), spared);
    lab.random = 39;
    assert_eq!(lab.fails(0, Consecutive::GatewayFailure), ejected(0, Kind::ConsecutiveGatewayFailure));
}

#[test]
fn a_passed_check_ends_an_ejection() {
    let mut lab = Lab::new(2, config());
    lab.detector.handle_check_passed(0, lab.now);
    assert_eq!(lab.events(), []);
    lab.fails(0, SERVER_ERROR);
    lab.detector.handle_check_passed(0, lab.now);
    assert_eq!(lab.events(), [Event::Returned(0)]);
    assert_eq!(lab.detector.ejected(), 0);
}

/// Envoy's own example: 50 of 100 among four without fault is below 90 - 1.9 * 20 = 52.
#[test]
fn a_success_rate_far_below_the_mean_is_an_outlier() {
    let mut lab = Lab::new(5, config());
    lab.serves(Origin::External, &[(50, 100), (100, 100), (200, 200), (100, 100), (100, 100)]);
    assert_eq!(lab.sweep(seconds(10)), ejected(0, Kind::SuccessRate));
    let average = lab.detector.averages()[Origin::External as usize].unwrap();
    assert!((average.mean - 90.0).abs() < 1e-9 && (average.threshold - 52.0).abs() < 1e-9, "{average:?}");
    assert_eq!(lab.detector.rates(0), [50.0, NO_RATE]);
    // Nothing came since: nobody can be judged, and the pages show no rate.
    assert_eq!(lab.sweep(seconds(10)), []);
    assert_eq!((lab.detector.averages(), lab.detector.rates(0)), ([None; 2], [NO_RATE; 2]));
}

#[test]
fn success_rates_need_enough_hosts_with_enough_requests() {
    let mut lab = Lab::new(5, config());
    lab.serves(Origin::External, &[(20, 100), (100, 100), (100, 100), (100, 100), (99, 99)]);
    assert_eq!(lab.sweep(seconds(10)), []);
    // Shown all the same: 50 are enough for the failure percentage.
    assert_eq!(lab.detector.rates(4), [100.0, NO_RATE]);
    let mut lab = Lab::new(4, config());
    lab.serves(Origin::External, &[(20, 100), (100, 100), (100, 100), (100, 100)]);
    assert_eq!(lab.sweep(seconds(10)), []);
}

#[test]
fn failure_percentages_have_a_fixed_bound() {
    let mut lab = Lab::new(5, config());
    lab.detector.settings.config.enforcing.failure_percentage = 100;
    lab.serves(Origin::External, &[(15, 100), (16, 100), (20, 100), (16, 100), (20, 100)]);
    assert_eq!(lab.sweep(seconds(10)), ejected(0, Kind::FailurePercentage));
}

/// Envoy ejects such a host twice, and its `ejections_active` never returns to 0.
#[test]
fn an_outlier_by_two_measures_is_ejected_once() {
    let mut lab = Lab::new(5, config());
    lab.detector.settings.config.enforcing.failure_percentage = 100;
    lab.serves(Origin::External, &[(0, 100), (100, 100), (100, 100), (100, 100), (100, 100)]);
    let events = lab.sweep(seconds(10));
    let again = Event::Detected(0, Kind::FailurePercentage, Outcome::AlreadyEjected);
    assert_eq!(events, [ejected(0, Kind::SuccessRate)[0], again]);
    assert_eq!(lab.detector.ejected(), 1);
}

#[test]
fn local_failures_have_their_own_rates() {
    let mut lab = Lab::new(5, config());
    lab.detector.settings.config.enforcing.failure_percentage_local_origin = 100;
    lab.serves(Origin::Local, &[(0, 100), (100, 100), (100, 100), (100, 100), (100, 100)]);
    let events = lab.sweep(seconds(10));
    assert_eq!(events[0], ejected(0, Kind::SuccessRateLocalOrigin)[0]);
    assert!(matches!(events[1], Event::Detected(0, Kind::FailurePercentageLocalOrigin, _)));
    assert_eq!(lab.detector.averages()[Origin::External as usize], None);
}

#[test]
fn degraded_hosts_are_restored_after_growing_times() {
    let mut lab = Lab::new(2, config());
    for lasts in [3, 6] {
        lab.detector.handle_degraded(0, lab.now, &mut || 0);
        lab.detector.handle_degraded(0, lab.now, &mut || 0);
        assert_eq!(lab.events(), [Event::Degraded(0)]);
        for _ in 1..lasts {
            assert_eq!(lab.sweep(seconds(10)), []);
        }
        assert_eq!(lab.sweep(seconds(10)), [Event::Restored(0)]);
    }
    assert_eq!((lab.detector.ejected(), lab.detector.history(0).unwrap().ejections), (0, 0));
}

#[test]
fn hosts_keep_their_past_as_others_come_and_go() {
    let mut lab = Lab::new(4, config());
    lab.fails(1, SERVER_ERROR);
    lab.fails(3, SERVER_ERROR);
    lab.detector.set_hosts([Seat::Kept(3), Seat::New(Known::default())].into_iter());
    assert_eq!((lab.detector.ejected(), lab.detector.history(0).unwrap().ejections), (1, 1));
    assert_eq!(lab.fails(0, SERVER_ERROR), []);
    assert_eq!(lab.time_out(0), 30);
    assert_eq!(lab.detector.ejected(), 0);
}

#[test]
fn the_runtime_overrides_every_number() {
    let mut runtime = Runtime::default();
    for (key, value) in [("interval_ms", 250.0), ("consecutive_5xx", 7.0), ("max_ejection_percent", 500.0)] {
        runtime.values.insert(format!("outlier_detection.{key}"), RuntimeValue::Number(value));
    }
    let settings = Settings::new(config().under(&runtime));
    assert_eq!(settings.config.interval, Duration::from_millis(250));
    assert_eq!(settings.threshold(SERVER_ERROR), 7);
    assert_eq!(settings.config.max_ejection_percent, 100);
    assert_eq!(settings.config.base_ejection_time, seconds(30));
    assert_eq!(runtime.unread(), Vec::<String>::new());
}
