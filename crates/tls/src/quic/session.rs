//! One TLS session inside QUIC: what access logs and statistics need to know of it.

use std::any::Any;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::quic::{Connection, Suite};
use tidegate_quic::crypto::Handshake;
use tidegate_quic::proto::crypto::Session as _;
use tidegate_quic::proto::crypto::{self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey};
use tidegate_quic::proto::transport_parameters::TransportParameters;
use tidegate_quic::proto::{ConnectionId, Side, TransportError, TransportErrorCode};
use tidegate_types::{CertificateInfo, CertificateMarks, TlsInfo};

use super::words;
use crate::failure::Counted;
use crate::io::Settings;
use crate::observed::{Observed, collect};
use crate::{certificate, names};

/// What a session leaves for those who ask its connection.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Until its connection's owner takes it. quinn-proto wants sessions that threads could share; no two ever do.
    info: Mutex<Option<Box<TlsInfo>>>,
}

impl Facts {
    fn set(&self, info: TlsInfo) {
        *self.info.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(info));
    }

    /// A copy.
    pub(super) fn info(&self) -> Option<TlsInfo> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner).as_deref().cloned()
    }

    /// The facts; from then on there are none.
    pub(super) fn take(&self) -> Option<TlsInfo> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner).take().map(|info| *info)
    }
}

/// A session of either side.
pub(crate) struct Session {
    inner: tidegate_quic::crypto::Session,
    settings: Arc<Settings>,
    facts: Arc<Facts>,
    side: Side,
    /// The name that a client asked for; a server reads it.
    asked: Option<Arc<str>>,
    /// Keys were agreed on.
    answered: bool,
    /// The facts were noted.
    noted: bool,
}

impl Session {
    /// `suite` is that of Initial packets.
    pub(crate) fn new(tls: Connection, suite: Suite, settings: Arc<Settings>) -> Self {
        let side = match tls {
            Connection::Client(_) => Side::Client,
            Connection::Server(_) => Side::Server,
        };
        let inner = tidegate_quic::crypto::Session::new(tls, suite);
        Self { inner, settings, facts: Arc::default(), side, asked: None, answered: false, noted: false }
    }

    /// Notes the name that a client asks for.
    pub(super) fn asking(self, asked: Option<Arc<str>>) -> Self {
        Self { asked, ..self }
    }

    /// Notes the facts, once they will not change any more: those of a resumed session are those of the former one.
    fn note(&mut self) {
        if self.noted {
            return;
        }
        let Handshake { alpn, server_name, cipher, group, is_resumed, session: _ } = self.inner.handshake();
        let settled = is_resumed || !self.inner.is_handshaking();
        let Some(cipher) = cipher.filter(|_| settled) else { return };
        let peer = self.inner.certificates().and_then(|chain| certificate::remembered(&chain));
        self.noted = true;
        self.facts.set(TlsInfo {
            version: "TLSv1.3",
            cipher: names::cipher(cipher),
            group: group.map(names::curve).unwrap_or_default(),
            server_name: server_name
                .map(|name| name.to_ascii_lowercase().into())
                .or_else(|| self.asked.clone()),
            alpn,
            resumed: is_resumed,
            session_id: String::new(),
            peer_issuer: peer.as_deref().and_then(|peer| self.issuer(peer)),
            peer_validated: peer.is_some() && self.settings.peer_validated,
            peer,
            // Envoy does not tell it either.
            local: None,
        });
    }

    /// What a client is told; of a client's own failure the pools find words.
    fn worded(&self, error: TransportError) -> TransportError {
        let code = u64::from(error.code);
        // RFC 9001 §4.8.
        match (self.side, u8::try_from(code & 0xff)) {
            (Side::Server, Ok(alert)) if code >> 8 == 1 => {
                TransportError { reason: words::reason(alert, self.answered), ..error }
            }
            _ => error,
        }
    }

    fn issuer(&self, peer: &CertificateInfo) -> Option<CertificateMarks> {
        if let Some(sent) = peer.marks.get(1) {
            return Some(sent.clone());
        }
        let mut authorities = self.settings.authorities.iter();
        authorities.find(|authority| authority.subject == peer.issuer)?.marks.first().cloned()
    }
}

impl crypto::Session for Session {
    fn initial_keys(&self, id: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(id, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(Handshake { session: Some(self.facts.clone()), ..self.inner.handshake() }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let read = self.inner.read_handshake(bytes);
        let mut observed = Observed::default();
        collect(&mut observed);
        // As in Envoy nothing else is counted inside QUIC: `ssl.handshake` and its like stay 0.
        if let (Err(_), Some(refusal)) = (&read, observed.refusal) {
            Counted::Refused(refusal.kind).count(self.settings.stats.counters());
        }
        self.note();
        read.map_err(|error| self.worded(error))
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, into: &mut Vec<u8>) -> Option<Keys> {
        let keys = self.inner.write_handshake(into);
        self.answered |= keys.is_some();
        self.note();
        keys
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, id: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(id, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

/// An error that TLS has no alert for.
pub(super) fn fault(code: TransportErrorCode, reason: &str) -> TransportError {
    TransportError { code, frame: None, reason: reason.to_owned() }
}

/// The suite of Initial packets; `None` if the library lacks it.
pub(super) fn initial_suite() -> Option<Suite> {
    static SUITE: OnceLock<Option<Suite>> = OnceLock::new();
    let find = || tidegate_quic::crypto::initial_suite(&rustls::crypto::aws_lc_rs::default_provider()).ok();
    *SUITE.get_or_init(find)
}
