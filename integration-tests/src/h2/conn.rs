//! One HTTP/2 connection of a scripted peer: a thread reads, any thread writes.

use std::io::{ErrorKind, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustls::Connection;
use socket2::Socket;
use tidegate_testkit::h2::{Frame, PREFACE, code, flag, hpack, kind};

use super::Message;
use super::pipe::Pipe;
use super::state::State;
use crate::wait::PATIENCE;
use crate::wire::End;

/// What a peer does by itself.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Its first SETTINGS; `None` sends none.
    pub settings: Option<Vec<(u16, u32)>>,
    /// Whether it acknowledges SETTINGS.
    pub ack_settings: bool,
    /// Whether it answers PING.
    pub ack_pings: bool,
    /// Whether it gives back the windows of what it received.
    pub replenish: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self { settings: Some(Vec::new()), ack_settings: true, ack_pings: true, replenish: true }
    }
}

impl Manners {
    /// Good ones, with these first SETTINGS.
    pub fn settings(values: &[(u16, u32)]) -> Self {
        Self { settings: Some(values.to_vec()), ..Self::default() }
    }
}

/// A connection; clones are the same one.
#[derive(Clone, Debug)]
pub struct H2Conn(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pipe: Pipe,
    manners: Manners,
    state: Mutex<State>,
    changed: Condvar,
    reader_gone: Mutex<bool>,
    gone: Condvar,
}

/// Told on the reading thread of each stream that the other side began.
pub(super) type OnStream = Box<dyn Fn(&H2Conn, u32) + Send>;

