//! A connection's bytes: an [`Io`](tidegate_net::Io) as the library wants it, with reads and writes in batches,
//! an eye on the frames that pass, and a way to put frames of our own between the library's.
//!
//! The library flushes after every large DATA frame; here a flush is deferred to [`Wire::poll_flush`], which
//! the connection calls when the library has nothing more to do: one `send` for the frames of all streams.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use h2::Reason;
use tidegate_net::BoxIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::blocks::{self, BLOCK};
use super::events::{Event, Observer};
use super::flood::{Flood, FloodCount};
use super::frames::{self, FrameHead, FrameScan, Seen, kind};
use super::options::FloodLimits;

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

/// An [`Io`](tidegate_net::Io) with its blocks and what was seen to pass.
pub(crate) struct Wire {
    pub(crate) io: BoxIo,
    /// Read and not yet taken by the library.
    input: BytesMut,
    /// Written by the library and not yet by us.
    output: BytesMut,
    /// Our own frames, which wait for the end of the library's.
    injected: Vec<u8>,
    /// The connection failed: nothing more is tried.
    broken: Option<io::ErrorKind>,
    role: Role,
    rx_scan: FrameScan,
    tx_scan: FrameScan,
    floods: FloodCount,
    observer: Rc<dyn Observer>,
    pub(crate) facts: Facts,
    /// Bytes read, ever.
    pub(crate) rx: u64,
    /// Bytes written, ever.
    pub(crate) tx: u64,
}

/// What was seen on the wire that the library does not tell.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The peer's FIN was read.
    pub(crate) eof: bool,
    /// Bytes came since somebody looked.
    pub(crate) bytes_came: bool,
    /// A PING was answered since somebody looked.
    pub(crate) ping_answered: bool,
    /// The peer did what ends the connection.
    pub(crate) fault: Option<Fault>,
    /// A message was refused.
    pub(crate) messaging_error: bool,
    /// Streams that the library reset for PROTOCOL_ERROR, maybe for their heads.
    pub(crate) suspects: Vec<u32>,
    /// The highest stream that was handed on.
    pub(crate) last_accepted: u32,
    /// The highest stream that the peer opened.
    pub(crate) last_received: u32,
    /// The highest stream whose head was sent: higher ones were not begun.
    pub(crate) last_sent: u32,
    /// The last GOAWAY.
    pub(crate) goaway: Option<GoAway>,
    /// GOAWAY came since somebody looked.
    pub(crate) goaway_came: bool,
    /// SETTINGS_MAX_CONCURRENT_STREAMS, if the peer set it.
    pub(crate) peer_max_streams: Option<u32>,
    /// SETTINGS came since somebody looked.
    pub(crate) settings_came: bool,
    /// Streams that we reset for PROTOCOL_ERROR on somebody's word.
    pub(crate) own_protocol_resets: u32,
    /// The code that took the place of the library's PROTOCOL_ERROR.
    pub(crate) renamed: Option<Reason>,
    /// The last frame that came may have been for a closed stream.
    late_frame: bool,
    /// The code of the GOAWAY that was just written.
    goaway_written: Option<u32>,
    /// Its last stream.
    goaway_last: u32,
    frames_sent: bool,
    last_frame_stream: u32,
}

/// What the library would not notice, or not call by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The peer exceeded a limit.
    Flood(Flood),
    /// A frame that its type cannot be.
    Frame(Reason),
}

impl Facts {
    /// Whether there is something to tell the pool.
    pub(crate) fn has_news(&self) -> bool {
        self.settings_came || self.goaway_came
    }

    /// A stream was handed on: whatever is wrong with it, its head was valid.
    pub(crate) fn on_accepted(&mut self, id: u32) {
        self.last_accepted = id;
        self.suspects.retain(|suspect| *suspect != id);
    }
}

/// A GOAWAY frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GoAway {
    pub(crate) last_stream: u32,
    pub(crate) code: u32,
}

impl Wire {
    pub(crate) fn new(
        io: BoxIo,
        seen: BytesMut,
        role: Role,
        limits: FloodLimits,
        observer: Rc<dyn Observer>,
    ) -> Self {
        let preface = super::preface::PREFACE.len() as u8;
        let (rx_preface, tx_preface) = match role {
            Role::Server => (preface, 0),
            Role::Client => (0, preface),
        };
        let mut wire = Self {
            io,
            input: BytesMut::new(),
            output: BytesMut::new(),
            injected: Vec::new(),
            broken: None,
            role,
            rx_scan: FrameScan::new(rx_preface),
            tx_scan: FrameScan::new(tx_preface),
            floods: FloodCount::new(limits),
            observer,
            facts: Facts::default(),
            rx: 0,
            tx: 0,
        };
        wire.rx = seen.len() as u64;
        wire.input = seen;
        wire.note_received(0);
        wire
    }

