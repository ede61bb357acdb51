//! [`Conn`]: one connection with all its streams, polled by the one task that owns it.
//!
//! What the connection does lies in [`core`], where the hub reaches it too; this file is the owner's view.

pub(crate) mod alarm;
pub(crate) mod core;

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use quinn_proto::{Dir, StreamEvent, StreamId, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use self::alarm::Alarm;
use self::core::{Core, Sent};
use crate::close::{CloseCode, Loss};
use crate::crypto::Handshake;
use crate::hub::Hub;
use crate::stats::ConnStats;

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// The first flight of the peer's handshake is here: [`Conn::server_name`] and [`Conn::alpn`] are known.
    HandshakeData,
    /// The handshake is complete. On a client that sent early data, [`Conn::early_data`] says now whether it counts.
    Connected,
    /// The peer has opened streams: [`Conn::accept`] until it gives none.
    Opened(Dir),
    /// The peer allows more streams: [`Conn::open`] is worth a try.
    Available(Dir),
    /// Bytes, the end or a reset are there to be read.
    Readable(StreamId),
    /// A write that was blocked is worth a try.
    Writable(StreamId),
    /// Everything written, and the end, has been acknowledged.
    Finished(StreamId),
    /// The peer wants no more of this stream (`STOP_SENDING`).
    Stopped(StreamId, VarInt),
    /// The connection is no more. It is the last event.
    Lost(Loss),
}

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nothing is there yet; [`Event::Readable`] follows.
    #[error("nothing to read yet")]
    Blocked,
    /// The peer gave the stream up (`RESET_STREAM`).
    #[error("reset by peer: code {0}")]
    Reset(VarInt),
    /// The stream has ended, was stopped, or never was.
    #[error("no such stream")]
    Closed,
}

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Flow control or the send buffer allow nothing; [`Event::Writable`] follows.
    #[error("nothing can be written yet")]
    Blocked,
    /// The peer wants no more (`STOP_SENDING`).
    #[error("stopped by peer: code {0}")]
    Stopped(VarInt),
    /// The stream has ended, was reset, or never was.
    #[error("no such stream")]
    Closed,
}

/// What became of early data (0-RTT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyData {
    /// None was possible.
    None,
    /// Streams may be opened and written before the handshake is over; nobody knows yet whether they count.
    Offered,
    /// They count.
    Accepted,
    /// They never were: the streams are gone, their ids are used again, and what they carried is to be sent anew.
    Rejected,
}

/// A connection. Dropping it closes it with `NO_ERROR`.
pub struct Conn {
    core: Rc<Core>,
    hub: Rc<Hub>,
    alarm: Alarm,
    stage: Stage,
    /// A client's handshake is over: from then on errors of the socket are told by sending.
    is_answered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// Closed by us; [`Event::Lost`] is owed.
    Closed,
    /// [`Event::Lost`] has been given.
    Lost,
}

impl Conn {
    pub(crate) fn new(hub: Rc<Hub>, core: Rc<Core>) -> Self {
        Self { core, hub, alarm: Alarm::default(), stage: Stage::Running, is_answered: false }
    }

