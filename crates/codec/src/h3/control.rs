//! The streams beside the requests: our control stream, and the peer's control, encoder and decoder streams (RFC 9114
//! §6.2, RFC 9204 §4.2). We open no encoder stream, which would have nothing to say; our decoder stream is
//! [`super::sections`]' matter.

use bytes::{Buf, Bytes, BytesMut};
use tidegate_quic::{Dir, ReadError, StreamId, WriteError};

use super::codes::{
    self, CLIENT_PUSHED, FLOOD, Fault, GOAWAY_GREW, GOAWAY_STREAM, HTTP2_FRAME, Handled, NO_SETTINGS,
    PUSH_ID_SHRANK, PUSHED, SECOND_SETTINGS,
};
use super::conn::{Core, Role, varint as code};
use super::frames::{self, FrameHead, is_http2, kind, stream_type, varint};
use super::options::Options;
use super::settings::{PeerSettings, write_greeting};
use crate::multiplex::AltSvc;
use crate::qpack::instructions::{self, Partial};

/// Our control stream.
pub(crate) struct Control {
    id: Option<StreamId>,
    /// What the transport has not taken.
    queue: BytesMut,
}

/// The peer's streams.
#[derive(Default)]
pub(crate) struct PeerStreams {
    open: Vec<Uni>,
    has_control: bool,
    has_encoder: bool,
    has_decoder: bool,
    max_push_id: Option<u64>,
}

/// One of them.
struct Uni {
    id: StreamId,
    kind: Kind,
}

enum Kind {
    /// Its type has not come to its end.
    Unknown(BytesMut),
    Control(Box<Frames>),
    Encoder,
    Decoder(Partial),
}

impl PeerStreams {
    /// Gives back the room for more of them.
    pub(crate) fn shrink(&mut self) {
        self.open.shrink_to_fit();
    }
}

/// Frames of the control stream.
#[derive(Default)]
struct Frames {
    part: Part,
    partial: BytesMut,
}

#[derive(Clone, Copy, Default)]
enum Part {
    #[default]
    Between,
    /// A frame that is read whole: its kind, and the bytes that are missing.
    Payload(u64, usize),
    Skip(u64),
}

impl Control {
    pub(crate) fn new(role: Role, options: &Options) -> Self {
        let mut queue = BytesMut::new();
        write_greeting(&mut queue, role, options);
        Self { id: None, queue }
    }

    /// Gives back the room of what the transport has taken.
    pub(crate) fn shrink(&mut self) {
        if self.queue.is_empty() {
            self.queue = BytesMut::new();
        }
    }

    pub(crate) fn is_ours(&self, id: StreamId) -> bool {
        self.id == Some(id)
    }
}

impl Core {
    /// Puts GOAWAY (RFC 9114 §7.2.6).
    pub(crate) fn put_goaway(&mut self, id: u64) {
        frames::put_number(&mut self.control.queue, kind::GOAWAY, id);
        self.wake();
    }

    /// Gives what stands to be said to the transport.
    pub(crate) fn write_control(&mut self) {
        if self.control.queue.is_empty() || self.facts.lost {
            return;
        }
        if self.control.id.is_none() {
            self.control.id = self.quic.open(Dir::Uni);
        }
        let Some(id) = self.control.id else { return };
        let mut chunks = [self.control.queue.split().freeze()];
        match self.quic.write(id, &mut chunks) {
            Ok(_) | Err(WriteError::Blocked) => {
                let [rest] = chunks;
                self.control.queue.extend_from_slice(&rest);
            }
            // The end of the connection tells more.
            Err(WriteError::Stopped(_) | WriteError::Closed) => {}
        }
    }

    /// The peer's new unidirectional streams.
    pub(crate) fn accept_uni(&mut self) -> Handled {
        while let Some(id) = self.quic.accept(Dir::Uni) {
            self.rx.uni.open.push(Uni { id, kind: Kind::Unknown(BytesMut::new()) });
            self.read_uni(id)?;
        }
        Ok(())
    }

    /// Reads what came in one of them.
    pub(crate) fn read_uni(&mut self, id: StreamId) -> Handled {
        while let Some(at) = self.rx.uni.open.iter().position(|uni| uni.id == id) {
            match self.quic.read(id, MAX_READ) {
                Ok(Some(bytes)) => self.take_uni(at, bytes)?,
                Err(ReadError::Blocked) => return Ok(()),
                Ok(None) => return self.lose_uni(at, "FIN received for receive critical stream"),
                Err(ReadError::Reset(_) | ReadError::Closed) => {
                    return self.lose_uni(at, "RESET_STREAM received for receive control stream");
                }
            }
        }
        Ok(())
    }

