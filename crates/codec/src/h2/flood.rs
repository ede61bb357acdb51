//! Frames that cost us work and the peer nothing: counted, and the connection ends over a limit.
//!
//! The limits and their formulas are Envoy's (`Http2ProtocolOptions`). Our
//! *answers* that the peer does not take are counted by `output`.

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
}

impl FloodCount {
    pub(crate) fn new(limits: FloodLimits) -> Self {
        Self { limits, empty: 0, priority: 0, window_update: 0, data_sent: 0, streams: 0 }
    }

    /// A stream was opened, by either side.
    pub(crate) fn on_stream(&mut self) {
        self.streams += 1;
    }

    /// We sent a DATA frame.
    pub(crate) fn on_data_sent(&mut self) {
        self.data_sent += 1;
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
