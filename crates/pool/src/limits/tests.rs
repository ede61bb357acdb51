#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::*;

#[test]
fn gauges_follow_the_limit_exactly() {
    let maxima = Maxima { connections: 2, track_remaining: true, ..Maxima::default() };
    let (open, left) = (BreakerStats::detached(), RemainingStats::detached());
    let limits = Limits::counted_in(&maxima, &open, Some(&left));
    assert_eq!((open.cx_open().value(), left.remaining_cx().value()), (0, 2));
    assert!(limits.connections.try_reserve() && limits.connections.try_reserve());
    assert!(!limits.connections.try_reserve());
    assert_eq!((open.cx_open().value(), left.remaining_cx().value()), (1, 0));
    limits.connections.release();
    assert_eq!((open.cx_open().value(), left.remaining_cx().value()), (0, 1));
    limits.set_maxima(&Maxima { connections: 1, ..maxima });
    assert_eq!((open.cx_open().value(), left.remaining_cx().value()), (1, 0));
    limits.connections.release();
    assert_eq!((open.cx_open().value(), left.remaining_cx().value()), (0, 1));
}

#[test]
fn a_unit_goes_to_whoever_waited_longest_and_cannot_be_snatched() {
    let limit = Limit::new(1, None, None);
    assert!(limit.try_reserve());
    let now = Instant::now();
    let claim = |ms| Claim { since: now + Duration::from_millis(ms), starving: false };
    let (late, early) = (Arc::new(Waiter::default()), Arc::new(Waiter::default()));
    limit.wait(&late, claim(2));
    limit.wait(&early, claim(1));
    limit.release();
    assert!(early.is_granted() && !late.is_granted());
    assert!(!limit.try_reserve(), "the unit is taken");
    limit.leave(&early);
    assert!(late.take(), "an unused grant passes on");
    limit.release();
    assert!(limit.try_reserve());
}

#[test]
fn a_retry_budget_follows_the_load() {
    let budget = RetryBudget { percent: 20.0, min_concurrency: 1, interval: None };
    let limits = Arc::new(Limits::detached(&Maxima { retry_budget: Some(budget), ..Maxima::default() }));
    let first = limits.reserve_retry(Instant::now());
    assert!(first.is_some() && limits.reserve_retry(Instant::now()).is_none());
    (0..10).for_each(|_| assert!(limits.requests.try_reserve()));
    assert!(limits.reserve_retry(Instant::now()).is_some());
    drop(first);
}

#[test]
fn a_retry_budget_of_an_interval_follows_the_requests_of_that_time() {
    let second = Duration::from_secs(1);
    let budget = RetryBudget { percent: 20.0, min_concurrency: 0, interval: Some(second) };
    let maxima = Maxima { retry_budget: Some(budget), ..Maxima::default() };
    let (limits, start) = (Arc::new(Limits::detached(&maxima)), Instant::now());
    (0..10).for_each(|_| limits.note_request(start));
    let two = [limits.reserve_retry(start), limits.reserve_retry(start)];
    assert!(two.iter().all(Option::is_some) && limits.reserve_retry(start).is_none());
    drop(two);
    assert!(limits.reserve_retry(start + 2 * second).is_none(), "nothing began lately");
    limits.set_maxima(&Maxima::default());
    assert!(limits.reserve_retry(start + 2 * second).is_some(), "a reload changes the budget");
}

#[test]
fn threads_never_exceed_a_limit_and_no_waiter_is_forgotten() {
    let limit = Arc::new(Limit::new(3, None, None));
    let most = Arc::new(AtomicU64::new(0));
    let inside = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (limit, most, inside) = (limit.clone(), most.clone(), inside.clone());
            thread::spawn(move || {
                let parked = Arc::new(Waiter::default());
                parked.set_waker(Some(Waker::from(Arc::new(Unpark(thread::current())))));
                for _ in 0..300 {
                    if !limit.try_reserve() {
                        limit.wait(&parked, Claim { since: Instant::now(), starving: true });
                        while !parked.take() {
                            thread::park();
                        }
                    }
                    most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                    thread::yield_now();
                    inside.fetch_sub(1, SeqCst);
                    limit.release();
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert!(most.load(SeqCst) <= 3);
    assert_eq!(limit.used(), 0);
}

use std::task::{Wake, Waker};

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn nothing_is_said_to_remain_of_a_budget() {
    let budget = RetryBudget { percent: 20.0, min_concurrency: 3, interval: None };
    let plain = Maxima { retries: 5, track_remaining: true, ..Maxima::default() };
    let budgeted = Maxima { retry_budget: Some(budget), ..plain };
    let (open, left) = (BreakerStats::detached(), RemainingStats::detached());
    let limits = Arc::new(Limits::counted_in(&budgeted, &open, Some(&left)));
    let permit = limits.reserve_retry(Instant::now());
    assert!(permit.is_some());
    assert!(left.remaining_retries().value() <= 0, "printed as 0");
    // A reload takes the budget away, and gives it back.
    limits.set_maxima(&plain);
    assert_eq!(left.remaining_retries().value(), 4);
    drop(permit);
    assert_eq!(left.remaining_retries().value(), 5);
    limits.set_maxima(&budgeted);
    assert_eq!(left.remaining_retries().value(), 0);
}
