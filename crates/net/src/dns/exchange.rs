//! One message to a server, and what it answers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A datagram each way.
    Udp,
    /// A connection of its own.
    Tcp,
}

/// The way to servers.
pub trait Exchange {
    /// Sends `message` to `server` until `accepts` takes what comes back. How long to wait is the caller's matter.
    fn exchange<'a>(
        &'a self,
        server: SocketAddr,
        via: Via,
        message: &'a [u8],
        accepts: &'a mut dyn FnMut(&[u8]) -> bool,
    ) -> Exchanging<'a>;
}

/// An exchange under way.
pub type Exchanging<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>;

/// Sockets of this machine: a new one for each exchange, so that its port is as random as the system makes it
/// (RFC 5452 section 9.2).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sockets;

impl Exchange for Sockets {
    fn exchange<'a>(
        &'a self,
        server: SocketAddr,
        via: Via,
        message: &'a [u8],
        accepts: &'a mut dyn FnMut(&[u8]) -> bool,
    ) -> Exchanging<'a> {
        match via {
            Via::Udp => Box::pin(udp(server, message, accepts)),
            Via::Tcp => Box::pin(tcp(server, message, accepts)),
        }
    }
}

async fn udp(server: SocketAddr, message: &[u8], accepts: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected: the kernel drops what others send.
    socket.connect(server).await?;
    socket.send(message).await?;
    // No datagram is longer.
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if accepts(&buffer[..length]) {
            return Ok(());
        }
    }
}

async fn tcp(server: SocketAddr, message: &[u8], accepts: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut socket = TcpStream::connect(server).await?;
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    // RFC 1035 section 4.2.2: a length of two bytes comes first. In one write: RFC 7766 section 8.
    let mut framed = u16::try_from(message.len()).map_err(too_long)?.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    socket.write_all(&framed).await?;
    loop {
        let length = socket.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        socket.read_exact(&mut answer).await?;
        if accepts(&answer) {
            return Ok(());
        }
    }
}
