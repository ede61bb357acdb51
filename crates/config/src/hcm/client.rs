//! Whom the manager believes about the client's address, and what it says about it.

use crate::reader::{Message, Reader};

/// Where the client's address comes from and what is said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAddress {
    /// `use_remote_address`: the peer is the client; false when unset.
    pub use_remote_address: bool,
    /// `xff_num_trusted_hops`.
    pub xff_num_trusted_hops: u32,
    /// `skip_xff_append`.
    pub skip_xff_append: bool,
    /// `append_x_forwarded_port`.
    pub append_x_forwarded_port: bool,
    /// `internal_address_config`; `None`: Envoy 1.40 trusts no address, only Unix-domain sockets.
    pub internal_addresses: Option<InternalAddresses>,
}

/// `internal_address_config`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InternalAddresses {
    /// `unix_sockets`.
    pub unix_sockets: bool,
    /// `cidr_ranges`.
    pub cidr_ranges: Vec<CidrRange>,
}

/// `envoy.config.core.v3.CidrRange`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CidrRange {
    /// `address_prefix`.
    pub address: std::net::IpAddr,
    /// `prefix_len`, at most 32 or 128.
    pub prefix_len: u8,
}

impl CidrRange {
    /// The same range, its bits behind the prefix 0: `10.1.2.3/8` and `10.0.0.0/8` are one.
    #[must_use]
    pub fn masked(self) -> Self {
        use std::net::IpAddr;
        let address = match self.address {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len.min(32))).unwrap_or(0);
                IpAddr::V4((ip.to_bits() & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_len.min(128))).unwrap_or(0);
                IpAddr::V6((ip.to_bits() & mask).into())
            }
        };
        Self { address, prefix_len: self.prefix_len }
    }
}

impl ClientAddress {
    /// Its fields of the manager that `r` reads.
    pub(super) fn read(r: &Reader<'_>) -> Self {
        r.bool("represent_ipv4_remote_address_as_ipv4_mapped_ipv6").only(false);
        Self {
            use_remote_address: r.bool("use_remote_address").or_default(),
            xff_num_trusted_hops: r.u32("xff_num_trusted_hops").or_default(),
            skip_xff_append: r.bool("skip_xff_append").or_default(),
            append_x_forwarded_port: r.bool("append_x_forwarded_port").or_default(),
            internal_addresses: r.message("internal_address_config").optional(),
        }
    }
}

impl Message for InternalAddresses {
    const NAME: &'static str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.InternalAddressConfig";

    fn read(r: &Reader<'_>) -> Self {
        Self {
            unix_sockets: r.bool("unix_sockets").or_default(),
            cidr_ranges: r.repeated("cidr_ranges").or_default(),
        }
    }
}
