//! Whether HTTP/3 works to an origin, as far as was seen: [`Http3Status`].
//!
//! Envoy docs, "HTTP/3 upstream: fail-over to TCP": an origin whose QUIC handshakes fail while TCP works is *broken*
//! for a time that doubles with each failure in a row; what comes afterwards is tried with TCP at its side. No I/O, no
//! clock: the caller tells the time.

use std::time::Duration;

use tokio::time::Instant;

/// How long the first failure counts.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// So often is it doubled at most: 36 hours.
const MOST_DOUBLINGS: u32 = 17;

/// What is known of HTTP/3 to an origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    #[default]
    Nothing,
    /// The last handshake succeeded.
    Confirmed,
    /// It was broken: TCP is tried beside it at once.
    FailedRecently,
    /// Not to be tried now.
    Broken,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Http3Status {
    known: Known,
    /// Until when it is broken.
    until: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

impl Http3Status {
    /// What is known now.
    pub fn known(&mut self, now: Instant) -> Known {
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
            // Broken => FailedRecently
            self.known = Known::FailedRecently;
        }
        self.known
    }

    /// Until when it is broken, if it is.
    pub fn broken_until(&mut self, now: Instant) -> Option<Instant> {
        self.known(now);
        self.until
    }

    /// Its handshake failed, TCP's did not. Failures while it is broken are of attempts made before: they do not
    /// prolong it.
    pub fn failed(&mut self, now: Instant) {
        if self.known(now) == Known::Broken {
            return;
        }
        self.known = Known::Broken;
        self.until = Some(now + FIRST_PAUSE * 2u32.pow(self.failures));
        self.failures = (self.failures + 1).min(MOST_DOUBLINGS);
    }

    /// A handshake was completed.
    pub fn succeeded(&mut self) {
        *self = Self { known: Known::Confirmed, ..Self::default() };
    }

    /// The network is another one: what was seen before says nothing.
    pub fn network_changed(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_in_a_row_counts_twice_as_long() {
        let mut now = Instant::now();
        let mut status = Http3Status::default();
        assert_eq!(status.known(now), Known::Nothing);
        for doublings in 0..20 {
            status.failed(now);
            // Of an attempt made before.
            status.failed(now);
            assert_eq!(status.known(now), Known::Broken);
            let pause = Duration::from_secs(1 << doublings.min(17));
            assert_eq!(status.broken_until(now), Some(now + pause));
            now += pause;
            assert_eq!(status.known(now), Known::FailedRecently);
            assert_eq!(status.broken_until(now), None);
        }
    }

    #[test]
    fn a_success_or_another_network_clears_it() {
        let now = Instant::now();
        let mut status = Http3Status::default();
        status.failed(now);
        status.succeeded();
        assert_eq!(status.known(now), Known::Confirmed);
        status.failed(now);
        assert_eq!(status.broken_until(now), Some(now + FIRST_PAUSE));
        status.network_changed();
        assert_eq!(status.known(now), Known::Nothing);
        status.failed(now);
        assert_eq!(status.broken_until(now), Some(now + FIRST_PAUSE));
    }
}
