//! One connection's TLS session.

use std::any::Any;
use std::borrow::Cow;
use std::io::Cursor;
use std::sync::Arc;

use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectionId, Side, TransportError, TransportErrorCode, crypto};
use rustls::pki_types::CertificateDer;
use rustls::quic::{Connection, KeyChange, Suite};
use rustls::{AlertDescription, CipherSuite, HandshakeKind, NamedGroup};

use super::keys::varint;
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
    /// What a session that is not this crate's leaves for those who know it.
    pub session: Option<Arc<dyn Any + Send + Sync>>,
}

/// A TLS session of either side, as quinn-proto drives it. May be wrapped by one that knows more.
pub struct Session {
    tls: Tls,
    suite: Suite,
    /// Later generations of the packet keys.
    later: Option<keys::Later>,
    /// quinn-proto knows that names and protocol are settled.
    is_announced: bool,
}

/// The session proper, or what is left of it. A server hears nothing more of TLS once the handshake is over and its
/// tickets are sent, and rustls holds 4.5 KB for what does not come.
enum Tls {
    Live(Box<Connection>),
    Over(Box<Facts>),
}

#[derive(Default)]
struct Facts {
    handshake: Handshake,
    certificates: Option<Vec<CertificateDer<'static>>>,
}

impl Session {
    /// A session of `tls`; `suite` is that of Initial packets.
    pub fn new(tls: Connection, suite: Suite) -> Self {
        Self { tls: Tls::Live(Box::new(tls)), suite, later: None, is_announced: false }
    }

    fn live(&self) -> Option<&Connection> {
        match &self.tls {
            Tls::Live(tls) => Some(tls),
            Tls::Over(_) => None,
        }
    }

    /// What the handshake has settled so far.
    pub fn handshake(&self) -> Handshake {
        let tls = match &self.tls {
            Tls::Live(tls) => tls,
            Tls::Over(facts) => return facts.handshake.clone(),
        };
        Handshake {
            alpn: tls.alpn_protocol().map(<[u8]>::to_vec),
            server_name: server_name(tls).map(str::to_owned),
            cipher: tls.negotiated_cipher_suite().map(|suite| suite.suite()),
            group: tls.negotiated_key_exchange_group().map(|group| group.name()),
            is_resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
            session: None,
        }
    }

    /// The peer's certificates, its own first.
    pub fn certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        match &self.tls {
            Tls::Live(tls) => {
                let certificates = tls.peer_certificates()?.iter();
                Some(certificates.map(|certificate| certificate.clone().into_owned()).collect())
            }
            Tls::Over(facts) => facts.certificates.clone(),
        }
    }

    /// Lets go of what only a handshake needs.
    fn retire(&mut self) {
        let facts = Facts { handshake: self.handshake(), certificates: self.certificates() };
        self.tls = Tls::Over(Box::new(facts));
    }
}

fn server_name(tls: &Connection) -> Option<&str> {
    match tls {
        Connection::Client(_) => None,
        Connection::Server(server) => server.server_name(),
    }
}

impl crypto::Session for Session {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> crypto::Keys {
        keys::initial(self.suite, dst_cid, rustls_side(side))
    }

