//! Whom we trust: what a `CertificateValidationContext` says, as Envoy's validator heeds it.
//!
//! Both sides use it: [`ServerVerifier`] looks at hosts, [`ClientVerifier`] at clients. The order is Envoy's: the
//! chain (only with `trusted_ca`), then names, then pinned hashes. Signatures of the handshake are always
//! checked. Why a peer is refused is noted with [`crate::observed::note_refusal`], in BoringSSL's words.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error, OtherError};
use tidegate_config::tls::{TrustChain, ValidationConfig};
use tidegate_types::json::Problem;

use crate::certificate;
use crate::failure::Counted;
use crate::observed::{RefusalKind, note_refusal};
use crate::stats::TlsStats;

mod chain;
mod names;
mod revocation;
mod roles;

pub use roles::{ClientVerifier, HostNames, ServerVerifier};

use chain::{Chain, Purpose};
use names::{NameRules, Names};

/// A validation context, ready to judge.
#[derive(Debug)]
pub struct Trust {
    /// `None` without `trusted_ca`: any chain will do.
    chain: Option<Chain>,
    names: NameRules,
    certificate_hashes: Vec<[u8; 32]>,
    spki_hashes: Vec<[u8; 32]>,
    untrusted: TrustChain,
    stats: TlsStats,
}

impl Trust {
    /// Reads the certificates and revocation lists of `config`; `None` trusts everybody.
    ///
    /// # Errors
    /// What is wrong with their content.
    pub fn new(config: Option<&ValidationConfig>, stats: TlsStats) -> Result<Arc<Self>, Vec<Problem>> {
        let Some(config) = config else { return Ok(Arc::new(Self::everybody(stats))) };
        Ok(Arc::new(Self {
            chain: Chain::new(config)?,
            names: NameRules::new(&config.names),
            certificate_hashes: config.certificate_hashes.clone(),
            spki_hashes: config.spki_hashes.clone(),
            untrusted: config.trust_chain,
            stats,
        }))
    }

    fn everybody(stats: TlsStats) -> Self {
        Self {
            chain: None,
            names: NameRules::default(),
            certificate_hashes: Vec::new(),
            spki_hashes: Vec::new(),
            untrusted: TrustChain::Verify,
            stats,
        }
    }

    /// Whether a peer that passes was verified against a trusted authority.
    pub fn validates(&self) -> bool {
        self.chain.is_some() && self.untrusted == TrustChain::Verify
    }

    /// Whether there is anything to check at all: without, Envoy asks clients for no certificate.
    pub fn checks_anything(&self) -> bool {
        self.chain.is_some() || !self.certificate_hashes.is_empty() || !self.spki_hashes.is_empty()
    }

    /// Judges a peer. `expected` are names of which the certificate must carry one, beside the configured
    /// rules.
    fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        purpose: Purpose,
        expected: &Expected<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let verdict = self.judge(chain, purpose, expected, now);
        let Err(refused) = verdict else { return Ok(()) };
        if self.untrusted == TrustChain::AcceptUntrusted {
            // Envoy counts it, and goes on.
            Counted::Refused(refused.kind).count(self.stats.counters());
            return Ok(());
        }
        note_refusal(refused.kind, refused.text, certificate::remembered(chain));
        Err(Error::InvalidCertificate(refused.error))
    }

    fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        purpose: Purpose,
        expected: &Expected<'_>,
        now: UnixTime,
    ) -> Result<(), Refused> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(Refused::chain(0, "no certificate", CertificateError::BadEncoding));
        };
        if let Some(trusted) = &self.chain {
            trusted.verify(leaf, intermediates, purpose, now)?;
        }
        if self.names.is_empty() && matches!(expected, Expected::Any) && !self.pins() {
            return Ok(());
        }
        let names = Names::of(leaf)
            .ok_or_else(|| Refused::chain(0, "certificate cannot be read", CertificateError::BadEncoding))?;
        match expected {
            Expected::Any => {}
            // A name proves nothing when anybody may have signed it.
            Expected::OneOf(_) if self.chain.is_none() => return Err(Refused::unsigned_name()),
            Expected::OneOf(list) if !list.iter().any(|name| names.carries(name)) => {
                let text = format!(
                    "verify SAN list, expected SANs: [{}], certificate SANs: [{}]",
                    list.join(", "),
                    names.list()
                );
                return Err(Refused::name(text));
            }
            Expected::ServerName(name) if !names.carries(name) => {
                return Err(Refused::name(format!("SAN matcher, certificate SANs are [{}]", names.list())));
            }
            Expected::OneOf(_) | Expected::ServerName(_) => {}
        }
        if !self.names.is_empty() && !self.names.accept(&names) {
            return Err(Refused::name(format!("SAN matcher, certificate SANs are [{}]", names.list())));
        }
        if self.pins() && !self.is_pinned(leaf, &names) {
            return Err(Refused::hash());
        }
        Ok(())
    }

    fn pins(&self) -> bool {
        !self.certificate_hashes.is_empty() || !self.spki_hashes.is_empty()
    }

    /// Either list suffices.
    fn is_pinned(&self, leaf: &CertificateDer<'_>, names: &Names) -> bool {
        let is = |pins: &[[u8; 32]], bytes: &[u8]| {
            let hash = digest(&SHA256, bytes);
            pins.iter().any(|pin| pin.as_slice() == hash.as_ref())
        };
        is(&self.certificate_hashes, leaf) || is(&self.spki_hashes, &names.public_key_info)
    }
}

/// Names that a connection asks for.
#[derive(Debug)]
enum Expected<'a> {
    Any,
    /// `auto_san_validation`.
    OneOf(&'a [String]),
    /// `auto_sni_san_validation`.
    ServerName(&'a str),
}

/// A verdict against the peer.
#[derive(Debug)]
struct Refused {
    kind: RefusalKind,
    text: String,
    error: CertificateError,
}

impl Refused {
    /// `depth` counts from the leaf.
    fn chain(depth: usize, why: &str, error: CertificateError) -> Self {
        let text = format!("X509_verify_cert: certificate verification error at depth {depth}: {why}");
        Self { kind: RefusalKind::Chain, text, error }
    }

    fn name(text: String) -> Self {
        Self { kind: RefusalKind::Name, text, error: other("no name matches") }
    }

    fn unsigned_name() -> Self {
        Self {
            kind: RefusalKind::Untold,
            text: String::new(),
            error: other("a name without `trusted_ca` proves nothing"),
        }
    }

    fn hash() -> Self {
        Self {
            kind: RefusalKind::Hash,
            text: "cert hash and spki".to_owned(),
            error: other("no pinned hash matches"),
        }
    }
}

/// An error whose alert is `certificate_unknown` (RFC 8446 §6.2).
fn other(text: &'static str) -> CertificateError {
    CertificateError::Other(OtherError(Arc::new(Mismatch(text))))
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Mismatch(&'static str);
