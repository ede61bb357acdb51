//! Socket options that listening and dialing share.

use std::io;
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

/// TCP keepalive; an unset field leaves the kernel's value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe (`TCP_KEEPIDLE`).
    pub time: Option<Duration>,
    /// Time between probes (`TCP_KEEPINTVL`).
    pub interval: Option<Duration>,
    /// Unanswered probes before the connection counts as dead (`TCP_KEEPCNT`).
    pub probes: Option<u32>,
}

impl Keepalive {
    /// Turns it on for `socket`.
    pub(crate) fn apply(&self, socket: &Socket) -> io::Result<()> {
        let mut keepalive = TcpKeepalive::new();
        if let Some(time) = self.time {
            keepalive = keepalive.with_time(time);
        }
        if let Some(interval) = self.interval {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(probes) = self.probes {
            keepalive = keepalive.with_retries(probes);
        }
        socket.set_tcp_keepalive(&keepalive)
    }
}

/// Where a redirected connection was going before the kernel's NAT sent it here (`SO_ORIGINAL_DST`); `None` if it
/// was not redirected or is no TCP connection.
pub fn original_destination(io: &dyn crate::Io) -> Option<std::net::SocketAddr> {
    let socket = socket2::SockRef::from(io.plain_tcp()?);
    // Each fails on sockets of the other family.
    let original = socket.original_dst_v4().or_else(|_| socket.original_dst_v6());
    original.ok().and_then(|address| address.as_socket())
}