    /// Drives the connection: datagrams, timers, and what is to be sent. To be called until it is pending, and again
    /// after anything was read, written, opened or closed.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.stage == Stage::Lost {
            return Poll::Pending;
        }
        if let Some(event) = self.next_event() {
            return Poll::Ready(event);
        }
        self.core.watch(cx);
        if self.hub.owned.get() {
            self.receive(cx);
        }
        loop {
            if let Some(event) = self.next_event() {
                return Poll::Ready(event);
            }
            match self.core.advance(&self.hub, Instant::now()) {
                Sent::All => {}
                Sent::More => cx.waker().wake_by_ref(),
                Sent::Blocked => self.hub.wait_for_room(cx),
            }
            if let Some(event) = self.next_event().or_else(|| self.failure()) {
                return Poll::Ready(event);
            }
            let deadline = self.core.deadline();
            if self.alarm.poll(cx, deadline).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// A client's datagrams, and what the system says of its socket while nobody has answered.
    fn receive(&mut self, cx: &mut Context<'_>) {
        if self.hub.receive(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        if !self.is_answered {
            if self.core.state().is_half_open() {
                return self.hub.watch_errors(cx);
            }
            self.is_answered = true;
            self.hub.link.forget_errors();
        }
    }

    /// Sends what may be sent now, for who will not poll again soon. What the socket does not take waits for the next
    /// [`Conn::poll_event`].
    pub fn flush(&mut self) {
        self.core.advance(&self.hub, Instant::now());
    }

    fn next_event(&mut self) -> Option<Event> {
        if self.stage != Stage::Running {
            // Whoever has closed it wants to hear of nothing but that.
            return None;
        }
        let mut state = self.core.state();
        loop {
            let event = match state.proto.poll()? {
                quinn_proto::Event::HandshakeDataReady => Event::HandshakeData,
                quinn_proto::Event::Connected => {
                    state.settle(&self.hub);
                    Event::Connected
                }
                quinn_proto::Event::ConnectionLost { reason } => {
                    state.settle(&self.hub);
                    self.stage = Stage::Lost;
                    Event::Lost(reason.into())
                }
                quinn_proto::Event::Stream(event) => match event {
                    StreamEvent::Opened { dir } => Event::Opened(dir),
                    StreamEvent::Available { dir } => Event::Available(dir),
                    StreamEvent::Readable { id } => Event::Readable(id),
                    StreamEvent::Writable { id } => Event::Writable(id),
                    StreamEvent::Finished { id } => Event::Finished(id),
                    StreamEvent::Stopped { id, error_code } => Event::Stopped(id, error_code),
                },
                // Unreliable datagrams (RFC 9221) are not negotiated.
                quinn_proto::Event::DatagramReceived | quinn_proto::Event::DatagramsUnblocked => continue,
            };
            return Some(event);
        }
    }

    /// What ends the connection from outside of the protocol.
    fn failure(&mut self) -> Option<Event> {
        let loss = match self.stage {
            Stage::Closed => Loss::Connection(quinn_proto::ConnectionError::LocallyClosed),
            Stage::Running => self.hub.owned.get().then(|| self.hub.failure()).flatten()?,
            Stage::Lost => return None,
        };
        self.stage = Stage::Lost;
        self.core.state().settle(&self.hub);
        Some(Event::Lost(loss))
    }

    /// Opens a stream; `None` when the peer allows no more now ([`Event::Available`] follows) or the connection is
    /// closed. Nothing is sent by that alone.
    pub fn open(&mut self, dir: Dir) -> Option<StreamId> {
        self.core.state().proto.streams().open(dir)
    }

    /// The next stream that the peer has opened.
    pub fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        self.core.state().accept(dir)
    }

    /// Reads at most `max` bytes; `None` at the end of the stream.
    ///
    /// # Errors
    /// [`ReadError`]; a reset is told once.
    pub fn read(&mut self, id: StreamId, max: usize) -> Result<Option<Bytes>, ReadError> {
        let mut state = self.core.state();
        if !Half::Receive.is_of(id, state.proto.side()) {
            return Err(ReadError::Closed);
        }
        let mut stream = state.proto.recv_stream(id);
        let mut chunks = stream.read(true).map_err(|_| ReadError::Closed)?;
        let read = chunks.next(max);
        let _ = chunks.finalize();
        match read {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(quinn_proto::ReadError::Blocked) => Err(ReadError::Blocked),
            Err(quinn_proto::ReadError::Reset(code)) => Err(ReadError::Reset(code)),
        }
    }

    /// Writes what flow control and the send buffer take of `chunks`, which are advanced; how many bytes those were.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write(&mut self, id: StreamId, chunks: &mut [Bytes]) -> Result<usize, WriteError> {
        let mut state = self.core.state();
        if !Half::Send.is_of(id, state.proto.side()) {
            return Err(WriteError::Closed);
        }
        match state.proto.send_stream(id).write_chunks(chunks) {
            Ok(written) => Ok(written.bytes),
            Err(quinn_proto::WriteError::Blocked) => Err(WriteError::Blocked),
            Err(quinn_proto::WriteError::Stopped(code)) => Err(WriteError::Stopped(code)),
            Err(quinn_proto::WriteError::ClosedStream) => Err(WriteError::Closed),
        }
    }

    /// Ends our half of the stream after what was written. Without effect on one that is finished, stopped or reset.
    pub fn finish(&mut self, id: StreamId) {
        let mut state = self.core.state();
        if Half::Send.is_of(id, state.proto.side()) {
            let _ = state.proto.send_stream(id).finish();
        }
    }

    /// Gives our half of the stream up (`RESET_STREAM`); what was not delivered is not sent again. Without effect on one
    /// that is over.
    pub fn reset(&mut self, id: StreamId, code: VarInt) {
        let mut state = self.core.state();
        if Half::Send.is_of(id, state.proto.side()) {
            let _ = state.proto.send_stream(id).reset(code);
        }
    }

    /// Wants no more of the peer's half (`STOP_SENDING`); what came is thrown away. Without effect on one that is over.
    pub fn stop(&mut self, id: StreamId, code: VarInt) {
        let mut state = self.core.state();
        if Half::Receive.is_of(id, state.proto.side()) {
            let _ = state.proto.recv_stream(id).stop(code);
        }
    }

    /// Closes at once; what was not delivered is lost. [`Event::Lost`] follows with
    /// [`ConnectionError::LocallyClosed`](quinn_proto::ConnectionError::LocallyClosed) when the packet is sent.
    /// Without effect on a connection that is closed.
    pub fn close(&mut self, code: CloseCode, reason: Bytes) {
        if self.stage == Stage::Running {
            self.core.state().close(Instant::now(), code, reason);
            self.stage = Stage::Closed;
        }
    }

    /// Sends a packet that the peer has to acknowledge, which keeps both ends' idle timers from expiring.
    pub fn ping(&mut self) {
        self.core.state().proto.ping();
    }

    /// Changes the keys of packets (RFC 9001 section 6), which otherwise happens when their limits come near. Without effect
    /// before the handshake is over.
    pub fn update_keys(&mut self) {
        self.core.state().proto.force_key_update();
    }

    /// Whether the handshake is not over yet.
    pub fn is_handshaking(&self) -> bool {
        self.core.state().proto.is_handshaking()
    }

    /// Whether nothing can be sent or received any more.
    pub fn is_closed(&self) -> bool {
        self.stage != Stage::Running || self.core.state().proto.is_closed()
    }

    /// Whether everything written to every stream has been acknowledged.
    pub fn is_delivered(&self) -> bool {
        self.core.state().proto.streams().send_streams() == 0
    }

    /// What the handshake has settled so far; protocol and name are known after [`Event::HandshakeData`], the rest
    /// after [`Event::Connected`].
    pub fn handshake(&self) -> Handshake {
        let data = self.core.state().proto.crypto_session().handshake_data();
        data.and_then(|data| data.downcast::<Handshake>().ok()).map(|data| *data).unwrap_or_default()
    }

    /// The protocol agreed on by ALPN, after [`Event::HandshakeData`].
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.handshake().alpn
    }

    /// The name that the client asked for (SNI), on a server after [`Event::HandshakeData`].
    pub fn server_name(&self) -> Option<String> {
        self.handshake().server_name
    }

    /// The peer's certificates, its own first; empty without any.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        let identity = self.core.state().proto.crypto_session().peer_identity();
        identity
            .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
            .map(|certificates| *certificates)
            .unwrap_or_default()
    }

    /// What became of early data. On a server: whether streams came with any.
    pub fn early_data(&self) -> EarlyData {
        let state = self.core.state();
        if !state.proto.has_0rtt() {
            EarlyData::None
        } else if state.proto.is_handshaking() {
            EarlyData::Offered
        } else if state.proto.accepted_0rtt() || state.proto.side().is_server() {
            EarlyData::Accepted
        } else {
            EarlyData::Rejected
        }
    }

    /// Whether the client opened this stream before the handshake was over: what it says may be a replay
    /// (RFC 9001 section 9.2). Always false on a client.
    pub fn is_early(&self, id: StreamId) -> bool {
        self.core.state().is_early(id)
    }

    /// The peer's address, which changes when it migrates.
    pub fn remote_address(&self) -> SocketAddr {
        self.core.state().proto.remote_address()
    }

    /// Our address, as the peer wrote it where that is known.
    pub fn local_address(&self) -> SocketAddr {
        let mut address = self.hub.link.local_address();
        if let Some(ip) = self.core.state().proto.local_ip() {
            address.set_ip(ip);
        }
        address
    }

    /// Smoothed round-trip time.
    pub fn rtt(&self) -> Duration {
        self.core.state().proto.rtt()
    }

    /// Bytes of UDP payload received and sent so far: what [`Conn::stats`] says of them, without copying the rest.
    #[inline]
    pub fn traffic(&self) -> (u64, u64) {
        self.core.traffic()
    }

    /// Counts.
    pub fn stats(&self) -> ConnStats {
        let stats = self.core.state().proto.stats();
        ConnStats {
            rx_bytes: stats.udp_rx.bytes,
            tx_bytes: stats.udp_tx.bytes,
            rx_datagrams: stats.udp_rx.datagrams,
            tx_datagrams: stats.udp_tx.datagrams,
            lost_packets: stats.path.lost_packets,
            lost_bytes: stats.path.lost_bytes,
            congestion_events: stats.path.congestion_events,
            black_holes: stats.path.black_holes_detected,
            congestion_window: stats.path.cwnd,
            mtu: stats.path.current_mtu,
            rtt: stats.path.rtt,
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.core.part(&self.hub, CloseCode::NoError);
    }
}

/// One direction of a stream.
#[derive(Clone, Copy)]
enum Half {
    Send,
    Receive,
}

impl Half {
    /// Whether this side has that half. quinn-proto panics on one that it has not.
    fn is_of(self, id: StreamId, side: quinn_proto::Side) -> bool {
        let is_ours = id.initiator() == side;
        id.dir() == Dir::Bi || is_ours == matches!(self, Self::Send)
    }
}
