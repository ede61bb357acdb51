//! What the criterion benches share: configurations, heads, connections in memory and a proxy on top of them.
//!
//! Each file of `benches/` measures one step of the data path with public APIs only. Everything runs on one
//! thread numbered as a worker, with the standard binary's allocator, so that a number here is what a worker
//! pays. Nothing is asserted about time, and no sockets are used except where a bench says so: load tests are
//! `cargo xtask bench`.
//!
//! Start from [`run`], which a bench's `main` calls. A fixture that cannot be built panics: there is nobody
//! to protect here.
#![allow(clippy::expect_used, clippy::panic)]

pub mod document;
pub mod downstream;
pub mod memory;
pub mod messages;

use std::time::Duration;

use criterion::Criterion;
use mimalloc::MiMalloc;
use tokio::runtime::{Builder, LocalRuntime};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The stat shard that a bench's thread writes: worker 0's, which has a single writer.
pub const WORKER: usize = 1;

/// Runs the benches of one file on this thread. Options are criterion's; without `--bench`, as under
/// `cargo test --benches`, each runs once.
pub fn run(benches: &[fn(&mut Criterion)]) {
    tidegate_stats::set_worker(WORKER);
    // Small samples: all files together stay under two minutes, at 1 to 2 % of noise on a quiet machine.
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(700))
        .configure_from_args();
    for bench in benches {
        bench(&mut criterion);
    }
    criterion.final_summary();
}

/// A runtime as each worker has one.
pub fn runtime() -> LocalRuntime {
    Builder::new_current_thread().enable_all().build_local(Default::default()).expect("a runtime")
}
