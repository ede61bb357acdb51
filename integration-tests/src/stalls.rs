//! When the machine did not run what was due: an excuse for what hangs on single milliseconds, and for no more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Watches until it is dropped: short sleeps, and how much longer they took.
#[derive(Debug)]
pub struct Stalls(Arc<Watch>);

#[derive(Debug, Default)]
struct Watch {
    over: AtomicBool,
    /// When each ended, and its length.
    seen: Mutex<Vec<(Instant, Duration)>>,
}

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(1);

impl Stalls {
    /// Begins to watch for stalls that are longer than `least`. One watcher for each processor, and one more.
    pub fn watch(least: Duration) -> Self {
        let watch = Arc::<Watch>::default();
        let watchers = 1 + std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..watchers {
            let watch = watch.clone();
            std::thread::spawn(move || {
                while !watch.over.load(Ordering::Relaxed) {
                    let since = Instant::now();
                    std::thread::sleep(PERIOD);
                    let took = since.elapsed().saturating_sub(PERIOD);
                    if took > least {
                        watch.seen.lock().unwrap().push((Instant::now(), took));
                    }
                }
            });
        }
        Self(watch)
    }

    /// Whether there was one between these times.
    pub fn between(&self, from: Instant, to: Instant) -> bool {
        // One that goes on is noticed at its end.
        std::thread::sleep(PERIOD * 4);
        self.0.seen.lock().unwrap().iter().any(|(end, took)| *end >= from && *end - *took <= to)
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.seen.lock().unwrap().len()
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}