    /// Those that we know MUST NOT end (RFC 9114 §6.2.1, RFC 9204 §4.2).
    fn lose_uni(&mut self, at: usize, text: &'static str) -> Handled {
        match self.rx.uni.open.swap_remove(at).kind {
            Kind::Unknown(_) => Ok(()),
            Kind::Control(_) | Kind::Encoder | Kind::Decoder(_) => Err(Fault::critical(text)),
        }
    }

    fn take_uni(&mut self, at: usize, mut bytes: Bytes) -> Handled {
        let Some(uni) = self.rx.uni.open.get_mut(at) else { return Ok(()) };
        if let Kind::Unknown(partial) = &mut uni.kind {
            partial.extend_from_slice(&bytes);
            let Some((stream_type, len)) = varint(partial) else { return Ok(()) };
            bytes = std::mem::take(partial).freeze();
            bytes.advance(len);
            if !self.name_uni(at, stream_type)? {
                return Ok(());
            }
        }
        let Some(uni) = self.rx.uni.open.get_mut(at) else { return Ok(()) };
        match &mut uni.kind {
            Kind::Unknown(_) => Ok(()),
            Kind::Encoder => self.handle_instructions(&bytes),
            Kind::Decoder(partial) => partial.decoder(&bytes).map_err(decoder_fault),
            Kind::Control(frames) => {
                let mut frames = std::mem::take(&mut **frames);
                let handled = self.take_frames(&mut frames, bytes);
                if let Some(Uni { kind: Kind::Control(place), .. }) = self.rx.uni.open.get_mut(at) {
                    **place = frames;
                }
                handled
            }
        }
    }

