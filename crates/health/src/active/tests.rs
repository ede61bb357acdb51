//! The machine of one host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use tidegate_config::cluster::{CheckEvents, CheckIntervals, Checker, HealthCheckConfig, TcpCheck};
use tidegate_config::values::Place;

use super::session::{Failure, Jitter, Session, Standing, Transition, Verdict, interval_ms};

fn config(unhealthy_threshold: u32, healthy_threshold: u32) -> HealthCheckConfig {
    let ms = Duration::from_millis;
    HealthCheckConfig {
        name: String::new(),
        timeout: ms(1000),
        intervals: CheckIntervals {
            healthy: ms(1),
            healthy_edge: ms(2),
            unhealthy: ms(3),
            unhealthy_edge: ms(4),
            no_traffic: ms(5),
            no_traffic_healthy: ms(6),
        },
        initial_jitter: ms(0),
        interval_jitter: ms(0),
        interval_jitter_percent: 0,
        unhealthy_threshold,
        healthy_threshold,
        reuse_connection: true,
        alpn_protocols: Vec::new(),
        transport_labels: None,
        events: CheckEvents::default(),
        checker: Checker::Tcp(TcpCheck::default()),
        place: Place::default(),
    }
}

const NEW: Standing = Standing { failing: true, degraded: false, pending: false, timed_out: false };
const BAD: Failure = Failure::Answer { retriable: false, status: 500 };
const RETRIABLE: Failure = Failure::Answer { retriable: true, status: 503 };

/// A host that works.
fn working(config: &HealthCheckConfig) -> Session {
    let mut session = Session::new(NEW);
    session.handle_pass(false, config);
    session
}

fn turned(verdict: Verdict) -> (bool, Transition) {
    (verdict.turned, verdict.transition)
}

#[test]
fn the_first_success_decides_alone() {
    let config = config(3, 3);
    let mut session = Session::new(NEW);
    let verdict = session.handle_pass(false, &config);
    assert_eq!((turned(verdict), verdict.first), ((true, Transition::Changed), true));
    assert!(!session.standing().failing);
    let verdict = session.handle_pass(false, &config);
    assert_eq!((turned(verdict), verdict.first), ((false, Transition::Unchanged), false));
}

#[test]
fn a_first_failure_leaves_the_host_failing_and_later_successes_have_to_suffice() {
    let config = config(2, 2);
    let mut session = Session::new(NEW);
    let verdict = session.handle_failure(Failure::Timeout, &config);
    assert_eq!((turned(verdict), verdict.first), ((false, Transition::Unchanged), true));
    assert!(session.standing().failing && session.standing().timed_out);
    assert_eq!(turned(session.handle_pass(false, &config)), (false, Transition::Pending));
    assert_eq!(turned(session.handle_failure(Failure::Network, &config)), (false, Transition::Unchanged));
    assert!(!session.standing().timed_out);
    assert_eq!(turned(session.handle_pass(false, &config)), (false, Transition::Pending));
    assert_eq!(turned(session.handle_pass(false, &config)), (true, Transition::Changed));
}

#[test]
fn what_says_nothing_definite_has_to_come_often_enough() {
    let config = config(2, 1);
    for failure in [Failure::Network, Failure::Timeout, RETRIABLE] {
        let mut session = working(&config);
        assert_eq!(turned(session.handle_failure(failure, &config)), (false, Transition::Pending));
        session.handle_pass(false, &config);
        assert_eq!(turned(session.handle_failure(failure, &config)), (false, Transition::Pending));
        assert_eq!(turned(session.handle_failure(failure, &config)), (true, Transition::Changed));
        assert_eq!(session.standing().timed_out, failure == Failure::Timeout);
    }
}

#[test]
fn what_is_definite_decides_at_once() {
    let config = config(5, 1);
    for failure in [BAD, Failure::Passive] {
        let mut session = working(&config);
        assert_eq!(turned(session.handle_failure(failure, &config)), (true, Transition::Changed));
        assert_eq!(turned(session.handle_failure(failure, &config)), (false, Transition::Unchanged));
    }
}

/// Envoy compares for equality.
#[test]
fn thresholds_of_0_are_never_reached() {
    let config = config(0, 0);
    let mut session = working(&config);
    for _ in 0..3 {
        assert_eq!(turned(session.handle_failure(Failure::Network, &config)), (false, Transition::Pending));
    }
    session.handle_failure(BAD, &config);
    for _ in 0..3 {
        assert_eq!(turned(session.handle_pass(false, &config)), (false, Transition::Pending));
    }
}

#[test]
fn degraded_hosts_turn_without_a_threshold() {
    let config = config(2, 2);
    let mut session = working(&config);
    let verdict = session.handle_pass(true, &config);
    assert_eq!((verdict.degraded_turned, verdict.transition), (true, Transition::Changed));
    assert!(session.standing().degraded && !session.standing().failing);
    let verdict = session.handle_pass(true, &config);
    assert_eq!((verdict.degraded_turned, verdict.transition), (false, Transition::Unchanged));
    assert!(session.handle_pass(false, &config).degraded_turned);
}

#[test]
fn any_first_result_makes_a_new_host_count() {
    let config = config(2, 2);
    for passes in [true, false] {
        let mut session = Session::new(Standing { pending: true, ..NEW });
        let verdict = match passes {
            true => session.handle_pass(false, &config),
            false => session.handle_failure(Failure::Network, &config),
        };
        assert_eq!(verdict.transition, Transition::Changed);
        assert!(!session.standing().pending);
    }
}

#[test]
fn intervals_are_by_state_edge_and_traffic() {
    let intervals = &config(1, 1).intervals;
    let ms = |passed, transition, traffic| interval_ms(intervals, passed, transition, traffic);
    use Transition::{Changed, Pending, Unchanged};
    for settled in [Changed, Unchanged] {
        assert_eq!((ms(true, settled, true), ms(false, settled, true)), (1, 3));
        assert_eq!((ms(true, settled, false), ms(false, settled, false)), (6, 5));
    }
    assert_eq!((ms(true, Pending, true), ms(false, Pending, true)), (2, 4));
    assert_eq!((ms(true, Pending, false), ms(false, Pending, false)), (5, 5));
}

#[test]
fn jitter_is_added_and_bounded() {
    let jitter = |percent, min_ms, max_ms| Jitter { percent, min_ms, max_ms };
    let most = || u64::MAX;
    // u64::MAX % 50 == 15, % 7 == 1.
    assert_eq!(jitter(50, 0, u64::MAX).apply(100, 7, most), 100 + 15 + 1);
    assert_eq!(jitter(0, 0, u64::MAX).apply(100, 0, most), 100);
    assert_eq!(jitter(0, 200, u64::MAX).apply(100, 0, most), 200);
    assert_eq!(jitter(0, 0, 50).apply(100, 0, most), 50);
    assert_eq!(jitter(0, 0, u64::MAX).apply(0, 0, most), 1);
}
