//! What was sent of a request's body, kept so that another attempt can send it again.

use http::HeaderMap;
use tidegate_cluster::stream::BodyFrame;
use tidegate_types::EndStream;

/// Bytes kept of a body that no retry policy asks to keep: enough to repeat a small request whose reused
/// connection turned out to be dead. Bounds the memory of a slow upload.
pub(super) const SMALL_BODY: usize = 64 * 1024;

/// The frames sent so far, or the knowledge that they are too many to keep.
#[derive(Debug)]
pub(super) struct Replay {
    frames: Vec<BodyFrame>,
    bytes: usize,
    limit: usize,
    complete: bool,
}

impl Replay {
    /// Keeps at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { frames: Vec::new(), bytes: 0, limit, complete: true }
    }

    /// Notes a frame that is about to be sent. Chunks are kept by reference.
    /// Returns whether this frame made the body too large to repeat.
    pub(super) fn push(&mut self, frame: &BodyFrame) -> bool {
        if !self.complete {
            return false;
        }
        self.bytes += frame_len(frame);
        if self.bytes > self.limit {
            self.complete = false;
            self.frames = Vec::new();
            return true;
        }
        self.frames.push(copy(frame));
        false
    }

    /// Whether everything sent so far can be sent again.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The frames sent so far.
    pub(super) fn frames(&self) -> impl Iterator<Item = BodyFrame> + '_ {
        self.frames.iter().map(copy)
    }

    /// The response has begun: nothing will be repeated.
    pub(super) fn stop(&mut self) {
        self.frames = Vec::new();
        self.complete = false;
    }
}

fn copy(frame: &BodyFrame) -> BodyFrame {
    match frame {
        BodyFrame::Data(data, end) => BodyFrame::Data(data.clone(), *end),
        BodyFrame::Trailers(trailers) => BodyFrame::Trailers(trailers.clone()),
    }
}

fn frame_len(frame: &BodyFrame) -> usize {
    match frame {
        BodyFrame::Data(data, EndStream::No | EndStream::Yes) => data.len(),
        BodyFrame::Trailers(trailers) => trailer_len(trailers),
    }
}

fn trailer_len(trailers: &HeaderMap) -> usize {
    trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_body_over_the_limit_is_forgotten_once() {
        let mut replay = Replay::new(8);
        let frame = |text: &'static str| BodyFrame::Data(Bytes::from_static(text.as_bytes()), EndStream::No);
        assert!(!replay.push(&frame("12345678")));
        assert!(replay.is_complete());
        assert_eq!(replay.frames().count(), 1);
        assert!(replay.push(&frame("9")));
        assert!(!replay.push(&frame("a")));
        assert!(!replay.is_complete());
        assert_eq!(replay.frames().count(), 0);
    }
}
