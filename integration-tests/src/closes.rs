//! What every close has to leave behind: one line at level debug and none above, and an end in time.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::proxy::{Options, Proxy};
use crate::wait;

/// How much later than a timer's due time a test on a loaded machine may see its effect. What the proxy itself
/// promises is 100 ms or 1 %; the times are printed to be looked at.
const LATE: Duration = Duration::from_secs(2);

/// How much sooner an end may be seen than its timer is due, as clocks are read on two sides.
const EARLY: Duration = Duration::from_millis(5);

/// A proxy with `-l debug`, and how long its log was before any connection came.
#[derive(Debug)]
pub struct Watched {
    /// The proxy.
    pub proxy: Proxy,
    begin: usize,
}

impl Watched {
    /// Starts it.
    ///
    /// # Panics
    /// With its log, when it does not become ready.
    #[track_caller]
    pub fn start(config: &Config) -> Self {
        let arguments = vec!["-l".to_owned(), "debug".to_owned()];
        let proxy = Options { arguments, ..Options::default() }.start(config);
        let begin = proxy.log().len();
        Self { proxy, begin }
    }

    /// What was logged since then.
    pub fn log(&self) -> String {
        self.proxy.log()[self.begin..].to_owned()
    }

    /// The lines of the closes of that `kind`, as the log calls it.
    pub fn lines(&self, kind: &str) -> Vec<String> {
        let kind = format!("kind=\"{kind}\"");
        self.log().lines().filter(|line| line.contains(&kind)).map(str::to_owned).collect()
    }

    /// Waits for the one line about the close of the one connection of that kind: at level debug, with all
    /// these parts. The milliseconds that the connection idled.
    ///
    /// # Panics
    /// When it is missing, not the only one, or differs; and when anything was logged above debug.
    #[track_caller]
    pub fn one_line(&self, kind: &str, parts: &[&str]) -> u64 {
        wait::until(&format!("a line about a {kind}"), || !self.lines(kind).is_empty());
        let lines = self.lines(kind);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        for part in ["[debug]", "peer=127.0.0.1:"].iter().chain(parts) {
            assert!(lines[0].contains(part), "no {part} in {}", lines[0]);
        }
        let log = self.log();
        let loud = |line: &&str| {
            ["info", "warning", "error", "critical"].iter().any(|level| line.contains(&format!("[{level}]")))
        };
        assert_eq!(log.lines().find(loud), None);
        let idle = lines[0].split("idle_ms=").nth(1).unwrap_or_else(|| panic!("no idle_ms in {}", lines[0]));
        idle.split(' ').next().unwrap().parse().unwrap()
    }

    /// A counter that is there by now or soon.
    ///
    /// # Panics
    /// When one of these counters or gauges does not come to its value.
    #[track_caller]
    pub fn counts(&self, expected: &[(&str, u64)]) {
        for (name, value) in expected {
            self.proxy.admin.await_stat(name, *value);
        }
    }
}

/// Prints when something that is due `due` after `since` was seen, and refuses what is out of all tolerance.
///
/// # Panics
/// When it was early, or far too late.
#[track_caller]
#[allow(clippy::print_stdout)]
pub fn in_time(what: &str, since: Instant, due: Duration) {
    let took = since.elapsed();
    println!("{what}: due after {due:?}, seen after {took:?}");
    assert!(took + EARLY >= due, "{what} is early: {took:?} of {due:?}");
    assert!(took < due + LATE, "{what} is late: {took:?} of {due:?}");
}
