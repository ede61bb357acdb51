//! One write of a statistic: by a worker, to its own shard, and by the main thread, whose shard is shared.

use std::hint::black_box;

use criterion::Criterion;
use tidegate_benches::WORKER;
use tidegate_stats::{CodeCounters, Scope, Store, set_worker, stat_block};

stat_block! {
    /// A few of a cluster's statistics.
    struct BenchStats {
        counters { rq_total, rq_error }
        gauges { rq_active }
        histograms { rq_time }
    }
}

fn main() {
    tidegate_benches::run(&[by_worker, by_main_thread]);
}

fn by_worker(criterion: &mut Criterion) {
    let store = Store::new(2);
    let stats = BenchStats::new(&store, Scope::cluster("bench"));
    let codes = CodeCounters::new(&store, Scope::cluster("bench"));
    let mut group = criterion.benchmark_group("stats/worker");
    group.bench_function("counter_inc", |b| b.iter(|| black_box(&stats).rq_total().inc()));
    let owned = stats.rq_error().owned();
    group.bench_function("owned_counter_inc", |b| b.iter(|| black_box(&owned).inc()));
    group.bench_function("gauge_inc_dec", |b| {
        b.iter(|| {
            black_box(&stats).rq_active().inc();
            black_box(&stats).rq_active().dec();
        });
    });
    // Latencies in ms from 0 to 511, in no helpful order: three chunks of the histogram.
    let mut value = 0_u64;
    group.bench_function("histogram_record", |b| {
        b.iter(|| {
            value = (value + 197) % 512;
            black_box(&stats).rq_time().record(value);
        });
    });
    group.bench_function("response_code", |b| b.iter(|| black_box(&codes).record(200)));
}

fn by_main_thread(criterion: &mut Criterion) {
    set_worker(0);
    let store = Store::new(2);
    let stats = BenchStats::new(&store, Scope::cluster("bench"));
    let mut group = criterion.benchmark_group("stats/main_thread");
    group.bench_function("counter_inc", |b| b.iter(|| black_box(&stats).rq_total().inc()));
    group.finish();
    set_worker(WORKER);
}
