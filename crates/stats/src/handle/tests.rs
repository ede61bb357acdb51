use std::sync::Barrier;

use crate::{DynScope, Scope, Store, set_worker, stat_block};

stat_block! {
    /// Docs of the kind.
    struct TestStats {
        counters { /// Docs of a counter.
                   total, nested = "a.b" }
        gauges { active, }
        histograms { time }
    }
}

stat_block! {
    struct OtherStats { counters { total } }
}

#[test]
fn reads_sum_over_shards() {
    let store = Store::new(4);
    let stats = TestStats::new(&store, Scope::cluster("a"));
    let barrier = Barrier::new(5);
    std::thread::scope(|s| {
        // Two threads on shard 0, and one beyond the store's shards: none of their increments is lost.
        for index in [0, 1, 2, 3, 9] {
            let (stats, barrier) = (&stats, &barrier);
            s.spawn(move || {
                set_worker(index);
                barrier.wait();
                for i in 0..10_000 {
                    stats.total().inc();
                    stats.nested().add(2);
                    stats.active().inc();
                    stats.time().record(i % 300);
                }
                stats.active().sub(10_000);
            });
        }
    });
    assert_eq!(stats.total().value(), 50_000);
    assert_eq!(stats.nested().value(), 100_000);
    assert_eq!(stats.active().value(), 0);
    assert_eq!(stats.time().count(), 50_000);
    store.flush();
    assert_eq!(stats.time().cumulative().count(), 50_000);
}

#[test]
fn a_gauge_may_fall_on_another_worker() {
    let stats = TestStats::new(&Store::new(3), Scope::root());
    std::thread::scope(|s| {
        s.spawn(|| (set_worker(1), stats.active().add(5)));
        s.spawn(|| (set_worker(2), stats.active().sub(3)));
    });
    assert_eq!(stats.active().value(), 2);
    let hold = stats.active().hold();
    assert_eq!(stats.active().value(), 3);
    drop(hold);
    stats.active().set(7);
    stats.active().set(1);
    assert_eq!(stats.active().value(), 3);
}

#[test]
fn a_rebuilt_scope_goes_on_and_a_dropped_one_vanishes() {
    let store = Store::new(1);
    let old = TestStats::new(&store, Scope::cluster("a"));
    old.total().inc();
    let new = TestStats::new(&store, Scope::cluster("a"));
    let other = OtherStats::new(&store, Scope::cluster("a"));
    assert_eq!(other.total().value(), 0);
    drop(old);
    new.total().inc();
    assert_eq!(new.total().value(), 2);
    assert_eq!(store.scopes(), 2);

    let owned = new.total().owned();
    drop(new);
    assert_eq!(store.scopes(), 2);
    drop(owned);
    assert_eq!(store.scopes(), 1);
    assert_eq!(TestStats::new(&store, Scope::cluster("a")).total().value(), 0);
}

#[test]
fn a_handle_may_outlive_the_store() {
    let store = Store::new(1);
    let stats = TestStats::new(&store, Scope::root());
    drop(store);
    stats.total().inc();
    assert_eq!(stats.total().value(), 1);
    assert_eq!(stats.scope(), &Scope::root());
    assert_eq!(TestStats::detached().total().value(), 0);
}

#[test]
fn reset_zeroes_counters_only() {
    let store = Store::new(1);
    let stats = TestStats::new(&store, Scope::root());
    let dynamic = DynScope::new(&store, Scope::root()).counter("d");
    stats.total().add(3);
    stats.active().inc();
    stats.time().record(1);
    dynamic.inc();
    store.reset_counters();
    assert_eq!((stats.total().value(), dynamic.value()), (0, 0));
    assert_eq!((stats.active().value(), stats.time().count()), (1, 1));
    stats.total().inc();
    assert_eq!(stats.total().value(), 1);
    store.reset_counters();
    assert_eq!(stats.total().value(), 0);
}

#[test]
fn flush_closes_the_interval() {
    let store = Store::new(1);
    let stats = TestStats::new(&store, Scope::root());
    stats.time().record(5);
    assert_eq!(stats.time().cumulative().count(), 0);
    store.flush();
    stats.time().record(9);
    store.flush();
    let (interval, cumulative) = (stats.time().interval(), stats.time().cumulative());
    assert_eq!((interval.count(), interval.quantile(0.5)), (1, Some(9.0)));
    assert_eq!((cumulative.count(), cumulative.sum()), (2, 14));
    store.flush();
    assert_eq!(stats.time().interval().count(), 0);
    assert_eq!(stats.time().cumulative().count(), 2);
}
