//! One connection's TLS session.

use std::any::Any;
use std::io::Cursor;

use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode, crypto};
use rustls::pki_types::CertificateDer;
use rustls::quic::{Connection, KeyChange, Secrets, Suite};
use rustls::{CipherSuite, HandshakeKind, NamedGroup};

use super::{keys, retry};

/// What the handshake has settled so far.
#[derive(Debug, Clone, Default)]
pub struct Handshake {
    /// The protocol agreed on by ALPN.
    pub alpn: Option<Vec<u8>>,
    /// The name that the client asked for; always `None` on a client.
    pub server_name: Option<String>,
    /// The cipher suite.
    pub cipher: Option<CipherSuite>,
    /// The group of the key exchange.
    pub group: Option<NamedGroup>,
    /// Whether an earlier session was resumed.
    pub is_resumed: bool,
}

pub(super) struct Session {
    tls: Connection,
    suite: Suite,
    /// Later generations of the packet keys.
    later: Option<Secrets>,
    /// quinn-proto knows that names and protocol are settled.
    is_announced: bool,
}

impl Session {
    pub(super) fn new(tls: Connection, suite: Suite) -> Self {
        Self { tls, suite, later: None, is_announced: false }
    }

    fn server_name(&self) -> Option<&str> {
        match &self.tls {
            Connection::Client(_) => None,
            Connection::Server(server) => server.server_name(),
        }
    }
}

impl crypto::Session for Session {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> crypto::Keys {
        keys::initial(&self.suite, dst_cid, rustls_side(side))
    }

    /// A [`Handshake`].
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(Handshake {
            alpn: self.tls.alpn_protocol().map(<[u8]>::to_vec),
            server_name: self.server_name().map(str::to_owned),
            cipher: self.tls.negotiated_cipher_suite().map(|suite| suite.suite()),
            group: self.tls.negotiated_key_exchange_group().map(|group| group.name()),
            is_resumed: self.tls.handshake_kind() == Some(HandshakeKind::Resumed),
        }))
    }

    /// A `Vec<CertificateDer<'static>>`.
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        let certificates: Vec<CertificateDer<'static>> = self
            .tls
            .peer_certificates()?
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        Some(Box::new(certificates))
    }

    fn early_crypto(&self) -> Option<(Box<dyn crypto::HeaderKey>, Box<dyn crypto::PacketKey>)> {
        let keys = self.tls.zero_rtt_keys()?;
        Some((keys::header(keys.header), keys::packet(keys.packet)))
    }

    fn early_data_accepted(&self) -> Option<bool> {
        match &self.tls {
            Connection::Client(client) => Some(client.is_early_data_accepted()),
            Connection::Server(_) => None,
        }
    }

    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.tls.read_hs(bytes).map_err(|error| match self.tls.alert() {
            Some(alert) => failure(TransportErrorCode::crypto(alert.into()), error.to_string()),
            None => failure(TransportErrorCode::PROTOCOL_VIOLATION, format!("TLS error: {error}")),
        })?;
        // rustls does not say when a server has understood the ClientHello or a client the ServerHello: what becomes
        // known by it does.
        let is_known =
            self.tls.alpn_protocol().is_some() || self.server_name().is_some() || !self.tls.is_handshaking();
        let is_news = is_known && !self.is_announced;
        self.is_announced |= is_known;
        Ok(is_news)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let side = match self.tls {
            Connection::Client(_) => Side::Client,
            Connection::Server(_) => Side::Server,
        };
        let Some(bytes) = self.tls.quic_transport_parameters() else { return Ok(None) };
        Ok(Some(TransportParameters::read(side, &mut Cursor::new(bytes))?))
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<crypto::Keys> {
        let keys = match self.tls.write_hs(bytes)? {
            KeyChange::Handshake { keys } => keys,
            KeyChange::OneRtt { keys, next } => {
                self.later = Some(next);
                keys
            }
        };
        Some(keys::pair(keys))
    }

    fn next_1rtt_keys(&mut self) -> Option<crypto::KeyPair<Box<dyn crypto::PacketKey>>> {
        let next = self.later.as_mut()?.next_packet_keys();
        Some(crypto::KeyPair { local: keys::packet(next.local), remote: keys::packet(next.remote) })
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        retry::is_valid(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), crypto::ExportKeyingMaterialError> {
        let exported = self.tls.export_keying_material(output, label, Some(context));
        exported.map(drop).map_err(|_| crypto::ExportKeyingMaterialError)
    }
}

fn failure(code: TransportErrorCode, reason: String) -> TransportError {
    TransportError { code, frame: None, reason }
}

fn rustls_side(side: Side) -> rustls::Side {
    match side {
        Side::Client => rustls::Side::Client,
        Side::Server => rustls::Side::Server,
    }
}
