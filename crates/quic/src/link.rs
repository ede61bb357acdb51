//! The socket under an endpoint: batches of datagrams in, one GSO batch out a call.
//!
//! [`Link`] is what the rest of the crate sees, so that tests can put a scripted network in its place; [`UdpLink`] is
//! the real one, over quinn-udp and tokio's readiness.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use quinn_proto::EcnCodepoint;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A datagram that came.
pub(crate) struct Received {
    pub(crate) remote: SocketAddr,
    pub(crate) local_ip: Option<IpAddr>,
    pub(crate) ecn: Option<EcnCodepoint>,
    pub(crate) data: BytesMut,
}

/// What is to be sent: one datagram, or several of `segment` bytes (the last may be shorter) to one address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing {
    pub(crate) remote: SocketAddr,
    pub(crate) local_ip: Option<IpAddr>,
    pub(crate) ecn: Option<EcnCodepoint>,
    pub(crate) segment: Option<usize>,
}

impl Outgoing {
    pub(crate) fn new(transmit: &quinn_proto::Transmit) -> Self {
        Self {
            remote: transmit.destination,
            local_ip: transmit.src_ip,
            ecn: transmit.ecn,
            segment: transmit.segment_size,
        }
    }

    /// How many datagrams `size` bytes are.
    pub(crate) fn datagrams(&self, size: usize) -> u64 {
        self.segment.map_or(1, |segment| size.div_ceil(segment.max(1))) as u64
    }
}

/// Something that carries datagrams.
pub(crate) trait Link {
    /// Gives `sink` what has come, as much as one call brings.
    ///
    /// # Errors
    /// What the system says, such as an ICMP error on a connected socket.
    fn poll_receive(&self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Received)) -> Poll<io::Result<()>>;

    /// Sends at once or not at all.
    ///
    /// # Errors
    /// `WouldBlock` while the socket is full; anything else is the system's verdict on these datagrams.
    fn send(&self, outgoing: &Outgoing, data: &[u8]) -> io::Result<()>;

    /// Whether [`Link::send`] is worth another try.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// What the system says of a connected socket without being asked, such as that nobody listens at the other end.
    fn poll_error(&self, cx: &mut Context<'_>) -> Poll<io::Error>;

    /// Nobody asks [`Link::poll_error`] any more.
    fn forget_errors(&self);

    /// Its address; the IP may be unspecified.
    fn local_address(&self) -> SocketAddr;

    /// How many datagrams one call may carry.
    fn segments(&self) -> usize;

    /// Whether the network may cut datagrams in pieces, so that their size cannot be probed.
    fn may_fragment(&self) -> bool;
}

/// The most bytes that one receive brings into one buffer: a whole GRO batch.
const BUFFER: usize = 64 * 1024;

thread_local! {
    /// A worker's receive buffers, shared by all its sockets: they are empty between calls. Their pages are touched
    /// only as far as datagrams reach.
    static BUFFERS: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER * BATCH_SIZE].into_boxed_slice());
}

/// A UDP socket of this worker.
pub(crate) struct UdpLink {
    socket: Rc<UdpSocket>,
    state: UdpSocketState,
    local: SocketAddr,
    /// Packets of one call.
    segments: usize,
    /// Waits for an error: who waits to read is not woken by one, and would hear of it with the next packet sent, which
    /// takes a second.
    errors: RefCell<Option<Errors>>,
}

type Errors = Pin<Box<dyn Future<Output = io::Error>>>;

async fn next_error(socket: Rc<UdpSocket>) -> io::Error {
    loop {
        if let Err(error) = socket.ready(Interest::ERROR).await {
            return error;
        }
        if let Ok(Some(error)) = socket.take_error() {
            return error;
        }
        // Until the next one.
        let _ = socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}

impl UdpLink {
    /// Takes over `socket`, within the runtime of its worker.
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let local = socket.local_addr()?;
        let segments = state.max_gso_segments();
        let socket = Rc::new(UdpSocket::from_std(socket)?);
        Ok(Self { socket, state, local, segments, errors: RefCell::default() })
    }

    /// The link of a client to `remote`. No network card cuts a batch into packets on the way to this machine itself,
    /// and servers that read packet by packet are seen to lose it: Envoy 1.40 without `prefer_gro`.
    pub(crate) fn to(socket: std::net::UdpSocket, remote: SocketAddr) -> io::Result<Self> {
        let mut link = Self::new(socket)?;
        if remote.ip().to_canonical().is_loopback() {
            link.segments = 1;
        }
        Ok(link)
    }

    /// The socket is known to be empty or full: only a new edge makes it ready.
    fn forget_readiness(&self, interest: Interest) {
        let _ = self.socket.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }

    fn receive(&self, sink: &mut dyn FnMut(Received)) -> io::Result<usize> {
        BUFFERS.with_borrow_mut(|buffers| {
            let mut metas = [RecvMeta::default(); BATCH_SIZE];
            let mut chunks = buffers.chunks_exact_mut(BUFFER);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            let count = self.state.recv((&*self.socket).into(), &mut slices, &mut metas)?;
            for (meta, slice) in metas.iter().zip(&slices).take(count) {
                split(meta, slice, sink);
            }
            Ok(count)
        })
    }
}

/// Takes a GRO batch apart.
fn split(meta: &RecvMeta, buffer: &[u8], sink: &mut dyn FnMut(Received)) {
    let Some(bytes) = buffer.get(..meta.len).filter(|bytes| !bytes.is_empty()) else { return };
    // One copy and one allocation a batch; what streams keep of it are slices.
    let mut batch = BytesMut::from(bytes);
    while !batch.is_empty() {
        let data = batch.split_to(meta.stride.clamp(1, batch.len()));
        let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
        sink(Received { remote: meta.addr, local_ip: meta.dst_ip, ecn, data });
    }
}

impl Link for UdpLink {
    fn poll_receive(&self, cx: &mut Context<'_>, sink: &mut dyn FnMut(Received)) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            match self.receive(sink) {
                Ok(count) => {
                    // Fewer than asked for: the socket is empty, and asking again would only say so.
                    if count < BATCH_SIZE {
                        self.forget_readiness(Interest::READABLE);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.forget_readiness(Interest::READABLE);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn send(&self, outgoing: &Outgoing, data: &[u8]) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: outgoing.remote,
            ecn: outgoing.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: data,
            segment_size: outgoing.segment,
            src_ip: outgoing.local_ip,
        };
        // Without asking for readiness first: of a new socket nothing is known yet.
        let sent = self.state.try_send((&*self.socket).into(), &transmit);
        if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.forget_readiness(Interest::WRITABLE);
        }
        sent
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_send_ready(cx).map(drop)
    }

    fn poll_error(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut errors = self.errors.borrow_mut();
        let next = errors.get_or_insert_with(|| Box::pin(next_error(self.socket.clone())));
        let error = ready!(next.as_mut().poll(cx));
        *errors = None;
        Poll::Ready(error)
    }

    fn forget_errors(&self) {
        *self.errors.borrow_mut() = None;
    }

    fn local_address(&self) -> SocketAddr {
        self.local
    }

    fn segments(&self) -> usize {
        self.segments
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}
