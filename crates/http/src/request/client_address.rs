//! Who the client is: the peer, or whom trusted proxies name in `x-forwarded-for`
//! (Envoy docs, "x-forwarded-for").

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::HeaderName;
use tidegate_config::hcm::{CidrRange, InternalAddresses};
use tidegate_types::{Address, RequestHead, StreamInfo};

use super::append_text;
use crate::hcm::Hcm;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client as it was found.
pub(super) struct Client {
    pub(super) address: Address,
    pub(super) internal: bool,
}

/// Finds the client and, with `use_remote_address`, appends the peer to `x-forwarded-for`.
pub(super) fn resolve(hcm: &Hcm, head: &mut RequestHead, info: &StreamInfo, has_xff: bool) -> Client {
    let config = &hcm.config.client;
    // Behind a PROXY header the peer is whom it names, as in Envoy.
    let peer = &info.connection.remote_address;
    let hops = config.xff_num_trusted_hops as usize;
    let forwarded = if has_xff { Forwarded::read(head) } else { Forwarded::default() };
    if !config.use_remote_address {
        let found = forwarded.nth_newest(hops);
        let internal =
            forwarded.count == 1 && found.is_some_and(|ip| is_internal_ip(ip, &config.internal_addresses));
        let address = found.map_or_else(|| peer.clone(), |ip| Address::Ip(SocketAddr::new(ip, 0)));
        return Client { address, internal };
    }
    let trusted = if hops > 0 { forwarded.nth_newest(hops - 1) } else { None };
    let address = trusted.map_or_else(|| peer.clone(), |ip| Address::Ip(SocketAddr::new(ip, 0)));
    let internal = !has_xff && is_internal(&address, &config.internal_addresses);
    if !config.skip_xff_append
        && let Some(ip) = peer.ip()
    {
        // A loopback peer says nothing to the next hop: this machine's own address does.
        let ip = if ip.is_loopback() { hcm.local_address.unwrap_or(ip) } else { ip };
        append_text(&mut head.headers, &X_FORWARDED_FOR, &ip.to_string(), ",");
    }
    Client { address, internal }
}

fn is_internal(address: &Address, internal: &Option<InternalAddresses>) -> bool {
    match address {
        Address::Ip(address) => is_internal_ip(address.ip(), internal),
        Address::Unix(_) => internal.as_ref().is_some_and(|internal| internal.unix_sockets),
    }
}

/// Nothing is internal unless configured; a configuration without ranges means private addresses (Envoy 1.40).
fn is_internal_ip(ip: IpAddr, internal: &Option<InternalAddresses>) -> bool {
    match internal.as_ref().map(|internal| &internal.cidr_ranges) {
        None => false,
        Some(ranges) if ranges.is_empty() => is_private(ip),
        Some(ranges) => ranges.iter().any(|range| contains(range, ip)),
    }
}

/// RFC 1918, RFC 4193 and the usual loopback address.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip == Ipv4Addr::LOCALHOST,
        IpAddr::V6(ip) => ip.is_unique_local() || ip == Ipv6Addr::LOCALHOST,
    }
}

fn contains(range: &CidrRange, ip: IpAddr) -> bool {
    let shared = |a: u128, b: u128, width: u32| {
        let rest = width.saturating_sub(u32::from(range.prefix_len));
        rest >= width || (a >> rest) == (b >> rest)
    };
    match (range.address, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => shared(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => shared(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

/// The entries of `x-forwarded-for`, newest first.
#[derive(Default)]
struct Forwarded {
    text: String,
    count: usize,
}

impl Forwarded {
    fn read(head: &RequestHead) -> Self {
        let lines = head.headers.get_all(&X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok());
        let text = lines.collect::<Vec<_>>().join(",");
        let count = text.split(',').filter(|entry| !entry.trim().is_empty()).count();
        Self { text, count }
    }

    /// The entry that `skip` newer ones come after, if it is an address without a port.
    fn nth_newest(&self, skip: usize) -> Option<IpAddr> {
        // Nearly always: to find no address in no text costs 280 instructions.
        if self.count == 0 {
            return None;
        }
        self.text.rsplit(',').nth(skip)?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_what_shares_their_prefix() {
        let range = |text: &str, prefix_len| CidrRange { address: text.parse().unwrap(), prefix_len };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(contains(&range("10.0.0.0", 8), ip("10.255.1.2")));
        assert!(!contains(&range("10.0.0.0", 8), ip("11.0.0.0")));
        assert!(contains(&range("0.0.0.0", 0), ip("8.8.8.8")));
        assert!(contains(&range("10.1.2.3", 32), ip("10.1.2.3")));
        assert!(!contains(&range("10.1.2.3", 32), ip("10.1.2.2")));
        assert!(contains(&range("fd00::", 8), ip("fd12::1")));
        assert!(!contains(&range("fd00::", 8), ip("10.0.0.1")));
    }

    #[test]
    fn without_ranges_private_addresses_are_internal() {
        let internal = |text: &str, configured: bool| {
            let empty = InternalAddresses { unix_sockets: false, cidr_ranges: Vec::new() };
            is_internal_ip(text.parse().unwrap(), &configured.then_some(empty))
        };
        for (ip, expected) in [
            ("127.0.0.1", true),
            ("127.0.0.2", false),
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.0.1", true),
            ("8.8.8.8", false),
            ("::1", true),
            ("fd00::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!((internal(ip, true), internal(ip, false)), (expected, false), "{ip}");
        }
    }

    #[test]
    fn entries_are_counted_nth_newest() {
        let forwarded = Forwarded { text: "1.1.1.1, 2.2.2.2, 3.3.3.3".into(), count: 3 };
        assert_eq!(forwarded.nth_newest(0), "3.3.3.3".parse().ok());
        assert_eq!(forwarded.nth_newest(2), "1.1.1.1".parse().ok());
        assert_eq!(forwarded.nth_newest(3), None);
        assert_eq!(Forwarded { text: "foo".into(), count: 1 }.nth_newest(0), None);
    }
}
