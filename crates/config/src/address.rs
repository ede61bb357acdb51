//! `envoy.config.core.v3.Address` and `CidrRange`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tidegate_types::Address;

use crate::hcm::CidrRange;
use crate::reader::{Message, Reader};

/// An address and, for a pipe, its file mode.
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    pub(crate) unix_mode: Option<u32>,
    /// `socket_address.protocol` is `UDP`.
    pub(crate) udp: bool,
}

impl Message for Endpoint {
    const NAME: &'static str = "envoy.config.core.v3.Address";

    fn read(r: &Reader<'_>) -> Self {
        let socket = r.message::<Socket>("socket_address").optional();
        let pipe = r.message::<Pipe>("pipe").optional();
        r.exactly_one(&["socket_address", "pipe"]);
        match (socket, pipe) {
            (_, Some(pipe)) => {
                Self { address: Address::Unix(pipe.path.into()), unix_mode: pipe.mode, udp: false }
            }
            (Some(socket), None) => {
                Self { address: Address::Ip(socket.address), unix_mode: None, udp: socket.udp }
            }
            (None, None) => Self { address: Address::Ip(NOWHERE), unix_mode: None, udp: false },
        }
    }
}

/// Where a host is: an address, or where the cluster looks names up a name and a port.
pub(crate) enum Place {
    Address(Address),
    Named { name: String, port: u16 },
}

impl Message for Place {
    const NAME: &'static str = Endpoint::NAME;

    fn read(r: &Reader<'_>) -> Self {
        if !r.cx.takes_names.get() {
            return Self::Address(Endpoint::read(r).address);
        }
        r.refuse("pipe", "a cluster that looks names up has no pipes");
        r.exactly_one(&["socket_address"]);
        r.message::<Named>("socket_address")
            .optional()
            .map_or(Self::Address(Address::Ip(NOWHERE)), |named| named.0)
    }
}

/// `SocketAddress` with a name or an IP address.
struct Named(Place);

impl Message for Named {
    const NAME: &'static str = Socket::NAME;

    fn read(r: &Reader<'_>) -> Self {
        is_udp(r);
        r.refuse("resolver_name", "clusters that look names up have no resolver for each address");
        let name = r.string("address").required_non_empty();
        let port = r.u32("port_value").within(0..=65535).or_default().try_into().unwrap_or_default();
        r.exactly_one(&["port_value"]);
        Self(Place::Named { name, port })
    }
}

/// Stands for an address that was reported as missing.
pub(crate) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// `SocketAddress`.
pub(crate) struct Socket {
    pub(crate) address: SocketAddr,
    udp: bool,
}

/// `protocol`: whether it is `UDP`, where that means something.
fn is_udp(r: &Reader<'_>) -> bool {
    let udp = r.enumeration("protocol", &[("TCP", 0, false), ("UDP", 1, true)], &[]);
    if udp.peek() == Some(&true) && !r.cx.takes_udp.get() {
        udp.report("`UDP` is for listeners of HTTP/3 and for hosts that speak it", Some("TCP".to_owned()));
    }
    udp.or_default()
}

impl Message for Socket {
    const NAME: &'static str = "envoy.config.core.v3.SocketAddress";

    fn read(r: &Reader<'_>) -> Self {
        let udp = is_udp(r);
        let ip = r.string("address").convert(|text| {
            text.parse::<IpAddr>()
                .map_err(|_| format!("`{text}` is no IP address; names need a DNS cluster type"))
        });
        if !r.has("address") {
            ip.report("missing field `address`", None);
        }
        let port = r.u32("port_value").within(0..=65535);
        r.exactly_one(&["port_value"]);
        let port = port.or_default().try_into().unwrap_or_default();
        Self { address: SocketAddr::new(ip.or(NOWHERE.ip()), port), udp }
    }
}

struct Pipe {
    path: String,
    mode: Option<u32>,
}

impl Message for Pipe {
    const NAME: &'static str = "envoy.config.core.v3.Pipe";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            path: r.string("path").required_non_empty(),
            mode: r.u32("mode").within(0..=0o777).optional().filter(|mode| *mode != 0),
        }
    }
}

impl Message for CidrRange {
    const NAME: &'static str = "envoy.config.core.v3.CidrRange";

    fn read(r: &Reader<'_>) -> Self {
        let address = r
            .string("address_prefix")
            .convert(|text| text.parse::<IpAddr>().map_err(|_| format!("`{text}` is no IP address")));
        if !r.has("address_prefix") {
            address.report("missing field `address_prefix`", None);
        }
        let address = address.or(NOWHERE.ip());
        let most = if address.is_ipv4() { 32 } else { 128 };
        // More than an IPv4 address has means all of it, as in Envoy.
        let prefix_len = r.u32("prefix_len").within(0..=128).or_default().min(most);
        Self { address, prefix_len: prefix_len.try_into().unwrap_or_default() }
    }
}
