//! One QUIC connection of the load generator, with a socket of its own.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, StreamEvent, StreamId, Transmit,
    VarInt,
};
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSocketState};

use super::super::load::Exchange;
use super::Caller;
use super::message::{CONTROL, Response};
use crate::failure::{Context, Failure};

/// See the module.
pub(super) struct Link {
    socket: UdpSocket,
    udp: UdpSocketState,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    address: SocketAddr,
    under_way: HashMap<StreamId, (u64, Response)>,
    pub(super) state: State,
    /// When the last answer arrived.
    pub(super) answered: Instant,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Handshake,
    Open,
    Lost,
}

/// Memory for datagrams, shared by all connections.
pub(super) struct Buffers {
    received: Vec<Vec<u8>>,
    sent: Vec<u8>,
}

/// The most that one receive brings of a batch that the kernel put together.
const DATAGRAMS: usize = 64 * 1024;

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            received: vec![vec![0; DATAGRAMS]; quinn_udp::BATCH_SIZE.min(4)],
            sent: Vec::with_capacity(DATAGRAMS),
        }
    }
}

impl Link {
    /// Begins a handshake; its first packet goes out with [`Link::send`].
    pub(super) fn dial(address: SocketAddr, caller: &Caller) -> Result<Self, Failure> {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).context("a UDP socket")?;
        socket.connect(address).context(format_args!("connecting to {address}"))?;
        let udp = UdpSocketState::new((&socket).into()).context("a UDP socket's options")?;
        let mut endpoint = Endpoint::new(caller.endpoint.clone(), None, true, None);
        let now = Instant::now();
        let (handle, connection) = endpoint
            .connect(now, caller.config.clone(), address, caller.server_name())
            .context(format_args!("connecting to {address}"))?;
        Ok(Self {
            socket,
            udp,
            endpoint,
            handle,
            connection,
            address,
            under_way: HashMap::new(),
            state: State::Handshake,
            answered: now,
        })
    }

    pub(super) fn in_flight(&self) -> usize {
        self.under_way.len()
    }

    /// Takes what has come, and what is due.
    pub(super) fn receive(&mut self, buffers: &mut Buffers, done: &mut Vec<Exchange>, caller: &Caller) {
        let now = Instant::now();
        while let Ok(true) = self.receive_batch(now, buffers) {}
        if self.connection.poll_timeout().is_some_and(|due| due <= now) {
            self.connection.handle_timeout(now);
        }
        self.settle();
        while let Some(event) = self.connection.poll() {
            self.on_event(event, done, caller);
        }
    }

    /// Whether there may be more.
    fn receive_batch(&mut self, now: Instant, buffers: &mut Buffers) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); 4];
        let mut slices: Vec<IoSliceMut<'_>> =
            buffers.received.iter_mut().map(|b| IoSliceMut::new(b)).collect();
        let messages = match self.udp.recv((&self.socket).into(), &mut slices, &mut metas) {
            Ok(messages) => messages,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => {
                // Nobody listens there.
                self.state = State::Lost;
                return Err(error);
            }
        };
        for (meta, buffer) in metas.iter().zip(&buffers.received).take(messages) {
            for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                let ecn = meta.ecn.and_then(|ecn| quinn_proto::EcnCodepoint::from_bits(ecn as u8));
                let data = BytesMut::from(datagram);
                buffers.sent.clear();
                match self.endpoint.handle(now, self.address, None, ecn, data, &mut buffers.sent) {
                    Some(DatagramEvent::ConnectionEvent(_, event)) => self.connection.handle_event(event),
                    Some(DatagramEvent::Response(transmit)) => self.write(&transmit, &buffers.sent),
                    Some(DatagramEvent::NewConnection(_)) | None => {}
                }
            }
        }
        Ok(messages == buffers.received.len())
    }

    /// Lets the connection and its endpoint tell each other what they must.
    fn settle(&mut self) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
    }

    fn on_event(&mut self, event: Event, done: &mut Vec<Exchange>, caller: &Caller) {
        match event {
            Event::Connected => {
                self.state = State::Open;
                if let Some(id) = self.connection.streams().open(Dir::Uni) {
                    // The first bytes of a new stream always fit.
                    let _ = self.connection.send_stream(id).write(CONTROL);
                }
            }
            Event::ConnectionLost { .. } => self.state = State::Lost,
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                while let Some(id) = self.connection.streams().accept(Dir::Uni) {
                    self.read(id, done, caller);
                }
            }
            Event::Stream(StreamEvent::Readable { id }) => self.read(id, done, caller),
            _ => {}
        }
    }

    /// Reads all that a stream has.
    fn read(&mut self, id: StreamId, done: &mut Vec<Exchange>, caller: &Caller) {
        let mut stream = self.connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return };
        let mut exchange = self.under_way.get_mut(&id);
        let is_good = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    if let Some((_, response)) = &mut exchange {
                        response.receive(&chunk.bytes);
                    }
                }
                Ok(None) => break Some(true),
                Err(quinn_proto::ReadError::Blocked) => break None,
                Err(quinn_proto::ReadError::Reset(_)) => break Some(false),
            }
        };
        let _ = chunks.finalize();
        let Some(ended_well) = is_good else { return };
        if let Some((token, response)) = self.under_way.remove(&id) {
            let is_good = ended_well && response.is_good(caller.request.expected);
            done.push(Exchange { token, is_good, close: caller.closes });
        }
    }

    /// Begins a request, if the server allows another stream.
    pub(super) fn start(&mut self, token: u64, caller: &Caller) -> bool {
        let Some(id) = self.connection.streams().open(Dir::Bi) else { return false };
        let mut stream = self.connection.send_stream(id);
        let whole = caller.request.bytes.len();
        let written =
            stream.write_chunks(&mut [caller.request.bytes.clone()]).map_or(0, |written| written.bytes);
        // An upload that does not fit into the server's window is a wrong scenario, and shows as a bad answer.
        if written < whole || stream.finish().is_err() {
            return false;
        }
        self.under_way.insert(id, (token, Response::default()));
        true
    }

    /// Says goodbye (H3_NO_ERROR).
    pub(super) fn close(&mut self) {
        self.connection.close(Instant::now(), VarInt::from_u32(0x100), Bytes::new());
    }

    /// Sends what is to be sent.
    pub(super) fn send(&mut self, buffers: &mut Buffers) {
        let now = Instant::now();
        let segments = self.udp.max_gso_segments();
        loop {
            buffers.sent.clear();
            let Some(transmit) = self.connection.poll_transmit(now, segments, &mut buffers.sent) else {
                break;
            };
            self.write(&transmit, &buffers.sent);
        }
        self.settle();
    }

    /// What the socket does not take is lost, as on any network.
    fn write(&self, transmit: &Transmit, contents: &[u8]) {
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
            contents: &contents[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: None,
        };
        let _ = self.udp.try_send((&self.socket).into(), &transmit);
    }

    /// When it wants to be looked at, whatever comes.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        self.connection.poll_timeout()
    }
}

impl AsRawFd for Link {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