    /// A stream says what it is: whether it is to be read on.
    fn name_uni(&mut self, at: usize, stream_type: u64) -> Handled<bool> {
        let streams = &mut self.rx.uni;
        let Some(uni) = streams.open.get_mut(at) else { return Ok(false) };
        match stream_type {
            stream_type::CONTROL => {
                if std::mem::replace(&mut streams.has_control, true) {
                    return Err(Fault::duplicate("Control stream is received twice."));
                }
                uni.kind = Kind::Control(Box::default());
            }
            stream_type::ENCODER => {
                if std::mem::replace(&mut streams.has_encoder, true) {
                    return Err(Fault::duplicate("QPACK encoder stream is received twice."));
                }
                uni.kind = Kind::Encoder;
            }
            stream_type::DECODER => {
                if std::mem::replace(&mut streams.has_decoder, true) {
                    return Err(Fault::duplicate("QPACK decoder stream is received twice."));
                }
                uni.kind = Kind::Decoder(Partial::default());
            }
            stream_type::PUSH if self.side.role() == Role::Server => return Err(CLIENT_PUSHED),
            stream_type::PUSH => return Err(PUSHED),
            _ => {
                // RFC 9114 §6.2.
                let id = streams.open.swap_remove(at).id;
                self.quic.stop(id, code(codes::STREAM_CREATION_ERROR));
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take_frames(&mut self, frames: &mut Frames, mut bytes: Bytes) -> Handled {
        while !bytes.is_empty() {
            match frames.part {
                Part::Between => {
                    if let Some(head) = FrameHead::take(&mut frames.partial, &mut bytes) {
                        frames.part = self.begin_control(head)?;
                        if let Part::Payload(kind, 0) = frames.part {
                            frames.part = Part::Between;
                            self.handle_control(kind, &[])?;
                        }
                    }
                }
                Part::Payload(kind, left) => {
                    let now = left.min(bytes.len());
                    frames.partial.extend_from_slice(&bytes.split_to(now));
                    frames.part = Part::Payload(kind, left - now);
                    if left == now {
                        frames.part = Part::Between;
                        let payload = std::mem::take(&mut frames.partial);
                        self.handle_control(kind, &payload)?;
                    }
                }
                Part::Skip(left) => {
                    let now = left.min(bytes.len() as u64);
                    bytes.advance(now as usize);
                    frames.part = if left == now { Part::Between } else { Part::Skip(left - now) };
                }
            }
        }
        Ok(())
    }

    /// Whether a frame may come now on the control stream, and what is to be done with it (RFC 9114 §7.2).
    fn begin_control(&mut self, head: FrameHead) -> Handled<Part> {
        let refused = Fault::on_control("Invalid frame type {} received on control stream.").about(head.kind);
        if matches!(head.kind, kind::DATA | kind::HEADERS) {
            return Err(refused);
        }
        if !self.peer.known && head.kind != kind::SETTINGS {
            return Err(NO_SETTINGS.about(head.kind));
        }
        let is_server = self.side.role() == Role::Server;
        let longest = match head.kind {
            kind::SETTINGS if self.peer.known => return Err(SECOND_SETTINGS),
            kind::SETTINGS => MAX_SETTINGS,
            kind::PUSH_PROMISE => return Err(Fault::frame("PUSH_PROMISE frame received.")),
            kind::CANCEL_PUSH if is_server => return Err(Fault::frame("CANCEL_PUSH frame received.")),
            kind::CANCEL_PUSH => return Err(PUSHED),
            kind::MAX_PUSH_ID if !is_server => return Err(refused),
            kind::GOAWAY | kind::MAX_PUSH_ID => 8,
            kind::ALTSVC if !is_server && (1..=MAX_ALTSVC).contains(&head.len) => MAX_ALTSVC as usize,
            other if is_http2(other) => return Err(HTTP2_FRAME.about(other)),
            // RFC 9114 §9.
            _ if head.len == 0 => return Ok(Part::Between),
            _ => return Ok(Part::Skip(head.len)),
        };
        match (usize::try_from(head.len), head.kind) {
            (Ok(len), _) if len <= longest => Ok(Part::Payload(head.kind, len)),
            (_, kind::SETTINGS) => Err(FLOOD),
            (_, kind::GOAWAY) => Err(Fault::frame("Superfluous data in GOAWAY frame.")),
            _ => Err(Fault::frame("Superfluous data in MAX_PUSH_ID frame.")),
        }
    }

    fn handle_control(&mut self, kind: u64, payload: &[u8]) -> Handled {
        match kind {
            kind::SETTINGS => {
                self.peer = PeerSettings::parse(payload)?;
                Ok(())
            }
            kind::ALTSVC => {
                if let Some(said) = AltSvc::parse(payload, false) {
                    said.keep(&mut self.facts.alt_svc);
                }
                Ok(())
            }
            kind::GOAWAY => {
                let id = number(payload, "Unable to read GOAWAY ID.", "Superfluous data in GOAWAY frame.")?;
                self.handle_goaway(id)
            }
            kind::MAX_PUSH_ID => {
                let id = number(
                    payload,
                    "Unable to read MAX_PUSH_ID push_id.",
                    "Superfluous data in MAX_PUSH_ID frame.",
                )?;
                if self.rx.uni.max_push_id.is_some_and(|before| id < before) {
                    return Err(PUSH_ID_SHRANK);
                }
                self.rx.uni.max_push_id = Some(id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// RFC 9114 §5.2.
    fn handle_goaway(&mut self, id: u64) -> Handled {
        if let Some(before) = self.facts.goaway.filter(|before| id > *before) {
            return Err(GOAWAY_GREW.more(id, before));
        }
        if self.side.role() == Role::Client && !id.is_multiple_of(4) {
            return Err(GOAWAY_STREAM);
        }
        self.facts.goaway = Some(id);
        self.facts.goaway_came = true;
        if self.side.role() == Role::Client {
            self.refuse_from(id);
        }
        Ok(())
    }
}

/// A payload of one integer.
fn number(payload: &[u8], cut: &'static str, long: &'static str) -> Handled<u64> {
    match varint(payload) {
        Some((value, len)) if len == payload.len() => Ok(value),
        Some(_) => Err(Fault::frame(long)),
        None => Err(Fault::frame(cut)),
    }
}

fn decoder_fault(error: instructions::Error) -> Fault {
    match error {
        instructions::Error::NoIncrement => {
            codes::decoder_stream(187, "Decoder stream error: Invalid increment value 0.")
        }
        instructions::Error::Increment(by) => codes::decoder_stream(
            189,
            "Decoder stream error: Increment value {} raises known received count to {} exceeding inserted entry count 0",
        )
        .about(by as u64),
        instructions::Error::Acknowledgement(stream) => codes::decoder_stream(
            190,
            "Decoder stream error: Header Acknowledgement received for stream {} with no outstanding header blocks.",
        )
        .about(stream as u64),
        _ => codes::decoder_stream(186, "Decoder stream error: Encoded integer too large."),
    }
}

/// Bytes that one read takes.
const MAX_READ: usize = 16 * 1024;

/// Bytes of an ALTSVC frame; a longer one is passed over. As many as HTTP/2's.
const MAX_ALTSVC: u64 = 16 * 1024;

/// Bytes of SETTINGS. Stops a peer that has us keep megabytes of them.
const MAX_SETTINGS: usize = 16 * 1024;
