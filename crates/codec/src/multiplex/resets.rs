//! Streams that a client gives up before their response, which cost us and not the client: counted, and the
//! connection ends over a limit. The limit and its formula are those of Envoy's connection manager.

use std::time::Duration;

use super::Flood;

/// How many of a connection's streams were given up before their response.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PrematureResets {
    closed: u32,
    premature: u32,
}

impl PrematureResets {
    /// A stream ended, however it did.
    pub(crate) fn on_closed(&mut self) {
        self.closed = self.closed.saturating_add(1);
    }

    /// The client reset a stream of this age that had no response.
    pub(crate) fn on_reset(&mut self, age: Duration) -> Result<(), Flood> {
        if age >= PREMATURE_AGE {
            return Ok(());
        }
        self.premature = self.premature.saturating_add(1);
        // Half of all; of the first ones as soon as it is certain.
        let bad = self.premature.saturating_mul(2) >= self.closed.max(PREMATURE_STREAMS);
        if bad { Err(Flood::PrematureResets) } else { Ok(()) }
    }
}

/// Envoy's `overload.premature_reset_total_stream_count`. Stops rapid resets.
const PREMATURE_STREAMS: u32 = 500;

/// Who waited so long gave up in earnest. Envoy's `overload.premature_reset_min_stream_lifetime_seconds` is 1 of whole
/// seconds, and one that has begun does not count.
const PREMATURE_AGE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_streams_may_be_given_up() {
        let mut resets = PrematureResets::default();
        for _ in 0..249 {
            assert_eq!(resets.on_reset(Duration::ZERO), Ok(()));
            assert_eq!(resets.on_reset(Duration::from_secs(2)), Ok(()));
        }
        let mut many = resets;
        assert_eq!(resets.on_reset(Duration::ZERO), Err(Flood::PrematureResets));
        for _ in 0..1000 {
            many.on_closed();
        }
        assert_eq!(many.on_reset(Duration::ZERO), Ok(()));
    }
}
