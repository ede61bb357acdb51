//! A progress bar on stderr: redrawn in place on a terminal, a line a step elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Counts steps and shows where the run stands.
pub(super) struct Progress {
    done: usize,
    total: usize,
    started: Instant,
    is_terminal: bool,
}

impl Progress {
    /// A bar for `total` steps.
    pub(super) fn new(total: usize) -> Self {
        Self { done: 0, total, started: Instant::now(), is_terminal: std::io::stderr().is_terminal() }
    }

    /// Says which step begins now.
    pub(super) fn step(&mut self, what: &str) {
        let line = bar(self.done, self.total, self.started.elapsed().as_secs());
        self.done += 1;
        if self.is_terminal {
            eprint!("\r\x1b[K{line} {what}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("[{}/{}] {what}", self.done, self.total);
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}

/// `[####......] 4/10, 12 s left`; the rest is guessed from the steps so far.
fn bar(done: usize, total: usize, elapsed: u64) -> String {
    const WIDTH: usize = 24;
    let filled = WIDTH * done / total.max(1);
    let left = match done {
        0 => String::new(),
        done => format!(", {} s left", elapsed * (total - done) as u64 / done as u64),
    };
    format!("[{}{}] {done}/{total}{left}", "#".repeat(filled), ".".repeat(WIDTH - filled))
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn a_bar_fills() {
        assert_eq!(bar(0, 4, 0), format!("[{}] 0/4", ".".repeat(24)));
        assert_eq!(bar(2, 4, 10), format!("[{}{}] 2/4, 10 s left", "#".repeat(12), ".".repeat(12)));
    }
}
