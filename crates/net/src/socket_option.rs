//! Options that a configuration names by number (`setsockopt(2)`).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// One option, as the kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOption {
    /// `SOL_SOCKET`, a protocol's number, ...
    pub level: i32,
    /// What of that level.
    pub name: i32,
    /// Its value; most are a C `int`.
    pub value: Box<[u8]>,
}

impl SocketOption {
    /// Sets it.
    ///
    /// # Errors
    /// What the kernel says: there is no such option, the value is not one of it, or this process may not set it.
    #[allow(unsafe_code)]
    pub fn apply(&self, socket: &impl AsFd) -> io::Result<()> {
        let length = libc::socklen_t::try_from(self.value.len()).map_err(io::Error::other)?;
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: `value` is valid for reads of `length` bytes during the call, and the kernel keeps no pointer.
        let result =
            unsafe { libc::setsockopt(fd, self.level, self.name, self.value.as_ptr().cast(), length) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// One whose value is a C `int`.
    pub fn int(level: i32, name: i32, value: i32) -> Self {
        Self { level, name, value: value.to_ne_bytes().into() }
    }

    /// Has a socket that is bound to an address choose its port when it connects.
    pub fn late_port() -> Self {
        Self::int(libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
    }

    /// Lets a socket of the family be bound to an address that this machine does not have.
    pub fn freebind(is_ipv4: bool) -> Self {
        match is_ipv4 {
            true => Self::int(libc::SOL_IP, libc::IP_FREEBIND, 1),
            false => Self::int(libc::SOL_IPV6, libc::IPV6_FREEBIND, 1),
        }
    }

    /// Lets a socket of the family take connections to addresses that this machine does not have (`TPROXY`).
    pub fn transparent(is_ipv4: bool) -> Self {
        match is_ipv4 {
            true => Self::int(libc::SOL_IP, libc::IP_TRANSPARENT, 1),
            false => Self::int(libc::SOL_IPV6, libc::IPV6_TRANSPARENT, 1),
        }
    }

    /// How many connections whose first packet brought data may wait (RFC 7413); 0: none.
    pub fn fast_open(queue: u32) -> Self {
        Self::int(libc::SOL_TCP, libc::TCP_FASTOPEN, i32::try_from(queue).unwrap_or(i32::MAX))
    }
}

/// What a listening socket is told, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerSocketOptions {
    /// Before it is bound.
    pub prebind: Vec<SocketOption>,
    /// After that.
    pub bound: Vec<SocketOption>,
    /// When it listens.
    pub listening: Vec<SocketOption>,
}

/// Sets all of `options`.
pub(crate) fn apply_all(options: &[SocketOption], socket: &impl AsFd) -> io::Result<()> {
    options.iter().try_for_each(|option| {
        let said = |error: io::Error| {
            let place = format!("setting socket option {}/{}", option.level, option.name);
            io::Error::other(format!("{place}: {error}"))
        };
        option.apply(socket).map_err(said)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_it_or_says_why_not() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        SocketOption::int(libc::SOL_SOCKET, libc::SO_PRIORITY, 3).apply(&socket).unwrap();
        let set = socket2::SockRef::from(&socket);
        SocketOption::int(libc::SOL_SOCKET, libc::SO_BROADCAST, 1).apply(&socket).unwrap();
        assert!(set.broadcast().unwrap());
        assert!(SocketOption::int(9999, 9999, 1).apply(&socket).is_err());
    }
}
