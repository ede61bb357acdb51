//! A PROXY header in front of each connection to a host, telling it of the downstream connection.
//!
//! <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>; sections below are its sections.

use std::borrow::Cow;
use std::fmt::Write;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use tidegate_net::{
    BoxIo, Connecting, ProxyAddresses, Transport, TransportError, TransportFactory, TransportOptions,
};

/// How the header is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its version.
    pub version: Version,
    /// Type-length-value entries of our own, version 2 only. They take the place of passed ones of their type.
    pub added: Vec<(u8, Box<[u8]>)>,
    /// Which entries of the downstream's own PROXY header are passed on.
    pub pass: Pass,
}

/// The header's version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// A line (§2.1).
    #[default]
    V1,
    /// Binary (§2.2).
    V2,
}

/// Which entries are passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pass {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those of these types.
    Types(Vec<u8>),
}

impl ProxyHeader {
    /// The header's bytes. Without a downstream connection the host is told so.
    pub fn encode(&self, downstream: Option<&ProxyAddresses>) -> Vec<u8> {
        match (self.version, downstream) {
            (Version::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
            (Version::V1, Some(ends)) => line(ends),
            // LOCAL, AF_UNSPEC.
            (Version::V2, None) => [SIGNATURE.as_slice(), &[0x20, 0, 0, 0]].concat(),
            (Version::V2, Some(ends)) => self.binary(ends),
        }
    }

    fn binary(&self, ends: &ProxyAddresses) -> Vec<u8> {
        let mut payload = Vec::with_capacity(64);
        let family = match same_family(ends.source, ends.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                payload.extend_from_slice(&source.octets());
                payload.extend_from_slice(&destination.octets());
                // AF_INET, STREAM.
                0x11
            }
            (source, destination) => {
                payload.extend_from_slice(&mapped(source).octets());
                payload.extend_from_slice(&mapped(destination).octets());
                // AF_INET6, STREAM.
                0x21
            }
        };
        payload.extend_from_slice(&ends.source.port().to_be_bytes());
        payload.extend_from_slice(&ends.destination.port().to_be_bytes());
        for (kind, value) in self.entries(ends) {
            let Ok(length) = u16::try_from(value.len()) else { continue };
            // The header's length is 16 bits too: what does not fit is left out.
            if payload.len() + 3 + value.len() <= usize::from(u16::MAX) {
                payload.push(kind);
                payload.extend_from_slice(&length.to_be_bytes());
                payload.extend_from_slice(value);
            }
        }
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
        // PROXY, version 2.
        [SIGNATURE.as_slice(), &[0x21, family], &length, &payload].concat()
    }

    fn entries<'a>(&'a self, ends: &'a ProxyAddresses) -> impl Iterator<Item = (u8, &'a [u8])> {
        let passes = |kind: u8| match &self.pass {
            Pass::None => false,
            Pass::All => true,
            Pass::Types(types) => types.contains(&kind),
        };
        let ours = |kind: u8| self.added.iter().any(|(added, _)| *added == kind);
        let passed = ends.tlvs.iter().filter(move |(kind, _)| passes(*kind) && !ours(*kind));
        self.added.iter().chain(passed).map(|(kind, value)| (*kind, &**value))
    }
}

/// The transports of a cluster whose hosts get a header, before what `inner` does.
#[derive(Clone, Debug)]
pub struct ProxyTransports {
    /// The header.
    pub header: Arc<ProxyHeader>,
    /// What follows it; `None`: plain text.
    pub inner: Option<Arc<dyn TransportFactory>>,
}

impl TransportFactory for ProxyTransports {
    fn of_host(&self, hostname: &str, fallback_alpn: &[&[u8]]) -> Rc<dyn Transport> {
        let inner = self.inner.as_ref().map(|inner| inner.of_host(hostname, fallback_alpn));
        Rc::new(ProxyTransport { header: self.header.clone(), inner })
    }
}

struct ProxyTransport {
    header: Arc<ProxyHeader>,
    inner: Option<Rc<dyn Transport>>,
}

