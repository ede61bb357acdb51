//! What a handshake's success brings: facts and counts.

use std::rc::Rc;

use rustls::HandshakeKind;
use tidegate_types::{CertificateInfo, CertificateMarks, TlsInfo};

use super::TlsIo;
use super::session::Session;
use crate::{certificate, names};

impl TlsIo {
    /// Notes and counts the session.
    pub(super) fn establish(&mut self) {
        let common = self.session.common();
        let version = common.protocol_version().map_or("TLSv1.2", names::version);
        let cipher = common.negotiated_cipher_suite().map_or("unknown", |suite| names::cipher(suite.suite()));
        let curve = common.negotiated_key_exchange_group().map(|group| names::curve(group.name()));
        let peer = common.peer_certificates().and_then(certificate::remembered);
        let resumed = common.handshake_kind() == Some(HandshakeKind::Resumed);

        let stats = &self.settings.stats;
        let counters = stats.counters();
        counters.handshake().inc();
        if resumed {
            counters.session_reused().inc();
        }
        if peer.is_none() {
            counters.no_certificate().inc();
        }
        stats.count("versions", version);
        stats.count("ciphers", cipher);
        if let Some(curve) = curve {
            stats.count("curves", curve);
        }
        if let Some(scheme) = self.observed.signature {
            stats.count("sigalgs", names::signature_scheme(scheme));
        }

        let local = match self.session {
            Session::Server(_) => self.observed.local.take(),
            Session::Client(_) => self.settings.local.clone(),
        };
        let info = Rc::new(TlsInfo {
            version,
            cipher,
            group: curve.unwrap_or_default(),
            server_name: self.observed.server_name.take(),
            alpn: common.alpn_protocol().map(<[u8]>::to_vec),
            resumed,
            // rustls keeps the identifiers of TLS 1.2 to itself; TLS 1.3 has none.
            session_id: String::new(),
            peer_issuer: peer.as_deref().and_then(|peer| self.issuer(peer)),
            peer_validated: peer.is_some() && self.settings.peer_validated,
            peer,
            local,
        });
        if let Some(connection) = &self.connection {
            // The first handshake is the only one.
            let _ = connection.tls.set(info.clone());
        }
        self.info = Some(info);
        self.deadline = None;
    }

    fn issuer(&self, peer: &CertificateInfo) -> Option<CertificateMarks> {
        if let Some(sent) = peer.marks.get(1) {
            return Some(sent.clone());
        }
        let mut authorities = self.settings.authorities.iter();
        authorities.find(|authority| authority.subject == peer.issuer)?.marks.first().cloned()
    }
}
