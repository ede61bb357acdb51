//! What rustls tells only to its call-backs (certificate resolvers, verifiers), kept for the connection
//! whose bytes are being processed.
//!
//! Call-backs are shared by all connections and run inside the processing of one connection's bytes, on its
//! worker: what they note belongs to that connection.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::SignatureScheme;
use tidegate_types::CertificateInfo;

/// Notes of one stretch of processing.
#[derive(Debug, Default)]
pub struct Observed {
    /// The name that the client asked for, in lower case.
    pub server_name: Option<Arc<str>>,
    /// The certificate that we showed.
    pub local: Option<Arc<CertificateInfo>>,
    /// How the peer signed the handshake.
    pub signature: Option<SignatureScheme>,
    /// Why our verifier refused the peer.
    pub refusal: Option<Refusal>,
    /// The certificate that the refused peer showed.
    pub refused: Option<Arc<CertificateInfo>>,
}

/// Why a verifier refused the peer's certificate, beyond what a rustls error can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Under which statistic it counts.
    pub kind: RefusalKind,
    /// BoringSSL's and Envoy's words, with blanks (`X509_verify_cert: certificate verification error at
    /// depth 0: certificate has expired`).
    pub text: String,
}

/// The statistic that a refusal counts under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// `ssl.fail_verify_error`.
    Chain,
    /// `ssl.fail_verify_san`.
    Name,
    /// `ssl.fail_verify_cert_hash`.
    Hash,
    /// None: BoringSSL gives up before Envoy's checks, without a word.
    Untold,
}

/// Notes the scheme of the peer's signature: for verifiers, in `verify_tls1x_signature`.
pub fn note_signature(scheme: SignatureScheme) {
    NOTES.with_borrow_mut(|notes| notes.signature = Some(scheme));
}

/// Notes which certificate is refused and why: for verifiers, before they return their error.
pub fn note_refusal(kind: RefusalKind, text: impl Into<String>, peer: Option<Arc<CertificateInfo>>) {
    NOTES.with_borrow_mut(|notes| {
        notes.refusal = Some(Refusal { kind, text: text.into() });
        notes.refused = peer;
    });
}

/// Notes the client's server name and the certificate chosen for it: for resolvers.
pub fn note_choice(server_name: Option<&str>, local: Option<Arc<CertificateInfo>>) {
    NOTES.with_borrow_mut(|notes| {
        notes.server_name = server_name.map(Arc::from);
        notes.local = local;
    });
}

/// Moves the notes of the processing that just ended into `into`; what was not noted stays as it was.
pub(crate) fn collect(into: &mut Observed) {
    NOTES.with_borrow_mut(|notes| {
        let Observed { server_name, local, signature, refusal, refused } = std::mem::take(notes);
        into.server_name = server_name.or(into.server_name.take());
        into.local = local.or(into.local.take());
        into.signature = signature.or(into.signature);
        into.refusal = refusal.or(into.refusal.take());
        into.refused = refused.or(into.refused.take());
    });
}

thread_local! {
    static NOTES: RefCell<Observed> = RefCell::default();
}
