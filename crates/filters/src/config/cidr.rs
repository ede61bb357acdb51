//! `envoy.config.core.v3.CidrRange`.

use std::net::IpAddr;

use serde::Deserialize;

/// A range of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Message")]
pub struct CidrRange {
    address: IpAddr,
    prefix_len: u32,
}

impl CidrRange {
    /// Whether `ip` is in the range. An IPv4 address never is in an IPv6 range, nor the other way round.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(range), IpAddr::V4(ip)) => {
                let differ = range.to_bits() ^ ip.to_bits();
                differ.checked_shr(32 - self.prefix_len).unwrap_or(0) == 0
            }
            (IpAddr::V6(range), IpAddr::V6(ip)) => {
                let differ = range.to_bits() ^ ip.to_bits();
                differ.checked_shr(128 - self.prefix_len).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[derive(Deserialize)]
struct Message {
    address_prefix: IpAddr,
    #[serde(default)]
    prefix_len: u32,
}

impl TryFrom<Message> for CidrRange {
    type Error = String;

    fn try_from(message: Message) -> Result<Self, String> {
        let bits = if message.address_prefix.is_ipv4() { 32 } else { 128 };
        if message.prefix_len > bits {
            return Err(format!("`prefix_len` must be at most {bits}"));
        }
        Ok(Self { address: message.address_prefix, prefix_len: message.prefix_len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(range: &str, prefix_len: u32, ip: &str) -> bool {
        CidrRange { address: range.parse().unwrap(), prefix_len }.contains(ip.parse().unwrap())
    }

    #[test]
    fn the_prefix_decides() {
        assert!(contains("10.1.2.3", 8, "10.200.0.1"));
        assert!(!contains("10.1.2.3", 16, "10.200.0.1"));
        assert!(contains("10.1.2.3", 32, "10.1.2.3"));
        assert!(contains("0.0.0.0", 0, "203.0.113.9"));
        assert!(contains("2001:db8::", 32, "2001:db8:1::9"));
        assert!(contains("::", 0, "::1"));
        assert!(!contains("::", 0, "10.0.0.1"));
    }
}
