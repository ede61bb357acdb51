//! Waiting: polls with a deadline, never a sleep that hopes to be long enough.

use std::time::{Duration, Instant};

/// How long anything may take on a machine that is busy with the other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(5);

/// Waits until `look` finds something.
///
/// # Panics
/// After [`PATIENCE`], with `what`.
#[track_caller]
pub fn until_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(PERIOD);
    }
}

/// Waits until `look` is true.
///
/// # Panics
/// After [`PATIENCE`], with `what`.
#[track_caller]
pub fn until(what: &str, mut look: impl FnMut() -> bool) {
    until_some(what, || look().then_some(()));
}