    /// Writes until nothing is left.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        while !self.output.is_empty() {
            ready!(self.poll_send(cx, &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Which end we are.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Sends `frame` between the library's frames, as soon as one of them has ended. The first frame is the
    /// library's SETTINGS (RFC 9113 §3.4).
    pub(crate) fn inject(&mut self, frame: &[u8]) {
        self.injected.extend_from_slice(frame);
        self.place_injected();
    }

    fn place_injected(&mut self) {
        if self.injected.is_empty() || !self.facts.frames_sent || !self.tx_scan.is_between_frames() {
            return;
        }
        let injected = std::mem::take(&mut self.injected);
        self.hold(&injected);
        self.note_sent(&injected);
        self.facts.goaway_written = None;
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.output.capacity() == 0 {
            self.output = blocks::take();
        }
        self.output.extend_from_slice(bytes);
    }

    fn check(&self) -> io::Result<()> {
        match self.broken {
            Some(kind) => Err(kind.into()),
            None => Ok(()),
        }
    }

    /// Writes once what is held, and `more` behind it: bytes of `more` written.
    fn poll_send(&mut self, cx: &mut Context<'_>, more: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let held = [IoSlice::new(&self.output)];
        let held = if self.output.is_empty() { &[][..] } else { &held[..] };
        let count = slices.iter_mut().zip(held.iter().chain(more)).map(|(to, from)| *to = *from).count();
        let written = match ready!(self.io.poll_write(cx, slices.get(..count).unwrap_or_default())) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            other => other,
        };
        let written = written.inspect_err(|error| self.broken = Some(error.kind()))?;
        self.tx += written as u64;
        let from_held = written.min(self.output.len());
        self.output.advance(from_held);
        if self.output.is_empty() {
            blocks::give(std::mem::take(&mut self.output));
        }
        Poll::Ready(Ok(written - from_held))
    }

    /// Takes bytes from the library: small ones are held, large ones go out behind those held.
    fn poll_take(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.check()?;
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.output.len() + total > BLOCK {
            loop {
                match self.poll_send(cx, bufs) {
                    Poll::Ready(Ok(0)) if self.output.len() + total > BLOCK => {}
                    Poll::Ready(Ok(0)) => break,
                    Poll::Ready(Ok(written)) => {
                        self.note_slices(bufs, written);
                        return Poll::Ready(Ok(written));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if self.output.len() < BLOCK => break,
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
        let mut room = BLOCK.saturating_sub(self.output.len());
        let mut taken = 0;
        for buf in bufs {
            let part = buf.get(..buf.len().min(room)).unwrap_or_default();
            self.hold(part);
            room -= part.len();
            taken += part.len();
        }
        self.note_slices(bufs, taken);
        Poll::Ready(Ok(taken))
    }

    fn note_slices(&mut self, bufs: &[IoSlice<'_>], mut len: usize) {
        for buf in bufs {
            let part = buf.get(..buf.len().min(len)).unwrap_or_default();
            self.note_sent(part);
            len -= part.len();
        }
        if let Some(code) = self.facts.goaway_written.take() {
            self.rename_goaway(code);
        }
        self.place_injected();
    }

    /// Calls a client's mistake by its name in the library's last frame, which is still held here. It is told by
    /// the last frame that came: who breaks a rule seldom gets to send another.
    fn rename_goaway(&mut self, code: u32) {
        let reason = Reason::STREAM_CLOSED;
        let suspect = self.role == Role::Server && self.facts.late_frame;
        if !suspect || code != u32::from(Reason::PROTOCOL_ERROR) {
            return;
        }
        let library = frames::goaway(self.facts.goaway_last, code);
        let renamed = frames::goaway(self.facts.goaway_last, reason.into());
        let at = self.output.len().saturating_sub(library.len());
        if let Some(held) = self.output.get_mut(at..).filter(|held| **held == library) {
            held.copy_from_slice(&renamed);
            self.facts.renamed = Some(reason);
        }
    }

    fn note_sent(&mut self, bytes: &[u8]) {
        let (facts, floods, observer) = (&mut self.facts, &mut self.floods, &self.observer);
        let role = self.role;
        self.tx_scan.scan(bytes, |seen| match seen {
            Seen::Frame(FrameHead { kind, stream, .. }) => {
                facts.frames_sent = true;
                facts.last_frame_stream = stream;
                match kind {
                    kind::DATA => floods.on_data_sent(),
                    kind::HEADERS if role == Role::Client && stream > facts.last_sent => {
                        facts.last_sent = stream;
                        floods.on_stream();
                    }
                    _ => {}
                }
            }
            Seen::Reset { code } => {
                observer.on_event(Event::TxReset);
                if code == u32::from(Reason::REFUSED_STREAM) {
                    observer.on_event(Event::TxRefused);
                }
                if code == u32::from(Reason::PROTOCOL_ERROR) {
                    let id = facts.last_frame_stream;
                    match facts.own_protocol_resets.checked_sub(1) {
                        Some(left) => facts.own_protocol_resets = left,
                        // What is wrong behind a valid head is no invalid message to Envoy.
                        None if role == Role::Client || id > facts.last_accepted => facts.suspects.push(id),
                        None => {}
                    }
                }
            }
            Seen::GoAway { last_stream, code } if last_stream != frames::ANNOUNCE => {
                facts.goaway_written = Some(code);
                facts.goaway_last = last_stream;
                observer.on_event(Event::GoawaySent);
            }
            _ => {}
        });
    }

    /// Whether a head has begun whose end is still to come.
    pub(crate) fn is_head_open(&self) -> bool {
        self.rx_scan.is_in_header_block()
    }

    /// Looks at what was read behind the first `from` bytes of the input.
    fn note_received(&mut self, from: usize) {
        let (facts, floods, observer) = (&mut self.facts, &mut self.floods, &self.observer);
        let role = self.role;
        self.rx_scan.scan(self.input.get(from..).unwrap_or_default(), |seen| match seen {
            Seen::Frame(frame) => {
                facts.late_frame = frame.is_late(facts.last_received);
                match frame.kind {
                    kind::HEADERS if role == Role::Server && frame.stream > facts.last_received => {
                        facts.last_received = frame.stream;
                        floods.on_stream();
                    }
                    kind::PING if frame.flags & frames::ACK != 0 => facts.ping_answered = true,
                    _ => {}
                }
                if facts.fault.is_none() && !frame.has_valid_length() {
                    facts.fault = Some(Fault::Frame(Reason::FRAME_SIZE_ERROR));
                }
                if let (None, Err(flood)) = (facts.fault, floods.on_frame(frame)) {
                    facts.fault = Some(Fault::Flood(flood));
                    observer.on_event(Event::Flood(flood));
                }
            }
            Seen::Reset { code } => {
                observer.on_event(Event::RxReset);
                if code == u32::from(Reason::REFUSED_STREAM) {
                    observer.on_event(Event::RxRefused);
                }
            }
            Seen::Setting { id: frames::SETTING_MAX_CONCURRENT_STREAMS, value } => {
                facts.peer_max_streams = Some(value);
            }
            Seen::Setting { id: frames::SETTING_INITIAL_WINDOW_SIZE, value }
                if value > frames::MAX_WINDOW =>
            {
                // RFC 9113 §6.5.2.
                facts.fault.get_or_insert(Fault::Frame(Reason::FLOW_CONTROL_ERROR));
            }
            Seen::Setting { .. } => {}
            Seen::SettingsEnd => facts.settings_came = true,
            Seen::GoAway { last_stream, code } => {
                facts.goaway = Some(GoAway { last_stream, code });
                facts.goaway_came = true;
            }
        });
    }

    /// Reads once: bytes read, 0 at the end. Waits without a block.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.facts.eof {
            return Poll::Ready(Ok(0));
        }
        ready!(self.io.poll_read_ready(cx))?;
        if self.input.capacity() < BLOCK {
            self.input = blocks::take();
        }
        let filled = self.io.poll_read(cx, &mut self.input);
        match filled {
            Poll::Ready(Ok(read)) if read > 0 => {
                self.rx += read as u64;
                self.facts.bytes_came = true;
                self.note_received(0);
            }
            Poll::Ready(Ok(_)) => self.facts.eof = true,
            Poll::Ready(Err(ref error)) => self.broken = Some(error.kind()),
            Poll::Pending => {}
        }
        self.release_input();
        filled
    }

    fn release_input(&mut self) {
        if self.input.is_empty() {
            blocks::give(std::mem::take(&mut self.input));
        }
    }

    /// Reads and drops; for a connection whose end was sent.
    pub(crate) fn poll_drop_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.check()?;
        self.input.clear();
        let filled = self.poll_fill(cx);
        self.input.clear();
        self.release_input();
        filled
    }
}

/// The library's end of a [`Wire`].
pub(crate) struct Transport(pub(crate) Rc<RefCell<Wire>>);

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.0.borrow_mut();
        wire.check()?;
        if wire.input.is_empty() && ready!(wire.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        if wire.facts.fault.is_some() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let len = wire.input.len().min(buf.remaining());
        buf.put_slice(wire.input.get(..len).unwrap_or_default());
        wire.input.advance(len);
        wire.release_input();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_take(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Deferred: see the file's header.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The library has said its last word. When FIN goes out is the caller's decision.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(cx)
    }
}

/// Elements of one `writev`.
const MAX_SLICES: usize = 16;