    /// A [`Handshake`].
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.handshake()))
    }

    /// A `Vec<CertificateDer<'static>>`.
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.certificates()?))
    }

    fn early_crypto(&self) -> Option<(Box<dyn crypto::HeaderKey>, Box<dyn crypto::PacketKey>)> {
        let keys = self.live()?.zero_rtt_keys()?;
        Some((keys::header(keys.header), keys::packet(keys.packet)))
    }

    fn early_data_accepted(&self) -> Option<bool> {
        match self.live()? {
            Connection::Client(client) => Some(client.is_early_data_accepted()),
            Connection::Server(_) => None,
        }
    }

    fn is_handshaking(&self) -> bool {
        self.live().is_some_and(|tls| tls.is_handshaking())
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let Tls::Live(tls) = &mut self.tls else {
            // A client has nothing more to say; key updates are QUIC's own (RFC 9001 section 6).
            let alert = u8::from(AlertDescription::UnexpectedMessage);
            return Err(failure(
                TransportErrorCode::crypto(alert),
                "a message after the handshake".to_owned(),
            ));
        };
        tls.read_hs(bytes).map_err(|error| match tls.alert() {
            Some(alert) => failure(TransportErrorCode::crypto(alert.into()), error.to_string()),
            None => failure(TransportErrorCode::PROTOCOL_VIOLATION, format!("TLS error: {error}")),
        })?;
        // rustls does not say when a server has understood the ClientHello or a client the ServerHello: what becomes
        // known by it does.
        let is_known = tls.alpn_protocol().is_some() || server_name(tls).is_some() || !tls.is_handshaking();
        let is_news = is_known && !self.is_announced;
        self.is_announced |= is_known;
        Ok(is_news)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Some(tls) = self.live() else { return Ok(None) };
        let side = match tls {
            Connection::Client(_) => Side::Client,
            Connection::Server(_) => Side::Server,
        };
        let Some(bytes) = tls.quic_transport_parameters() else { return Ok(None) };
        let bytes = with_one_spare_id(bytes);
        Ok(Some(TransportParameters::read(side, &mut Cursor::new(&bytes[..]))?))
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<crypto::Keys> {
        let Tls::Live(tls) = &mut self.tls else { return None };
        let before = bytes.len();
        let Some(change) = tls.write_hs(bytes) else {
            let is_over = bytes.len() == before && !tls.is_handshaking();
            if is_over && matches!(**tls, Connection::Server(_)) {
                self.retire();
            }
            return None;
        };
        let keys = match change {
            KeyChange::Handshake { keys } => keys,
            KeyChange::OneRtt { keys, next } => {
                self.later = Some(keys::Later::new(next));
                keys
            }
        };
        Some(keys::pair(keys))
    }

    fn next_1rtt_keys(&mut self) -> Option<crypto::KeyPair<Box<dyn crypto::PacketKey>>> {
        Some(self.later.as_mut()?.next_keys())
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        retry::is_valid(orig_dst_cid, header, payload)
    }

    /// Only while the handshake lasts, on a server.
    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), crypto::ExportKeyingMaterialError> {
        let tls = self.live().ok_or(crypto::ExportKeyingMaterialError)?;
        let exported = tls.export_keying_material(output, label, Some(context));
        exported.map(drop).map_err(|_| crypto::ExportKeyingMaterialError)
    }
}

/// A peer's transport parameters, with `active_connection_id_limit` no higher than 2 (RFC 9000 section 18.2): quinn-proto
/// issues as many ids as the peer takes, each of which costs a token, 35 bytes on the wire and 100 of memory, for a client
/// that may change its address once or twice. One spare id, as Envoy issues; a used one is replaced.
fn with_one_spare_id(parameters: &[u8]) -> Cow<'_, [u8]> {
    const LIMIT: u64 = 0x0e;
    let mut at = 0;
    while let (Some(id), Some(length)) = (varint(parameters, &mut at), varint(parameters, &mut at)) {
        let Some(end) = usize::try_from(length).ok().and_then(|length| at.checked_add(length)) else { break };
        if id == LIMIT {
            let mut value_end = at;
            let value = varint(parameters, &mut value_end);
            if value.is_some_and(|value| value > 2)
                && value_end == end
                && let Some(value) = parameters.get(at..end)
            {
                // The same number of bytes, which tell their number in the first two bits (RFC 9000 section 16).
                let mut changed = parameters.to_vec();
                let form = value.first().map_or(0, |first| first & 0xc0);
                if let Some(value) = changed.get_mut(at..end) {
                    value.fill(0);
                    if let Some(last) = value.last_mut() {
                        *last = 2;
                    }
                    if let Some(first) = value.first_mut() {
                        *first |= form;
                    }
                }
                return Cow::Owned(changed);
            }
            break;
        }
        at = end;
    }
    Cow::Borrowed(parameters)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_takes_many_ids_gets_one_spare() {
        // Idle time of 30 s, then the limit in each of its lengths, then something else.
        let with = |limit: &[u8]| {
            [&[0x01, 0x02, 0x75, 0x30, 0x0e, limit.len() as u8][..], limit, &[0x0c, 0x00]].concat()
        };
        let pairs: [(&[u8], &[u8]); 5] = [
            (&[5], &[2]),
            (&[2], &[2]),
            (&[0x40, 8], &[0x40, 2]),
            (&[0x80, 0, 1, 0], &[0x80, 0, 0, 2]),
            (&[0xc0, 0, 0, 0, 0, 0, 0, 9], &[0xc0, 0, 0, 0, 0, 0, 0, 2]),
        ];
        for (limit, expected) in pairs {
            assert_eq!(*with_one_spare_id(&with(limit)), with(expected));
        }
        // What is no list of parameters is for quinn-proto to refuse.
        let broken: [&[u8]; 5] = [&[], &[0x0e], &[0x0e, 2, 5], &[0x0e, 1, 0x40], &[0x01, 0xff, 0x0e, 1, 5]];
        for parameters in broken {
            assert_eq!(*with_one_spare_id(parameters), *parameters);
        }
    }
}
