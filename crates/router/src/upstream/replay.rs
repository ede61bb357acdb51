//! What was sent of a request's body, kept so that another attempt can send it again.

use http::HeaderMap;
use tidegate_cluster::stream::BodyFrame;
use tidegate_types::EndStream;

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
    pub(super) fn push(&mut self, frame: &BodyFrame) {
        self.bytes = self.bytes.saturating_add(frame_len(frame));
        if self.bytes > self.limit {
            self.complete = false;
            self.frames = Vec::new();
        }
        if self.complete {
            self.frames.push(copy(frame));
        }
    }

    /// Bytes sent so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything sent so far is kept and no more than `limit` bytes.
    pub(super) fn fits(&self, limit: usize) -> bool {
        self.complete && self.bytes <= limit
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
        replay.push(&frame("12345678"));
        assert!(replay.fits(8) && !replay.fits(7));
        assert_eq!(replay.frames().count(), 1);
        replay.push(&frame("9"));
        replay.push(&frame("a"));
        assert!(!replay.fits(100));
        assert_eq!((replay.frames().count(), replay.bytes()), (0, 10));
    }
}
