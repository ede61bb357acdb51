//! A PROXY header at the beginning of a connection (proxy-protocol.txt, §2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::config::Version;
use super::crc32c::crc32c;

/// A header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header<'a> {
    /// Bytes that it takes.
    pub(super) length: usize,
    /// The client and where it connected to; `None`: those of the socket hold.
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
    /// Type and value.
    pub(super) tlvs: Vec<(u8, &'a [u8])>,
}

/// Whether a connection begins with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Unclear,
    None,
    V1,
    V2,
}

/// What the bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    Incomplete,
    /// It began like a header of version 1 and is none.
    NotFound,
    Malformed,
    Header(Header<'a>),
}

/// Looks at the signature.
pub(super) fn presence(bytes: &[u8]) -> Presence {
    if bytes.starts_with(V1_SIGNATURE) {
        Presence::V1
    } else if bytes.starts_with(V2_SIGNATURE) {
        Presence::V2
    } else if V1_SIGNATURE.starts_with(bytes) || V2_SIGNATURE.starts_with(bytes) {
        Presence::Unclear
    } else {
        Presence::None
    }
}

/// Reads a header of which the signature is there.
pub(super) fn parse(version: Version, bytes: &[u8]) -> Parsed<'_> {
    match version {
        Version::V1 => parse_v1(bytes),
        Version::V2 => parse_v2(bytes),
    }
}

fn parse_v1(bytes: &[u8]) -> Parsed<'_> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        // One more than there may be, as in Envoy.
        return if bytes.len() > V1_LONGEST + 1 { Parsed::NotFound } else { Parsed::Incomplete };
    };
    let length = end + 2;
    if length > V1_LONGEST {
        return Parsed::Malformed;
    }
    let line = std::str::from_utf8(&bytes[V1_SIGNATURE.len()..end]);
    match line.ok().and_then(v1_addresses) {
        Some(addresses) => Parsed::Header(Header { length, addresses, tlvs: Vec::new() }),
        None => Parsed::Malformed,
    }
}

/// §2.1: protocol, source, destination and their ports, each behind one blank. `Some(None)`: unknown.
fn v1_addresses(line: &str) -> Option<Option<(SocketAddr, SocketAddr)>> {
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // "the receiver must ignore anything presented before the CRLF is found".
        return Some(None);
    }
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse().ok().map(IpAddr::V4),
            "TCP6" => text.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address(words.next()?)?, address(words.next()?)?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    let end = words.next().is_none();
    let unicast = is_unicast(source) && is_unicast(destination);
    let source = SocketAddr::new(source, source_port);
    (end && unicast).then_some(Some((source, SocketAddr::new(destination, destination_port))))
}

fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Nobody else can have connected, or been connected to.
fn is_unicast(ip: IpAddr) -> bool {
    ip != Ipv4Addr::BROADCAST && !ip.is_unspecified() && !ip.is_multicast()
}

fn parse_v2(bytes: &[u8]) -> Parsed<'_> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_FIXED>() else { return Parsed::Incomplete };
    let [version_command, family, high, low] = [fixed[12], fixed[13], fixed[14], fixed[15]];
    let length = usize::from(u16::from_be_bytes([high, low]));
    let local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Parsed::Malformed,
    };
    let address_length = match (local, family) {
        (true, _) => LONGEST_ADDRESSES,
        (false, 0x11 | 0x12) => 12,
        (false, 0x21 | 0x22) => 36,
        // Of whom a Unix-domain or unspecified peer speaks cannot be told.
        (false, _) => return Parsed::Malformed,
    };
    // Before the rest has arrived: there is no point in waiting for what will be refused (deviations, row 21).
    if length > address_length + MOST_TLV_BYTES || (!local && length < address_length) {
        return Parsed::Malformed;
    }
    let Some(body) = rest.get(..length) else { return Parsed::Incomplete };
    let length = V2_FIXED + length;
    if local {
        return Parsed::Header(Header { length, addresses: None, tlvs: Vec::new() });
    }
    let (addresses, tlvs) = body.split_at(address_length);
    let (Some(addresses), Some(tlvs)) = (v2_addresses(addresses), v2_tlvs(tlvs)) else {
        return Parsed::Malformed;
    };
    if !checksum_is_right(&bytes[..length], &tlvs) {
        return Parsed::Malformed;
    }
    Parsed::Header(Header { length, addresses: Some(addresses), tlvs })
}

fn v2_addresses(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let half = |length: usize, at: usize| bytes.get(at * length..(at + 1) * length);
    let ip = |at: usize| -> Option<IpAddr> {
        match bytes.len() {
            12 => half(4, at)?.try_into().ok().map(|bytes: [u8; 4]| Ipv4Addr::from(bytes).into()),
            _ => half(16, at)?.try_into().ok().map(|bytes: [u8; 16]| Ipv6Addr::from(bytes).into()),
        }
    };
    let ports = bytes.last_chunk::<4>()?;
    let (source, destination) = (ip(0)?, ip(1)?);
    let source_port = u16::from_be_bytes([ports[0], ports[1]]);
    let destination_port = u16::from_be_bytes([ports[2], ports[3]]);
    let unicast = is_unicast(source) && is_unicast(destination);
    let source = SocketAddr::new(source, source_port);
    unicast.then_some((source, SocketAddr::new(destination, destination_port)))
}

/// §2.2.
fn v2_tlvs(mut bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut tlvs = Vec::new();
    while !bytes.is_empty() {
        let ([kind, high, low], rest) = bytes.split_first_chunk::<3>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        tlvs.push((*kind, value));
        bytes = rest;
    }
    Some(tlvs)
}

/// §2.2.3: over the whole header, with zeros for the checksum. A header without one is right.
fn checksum_is_right(header: &[u8], tlvs: &[(u8, &[u8])]) -> bool {
    let Some((_, value)) = tlvs.iter().find(|(kind, _)| *kind == TLV_CRC32C) else { return true };
    let Ok(expected) = <[u8; 4]>::try_from(*value) else { return false };
    // Where the value stands: it is a part of the header.
    let behind: usize = tlvs.iter().rev().take_while(|(kind, _)| *kind != TLV_CRC32C).map(tlv_length).sum();
    let once = tlvs.iter().filter(|(kind, _)| *kind == TLV_CRC32C).count() == 1;
    let at = header.len() - behind - value.len();
    let (before, rest) = header.split_at(at);
    once && crc32c(&[before, &[0; 4], &rest[4..]]) == u32::from_be_bytes(expected)
}

fn tlv_length((_, value): &(u8, &[u8])) -> usize {
    3 + value.len()
}

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// §2.1: 107 characters with the CRLF.
const V1_LONGEST: usize = 107;
/// §2.2.
pub(super) const V2_FIXED: usize = 16;
/// Two addresses of Unix-domain sockets.
const LONGEST_ADDRESSES: usize = 216;
/// Bounds what a client can make the proxy hold before it is known who it is; what load balancers send (names,
/// certificates' subjects, VPC ids) is a fraction of that.
const MOST_TLV_BYTES: usize = 4096;
const TLV_CRC32C: u8 = 0x03;
/// The longest header.
pub(super) const LONGEST: usize = V2_FIXED + LONGEST_ADDRESSES + MOST_TLV_BYTES;