impl Transport for ProxyTransport {
    fn connect(&self, io: BoxIo, options: Rc<TransportOptions>) -> Connecting {
        let header = self.header.encode(options.proxy.as_ref());
        let inner = self.inner.clone();
        Box::pin(async move {
            let mut io = io;
            write_all(&mut io, &header)
                .await
                .map_err(|_| TransportError { reason: Cow::Borrowed(""), closed_by_peer: true })?;
            match inner {
                None => Ok(io),
                Some(inner) => inner.connect(io, options).await,
            }
        })
    }
}

async fn write_all(io: &mut BoxIo, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| io.poll_write(cx, &[IoSlice::new(bytes)])).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// At most 107 bytes (§2.1).
fn line(ends: &ProxyAddresses) -> Vec<u8> {
    let mut text = String::with_capacity(108);
    let ports = (ends.source.port(), ends.destination.port());
    // Writing to a string cannot fail.
    let _ = match same_family(ends.source, ends.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            write!(text, "PROXY TCP4 {source} {destination} {} {}\r\n", ports.0, ports.1)
        }
        (source, destination) => {
            write!(text, "PROXY TCP6 {} {} {} {}\r\n", mapped(source), mapped(destination), ports.0, ports.1)
        }
    };
    text.into_bytes()
}

/// Both ends as IPv4 if both are.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (IpAddr, IpAddr) {
    (source.ip().to_canonical(), destination.ip().to_canonical())
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// §2.2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ends(source: &str, destination: &str) -> ProxyAddresses {
        let tlvs = Arc::from([(1, Box::from(&b"h2"[..])), (5, Box::from(&b"id"[..]))]);
        ProxyAddresses { source: source.parse().unwrap(), destination: destination.parse().unwrap(), tlvs }
    }

    #[test]
    fn a_line_names_both_ends_in_one_family() {
        let v1 =
            |ends: Option<&ProxyAddresses>| String::from_utf8(ProxyHeader::default().encode(ends)).unwrap();
        assert_eq!(v1(None), "PROXY UNKNOWN\r\n");
        assert_eq!(v1(Some(&ends("1.2.3.4:5", "6.7.8.9:10"))), "PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n");
        assert_eq!(v1(Some(&ends("[::1]:5", "[::2]:10"))), "PROXY TCP6 ::1 ::2 5 10\r\n");
        assert_eq!(v1(Some(&ends("1.2.3.4:5", "[::2]:10"))), "PROXY TCP6 ::ffff:1.2.3.4 ::2 5 10\r\n");
    }

    #[test]
    fn the_binary_form_carries_entries() {
        let header = |pass, added| ProxyHeader { version: Version::V2, pass, added };
        assert_eq!(header(Pass::None, Vec::new()).encode(None), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
        let ends = ends("1.2.3.4:5", "6.7.8.9:10");
        let plain = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x06\x07\x08\x09\0\x05\0\x0a";
        assert_eq!(header(Pass::None, Vec::new()).encode(Some(&ends)), plain);
        let tail = |pass, added: Vec<(u8, Box<[u8]>)>| {
            header(pass, added).encode(Some(&ends)).get(28..).unwrap().to_vec()
        };
        assert_eq!(tail(Pass::All, Vec::new()), b"\x01\0\x02h2\x05\0\x02id");
        assert_eq!(tail(Pass::Types(vec![5]), Vec::new()), b"\x05\0\x02id");
        let own = vec![(5, Box::from(&b"x"[..]))];
        assert_eq!(tail(Pass::All, own), b"\x05\0\x01x\x01\0\x02h2");
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let added = vec![
            (5, Box::from(vec![0; 65_500])),
            (6, Box::from(vec![0; 65_536])),
            (7, Box::from(vec![0; 3])),
        ];
        let header = ProxyHeader { version: Version::V2, added, pass: Pass::None };
        let bytes = header.encode(Some(&ends("1.2.3.4:5", "6.7.8.9:10")));
        let length = u16::from_be_bytes([bytes[14], bytes[15]]);
        assert_eq!(usize::from(length), bytes.len() - 16);
        assert_eq!(bytes.len(), 16 + 12 + 3 + 65_500 + 3 + 3);
    }
}
