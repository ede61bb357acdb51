//! The longest of the address ranges that hold an address.

use std::collections::HashMap;
use std::net::IpAddr;

use tidegate_config::hcm::CidrRange;

/// Values by address range.
#[derive(Debug)]
pub(super) struct Ranges<T> {
    v4: Prefixes<T>,
    v6: Prefixes<T>,
}

/// Values by prefix of one address family: a table for each length that occurs, of which there are few.
#[derive(Debug)]
struct Prefixes<T>(Vec<(u8, HashMap<IpAddr, T>)>);

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { v4: Prefixes(Vec::new()), v6: Prefixes(Vec::new()) }
    }
}

impl<T: Default> Ranges<T> {
    /// The values to fill for `range`; without one those of all addresses of both families.
    pub(super) fn entries(&mut self, range: Option<CidrRange>) -> impl Iterator<Item = &mut T> {
        let (v4, v6) = match range {
            Some(range) if range.address.is_ipv4() => (Some(range), None),
            Some(range) => (None, Some(range)),
            None => (Some(ALL_V4), Some(ALL_V6)),
        };
        let v4 = v4.map(|range| self.v4.entry(range));
        let v6 = v6.map(|range| self.v6.entry(range));
        v4.into_iter().chain(v6)
    }

    /// The value of the longest range that holds `ip`.
    pub(super) fn find(&self, ip: IpAddr) -> Option<&T> {
        let prefixes = if ip.is_ipv4() { &self.v4 } else { &self.v6 };
        let mut tables = prefixes.0.iter();
        tables.find_map(|(prefix_len, table)| {
            table.get(&CidrRange { address: ip, prefix_len: *prefix_len }.masked().address)
        })
    }
}

impl<T: Default> Prefixes<T> {
    fn entry(&mut self, range: CidrRange) -> &mut T {
        let range = range.masked();
        // The longest first.
        let at = self.0.partition_point(|(len, _)| *len > range.prefix_len);
        if self.0.get(at).is_none_or(|(len, _)| *len != range.prefix_len) {
            self.0.insert(at, (range.prefix_len, HashMap::new()));
        }
        self.0[at].1.entry(range.address).or_default()
    }
}

const ALL_V4: CidrRange = CidrRange { address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), prefix_len: 0 };
const ALL_V6: CidrRange = CidrRange { address: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), prefix_len: 0 };
