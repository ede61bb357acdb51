//! What the system's files say: `/etc/resolv.conf` and `/etc/hosts`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::{Family, Found};

/// Where servers listen.
const PORT: u16 = 53;

/// The system's settings, as its files have them at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// `nameserver`.
    pub servers: Vec<SocketAddr>,
    /// `search`, or `domain`.
    pub search: Vec<String>,
    /// `options ndots`: names with so many dots are first taken as they are; 1 when unset.
    pub ndots: usize,
    /// The names and addresses of `hosts`.
    hosts: Vec<(String, IpAddr)>,
}

impl System {
    /// Reads the files. What cannot be read is as if empty.
    pub fn read() -> Self {
        let read = |path| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
        Self::parse(&read("/etc/resolv.conf"), &read("/etc/hosts"))
    }

    /// From the text of both files. See resolv.conf(5) and hosts(5).
    pub fn parse(resolv_conf: &str, hosts: &str) -> Self {
        let mut system = Self { servers: Vec::new(), search: Vec::new(), ndots: 1, hosts: Vec::new() };
        for line in resolv_conf.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => system.servers.extend(words.next().and_then(server)),
                // The last one holds.
                Some("search" | "domain") => system.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    system.ndots = ndots.unwrap_or(system.ndots);
                }
                _ => {}
            }
        }
        for line in hosts.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            if let Some(ip) = words.next().and_then(|ip| ip.parse().ok()) {
                system.hosts.extend(words.map(|name| (name.to_owned(), ip)));
            }
        }
        system
    }

    /// The addresses of a name that is not for DNS to tell: those in `hosts`, and `localhost` (RFC 6761 section
    /// 6.3). `None`: it is.
    pub(super) fn known(&self, name: &str, family: Family) -> Option<Vec<Found>> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let of_name = self.hosts.iter().filter(|(host, _)| host.eq_ignore_ascii_case(name));
        let mut ips: Vec<_> = of_name.map(|(_, ip)| *ip).filter(|ip| Family::of(ip) == family).collect();
        if ips.is_empty() && is_localhost(name) {
            ips.push(match family {
                Family::V4 => Ipv4Addr::LOCALHOST.into(),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            });
        }
        ips.dedup();
        let found = |ip| Found { ip, ttl: std::time::Duration::ZERO };
        (!ips.is_empty()).then(|| ips.into_iter().map(found).collect())
    }

    /// The names that `name` may stand for, in the order in which they are looked up.
    pub(super) fn candidates(&self, name: &str, no_search: bool) -> Vec<String> {
        if no_search || name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        match name.matches('.').count() >= self.ndots {
            true => std::iter::once(name.to_owned()).chain(searched).collect(),
            false => searched.chain([name.to_owned()]).collect(),
        }
    }
}

fn server(text: &str) -> Option<SocketAddr> {
    let ip = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, PORT));
    // `fe80::1%eth0` has a scope that only the system can resolve; such servers are passed over.
    ip().or_else(|| text.parse().ok())
}

fn is_localhost(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    last.eq_ignore_ascii_case("localhost")
}

/// As configured: port 0 is the usual one.
pub(super) fn with_port(server: SocketAddr) -> SocketAddr {
    match server.port() {
        0 => SocketAddr::new(server.ip(), PORT),
        _ => server,
    }
}
