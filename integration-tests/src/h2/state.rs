//! What one side knows of a connection: every frame that came, and what the frames make of the streams.

use std::collections::BTreeMap;

use tidegate_testkit::h2::hpack::Decoder;
use tidegate_testkit::h2::{Frame, code, flag, kind, setting};

use super::Message;
use crate::wire::End;

/// The window before any SETTINGS or WINDOW_UPDATE (RFC 9113 section 6.9.2).
const WINDOW: i64 = 65_535;

/// One connection, seen from one side.
#[derive(Debug)]
pub(super) struct State {
    /// Every frame that came, in order.
    pub(super) frames: Vec<Frame>,
    /// How the other side ended the connection.
    pub(super) end: End,
    /// What the other side did that cannot be read on from.
    pub(super) broken: Option<String>,
    pub(super) streams: BTreeMap<u32, Stream>,
    /// The most streams open at once.
    pub(super) most_streams: usize,
    /// What may still be sent on the connection.
    pub(super) window: i64,
    initial_window: i64,
    decoder: Decoder,
    block: Option<(Frame, Vec<u8>)>,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) message: Message,
    /// What may still be sent on it.
    pub(super) window: i64,
    sent_end: bool,
    sent_reset: bool,
}

impl Stream {
    pub(super) fn is_open(&self) -> bool {
        let over = self.sent_end && self.message.ended;
        !over && !self.sent_reset && self.message.reset.is_none()
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            frames: Vec::new(),
            end: End::Open,
            broken: None,
            streams: BTreeMap::new(),
            most_streams: 0,
            window: WINDOW,
            initial_window: WINDOW,
            decoder: Decoder::default(),
            block: None,
        }
    }
}

impl State {
    pub(super) fn stream(&mut self, id: u32) -> &mut Stream {
        let window = self.initial_window;
        let stream = || Stream { message: Message::default(), window, sent_end: false, sent_reset: false };
        self.streams.entry(id).or_insert_with(stream)
    }

    pub(super) fn open_streams(&self) -> usize {
        self.streams.values().filter(|stream| stream.is_open()).count()
    }

    /// Takes a frame that came; true when it began a stream.
    pub(super) fn receive(&mut self, frame: Frame) -> bool {
        let before = self.streams.len();
        match frame.kind {
            kind::HEADERS | kind::CONTINUATION => self.receive_block(&frame),
            kind::DATA => {
                let bytes = frame.content().unwrap_or_default().to_vec();
                let stream = self.stream(frame.stream);
                stream.message.body.extend(bytes);
                stream.message.ended |= frame.has(flag::END_STREAM);
            }
            kind::RST_STREAM => self.stream(frame.stream).message.reset = Some(frame.u32_at(0)),
            kind::SETTINGS => self.receive_settings(&frame),
            kind::WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(frame.u32_at(0)),
            kind::WINDOW_UPDATE => self.stream(frame.stream).window += i64::from(frame.u32_at(0)),
            _ => {}
        }
        self.frames.push(frame);
        self.most_streams = self.most_streams.max(self.open_streams());
        self.streams.len() > before
    }

    fn receive_block(&mut self, frame: &Frame) {
        let part = match frame.kind {
            kind::HEADERS => frame.content().unwrap_or_default(),
            _ => &frame.payload,
        };
        let (first, mut block) = self.block.take().unwrap_or_else(|| (frame.clone(), Vec::new()));
        block.extend_from_slice(part);
        if !frame.has(flag::END_HEADERS) {
            self.block = Some((first, block));
            return;
        }
        match self.decoder.decode(&block) {
            Ok(fields) => {
                let stream = self.stream(first.stream);
                stream.message.add_block(fields);
                stream.message.ended |= first.has(flag::END_STREAM);
            }
            Err(error) => self.broken = Some(format!("HPACK: {error}")),
        }
    }

    fn receive_settings(&mut self, frame: &Frame) {
        for (name, value) in frame.settings_values() {
            if name == setting::INITIAL_WINDOW_SIZE {
                let change = i64::from(value) - self.initial_window;
                self.initial_window = i64::from(value);
                self.streams.values_mut().for_each(|stream| stream.window += change);
            }
        }
    }

    /// Notes a frame that this side sends.
    pub(super) fn sent(&mut self, frame: &Frame) {
        match frame.kind {
            kind::HEADERS | kind::DATA if frame.stream != 0 => {
                let stream = self.stream(frame.stream);
                stream.sent_end |= frame.has(flag::END_STREAM);
                if frame.kind == kind::DATA {
                    stream.window -= frame.payload.len() as i64;
                    self.window -= frame.payload.len() as i64;
                }
            }
            kind::RST_STREAM if frame.stream != 0 => self.stream(frame.stream).sent_reset = true,
            _ => {}
        }
        self.most_streams = self.most_streams.max(self.open_streams());
    }

    /// The code of the last GOAWAY that came.
    pub(super) fn goaway(&self) -> Option<(u32, u32)> {
        let last = self.frames.iter().rev().find(|frame| frame.kind == kind::GOAWAY)?;
        Some((last.u32_at(0), last.u32_at(4)))
    }

    /// What a failed wait shows.
    pub(super) fn summary(&self) -> String {
        let name = |frame: &Frame| match frame.kind {
            kind::GOAWAY => format!("GOAWAY({}, {})", frame.u32_at(0), code_name(frame.u32_at(4))),
            kind::RST_STREAM => format!("RST_STREAM({}, {})", frame.stream, code_name(frame.u32_at(0))),
            kind::DATA => format!("DATA({}, {} B, {:#x})", frame.stream, frame.payload.len(), frame.flags),
            kind::HEADERS => format!("HEADERS({}, {:#x})", frame.stream, frame.flags),
            kind::SETTINGS => format!("SETTINGS({:?}, {:#x})", frame.settings_values(), frame.flags),
            kind::WINDOW_UPDATE => format!("WINDOW_UPDATE({}, {})", frame.stream, frame.u32_at(0)),
            other => format!("frame {other}({}, {:#x})", frame.stream, frame.flags),
        };
        let frames: Vec<String> = self.frames.iter().map(name).collect();
        format!("{:?}, {:?}, {}", self.end, self.broken, frames.join(" "))
    }
}

fn code_name(found: u32) -> String {
    let name = match found {
        code::NO_ERROR => "NO_ERROR",
        code::PROTOCOL_ERROR => "PROTOCOL_ERROR",
        code::INTERNAL_ERROR => "INTERNAL_ERROR",
        code::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
        code::STREAM_CLOSED => "STREAM_CLOSED",
        code::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
        code::REFUSED_STREAM => "REFUSED_STREAM",
        code::CANCEL => "CANCEL",
        code::COMPRESSION_ERROR => "COMPRESSION_ERROR",
        code::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
        _ => return format!("{found:#x}"),
    };
    name.to_owned()
}
