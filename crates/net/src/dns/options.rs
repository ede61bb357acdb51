//! How servers are asked.

use std::net::SocketAddr;
use std::time::Duration;

/// What a resolver is configured with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResolverOptions {
    /// Servers; empty: the system's. Port 0 is 53.
    pub servers: Vec<SocketAddr>,
    /// `servers` hold only where the system names none.
    pub servers_are_fallback: bool,
    /// Asks for no family that no interface of this machine has.
    pub filter_unroutable_families: bool,
    /// Asks over TCP only.
    pub tcp: bool,
    /// Takes names as they are, without the system's search domains.
    pub no_search: bool,
    /// How long a server is waited for in the first round; doubled in each further one.
    pub timeout: Duration,
    /// How many rounds there are.
    pub tries: u32,
    /// Look-ups begin with one server after the other, not all with the first.
    pub rotate: bool,
    /// The largest answer over UDP that is asked for, bytes (EDNS, RFC 6891 section 6.2.3).
    pub max_payload: u16,
}

impl Default for ResolverOptions {
    /// Envoy's.
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            servers_are_fallback: false,
            filter_unroutable_families: false,
            tcp: false,
            no_search: false,
            timeout: Duration::from_secs(5),
            tries: 4,
            rotate: false,
            max_payload: 1232,
        }
    }
}
