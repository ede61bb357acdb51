//! The system's monotonic clock as a number, which other processes see, too: std's instants have none.

/// Seconds of `CLOCK_MONOTONIC`: since the system started, mostly.
#[allow(unsafe_code)]
pub fn monotonic_seconds() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `time`, which is valid for writes, and nowhere else.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    // It cannot fail with this clock on Linux.
    if result == 0 { u64::try_from(time.tv_sec).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_near_what_the_system_says() {
        let Ok(text) = std::fs::read_to_string("/proc/uptime") else { return };
        let uptime = text.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok()).unwrap_or(0);
        // It stands still while the system sleeps.
        assert!(monotonic_seconds() <= uptime + 1);
        assert!(monotonic_seconds() > 0);
    }
}
