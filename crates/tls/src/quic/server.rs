//! What a listener's QUIC connections begin with.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use rustls::quic::Suite;
use tidegate_config::listener::UdpListenerConfig;
use tidegate_config::protocol::Http3Options;
use tidegate_quic::ServerConfig;
use tidegate_quic::crypto::{initial_keys, retry_tag};
use tidegate_quic::proto::crypto::{self, HandshakeTokenKey, Keys, UnsupportedVersion};
use tidegate_quic::proto::transport_parameters::TransportParameters;
use tidegate_quic::proto::{ConnectionId, Side};

use super::picked::{Pick, Picked};
use super::server_transport;
use super::session::initial_suite;

/// What the connections of a listener get: `pick` chooses among its TLS contexts. `options` are those of its
/// connection managers, as far as they are alike. `None` if the library lacks what QUIC needs, or randomness.
pub fn server_config(
    pick: Arc<dyn Pick>,
    listener: &UdpListenerConfig,
    options: &Http3Options,
) -> Option<ServerConfig> {
    let crypto = Arc::new(Contexts { pick, suite: initial_suite()? });
    let mut config = ServerConfig::new(crypto, token_key()?);
    config.transport_config(Arc::new(server_transport(listener, options)));
    config.migration(!listener.disable_active_migration);
    Some(config)
}

/// The key of tokens that prove addresses (RFC 9000 §8.1): all listeners of the process share it, so that a token
/// outlives a reload and is good on every worker.
fn token_key() -> Option<Arc<dyn HandshakeTokenKey>> {
    static KEY: OnceLock<Option<Arc<dyn HandshakeTokenKey>>> = OnceLock::new();
    let made = KEY.get_or_init(|| {
        let mut secret = [0; 64];
        rand::fill(&mut secret).ok()?;
        Some(Arc::new(Salt::new(HKDF_SHA256, &[]).extract(&secret)))
    });
    made.clone()
}

struct Contexts {
    pick: Arc<dyn Pick>,
    suite: Suite,
}

impl crypto::ServerConfig for Contexts {
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        match version {
            VERSION_1 => Ok(initial_keys(self.suite, id, Side::Server.into())),
            _ => Err(UnsupportedVersion),
        }
    }

    fn retry_tag(&self, _: u32, original: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        retry_tag(original, packet)
    }

    fn start_session(self: Arc<Self>, _: u32, parameters: &TransportParameters) -> Box<dyn crypto::Session> {
        let mut encoded = Vec::new();
        parameters.write(&mut encoded);
        Box::new(Picked::new(self.pick.clone(), self.suite, encoded))
    }
}

/// RFC 9000 §15.
const VERSION_1: u32 = 1;