impl H2Conn {
    /// Takes over a connected socket.
    ///
    /// # Errors
    /// When the TLS handshake fails.
    pub(super) fn new(
        socket: &Arc<Socket>,
        tls: Option<Connection>,
        manners: Manners,
    ) -> std::io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            pipe: Pipe::new(socket, tls)?,
            manners,
            state: Mutex::default(),
            changed: Condvar::new(),
            reader_gone: Mutex::new(false),
            gone: Condvar::new(),
        })))
    }

    /// Reads until the end, on the caller's thread. A client's preface is expected if `server`.
    pub(super) fn read_all(&self, socket: Arc<Socket>, server: bool, on_stream: Option<OnStream>) {
        let mut bytes = self.0.pipe.early();
        let mut raw = [0; 64 * 1024];
        let mut preface = server;
        let end = loop {
            if preface && bytes.len() >= PREFACE.len() {
                if !bytes.starts_with(PREFACE) {
                    self.state().broken = Some(format!("no preface: {:?}", String::from_utf8_lossy(&bytes)));
                }
                bytes.drain(..PREFACE.len());
                preface = false;
            }
            while let Some((frame, length)) = Frame::parse(&bytes).filter(|_| !preface) {
                bytes.drain(..length);
                self.handle(frame, on_stream.as_ref());
            }
            match (&*socket).read(&mut raw) {
                Ok(0) => break End::Fin,
                Ok(count) => match self.0.pipe.plain(&raw[..count]) {
                    Ok(plain) => bytes.extend(plain),
                    Err(_) => break End::Reset,
                },
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break End::Reset,
            }
        };
        drop(socket);
        *self.0.reader_gone.lock().unwrap() = true;
        self.0.gone.notify_all();
        self.state().end = end;
        self.0.changed.notify_all();
    }

    fn handle(&self, frame: Frame, on_stream: Option<&OnStream>) {
        let (kind, flags, stream) = (frame.kind, frame.flags, frame.stream);
        let (length, payload) = (frame.payload.len() as u32, frame.payload.clone());
        let began = self.state().receive(frame);
        let manners = &self.0.manners;
        let ack = flags & flag::ACK != 0;
        match kind {
            kind::SETTINGS if !ack && manners.ack_settings => self.send(&Frame::settings_ack()),
            kind::PING if !ack && manners.ack_pings => self.send(&Frame::pong(payload)),
            kind::DATA if manners.replenish && length > 0 => {
                self.send(&Frame::window_update(0, length));
                self.send(&Frame::window_update(stream, length));
            }
            _ => {}
        }
        if let Some(on_stream) = on_stream.filter(|_| began) {
            on_stream(self, stream);
        }
        self.0.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// The protocol that TLS agreed on.
    pub fn alpn(&self) -> Option<String> {
        self.0.pipe.alpn()
    }

    /// Sends a frame.
    pub fn send(&self, frame: &Frame) {
        self.state().sent(frame);
        self.send_bytes(frame.bytes());
    }

    /// Sends frames in one write.
    pub fn send_all(&self, frames: &[Frame]) {
        frames.iter().for_each(|frame| self.state().sent(frame));
        self.send_bytes(frames.iter().flat_map(Frame::bytes).collect::<Vec<u8>>());
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&self, bytes: impl AsRef<[u8]>) {
        self.0.pipe.write(bytes.as_ref());
    }

    /// Sends a header block of literals.
    pub fn head<N: AsRef<[u8]>, V: AsRef<[u8]>>(&self, stream: u32, fields: &[(N, V)], end: bool) {
        self.send(&Frame::headers(stream, hpack::encode(fields), end));
    }

    /// Sends DATA of any size, in frames of at most 16 KiB, as the windows allow.
    ///
    /// # Panics
    /// When the windows do not open.
    #[track_caller]
    pub fn body(&self, stream: u32, bytes: &[u8], end: bool) {
        if bytes.is_empty() {
            return self.send(&Frame::data(stream, [], end));
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = self.await_state("an open window", |state| {
                let stream = state.streams.get(&stream);
                if stream.is_some_and(|stream| !stream.is_open()) || state.end != End::Open {
                    return Some(usize::MAX);
                }
                let window = stream.map_or(65_535, |stream| stream.window).min(state.window);
                usize::try_from(window).ok().filter(|room| *room > 0)
            });
            let (now, later) = rest.split_at(rest.len().min(room).min(16_384));
            rest = later;
            self.send(&Frame::data(stream, now, end && rest.is_empty()));
        }
    }

    /// Sends SETTINGS in the middle of the connection and waits until they are acknowledged.
    ///
    /// # Panics
    /// When they are not.
    #[track_caller]
    pub fn change_settings(&self, values: &[(u16, u32)]) {
        let acks = |state: &State| {
            state.frames.iter().filter(|frame| frame.kind == kind::SETTINGS && frame.has(flag::ACK)).count()
        };
        let first = usize::from(self.0.manners.settings.is_some());
        self.await_state("an acknowledgement", |state| (acks(state) >= first).then_some(()));
        let before = acks(&self.state());
        self.send(&Frame::settings(values));
        self.await_state("an acknowledgement", |state| (acks(state) > before).then_some(()));
    }

    /// Waits until everything sent before has been read: by a PING and its answer.
    ///
    /// # Panics
    /// When there is no answer and no end.
    #[track_caller]
    pub fn sync(&self) {
        let count = self.state().frames.len() as u64;
        let data = (0x7369_0000_0000_0000 | count).to_be_bytes();
        self.send(&Frame::ping(data));
        self.await_state("an answer to PING", |state| {
            let answer = Frame::pong(data);
            (state.end != End::Open || state.frames.contains(&answer)).then_some(())
        });
    }

    /// Waits until `look` finds something in the state.
    #[track_caller]
    pub(super) fn await_state<T>(&self, what: &str, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        loop {
            if let Some(found) = look(&state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The lock must not be poisoned for the other threads.
                let summary = state.summary();
                drop(state);
                panic!("waited for {what}: {summary}");
            }
            state = self.0.changed.wait_timeout(state, left.min(Duration::from_millis(100))).unwrap().0;
        }
    }

    /// The first frame that came and that `wanted` takes.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn await_frame(&self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Frame {
        self.await_state(what, |state| state.frames.iter().find(|frame| wanted(frame)).cloned())
    }

    /// (last stream, code) of the first GOAWAY.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn await_goaway(&self) -> (u32, u32) {
        let frame = self.await_frame("GOAWAY", |frame| frame.kind == kind::GOAWAY);
        (frame.u32_at(0), frame.u32_at(4))
    }

    /// The code of the RST_STREAM of a stream.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn await_reset(&self, stream: u32) -> u32 {
        self.await_state("RST_STREAM", |state| state.streams.get(&stream)?.message.reset)
    }

    /// The head of the other side's message on a stream, as soon as it is there.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn await_head(&self, stream: u32) -> Message {
        self.await_state("a head", |state| {
            let message = &state.streams.get(&stream)?.message;
            let over = message.reset.is_some() || state.end != End::Open;
            (over || !message.fields.is_empty()).then(|| message.clone())
        })
    }

    /// The other side's message on a stream, once `wanted` takes it.
    ///
    /// # Panics
    /// When it does not come to that.
    #[track_caller]
    pub fn await_message(&self, what: &str, stream: u32, wanted: impl Fn(&Message) -> bool) -> Message {
        self.await_state(what, |state| {
            state
                .streams
                .get(&stream)
                .map(|stream| &stream.message)
                .filter(|message| wanted(message))
                .cloned()
        })
    }

    /// The other side's whole message on a stream: until END_STREAM, RST_STREAM or the connection's end.
    ///
    /// # Panics
    /// When it goes on.
    #[track_caller]
    pub fn message(&self, stream: u32) -> Message {
        self.await_state("the end of a message", |state| {
            let message = state.streams.get(&stream).map(|stream| &stream.message);
            match message {
                Some(message) if message.ended || message.reset.is_some() => Some(message.clone()),
                _ if state.end != End::Open => Some(message.cloned().unwrap_or_default()),
                _ => None,
            }
        })
    }

    /// What has come of the other side's message on a stream.
    pub fn so_far(&self, stream: u32) -> Message {
        self.state().streams.get(&stream).map(|stream| stream.message.clone()).unwrap_or_default()
    }

    /// All frames so far.
    pub fn frames(&self) -> Vec<Frame> {
        self.state().frames.clone()
    }

    /// The frames of a kind so far.
    pub fn frames_of(&self, kind: u8) -> Vec<Frame> {
        self.state().frames.iter().filter(|frame| frame.kind == kind).cloned().collect()
    }

    /// The last GOAWAY so far: last stream and code.
    pub fn goaway(&self) -> Option<(u32, u32)> {
        self.state().goaway()
    }

    /// The streams that are open now.
    pub fn open_streams(&self) -> usize {
        self.state().open_streams()
    }

    /// The streams so far, whoever began them.
    pub fn streams(&self) -> usize {
        self.state().streams.len()
    }

    /// The most streams open at once so far.
    pub fn most_streams(&self) -> usize {
        self.state().most_streams
    }

    /// What the other side sent that cannot be read, if anything.
    pub fn broken(&self) -> Option<String> {
        self.state().broken.clone()
    }

    /// Everything that came, for the message of a failed assertion.
    pub fn summary(&self) -> String {
        self.state().summary()
    }

    /// How the other side has ended the connection so far.
    pub fn end_so_far(&self) -> End {
        self.state().end
    }

    /// Waits for the other side's end.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn end(&self) -> End {
        self.await_state("the end", |state| (state.end != End::Open).then_some(state.end))
    }

    /// Says GOAWAY with NO_ERROR.
    pub fn goaway_after(&self, last: u32) {
        self.send(&Frame::goaway(last, code::NO_ERROR));
    }

    /// Ends this side's sending (FIN).
    pub fn finish(&self) {
        self.0.pipe.finish();
    }

    /// Closes the socket: FIN.
    pub fn close(&self) {
        self.close_as(false);
    }

    /// Closes the socket: RST.
    pub fn reset(&self) {
        self.close_as(true);
    }

    fn close_as(&self, abort: bool) {
        self.0.pipe.close(abort);
        let mut gone = self.0.reader_gone.lock().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !*gone && Instant::now() < deadline {
            gone = self.0.gone.wait_timeout(gone, Duration::from_millis(50)).unwrap().0;
        }
    }

    /// Says hello: the preface of a client, and the first SETTINGS.
    pub(super) fn hello(&self, client: bool) {
        let mut bytes = if client { PREFACE.to_vec() } else { Vec::new() };
        if let Some(values) = &self.0.manners.settings {
            bytes.extend(Frame::settings(values).bytes());
        }
        self.send_bytes(bytes);
    }
}
