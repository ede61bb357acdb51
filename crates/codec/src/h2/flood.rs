//! Frames that cost us work and the peer nothing: counted, and the connection ends over a limit.
//!
//! The limits and their formulas are Envoy's (`Http2ProtocolOptions`). Our
//! *answers* that the peer does not take are counted by `output`.

use std::time::Duration;

use tokio::time::Instant;

use super::frames::{END_STREAM, FrameHead, kind};
use super::options::FloodLimits;
use crate::multiplex::Flood;

/// What was counted on one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FloodCount {
    limits: FloodLimits,
    empty: u32,
    priority: u64,
    window_update: u64,
    data_sent: u64,
    streams: u64,
    resets: Resets,
}

/// RST_STREAM frames that the client may still send: tokens of a bucket that is looked at once a second, as
/// Envoy's codec does.
#[derive(Clone, Copy, Debug)]
struct Resets {
    left: u64,
    /// The second in which `left` was last refilled, and the first.
    at: Option<Instant>,
    exceeded: bool,
}

impl FloodCount {
    pub(crate) fn new(limits: FloodLimits) -> Self {
        let resets = Resets { left: limits.stream_reset_burst, at: None, exceeded: false };
        Self { limits, empty: 0, priority: 0, window_update: 0, data_sent: 0, streams: 0, resets }
    }

    /// A stream was opened, by either side.
    pub(crate) fn on_stream(&mut self) {
        self.streams += 1;
    }

    /// We sent a DATA frame.
    pub(crate) fn on_data_sent(&mut self) {
        self.data_sent += 1;
    }

    /// A client's RST_STREAM came.
    pub(crate) fn on_reset(&mut self, now: Instant) {
        let since = *self.resets.at.get_or_insert(now);
        let seconds = now.saturating_duration_since(since).as_secs();
        if seconds > 0 {
            let more = self.limits.stream_reset_rate.saturating_mul(seconds);
            self.resets.left = self.resets.left.saturating_add(more).min(self.limits.stream_reset_burst);
            self.resets.at = since.checked_add(Duration::from_secs(seconds));
        }
        match self.resets.left.checked_sub(1) {
            Some(left) => self.resets.left = left,
            None => self.resets.exceeded = true,
        }
    }

    /// Whether more of them came than may.
    pub(crate) fn resets_exceeded(&self) -> bool {
        self.resets.exceeded
    }

    /// A frame came.
    pub(crate) fn on_frame(&mut self, frame: FrameHead) -> Result<(), Flood> {
        match frame.kind {
            kind::DATA | kind::HEADERS | kind::CONTINUATION => {
                // An end of stream says something, however empty.
                if frame.len > 0 || frame.flags & END_STREAM != 0 && frame.kind != kind::CONTINUATION {
                    self.empty = 0;
                    return Ok(());
                }
                self.empty += 1;
                let fits = self.empty <= self.limits.max_consecutive_inbound_frames_with_empty_payload;
                if fits { Ok(()) } else { Err(Flood::EmptyFrames) }
            }
            kind::PRIORITY => {
                self.priority += 1;
                let limit = u64::from(self.limits.max_inbound_priority_frames_per_stream);
                let fits = self.priority <= limit.saturating_mul(1 + self.streams);
                if fits { Ok(()) } else { Err(Flood::Priority) }
            }
            kind::WINDOW_UPDATE => {
                self.window_update += 1;
                let each = u64::from(self.limits.max_inbound_window_update_frames_per_data_frame_sent);
                let useful = self.streams.saturating_add(each.saturating_mul(self.data_sent));
                let fits = self.window_update <= useful.saturating_mul(2).saturating_add(5);
                if fits { Ok(()) } else { Err(Flood::WindowUpdate) }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, len: usize) -> FrameHead {
        FrameHead { kind, flags, stream: 1, len }
    }

    #[test]
    fn empty_frames_count_only_in_a_row_and_without_an_end() {
        let mut count = FloodCount::new(FloodLimits::default());
        for _ in 0..10 {
            assert_eq!(count.on_frame(frame(kind::DATA, 0, 0)), Ok(()));
            assert_eq!(count.on_frame(frame(kind::DATA, END_STREAM, 0)), Ok(()));
        }
        assert_eq!(count.on_frame(frame(kind::DATA, 0, 0)), Ok(()));
        assert_eq!(count.on_frame(frame(kind::CONTINUATION, 0, 0)), Err(Flood::EmptyFrames));
    }

    #[test]
    fn resets_are_allowed_at_once_and_by_the_second() {
        let limits = FloodLimits { stream_reset_burst: 3, stream_reset_rate: 2, ..FloodLimits::default() };
        let mut count = FloodCount::new(limits);
        let start = Instant::now();
        let mut taken = |millis| {
            for taken in 0.. {
                let mut next = count;
                next.on_reset(start + Duration::from_millis(millis));
                if next.resets_exceeded() {
                    return taken;
                }
                count = next;
            }
            u32::MAX
        };
        assert_eq!((taken(0), taken(999)), (3, 0));
        assert_eq!((taken(1000), taken(1900)), (2, 0));
        // Never more than at once.
        assert_eq!(taken(60_000), 3);
    }

    #[test]
    fn priorities_and_window_updates_are_allowed_by_what_they_serve() {
        let mut count = FloodCount::new(FloodLimits::default());
        for _ in 0..100 {
            assert_eq!(count.on_frame(frame(kind::PRIORITY, 0, 5)), Ok(()));
        }
        assert_eq!(count.on_frame(frame(kind::PRIORITY, 0, 5)), Err(Flood::Priority));
        count.on_stream();
        count.on_data_sent();
        // 5 + 2 * (1 stream + 10 * 1 frame)
        for _ in 0..27 {
            assert_eq!(count.on_frame(frame(kind::WINDOW_UPDATE, 0, 4)), Ok(()));
        }
        assert_eq!(count.on_frame(frame(kind::WINDOW_UPDATE, 0, 4)), Err(Flood::WindowUpdate));
    }
}
