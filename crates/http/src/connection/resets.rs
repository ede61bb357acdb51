//! How many of a connection's streams the client reset before they had a response: one that does little else is
//! there to make work (rapid reset, CVE-2023-44487).

use std::cell::Cell;
use std::time::Duration;

/// See the module. The numbers are Envoy's defaults (`overload.premature_reset_total_stream_count`,
/// `overload.premature_reset_min_stream_lifetime_seconds`).
#[derive(Debug, Default)]
pub(crate) struct Resets {
    ended: Cell<u32>,
    premature: Cell<u32>,
}

/// Streams of which half may be reset early. Before there were as many the half of this number is the limit.
const STREAMS: u32 = 500;
/// A stream that lived as long as this was not begun only to be reset.
const LIFE: Duration = Duration::from_secs(2);

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnded {
    /// The client reset it before a response began.
    Unanswered,
    /// In any other way.
    Otherwise,
}

impl Resets {
    /// A stream ended that had lived for so long.
    pub(crate) fn note(&self, how: StreamEnded, life: Duration) {
        self.ended.set(self.ended.get().saturating_add(1));
        if how == StreamEnded::Unanswered && life < LIFE {
            self.premature.set(self.premature.get().saturating_add(1));
        }
    }

    /// Whether half of the streams were reset early, or will have been whatever comes.
    pub(super) fn is_too_much(&self) -> bool {
        self.premature.get().saturating_mul(2) >= self.ended.get().max(STREAMS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_streams_is_too_much() {
        let resets = Resets::default();
        let note = |how, count: u32| (0..count).for_each(|_| resets.note(how, Duration::ZERO));
        note(StreamEnded::Unanswered, 249);
        assert!(!resets.is_too_much());
        resets.note(StreamEnded::Unanswered, LIFE);
        assert!(!resets.is_too_much(), "one that waited is no attack");
        note(StreamEnded::Unanswered, 1);
        assert!(resets.is_too_much());
        note(StreamEnded::Otherwise, 250);
        assert!(!resets.is_too_much());
        note(StreamEnded::Unanswered, 1);
        assert!(resets.is_too_much());
    }
}
