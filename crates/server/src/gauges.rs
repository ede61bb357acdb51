//! Gauges of the process that somebody has to compute: at start and at each stats flush.

use crate::certificates;
use crate::control::Control;

/// The process serves.
pub(crate) fn started(control: &Control) {
    let server = &control.stats.server;
    server.concurrency().set(control.options.workers() as i64);
    server.hot_restart_generation().set(1);
    server.hot_restart_epoch().set(0);
    server.initialization_time_ms().record(elapsed_ms(control));
    control.stats.listeners.workers_started().set(1);
    certificates::show_expiry(control);
    update(control);
}

/// Every `stats_flush_interval` (5 s): closes the histograms' interval.
pub(crate) fn flush(control: &Control) {
    update(control);
    certificates::show_expiry(control);
    control.store.flush();
}

/// The gauges that change by themselves.
pub(crate) fn update(control: &Control) {
    let server = &control.stats.server;
    server.uptime().set(control.started.elapsed().as_secs() as i64);
    server.total_connections().set(i64::try_from(control.limit.active()).unwrap_or(i64::MAX));
    let memory = Memory::now();
    server.memory_allocated().set(memory.private as i64);
    server.memory_heap_size().set(memory.private as i64);
    server.memory_physical_size().set(memory.resident as i64);
}

fn elapsed_ms(control: &Control) -> u64 {
    u64::try_from(control.started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The process's memory in bytes, as the kernel sees it: allocators differ in what they tell.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident pages.
    pub(crate) resident: u64,
    /// Resident pages that no file backs: heap and stacks.
    pub(crate) private: u64,
}

impl Memory {
    /// Reads `/proc/self/status`; zeros where there is none.
    pub(crate) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
        };
        Self { resident: field("VmRSS:").unwrap_or(0), private: field("RssAnon:").unwrap_or(0) }
    }
}
