//! Listener filters: they see a connection's first bytes and its addresses before a filter chain is chosen.

use std::borrow::Cow;
use std::sync::Arc;

use tidegate_types::Address;

/// What is known of a connection before it is one: listener filters fill it in, the filter-chain match reads it.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The address that the client connected to.
    pub local_address: Address,
    /// The peer of the socket, whatever a PROXY header says.
    pub direct_remote_address: Address,
    /// The client: the peer, or who a PROXY header says it speaks for.
    pub remote_address: Address,
    /// The name that the client asks for, in lower case.
    pub server_name: Option<Arc<str>>,
    /// `tls` or `raw_buffer`, once a filter has found out.
    pub transport_protocol: Option<Cow<'static, str>>,
    /// The protocols that the client offers (ALPN), or the one that it was heard to speak; the best first.
    pub application_protocols: Vec<Vec<u8>>,
}

impl Arrival {
    /// A connection of which only the addresses are known.
    pub fn new(local_address: Address, peer: Address) -> Self {
        Self {
            local_address,
            direct_remote_address: peer.clone(),
            remote_address: peer,
            server_name: None,
            transport_protocol: None,
            application_protocols: Vec::new(),
        }
    }
}
