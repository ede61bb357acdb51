//! Host normalisation before routing: ports and the trailing dot of `Host`.
//!
//! Envoy docs, "HTTP connection manager": `strip_matching_host_port`, `strip_any_host_port`,
//! `strip_trailing_host_dot`. Host names are not compared here. Start with [`normalize`].

use bytes::Bytes;
use tidegate_config::hcm::{Normalization, StripPort};

/// The host as it will be routed and forwarded, or `None` when it stays as it is. `listener_port` is the
/// port that the client connected to, for `strip_matching_host_port`.
pub fn normalize(authority: &Bytes, options: &Normalization, listener_port: Option<u16>) -> Option<Bytes> {
    let mut changed = None;
    if options.strip_trailing_host_dot {
        changed = strip_trailing_dot(authority);
    }
    let current = changed.as_ref().unwrap_or(authority);
    let stripped = match options.strip_port {
        StripPort::Keep => None,
        StripPort::Any => strip_port(current, None),
        StripPort::Matching => listener_port.and_then(|port| strip_port(current, Some(port))),
    };
    stripped.or(changed)
}

/// Where the port's colon stands. An IPv6 address is in brackets (RFC 3986 §3.2.2), so a colon before
/// the last bracket is none.
pub(crate) fn port_start(authority: &[u8]) -> Option<usize> {
    let colon = memchr::memrchr(b':', authority)?;
    match memchr::memrchr(b']', authority) {
        Some(bracket) if bracket > colon => None,
        _ => Some(colon),
    }
}

/// The authority without a port, whatever the port says.
pub(crate) fn without_port(authority: &[u8]) -> &[u8] {
    port_start(authority).map_or(authority, |colon| &authority[..colon])
}

/// Removes the port: any number, or only `only`.
fn strip_port(authority: &Bytes, only: Option<u16>) -> Option<Bytes> {
    let colon = port_start(authority)?;
    let port: u32 = std::str::from_utf8(&authority[colon + 1..]).ok()?.parse().ok()?;
    if only.is_some_and(|only| u32::from(only) != port) {
        return None;
    }
    Some(authority.slice(..colon))
}

/// Removes the dot at the end of the host, which may stand before a port.
fn strip_trailing_dot(authority: &Bytes) -> Option<Bytes> {
    let dot = memchr::memrchr(b'.', authority)?;
    match authority.get(dot + 1) {
        None => Some(authority.slice(..dot)),
        Some(b':') => {
            let mut host = Vec::with_capacity(authority.len() - 1);
            host.extend_from_slice(&authority[..dot]);
            host.extend_from_slice(&authority[dot + 1..]);
            Some(host.into())
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(host: &'static str, strip_port: StripPort, strip_trailing_host_dot: bool) -> String {
        let options = Normalization { strip_port, strip_trailing_host_dot, ..Normalization::default() };
        let host = Bytes::from_static(host.as_bytes());
        let result = normalize(&host, &options, Some(80)).unwrap_or(host);
        String::from_utf8_lossy(&result).into_owned()
    }

    #[test]
    fn ports_are_stripped_by_rule() {
        assert_eq!(run("a.test:80", StripPort::Keep, false), "a.test:80");
        assert_eq!(run("a.test:80", StripPort::Matching, false), "a.test");
        assert_eq!(run("a.test:81", StripPort::Matching, false), "a.test:81");
        assert_eq!(run("a.test:81", StripPort::Any, false), "a.test");
        assert_eq!(run("a.test:x", StripPort::Any, false), "a.test:x");
        assert_eq!(run("[::1]", StripPort::Any, false), "[::1]");
        assert_eq!(run("[::1]:80", StripPort::Any, false), "[::1]");
    }

    #[test]
    fn the_trailing_dot_goes_also_before_a_port() {
        assert_eq!(run("a.test.", StripPort::Keep, true), "a.test");
        assert_eq!(run("a.test.:80", StripPort::Keep, true), "a.test:80");
        assert_eq!(run("a.test.:80", StripPort::Any, true), "a.test");
        assert_eq!(run("a.test", StripPort::Keep, true), "a.test");
        assert_eq!(run("test", StripPort::Keep, true), "test");
    }
}
