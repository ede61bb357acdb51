//! In which order a host's addresses are tried: families take turns (RFC 8305 §4).

use tidegate_types::Address;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// Unix-domain sockets.
    Unix,
}

impl Family {
    /// The family of `address`.
    pub fn of(address: &Address) -> Self {
        match address {
            Address::Ip(ip) if ip.is_ipv4() => Self::V4,
            Address::Ip(_) => Self::V6,
            Address::Unix(_) => Self::Unix,
        }
    }
}

/// Which family comes first (`upstream_connection_options.happy_eyeballs_config`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The preferred family; `None`: that of the first address.
    pub first: Option<Family>,
    /// How many addresses of it come before one of each other family; 0 is taken as 1.
    pub count: usize,
}

impl Default for Order {
    fn default() -> Self {
        Self { first: None, count: 1 }
    }
}

impl Order {
    /// The addresses in the order in which they are tried. Within a family the given order stays.
    pub fn sort(self, addresses: &[Address]) -> Vec<Address> {
        let Some(first) = self.first.or_else(|| addresses.first().map(Family::of)) else { return Vec::new() };
        // Other families in the order in which they appear.
        let mut families = vec![first];
        for family in addresses.iter().map(Family::of) {
            if !families.contains(&family) {
                families.push(family);
            }
        }
        let of = |family: Family| addresses.iter().filter(move |address| Family::of(address) == family);
        let mut queues: Vec<_> = families
            .into_iter()
            .map(|family| (if family == first { self.count.max(1) } else { 1 }, of(family)))
            .collect();
        let mut sorted = Vec::with_capacity(addresses.len());
        while sorted.len() < addresses.len() {
            for (turns, queue) in &mut queues {
                sorted.extend(queue.take(*turns).cloned());
            }
        }
        sorted
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Short for `127.0.0.x:1` (`.x`), `[::x]:1` (`:x`), and paths.
    fn address(text: &str) -> Address {
        match text.split_at(1) {
            (".", last) => Address::Ip(format!("127.0.0.{last}:1").parse().unwrap()),
            (":", last) => Address::Ip(format!("[::{last}]:1").parse().unwrap()),
            _ => Address::Unix(text.into()),
        }
    }

    fn check(first: Option<Family>, count: usize, given: &str, wanted: &str) {
        let all = |text: &str| text.split(' ').map(address).collect::<Vec<_>>();
        assert_eq!(Order { first, count }.sort(&all(given)), all(wanted), "{first:?} {count} {given}");
    }

    /// Seen on Envoy 1.40.
    #[test]
    fn envoys_order() {
        check(None, 1, ".2 .3 :1 .4 .1", ".2 :1 .3 .4 .1");
        check(Some(Family::V6), 1, ".2 .3 :1 .1", ":1 .2 .3 .1");
        check(Some(Family::V4), 2, ":1 .2 .3 .4 :2 .1", ".2 .3 :1 .4 .1 :2");
    }

    #[test]
    fn a_family_that_is_not_there_is_not_missed() {
        check(Some(Family::Unix), 3, ".2 :1 .3", ".2 :1 .3");
        check(Some(Family::V6), 1, ".2 .3", ".2 .3");
        check(None, 1, ".1", ".1");
        assert_eq!(Order::default().sort(&[]), []);
    }

    #[test]
    fn three_families_take_turns() {
        check(None, 1, "/a .1 .2 :1 /b", "/a .1 :1 /b .2");
        check(None, 0, ".1 .2 :1", ".1 :1 .2");
    }
}
